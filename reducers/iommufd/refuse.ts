import type { Call } from '../call.js';
import type { Refusal } from './rules.js';

/**
 * Predicts what a refusal says. True: the handler stops. Where the recording shows the error of a check before,
 * which may have failed for all that is known, that check decided, and the answer is unknown.
 */
export function predictRefusal(call: Call, refused: Refusal): boolean {
  for (const doubt of refused.earlier) if (call.failedByFact(doubt.mayBe, doubt.unknown)) return true;
  return refused.unknown === '' ? call.fail(refused.errno, refused.rule) : !call.unknown(refused.unknown);
}
