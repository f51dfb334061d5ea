import {
  bits,
  by,
  bytesShape,
  countOf,
  fd,
  fixedCommand,
  flexible,
  flexibleChoice,
  nested,
  oneOf,
  plainCommand,
  pointer,
  pointsTo,
  reserved32,
  semicolonRequest,
  sizedCommand,
  struct,
  structCase,
  structShape,
  u16,
  u32,
  u64,
} from './layout.js';
import type { Command, Struct } from './types.js';

/**
 * VFIO containers with the type1 backend, and groups: `vfio.h`, drivers/vfio/{container,group,vfio_iommu_type1}.c.
 *
 * Sizes: the backend copies the fixed part up to the last mandatory field, then refuses an `argsz` below it. Later
 * fields and the capability chain are only touched as far as `argsz` reaches.
 */

/** Begins every capability; `next` is the offset of the next one from the start of the info struct, 0 at the end. */
export const infoCapHeader: Struct = struct('vfio_info_cap_header', {
  id: u16('out'),
  version: u16('out'),
  next: u32('out', 'hex'),
});

/** Arguments of VFIO_CHECK_EXTENSION; some of them also name a backend for VFIO_SET_IOMMU. */
export const EXTENSIONS = oneOf('VFIO_', {
  TYPE1_IOMMU: 1,
  SPAPR_TCE_IOMMU: 2,
  TYPE1v2_IOMMU: 3,
  DMA_CC_IOMMU: 4,
  EEH: 5,
  TYPE1_NESTING_IOMMU: 6,
  SPAPR_TCE_v2_IOMMU: 7,
  NOIOMMU_IOMMU: 8,
  UNMAP_ALL: 9,
  UPDATE_VADDR: 10,
});

export const groupStatus: Struct = struct('vfio_group_status', {
  argsz: u32(),
  flags: u32('out', bits('VFIO_GROUP_FLAGS_', { VIABLE: 1, CONTAINER_SET: 2 })),
});

/** VFIO_GROUP_SET_CONTAINER reads a plain int, not a struct. */
const containerFd: Struct = struct('__s32', { fd: fd() });

export const iovaRange: Struct = struct('vfio_iova_range', { start: u64('out'), end: u64('out') });

const capIovaRange: Struct = struct('vfio_iommu_type1_info_cap_iova_range', {
  header: nested(infoCapHeader, 'out'),
  nr_iovas: u32('out'),
  reserved: reserved32,
  iova_ranges: flexible(structShape(iovaRange), countOf('nr_iovas'), 'out'),
});

const capMigration: Struct = struct('vfio_iommu_type1_info_cap_migration', {
  header: nested(infoCapHeader, 'out'),
  flags: u32('out', 'hex'),
  pgsize_bitmap: u64('out'),
  max_dirty_bitmap_size: u64('out'),
});

const capDmaAvail: Struct = struct('vfio_iommu_type1_info_dma_avail', {
  header: nested(infoCapHeader, 'out'),
  avail: u32('out'),
});

/** Ids in the chain of VFIO_IOMMU_GET_INFO. */
export const TYPE1_CAPS = oneOf('VFIO_IOMMU_TYPE1_INFO_', { CAP_IOVA_RANGE: 1, CAP_MIGRATION: 2, DMA_AVAIL: 3 });

export const type1Info: Struct = struct(
  'vfio_iommu_type1_info',
  {
    argsz: u32('inout'),
    flags: u32('out', bits('VFIO_IOMMU_INFO_', { PGSIZES: 1, CAPS: 2 })),
    iova_pgsizes: u64('out'),
    cap_offset: u32('out', 'hex'),
    pad: reserved32,
  },
  {
    offsetField: 'cap_offset',
    flag: 2,
    known: new Map([
      [1, capIovaRange],
      [2, capMigration],
      [3, capDmaAvail],
    ]),
  },
);

export const dmaMap: Struct = struct('vfio_iommu_type1_dma_map', {
  argsz: u32(),
  flags: u32('in', bits('VFIO_DMA_MAP_FLAG_', { READ: 1, WRITE: 2, VADDR: 4 })),
  vaddr: u64(),
  iova: u64(),
  size: u64(),
});

/** `size` is in bytes; one bit for each page of `pgsize`. */
export const vfioBitmap: Struct = struct('vfio_bitmap', {
  pgsize: u64(),
  size: u64(),
  data: pointer(pointsTo(bytesShape(countOf('size')), 'inout')),
});

export const dmaUnmap: Struct = struct('vfio_iommu_type1_dma_unmap', {
  argsz: u32(),
  flags: u32('in', bits('VFIO_DMA_UNMAP_FLAG_', { GET_DIRTY_BITMAP: 1, ALL: 2, VADDR: 4 })),
  iova: u64(),
  size: u64('inout'),
  data: flexibleChoice(by('flags', 1), [structCase(vfioBitmap, 1)], 'in'),
});

export const dirtyBitmapGet: Struct = struct('vfio_iommu_type1_dirty_bitmap_get', {
  iova: u64(),
  size: u64(),
  bitmap: nested(vfioBitmap, 'in'),
});

export const dirtyBitmap: Struct = struct('vfio_iommu_type1_dirty_bitmap', {
  argsz: u32(),
  flags: u32('in', bits('VFIO_IOMMU_DIRTY_PAGES_FLAG_', { START: 1, STOP: 2, GET_BITMAP: 4 })),
  data: flexibleChoice(by('flags', 4), [structCase(dirtyBitmapGet, 4)], 'in'),
});

/** Commands of a container that the iommufd compatibility layer takes as well. */
export const COMPAT_COMMANDS: readonly Command[] = [
  plainCommand('vfio-container', 'VFIO_GET_API_VERSION', 0x64, 'none', { returns: 'number' }),
  plainCommand('vfio-container', 'VFIO_CHECK_EXTENSION', 0x65, 'int', { argAs: EXTENSIONS, returns: 'number' }),
  plainCommand('vfio-container', 'VFIO_SET_IOMMU', 0x66, 'int', { argAs: EXTENSIONS }),
  sizedCommand('vfio-container', 'VFIO_IOMMU_GET_INFO', 0x70, type1Info, 'iova_pgsizes'),
  sizedCommand('vfio-container', 'VFIO_IOMMU_MAP_DMA', 0x71, dmaMap, 'size'),
  sizedCommand('vfio-container', 'VFIO_IOMMU_UNMAP_DMA', 0x72, dmaUnmap, 'size'),
  sizedCommand('vfio-container', 'VFIO_IOMMU_DIRTY_PAGES', 0x75, dirtyBitmap, 'flags'),
];

export const CONTAINER_COMMANDS: readonly Command[] = [
  ...COMPAT_COMMANDS,
  plainCommand('vfio-container', 'VFIO_IOMMU_ENABLE', 0x73, 'none', { spapr: true }),
  plainCommand('vfio-container', 'VFIO_IOMMU_DISABLE', 0x74, 'none', { spapr: true }),
];

export const GROUP_COMMANDS: readonly Command[] = [
  sizedCommand('vfio-group', 'VFIO_GROUP_GET_STATUS', 0x67, groupStatus, 'flags'),
  fixedCommand('vfio-group', 'VFIO_GROUP_SET_CONTAINER', semicolonRequest(0x68), containerFd, { arg: 'fd' }),
  plainCommand('vfio-group', 'VFIO_GROUP_UNSET_CONTAINER', 0x69, 'none'),
  plainCommand('vfio-group', 'VFIO_GROUP_GET_DEVICE_FD', 0x6a, 'string', { returns: 'fd' }),
];
