import { array, bits, oneOf, reserved32, struct, u8, u32, u64 } from './layout.js';
import type { Struct } from './types.js';

/**
 * Structs that iommufd commands point to, by the type of the IOMMU behind them, and the records that its queues are
 * read and written in: `iommufd.h`, `iommufd_test.h` for the mock hardware.
 */

export const HWPT_DATA_TYPES = oneOf('IOMMU_HWPT_DATA_', {
  NONE: 0,
  VTD_S1: 1,
  ARM_SMMUV3: 2,
  AMD_GUEST: 3,
  SELFTEST: 0xdead,
});

export const hwptVtdS1: Struct = struct('iommu_hwpt_vtd_s1', {
  flags: u64('in', bits('IOMMU_VTD_S1_', { SRE: 1, EAFE: 2, WPE: 4 })),
  pgtbl_addr: u64(),
  addr_width: u32(),
  __reserved: reserved32,
});

export const hwptArmSmmuv3: Struct = struct('iommu_hwpt_arm_smmuv3', { ste: array('u64', 2, 'in') });
export const hwptAmdGuest: Struct = struct('iommu_hwpt_amd_guest', { dte: array('u64', 4, 'in') });
export const hwptSelftest: Struct = struct('iommu_hwpt_selftest', {
  iotlb: u32('in', 'hex'),
  pagetable_type: u32('in', oneOf('MOCK_IOMMUPT_', { DEFAULT: 0, HUGE: 1 })),
});

export const HW_INFO_TYPES = oneOf('IOMMU_HW_INFO_TYPE_', {
  NONE: 0,
  INTEL_VTD: 1,
  ARM_SMMUV3: 2,
  TEGRA241_CMDQV: 3,
  AMD: 4,
  SELFTEST: 0xfeed_beef,
});

/** What `in_data_type` 0 means: the kernel chooses. */
export const HW_INFO_REQUEST_TYPES = oneOf('IOMMU_HW_INFO_TYPE_', { DEFAULT: 0 });

export const hwInfoVtd: Struct = struct('iommu_hw_info_vtd', {
  flags: u32('out', bits('IOMMU_HW_INFO_VTD_', { ERRATA_772415_SPR17: 1 })),
  __reserved: reserved32,
  cap_reg: u64('out'),
  ecap_reg: u64('out'),
});

export const hwInfoArmSmmuv3: Struct = struct('iommu_hw_info_arm_smmuv3', {
  flags: u32('out', 'hex'),
  __reserved: reserved32,
  idr: array('u32', 6, 'out'),
  iidr: u32('out', 'hex'),
  aidr: u32('out', 'hex'),
});

export const hwInfoTegra241: Struct = struct('iommu_hw_info_tegra241_cmdqv', {
  flags: u32('out', 'hex'),
  version: u8('out'),
  log2vcmdqs: u8('out'),
  log2vsids: u8('out'),
  __reserved: u8('reserved'),
});

export const hwInfoAmd: Struct = struct('iommu_hw_info_amd', { efr: u64('out'), efr2: u64('out') });
export const hwInfoSelftest: Struct = struct('iommu_test_hw_info', {
  flags: u32('out', 'hex'),
  test_reg: u32('out', 'hex'),
});

/** Two numberings in one field: of a nested HWPT, and of a vIOMMU; only the object behind `hwpt_id` tells which. */
export const INVALIDATE_TYPES = oneOf('IOMMU_', {
  HWPT_INVALIDATE_DATA_VTD_S1: 0,
  VIOMMU_INVALIDATE_DATA_ARM_SMMUV3: 1,
  HWPT_INVALIDATE_DATA_SELFTEST: 0xdead_beef,
  HWPT_INVALIDATE_DATA_SELFTEST_INVALID: 0x0dad_beef,
  VIOMMU_INVALIDATE_DATA_SELFTEST: 0xdead_beef,
  VIOMMU_INVALIDATE_DATA_SELFTEST_INVALID: 0x0dad_beef,
});

