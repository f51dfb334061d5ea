import type { Bytes } from '../../core/bytes.js';
import type { Interval, RangeMap } from '../../core/interval.js';
import type { OrderedMap } from '../../core/ordered-map.js';
import type { U64 } from '../../core/u64.js';

/**
 * What one open of /dev/iommu holds (`struct iommufd_ctx` and everything that hangs off it).
 *
 * A context owns its objects by id. An IOAS object points at an `Ioas` record in the root table `ioases`, because
 * its areas are the one thing that may be large and are written on every MAP; everything else is a small record
 * inside the context. `users` of an object is the kernel's reference count without the one that the table
 * itself holds: an object can be destroyed by its id exactly when it is 0.
 */
export interface IommufdContext {
  readonly id: number;
  /** `seq` of the event since which objects may exist that the recording never showed; -1 when all are known. */
  readonly unknownSince: number;
  /** Pinned pages are charged to the mm (as VFIO does) instead of the user. */
  readonly accountMm: boolean;
  /** Id of the IOAS that the VFIO compatibility calls work on; 0 when none. */
  readonly vfioIoas: number;
  readonly noIommu: boolean;
  /** What keeps the context alive besides its own file: bound real devices, accesses, event queues. */
  readonly holders: number;
  /** Its own file is gone. */
  readonly closed: boolean;
  /** Every id from here on is free. */
  readonly nextObjectId: number;
  /** Ids below `nextObjectId` that are free again; the lowest is given out first. */
  readonly freeIds: OrderedMap<number, true>;
  readonly objects: OrderedMap<number, IommuObject>;
  /** What a group's devices are attached to, by `<group>/<pasid>` (`iommufd_group::pasid_attach`). */
  readonly attachments: OrderedMap<string, Attachment>;
  /** Ranges of the file offset that objects offer to mmap, by start (`iommufd_ctx::mt_mmap`). */
  readonly mmaps: OrderedMap<number, MmapOffer>;
}

export type IommuObject =
  | IoasObject
  | PagingHwpt
  | NestedHwpt
  | BoundDevice
  | AccessObject
  | SelftestObject
  | FaultQueue
  | VeventQueue
  | Viommu
  | Vdevice
  | HwQueue;

export type ObjectType = IommuObject['type'];

interface ObjectHead {
  readonly id: number;
  readonly users: number;
  /** `seq` of the event that made it. */
  readonly since: number;
}

export interface IoasObject extends ObjectHead {
  readonly type: 'ioas';
  /** Key in the root table `ioases`. */
  readonly ioas: number;
}

/** How a domain translates; of a real IOMMU only what recordings have told. */
export interface DomainTraits {
  /** `mock`, or the key of the real device whose IOMMU made it. */
  readonly owner: string;
  /** Bitmap of page sizes; 0 when not known. */
  readonly pgsizes: U64;
  /** Addresses that it can translate; null when not known. */
  readonly aperture: Interval | null;
  readonly dirtyTracking: boolean;
  /** Which of its IOMMU's kinds of page table it is, '' for the one of a plain HWPT (`tableOf` in hardware.ts). */
  readonly table: string;
  /** Whether memory that the device may only read can enter it; null when not known. */
  readonly takesReadOnly: boolean | null;
}

export interface PagingHwpt extends ObjectHead {
  readonly type: 'hwpt-paging';
  /** Object id of the IOAS. */
  readonly ioas: number;
  readonly domain: DomainTraits;
  /** Made by an attach to an IOAS; goes with its last device. */
  readonly auto: boolean;
  readonly nestParent: boolean;
  readonly pasidCompat: boolean;
  /** Object id of the fault queue, 0 when none. */
  readonly fault: number;
  readonly dirtyOn: boolean;
  /** Dirty IOVAs as disjoint ranges. */
  readonly dirty: RangeMap<Interval>;
  /** IOVAs that may be dirty: the recording does not show which. Disjoint. */
  readonly maybeDirty: RangeMap<Interval>;
}

