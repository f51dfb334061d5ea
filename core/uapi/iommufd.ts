import {
  arrayShape,
  bits,
  bitmapOf,
  by,
  bytesShape,
  choiceShape,
  countOf,
  fd,
  member,
  oneOf,
  pointer,
  pointsTo,
  reserved8,
  reserved16,
  reserved32,
  scalarShape,
  sizedCommand,
  struct,
  structCase,
  structShape,
  u8,
  u16,
  u32,
  u64,
  union,
} from './layout.js';
import * as data from './iommufd-data.js';
import { testCmd } from './iommufd-test.js';
import type { CommandOptions, FieldSpec } from './layout.js';
import type { Case, Command, Direction, Struct } from './types.js';
import { COMPAT_COMMANDS } from './vfio-container.js';

/**
 * iommufd: `iommufd.h`, drivers/iommu/iommufd/main.c. Every struct begins with its own size. The kernel takes any size from
 * the last mandatory field on; what the caller's struct lacks is zero, and what it has beyond must be zero.
 * Requests are compared whole: right number, no direction, no size.
 */

const destroy: Struct = struct('iommu_destroy', { size: u32(), id: u32() });

const ioasAlloc: Struct = struct('iommu_ioas_alloc', { size: u32(), flags: u32('in', 'hex'), out_ioas_id: u32('out') });

export const iovaRange: Struct = struct('iommu_iova_range', { start: u64('inout'), last: u64('inout') });

const iovaRanges = arrayShape(structShape(iovaRange), countOf('num_iovas'));

const ioasIovaRanges: Struct = struct('iommu_ioas_iova_ranges', {
  size: u32(),
  ioas_id: u32(),
  num_iovas: u32('inout'),
  __reserved: reserved32,
  allowed_iovas: pointer(pointsTo(iovaRanges, 'out')),
  out_iova_alignment: u64('out'),
});

const ioasAllowIovas: Struct = struct('iommu_ioas_allow_iovas', {
  size: u32(),
  ioas_id: u32(),
  num_iovas: u32(),
  __reserved: reserved32,
  allowed_iovas: pointer(pointsTo(iovaRanges, 'in')),
});

/** Flags of MAP, MAP_FILE and COPY. */
export const MAP_FLAGS = bits('IOMMU_IOAS_MAP_', { FIXED_IOVA: 1, WRITEABLE: 2, READABLE: 4 });

const ioasMap: Struct = struct('iommu_ioas_map', {
  size: u32(),
  flags: u32('in', MAP_FLAGS),
  ioas_id: u32(),
  __reserved: reserved32,
  user_va: u64(),
  length: u64(),
  iova: u64('inout'),
});

const ioasMapFile: Struct = struct('iommu_ioas_map_file', {
  size: u32(),
  flags: u32('in', MAP_FLAGS),
  ioas_id: u32(),
  fd: fd(),
  start: u64(),
  length: u64(),
  iova: u64('inout'),
});

const ioasCopy: Struct = struct('iommu_ioas_copy', {
  size: u32(),
  flags: u32('in', MAP_FLAGS),
  dst_ioas_id: u32(),
  src_ioas_id: u32(),
  length: u64(),
  dst_iova: u64('inout'),
  src_iova: u64(),
});

const ioasUnmap: Struct = struct('iommu_ioas_unmap', {
  size: u32(),
  ioas_id: u32(),
  iova: u64(),
  length: u64('inout'),
});

const option: Struct = struct('iommu_option', {
  size: u32(),
  option_id: u32('in', oneOf('IOMMU_OPTION_', { RLIMIT_MODE: 0, HUGE_PAGES: 1 })),
  op: u16('in', oneOf('IOMMU_OPTION_OP_', { SET: 0, GET: 1 })),
  __reserved: reserved16,
  object_id: u32(),
  val64: u64('inout'),
});

const vfioIoas: Struct = struct('iommu_vfio_ioas', {
  size: u32(),
  ioas_id: u32('inout'),
  op: u16('in', oneOf('IOMMU_VFIO_IOAS_', { GET: 0, SET: 1, CLEAR: 2 })),
  __reserved: reserved16,
});

/** A pointer to `data_len` bytes that the IOMMU's type gives a meaning. */
function typedData(typeField: string, direction: Direction, cases: readonly Case[]): FieldSpec {
  return pointer(pointsTo(choiceShape(by(typeField), cases), direction, { room: countOf('data_len') }));
}

