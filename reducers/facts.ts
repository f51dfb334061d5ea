/**
 * What may be learned from a recording: facts of the machine that no model can know beforehand. Anything that
 * is not in this table is predicted. A fact is asked for once; from then on another answer is a divergence.
 * Learned besides, and not kept: the number of a new fd where calls that were not recorded hold lower ones (new-fd.ts),
 * ENOMEM, the errors of injected faults, and SET_IRQS that gets fewer vectors than the device has.
 *
 * `pattern` is the key with `*` for a part that names a device, group or index; `field` is what the uAPI calls it.
 */
export interface LearnableFact {
  readonly pattern: string;
  readonly field: string;
  readonly why: string;
}

export const LEARNABLE_FACTS: readonly LearnableFact[] = [
  // The IOMMU behind a set of groups (type1).
  { pattern: 'vfio-type1/*/pgsizes', field: 'iova_pgsizes', why: 'page sizes of the IOMMU' },
  { pattern: 'vfio-type1/*/iova_range_count', field: 'nr_iovas', why: 'how many ranges reserved regions leave' },
  { pattern: 'vfio-type1/*/iova_ranges', field: 'iova_ranges', why: 'aperture of the IOMMU without reserved regions' },
  { pattern: 'vfio-type1/*/width_from', field: 'ret', why: 'that the IOMMU translates addresses: a MAP_DMA was taken' },
  { pattern: 'vfio-type1/*/width_to', field: 'ret', why: 'that the IOMMU has fewer bits: a MAP_DMA was refused' },
  { pattern: 'vfio-type1/*/dma_cc', field: 'VFIO_DMA_CC_IOMMU', why: 'whether the IOMMU enforces cache coherency' },
  { pattern: 'vfio-type1/dma_entry_limit', field: 'avail', why: 'a module parameter' },
  { pattern: 'vfio-spapr/*/window_start', field: 'dma32_window_start', why: 'POWER: where the default window is' },
  { pattern: 'vfio-spapr/*/window_size', field: 'dma32_window_size', why: 'POWER: size of the default window' },
  { pattern: 'vfio-spapr/*/dynamic_windows', field: 'ddw', why: 'POWER: windows that the hardware can have' },
  { pattern: 'kernel/type1', field: 'VFIO_TYPE1_IOMMU', why: 'a build option: all kernels for PCs have it' },
  { pattern: 'kernel/spapr_tce', field: 'VFIO_SPAPR_TCE_IOMMU', why: 'a kernel for POWER machines' },
  { pattern: 'kernel/eeh', field: 'VFIO_EEH', why: 'error recovery of POWER machines' },
  { pattern: 'vfio/noiommu', field: 'VFIO_NOIOMMU_IOMMU', why: 'a module parameter' },
  // The IOMMU in front of a device (iommufd).
  { pattern: 'iommu/*/aperture', field: 'allowed_iovas', why: 'what the IOMMU can translate' },
  { pattern: 'iommu/*/reserved', field: 'allowed_iovas', why: 'what the bus and the IOMMU of a device reserve' },
  { pattern: 'iommu/*/range_count', field: 'num_iovas', why: 'how many ranges reserved regions leave' },
  { pattern: 'iommu/*/pgsizes', field: 'iova_pgsizes', why: 'page sizes of the IOMMU' },
  { pattern: 'iommu/*/capabilities', field: 'out_capabilities', why: 'what the IOMMU and the path to it can do' },
  { pattern: 'iommu/*/max_pasid_log2', field: 'out_max_pasid_log2', why: 'PASIDs that device and IOMMU support' },
  { pattern: 'iommu/*/hw_info_type', field: 'out_data_type', why: 'which IOMMU it is' },
  { pattern: 'iommu/*/hw_info_bytes', field: 'data_len', why: 'which IOMMU it is' },
  { pattern: 'iommu/*/hw_info_bytes_*', field: 'data_len', why: 'which IOMMU it is' },
  { pattern: 'iommu/*/hw_info/*', field: 'data_uptr', why: 'capability registers of the IOMMU' },
  { pattern: 'iommu/*/can/*', field: 'ret', why: 'what the IOMMU can do, seen by a call that needs it' },
  { pattern: 'iommu/driver', field: 'out_data_type', why: 'which kind of IOMMU the machine has' },
  { pattern: 'iommu/cache_coherency', field: 'VFIO_DMA_CC_IOMMU', why: 'whether the IOMMU enforces cache coherency' },
  { pattern: 'kernel/vfio_container', field: 'ret', why: 'a build option: iommufd provides /dev/vfio/vfio' },
  { pattern: 'kernel/vfio_noiommu', field: 'VFIO_NOIOMMU_IOMMU', why: 'a build option of the kernel' },
  { pattern: 'kernel/iommufd_test', field: 'op', why: 'a build option: seen by an IOMMU_TEST_CMD that succeeds' },
  // Groups and devices.
  { pattern: 'vfio-group/*/emulated', field: 'group_fd', why: 'shown by a container that takes any address' },
  { pattern: 'vfio-device/*/first_state', field: 'device_state', why: 'drivers keep it over opens' },
  {
    pattern: 'vfio-device/*/group',
    field: 'name',
    why: 'which groups a device can be in: BIND is refused while they are open',
  },
  {
    pattern: 'vfio-device/*/not-group/*',
    field: 'name',
    why: 'which group a device is not in: bound while that was open',
  },
  {
    pattern: 'vfio-device/*/shares-group',
    field: 'ret',
    why: 'that two devices are in one group: BIND or ATTACH is refused for the other one',
  },
  { pattern: 'vfio-group/*/no-device/*', field: 'name', why: 'which devices a group has' },
  { pattern: 'vfio-cdev/*', field: 'cdev', why: 'seen in sysfs: which device a cdev belongs to' },
  { pattern: 'vfio-device/*/behind_iommu', field: 'pt_id', why: 'whether a cdev is mediated: it gives an IOAS back' },
  { pattern: 'vfio-device/*/flags', field: 'flags', why: 'whether the device can be reset, and has capabilities' },
  { pattern: 'vfio-device/*/num_regions', field: 'num_regions', why: 'regions that a driver adds' },
  { pattern: 'vfio-device/*/irqs_untold', field: 'ret', why: 'that an mtty was never asked for GET_INFO' },
  { pattern: 'vfio-device/*/num_irqs', field: 'num_irqs', why: 'mediated devices of drivers that are not modelled' },
  { pattern: 'vfio-device/*/caps', field: 'capabilities', why: 'atomic operations that the path to memory supports' },
  {
    pattern: 'vfio-device/*/config',
    field: 'config space',
    why: 'seen by pread; capabilities and class of the device',
  },
  { pattern: 'vfio-device/*/region*/size', field: 'size', why: 'sizes of BARs, ROM, config space' },
  { pattern: 'vfio-device/*/region*/size_from', field: 'size', why: 'how far a BAR reaches: an IOEVENTFD was taken' },
  { pattern: 'vfio-device/*/region*/flags', field: 'flags', why: 'whether a BAR is there and can be mapped' },
  { pattern: 'vfio-device/*/region*/offset', field: 'offset', why: 'drivers that lay out the file in another way' },
  { pattern: 'vfio-device/*/region*/caps_bytes', field: 'argsz', why: 'capabilities of regions that a driver adds' },
  { pattern: 'vfio-device/*/region*/caps', field: 'capabilities', why: 'capabilities of regions that a driver adds' },
  { pattern: 'vfio-device/*/irq*/count', field: 'count', why: 'how many vectors the device has' },
  { pattern: 'vfio-device/*/irq*/count_from', field: 'count', why: 'that vectors are there: a SET_IRQS took them' },
  { pattern: 'vfio-device/*/irq*/count_to', field: 'count', why: 'that vectors are not there: a SET_IRQS was refused' },
  { pattern: 'vfio-device/*/irq*/flags', field: 'flags', why: 'whether the interrupt controller can add vectors' },
  { pattern: 'vfio-device/*/hot_reset_none', field: 'count', why: 'whether a bridge above the device can reset it' },
  { pattern: 'vfio-device/*/hot_reset_count', field: 'count', why: 'how many devices share the bus' },
  { pattern: 'vfio-device/*/hot_reset_devices', field: 'devices', why: 'which devices share the bus' },
  {
    pattern: 'vfio-device/*/feature/*',
    field: 'flags',
    why: 'features that depend on device, driver and configuration',
  },
  { pattern: 'vfio-device/*/migration_flags', field: 'flags', why: 'optional migration states' },
  { pattern: 'dmirror/*/free-pages', field: 'ret', why: 'what was done to a coherent test device since boot' },
  { pattern: 'dmirror/owner/*', field: 'owner', why: 'where the kernel keeps a device' },
  { pattern: 'vfio-device/*/plane/*', field: 'drm_format', why: 'format and mode of an mdpy, which the host chose' },
  { pattern: 'vfio-device/*/ports', field: 'size', why: 'how many ports an mtty has' },
];

/** Whether a key may be learned. */
export function isLearnable(key: string): boolean {
  return PATTERNS.some((pattern) => pattern.test(key));
}

const PATTERNS: readonly RegExp[] = LEARNABLE_FACTS.map(
  ({ pattern }) => new RegExp(`^${pattern.split('*').map(escapeText).join('[^/]+')}$`),
);

function escapeText(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
}
