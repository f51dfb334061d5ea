import * as assert from 'uvu/assert';
import { suite } from '../../../core/testing.js';
import { Tx } from '../../tx.js';
import { type Answer, Lab, struct, text } from '../testing.js';
import { DEVICE_BIND_IOMMUFD, GROUP_GET_DEVICE_FD, GROUP_GET_STATUS, GROUP_SET_CONTAINER } from '../uapi.js';
import { groupOfDevice } from './group-block.js';

const test = suite('vfio group block');

const MDEV = '83b8f4f2-509f-382f-3c1e-e6bfe0fa1001';
const BOUND = struct(16, [8, 3], [12, 1]);

/** BIND of the cdev on fd 9 to the iommufd on fd 3. */
function bind(lab: Lab, errno: string): Answer {
  const input = struct(16, [8, 3]);
  return lab.ioctl(9, DEVICE_BIND_IOMMUFD, { in: input, out: errno === '' ? BOUND : input, errno });
}

function withCdev(...groups: readonly number[]): Lab {
  const lab = new Lab();
  lab.open('/dev/iommu', 3);
  groups.forEach((group, index) => lab.open(`/dev/vfio/${group}`, 4 + index));
  lab.open('/dev/vfio/devices/vfio0', 9);
  return lab;
}

function groupKnown(lab: Lab): number {
  const device = lab.world.devices.get('vfio0');
  return device === undefined ? 0 : groupOfDevice(new Tx(lab.world), device);
}

test('EBUSY tells the group of a cdev where one group is open, and is predicted from then on', () => {
  const lab = withCdev(7);
  assert.is(bind(lab, 'EBUSY').verdict, 'unknown');
  assert.is(groupKnown(lab), 7);
  lab.good(bind(lab, 'EBUSY'));
  assert.is(bind(lab, '').verdict, 'diverge');
});

test('a bind that succeeds tells that no open group is the device’s', () => {
  const lab = withCdev(7);
  lab.good(bind(lab, ''));
  lab.close(9);
  lab.open('/dev/vfio/devices/vfio0', 9);
  assert.is(bind(lab, 'EBUSY').verdict, 'diverge');
});

test('of several open groups EBUSY tells that it is none of those that are closed', () => {
  const lab = withCdev(7, 8, 9);
  lab.close(6);
  assert.is(bind(lab, 'EBUSY').verdict, 'unknown');
  assert.is(groupKnown(lab), 0);
  assert.equal([bind(lab, 'EBUSY').verdict, bind(lab, 'EBUSY').rule], ['match', 'bind.group-open']);
  lab.close(5);
  lab.open('/dev/vfio/9', 6);
  assert.is(bind(lab, 'EBUSY').verdict, 'unknown');
  assert.is(groupKnown(lab), 7);
});

test('a group whose number is not known ties no device: its file may be another one’s next time', () => {
  const lab = withCdev();
  lab.ioctl(20, GROUP_GET_STATUS, { pid: 9, in: struct(8), out: struct(8, [4, 1]) });
  assert.is(lab.world.groups.size, 1);
  for (let i = 0; i < 2; i++) assert.is(bind(lab, 'EBUSY').verdict, 'unknown');
  assert.is(groupKnown(lab), 0);
});

test('answers that contradict each other leave every group possible', () => {
  const lab = withCdev(7, 8);
  assert.is(bind(lab, 'EBUSY').verdict, 'unknown');
  assert.is(bind(lab, '').verdict, 'diverge');
  lab.close(9);
  lab.open('/dev/vfio/devices/vfio0', 9);
  assert.is(bind(lab, '').verdict, 'match');
});

test('a group that can be opened is not that of a bound device', () => {
  const lab = withCdev();
  lab.good(bind(lab, ''));
  lab.open('/dev/vfio/7', 4);
  lab.close(9);
  lab.open('/dev/vfio/devices/vfio0', 9);
  lab.good(bind(lab, ''));
});

test('on an iommufd the file of a group may go before its device does', () => {
  const lab = withCdev(7);
  lab.good(lab.ioctl(3, 0x3b81, { in: struct(12), out: struct(12, [8, 1]) }));
  lab.good(lab.ioctl(3, 0x3b88, { in: struct(12, [4, 1], [8, 1]) }));
  lab.good(lab.ioctl(4, GROUP_SET_CONTAINER, { in: struct(4, [0, 3]) }));
  lab.good(lab.ioctl(4, GROUP_GET_DEVICE_FD, { in: text(MDEV), ret: 5 }));
  lab.close(4);
  assert.is(bind(lab, 'EINVAL').verdict, 'unknown');
  assert.is(groupKnown(lab), 7);
  lab.good(bind(lab, 'EINVAL'));
});
