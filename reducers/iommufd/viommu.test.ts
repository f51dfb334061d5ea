import * as assert from 'uvu/assert';
import { suite } from '../../core/testing.js';
import { CHECK_RULES } from '../devices/mock-check.js';
import { EVENT_TEST_RULES } from '../devices/mock-events.js';
import { ev } from '../testing.js';
import { Tx } from '../tx.js';
import { bindDevice, unbindDevice } from './attach.js';
import { EVENTQ_RULES } from './eventq.js';
import { HW_QUEUE_RULES } from './hw-queue.js';
import { INVALIDATE_RULES } from './invalidate.js';
import { type Answer, allSeen, Bench, decidedBy, type Field, note, struct } from './testing.js';
import { VIOMMU_RULES } from './viommu.js';

const test = suite('iommufd viommu');
const seen = new Set<string>(['check-map.hwpt', 'check-refs.ok']);
const DATA = 0x6000_0000;
const SELFTEST = 0xdeadbeef;
const BUFFER = 0x1000_0000;
const APERTURE = 0x100_0000;

function keep(b: Bench): void {
  for (const id of b.seen) seen.add(id);
}

interface Setup {
  readonly b: Bench;
  readonly ioas: number;
  readonly device: number;
  readonly standing: number;
  readonly parent: number;
}

function setup(): Setup {
  const b = new Bench();
  b.open();
  b.mmap(BUFFER, 0x10000);
  b.mmap(DATA, 0x1000);
  const ioas = b.ioasAlloc();
  const { device, standing } = b.mockDomain(ioas);
  const parent = b.hwptAlloc(device, ioas, 1).u32(16);
  return { b, ioas, device, standing, parent };
}

function viommuAlloc({ b, device, parent }: Setup, ...more: Field[]): Answer {
  const fields: Field[] = [[8, SELFTEST], [12, device], [16, parent], ...more];
  return b.ioctl(3, 0x3b90, struct(40, ...fields), { mem: [note(DATA, struct(24, [0, 77]))] });
}

function vdeviceAlloc(b: Bench, viommu: number, device: number, id: number): Answer {
  return b.ioctl(3, 0x3b91, struct(24, [4, viommu], [8, device], [16, id, 8]));
}

function nested(b: Bench, device: number, parent: number, ...more: Field[]): Answer {
  const fields: Field[] = [[8, device], [12, parent], [24, 0xdead], [28, 8], [32, DATA, 8], ...more];
  return b.ioctl(3, 0x3b89, struct(48, ...fields), { mem: [note(DATA, struct(8, [0, 5]))] });
}

test('VIOMMU_ALLOC', () => {
  const s = setup();
  const plain = s.b.hwptAlloc(s.device, s.ioas).u32(16);
  const rows: [string, string, Answer][] = [
    ['EOPNOTSUPP', 'viommu-alloc.flags', viommuAlloc(s, [4, 1])],
    ['EOPNOTSUPP', 'viommu-alloc.flags', viommuAlloc(s, [8, 0])],
    ['ENOENT', 'viommu-alloc.device', viommuAlloc(s, [12, 99])],
    ['EOPNOTSUPP', 'viommu-alloc.type', viommuAlloc(s, [8, 1], [16, 99])],
    ['ENOENT', 'viommu-alloc.hwpt', viommuAlloc(s, [16, 99])],
    ['EINVAL', 'viommu-alloc.no-nest-parent', viommuAlloc(s, [16, plain])],
    ['EINVAL', 'viommu-alloc.data', viommuAlloc(s, [24, 4], [32, DATA, 8])],
    ['EFAULT', 'viommu-alloc.data-fault', viommuAlloc(s, [24, 24], [32, 0x7000_0000, 8])],
    ['', 'viommu-alloc.ok', viommuAlloc(s, [24, 24], [32, DATA, 8])],
  ];
  for (const [errno, rule, answer] of rows) decidedBy(answer, errno, rule);
  const out = rows[8]?.[2].at(DATA);
  assert.equal([out?.u32(0), out?.u32(4), out?.u64(8), out?.u64(16)], [77, 77, 4096, 8192]);
  const first = rows[8]?.[2].u32(20) ?? 0;
  s.b.mmap(0x2000_0000, 8192, { fd: 3, path: '/dev/iommu', offset: 4096, flags: 1 });
  decidedBy(s.b.destroy(first), 'EBUSY', 'destroy.busy');
  s.b.event(ev('munmap', { addr: 0x2000_0000, lengthBytes: 8192 }));
  const second = viommuAlloc(s, [24, 24], [32, DATA, 8]);
  assert.is(second.at(DATA)?.u64(8), 12288);
  decidedBy(s.b.destroy(s.parent), 'EBUSY', 'destroy.busy');
  decidedBy(s.b.destroy(second.u32(20)), '', 'destroy.ok');
  decidedBy(s.b.destroy(first), '', 'destroy.ok');
  keep(s.b);
});