const hwptAlloc: Struct = struct('iommu_hwpt_alloc', {
  size: u32(),
  flags: u32(
    'in',
    bits('IOMMU_HWPT_', { ALLOC_NEST_PARENT: 1, ALLOC_DIRTY_TRACKING: 2, FAULT_ID_VALID: 4, ALLOC_PASID: 8 }),
  ),
  dev_id: u32(),
  pt_id: u32(),
  out_hwpt_id: u32('out'),
  __reserved: reserved32,
  data_type: u32('in', data.HWPT_DATA_TYPES),
  data_len: u32(),
  data_uptr: typedData('data_type', 'in', [
    structCase(data.hwptVtdS1, 1),
    structCase(data.hwptArmSmmuv3, 2),
    structCase(data.hwptAmdGuest, 3),
    structCase(data.hwptSelftest, 0xdead),
  ]),
  fault_id: u32(),
  __reserved2: reserved32,
});

const hwInfo: Struct = struct('iommu_hw_info', {
  size: u32(),
  flags: u32('in', bits('IOMMU_HW_INFO_FLAG_', { INPUT_TYPE: 1 })),
  dev_id: u32(),
  data_len: u32('inout'),
  data_uptr: typedData('out_data_type', 'out', [
    structCase(data.hwInfoVtd, 1),
    structCase(data.hwInfoArmSmmuv3, 2),
    structCase(data.hwInfoTegra241, 3),
    structCase(data.hwInfoAmd, 4),
    structCase(data.hwInfoSelftest, 0xfeed_beef),
  ]),
  data_type: union(
    by('flags', 1),
    [
      member('out_data_type', [], scalarShape('u32', data.HW_INFO_TYPES)),
      member('in_data_type', [1], scalarShape('u32', data.HW_INFO_TYPES)),
    ],
    'inout',
  ),
  out_max_pasid_log2: u8('out'),
  __reserved: reserved8(3),
  out_capabilities: u64(
    'out',
    bits('IOMMU_HW_CAP_', { DIRTY_TRACKING: 1, PCI_PASID_EXEC: 2, PCI_PASID_PRIV: 4, PCI_ATS_NOT_SUPPORTED: 8 }),
  ),
});

const setDirtyTracking: Struct = struct('iommu_hwpt_set_dirty_tracking', {
  size: u32(),
  flags: u32('in', bits('IOMMU_HWPT_DIRTY_TRACKING_', { ENABLE: 1 })),
  hwpt_id: u32(),
  __reserved: reserved32,
});

const getDirtyBitmap: Struct = struct('iommu_hwpt_get_dirty_bitmap', {
  size: u32(),
  hwpt_id: u32(),
  flags: u32('in', bits('IOMMU_HWPT_GET_DIRTY_BITMAP_', { NO_CLEAR: 1 })),
  __reserved: reserved32,
  iova: u64(),
  length: u64(),
  page_size: u64(),
  data: pointer(pointsTo(bytesShape(bitmapOf('length', 'page_size')), 'inout')),
});

const invalidateEntries = arrayShape(
  choiceShape(by('data_type'), [
    structCase(data.invalidateVtdS1, 0),
    structCase(data.invalidateArmSmmuv3, 1),
    structCase(data.invalidateSelftest, 0xdead_beef),
    structCase(data.viommuInvalidateSelftest, 0xdead_beef),
  ]),
  countOf('entry_num'),
  'entry_len',
);

const hwptInvalidate: Struct = struct('iommu_hwpt_invalidate', {
  size: u32(),
  hwpt_id: u32(),
  data_uptr: pointer(pointsTo(invalidateEntries, 'in')),
  data_type: u32('in', data.INVALIDATE_TYPES),
  entry_len: u32(),
  entry_num: u32('inout'),
  __reserved: reserved32,
});

const faultAlloc: Struct = struct('iommu_fault_alloc', {
  size: u32(),
  flags: u32('in', 'hex'),
  out_fault_id: u32('out'),
  out_fault_fd: u32('out'),
});

const viommuAlloc: Struct = struct('iommu_viommu_alloc', {
  size: u32(),
  flags: u32('in', 'hex'),
  type: u32('in', data.VIOMMU_TYPES),
  dev_id: u32(),
  hwpt_id: u32(),
  out_viommu_id: u32('out'),
  data_len: u32(),
  __reserved: reserved32,
  data_uptr: typedData('type', 'inout', [
    structCase(data.viommuTegra241, 2),
    structCase(data.viommuSelftest, 0xdead_beef),
  ]),
});

