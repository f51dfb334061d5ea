import type { Event } from '../../core/event.js';
import type { U64 } from '../../core/u64.js';
import type { Args } from './args.js';

/** The fields that all calls' events share, in the order in which the fast reader writes them too. */
export interface CallHead {
  readonly seq: number;
  readonly tsNs: number;
  readonly pid: number;
  readonly tid: number;
  readonly file: number;
  readonly line: number;
  readonly enteredAt: number;
  readonly ret: U64 | -1 | null;
  readonly errno: string;
  readonly injected: boolean;
}

/** Makes one call's event; a reader that misses something leaves it in `args.problem`. */
export type CallReader = (args: Args, head: CallHead) => Event;
