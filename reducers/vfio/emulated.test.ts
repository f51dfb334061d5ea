import * as assert from 'uvu/assert';
import { suite } from '../../core/testing.js';
import { typedObject } from '../iommufd/context.js';
import { Tx } from '../tx.js';
import { EMULATED_RULES as R } from './emulated.js';
import { checkRows, Lab, MDEV, MEMORY, struct, text } from './testing.js';
import {
  DEVICE_ATTACH_IOMMUFD_PT,
  DEVICE_BIND_IOMMUFD,
  DEVICE_DETACH_IOMMUFD_PT,
  DEVICE_GET_PCI_HOT_RESET_INFO,
  GROUP_GET_DEVICE_FD,
  GROUP_SET_CONTAINER,
} from './uapi.js';

const test = suite('vfio mediated devices on an iommufd');

const IOAS_ALLOC = 0x3b81;
const IOAS_MAP = 0x3b85;
const HWPT_ALLOC = 0x3b89;
const GET_HW_INFO = 0x3b8a;
const IOAS = 2;
const DEVID = 1;

/** An iommufd on fd 3 with a device, object 1, on fd 4 by its cdev, and an IOAS, object 2. */
function bound(lab: Lab): Lab {
  lab.open('/dev/iommu', 3);
  lab.open('/dev/vfio/devices/vfio0', 4);
  lab.good(lab.ioctl(4, DEVICE_BIND_IOMMUFD, { in: struct(16, [8, 3]), out: struct(16, [8, 3], [12, DEVID]) }));
  lab.good(lab.ioctl(3, IOAS_ALLOC, { in: struct(12), out: struct(12, [8, IOAS]) }));
  return lab;
}

const attach = (lab: Lab, id: number, errno = '', told = id) =>
  lab.ioctl(4, DEVICE_ATTACH_IOMMUFD_PT, { in: struct(12, [8, id]), out: struct(12, [8, told]), errno });

const typeOf = (lab: Lab, id: number) => [...lab.world.iommufds.values()][0]?.objects.get(id)?.type;

function mediated(lab: Lab): Lab {
  bound(lab);
  assert.is(lab.ioctl(4, DEVICE_GET_PCI_HOT_RESET_INFO, { in: struct(12), errno: 'ENOTTY' }).verdict, 'unknown');
  assert.is(lab.world.devices.get('vfio0')?.driver, 'mdev');
  return lab;
}

test('rejections', () => {
  checkRows(R, [
    { rule: R.object, errno: 'ENOENT', run: (l, e) => attach(mediated(l), DEVID, e) },
    { rule: R.object, errno: 'ENOENT', run: (l, e) => attach(mediated(l), 9, e) },
  ]);
});

test('the first attach tells a mediated device: it gives the id of the IOAS back and makes no HWPT', () => {
  const lab = bound(new Lab());
  assert.is(attach(lab, IOAS).verdict, 'learned');
  assert.is(lab.world.devices.get('vfio0')?.driver, 'mdev');
  assert.is(typeOf(lab, DEVID), 'access');
  assert.is(typeOf(lab, 3), undefined);
  lab.good(lab.ioctl(4, DEVICE_DETACH_IOMMUFD_PT, { in: struct(8) }));
  assert.is(typedObject(new Tx(lab.world), 1, DEVID, 'access')?.ioas, 0);
  lab.good(attach(lab, IOAS));
  lab.close(4);
  assert.is(typeOf(lab, DEVID), undefined);
});

test('an attach that gives back another id tells a device behind an IOMMU', () => {
  const lab = bound(new Lab());
  assert.is(attach(lab, IOAS, '', 3).verdict, 'learned');
  assert.is(lab.world.devices.get('vfio0')?.driver, 'pci');
  assert.is(typeOf(lab, 3), 'hwpt-paging');
  assert.is(attach(lab, 3, '', 3).verdict, 'match');
});