export interface NestedHwpt extends ObjectHead {
  readonly type: 'hwpt-nested';
  /** Object id of the paging HWPT below. */
  readonly parent: number;
  /** Object id of the vIOMMU that made it, 0 when made straight from the parent. */
  readonly viommu: number;
  readonly owner: string;
  readonly pasidCompat: boolean;
  readonly fault: number;
  /** The mock domain's IOTLB entries; empty for real hardware. */
  readonly iotlb: readonly number[];
  /** The driver's struct that it was made with; empty for the mock domain. */
  readonly config: Bytes;
}

export interface BoundDevice extends ObjectHead {
  readonly type: 'device';
  /** Key of the real device, or `mock:<n>`. */
  readonly key: string;
  /** Devices of one group share their attachments. */
  readonly group: string;
  readonly mock: MockDevice | null;
  /** Object id of its vDEVICE, 0 when none. */
  readonly vdevice: number;
}

/** What the kernel's mock device keeps (`struct mock_dev`). */
export interface MockDevice {
  readonly noDirty: boolean;
  readonly pasid: boolean;
  readonly cache: readonly number[];
  /** Object id of the vIOMMU whose nested domain it is attached to, 0 when none. */
  readonly viommu: number;
  readonly vdevId: U64;
  /** Object ids of attached domains that deliver faults, each counted. */
  readonly faultUsers: number;
  /** The next attach of PASID 1024 is made to fail. */
  readonly failPasid1024: boolean;
  /** It was destroyed while PASIDs were attached: the object stays and stands for whatever is in its memory now. */
  readonly gone: boolean;
}

export interface AccessObject extends ObjectHead {
  readonly type: 'access';
  /** Object id of the IOAS it reads, 0 when detached. */
  readonly ioas: number;
  /** 4096 for accesses that pin pages, else 1. */
  readonly alignment: number;
  /** Of a HW queue: it locks the areas instead of letting them go. */
  readonly internal: boolean;
  readonly nextItem: number;
  readonly items: readonly AccessItem[];
}

/** Pages that an access holds pinned. */
export interface AccessItem extends Interval {
  readonly id: number;
}

/** The kernel's object for one mock device (`struct selftest_obj`). */
export interface SelftestObject extends ObjectHead {
  readonly type: 'selftest';
  /** Object id of the bound device. */
  readonly device: number;
}

/** A page request that waits to be read or answered. */
export interface FaultGroup {
  /** Object id of the device. */
  readonly device: number;
  /** Attach it came through: `<group>/<pasid>`, so that a detach can answer it. */
  readonly attach: string;
  readonly cookie: number;
  /** The message as a reader gets it, cookie still 0. */
  readonly message: Bytes;
}

export interface FaultQueue extends ObjectHead {
  readonly type: 'fault';
  /** Not read yet, by order of arrival. */
  readonly deliver: OrderedMap<number, FaultGroup>;
  /** Read and not answered, by cookie. */
  readonly pending: OrderedMap<number, FaultGroup>;
  /** Cookies that were answered and are lower than one that was given out: the lowest is next. */
  readonly freeCookies: OrderedMap<number, true>;
  /** Every cookie from here on is free. */
  readonly nextCookie: number;
}

export interface VeventQueue extends ObjectHead {
  readonly type: 'veventq';
  readonly viommu: number;
  readonly queueType: number;
  readonly depth: number;
  readonly sequence: number;
  readonly eventCount: number;
  /** Not read yet, by order of arrival. */
  readonly deliver: OrderedMap<number, Vevent>;
}

export interface Vevent {
  readonly lost: boolean;
  readonly sequence: number;
  readonly data: Bytes;
}

export interface Viommu extends ObjectHead {
  readonly type: 'viommu';
  readonly viommuType: number;
  readonly hwpt: number;
  readonly owner: string;
  /** vDEVICE object ids by virtual id. */
  readonly vdevices: OrderedMap<U64, number>;
  /** Object ids of event queues. */
  readonly veventqs: readonly number[];
  /** Object ids of HW queues by index; 0 where an index stays taken without one. */
  readonly queues: OrderedMap<number, number>;
  /** Offset of the page that it offers to mmap, 0 when none. */
  readonly mmapOffset: number;
}

export interface Vdevice extends ObjectHead {
  readonly type: 'vdevice';
  readonly viommu: number;
  readonly device: number;
  readonly virtId: U64;
}

