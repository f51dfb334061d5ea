import * as assert from 'uvu/assert';
import { putU32 } from '../../core/bytes.js';
import { suite } from '../../core/testing.js';
import { DEVICE_TEST_RULES } from '../devices/mock-device.js';
import { MOCK_RULES } from '../devices/mock-domain.js';
import { Tx } from '../tx.js';
import { attachDevice, bindDevice, bindRefusal, DEVICE_RULES, detachDevice, unbindDevice } from './attach.js';
import { ATTACH_RULES } from './attach-hwpt.js';
import { HW_INFO_RULES } from './hwinfo.js';
import { HWPT_RULES } from './hwpt.js';
import { type Answer, ARG, allSeen, Bench, decidedBy, type Field, note, struct } from './testing.js';

const test = suite('iommufd hwpt');
const seen = new Set<string>();
const DATA = 0x6000_0000;
const NEST_PARENT = 1;
const DIRTY = 2;
const FAULT = 4;
const PASID = 8;
const NO_DIRTY = 1;
const WITH_PASID = 4;

function bench(): { b: Bench; ioas: number } {
  const b = new Bench();
  b.open();
  b.mmap(DATA, 0x1000);
  return { b, ioas: b.ioasAlloc() };
}

function keep(b: Bench): void {
  for (const id of b.seen) seen.add(id);
}

/** HWPT_ALLOC with the mock driver's data. */
function withData(b: Bench, device: number, pt: number, flags: number, table: number, ...more: Field[]): Answer {
  const data = struct(8, [0, 0xabc], [4, table]);
  const fields: Field[] = [[4, flags], [8, device], [12, pt], [24, 0xdead], [28, 8], [32, DATA, 8], ...more];
  return b.ioctl(3, 0x3b89, struct(48, ...fields), { mem: [note(DATA, data)] });
}

test('ids of a mock device: itself, the bound device, the automatic HWPT', () => {
  const { b, ioas } = bench();
  const made = b.mockDomain(ioas);
  assert.equal([made.standing, made.device, made.hwpt], [2, 3, 4]);
  const second = b.mockDomain(ioas);
  assert.equal([second.standing, second.device, second.hwpt], [5, 6, 4]);
  decidedBy(b.destroy(made.standing), '', 'destroy.ok');
  decidedBy(b.destroy(4), 'EBUSY', 'destroy.busy');
  decidedBy(b.destroy(second.standing), '', 'destroy.ok');
  decidedBy(b.destroy(4), 'ENOENT', 'destroy.object');
  decidedBy(b.destroy(ioas), '', 'destroy.ok');
});

test('a busy object that a recording destroys all the same leaves nothing behind that points nowhere', () => {
  const { b, ioas } = bench();
  const made = b.mockDomain(ioas);
  for (const id of [made.device, made.hwpt, ioas]) {
    const answer = b.ioctl(3, 0x3b80, struct(8, [4, id]), { recorded: { ret: 0, errno: '' } });
    assert.is(answer.verdict, 'diverge');
    assert.is(answer.rule, 'destroy.busy');
  }
  assert.is(b.destroy(made.standing).rule, 'destroy.ok');
  assert.match(b.destroy(99).unknown, /objects unknown since event/);
});

