import * as assert from 'uvu/assert';
import { Bytes } from '../../../core/bytes.js';
import { suite } from '../../../core/testing.js';
import type { DeviceDriver } from '../state.js';
import { type Answer, checkRows, type FieldAt, Lab, MEMORY, struct } from '../testing.js';
import { DEVICE_ATTACH_IOMMUFD_PT, DEVICE_BIND_IOMMUFD, DEVICE_DETACH_IOMMUFD_PT } from '../uapi.js';
import { CDEV_RULES as C } from './cdev.js';

const test = suite('vfio cdev');

const bindStruct = (...fields: readonly FieldAt[]) => struct(16, [8, 3], ...fields);

function cdev(lab: Lab, driver: DeviceDriver = 'pci'): Lab {
  lab.open('/dev/iommu', 3);
  lab.open('/dev/vfio/devices/vfio0', 4);
  lab.setDriver('vfio0', driver);
  return lab;
}

const bind = (lab: Lab, e: string, input = bindStruct(), out = bindStruct([12, 1]), fd = 4) =>
  lab.ioctl(fd, DEVICE_BIND_IOMMUFD, { in: input, out: e === '' ? out : input, errno: e });

function bound(lab: Lab): Lab {
  cdev(lab).good(bind(lab, ''));
  return lab;
}

const attach = (lab: Lab, e: string, ...fields: readonly FieldAt[]) =>
  lab.ioctl(4, DEVICE_ATTACH_IOMMUFD_PT, { in: struct(16, [0, 12], ...fields), errno: e });
const detach = (lab: Lab, e: string, ...fields: readonly FieldAt[]) =>
  lab.ioctl(4, DEVICE_DETACH_IOMMUFD_PT, { in: struct(12, [0, 8], ...fields), errno: e });

test('cdev: rejections', () => {
  checkRows(C, [
    { rule: C.bindArgsz, errno: 'EINVAL', run: (l, e) => bind(cdev(l), e, bindStruct([0, 15])) },
    { rule: C.bindTail, errno: 'E2BIG', run: (l, e) => bind(cdev(l), e, struct(32, [8, 3], [28, 1])) },
    { rule: C.bindFlags, errno: 'EINVAL', run: (l, e) => bind(cdev(l), e, bindStruct([4, 2])) },
    { rule: C.bindFlags, errno: 'EINVAL', run: (l, e) => bind(cdev(l), e, bindStruct([8, 0xffff_ffff])) },
    { rule: C.bindGroup, errno: 'EINVAL', run: (l, e) => bind(l.device(), e, bindStruct(), bindStruct(), 5) },
    {
      rule: C.groupOpen,
      errno: 'EBUSY',
      run(lab, e) {
        lab.device('vfio0');
        lab.open('/dev/vfio/devices/vfio0', 6);
        return bind(lab, e, bindStruct(), bindStruct(), 6);
      },
    },
    { rule: C.bindTwice, errno: 'EINVAL', run: (l, e) => bind(bound(l), e) },
    { rule: C.bindTokenFault, errno: 'EFAULT', run: (l, e) => bind(cdev(l), e, bindStruct([4, 1])) },
    { rule: C.bindTokenFault, errno: 'EFAULT', run: (l, e) => bind(cdev(l), e, struct(24, [8, 3], [4, 1])) },
    {
      rule: C.bindToken,
      errno: 'EINVAL',
      run: (l, e) => bind(cdev(l), e, struct(24, [8, 3], [4, 1], [16, 0x20_0000, 8])),
    },
    { rule: C.bindToken, errno: 'EINVAL', run: (l, e) => bind(cdev(l, 'mtty'), e, bindStruct([4, 1])) },
    { rule: C.bindBadFd, errno: 'EBADF', run: (l, e) => bind(cdev(l), e, bindStruct([8, 9])) },
    { rule: C.bindNotIommufd, errno: 'EBADFD', run: (l, e) => bind(cdev(l), e, bindStruct([8, 4])) },
    {
      rule: C.openElsewhere,
      errno: 'EINVAL',
      run(lab, e) {
        bound(lab).open('/dev/vfio/devices/vfio0', 5);
        return bind(lab, e, bindStruct(), bindStruct(), 5);
      },
    },
    { rule: C.attachArgsz, errno: 'EINVAL', run: (l, e) => attach(bound(l), e, [0, 11]) },
    { rule: C.attachFlags, errno: 'EINVAL', run: (l, e) => attach(bound(l), e, [4, 2]) },
    { rule: C.attachPasid, errno: 'EINVAL', run: (l, e) => attach(bound(l), e, [4, 1]) },
    { rule: C.detachArgsz, errno: 'EINVAL', run: (l, e) => detach(bound(l), e, [0, 7]) },
    { rule: C.detachFlags, errno: 'EINVAL', run: (l, e) => detach(bound(l), e, [4, 2]) },
    { rule: C.detachPasid, errno: 'EINVAL', run: (l, e) => detach(bound(l), e, [4, 1]) },
    {
      rule: C.pasidTooHigh,
      errno: 'ENOSPC',
      run: (l, e) => attach(bound(l), e, [0, 16], [4, 1], [12, 0x8000_0000]),
    },
    {
      rule: C.noPasid,
      errno: 'EOPNOTSUPP',
      run(lab, e) {
        bound(lab);
        lab.setDriver('vfio0', 'mtty');
        return attach(lab, e, [4, 1]);
      },
    },
  ]);
});