export const invalidateVtdS1: Struct = struct('iommu_hwpt_vtd_s1_invalidate', {
  addr: u64(),
  npages: u64(),
  flags: u32('in', bits('IOMMU_VTD_INV_FLAGS_', { LEAF: 1 })),
  __reserved: reserved32,
});

export const invalidateArmSmmuv3: Struct = struct('iommu_viommu_arm_smmuv3_invalidate', {
  cmd: array('u64', 2, 'in'),
});

const TEST_INVALIDATE = bits('IOMMU_TEST_INVALIDATE_FLAG_', { ALL: 1 });

export const invalidateSelftest: Struct = struct('iommu_hwpt_invalidate_selftest', {
  flags: u32('in', TEST_INVALIDATE),
  iotlb_id: u32(),
});

export const viommuInvalidateSelftest: Struct = struct('iommu_viommu_invalidate_selftest', {
  flags: u32('in', TEST_INVALIDATE),
  vdev_id: u32(),
  cache_id: u32(),
});

export const VIOMMU_TYPES = oneOf('IOMMU_VIOMMU_TYPE_', {
  DEFAULT: 0,
  ARM_SMMUV3: 1,
  TEGRA241_CMDQV: 2,
  SELFTEST: 0xdead_beef,
});

export const viommuTegra241: Struct = struct('iommu_viommu_tegra241_cmdqv', {
  out_vintf_mmap_offset: u64('out'),
  out_vintf_mmap_length: u64('out'),
});

export const viommuSelftest: Struct = struct('iommu_viommu_selftest', {
  in_data: u32('in', 'hex'),
  out_data: u32('out', 'hex'),
  out_mmap_offset: u64('out'),
  out_mmap_length: u64('out'),
});

export const VEVENTQ_TYPES = oneOf('IOMMU_VEVENTQ_TYPE_', {
  DEFAULT: 0,
  ARM_SMMUV3: 1,
  TEGRA241_CMDQV: 2,
  SELFTEST: 0xbeef_beef,
});

export const HW_QUEUE_TYPES = oneOf('IOMMU_HW_QUEUE_TYPE_', { DEFAULT: 0, TEGRA241_CMDQV: 1, SELFTEST: 0xdead_beef });

/** Read from a fault queue's fd. */
export const pageFault: Struct = struct('iommu_hwpt_pgfault', {
  flags: u32('out', bits('IOMMU_PGFAULT_FLAGS_', { PASID_VALID: 1, LAST_PAGE: 2 })),
  dev_id: u32('out'),
  pasid: u32('out'),
  grpid: u32('out'),
  perm: u32('out', bits('IOMMU_PGFAULT_PERM_', { READ: 1, WRITE: 2, EXEC: 4, PRIV: 8 })),
  __reserved: reserved32,
  addr: u64('out'),
  length: u32('out', 'hex'),
  cookie: u32('out'),
});

/** Written to a fault queue's fd. */
export const pageResponse: Struct = struct('iommu_hwpt_page_response', {
  cookie: u32(),
  code: u32('in', oneOf('IOMMUFD_PAGE_RESP_', { SUCCESS: 0, INVALID: 1 })),
});

/** Read from a virtual event queue's fd, each followed by one of the event structs unless events were lost. */
export const veventHeader: Struct = struct('iommufd_vevent_header', {
  flags: u32('out', bits('IOMMU_VEVENTQ_FLAG_', { LOST_EVENTS: 1 })),
  sequence: u32('out'),
});

export const veventArmSmmuv3: Struct = struct('iommu_vevent_arm_smmuv3', { evt: array('u64', 4, 'out') });
export const veventTegra241: Struct = struct('iommu_vevent_tegra241_cmdqv', { lvcmdq_err_map: array('u64', 2, 'out') });
export const veventSelftest: Struct = struct('iommu_viommu_event_selftest', { virt_id: u32('out') });