test('where objects are unknown, the ids that a recording shows are taken', () => {
  const { b } = bench();
  b.ioctl(3, 0x3b80, null, { recorded: { ret: 0, errno: '' } });
  const shows = (request: number, bytes: Uint8Array, ...fields: Field[]): Answer =>
    b.ioctl(3, request, bytes, {
      recorded: { ret: 0, errno: '' },
      memOut: [
        note(
          ARG,
          fields.reduce((made, [at, value]) => (putU32(made, at, Number(value)), made), bytes.slice()),
        ),
      ],
    });
  const ioas = 7;
  assert.is(shows(0x3b81, struct(12, [0, 12]), [8, ioas]).verdict, 'unknown');
  const mock = struct(72, [4, 2], [8, ioas]);
  assert.is(shows(0x3ba0, mock, [16, 10], [20, 12], [24, 11]).verdict, 'unknown');
  assert.is(shows(0x3ba0, mock, [16, 20], [20, 22], [24, 21]).verdict, 'unknown');
  const objects = () => b.world.iommufds.first()?.objects;
  assert.equal(
    [20, 21, 22].map((id) => objects()?.get(id)?.type),
    ['selftest', 'device', 'hwpt-paging'],
  );
  decidedBy(b.destroy(22), 'EBUSY', 'destroy.busy');
  const replace = struct(72, [4, 10], [8, 10], [16, ioas]);
  assert.is(shows(0x3ba0, replace, [16, 22]).verdict, 'unknown');
  assert.is(objects()?.get(22)?.users, 2);
  decidedBy(b.destroy(20), '', 'destroy.ok');
  decidedBy(b.destroy(22), 'EBUSY', 'destroy.busy');
  shows(0x3b89, struct(48, [0, 48], [8, 11], [12, ioas]), [16, 33]);
  decidedBy(b.destroy(33), '', 'destroy.ok');
});

test('MOCK_DOMAIN: what it can be attached to', () => {
  const { b, ioas } = bench();
  decidedBy(b.mockDomain(ioas, 2).answer, 'EINVAL', 'mock-domain.flags');
  decidedBy(b.mockDomain(99).answer, 'ENOENT', 'attach.object');
  const made = b.mockDomain(ioas);
  decidedBy(made.answer, '', 'mock-domain.ok');
  decidedBy(b.mockDomain(made.device).answer, 'EINVAL', 'attach.type');
  const tracked = b.hwptAlloc(made.device, ioas, DIRTY).u32(16);
  decidedBy(b.mockDomain(tracked, NO_DIRTY).answer, 'EINVAL', 'mock-attach.dirty');
  decidedBy(b.mockDomain(tracked).answer, '', 'mock-domain.ok');
  keep(b);
});

test('HWPT_ALLOC on an IOAS', () => {
  const { b, ioas } = bench();
  const { device, standing } = b.mockDomain(ioas);
  const poor = b.mockDomain(ioas, NO_DIRTY).device;
  const rows: [string, string, Answer][] = [
    ['EOPNOTSUPP', 'hwpt-alloc.reserved', b.hwptAlloc(99, 99, 0, [20, 1])],
    ['EINVAL', 'hwpt-alloc.data', b.hwptAlloc(99, 99, 0, [24, 1])],
    ['EINVAL', 'hwpt-alloc.data', b.hwptAlloc(99, 99, 0, [28, 1])],
    ['ENOENT', 'hwpt-alloc.device', b.hwptAlloc(99, 99)],
    ['EINVAL', 'hwpt-alloc.parent', b.hwptAlloc(device, 99)],
    ['EINVAL', 'hwpt-alloc.parent-type', b.hwptAlloc(device, standing)],
    ['EOPNOTSUPP', 'hwpt-alloc.flags', b.hwptAlloc(device, ioas, 16)],
    ['EOPNOTSUPP', 'hwpt-alloc.dirty', b.hwptAlloc(poor, ioas, DIRTY)],
    ['EOPNOTSUPP', 'hwpt-alloc.fault-parent', b.hwptAlloc(device, ioas, FAULT | NEST_PARENT)],
    ['EOPNOTSUPP', 'hwpt-alloc.data-type', b.hwptAlloc(device, ioas, 0, [24, 1], [28, 8])],
    ['EINVAL', 'hwpt-alloc.data-size', withData(b, device, ioas, 0, 0, [28, 3])],
    ['EFAULT', 'hwpt-alloc.data-fault', withData(b, device, ioas, 0, 2, [32, 0x7000_0000, 8])],
    ['EOPNOTSUPP', 'hwpt-alloc.page-table', withData(b, device, ioas, 0, 2)],
    ['ENOENT', 'hwpt-alloc.fault', b.hwptAlloc(device, ioas, FAULT, [40, 99])],
    ['', 'hwpt-alloc.ok', withData(b, device, ioas, 0, 1)],
  ];
  for (const [errno, rule, answer] of rows) decidedBy(answer, errno, rule);
  const last = rows[rows.length - 1]?.[2].u32(16) ?? 0;
  decidedBy(b.destroy(last), '', 'destroy.ok');
  keep(b);
});

