import { SPAPR_CONTAINER } from '../core/uapi/lookup.js';
import type { CommandKind } from '../core/uapi/types.js';

/**
 * Which rules can reject a command, in the kernel's order of checks: ids, and prefixes of ids where they end in a dot or a
 * dash. A prefix stands for the rules of its table in the order of the table. A test holds the lists against the recordings
 * and against the tables, so that no rejection lacks its command.
 */
export type CommandRules = Readonly<Record<string, readonly string[]>>;

const IOMMUFD_HEAD = ['common.'];
/** What adding a domain or a device to an IOAS may meet. */
const ATTACH = ['attach.', 'mock-attach.', 'replace.', 'domain.', 'alignment.in-use', 'reserve.in-use', 'pages.'];
const FIXED_PLACE = ['iova.length', 'iova.aligned', 'iova.overflow', 'iova.reserved', 'iova.exists'];
const MAP_FIELDS = ['map.flags', 'map.overflow', 'map.no-access'];

const IOMMUFD: CommandRules = {
  IOMMU_DESTROY: [...IOMMUFD_HEAD, 'destroy.'],
  IOMMU_IOAS_ALLOC: [...IOMMUFD_HEAD, 'ioas-alloc.'],
  IOMMU_IOAS_ALLOW_IOVAS: [...IOMMUFD_HEAD, 'allow-iovas.'],
  IOMMU_IOAS_COPY: [
    ...IOMMUFD_HEAD,
    ...MAP_FIELDS,
    'copy.',
    'map.ioas',
    'iova.',
    'map.write',
    'map.page-offset',
    'pages.',
  ],
  IOMMU_IOAS_IOVA_RANGES: [...IOMMUFD_HEAD, 'iova-ranges.'],
  IOMMU_IOAS_MAP: [
    ...IOMMUFD_HEAD,
    ...MAP_FIELDS,
    'map.ioas',
    'map.memory-',
    'iova.',
    'map.page-offset',
    'pages.fault',
    'pages.memlock',
  ],
  IOMMU_IOAS_MAP_FILE: [
    ...IOMMUFD_HEAD,
    ...MAP_FIELDS,
    'map.ioas',
    'map-file.',
    'map.memory-length',
    'iova.',
    'map.page-offset',
    'pages.file-',
    'pages.memlock',
  ],
  IOMMU_IOAS_UNMAP: [...IOMMUFD_HEAD, 'unmap.'],
  IOMMU_OPTION: [...IOMMUFD_HEAD, 'option.', 'alignment.in-use'],
  IOMMU_VFIO_IOAS: [...IOMMUFD_HEAD, 'vfio-ioas.'],
  IOMMU_HWPT_ALLOC: [...IOMMUFD_HEAD, 'hwpt-alloc.', ...ATTACH],
  IOMMU_GET_HW_INFO: [...IOMMUFD_HEAD, 'hw-info.'],
  IOMMU_HWPT_SET_DIRTY_TRACKING: [...IOMMUFD_HEAD, 'dirty-tracking.'],
  IOMMU_HWPT_GET_DIRTY_BITMAP: [...IOMMUFD_HEAD, 'dirty-bitmap.'],
  IOMMU_HWPT_INVALIDATE: [...IOMMUFD_HEAD, 'invalidate.'],
  IOMMU_FAULT_QUEUE_ALLOC: [...IOMMUFD_HEAD, 'fault-alloc.'],
  IOMMU_VIOMMU_ALLOC: [...IOMMUFD_HEAD, 'viommu-alloc.'],
  IOMMU_VDEVICE_ALLOC: [...IOMMUFD_HEAD, 'vdevice-alloc.'],
  IOMMU_IOAS_CHANGE_PROCESS: [...IOMMUFD_HEAD, 'change-process.'],
  IOMMU_VEVENTQ_ALLOC: [...IOMMUFD_HEAD, 'veventq-alloc.'],
  IOMMU_HW_QUEUE_ALLOC: [...IOMMUFD_HEAD, 'hw-queue.', 'access.', 'pages.'],
  IOMMU_TEST_CMD: [
    ...IOMMUFD_HEAD,
    'test.',
    'test-',
    'mock-domain.',
    'mock-replace.',
    'create-access.',
    'access-',
    'access.',
    'destroy-pages.',
    'check-',
    'dmabuf-',
    'trigger-',
    'pasid-check.',
    ...ATTACH,
  ],
  VFIO_GET_API_VERSION: [],
  VFIO_CHECK_EXTENSION: ['compat.no-ioas'],
  VFIO_SET_IOMMU: ['compat-set-iommu.', 'compat.no-ioas', 'option.huge-in-use'],
  VFIO_IOMMU_GET_INFO: ['common.fault', 'compat-info.', 'compat.no-ioas'],
  VFIO_IOMMU_MAP_DMA: [
    'common.fault',
    'compat-map.',
    'compat.no-ioas',
    'map.memory-',
    ...FIXED_PLACE,
    'map.page-offset',
    'pages.fault',
    'pages.memlock',
    'pages.rights',
  ],
  VFIO_IOMMU_UNMAP_DMA: [
    'common.fault',
    'compat-unmap.',
    'compat.no-ioas',
    'unmap.length',
    'unmap.overflow',
    'unmap.locked',
    'unmap.part',
  ],
};
/** Requests that no command has. */
const IOMMUFD_OTHER = ['common.number', 'compat.number'];

