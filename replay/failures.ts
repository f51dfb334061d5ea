import type { Call } from '../reducers/call.js';

/** Calls that failed as the model predicts, for one reason; why they failed is what people ask first. */
export interface Failure {
  readonly call: string;
  readonly errno: string;
  readonly rule: string;
  readonly count: number;
  /** The first of them: event, file and line, and the state that the rule read. */
  readonly seq: number;
  readonly file: number;
  readonly line: number;
  readonly state: string;
}

/** Counts predicted failures by command and rule, and keeps the particulars of each first one. */
export class Failures {
  readonly #byRule = new Map<string, Map<string, { first: Failure; count: number }>>();

  /** Takes up a call that failed with a predicted error. */
  add(call: Call): void {
    const byCall = this.#byRule.get(call.rule) ?? new Map<string, { first: Failure; count: number }>();
    this.#byRule.set(call.rule, byCall);
    const known = byCall.get(call.name);
    if (known !== undefined) {
      known.count++;
      return;
    }
    const { errno, seq, file, line } = call.event;
    const first = { call: call.name, errno, rule: call.rule, count: 1, seq, file, line, state: call.stateRead };
    byCall.set(call.name, { first, count: 1 });
  }

  /** Most frequent first, then in the order of the recording. */
  get list(): Failure[] {
    const all = [...this.#byRule.values()].flatMap((byCall) => [...byCall.values()]);
    return all.map(({ first, count }) => ({ ...first, count })).sort((a, b) => b.count - a.count || a.seq - b.seq);
  }
}