test('HWPT_ALLOC on a parent', () => {
  const { b, ioas } = bench();
  const { device, hwpt: auto } = b.mockDomain(ioas);
  const plain = b.hwptAlloc(device, ioas).u32(16);
  const parent = b.hwptAlloc(device, ioas, NEST_PARENT).u32(16);
  const rows: [string, string, Answer][] = [
    ['EOPNOTSUPP', 'hwpt-alloc.nested-flags', withData(b, device, parent, NEST_PARENT, 0)],
    ['EOPNOTSUPP', 'hwpt-alloc.nested-data', b.hwptAlloc(device, parent)],
    ['EINVAL', 'hwpt-alloc.no-nest-parent', withData(b, device, plain, 0, 0)],
    ['EINVAL', 'hwpt-alloc.no-nest-parent', withData(b, device, auto, 0, 0)],
    ['EOPNOTSUPP', 'hwpt-alloc.data-type', withData(b, device, parent, 0, 0, [24, 1])],
    ['', 'hwpt-alloc.ok', withData(b, device, parent, 0, 0)],
  ];
  for (const [errno, rule, answer] of rows) decidedBy(answer, errno, rule);
  const nested = rows[rows.length - 1]?.[2].u32(16) ?? 0;
  decidedBy(b.destroy(parent), 'EBUSY', 'destroy.busy');
  decidedBy(b.test(14, nested, [16, 0], [20, 0xabc]), '', 'check-iotlb.ok');
  decidedBy(b.destroy(nested), '', 'destroy.ok');
  decidedBy(b.destroy(parent), '', 'destroy.ok');
  keep(b);
});

test('a vIOMMU of another IOMMU takes no device', () => {
  const { b, ioas } = bench();
  const { device } = b.mockDomain(ioas);
  const parent = b.hwptAlloc(device, ioas, NEST_PARENT).u32(16);
  const viommu = b.ioctl(3, 0x3b90, struct(40, [8, 0xdeadbeef], [12, device], [16, parent])).u32(20);
  const tx = new Tx(b.world);
  const real = bindDevice(tx, 1, '0000:00:10.0', 0);
  b.world = tx.commit();
  decidedBy(b.hwptAlloc(real, viommu), 'EINVAL', 'hwpt-alloc.other-iommu');
  keep(b);
});

test('replace moves the group, and the old automatic HWPT goes', () => {
  const { b, ioas } = bench();
  const other = b.ioasAlloc();
  const { standing, hwpt, device } = b.mockDomain(ioas);
  const replace = (pt: number): Answer => b.test(10, standing, [16, pt]);
  decidedBy(b.test(10, device, [16, other]), 'ENOENT', 'mock-replace.device');
  decidedBy(replace(99), 'ENOENT', 'attach.object');
  const moved = replace(other);
  decidedBy(moved, '', 'mock-replace.ok');
  assert.is(moved.u32(16), 6);
  decidedBy(b.destroy(hwpt), 'ENOENT', 'destroy.object');
  decidedBy(b.destroy(ioas), '', 'destroy.ok');
  keep(b);
});

function pasid(b: Bench, op: 18 | 19 | 20 | 21, standing: number, id: number, pt = 0): Answer {
  return b.test(op, standing, [16, id], [20, pt]);
}