const BACKEND = ['container.no-backend', 'container.unknown-command'];

const CONTAINER: CommandRules = {
  VFIO_GET_API_VERSION: [],
  VFIO_CHECK_EXTENSION: [],
  VFIO_SET_IOMMU: ['set-iommu.'],
  VFIO_IOMMU_GET_INFO: [...BACKEND, 'vfio.copy-in', 'get-info.'],
  VFIO_IOMMU_MAP_DMA: [...BACKEND, 'vfio.copy-in', 'map-dma.'],
  VFIO_IOMMU_UNMAP_DMA: [...BACKEND, 'vfio.copy-in', 'unmap-dma.'],
  VFIO_IOMMU_DIRTY_PAGES: [...BACKEND, 'dirty-pages.v1', 'vfio.copy-in', 'dirty-pages.'],
};

const SPAPR_HEAD = ['spapr.', 'vfio.copy-in'];

/** A container of a POWER machine. */
const SPAPR: CommandRules = {
  VFIO_GET_API_VERSION: [],
  VFIO_CHECK_EXTENSION: [],
  VFIO_SET_IOMMU: ['set-iommu.'],
  VFIO_IOMMU_ENABLE: [...SPAPR_HEAD, 'spapr-enable.'],
  VFIO_IOMMU_DISABLE: SPAPR_HEAD,
  VFIO_IOMMU_SPAPR_TCE_GET_INFO: [...SPAPR_HEAD, 'spapr-info.'],
  VFIO_IOMMU_MAP_DMA: [...SPAPR_HEAD, 'spapr-map.'],
  VFIO_IOMMU_UNMAP_DMA: [...SPAPR_HEAD, 'spapr-map.'],
  VFIO_IOMMU_SPAPR_REGISTER_MEMORY: [...SPAPR_HEAD, 'spapr-memory.', 'spapr-register.'],
  VFIO_IOMMU_SPAPR_UNREGISTER_MEMORY: [...SPAPR_HEAD, 'spapr-memory.', 'spapr-unregister.'],
  VFIO_IOMMU_SPAPR_TCE_CREATE: [...SPAPR_HEAD, 'spapr-create.'],
  VFIO_IOMMU_SPAPR_TCE_REMOVE: [...SPAPR_HEAD, 'spapr-remove.'],
  VFIO_EEH_PE_OP: [...SPAPR_HEAD, 'eeh.'],
};

const GROUP: CommandRules = {
  VFIO_GROUP_GET_STATUS: ['vfio.copy-in', 'group-status.'],
  VFIO_GROUP_SET_CONTAINER: ['set-container.'],
  VFIO_GROUP_UNSET_CONTAINER: ['unset-container.'],
  VFIO_GROUP_GET_DEVICE_FD: ['get-device-fd.', 'bind.owner', 'attach-access.', ...ATTACH],
};
const GROUP_OTHER = ['group.unknown-command'];

const DEVICE_HEAD = ['device.no-access', 'device.unknown-command', 'vfio.copy-in'];

