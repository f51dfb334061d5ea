import type { Call } from '../call.js';
import type { Rule } from '../iommufd/rules.js';

export type { Rule };

/** Predicts the failure that a rule stands for. True: the handler stops; see `Call.fail`. */
export function refuse(call: Call, rule: Rule): boolean {
  return call.fail(rule.errno, rule.id);
}
