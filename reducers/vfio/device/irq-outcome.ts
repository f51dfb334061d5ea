import type { Rule } from '../rules.js';
import type { DeviceIrqs } from '../state.js';

/** What a driver does with a request to set interrupts. */
export interface IrqOutcome {
  /** Why it fails, undefined for success. */
  readonly rule: Rule | undefined;
  /** State afterwards, undefined when nothing changes. */
  readonly after: DeviceIrqs | undefined;
  /** Why it cannot be known, '' when it is. */
  readonly unknown: string;
}

export function irqUnknown(reason: string): IrqOutcome {
  return { rule: undefined, after: undefined, unknown: reason };
}
