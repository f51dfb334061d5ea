import type { Verdict } from '../reducers/call.js';

/** How many calls got which verdict. */
export interface Counts {
  total: number;
  match: number;
  diverge: number;
  learned: number;
  unknown: number;
}

export function zeroCounts(): Counts {
  return { total: 0, match: 0, diverge: 0, learned: 0, unknown: 0 };
}

/** Verdicts counted over all calls and by command name. */
export class Tally {
  readonly all: Counts = zeroCounts();
  readonly #byCall = new Map<string, Counts>();

  add(call: string, verdict: Verdict): void {
    let counts = this.#byCall.get(call);
    if (counts === undefined) {
      counts = zeroCounts();
      this.#byCall.set(call, counts);
    }
    counts.total++;
    counts[verdict]++;
    this.all.total++;
    this.all[verdict]++;
  }

  /** By command, sorted by name, so that the output does not depend on the order of first use. */
  get byCall(): Record<string, Counts> {
    return Object.fromEntries([...this.#byCall].sort(([a], [b]) => (a < b ? -1 : 1)));
  }
}