test('VDEVICE_ALLOC', () => {
  const s = setup();
  const { b, device } = s;
  const viommu = viommuAlloc(s).u32(20);
  const other = b.mockDomain(s.ioas);
  const tx = new Tx(b.world);
  const real = bindDevice(tx, 1, 'nic', 0);
  b.world = tx.commit();
  const rows: [string, string, Answer][] = [
    ['ENOENT', 'vdevice-alloc.viommu', vdeviceAlloc(b, 99, 99, 1)],
    ['ENOENT', 'vdevice-alloc.device', vdeviceAlloc(b, viommu, 99, 1)],
    ['EINVAL', 'vdevice-alloc.other-iommu', vdeviceAlloc(b, viommu, real, 1)],
    ['', 'vdevice-alloc.ok', vdeviceAlloc(b, viommu, device, 1)],
    ['EEXIST', 'vdevice-alloc.device-taken', vdeviceAlloc(b, viommu, device, 2)],
    ['EEXIST', 'vdevice-alloc.id-taken', vdeviceAlloc(b, viommu, other.device, 1)],
  ];
  for (const [errno, rule, answer] of rows) decidedBy(answer, errno, rule);
  const id = rows[3]?.[2].u32(12) ?? 0;
  decidedBy(b.destroy(viommu), 'EBUSY', 'destroy.busy');
  decidedBy(b.destroy(s.standing), '', 'destroy.ok');
  // It went with its device and its id stays reserved.
  decidedBy(b.destroy(id), 'ENOENT', 'destroy.object');
  const ids = [b.ioasAlloc(), b.ioasAlloc(), b.ioasAlloc(), b.ioasAlloc()];
  assert.not(ids.includes(id));
  decidedBy(b.destroy(viommu), '', 'destroy.ok');
  keep(b);
});

test('a nested domain of a vIOMMU is for devices with a vDEVICE', () => {
  const s = setup();
  const viommu = viommuAlloc(s).u32(20);
  const hwpt = nested(s.b, s.device, viommu).u32(16);
  decidedBy(s.b.test(10, s.standing, [16, hwpt]), 'ENOENT', 'mock-attach.vdevice');
  vdeviceAlloc(s.b, viommu, s.device, 9);
  decidedBy(s.b.test(10, s.standing, [16, hwpt]), '', 'mock-replace.ok');
});

function queueAlloc(
  b: Bench,
  viommu: number,
  iova: number | bigint,
  length: number | bigint,
  ...more: Field[]
): Answer {
  const fields: Field[] = [[8, viommu], [12, SELFTEST], [24, iova, 8], [32, length, 8], ...more];
  return b.ioctl(3, 0x3b94, struct(40, ...fields));
}

