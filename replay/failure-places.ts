import type { Event, IoctlEvent } from '../core/event.js';
import { findCommand } from '../core/uapi/lookup.js';

/**
 * Where a recorded call can fail though nothing is wrong with it, for tests: an allocation that gets no memory, or another
 * place where the kernel lets a fault be injected (`iommufd_should_fail`: the look-up of an object, the pinning of
 * pages, the look at reserved ranges). Read from drivers/iommu/iommufd of Linux 7.2, which undoes what it did in
 * each of them; several places of a call that end it with one error cannot be told apart from outside.
 */

const ALLOCATES = ['ENOMEM'];
const LOOKS_UP = ['ENOENT'];
const BOTH = ['ENOMEM', 'ENOENT'];
/** Pages are pinned: a domain is filled, or an access reads or pins. */
const PINS = ['ENOMEM', 'ENOENT', 'EFAULT'];
/** A device is added or attached, too: its reserved ranges are looked at. */
const ATTACHES = ['ENOMEM', 'ENOENT', 'EFAULT', 'EINVAL'];

const COMMANDS: Readonly<Record<string, readonly string[]>> = {
  IOMMU_IOAS_ALLOC: ALLOCATES,
  IOMMU_IOAS_ALLOW_IOVAS: BOTH,
  IOMMU_IOAS_COPY: PINS,
  IOMMU_IOAS_IOVA_RANGES: LOOKS_UP,
  IOMMU_IOAS_MAP: PINS,
  IOMMU_IOAS_MAP_FILE: PINS,
  IOMMU_IOAS_UNMAP: LOOKS_UP,
  IOMMU_IOAS_CHANGE_PROCESS: ALLOCATES,
  IOMMU_HWPT_ALLOC: ATTACHES,
  IOMMU_GET_HW_INFO: BOTH,
  IOMMU_HWPT_SET_DIRTY_TRACKING: LOOKS_UP,
  IOMMU_HWPT_GET_DIRTY_BITMAP: BOTH,
  IOMMU_HWPT_INVALIDATE: BOTH,
  IOMMU_FAULT_QUEUE_ALLOC: ALLOCATES,
  IOMMU_VIOMMU_ALLOC: BOTH,
  IOMMU_VDEVICE_ALLOC: BOTH,
  IOMMU_VEVENTQ_ALLOC: BOTH,
  IOMMU_HW_QUEUE_ALLOC: ATTACHES,
  VFIO_IOMMU_MAP_DMA: ['ENOMEM', 'EFAULT'],
  VFIO_IOMMU_UNMAP_DMA: ALLOCATES,
  VFIO_GROUP_SET_CONTAINER: ALLOCATES,
  VFIO_GROUP_GET_DEVICE_FD: ALLOCATES,
  VFIO_DEVICE_BIND_IOMMUFD: ALLOCATES,
  VFIO_DEVICE_ATTACH_IOMMUFD_PT: ['ENOMEM', 'ENOENT'],
};

/** By the number of the self-tests' operation; what is not here allocates nothing and looks nothing up. */
const OPERATIONS: readonly (readonly string[])[] = [
  [],
  BOTH, // ADD_RESERVED
  ATTACHES, // MOCK_DOMAIN
  BOTH, // MD_CHECK_MAP
  ALLOCATES, // MD_CHECK_REFS
  BOTH, // CREATE_ACCESS
  [], // DESTROY_ACCESS_PAGES
  ATTACHES, // ACCESS_PAGES
  ATTACHES, // ACCESS_RW
  [], // SET_TEMP_MEMORY_LIMIT
  ATTACHES, // MOCK_DOMAIN_REPLACE
  BOTH, // ACCESS_REPLACE_IOAS
  ATTACHES, // MOCK_DOMAIN_FLAGS
  BOTH, // DIRTY
  LOOKS_UP, // MD_CHECK_IOTLB
  LOOKS_UP, // TRIGGER_IOPF
  LOOKS_UP, // DEV_CHECK_CACHE
  BOTH, // TRIGGER_VEVENT
  ATTACHES, // PASID_ATTACH
  ATTACHES, // PASID_REPLACE
  LOOKS_UP, // PASID_DETACH
  LOOKS_UP, // PASID_CHECK_HWPT
  ALLOCATES, // DMABUF_GET
  [], // DMABUF_REVOKE
];

const TEST_COMMAND = 'IOMMU_TEST_CMD';
const TRIGGER_VEVENT = 17;

/** Calls on files, processes and memory that make something. */
const OTHER_KINDS: ReadonlySet<Event['kind']> = new Set(['open', 'dup', 'newFds', 'fork', 'mmap', 'mremap']);

/** One place of a recording: an event, by its index, and the error that it then ends with. */
export interface Place {
  readonly index: number;
  readonly errno: string;
}

/** All places of a recording in order. What failed anyway, or has no result, has none. */
export function placesOf(events: readonly Event[]): Place[] {
  return events.flatMap((event, index) => errorsOf(event).map((errno) => ({ index, errno })));
}

function errorsOf(event: Event): readonly string[] {
  if (!('ret' in event) || event.ret === null || event.ret === -1) return [];
  if (event.kind === 'ioctl') return errorsOfIoctl(event);
  return OTHER_KINDS.has(event.kind) ? ALLOCATES : [];
}

function errorsOfIoctl(event: IoctlEvent): readonly string[] {
  for (const kind of ['iommufd', 'vfio-group', 'vfio-device'] as const) {
    const name = findCommand(kind, event.request)?.name;
    if (name === TEST_COMMAND) return OPERATIONS[operationOf(event)] ?? [];
    if (name !== undefined && COMMANDS[name] !== undefined) return COMMANDS[name];
  }
  return [];
}

function isTestCommand(event: IoctlEvent): boolean {
  return findCommand('iommufd', event.request)?.name === TEST_COMMAND;
}

function operationOf(event: IoctlEvent): number {
  const struct = event.memIn.find(({ addr }) => addr === event.arg)?.bytes;
  return struct?.has(4, 4) ? struct.u32(4) : 0;
}

/**
 * Whether the kernel itself leaves something changed when a call fails so: a queue of events remembers that there was no
 * memory for one (`iommufd_viommu_report_event`).
 */
export function leavesChange(event: Event, errno: string): boolean {
  return event.kind === 'ioctl' && errno === 'ENOMEM' && isTestCommand(event) && operationOf(event) === TRIGGER_VEVENT;
}

/** The call as it is recorded when it fails there: nothing is written back. */
export function failed(event: Event, errno: string): Event {
  return { ...event, ret: -1, errno, ...('memOut' in event ? { memOut: [] } : {}) } as Event;
}

/** Whether a recording has calls of iommufd, or of VFIO on an iommufd. */
export function usesIommufd(events: readonly Event[]): boolean {
  return events.some((event) => event.kind === 'open' && event.path === '/dev/iommu');
}
