import * as assert from 'uvu/assert';
import { suite } from '../../core/testing.js';
import { Lab, PCI_DEVICE, struct } from './testing.js';
import { DEVICE_BIND_IOMMUFD, DEVICE_GET_INFO } from './uapi.js';

const test = suite('vfio sysfs');

const SYSFS = `/sys/devices/pci0000:00/${PCI_DEVICE}/vfio-dev`;
const info = struct(24, [4, 3], [8, 9], [12, 5]);

function boundCdev(lab: Lab, name: string) {
  lab.open('/dev/iommu', 6);
  lab.open(`/dev/vfio/devices/${name}`, 7);
  lab.good(lab.ioctl(7, DEVICE_BIND_IOMMUFD, { in: struct(16, [8, 6]), out: struct(16, [8, 6], [12, 1]) }));
  return lab.ioctl(7, DEVICE_GET_INFO, { in: struct(24), out: info });
}

test('a directory of sysfs that was looked at names the next cdev, and facts are shared', () => {
  const lab = new Lab().device();
  assert.is(lab.ioctl(5, DEVICE_GET_INFO, { in: struct(24), out: info }).verdict, 'learned');
  for (const fd of [5, 4, 3]) lab.close(fd);
  lab.open(SYSFS, 8);
  assert.is(boundCdev(lab, 'vfio0').verdict, 'match');
});

test('the group that is open keeps the cdev of its device from being bound', () => {
  const lab = new Lab().device();
  lab.open(`${SYSFS}/vfio3/dev`, 8);
  lab.open('/dev/iommu', 6);
  lab.open('/dev/vfio/devices/vfio3', 7);
  lab.good(lab.ioctl(7, DEVICE_BIND_IOMMUFD, { in: struct(16, [8, 6]), errno: 'EBUSY' }));
});

test('without sysfs a cdev is a device of its own, and one look explains one cdev', () => {
  const lab = new Lab();
  lab.open(SYSFS, 8);
  lab.good(boundCdev(lab, 'vfio0'));
  lab.open('/dev/vfio/devices/vfio1', 9);
  assert.equal([...lab.world.devices.keys()], [PCI_DEVICE, 'vfio1']);
});
