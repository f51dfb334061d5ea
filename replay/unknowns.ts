import type { CommandKind } from '../core/uapi/types.js';
import type { Call } from '../reducers/call.js';
import { type Candidate, candidates, possibleKinds } from '../reducers/candidates.js';
import { unknownReason } from '../reducers/compare.js';
import { knownOf, lacksOf, missingOf, type Lack } from './unknown-facts.js';

/** Calls that the model cannot judge, alike in command, outcome and cause; the particulars are the first one's. */
export interface UnknownGroup {
  readonly call: string;
  /** Error, '' for success, '?' where the recording has no result. */
  readonly outcome: string;
  /** Why the answer cannot be predicted. */
  readonly because: string;
  readonly count: number;
  readonly seq: number;
  readonly file: number;
  readonly line: number;
  /** The kinds of file that it can have been made on. */
  readonly kinds: readonly CommandKind[];
  /** What the recording tells all the same. */
  readonly known: readonly string[];
  /** What it does not tell. */
  readonly missing: readonly string[];
  /** The rules that can have given the recorded error, in the kernel's order; undefined where that is not the question. */
  readonly possible: readonly Candidate[] | undefined;
  /** What to record to settle it. */
  readonly record: readonly Lack[];
}

/** Groups beyond this number are not kept; the totals count their calls. */
const KEPT_MAX = 1000;

/** Collects unknown calls. Looking at one in detail happens for the first of its kind only. */
export class Unknowns {
  readonly #groups = new Map<string, { first: Omit<UnknownGroup, 'count'>; count: number }>();
  add(call: Call): void {
    const because = unknownReason(call);
    const { event } = call;
    const outcome = event.ret === null ? '?' : event.ret === -1 ? event.errno : '';
    const key = `${call.name}|${outcome}|${because}`;
    const group = this.#groups.get(key);
    if (group !== undefined) group.count++;
    else if (this.#groups.size < KEPT_MAX) this.#groups.set(key, { first: look(call, outcome, because), count: 1 });
  }

  /** Errors first, which people ask for; then the most frequent, then in the order of the recording. */
  get groups(): UnknownGroup[] {
    const all = [...this.#groups.values()].map(({ first, count }) => ({ ...first, count }));
    const rank = ({ outcome }: UnknownGroup): number => (outcome === '' ? 1 : 0);
    return all.sort((a, b) => rank(a) - rank(b) || b.count - a.count || a.seq - b.seq);
  }
}

function look(call: Call, outcome: string, because: string): Omit<UnknownGroup, 'count'> {
  const { seq, file, line } = call.event;
  const kinds = possibleKinds(call);
  return {
    call: call.name,
    outcome,
    because,
    seq,
    file,
    line,
    kinds,
    known: knownOf(call, kinds),
    missing: missingOf(call, kinds),
    possible: candidates(call),
    record: lacksOf(call, kinds, because),
  };
}