const DEVICE: CommandRules = {
  VFIO_DEVICE_GET_INFO: [...DEVICE_HEAD, 'device-info.'],
  VFIO_DEVICE_GET_REGION_INFO: [...DEVICE_HEAD, 'region-info.'],
  VFIO_DEVICE_GET_IRQ_INFO: [...DEVICE_HEAD, 'irq-info.'],
  VFIO_DEVICE_SET_IRQS: [...DEVICE_HEAD, 'set-irqs.', 'display.set-irqs'],
  VFIO_DEVICE_QUERY_GFX_PLANE: [...DEVICE_HEAD, 'gfx-plane.'],
  VFIO_DEVICE_RESET: [...DEVICE_HEAD, 'device-reset.'],
  VFIO_DEVICE_GET_PCI_HOT_RESET_INFO: [...DEVICE_HEAD, 'hot-reset-info.', 'hot-reset.root-bus'],
  VFIO_DEVICE_PCI_HOT_RESET: [...DEVICE_HEAD, 'hot-reset.'],
  VFIO_DEVICE_IOEVENTFD: [...DEVICE_HEAD, 'ioeventfd.'],
  VFIO_DEVICE_FEATURE: [...DEVICE_HEAD, 'feature.', 'mig-state.', 'logging-', 'dma-buf.'],
  VFIO_DEVICE_BIND_IOMMUFD: ['vfio.copy-in', 'bind.'],
  VFIO_DEVICE_ATTACH_IOMMUFD_PT: [...DEVICE_HEAD, 'attach-pt.', 'device.no-pasid', 'attach-access.', ...ATTACH],
  VFIO_DEVICE_DETACH_IOMMUFD_PT: [...DEVICE_HEAD, 'detach-pt.', 'device.no-pasid'],
};
const DEVICE_OTHER = ['device.no-access', 'device.unknown-command'];

const MIGRATION: CommandRules = { VFIO_MIG_GET_PRECOPY_INFO: ['mig-file.disabled', 'vfio.copy-in', 'precopy-info.'] };
const MIGRATION_OTHER = ['mig-file.'];

const DMIRROR_HEAD = ['dmirror.fault', 'dmirror.addr-aligned', 'dmirror.range', 'dmirror.command'];
const DMIRROR_ACCESS = [...DMIRROR_HEAD, 'dmirror.bounce', 'dmirror.mm-gone', 'fault.', 'dmirror.buffer'];

const DMIRROR: CommandRules = {
  HMM_DMIRROR_READ: DMIRROR_ACCESS,
  HMM_DMIRROR_WRITE: DMIRROR_ACCESS,
  HMM_DMIRROR_MIGRATE_TO_DEV: [...DMIRROR_HEAD, 'dmirror.mm-gone', 'migrate-to-dev.', 'dmirror.buffer'],
  HMM_DMIRROR_MIGRATE_TO_SYS: [...DMIRROR_HEAD, 'dmirror.mm-gone', 'migrate-to-sys.'],
  HMM_DMIRROR_SNAPSHOT: [...DMIRROR_HEAD, 'dmirror.mm-gone', 'dmirror.buffer'],
  HMM_DMIRROR_EXCLUSIVE: [...DMIRROR_HEAD, 'dmirror.mm-gone', 'exclusive.', 'dmirror.buffer'],
  HMM_DMIRROR_CHECK_EXCLUSIVE: [...DMIRROR_HEAD, 'check-exclusive.'],
  HMM_DMIRROR_RELEASE: DMIRROR_HEAD,
  HMM_DMIRROR_FLAGS: DMIRROR_HEAD,
};

interface Family {
  readonly commands: CommandRules;
  /** For requests that are no command of the file. */
  readonly other: readonly string[];
}

const FAMILIES: Readonly<Record<CommandKind | typeof SPAPR_CONTAINER, Family>> = {
  'vfio-container': { commands: CONTAINER, other: BACKEND },
  [SPAPR_CONTAINER]: { commands: SPAPR, other: SPAPR_HEAD },
  'vfio-group': { commands: GROUP, other: GROUP_OTHER },
  'vfio-device': { commands: DEVICE, other: DEVICE_OTHER },
  'vfio-migration': { commands: MIGRATION, other: MIGRATION_OTHER },
  iommufd: { commands: IOMMUFD, other: IOMMUFD_OTHER },
  dmirror: { commands: DMIRROR, other: ['dmirror.command'] },
};

/** Ids and prefixes of the rules that can reject a command on a kind of file. */
export function rulesOfCommand(kind: CommandKind | typeof SPAPR_CONTAINER, name: string): readonly string[] {
  const { commands, other } = FAMILIES[kind];
  return Object.hasOwn(commands, name) ? (commands[name] as readonly string[]) : other;
}

/** All ids and prefixes, for a test of completeness. */
export function allCommandRules(): readonly string[] {
  return Object.values(FAMILIES).flatMap(({ commands, other }) => [...Object.values(commands).flat(), ...other]);
}
