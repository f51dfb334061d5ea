import type { U64 } from '../../core/u64.js';
import type { Call } from '../call.js';
import {
  askLimit,
  explainShortage,
  type LimitQuestion,
  limitText,
  refuseLikely,
  refuseSure,
} from '../memory/memlock.js';
import type { Tx } from '../tx.js';
import { PAGES_MEMLOCK, questionOf } from './charges.js';
import { objectOf } from './context.js';
import { countUnheld, pageSpan } from './held-pages.js';
import { byteAt } from './pages.js';
import { type Refusal, refusal } from './rules.js';
import type { Area, IoPages } from './state.js';

/** What an operation asks of RLIMIT_MEMLOCK that pins several pieces of memory, one after the other. */

const TOO_MANY = refusal('ENOMEM', PAGES_MEMLOCK);

export class Asked {
  readonly #tx: Tx;
  /** One for each who pays, with all that was added so far. */
  readonly #questions: LimitQuestion[] = [];

  constructor(tx: Tx) {
    this.#tx = tx;
  }

  /**
   * Adds the pages under some bytes, as far as nobody holds them; a refusal where that is surely too much. `area` shows them
   * already, null for new memory.
   */
  add(pages: IoPages, area: Area | null, firstByte: U64, lastByte: U64): Refusal | undefined {
    if (pages.charged === 'nobody') return undefined;
    const question = this.#sum(questionOf(this.#tx, pages, countUnheld(this.#tx, area, pageSpan(firstByte, lastByte))));
    return question !== undefined && askLimit(this.#tx, question) === 'exceeds' ? TOO_MANY : undefined;
  }

  /** {@link add} in a handler: predicts the failure. True: the handler stops; see {@link refuseSure}. */
  refuse(call: Call, pages: IoPages, area: Area | null, firstByte: U64, lastByte: U64): boolean {
    if (call.predicted || this.add(pages, area, firstByte, lastByte) === undefined) return false;
    return this.#questions.some((question) => refuseSure(call, question, PAGES_MEMLOCK));
  }

  #sum(next: LimitQuestion | undefined): LimitQuestion | undefined {
    if (next === undefined) return undefined;
    const questions = this.#questions;
    const at = questions.findIndex(
      (one) =>
        one.account === next.account &&
        one.key === next.key &&
        one.process === next.process &&
        one.ipcLock === next.ipcLock,
    );
    const before = questions[at];
    if (before === undefined) {
      questions.push(next);
      return next;
    }
    const sum = { ...next, pages: before.pages + next.pages, maybePages: before.maybePages + next.maybePages };
    questions[at] = sum;
    return sum;
  }

  /** Predicts ENOMEM where it is likely; see {@link refuseLikely}. */
  refuseLikely(call: Call): boolean {
    for (const question of this.#questions) if (refuseLikely(call, question, PAGES_MEMLOCK)) return true;
    return false;
  }

  /** Keeps what a recorded ENOMEM teaches. */
  explain(call: Call): void {
    for (const question of this.#questions) explainShortage(call, question);
  }

  /** The figures. */
  get text(): string {
    const [first] = this.#questions;
    return first === undefined ? '' : limitText(this.#tx, first);
  }
}

/** Why attaching to an object of a context gave ENOMEM: an IOAS pins all its memory for its first domain. */
export function attachShortageText(tx: Tx, contextId: number, ptId: number): string {
  const object = objectOf(tx, contextId, ptId);
  const ioas = object?.type === 'ioas' ? tx.world.ioases.get(object.ioas) : undefined;
  if (ioas === undefined || ioas.hwpts.length > 0) return '';
  const asked = new Asked(tx);
  for (const area of ioas.areas.values()) asked.add(area.pages, area, area.startByte, byteAt(area, area.last));
  return asked.text;
}
