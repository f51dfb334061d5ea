import * as assert from 'uvu/assert';
import { suite } from '../../../core/testing.js';
import { checkRows, type FieldAt, Lab, struct } from '../testing.js';
import { DEVICE_BIND_IOMMUFD, DEVICE_GET_PCI_HOT_RESET_INFO, DEVICE_PCI_HOT_RESET } from '../uapi.js';
import { HOT_RESET_RULES as H } from './hot-reset.js';

const test = suite('vfio hot reset');

const ON_BUS_1 = '0000:01:00.0';

const info = (l: Lab, e: string, bytes: number, out: readonly FieldAt[] = []) =>
  l.ioctl(5, DEVICE_GET_PCI_HOT_RESET_INFO, { in: struct(bytes), out: struct(bytes, ...out), errno: e });
const reset = (l: Lab, e: string, ...fields: readonly FieldAt[]) =>
  l.ioctl(5, DEVICE_PCI_HOT_RESET, { in: struct(20, ...fields), errno: e });

/** Functions 0 and 1 of the device on bus 1, in groups 7 and 9. */
function twoDevices(lab: Lab): Lab {
  const entries: FieldAt[] = [
    [8, 2],
    [12, 7],
    [16, 0x0001_0000],
    [20, 9],
    [24, 0x0101_0000],
  ];
  assert.is(info(lab.device(ON_BUS_1), '', 28, entries).verdict, 'learned');
  return lab;
}

test('hot reset: rejections', () => {
  checkRows(H, [
    { rule: H.infoArgsz, errno: 'EINVAL', run: (l, e) => info(l.device(), e, 11) },
    { rule: H.rootBus, errno: 'ENODEV', run: (l, e) => info(l.device(), e, 12) },
    {
      rule: H.infoRoom,
      errno: 'ENOSPC',
      run(lab, e) {
        assert.is(info(lab.device(ON_BUS_1), e, 12, [[8, 2]]).verdict, 'learned');
        return info(lab, e, 27, [[8, 2]]);
      },
    },
    { rule: H.argsz, errno: 'EINVAL', run: (l, e) => reset(l.device(), e, [4, 1], [8, 1]) },
    { rule: H.count, errno: 'EINVAL', run: (l, e) => reset(l.device(), e) },
    {
      rule: H.tooMany,
      errno: 'EINVAL',
      run(lab, e) {
        info(lab.device(ON_BUS_1), 'ENOSPC', 12, [[8, 1]]);
        return reset(lab, e, [8, 2]);
      },
    },
    { rule: H.badFd, errno: 'EBADF', run: (l, e) => reset(l.device(ON_BUS_1), e, [8, 1], [12, 99]) },
    {
      rule: H.notOwned,
      errno: 'EINVAL',
      run(lab, e) {
        info(lab.device(ON_BUS_1), 'ENOSPC', 12, [[8, 1]]);
        lab.open('/dev/vfio/8', 6);
        return reset(lab, e, [8, 1], [12, 6]);
      },
    },
    {
      rule: H.notOwned,
      errno: 'EINVAL',
      run(lab, e) {
        twoDevices(lab);
        return reset(lab, e, [8, 1], [12, 4]);
      },
    },
    { rule: H.notGroup, errno: 'EINVAL', run: (l, e) => reset(l.device(ON_BUS_1), e, [8, 1], [12, 3]) },
  ]);
});

test('a device that is alone on its bus is told and reset as one', () => {
  const lab = new Lab().device(ON_BUS_1);
  const own: FieldAt[] = [
    [8, 1],
    [12, 7],
    [16, 0x0001_0000],
  ];
  assert.is(info(lab, '', 20, own).verdict, 'learned');
  assert.is(info(lab, '', 20, own).verdict, 'match');
  assert.is(info(lab, '', 20, [...own, [12, 8]]).verdict, 'diverge');
  assert.is(reset(lab, '', [8, 1], [12, 4]).verdict, 'match');
  assert.match(reset(lab, 'ENOTTY', [8, 1], [12, 4]).unknown, /in time/);
});

test('of a device whose driver is not known a hot reset that the bus did not survive tells nothing', () => {
  const lab = new Lab();
  lab.foundOpen(5, 'anon_inode:[vfio-device]');
  const driver = () => [...lab.world.devices.values()][0]?.driver;
  reset(lab, 'ENOTTY', [8, 1], [12, 4]);
  assert.is(driver(), 'unknown');
  info(lab, 'ENOTTY', 12);
  assert.is(driver(), 'mdev');
});

test('what shares the bus is learned, and whether all of it is bound to VFIO stays unknown', () => {
  const lab = twoDevices(new Lab());
  lab.open('/dev/vfio/9', 6);
  assert.match(reset(lab, '', [8, 2], [12, 4], [16, 6]).unknown, /bound to VFIO/);
});

test('by its cdev the device has the id of its object', () => {
  const lab = new Lab();
  lab.open('/sys/bus/pci/devices/0000:01:00.0/vfio-dev', 8);
  lab.open('/dev/iommu', 3);
  lab.open('/dev/vfio/devices/vfio0', 5);
  lab.good(lab.ioctl(5, DEVICE_BIND_IOMMUFD, { in: struct(16, [8, 3]), out: struct(16, [8, 3], [12, 1]) }));
  info(lab, 'ENOSPC', 12, [[8, 1]]);
  const own: FieldAt[] = [
    [4, 3],
    [8, 1],
    [12, 1],
    [16, 0x0001_0000],
  ];
  assert.is(info(lab, '', 20, own).verdict, 'match');
  assert.is(reset(lab, '').verdict, 'match');
  lab.good(reset(lab, 'EINVAL', [8, 1], [12, 5]));
});

test('that nothing above the device can reset it is shown once', () => {
  const lab = new Lab().device(ON_BUS_1);
  assert.is(info(lab, 'ENODEV', 12).verdict, 'unknown');
  assert.is(info(lab, 'ENODEV', 12).verdict, 'match');
  assert.is(reset(lab, 'ENODEV', [8, 1], [12, 4]).verdict, 'match');
});
