import * as assert from 'uvu/assert';
import type { Bytes } from '../../core/bytes.js';
import { suite } from '../../core/testing.js';
import { type U64, U64_MAX } from '../../core/u64.js';
import { ev } from '../testing.js';
import { Tx } from '../tx.js';
import { GROUP_RULES as R } from './group.js';
import { DEVICE_FD_RULES as D } from './group-device.js';
import { markEmulated } from './groups.js';
import {
  checkRows,
  DATA,
  type FieldAt,
  infoAnswer,
  Lab,
  MDEV,
  MEMORY,
  mapStruct,
  PCI_DEVICE,
  type Row,
  struct,
  text,
} from './testing.js';
import {
  GROUP_GET_DEVICE_FD,
  GROUP_GET_STATUS,
  GROUP_SET_CONTAINER,
  GROUP_UNSET_CONTAINER,
  IOMMU_GET_INFO,
  IOMMU_MAP_DMA,
  IOMMU_UNMAP_DMA,
  SET_IOMMU,
  UNMAP_VADDR,
} from './uapi.js';

const test = suite('vfio group');
const IOMMU_VFIO_IOAS = 0x3b88;

function group(lab: Lab): Lab {
  lab.open('/dev/vfio/vfio', 3);
  lab.open('/dev/vfio/7', 4);
  return lab;
}

const setContainer = (lab: Lab, fd: number, errno: string, from = 4) =>
  lab.ioctl(from, GROUP_SET_CONTAINER, { in: struct(4, [0, fd >>> 0]), errno });

/** Group 7 on fd 4 has left the iommufd on fd 3, to which its device is still bound. */
function leftIommufd(lab: Lab): Lab {
  lab.open('/dev/iommu', 3);
  lab.open('/dev/vfio/7', 4);
  lab.good(setContainer(lab, 3, ''));
  lab.good(lab.ioctl(4, GROUP_GET_DEVICE_FD, { in: text(PCI_DEVICE), ret: 5 }));
  lab.good(lab.ioctl(4, GROUP_UNSET_CONTAINER));
  return lab;
}

/** Group 8 on fd 6, with a PCI device, joins the container on fd 3. */
function join(lab: Lab, errno: string) {
  lab.open('/dev/vfio/8', 6);
  lab.good(lab.ioctl(6, GROUP_GET_DEVICE_FD, { in: text('0000:00:11.0'), errno: 'EINVAL' }));
  return setContainer(lab, 3, errno, 6);
}

/** A page is mapped for a mediated device, which has no invalid addresses and pins nothing. */
function mappedForMdev(lab: Lab, iova: U64): Lab {
  lab.device(MDEV).good(lab.map(iova, 0x1000));
  return lab;
}

/** Group 8 has told that its IOMMU has 39 bits. */
function toldRanges(lab: Lab): Lab {
  lab.open('/dev/vfio/vfio', 9);
  lab.open('/dev/vfio/8', 6);
  lab.good(setContainer(lab, 9, '', 6));
  lab.good(lab.ioctl(9, SET_IOMMU, { arg: 3 }));
  lab.good(lab.ioctl(9, IOMMU_GET_INFO, { in: struct(120), out: infoAnswer(65535) }));
  lab.close(6);
  return lab;
}

/** A page is mapped above 39 bits, which the IOMMU of group 7 translates and that of group 8 does not. */
function mappedHigh(lab: Lab): Lab {
  toldRanges(lab).container();
  lab.ioctl(3, IOMMU_MAP_DMA, { in: mapStruct(2 ** 40, 0x1000) });
  return lab;
}