export interface HwQueue extends ObjectHead {
  readonly type: 'hw-queue';
  readonly viommu: number;
  readonly index: number;
  /** Object id of the access that keeps its pages. */
  readonly access: number;
  /** Object id of the queue before it, which it keeps alive; 0 for the first. */
  readonly previous: number;
}

export interface Attachment {
  /** Object id of the HWPT. */
  readonly hwpt: number;
  /** Object ids of the attached devices of the group. */
  readonly devices: readonly number[];
}

export interface MmapOffer {
  readonly owner: number;
  readonly lengthBytes: number;
}

/** One io_pagetable. Keyed in `World.ioases` by an id of our own. */
export interface Ioas {
  readonly id: number;
  readonly context: number;
  /** Its object id in the context. */
  readonly objectId: number;
  readonly areas: RangeMap<Area>;
  /** Reserved ranges in order of arrival; they may overlap. */
  readonly reserved: OrderedMap<number, Reserved>;
  /** The union of `reserved`, disjoint and merged. */
  readonly blocked: RangeMap<Interval>;
  /** What may never become reserved; disjoint. */
  readonly allowed: RangeMap<Interval>;
  /** Object ids of its paging HWPTs, oldest first. */
  readonly hwpts: readonly number[];
  /** Object ids of the accesses attached to it. */
  readonly accesses: readonly number[];
  /** Every IOVA, length and offset is a multiple of this; at most 4096. */
  readonly alignment: number;
  readonly noLargePages: boolean;
  /** `seq` since which areas may exist that the recording never showed; -1 when all are known. */
  readonly unknownSince: number;
  /** Owners (see `Reserved`) that reserve ranges which no event has told. */
  readonly unknownHardware: readonly string[];
}

export interface Reserved extends Interval {
  /** `hwpt:<id>`, `device:<key>`, or `test` for what the self-tests add. */
  readonly owner: string;
}

/** Who pays for pages that are pinned; see charges.ts. */
export interface PagesCharge {
  readonly charged: 'nobody' | 'space' | 'user';
  /** False where the capability that frees from it was not recorded. */
  readonly surely: boolean;
  /** Process that mapped the memory: its limit counts. */
  readonly pid: number;
  /** Its user then, as `Creds.user` has it. */
  readonly user: number;
}

/** The memory behind areas (`struct iopt_pages`), shared by copies. Immutable, so areas refer to it directly. */
export interface IoPages extends PagesCharge {
  readonly id: number;
  readonly kind: 'user' | 'file' | 'dmabuf';
  /** Address space whose memory it is. */
  readonly space: number;
  /** First byte, at a page: user VA, or offset into the file. */
  readonly base: U64;
  /** Open file id of a file or dma-buf, else 0. */
  readonly file: number;
  readonly pageCount: U64;
  readonly writable: boolean;
}

/** Pages of some memory, by index, that somebody holds pinned; see held-pages.ts. */
export interface HeldRun extends Interval {
  /** How many areas whose IOAS has domains. */
  readonly domains: number;
  /** How many pins of accesses. */
  readonly accesses: number;
  /** `seq` of the event that pinned them. */
  readonly since: number;
}

/** Who holds the pages of memory that several areas show, or that accesses pin. */
export interface SharedPages {
  /** Areas that show it. */
  readonly areas: number;
  readonly runs: RangeMap<HeldRun>;
}

export interface Area extends Interval {
  readonly pages: IoPages;
  /** Where in `pages` it begins. */
  readonly startByte: U64;
  /** 1 readable by the device, 2 writable. */
  readonly prot: number;
  /** How many pins of accesses touch it. */
  readonly accesses: number;
  /** How many of those forbid unmapping. */
  readonly locks: number;
  /** Its entry in the index of DMA mappings by user address (memory/pins.ts); 0 when it has none. */
  readonly pin: number;
  /** `seq` of the event since which the domains of its IOAS hold its pages; -1 when none does. See held-pages.ts. */
  readonly pinnedSince: number;
  readonly since: number;
}

/** A dma-buf of the self-tests. */
export interface TestDmaBuf {
  /** Id of its open file. */
  readonly id: number;
  readonly lengthBytes: number;
  /** null: not known. */
  readonly revoked: boolean | null;
}
