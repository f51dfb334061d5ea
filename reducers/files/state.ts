import type { OrderedMap } from '../../core/ordered-map.js';
import type { U64 } from '../../core/u64.js';

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

export interface Process {
  readonly pid: number;
  /** Address space id; 0 after exit. */
  readonly space: number;
  /** fd table id; 0 after exit. */
  readonly fdTable: number;
  readonly threads: number;
  /** RLIMIT_MEMLOCK soft limit in bytes as last seen, or null when never seen. */
  readonly memlockBytes: U64 | null;
}

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

/** An open file description (the kernel's `struct file`), alive while fds or VMAs refer to it. */
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
  readonly vmaRefs: number;
}