const rows: readonly Row[] = [
  { rule: R.unknownCommand, errno: 'ENOTTY', run: (l, e) => group(l).ioctl(4, SET_IOMMU, { errno: e }) },
  {
    rule: R.statusArgsz,
    errno: 'EINVAL',
    run: (l, e) => group(l).ioctl(4, GROUP_GET_STATUS, { in: struct(8, [0, 7]), errno: e }),
  },
  { rule: R.setFault, errno: 'EFAULT', run: (l, e) => group(l).ioctl(4, GROUP_SET_CONTAINER, { arg: 0, errno: e }) },
  { rule: R.setBadFd, errno: 'EBADF', run: (l, e) => setContainer(group(l), 9, e) },
  { rule: R.setBadFd, errno: 'EBADF', run: (l, e) => setContainer(group(l), -1, e) },
  { rule: R.setBadFd, errno: 'EBADF', run: (l, e) => setContainer(l.container(), 9, e) },
  { rule: R.setAgain, errno: 'EINVAL', run: (l, e) => setContainer(l.container(), 3, e) },
  {
    rule: R.setMixed,
    errno: 'EPERM',
    run(lab, errno) {
      lab.container().open('/dev/vfio/noiommu-0', 5);
      return setContainer(lab, 3, errno, 5);
    },
  },
  {
    rule: R.setVaddr,
    errno: 'EBUSY',
    run(lab, errno) {
      lab.container().good(lab.map(0, 0x1000));
      lab.good(lab.ioctl(3, IOMMU_UNMAP_DMA, { in: struct(24, [4, UNMAP_VADDR], [16, 0x1000, 8]) }));
      lab.open('/dev/vfio/8', 5);
      return setContainer(lab, 3, errno, 5);
    },
  },
  {
    rule: R.setNoIommu,
    errno: 'EINVAL',
    run(lab, errno) {
      lab.open('/dev/iommu', 3);
      lab.open('/dev/vfio/7', 4);
      lab.good(setContainer(lab, 3, ''));
      lab.open('/dev/vfio/noiommu-0', 5);
      return setContainer(lab, 3, errno, 5);
    },
  },
  {
    rule: R.setNoIommu,
    errno: 'EINVAL',
    run(lab, errno) {
      lab.open('/dev/iommu', 3);
      lab.open('/dev/vfio/noiommu-0', 5);
      lab.good(setContainer(lab, 3, '', 5));
      lab.good(lab.ioctl(3, SET_IOMMU, { arg: 8 }));
      lab.open('/dev/vfio/7', 4);
      return setContainer(lab, 3, errno);
    },
  },
  { rule: R.aperture, errno: 'EINVAL', run: (l, e) => join(mappedHigh(l), e) },
  { rule: R.reserved, errno: 'EINVAL', run: (l, e) => join(mappedForMdev(l, 0xfee0_0000), e) },
  { rule: R.range, errno: 'ERANGE', run: (l, e) => join(mappedForMdev(toldRanges(l), 2 ** 40), e) },
  {
    rule: R.range,
    errno: 'ERANGE',
    run(lab, errno) {
      mappedForMdev(toldRanges(lab), 2 ** 40);
      lab.good(lab.map(2 ** 41, 0x2000, [[8, MEMORY + 0x2000, 8]]));
      lab.feed(ev('munmap', { addr: MEMORY + 0x3000, lengthBytes: 0x1000 }));
      return join(lab, errno);
    },
  },
  {
    rule: R.pin,
    errno: 'EFAULT',
    run(lab, errno) {
      mappedForMdev(toldRanges(lab), 2 ** 40).feed(ev('munmap', { addr: MEMORY, lengthBytes: 0x1000 }));
      return join(lab, errno);
    },
  },
  {
    rule: R.pin,
    errno: 'EFAULT',
    run(lab, errno) {
      mappedForMdev(lab, 0).feed(ev('munmap', { addr: MEMORY, lengthBytes: 0x1000 }));
      return join(lab, errno);
    },
  },
  {
    rule: R.memlock,
    errno: 'ENOMEM',
    run(lab, errno) {
      mappedForMdev(lab, 0).feed(ev('prlimit', { oldSoft: 0 }));
      lab.feed(ev('creds', { call: 'capget', effectiveCaps: 0, permittedCaps: 0 }));
      return join(lab, errno);
    },
  },
  {
    rule: R.setClaimed,
    errno: 'EPERM',
    run(lab, errno) {
      leftIommufd(lab).open('/dev/vfio/vfio', 6);
      return setContainer(lab, 6, errno);
    },
  },
  { rule: R.setNotContainer, errno: 'EBADFD', run: (l, e) => setContainer(group(l), l.eventfd(5), e) },
  { rule: R.unsetNone, errno: 'EINVAL', run: (l, e) => group(l).ioctl(4, GROUP_UNSET_CONTAINER, { errno: e }) },
  { rule: R.unsetBusy, errno: 'EBUSY', run: (l, e) => l.device().ioctl(4, GROUP_UNSET_CONTAINER, { errno: e }) },
];