test('an object that is no IOAS tells as well: a mediated device finds none, one behind an IOMMU the wrong type', () => {
  const lab = bound(new Lab());
  assert.is(attach(lab, DEVID, 'EINVAL').verdict, 'match');
  assert.is(attach(lab, DEVID, 'ENOENT').verdict, 'unknown');
  assert.is(lab.world.devices.get('vfio0')?.driver, 'mdev');
  assert.is(attach(lab, IOAS).verdict, 'match');
});

test('the error of an attach tells on which side of an IOMMU the device is', () => {
  const told = (errno: string) => {
    const lab = bound(new Lab());
    assert.is(attach(lab, IOAS, errno).verdict, 'unknown');
    return lab.world.devices.get('vfio0')?.driver;
  };
  assert.is(told('EADDRINUSE'), 'unknown');
  assert.is(told('EINVAL'), 'pci');
  assert.is(told('EFAULT'), 'pci');
  assert.is(told('ENOENT'), 'mdev');
  assert.is(told('ENOMEM'), 'unknown');
});

test('an attach whose answer is not known leaves nothing behind when the recording says that it failed', () => {
  const lab = bound(new Lab());
  lab.setDriver('vfio0', 'pci');
  const map = struct(40, [4, 7], [8, IOAS], [16, MEMORY, 8], [24, 0x1000, 8], [32, 2 ** 41, 8]);
  lab.good(lab.ioctl(3, IOAS_MAP, { in: map }));
  assert.is(attach(lab, IOAS, 'EADDRINUSE').verdict, 'unknown');
  lab.good(lab.ioctl(3, IOAS_ALLOC, { in: struct(12), out: struct(12, [8, 3]) }));
  assert.is(attach(lab, IOAS, '', 4).verdict, 'unknown');
  assert.is(typeOf(lab, 4), 'hwpt-paging');
});

test('before its driver is told, a device may not be found as one', () => {
  const info = struct(40, [8, DEVID]);
  assert.is(bound(new Lab()).ioctl(3, GET_HW_INFO, { in: info, errno: 'ENOENT' }).verdict, 'unknown');
  const alloc = struct(48, [8, DEVID], [12, IOAS]);
  assert.is(bound(new Lab()).ioctl(3, HWPT_ALLOC, { in: alloc, errno: 'ENOENT' }).verdict, 'unknown');
});

test('by its group it is an access of the compatibility IOAS', () => {
  const lab = new Lab();
  lab.open('/dev/iommu', 3);
  lab.open('/dev/vfio/7', 4);
  lab.good(lab.ioctl(4, GROUP_SET_CONTAINER, { in: struct(4, [0, 3]) }));
  lab.good(lab.ioctl(4, GROUP_GET_DEVICE_FD, { in: text(MDEV), ret: 5 }));
  const device = lab.world.devices.get(MDEV);
  assert.is(typeOf(lab, device?.devid ?? 0), 'access');
  lab.close(5);
  assert.is(typeOf(lab, device?.devid ?? 0), undefined);
});

test('a mediated device that an earlier user left marked as attached: ENOENT is unknown, and nothing is attached', () => {
  const lab = mediated(new Lab());
  assert.is(attach(lab, IOAS, 'ENOENT').verdict, 'unknown');
  assert.is(typedObject(new Tx(lab.world), 1, DEVID, 'access')?.ioas, 0);
  lab.good(lab.ioctl(4, DEVICE_DETACH_IOMMUFD_PT, { in: struct(8) }));
  lab.good(attach(lab, IOAS));
  assert.is(attach(lab, IOAS, 'ENOENT').verdict, 'diverge', 'it is attached, for sure');
  const group = new Lab();
  group.open('/dev/iommu', 3);
  group.open('/dev/vfio/7', 4);
  group.good(group.ioctl(4, GROUP_SET_CONTAINER, { in: struct(4, [0, 3]) }));
  assert.is(group.ioctl(4, GROUP_GET_DEVICE_FD, { in: text(MDEV), errno: 'ENOENT' }).verdict, 'unknown');
  group.good(group.ioctl(4, GROUP_GET_DEVICE_FD, { in: text(MDEV), ret: 5 }));
  assert.equal(
    [...([...group.world.iommufds.values()][0]?.objects.values() ?? [])].map(({ type }) => type),
    ['ioas', 'access'],
  );
});