test('PASIDs', () => {
  const { b, ioas } = bench();
  const { standing, device } = b.mockDomain(ioas, WITH_PASID);
  const compat = b.hwptAlloc(device, ioas, PASID).u32(16);
  const second = b.hwptAlloc(device, ioas, PASID).u32(16);
  decidedBy(pasid(b, 18, standing, 7, compat), 'EINVAL', 'attach.pasid-compat');
  decidedBy(b.test(10, standing, [16, compat]), '', 'mock-replace.ok');
  decidedBy(pasid(b, 18, standing, 7, compat), '', 'mock-replace.ok');
  decidedBy(pasid(b, 18, standing, 7, compat), 'EBUSY', 'attach.twice');
  decidedBy(pasid(b, 18, standing, 1 << 20, compat), 'EINVAL', 'mock-attach.pasid-range');
  decidedBy(pasid(b, 19, standing, 8, compat), 'EINVAL', 'replace.not-attached');
  decidedBy(pasid(b, 21, standing, 7, compat), '', 'pasid-check.ok');
  decidedBy(pasid(b, 21, standing, 7, second), 'EINVAL', 'pasid-check.mismatch');
  decidedBy(pasid(b, 21, standing, 7, 99), 'ENOENT', 'pasid-check.hwpt');
  decidedBy(pasid(b, 21, standing, 7, device), 'EINVAL', 'pasid-check.type');
  decidedBy(pasid(b, 18, standing, 1024, compat), '', 'mock-replace.ok');
  decidedBy(pasid(b, 19, standing, 1024, second), 'ENOMEM', 'mock-attach.pasid-1024');
  decidedBy(pasid(b, 21, standing, 1024, compat), '', 'pasid-check.ok');
  decidedBy(pasid(b, 20, standing, 7), '', 'mock-replace.ok');
  decidedBy(pasid(b, 21, standing, 7), '', 'pasid-check.ok');
  keep(b);
});

test('a mock device that is destroyed with PASIDs attached leaves an object that stands for freed memory', () => {
  const { b, ioas } = bench();
  const { standing, device } = b.mockDomain(ioas, WITH_PASID);
  const compat = b.hwptAlloc(device, ioas, PASID).u32(16);
  b.test(10, standing, [16, compat]);
  decidedBy(pasid(b, 18, standing, 7, compat), '', 'mock-replace.ok');
  decidedBy(b.destroy(standing), '', 'destroy.ok');
  decidedBy(b.destroy(device), 'EBUSY', 'destroy.busy');
  decidedBy(b.destroy(compat), 'EBUSY', 'destroy.busy');
  assert.match(b.hwptAlloc(device, ioas).unknown, /memory that it freed/);
  assert.match(b.ioctl(3, 0x3b8a, struct(40, [8, device])).unknown, /memory that it freed/);
  // Whatever that memory holds, ids that nothing has are not found.
  decidedBy(b.hwptAlloc(99, ioas), 'ENOENT', 'hwpt-alloc.device');
  keep(b);
});

test('devices of one group share a HWPT; another kind of IOMMU or owner is refused', () => {
  const { b, ioas } = bench();
  b.open(4);
  const { hwpt } = b.mockDomain(ioas);
  const tx = new Tx(b.world);
  const first = bindDevice(tx, 1, 'a', 0, 'group');
  const second = bindDevice(tx, 1, 'b', 0, 'group');
  assert.equal(bindRefusal(tx, 2, 'group')?.rule, 'bind.owner');
  assert.is(bindRefusal(tx, 1, 'group'), undefined);
  const wrong = attachDevice(tx, 1, first, hwpt, 0);
  assert.is('rule' in wrong && wrong.rule, 'attach.other-iommu');
  const other = b.ioasAlloc();
  const tx2 = new Tx(b.world);
  const one = bindDevice(tx2, 1, 'a', 0, 'group');
  const two = bindDevice(tx2, 1, 'b', 0, 'group');
  const attached = attachDevice(tx2, 1, one, other, 0);
  assert.ok('ptId' in attached);
  const next = attachDevice(tx2, 1, two, ioas, 0);
  assert.is('rule' in next && next.rule, 'attach.other-hwpt');
  assert.ok('ptId' in attachDevice(tx2, 1, two, other, 0));
  detachDevice(tx2, 1, one);
  unbindDevice(tx2, 1, one);
  unbindDevice(tx2, 1, two);
  assert.is(tx2.world.iommufds.get(1)?.attachments.size, 1);
  for (const rule of ['bind.owner', 'attach.other-iommu', 'attach.other-hwpt']) seen.add(rule);
  assert.ok(second > first);
});

