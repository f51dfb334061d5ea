import * as assert from 'uvu/assert';
import { suite } from '../testing.js';
import { requestOfStraceName } from './strace-name.js';

const test = suite('uapi/strace-name');

const rows: readonly (readonly [string, number | undefined])[] = [
  ['IOMMU_IOAS_MAP', 0x3b85],
  ['VFIO_DEVICE_PCI_HOT_RESET or VFIO_IOMMU_MAP_DMA', 0x3b71],
  ['VFIO_DEVICE_GET_PCI_HOT_RESET_INFO or VFIO_IOMMU_GET_INFO or VFIO_IOMMU_SPAPR_TCE_GET_INFO', 0x3b70],
  ['VFIO_DEVICE_FEATURE or VFIO_IOMMU_DIRTY_PAGES or VFIO_IOMMU_SPAPR_REGISTER_MEMORY', 0x3b75],
  ['VFIO_IOMMU_SPAPR_UNREGISTER_MEMORY', 0x3b76],
  ['VFIO_EEH_PE_OP', 0x3b79],
  ['VFIO_EEH_PE_OP or VFIO_MIG_GET_PRECOPY_INFO', 0x3b79],
  ['_IOC(_IOC_NONE, 0x3b, 0xa0, 0)', 0x3ba0],
  ['_IOC(0, 0x3b, 0xa0, 0)', 0x3ba0],
  ['_IOC(0, 0x3b, 0xa0, 0x00)', 0x3ba0],
  ['_IOC(_IOC_READ|_IOC_WRITE, 0x48, 0x02, 0x28)', 0xc0284802],
  ['_IOC(_IOC_READ|_IOC_WRITE, 0x48, 0x2, 0x28)', 0xc0284802],
  ['_IOC(_IOC_READ|_IOC_WRITE, 0x48, 0, 0x28)', 0xc0284800],
  ['_IOC(_IOC_WRITE, 0x48, 0x2, 0x3fff)', 0x7fff4802],
  ['HIDIOCSFEATURE(40)', 0xc0284806],
  ['HIDIOCGFEATURE(40)', 0xc0284807],
  ['HIDIOCGFEATURE(0)', 0xc0004807],
  ['HIDIOCSFEATURE(40) or HL_IOCTL_DEBUG', 0xc0284806],
  ['HL_IOCTL_MEMORY', 0xc0284805],
  ['0x3b71', 0x3b71],
  ['0x3b71 /* VFIO_DEVICE_PCI_HOT_RESET or VFIO_IOMMU_MAP_DMA */', 0x3b71],
  ['0xc0284804 /* _IOC(_IOC_READ|_IOC_WRITE, 0x48, 0x4, 0x28) */', 0xc0284804],
  ['0xffffffff', 0xffffffff],
  ['SOME_UNKNOWN_NAME or IOMMU_DESTROY', 0x3b80],
  ['TCGETS', 0x5401],
  // Not ours, or no request at all.
  ['SNDCTL_TMR_TIMEBASE', undefined],
  ['IOMMU_DESTROY or IOMMU_IOAS_MAP', undefined],
  ['0x100000000', undefined],
  ['99999999999', undefined],
  ['_IOC(_IOC_SIDEWAYS, 0x3b, 0xa0, 0)', undefined],
  ['_IOC(_IOC_NONE, 0x3bb, 0xa0, 0)', undefined],
  ['_IOC(_IOC_NONE, 0x3b, 0xa0, 0x4000)', undefined],
  ['_IOC(_IOC_NONE, 0x3b, 0xa0', undefined],
  ['', undefined],
  ['constructor', undefined],
];

for (const [text, expected] of rows) {
  test(`${text} is ${expected === undefined ? 'no request of ours' : `0x${expected.toString(16)}`}`, () => {
    assert.is(requestOfStraceName(text), expected);
  });
}
