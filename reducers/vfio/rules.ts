import type { Call } from '../call.js';
import { profileOf } from '../profile.js';
import type { Rule } from '../iommufd/rules.js';

export type { Rule };

/** Predicts the failure that a rule stands for. True: the handler stops; see `Call.fail`. */
export function refuse(call: Call, rule: Rule): boolean {
  return call.fail(rule.errno, rule.id);
}

/** {@link refuse} for a range that passes 2^64, whose error depends on the release. */
export function refuseOverflow(call: Call, rule: Rule): boolean {
  return call.fail(profileOf(call.tx).rangeOverflowErrno, rule.id);
}