function hwInfo(b: Bench, device: number, room: number, ...more: Field[]): Answer {
  return b.ioctl(3, 0x3b8a, struct(40, [8, device], [12, room], [16, DATA, 8], ...more));
}

test('GET_HW_INFO of a mock device', () => {
  const { b, ioas } = bench();
  const { device } = b.mockDomain(ioas, WITH_PASID);
  const rows: [string, string, Answer][] = [
    ['EOPNOTSUPP', 'hw-info.flags', hwInfo(b, 99, 8, [4, 2])],
    ['EOPNOTSUPP', 'hw-info.reserved', hwInfo(b, 99, 8, [29, 1, 1])],
    ['ENOENT', 'hw-info.device', hwInfo(b, 99, 8)],
    ['EOPNOTSUPP', 'hw-info.type', hwInfo(b, device, 8, [4, 1], [24, 1])],
    ['EFAULT', 'hw-info.fault', hwInfo(b, device, 8, [16, 0, 8])],
    ['', 'hw-info.ok', hwInfo(b, device, 4)],
    ['EFAULT', 'hw-info.fault', hwInfo(b, device, 8, [16, 0x1000, 8])],
    ['EFAULT', 'hw-info.fault', hwInfo(b, device, 8, [16, 0xffff_ffff_ffff_f000n, 8])],
    ['', 'hw-info.ok', hwInfo(b, device, 0, [16, 0x1000, 8])],
    ['', 'hw-info.ok', b.ioctl(3, 0x3b8a, struct(39, [8, device]))],
  ];
  for (const [errno, rule, answer] of rows) decidedBy(answer, errno, rule);
  const told = rows[5]?.[2] as Answer;
  assert.equal([told.u32(12), told.u32(24), told.u32(28), told.u32(32)], [8, 0xfeedbeef, 20, 9]);
  assert.is(told.at(DATA)?.length, 4);
  const short = rows[rows.length - 1]?.[2];
  assert.is(short?.at(ARG + 32)?.length, 7);
  keep(b);
});

test('GET_HW_INFO of a real device is learned once and then kept', () => {
  const { b } = bench();
  const tx = new Tx(b.world);
  const device = bindDevice(tx, 1, 'nic', 0);
  b.world = tx.commit();
  const answer = struct(40, [8, device], [12, 4], [16, DATA, 8], [24, 1], [32, 9, 8]);
  const ask = (value: number) =>
    b.ioctl(3, 0x3b8a, struct(40, [8, device], [12, 4], [16, DATA, 8]), {
      memOut: [note(ARG, answer), note(DATA, struct(4, [0, value]))],
    }).verdict;
  assert.is(ask(7), 'learned');
  assert.is(ask(7), 'match');
  assert.is(ask(8), 'diverge');
});

test('every rule has a row', () => {
  seen.add('mock-attach.vdevice'); // viommu.test.ts
  // vfio/device/cdev.test.ts
  for (const rule of ['attach.pasid-range', 'attach.page-requests', 'attach.smmu-page-requests']) seen.add(rule);
  allSeen(seen, [DEVICE_RULES, ATTACH_RULES, HWPT_RULES, HW_INFO_RULES, MOCK_RULES, DEVICE_TEST_RULES]);
});
