import type { OrderedMap } from '../../core/ordered-map.js';
import type { U64 } from '../../core/u64.js';
import type { Creds } from './creds.js';

/** What is behind an fd, as far as the model cares. Device kinds are also the uAPI's kinds of file. */
export type FileKind =
  | 'iommufd'
  | 'vfio-container'
  | 'vfio-group'
  | 'vfio-device'
  | 'vfio-migration'
  | 'dmirror'
  | 'eventfd'
  | 'memfd'
  | 'dma-buf'
  | 'iommufd-fault'
  | 'iommufd-veventq'
  | 'iommufd-access'
  | 'other'
  | 'unknown';

/** A thread group. Gone from the table when its last thread is. */
export interface Process {
  readonly pid: number;
  /** Address space id. */
  readonly space: number;
  /** fd table id. */
  readonly fdTable: number;
  /** Its living threads as far as the recording showed them (tid -> seq of first sight). */
  readonly tids: OrderedMap<number, number>;
  /** `seq` of the fork that made it, or of its first event when it came from nowhere. */
  readonly since: number;
  /** True when its making was not recorded, so that a fork returning later may still explain it. */
  readonly fromNowhere: boolean;
  readonly creds: Creds;
  readonly memlock: MemlockLimit;
  /** `seq` of the event that last changed what is known of `creds` and `memlock`. */
  readonly limitsSince: number;
}

/** RLIMIT_MEMLOCK of a process; inherited by fork, kept over execve. */
export interface MemlockLimit {
  /** The soft limit as last told, or null when never told. */
  readonly bytes: U64 | null;
  /** `seq` of the event that told it; -1 for none. */
  readonly since: number;
}

export const NO_LIMIT_KNOWN: MemlockLimit = Object.freeze({ bytes: null, since: -1 });

export interface FdTable {
  readonly id: number;
  /** Processes that share it. */
  readonly users: number;
  /** False when fds may exist that the recording never showed. */
  readonly complete: boolean;
  readonly fds: OrderedMap<number, FdEntry>;
}

export interface FdEntry {
  readonly fd: number;
  readonly file: number;
  readonly cloexec: boolean;
}

/** An open file description (the kernel's `struct file`), alive while anything refers to it. */
export interface OpenFile {
  readonly id: number;
  readonly kind: FileKind;
  readonly path: string;
  /** Id of the object behind it in its family's table (container, iommufd context, …); 0 when none. */
  readonly object: number;
  /** Key of the object where the table has textual keys (VFIO devices); else ''. */
  readonly objectKey: string;
  readonly flags: number;
  readonly openedAt: number;
  /** False for a file that was already open when the recording began: its past is unknown. */
  readonly complete: boolean;
  readonly fdRefs: number;
  /** Pieces of address spaces that map it. */
  readonly vmaRefs: number;
  /** Pieces of memory that iommufd maps by this file (MAP_FILE). */
  readonly pageRefs: number;
  /** Size of the file where the recording tells it (memfd_create, ftruncate, …), or null. */
  readonly sizeBytes: U64 | null;
}
