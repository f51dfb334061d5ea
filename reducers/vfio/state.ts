import type { Bytes } from '../../core/bytes.js';
import type { Interval, RangeMap } from '../../core/interval.js';
import type { OrderedMap } from '../../core/ordered-map.js';
import type { U64 } from '../../core/u64.js';

/**
 * What VFIO keeps: containers with their DMA mappings, groups, devices.
 *
 * Who owns what (drivers/vfio): a container lives while its file is open or a group is attached; the mappings
 * belong to the IOMMU backend of the container and go away with the last group. A group file can be open once; the
 * first open of a device keeps the group in its container and its file alive. A device is known by its name on its
 * bus (group model) or by its cdev; state of the hardware lasts from the first open to the last close.
 * `unknownSince` is the `seq` of the event since which something may exist that the recording never showed, -1 when
 * everything is known.
 */

/** One MAP_DMA: IOVA `start..last` onto memory of an address space. */
export interface DmaMapping extends Interval {
  readonly vaddr: U64;
  /** VFIO_DMA_MAP_FLAG_READ and WRITE. */
  readonly flags: number;
  /** Address space that the pages were pinned from. */
  readonly space: number;
  /** UNMAP_FLAG_VADDR took the address away until MAP_FLAG_VADDR gives a new one. */
  readonly vaddrInvalid: boolean;
  /** In the IOMMU's page tables: the container has a group with a real IOMMU. */
  readonly pinned: boolean;
  /** Id of the pin in the address space, 0 when not pinned or unknown. */
  readonly pin: number;
  /** Pages charged for it to the address space, for sure and by all likelihood; see memory/locked.ts. */
  readonly lockedPages: number;
  readonly maybeLockedPages: number;
  readonly since: number;
}

/** What the dirty bitmap of a mapping holds besides what follows from the container's groups. */
export interface DirtyBits {
  /** All pages are dirty until the next report. */
  readonly whole: boolean;
  /** Bits beyond those of the pages, as a hexadecimal number, '' for none; null where the recording cannot tell. */
  readonly tail: string | null;
}

/** The IOMMU backend of a container; `unknown` for a container that was open before the recording began. */
export type Backend = 'none' | 'type1' | 'type1v2' | 'noiommu' | 'spapr' | 'unknown';

/** The backend of a container on a POWER machine (spapr/spapr.ts). */
export interface SpaprBackend {
  readonly v2: boolean;
  /** v1: by ENABLE; v2: memory was registered. */
  readonly enabled: boolean;
  /** Address space that the container belongs to, 0 before its first use. */
  readonly space: number;
  /** The default window is still to be made. */
  readonly defaultPending: boolean;
  readonly windows: readonly (SpaprWindow | null)[];
  /** Registered memory by user address. */
  readonly registered: RangeMap<Interval>;
  /** `seq` since which there may be windows and registered memory that the recording does not show, or -1. */
  readonly unknownSince: number;
}

export interface SpaprWindow {
  readonly start: U64;
  /** null while no GET_INFO told the size of the default window. */
  readonly bytes: U64 | null;
  readonly pageShift: number;
}

/** One open of /dev/vfio/vfio. */
export interface VfioContainer {
  readonly id: number;
  readonly fileOpen: boolean;
  readonly backend: Backend;
  /** Set where `backend` is sPAPR's. */
  readonly spapr: SpaprBackend | null;
  /** Ids of the attached groups, in order of attaching. */
  readonly groups: readonly number[];
  readonly mappings: RangeMap<DmaMapping>;
  /** `seq` since which mappings may exist that are not in `mappings`; -1 when all are known. */
  readonly unknownSince: number;
  /** What it held when its last group left: of an iommufd, that would still be there. */
  readonly had: 'nothing' | 'groups' | 'mappings';
  readonly vaddrInvalid: number;
  /** null: not known. */
  readonly dirtyTracking: boolean | null;
  /** By IOVA, for the few mappings whose bitmap holds anything of its own. */
  readonly bitmaps: OrderedMap<U64, DirtyBits>;
  /** Valid IOVA ranges, or null while no GET_INFO told them. */
  readonly ranges: readonly Interval[] | null;
  /** Smallest page size of the backend in bytes. */
  readonly pageBytes: number;
  /** Most mappings that the backend takes (module parameter dma_entry_limit). */
  readonly entryLimit: number;
}