test('binding gives the next object id, ends with the file, and can be done anew', () => {
  const lab = bound(new Lab());
  lab.good(attach(lab, 'ENOENT', [8, 77]));
  lab.good(detach(lab, ''));
  lab.close(4);
  assert.is(lab.world.devices.get('vfio0')?.boundFile, 0);
  lab.open('/dev/vfio/devices/vfio0', 4);
  lab.good(bind(lab, ''));
});

// ---- ATTACH and DETACH -------------------------------------------------------------------------------------

const DEVID = 1;
const IOAS = 2;
const OTHER = 3;
const PASID_FLAG: FieldAt = [4, 1];
const HWPT_PASID = 8;
const FAULT_ID_VALID = 4;

/** {@link bound}, with two IOASes. */
function withIoases(lab: Lab): Lab {
  bound(lab);
  for (const id of [IOAS, OTHER]) lab.good(lab.ioctl(3, 0x3b81, { in: struct(12), out: struct(12, [8, id]) }));
  return lab;
}

/** Attaches to an object without a PASID (-1) or with one; `told` is the id of the HWPT that comes back. */
function attachTo(lab: Lab, id: number, pasid: number, told: number, e = ''): Answer {
  const fields: FieldAt[] = pasid < 0 ? [[0, 12]] : [PASID_FLAG, [12, pasid]];
  const out = struct(16, ...fields, [8, e === '' ? told : id]);
  return lab.ioctl(4, DEVICE_ATTACH_IOMMUFD_PT, { in: struct(16, ...fields, [8, id]), out, errno: e });
}

function detachFrom(lab: Lab, pasid: number): void {
  lab.good(detach(lab, '', ...(pasid < 0 ? [] : ([[0, 12], PASID_FLAG, [8, pasid]] as const))));
}

const objects = (lab: Lab) =>
  [...([...lab.world.iommufds.values()][0]?.objects.values() ?? [])].map(({ id, type }) => `${id} ${type}`);

const map = (lab: Lab, ioas: number, iova: number, e = '') =>
  lab.ioctl(3, 0x3b85, {
    in: struct(40, [4, 7], [8, ioas], [16, MEMORY, 8], [24, 0x1000, 8], [32, iova, 8]),
    errno: e,
  });

test('an answer to a PASID shows which driver the device has', () => {
  const lab = new Lab();
  lab.open('/dev/iommu', 3);
  lab.open('/dev/vfio/devices/vfio0', 4);
  lab.good(bind(lab, ''));
  lab.good(lab.ioctl(3, 0x3b81, { in: struct(12), out: struct(12, [8, IOAS]) }));
  assert.is(attachTo(lab, IOAS, 0, 0, 'EOPNOTSUPP').verdict, 'unknown');
  assert.is(lab.world.devices.get('vfio0')?.driver, 'unknown', 'others than mediated devices take none either');
  assert.is(attachTo(lab, IOAS, 0, 3).verdict, 'learned');
  assert.is(lab.world.devices.get('vfio0')?.driver, 'pci');
  assert.equal(objects(lab), ['1 device', '2 ioas', '3 hwpt-paging']);
});

test('with PASID 0 and without a PASID the device is attached by one way only', () => {
  for (const [first, second] of [
    [-1, 0],
    [0, -1],
  ] as const) {
    const lab = withIoases(new Lab());
    lab.good(attachTo(lab, IOAS, first, 4));
    for (const target of [IOAS, OTHER, 4]) {
      const refused = attachTo(lab, target, second, 0, 'EBUSY');
      assert.equal([refused.verdict, refused.rule], ['match', 'attach.twice']);
    }
    detachFrom(lab, second);
    lab.good(attachTo(lab, second < 0 ? IOAS : OTHER, second, 0, 'EBUSY'));
    lab.good(attachTo(lab, OTHER, first, 5));
    assert.equal(objects(lab), ['1 device', '2 ioas', '3 ioas', '5 hwpt-paging']);
    detachFrom(lab, first);
    lab.good(attachTo(lab, IOAS, second, 4));
    lab.close(4);
    assert.equal(objects(lab), ['2 ioas', '3 ioas']);
  }
});