test('each rejection has its errno, in the kernel order', () => checkRows(R, rows));

const getDevice = (lab: Lab, name: string, errno: string, ret = 5) =>
  lab.ioctl(4, GROUP_GET_DEVICE_FD, { in: text(name), errno, ret });

const deviceRows: readonly Row[] = [
  { rule: D.copyIn, errno: 'EFAULT', run: (l, e) => l.container().ioctl(4, GROUP_GET_DEVICE_FD, { arg: 8, errno: e }) },
  {
    rule: D.tooLong,
    errno: 'EINVAL',
    run: (l, e) => l.container().ioctl(4, GROUP_GET_DEVICE_FD, { in: text('x'.repeat(4096)).slice(0, 4096), errno: e }),
  },
  { rule: D.noDevice, errno: 'ENODEV', run: (l, e) => getDevice(l.container(), '', e) },
  { rule: D.noDevice, errno: 'ENODEV', run: (l, e) => getDevice(l.container(), `${MDEV} x`, e) },
  { rule: D.options, errno: 'EINVAL', run: (l, e) => getDevice(group(l), `${PCI_DEVICE} vf_token=1`, e) },
  { rule: D.noContainer, errno: 'EINVAL', run: (l, e) => getDevice(group(l), PCI_DEVICE, e) },
  { rule: D.noBackend, errno: 'EINVAL', run: (l, e) => getDevice(l.container(null), PCI_DEVICE, e) },
  {
    rule: D.noIoas,
    errno: 'ENODEV',
    run(lab, errno) {
      lab.open('/dev/iommu', 3);
      lab.open('/dev/vfio/7', 4);
      lab.good(getDevice(lab, PCI_DEVICE, 'EINVAL'));
      lab.good(setContainer(lab, 3, ''));
      lab.good(lab.ioctl(3, IOMMU_VFIO_IOAS, { in: struct(12, [8, 2]) }));
      return getDevice(lab, PCI_DEVICE, errno);
    },
  },
];

test('each rejection of GET_DEVICE_FD has its errno, in the kernel order', () => checkRows(D, deviceRows));

test('an answer shows which devices a group has; then other names are missing, whatever state the group is in', () => {
  const lab = group(new Lab());
  const wrong = '0000:00:12.0';
  assert.is(getDevice(lab, wrong, 'ENODEV').verdict, 'unknown');
  assert.is(getDevice(lab, wrong, 'ENODEV').rule, D.noDevice.id);
  assert.is(getDevice(lab, PCI_DEVICE, 'EINVAL').rule, D.noContainer.id);
  for (const name of ['0000:', MDEV, '0000:00:10.0x']) {
    const answer = getDevice(lab, name, 'ENODEV');
    assert.is(answer.rule, D.noDevice.id, name);
    assert.is(answer.verdict, 'match', name);
  }
  lab.open('/dev/vfio/8', 5);
  const other = lab.ioctl(5, GROUP_GET_DEVICE_FD, { in: text(PCI_DEVICE), errno: 'ENODEV' });
  assert.is(other.rule, D.noDevice.id);
});

test('a group whose device is bound to an iommufd that it left is not viable until the device is closed', () => {
  const lab = leftIommufd(new Lab());
  const status = (flags: number) => lab.ioctl(4, GROUP_GET_STATUS, { in: struct(8), out: struct(8, [4, flags]) });
  assert.is(status(0).verdict, 'match');
  lab.close(5);
  assert.is(status(1).verdict, 'match');
});

