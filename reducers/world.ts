import type { Bytes } from '../core/bytes.js';
import { OrderedMap } from '../core/ordered-map.js';
import type { U64 } from '../core/u64.js';
import type { PassedFile } from './files/passing.js';
import type { FdTable, OpenFile, Process } from './files/state.js';
import type { NotifiedMm } from './hmm/notified.js';
import type { Deferred, Mirror } from './hmm/state.js';
import type { Flight } from './in-flight.js';
import type { GapTree } from './iommufd/gaps.js';
import type { Ioas, IommufdContext, SharedPages, TestDmaBuf } from './iommufd/state.js';
import type { LockedPages, SpaceLocked } from './memory/locked.js';
import type { Kinship, PageCache, PageTable } from './memory/pagetable.js';
import type { AddressSpace } from './memory/state.js';
import type { MigrationFile, VfioContainer, VfioDevice, VfioGroup } from './vfio/state.js';

/** Something the recording taught about the machine; the same question must get the same answer again. */
export interface Fact {
  readonly value: U64 | string | Bytes;
  /** `seq` of the event that taught it. */
  readonly since: number;
}

/**
 * The whole modelled kernel: a small root of tables. Values in the tables are frozen plain records; a record
 * may hold further tables (VMAs, areas). As a snapshot all tables are frozen; inside a transaction
 * ({@link Tx}) the tables of the root are open.
 */
export interface World {
  /** Thread groups by pid. */
  readonly processes: OrderedMap<number, Process>;
  /** Thread id -> pid of its group. */
  readonly threads: OrderedMap<number, number>;
  /** Tables of file descriptors, shared by CLONE_FILES. */
  readonly fdTables: OrderedMap<number, FdTable>;
  /** Open file descriptions, by our own id. */
  readonly files: OrderedMap<number, OpenFile>;
  /** Files that were sent through a socket and not received yet, oldest first. */
  readonly passed: OrderedMap<number, PassedFile>;
  /** Address spaces (mm), by our own id. */
  readonly spaces: OrderedMap<number, AddressSpace>;
  /** Pages charged against RLIMIT_MEMLOCK, by address space id. */
  readonly spaceLocked: OrderedMap<number, SpaceLocked>;
  /** The same by user. */
  readonly userLocked: OrderedMap<number, LockedPages>;
  /** Users whose id was told after something was known of them -> that id. */
  readonly userNames: OrderedMap<number, number>;
  readonly iommufds: OrderedMap<number, IommufdContext>;
  /** IOASes of all contexts, by our own id. */
  readonly ioases: OrderedMap<number, Ioas>;
  /** Index of the free IOVA ranges of an IOAS; only where the kernel was asked to choose an IOVA. */
  readonly ioasGaps: OrderedMap<number, GapTree>;
  /** Who holds the pages of memory that several areas show or accesses pin, by the id of the memory. */
  readonly sharedPages: OrderedMap<number, SharedPages>;
  /** The kernel's test dma-bufs, by open file id. */
  readonly dmaBufs: OrderedMap<number, TestDmaBuf>;
  readonly containers: OrderedMap<number, VfioContainer>;
  readonly groups: OrderedMap<number, VfioGroup>;
  readonly devices: OrderedMap<string, VfioDevice>;
  /** Migration data fds, by our own id. */
  readonly migrations: OrderedMap<number, MigrationFile>;
  readonly mirrors: OrderedMap<number, Mirror>;
  /** CPU page tables by address space id; only of spaces where somebody asks about pages. */
  readonly pageTables: OrderedMap<number, PageTable>;
  /** Which pages of files are in memory, by what fileKey names; only of files that a space with a page table maps. */
  readonly pageCaches: OrderedMap<string, PageCache>;
  /** Address spaces related by fork, by an id of their own; only of spaces with a page table. */
  readonly kinships: OrderedMap<number, Kinship>;
  /** Kernel addresses of an mm, as kernel events name it -> address space id. */
  readonly mms: OrderedMap<U64, number>;
  /** By the kernel's address of an mm: its invalidations that are under way, and the mirrors that drivers report. */
  readonly notified: OrderedMap<U64, NotifiedMm>;
  /** Migrations of kernel events whose device is not known yet, by thread. */
  readonly deferred: OrderedMap<number, Deferred>;
  /** Calls that have begun and not ended, by thread; see in-flight.ts. */
  readonly inFlight: OrderedMap<number, Flight>;
  /** Facts of the machine, by a key such as `vfio-device/0000:00:10.0/num_regions`. */
  readonly facts: OrderedMap<string, Fact>;
  /** Threads for which the kernel was told to fail the n-th allocation or check (fail-nth), and n. */
  readonly armedFaults: OrderedMap<number, number>;
  /** Parts of the model that a bug of ours has ended, and the `seq` of the event at which; see replay/containment.ts. */
  readonly stoppedParts: OrderedMap<string, number>;
  /** Last id given out, by table name. */
  readonly counters: OrderedMap<string, number>;
}

export const WORLD_TABLES: readonly (keyof World)[] = [
  'processes',
  'threads',
  'fdTables',
  'files',
  'passed',
  'spaces',
  'spaceLocked',
  'userLocked',
  'userNames',
  'iommufds',
  'ioases',
  'ioasGaps',
  'sharedPages',
  'dmaBufs',
  'containers',
  'groups',
  'devices',
  'migrations',
  'mirrors',
  'pageTables',
  'pageCaches',
  'kinships',
  'mms',
  'notified',
  'deferred',
  'inFlight',
  'facts',
  'armedFaults',
  'stoppedParts',
  'counters',
];

const TEXTUAL: ReadonlySet<keyof World> = new Set(['devices', 'facts', 'pageCaches', 'stoppedParts', 'counters']);

/** The state before the first event. */
export function emptyWorld(): World {
  const tables = WORLD_TABLES.map((name) => [
    name,
    (TEXTUAL.has(name) ? OrderedMap.textual() : OrderedMap.numeric()).freeze(),
  ]);
  return Object.freeze(Object.fromEntries(tables) as unknown as World);
}