test('a PASID needs a HWPT made for PASIDs', () => {
  const lab = withIoases(new Lab());
  const refused = attachTo(lab, IOAS, 5, 0, 'EINVAL');
  assert.equal([refused.verdict, refused.rule], ['match', 'attach.pasid-compat']);
  lab.good(attachTo(lab, IOAS, -1, 4));
  lab.good(attachTo(lab, IOAS, 5, 0, 'EINVAL'));
  lab.good(attachTo(lab, 4, 5, 0, 'EINVAL'));
  assert.equal(objects(lab), ['1 device', '2 ioas', '3 ioas', '4 hwpt-paging']);
});

test('PASIDs of a HWPT made for them: beyond those that the device has, and without any', () => {
  for (const [log2, pasid, rule] of [
    [8, 256, 'attach.pasid-range'],
    [0, 256, 'attach-pt.ok'],
  ] as const) {
    const lab = withIoases(new Lab());
    const alloc = struct(48, [4, HWPT_PASID], [8, DEVID], [12, IOAS]);
    lab.ioctl(3, 0x3b89, { in: alloc, out: struct(48, [4, HWPT_PASID], [8, DEVID], [12, IOAS], [16, 4]) });
    assert.is(attachTo(lab, 4, 7, 4).verdict, 'unknown');
    detachFrom(lab, 7);
    const info = struct(40, [8, DEVID]);
    const told = info.toUint8Array().slice();
    told[28] = log2;
    lab.good(lab.ioctl(3, 0x3b8a, { in: info, out: new Bytes(told) }));
    const errno = rule === 'attach-pt.ok' ? '' : 'EINVAL';
    const answer = attachTo(lab, 4, pasid, 4, errno);
    assert.equal([answer.verdict, answer.rule], ['match', rule]);
    assert.equal(lab.world.devices.get('vfio0')?.pasids, errno === '' ? [pasid] : []);
  }
});

test('a HWPT that hands on page requests: whether the device sends any, the first attach shows', () => {
  for (const errno of ['ENODEV', '']) {
    const lab = withIoases(new Lab());
    lab.good(lab.ioctl(3, 0x3b8e, { in: struct(16), out: struct(16, [8, 4], [12, 5]) }));
    const alloc: FieldAt[] = [
      [4, FAULT_ID_VALID],
      [8, DEVID],
      [12, IOAS],
      [40, 4],
    ];
    lab.good(lab.ioctl(3, 0x3b89, { in: struct(48, ...alloc), out: struct(48, ...alloc, [16, 5]) }));
    assert.is(attachTo(lab, 5, -1, 5, errno).verdict, errno === '' ? 'learned' : 'unknown');
    if (errno === '') detachFrom(lab, -1);
    const again = attachTo(lab, 5, -1, 5, errno);
    assert.equal([again.verdict, again.rule], ['match', errno === '' ? 'attach-pt.ok' : 'attach.page-requests']);
  }
});

test('a move that fails leaves the device where it was, with what it reserves there', () => {
  const lab = withIoases(new Lab());
  lab.good(map(lab, OTHER, 0xfee0_0000));
  lab.good(attachTo(lab, IOAS, -1, 4));
  const before = lab.world;
  const refused = attachTo(lab, OTHER, -1, 0, 'EADDRINUSE');
  assert.equal([refused.verdict, refused.rule], ['match', 'reserve.in-use']);
  assert.equal(objects(lab), ['1 device', '2 ioas', '3 ioas', '4 hwpt-paging']);
  lab.good(map(lab, IOAS, 0xfee0_0000, 'EINVAL'));
  lab.good(map(lab, OTHER, 0xfee0_1000));
  assert.equal(attachments(lab), attachments({ world: before }));
});

test('a move that the recording shows to fail is undone', () => {
  const lab = withIoases(new Lab());
  lab.good(attachTo(lab, IOAS, -1, 4));
  assert.is(attachTo(lab, OTHER, -1, 5, 'ENOMEM').verdict, 'learned');
  assert.equal(objects(lab), ['1 device', '2 ioas', '3 ioas', '4 hwpt-paging']);
  assert.equal(attachments(lab), [4]);
  lab.good(map(lab, IOAS, 0xfee0_0000, 'EINVAL'));
  lab.good(map(lab, OTHER, 0xfee0_0000));
  lab.good(attachTo(lab, 4, -1, 4));
  detachFrom(lab, -1);
  assert.equal(objects(lab), ['1 device', '2 ioas', '3 ioas']);
});

const attachments = (lab: Pick<Lab, 'world'>) =>
  [...([...lab.world.iommufds.values()][0]?.attachments.values() ?? [])].map(({ hwpt }) => hwpt);