const vdeviceAlloc: Struct = struct('iommu_vdevice_alloc', {
  size: u32(),
  viommu_id: u32(),
  dev_id: u32(),
  out_vdevice_id: u32('out'),
  virt_id: u64(),
});

const ioasChangeProcess: Struct = struct('iommu_ioas_change_process', { size: u32(), __reserved: reserved32 });

const veventqAlloc: Struct = struct('iommu_veventq_alloc', {
  size: u32(),
  flags: u32('in', 'hex'),
  viommu_id: u32(),
  type: u32('in', data.VEVENTQ_TYPES),
  veventq_depth: u32(),
  out_veventq_id: u32('out'),
  out_veventq_fd: u32('out'),
  __reserved: reserved32,
});

const hwQueueAlloc: Struct = struct('iommu_hw_queue_alloc', {
  size: u32(),
  flags: u32('in', 'hex'),
  viommu_id: u32(),
  type: u32('in', data.HW_QUEUE_TYPES),
  index: u32(),
  out_hw_queue_id: u32('out'),
  nesting_parent_iova: u64(),
  length: u64(),
});

function iommufd(name: string, nr: number, of: Struct, lastField: string, options: CommandOptions = {}): Command {
  return sizedCommand('iommufd', name, nr, of, lastField, options);
}

/** The last column is the field that the kernel's own table names as the last mandatory one. */
export const IOMMUFD_COMMANDS: readonly Command[] = [
  iommufd('IOMMU_DESTROY', 0x80, destroy, 'id'),
  iommufd('IOMMU_IOAS_ALLOC', 0x81, ioasAlloc, 'out_ioas_id'),
  iommufd('IOMMU_IOAS_ALLOW_IOVAS', 0x82, ioasAllowIovas, 'allowed_iovas'),
  iommufd('IOMMU_IOAS_COPY', 0x83, ioasCopy, 'src_iova'),
  iommufd('IOMMU_IOAS_IOVA_RANGES', 0x84, ioasIovaRanges, 'out_iova_alignment'),
  iommufd('IOMMU_IOAS_MAP', 0x85, ioasMap, 'iova'),
  iommufd('IOMMU_IOAS_UNMAP', 0x86, ioasUnmap, 'length'),
  iommufd('IOMMU_OPTION', 0x87, option, 'val64'),
  iommufd('IOMMU_VFIO_IOAS', 0x88, vfioIoas, '__reserved'),
  iommufd('IOMMU_HWPT_ALLOC', 0x89, hwptAlloc, '__reserved'),
  iommufd('IOMMU_GET_HW_INFO', 0x8a, hwInfo, '__reserved'),
  iommufd('IOMMU_HWPT_SET_DIRTY_TRACKING', 0x8b, setDirtyTracking, '__reserved'),
  iommufd('IOMMU_HWPT_GET_DIRTY_BITMAP', 0x8c, getDirtyBitmap, 'data'),
  iommufd('IOMMU_HWPT_INVALIDATE', 0x8d, hwptInvalidate, '__reserved'),
  iommufd('IOMMU_FAULT_QUEUE_ALLOC', 0x8e, faultAlloc, 'out_fault_fd'),
  iommufd('IOMMU_IOAS_MAP_FILE', 0x8f, ioasMapFile, 'iova'),
  iommufd('IOMMU_VIOMMU_ALLOC', 0x90, viommuAlloc, 'out_viommu_id'),
  iommufd('IOMMU_VDEVICE_ALLOC', 0x91, vdeviceAlloc, 'virt_id'),
  iommufd('IOMMU_IOAS_CHANGE_PROCESS', 0x92, ioasChangeProcess, '__reserved'),
  iommufd('IOMMU_VEVENTQ_ALLOC', 0x93, veventqAlloc, 'out_veventq_fd'),
  iommufd('IOMMU_HW_QUEUE_ALLOC', 0x94, hwQueueAlloc, 'length'),
  iommufd('IOMMU_TEST_CMD', 0xa0, testCmd, 'last', { returns: 'number' }),
];

/** The container commands that an iommufd answers in place of a container. */
export const IOMMUFD_COMPAT_COMMANDS: readonly Command[] = COMPAT_COMMANDS.map((c) => ({ ...c, kind: 'iommufd' }));
