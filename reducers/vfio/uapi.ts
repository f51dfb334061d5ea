/**
 * The numbers of `linux/vfio.h` that the reducers compare with. Layouts stand in core/uapi; handlers on the hot
 * path read by offset.
 */

/** Requests, `_IO(';', 100 + n)`. Several commands of different files share one number. */
export const GET_API_VERSION = 0x3b64;
export const CHECK_EXTENSION = 0x3b65;
export const SET_IOMMU = 0x3b66;
export const GROUP_GET_STATUS = 0x3b67;
export const GROUP_SET_CONTAINER = 0x3b68;
export const GROUP_UNSET_CONTAINER = 0x3b69;
export const GROUP_GET_DEVICE_FD = 0x3b6a;
export const DEVICE_GET_INFO = 0x3b6b;
export const DEVICE_GET_REGION_INFO = 0x3b6c;
export const DEVICE_GET_IRQ_INFO = 0x3b6d;
export const DEVICE_SET_IRQS = 0x3b6e;
export const DEVICE_RESET = 0x3b6f;
export const DEVICE_GET_PCI_HOT_RESET_INFO = 0x3b70;
export const DEVICE_PCI_HOT_RESET = 0x3b71;
export const DEVICE_QUERY_GFX_PLANE = 0x3b72;
export const DEVICE_GET_GFX_DMABUF = 0x3b73;
export const DEVICE_IOEVENTFD = 0x3b74;
export const DEVICE_FEATURE = 0x3b75;
export const DEVICE_BIND_IOMMUFD = 0x3b76;
export const DEVICE_ATTACH_IOMMUFD_PT = 0x3b77;
export const DEVICE_DETACH_IOMMUFD_PT = 0x3b78;
export const MIG_GET_PRECOPY_INFO = 0x3b79;
export const IOMMU_GET_INFO = 0x3b70;
export const IOMMU_MAP_DMA = 0x3b71;
export const IOMMU_UNMAP_DMA = 0x3b72;
export const IOMMU_DIRTY_PAGES = 0x3b75;
/** Containers with the sPAPR backend; MAP, UNMAP and GET_INFO have the numbers of type1. */
export const IOMMU_ENABLE = 0x3b73;
export const IOMMU_DISABLE = 0x3b74;
export const IOMMU_SPAPR_REGISTER_MEMORY = 0x3b75;
export const IOMMU_SPAPR_UNREGISTER_MEMORY = 0x3b76;
export const IOMMU_SPAPR_TCE_CREATE = 0x3b77;
export const IOMMU_SPAPR_TCE_REMOVE = 0x3b78;
export const IOMMU_EEH_PE_OP = 0x3b79;

/** Values of CHECK_EXTENSION and SET_IOMMU. */
export const EXT_TYPE1 = 1;
export const EXT_SPAPR_TCE = 2;
export const EXT_TYPE1V2 = 3;
export const EXT_DMA_CC = 4;
export const EXT_EEH = 5;
/** Reserved since the extension went; see profile.ts. */
export const EXT_NESTING = 6;
export const EXT_SPAPR_TCE_V2 = 7;
export const EXT_NOIOMMU = 8;
export const EXT_UNMAP_ALL = 9;
export const EXT_UPDATE_VADDR = 10;

export const MAP_READ = 1;
export const MAP_WRITE = 2;
export const MAP_VADDR = 4;

export const UNMAP_GET_DIRTY_BITMAP = 1;
export const UNMAP_ALL = 2;
export const UNMAP_VADDR = 4;

export const DIRTY_START = 1;
export const DIRTY_STOP = 2;
export const DIRTY_GET_BITMAP = 4;

export const IOMMU_INFO_PGSIZES = 1;
export const IOMMU_INFO_CAPS = 2;
export const IOMMU_CAP_IOVA_RANGE = 1;
export const IOMMU_CAP_MIGRATION = 2;
export const IOMMU_CAP_DMA_AVAIL = 3;

export const GROUP_VIABLE = 1;
export const GROUP_CONTAINER_SET = 2;

export const DEVICE_FLAG_RESET = 1;
export const DEVICE_FLAG_PCI = 2;
export const DEVICE_FLAG_CAPS = 1 << 7;

export const REGION_READ = 1;
export const REGION_WRITE = 2;
export const REGION_MMAP = 4;
export const REGION_CAPS = 8;
export const REGION_CAP_SPARSE_MMAP = 1;
export const REGION_CAP_TYPE = 2;
export const REGION_CAP_MSIX_MAPPABLE = 3;
/** id 0, version 2, next 4 of each capability; type 8 and subtype 12 of {@link REGION_CAP_TYPE}. */
export const REGION_CAP_HEAD_BYTES = 8;
export const REGION_CAP_TYPE_BYTES = 16;
/** vfio_region_info, behind which its capabilities come. */
export const REGION_INFO_BYTES = 32;

export const PCI_NUM_REGIONS = 9;
export const PCI_ROM_REGION = 6;
export const PCI_CONFIG_REGION = 7;
export const PCI_VGA_REGION = 8;
/** Bits of a region's index above the offset into it, as the PCI drivers lay out the device fd. */
export const PCI_OFFSET_SHIFT = 40;

export const IRQ_INTX = 0;
export const IRQ_MSI = 1;
export const IRQ_MSIX = 2;
export const IRQ_ERR = 3;
export const IRQ_REQ = 4;
export const PCI_NUM_IRQS = 5;
export const IRQ_INFO_EVENTFD = 1;
export const IRQ_INFO_MASKABLE = 2;
export const IRQ_INFO_AUTOMASKED = 4;
export const IRQ_INFO_NORESIZE = 8;
export const IRQ_DATA_NONE = 1;
export const IRQ_DATA_BOOL = 2;
export const IRQ_DATA_EVENTFD = 4;
export const IRQ_ACTION_MASK = 8;
export const IRQ_ACTION_UNMASK = 16;
export const IRQ_ACTION_TRIGGER = 32;

export const FEATURE_MASK = 0xffff;
export const FEATURE_GET = 1 << 16;
export const FEATURE_SET = 1 << 17;
export const FEATURE_PROBE = 1 << 18;
export const FEATURE_PCI_VF_TOKEN = 0;
export const FEATURE_MIGRATION = 1;
export const FEATURE_MIG_DEVICE_STATE = 2;
export const FEATURE_LOW_POWER_ENTRY = 3;
export const FEATURE_LOW_POWER_ENTRY_WITH_WAKEUP = 4;
export const FEATURE_LOW_POWER_EXIT = 5;
export const FEATURE_DMA_LOGGING_START = 6;
export const FEATURE_DMA_LOGGING_STOP = 7;
export const FEATURE_DMA_LOGGING_REPORT = 8;
export const FEATURE_MIG_DATA_SIZE = 9;
export const FEATURE_BUS_MASTER = 10;
export const FEATURE_DMA_BUF = 11;
export const FEATURE_MIG_PRECOPY_INFO_V2 = 12;

export const MIGRATION_STOP_COPY = 1;
export const MIGRATION_P2P = 2;
export const MIGRATION_PRE_COPY = 4;

/** Highest address that x86-64 takes for user memory with four levels of page tables, plus the guard page. */
export const USER_PTR_MAX = 0x7fff_ffff_f000;
