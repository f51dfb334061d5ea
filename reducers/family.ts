import type { Event, IoctlEvent } from '../core/event.js';
import type { Call } from './call.js';
import type { Told } from './explain.js';
import type { FileKind, OpenFile, Process } from './files/state.js';
import type { Tx } from './tx.js';

/**
 * What a family of objects gives to the dispatcher: one entry for each kind of file that it owns.
 * All functions change `tx.world` only, and read nothing else.
 */
export interface FileFamily {
  /** A new file of this kind appeared: opened, or found behind an fd whose past is unknown (`file.complete` false).
   * Gives the file with `object`/`objectKey` set, after making its object. */
  open?(tx: Tx, file: OpenFile, event: Event, process: Process): OpenFile;
  /**
   * Whether an ioctl that succeeded, and that files of several kinds have, can only have been made on this kind.
   * Tells what is behind an fd of unknown past.
   */
  claims?(event: IoctlEvent): boolean;
  /**
   * The file as it really is, where the answer of an ioctl shows that it is of another kind than its path says: from then on
   * it is of that kind. Undefined otherwise, which is decided quickly.
   */
  reveals?(tx: Tx, file: OpenFile, event: IoctlEvent): Revealed | undefined;
  /** One ioctl. Must make a prediction. */
  ioctl?(call: Call): void;
  /** read/write on such a file. Counted as a call of the interface only when `countsIo`. Must then make a prediction. */
  io?(call: Call): void;
  readonly countsIo?: boolean;
  /** What a read or write that is not counted is about, in words, for whoever looks at it. */
  meaning?(call: Call): string;
  /**
   * What the rule of a prediction saw of arguments and state, for `Call.told`; an empty text where the rule's own says
   * all. Must stand any argument, and changes nothing.
   */
  explain?(call: Call): Told;
  /** The last reference (fd or VMA) is gone. */
  release?(tx: Tx, file: OpenFile, event: Event): void;
}

/** What a call showed of its file, and the reason why a failure that showed it was not predicted. */
export interface Revealed {
  readonly file: OpenFile;
  readonly why: string;
}

export type Families = Partial<Record<FileKind, FileFamily>>;