test('the name of a mediated device tells of its group before the device is opened', () => {
  const lab = group(new Lab());
  lab.good(getDevice(lab, MDEV, 'EINVAL'));
  assert.ok(lab.world.groups.get(7)?.emulated);
  assert.is(getDevice(lab, MDEV.replace('1001', '1002'), 'ENODEV').rule, D.noDevice.id);
});

test('a device is the lowest free fd, and can be opened twice', () => {
  const lab = new Lab().container();
  assert.is(getDevice(lab, PCI_DEVICE, '', 6).verdict, 'diverge');
  lab.good(getDevice(lab, PCI_DEVICE, '', 5));
  assert.is(lab.world.devices.get(PCI_DEVICE)?.openCount, 2);
  assert.is(lab.world.groups.get(7)?.openDevices, 1);
});

test('status: viable, and whether a container is set', () => {
  const lab = group(new Lab());
  const status = (flags: number) => lab.ioctl(4, GROUP_GET_STATUS, { in: struct(8), out: struct(8, [4, flags]) });
  lab.good(status(1));
  lab.good(setContainer(lab, 3, ''));
  lab.good(status(3));
  assert.is(status(1).verdict, 'diverge');
});

test('a group with an IOMMU pins what was mapped for mediated devices, until it leaves', () => {
  const lab = mappedForMdev(new Lab(), 0);
  const pinned = () => [...([...lab.world.containers.values()][0]?.mappings.values() ?? [])].map((one) => one.pinned);
  const info = (out: Bytes) => lab.ioctl(3, IOMMU_GET_INFO, { in: struct(120), out }).verdict;
  lab.good(join(lab, ''));
  assert.equal(pinned(), [true]);
  assert.is(info(infoAnswer(65534)), 'learned');
  lab.good(lab.ioctl(6, GROUP_UNSET_CONTAINER));
  assert.equal(pinned(), [false]);
  const left = struct(120, [4, 3], [8, 0xffff_ffff_ffff_f000n, 8], [16, 24], ...CAPS, [80, 1], [96, U64_MAX, 8]);
  assert.is(info(left), 'match');
});

test('whether the IOMMU of a group translates what is mapped, its joining shows', () => {
  const lab = mappedForMdev(new Lab(), 2 ** 46);
  assert.match(join(lab, 'ERANGE').unknown, /what the IOMMU of group 8 says/);
  assert.is(setContainer(lab, 3, 'ERANGE', 6).verdict, 'match');
  const wide = mappedForMdev(new Lab(), 2 ** 46);
  assert.is(join(wide, '').verdict, 'learned');
  wide.good(wide.ioctl(6, GROUP_UNSET_CONTAINER));
  assert.is(setContainer(wide, 3, '', 6).verdict, 'match');
});

test('a group with an IOMMU that leaves before there is a backend leaves no ranges behind', () => {
  const lab = new Lab().container(null);
  lab.open('/dev/vfio/8', 6);
  lab.good(setContainer(lab, 3, '', 6));
  lab.good(getDevice(lab, MDEV, 'EINVAL'));
  lab.good(lab.ioctl(6, GROUP_UNSET_CONTAINER));
  lab.good(lab.ioctl(3, SET_IOMMU, { arg: 3 }));
  const fields = CAPS.filter(([at]) => at < 60).concat([[64, 65535]]);
  const out = struct(72, [4, 3], [8, 0xffff_ffff_ffff_f000n, 8], [16, 24], ...fields);
  assert.is(lab.ioctl(3, IOMMU_GET_INFO, { in: struct(72), out }).verdict, 'learned');
});

/** The capabilities of an answer to GET_INFO, as far as they do not depend on the IOMMU. */
const CAPS: readonly FieldAt[] = [
  [24, 0x1_0002],
  [28, 56],
  [40, 4096, 8],
  [48, 1 << 28, 8],
  [56, 0x1_0003],
  [60, 72],
  [64, 65534],
  [72, 0x1_0001],
];