test('HW_QUEUE_ALLOC', () => {
  const s = setup();
  const { b, ioas } = s;
  const viommu = viommuAlloc(s).u32(20);
  const rows: [string, string, Answer][] = [
    ['EOPNOTSUPP', 'hw-queue.flags', queueAlloc(b, 99, 0, 0, [12, 0])],
    ['EINVAL', 'hw-queue.length', queueAlloc(b, 99, 0, 0)],
    ['EOVERFLOW', 'hw-queue.overflow', queueAlloc(b, 99, 2, 0xffff_ffff_ffff_ffffn)],
    ['ENOENT', 'hw-queue.viommu', queueAlloc(b, 99, 0, 4096)],
    ['EOPNOTSUPP', 'hw-queue.type', queueAlloc(b, viommu, 0, 4096, [12, 1])],
    ['ERANGE', 'hw-queue.range', queueAlloc(b, viommu, 0, 0xffff_ffff_ffff_f001n)],
    ['ENOMEM', 'hw-queue.memory', queueAlloc(b, viommu, 0, 2n ** 42n)],
    ['ENOENT', 'access.gap', queueAlloc(b, viommu, APERTURE, 4096)],
  ];
  for (const [errno, rule, answer] of rows) decidedBy(answer, errno, rule);
  b.map(ioas, BUFFER, 0x2000, APERTURE);
  decidedBy(queueAlloc(b, viommu, APERTURE, 4096, [16, 2]), 'EINVAL', 'hw-queue.index');
  decidedBy(queueAlloc(b, viommu, APERTURE, 4096, [16, 1]), 'EIO', 'hw-queue.order');
  const first = queueAlloc(b, viommu, APERTURE + 16, 32);
  decidedBy(first, '', 'hw-queue.ok');
  decidedBy(queueAlloc(b, viommu, APERTURE, 4096), 'EEXIST', 'hw-queue.taken');
  decidedBy(b.unmap(ioas, APERTURE, 0x2000), 'EBUSY', 'unmap.locked');
  // Pages that lie apart would have failed it before; an error that comes later shows that they do not.
  decidedBy(queueAlloc(b, viommu, APERTURE, 8192), 'EEXIST', 'hw-queue.taken');
  const other = viommuAlloc(s).u32(20);
  const long = queueAlloc(b, other, APERTURE, 8192);
  assert.match(long.unknown, /next to each other/);
  decidedBy(b.destroy(long.u32(20)), '', 'destroy.ok');
  const second = queueAlloc(b, viommu, APERTURE, 4096, [16, 1]);
  decidedBy(b.destroy(first.u32(20)), 'EBUSY', 'destroy.busy');
  decidedBy(b.destroy(second.u32(20)), '', 'destroy.ok');
  // The mock driver has emptied the first place for it, not its own.
  decidedBy(queueAlloc(b, viommu, APERTURE, 4096, [16, 1]), 'EEXIST', 'hw-queue.taken');
  const another = queueAlloc(b, viommu, APERTURE, 4096);
  decidedBy(another, '', 'hw-queue.ok');
  decidedBy(b.destroy(first.u32(20)), '', 'destroy.ok');
  decidedBy(b.destroy(another.u32(20)), '', 'destroy.ok');
  decidedBy(queueAlloc(b, viommu, APERTURE, 4096, [16, 1]), 'EEXIST', 'hw-queue.taken');
  decidedBy(b.unmap(ioas, APERTURE, 0x2000), '', 'unmap.ok');
  decidedBy(b.destroy(viommu), '', 'destroy.ok');
  keep(b);
});

function invalidate(b: Bench, id: number, entries: readonly Uint8Array[], ...more: Field[]): Answer {
  const length = entries[0]?.length ?? 8;
  const bytes = new Uint8Array(length * entries.length);
  entries.forEach((entry, i) => {
    bytes.set(entry, i * length);
  });
  const fields: Field[] = [[4, id], [8, DATA, 8], [16, SELFTEST], [20, length], [24, entries.length], ...more];
  return b.ioctl(3, 0x3b8d, struct(32, ...fields), { mem: [note(DATA, bytes)] });
}

const pair = (flags: number, id: number): Uint8Array => struct(8, [0, flags], [4, id]);
const triple = (flags: number, device: number, id: number): Uint8Array => struct(12, [0, flags], [4, device], [8, id]);

