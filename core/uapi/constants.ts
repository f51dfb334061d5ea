import { oneOf } from './layout.js';

/**
 * Named values of the headers that no field of a table holds for certain: what an index or a type means depends on the
 * device, and some are facts about the kernel's mock devices.
 */

export const API_VERSION = oneOf('VFIO_', { API_VERSION: 0 });

/** Region index on a vfio-pci device. */
export const PCI_REGIONS = oneOf('VFIO_PCI_', {
  BAR0_REGION_INDEX: 0,
  BAR1_REGION_INDEX: 1,
  BAR2_REGION_INDEX: 2,
  BAR3_REGION_INDEX: 3,
  BAR4_REGION_INDEX: 4,
  BAR5_REGION_INDEX: 5,
  ROM_REGION_INDEX: 6,
  CONFIG_REGION_INDEX: 7,
  VGA_REGION_INDEX: 8,
});

/** Interrupt index on a vfio-pci device. */
export const PCI_IRQS = oneOf('VFIO_PCI_', {
  INTX_IRQ_INDEX: 0,
  MSI_IRQ_INDEX: 1,
  MSIX_IRQ_INDEX: 2,
  ERR_IRQ_INDEX: 3,
  REQ_IRQ_INDEX: 4,
});

export const CCW_REGIONS = oneOf('VFIO_CCW_', { CONFIG_REGION_INDEX: 0 });
export const CCW_IRQS = oneOf('VFIO_CCW_', { IO_IRQ_INDEX: 0, CRW_IRQ_INDEX: 1, REQ_IRQ_INDEX: 2 });
export const AP_IRQS = oneOf('VFIO_AP_', { REQ_IRQ_INDEX: 0, CFG_CHG_IRQ_INDEX: 1 });

/** `type` of a region's type capability; for PCI vendors the vendor id is or-ed to PCI_VENDOR_TYPE. */
export const REGION_TYPES = oneOf('VFIO_REGION_TYPE_', {
  GFX: 1,
  CCW: 2,
  MIGRATION_DEPRECATED: 3,
  PCI_VENDOR_TYPE: 0x8000_0000,
});

/** `subtype` of a region's type capability; each `type` numbers its own. */
export const REGION_SUBTYPES = {
  intel: oneOf('VFIO_REGION_SUBTYPE_INTEL_', { IGD_OPREGION: 1, IGD_HOST_CFG: 2, IGD_LPC_CFG: 3 }),
  nvidia: oneOf('VFIO_REGION_SUBTYPE_NVIDIA_', { NVLINK2_RAM: 1 }),
  ibm: oneOf('VFIO_REGION_SUBTYPE_IBM_', { NVLINK2_ATSD: 1 }),
  gfx: oneOf('VFIO_REGION_SUBTYPE_GFX_', { EDID: 1 }),
  ccw: oneOf('VFIO_REGION_SUBTYPE_CCW_', { ASYNC_CMD: 1, SCHIB: 2, CRW: 3 }),
  migration: oneOf('VFIO_REGION_SUBTYPE_', { MIGRATION_DEPRECATED: 1 }),
} as const;

/** The state with no bit set in the migration interface of before Linux 5.18. */
export const MIGRATION_V1 = oneOf('VFIO_DEVICE_STATE_V1_', { STOP: 0 });

/** The kernel's mock IOMMU and devices. */
export const MOCK = oneOf('MOCK_', {
  APERTURE_START: 0x100_0000,
  APERTURE_LAST: 0x7fff_ffff,
  PAGE_SIZE: 2048,
  HUGE_PAGE_SIZE: 0x10_0000,
  NESTED_DOMAIN_IOTLB_ID_MAX: 3,
  NESTED_DOMAIN_IOTLB_NUM: 4,
  DEV_CACHE_ID_MAX: 3,
  DEV_CACHE_NUM: 4,
  PASID_WIDTH: 20,
});

export const IOMMU_TEST = oneOf('IOMMU_', {
  TEST_PASID_RESERVED: 1024,
  TEST_IOTLB_DEFAULT: 0xbad_beef,
  TEST_DEV_CACHE_DEFAULT: 0xba_ddad,
  TEST_HW_QUEUE_MAX: 2,
  HW_INFO_SELFTEST_REGVAL: 0xdead_beef,
});

/** A `hmm_pfn`: its bits from 53 up hold flags and the order, those below the page frame number. Timeout in ms. */
export const HMM = oneOf('HMM_', {
  PFN_ORDER_SHIFT: 53,
  PFN_FLAGS: 0xffe0_0000_0000_0000n,
  RANGE_DEFAULT_TIMEOUT: 1000,
});