test('what only the host knows: EPERM of a group that others use, and a group that is not viable', () => {
  const lab = group(new Lab());
  const status = () => lab.ioctl(4, GROUP_GET_STATUS, { in: struct(8), out: struct(8, [4, 0]) });
  assert.match(status().unknown, /drivers of the host/);
  assert.match(setContainer(lab, 3, 'EPERM').unknown, /drivers of the host/);
  lab.good(setContainer(lab, 3, ''));
  assert.match(lab.ioctl(3, SET_IOMMU, { arg: 3, errno: 'EPERM' }).unknown, /isolated/);
  lab.open('/dev/vfio/vfio', 7);
  lab.open('/dev/vfio/noiommu-0', 8);
  assert.match(setContainer(lab, 7, 'EPERM', 8).unknown, /CAP_SYS_RAWIO/);
});

test('order of closing: the device keeps group and container', () => {
  const lab = new Lab().device();
  lab.good(lab.map(0, 0x1000));
  lab.close(3);
  lab.close(4);
  assert.is(lab.world.containers.size, 1);
  assert.is(lab.world.groups.get(7)?.container, 1);
  lab.close(5);
  assert.is(lab.world.containers.size, 0);
  assert.is(lab.world.groups.get(7)?.container, 0);
});

test('a mapping of the device fd keeps the group busy', () => {
  const lab = new Lab().device();
  lab.feed(ev('mmap', { lengthBytes: 4096, flags: 1, fd: 5, path: 'anon_inode:[vfio-device]', ret: DATA }));
  lab.close(5);
  const busy = lab.ioctl(4, GROUP_UNSET_CONTAINER, { errno: 'EBUSY' });
  assert.is(busy.verdict, 'match', busy.explanation);
  assert.match(busy.looked, /mmaps of its fd are alive: 0x[0-9a-f]+-0x[0-9a-f]+ of event \d+\)/);
  lab.feed(ev('munmap', { addr: DATA, lengthBytes: 4096 }));
  lab.good(lab.ioctl(4, GROUP_UNSET_CONTAINER));
});

test('a group found open answers unknown until it is told', () => {
  const lab = new Lab();
  lab.foundOpen(4, '/dev/vfio/7');
  assert.match(
    lab.ioctl(4, GROUP_GET_STATUS, { in: struct(8), out: struct(8, [4, 3]) }).unknown,
    /open before the recording began/,
  );
  assert.match(lab.ioctl(4, GROUP_UNSET_CONTAINER).unknown, /open before the recording began/);
  lab.good(lab.ioctl(4, GROUP_GET_STATUS, { in: struct(8), out: struct(8, [4, 1]) }));
});

test('a group that was shown to be of a mediated device takes the first name that is one', () => {
  const lab = new Lab().container();
  const tx = new Tx(lab.world);
  markEmulated(tx, 7);
  lab.world = tx.commit();
  lab.good(getDevice(lab, PCI_DEVICE, 'ENODEV'));
  lab.good(getDevice(lab, MDEV, ''));
  lab.good(getDevice(lab, MDEV.replace('1', '2'), 'ENODEV'));
});

test('a device that is open, of which nobody knows the name, may be the one that is opened again', () => {
  for (const [bytes, verdict] of [
    [text(MDEV), 'match'],
    [undefined, 'unknown'],
  ] as const) {
    const lab = new Lab();
    lab.open('/dev/iommu', 3);
    lab.open('/dev/vfio/7', 4);
    lab.good(getDevice(lab, MDEV, 'EINVAL'));
    lab.good(setContainer(lab, 3, ''));
    lab.ioctl(4, GROUP_GET_DEVICE_FD, { ...(bytes === undefined ? {} : { in: bytes }), ret: 5 });
    lab.good(lab.ioctl(4, GROUP_UNSET_CONTAINER));
    lab.open('/dev/vfio/vfio', 6);
    lab.good(setContainer(lab, 6, ''));
    // Open already: the container, which has no backend, is not asked.
    assert.is(lab.ioctl(4, GROUP_GET_DEVICE_FD, { in: text(MDEV), ret: 7 }).verdict, verdict);
  }
});