test('HWPT_INVALIDATE', () => {
  const s = setup();
  const { b, device } = s;
  const viommu = viommuAlloc(s).u32(20);
  vdeviceAlloc(b, viommu, device, 9);
  const hwpt = nested(b, device, s.parent).u32(16);
  const rows: [string, string, number, Answer][] = [
    ['EOPNOTSUPP', 'invalidate.reserved', 0, invalidate(b, 99, [pair(0, 0)], [28, 1])],
    ['EINVAL', 'invalidate.array', 0, invalidate(b, 99, [pair(0, 0)], [8, 0, 8])],
    ['ENOENT', 'invalidate.object', 0, invalidate(b, 99, [pair(0, 0)])],
    ['EINVAL', 'invalidate.type', 0, invalidate(b, s.parent, [pair(0, 0)])],
    ['EINVAL', 'invalidate.data-type', 0, invalidate(b, hwpt, [pair(0, 0)], [16, 1])],
    ['EINVAL', 'invalidate.entry-size', 0, invalidate(b, hwpt, [triple(0, 0, 0)])],
    ['EOPNOTSUPP', 'invalidate.flags', 1, invalidate(b, hwpt, [pair(0, 2), pair(2, 0)])],
    ['EINVAL', 'invalidate.entry', 1, invalidate(b, hwpt, [pair(0, 1), pair(0, 4)])],
    ['E2BIG', 'invalidate.entry-tail', 0, invalidate(b, viommu, [struct(16, [0, 0], [12, 1])])],
    ['EINVAL', 'invalidate.entry', 1, invalidate(b, viommu, [triple(0, 9, 1), triple(0, 8, 0)])],
    ['', 'invalidate.ok', 0, invalidate(b, viommu, [])],
    ['', 'invalidate.ok', 0, invalidate(b, hwpt, [])],
  ];
  for (const [errno, rule, done, answer] of rows) {
    decidedBy(answer, errno, rule);
    assert.is(answer.u32(24), done, rule);
  }
  const iotlb = (id: number, value: number): Answer => b.test(14, hwpt, [16, id], [20, value]);
  decidedBy(iotlb(2, 0), '', 'check-iotlb.ok');
  decidedBy(iotlb(0, 5), '', 'check-iotlb.ok');
  decidedBy(iotlb(4, 5), 'EINVAL', 'check-iotlb.value');
  decidedBy(b.test(14, 99, [16, 0], [20, 0]), 'ENOENT', 'check-iotlb.hwpt');
  decidedBy(invalidate(b, hwpt, [pair(1, 0)]), '', 'invalidate.ok');
  decidedBy(iotlb(0, 0), '', 'check-iotlb.ok');
  const cache = (id: number, value: number): Answer => b.test(16, device, [16, id], [20, value]);
  decidedBy(cache(1, 0), '', 'check-cache.ok');
  decidedBy(cache(0, 0), 'EINVAL', 'check-cache.value');
  decidedBy(b.test(16, 99), 'ENOENT', 'check-cache.device');
  keep(b);
});

test('fault queues', () => {
  const s = setup();
  const { b, device } = s;
  decidedBy(b.ioctl(3, 0x3b8e, struct(16, [4, 1])), 'EOPNOTSUPP', 'fault-alloc.flags');
  const made = b.ioctl(3, 0x3b8e, struct(16));
  decidedBy(made, '', 'fault-alloc.ok');
  const [queue, fd] = [made.u32(8), made.u32(12)];
  assert.is(fd, 4);
  decidedBy(b.destroy(queue), 'EBUSY', 'destroy.busy');
  const hwpt = b.hwptAlloc(device, s.ioas, 4, [40, queue]).u32(16);
  decidedBy(b.test(10, s.standing, [16, hwpt]), '', 'mock-replace.ok');
  const trigger = (id: number): Answer => b.test(15, id, [16, id], [20, 0], [24, 3], [28, 1], [32, 0x1234, 8]);
  decidedBy(trigger(99), 'ENOENT', 'trigger-fault.device');
  decidedBy(trigger(device), '', 'trigger-fault.ok');
  const queueNow = () => {
    const object = b.world.iommufds.first()?.objects.get(queue);
    return object?.type === 'fault' ? [object.deliver.size, object.pending.size] : [];
  };
  assert.equal(queueNow(), [1, 0]);
  b.event(ev('io', { call: 'read', fd, lengthBytes: 40, ret: 40 }));
  assert.equal(queueNow(), [0, 1]);
  b.event(ev('io', { call: 'write', fd, lengthBytes: 8, ret: 8, data: note(0, struct(8, [0, 1])).bytes }));
  assert.equal(queueNow(), [0, 0]);
  trigger(device);
  decidedBy(b.destroy(s.standing), '', 'destroy.ok');
  assert.equal(queueNow(), [0, 0]);
  b.close(fd);
  decidedBy(b.destroy(hwpt), '', 'destroy.ok');
  decidedBy(b.destroy(queue), '', 'destroy.ok');
  keep(b);
});