/** A group of /dev/vfio/N, by number; no-IOMMU groups and groups without a known number have keys of their own. */
export interface VfioGroup {
  readonly id: number;
  readonly path: string;
  readonly noIommu: boolean;
  /** Its devices are mediated: no IOMMU domain, nothing pinned by MAP_DMA. Learned from the name of a device. */
  readonly emulated: boolean;
  /** Where the devices live that the group was seen to have. */
  readonly bus: 'pci' | 'mdev' | 'unknown';
  /** Open file that holds the group, 0 when none. */
  readonly file: number;
  /** The group's fd is gone, and an open device keeps the file. */
  readonly closing: boolean;
  /** Container id, 0 when none. */
  readonly container: number;
  /** iommufd context that stands in for a container, 0 when none. */
  readonly iommufd: number;
  /** Devices that were opened through the container (`container_users` - 1). */
  readonly openDevices: number;
  readonly unknownSince: number;
}

/** The driver behind a device, as far as its name and answers tell. */
export type DeviceDriver = 'pci' | 'mtty' | 'mdpy' | 'mbochs' | 'mdev' | 'unknown';

/** Interrupts of a device while it is open. `type` is an IRQ index, or -1 for none. */
export interface DeviceIrqs {
  readonly type: number;
  /** MSI or MSI-X vectors that were allocated when the type was enabled. */
  readonly vectors: number;
  /** Eventfd file that unmasks INTx, 0 when none. */
  readonly unmaskFile: number;
  readonly err: boolean;
  readonly req: boolean;
}

export interface IoEventFd {
  readonly bar: number;
  readonly pos: U64;
  readonly data: U64;
  readonly bytes: number;
}

/** Migration of a device: the state lasts over opens, as the drivers keep it. */
export interface DeviceMigration {
  /** `vfio_device_mig_state`, or -1 while the recording has not told. */
  readonly state: number;
  /** File ids of the data fds, 0 when none, -1 when there may be one that was not seen. */
  readonly saving: number;
  readonly resuming: number;
  /** PRECOPY_INFO reports flags (feature MIG_PRECOPY_INFOv2 was set). */
  readonly precopyV2: boolean;
}

export interface VfioDevice {
  /** Key in the table: `0000:00:10.0`, a UUID, `vfio0`, or `file 12` where no name was recorded. */
  readonly name: string;
  readonly driver: DeviceDriver;
  /** Group id, 0 when not known. */
  readonly group: number;
  /** Opens that have access (`open_count`). */
  readonly openCount: number;
  /** cdev file that is bound to an iommufd, 0 when none. */
  readonly boundFile: number;
  /** iommufd context and object id there, 0 when not bound. */
  readonly iommufd: number;
  readonly devid: number;
  /** Attached as a whole (`iommufd_attached`). */
  readonly attached: boolean;
  /** PASIDs that were attached one by one, in that order; 0 is the whole device as well. */
  readonly pasids: readonly number[];
  readonly irqs: DeviceIrqs;
  readonly ioeventfds: readonly IoEventFd[];
  /** Low power: the user let go of the device's runtime power reference. null: cannot be known. */
  readonly lowPower: boolean | null;
  /** Value of the PCI command register as the user sees it, -1 while unknown. */
  readonly pciCommand: number;
  /** The user put it into D3 by its PM capability. */
  readonly asleep: boolean;
  /** GET_INFO was seen; before it mtty has no interrupts, and earlier users may have asked. */
  readonly infoAsked: boolean;
  readonly migration: DeviceMigration;
  /** `seq` of the event since which interrupts and the like are unknown (found open), -1 when known. */
  readonly unknownSince: number;
}

/** One migration data fd. */
export interface MigrationFile {
  readonly id: number;
  readonly device: string;
  readonly direction: 'save' | 'resume';
  /** The device left the transfer; every read and write fails from here on. */
  readonly disabled: boolean;
  /** The user has an fd of it. The driver holds the file as well, from its making until it shuts it. */
  readonly fdOpen: boolean;
  /** Bytes that the driver was given, or offers besides its ports; and the position of the next read or write. */
  readonly filledBytes: number;
  /** mtty: its ports, whose number is a fact, are offered as well. */
  readonly hasPorts: boolean;
  readonly positionBytes: number;
  /** First bytes of what was written, as many as the driver's header has. */
  readonly header: Bytes;
}
