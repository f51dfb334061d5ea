import { readFlags, readU64 } from './values.js';

/**
 * The 32-bit number behind what strace prints as the second argument of ioctl.
 *
 * strace prints a number as all names that share it, joined by ` or `, so any one of them is enough. Numbers
 * that no name is known for come as `_IOC(dir, type, nr, size)`; the parts have been spelled in several ways
 * (`_IOC_NONE` or `0`, zero-padded or not). Two requests of the HMM test device fall into a range that strace
 * gives to hiddev, and print as `HIDIOCSFEATURE(len)` and `HIDIOCGFEATURE(len)`.
 */
const IOC_DIRECTIONS: ReadonlyMap<string, number> = new Map([
  ['_IOC_NONE', 0],
  ['_IOC_WRITE', 1],
  ['_IOC_READ', 2],
]);
const HID_FEATURES: ReadonlyMap<string, number> = new Map([
  ['HIDIOCSFEATURE', 6],
  ['HIDIOCGFEATURE', 7],
]);

/** VFIO's and iommufd's requests are `_IO(';', 100 + n)`: no direction, no size. */
const FIRST_SEMICOLON = 0x3b64;
const NAMES_FROM_FIRST: readonly string[] = [
  'VFIO_GET_API_VERSION',
  'VFIO_CHECK_EXTENSION',
  'VFIO_SET_IOMMU',
  'VFIO_GROUP_GET_STATUS',
  'VFIO_GROUP_SET_CONTAINER',
  'VFIO_GROUP_UNSET_CONTAINER',
  'VFIO_GROUP_GET_DEVICE_FD',
  'VFIO_DEVICE_GET_INFO',
  'VFIO_DEVICE_GET_REGION_INFO',
  'VFIO_DEVICE_GET_IRQ_INFO',
  'VFIO_DEVICE_SET_IRQS',
  'VFIO_DEVICE_RESET',
  'VFIO_DEVICE_GET_PCI_HOT_RESET_INFO VFIO_IOMMU_GET_INFO VFIO_IOMMU_SPAPR_TCE_GET_INFO',
  'VFIO_DEVICE_PCI_HOT_RESET VFIO_IOMMU_MAP_DMA',
  'VFIO_DEVICE_QUERY_GFX_PLANE VFIO_IOMMU_UNMAP_DMA',
  'VFIO_DEVICE_GET_GFX_DMABUF VFIO_IOMMU_ENABLE',
  'VFIO_DEVICE_IOEVENTFD VFIO_IOMMU_DISABLE',
  'VFIO_DEVICE_FEATURE VFIO_IOMMU_DIRTY_PAGES VFIO_IOMMU_SPAPR_REGISTER_MEMORY',
  'VFIO_DEVICE_BIND_IOMMUFD VFIO_IOMMU_SPAPR_UNREGISTER_MEMORY',
  'VFIO_DEVICE_ATTACH_IOMMUFD_PT VFIO_IOMMU_SPAPR_TCE_CREATE',
  'VFIO_DEVICE_DETACH_IOMMUFD_PT VFIO_IOMMU_SPAPR_TCE_REMOVE',
  'VFIO_EEH_PE_OP VFIO_MIG_GET_PRECOPY_INFO',
  '',
  '',
  '',
  '',
  '',
  '',
  'IOMMU_DESTROY',
  'IOMMU_IOAS_ALLOC',
  'IOMMU_IOAS_ALLOW_IOVAS',
  'IOMMU_IOAS_COPY',
  'IOMMU_IOAS_IOVA_RANGES',
  'IOMMU_IOAS_MAP',
  'IOMMU_IOAS_UNMAP',
  'IOMMU_OPTION',
  'IOMMU_VFIO_IOAS',
  'IOMMU_HWPT_ALLOC',
  'IOMMU_GET_HW_INFO',
  'IOMMU_HWPT_SET_DIRTY_TRACKING',
  'IOMMU_HWPT_GET_DIRTY_BITMAP',
  'IOMMU_HWPT_INVALIDATE',
  'IOMMU_FAULT_QUEUE_ALLOC',
  'IOMMU_IOAS_MAP_FILE',
  'IOMMU_VIOMMU_ALLOC',
  'IOMMU_VDEVICE_ALLOC',
  'IOMMU_IOAS_CHANGE_PROCESS',
  'IOMMU_VEVENTQ_ALLOC',
  'IOMMU_HW_QUEUE_ALLOC',
];
const SEMICOLON_NAMES: ReadonlyMap<string, number> = new Map(
  NAMES_FROM_FIRST.flatMap((names, i) => names.split(' ').map((name) => [name, FIRST_SEMICOLON + i] as const)),
);

/** The request, or undefined for a name that none of the modelled interfaces uses (`TCGETS`, `FIONREAD`). */
export function readRequest(text: string): number | undefined {
  const number = readU64(text);
  if (typeof number === 'number') return number >>> 0;
  if (number !== undefined) return typeof number === 'bigint' ? Number(number & 0xffff_ffffn) : undefined;
  const ioc = /^_IOC\(([^,]*),([^,]*),([^,]*),([^,]*)\)$/.exec(text);
  if (ioc !== null) return joined(ioc[1] as string, ioc[2] as string, ioc[3] as string, ioc[4] as string);
  const hid = /^(HIDIOC[SG]FEATURE)\((\w+)\)/.exec(text);
  const feature = hid === null ? undefined : HID_FEATURES.get(hid[1] as string);
  if (feature !== undefined) return joined('_IOC_READ|_IOC_WRITE', '0x48', String(feature), hid?.[2] as string);
  for (const name of text.split(' or ')) {
    const known = name === '' ? undefined : SEMICOLON_NAMES.get(name.trim());
    if (known !== undefined) return known;
  }
  return undefined;
}

function joined(direction: string, type: string, nr: string, size: string): number | undefined {
  const parts = [readFlags(direction, IOC_DIRECTIONS), readU64(type), readU64(nr), readU64(size)];
  const [d, t, n, s] = parts as number[];
  if (parts.some((part) => typeof part !== 'number') || d === undefined || t === undefined) return undefined;
  if (n === undefined || s === undefined || d > 3 || t > 0xff || n > 0xff || s > 0x3fff) return undefined;
  return (d * 0x4000_0000 + s * 0x1_0000 + t * 0x100 + n) >>> 0;
}