test('the kernel wants a mock device for a page request', () => {
  const { b } = setup();
  const tx = new Tx(b.world);
  const real = bindDevice(tx, 1, 'nic', 0);
  b.world = tx.commit();
  decidedBy(b.test(15, 0, [16, real]), 'EINVAL', 'trigger-fault.kind');
  keep(b);
  const back = new Tx(b.world);
  unbindDevice(back, 1, real);
});

test('vIOMMU event queues', () => {
  const s = setup();
  const { b, device } = s;
  const viommu = viommuAlloc(s).u32(20);
  const alloc = (...more: Field[]): Answer =>
    b.ioctl(3, 0x3b93, struct(32, [8, viommu], [12, 0xbeefbeef], [16, 2], ...more));
  const rows: [string, string, Answer][] = [
    ['EOPNOTSUPP', 'veventq-alloc.flags', alloc([4, 1])],
    ['EINVAL', 'veventq-alloc.depth', alloc([16, 0], [8, 99])],
    ['ENOENT', 'veventq-alloc.viommu', alloc([8, 99])],
  ];
  for (const [errno, rule, answer] of rows) decidedBy(answer, errno, rule);
  const trigger = (id = device): Answer => b.test(17, 0, [16, id]);
  decidedBy(trigger(99), 'ENOENT', 'trigger-vevent.device');
  decidedBy(trigger(), 'ENOENT', 'trigger-vevent.viommu');
  vdeviceAlloc(b, viommu, device, 9);
  b.test(10, s.standing, [16, nested(b, device, viommu).u32(16)]);
  decidedBy(trigger(), 'EOPNOTSUPP', 'trigger-vevent.queue');
  const made = alloc();
  decidedBy(made, '', 'veventq-alloc.ok');
  decidedBy(alloc(), 'EEXIST', 'veventq-alloc.taken');
  for (let i = 0; i < 4; i++) decidedBy(trigger(), '', 'trigger-vevent.ok');
  const object = b.world.iommufds.first()?.objects.get(made.u32(20));
  assert.equal(object?.type === 'veventq' && [...object.deliver.values()].map((e) => [e.lost, e.sequence]), [
    [false, 0],
    [false, 1],
    [true, 3],
  ]);
  b.event(ev('io', { call: 'read', fd: made.u32(24), lengthBytes: 64, ret: 32 }));
  b.close(made.u32(24));
  decidedBy(b.destroy(made.u32(20)), '', 'destroy.ok');
  keep(b);
});

test('the id of a vDEVICE that went with its device stays taken', () => {
  const s = setup();
  const { b } = s;
  const viommu = viommuAlloc(s).u32(20);
  const vdevice = vdeviceAlloc(b, viommu, s.device, 9).u32(12);
  for (const id of [s.standing, viommu, s.parent, s.ioas]) decidedBy(b.destroy(id), '', 'destroy.ok');
  decidedBy(b.destroy(vdevice), 'ENOENT', 'destroy.object');
  const rlimitMode = b.ioctl(3, 0x3b87, struct(24, [16, 1, 8]));
  decidedBy(rlimitMode, 'EBUSY', 'option.rlimit-busy');
});

test('every rule has a row', () => {
  // Reads and writes of the queues' files are no counted calls; check-map and check-refs are in access.test.ts.
  const files = EVENTQ_RULES.filter((rule) => !/read|write/.test(rule.id));
  const checks = CHECK_RULES.filter((rule) => /iotlb|cache/.test(rule.id));
  allSeen(seen, [VIOMMU_RULES, HW_QUEUE_RULES, INVALIDATE_RULES, files, checks, EVENT_TEST_RULES]);
});
