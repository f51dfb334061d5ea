import * as assert from 'uvu/assert';
import { suite } from '../../core/testing.js';
import { putU32, putU64 } from '../../core/bytes.js';
import type { Attached } from './attach.js';
import { attachDevice, bindDevice, detachDevice } from './attach.js';
import { IOMMUFD_RULES } from './index.js';
import { type Refusal, refusal } from './rules.js';
import {
  type Answer,
  ARG,
  Bench,
  type CallOptions,
  decidedBy,
  type Field,
  note,
  REAL_ONLY,
  struct,
} from './testing.js';
import { Tx } from '../tx.js';

const test = suite('iommufd hardware');
const seen = new Set<string>();
const BUFFER = 0x1000_0000;
const DATA = 0x6000_0000;
const NEST = 1;
const DIRTY = 2;
const FAULT = 4;
const PASID = 8;

/** A machine with two devices behind real IOMMUs, bound as `nic` and `gpu`. */
class Machine extends Bench {
  readonly ioas: number;
  readonly nic: number;
  readonly gpu: number;

  constructor() {
    super();
    this.open();
    this.mmap(BUFFER, 0x10000);
    this.mmap(DATA, 0x4000);
    this.ioas = this.ioasAlloc();
    const tx = new Tx(this.world);
    this.nic = bindDevice(tx, 1, 'nic', 0);
    this.gpu = bindDevice(tx, 1, 'gpu', 0);
    this.world = tx.commit();
  }

  /** GET_HW_INFO with what the recording shows. */
  info(type: number, data: Uint8Array, more: { asked?: number; log2?: number; caps?: number; device?: number } = {}) {
    const device = more.device ?? this.nic;
    const request = struct(40, [4, more.asked === undefined ? 0 : 1], [8, device], [12, 64], [16, DATA, 8]);
    if (more.asked !== undefined) putU32(request, 24, more.asked);
    const told = request.slice();
    putU32(told, 12, data.length);
    putU32(told, 24, type);
    told[28] = more.log2 ?? 0;
    putU64(told, 32, more.caps ?? 0);
    const bytes = new Uint8Array(64);
    bytes.set(data);
    return this.ioctl(3, 0x3b8a, request, {
      recorded: { ret: 0, errno: '' },
      memOut: [note(ARG, told), note(DATA, bytes)],
    });
  }

  nested(parent: number, type: number, data: Uint8Array, flags = 0, options: CallOptions = {}): Answer {
    const fields: Field[] = [
      [4, flags],
      [8, this.nic],
      [12, parent],
      [24, type],
      [28, data.length],
      [32, DATA, 8],
    ];
    return this.ioctl(3, 0x3b89, struct(48, ...fields), { mem: [note(DATA, data)], ...options });
  }

  viommu(type: number, hwpt: number, data?: Uint8Array, options: CallOptions = {}): Answer {
    const fields: Field[] = [
      [8, type],
      [12, this.nic],
      [16, hwpt],
      [24, data?.length ?? 0],
      [32, DATA, 8],
    ];
    const mem = data === undefined ? [] : [note(DATA, data)];
    return this.ioctl(3, 0x3b90, struct(40, ...fields), { mem, ...options });
  }

  vdevice(viommu: number, device: number, id: number): Answer {
    return this.ioctl(3, 0x3b91, struct(24, [4, viommu], [8, device], [16, id, 8]));
  }

  invalidate(object: number, type: number, entries: readonly Uint8Array[], ...more: Field[]): Answer {
    const length = entries[0]?.length ?? 16;
    const bytes = new Uint8Array(length * entries.length);
    entries.forEach((entry, index) => bytes.set(entry, index * length));
    const fields: Field[] = [
      [4, object],
      [8, DATA, 8],
      [16, type],
      [20, length],
      [24, entries.length],
    ];
    return this.ioctl(3, 0x3b8d, struct(32, ...fields, ...more), { mem: [note(DATA, bytes)] });
  }

  queue(viommu: number, index: number, iova: number, length: number, type = 1): Answer {
    const fields: Field[] = [
      [8, viommu],
      [12, type],
      [16, index],
      [24, iova, 8],
      [32, length, 8],
    ];
    return this.ioctl(3, 0x3b94, struct(40, ...fields));
  }

  attach(hwpt: number, pasid = 0): Attached | Refusal {
    const tx = new Tx(this.world);
    const result = attachDevice(tx, 1, this.nic, hwpt, 0, pasid);
    this.world = tx.commit();
    if ('rule' in result && result.rule !== '') seen.add(result.rule);
    return result;
  }

  keep(): void {
    for (const id of this.seen) seen.add(id);
  }
}

function words(...values: readonly (number | bigint)[]): Uint8Array {
  const bytes = new Uint8Array(values.length * 8);
  values.forEach((value, index) => putU64(bytes, index * 8, value));
  return bytes;
}

const ECAP = { nest: 26, srs: 31, smts: 43, slts: 46 };
function vtd(...bits: readonly number[]): Uint8Array {
  return words(
    1,
    0,
    bits.reduce((sum, bit) => sum | (1n << BigInt(bit)), 0n),
  );
}
const NO_ATS = 8;

/** Stage-1 table of VT-d: flags, address of the table, address width. */
function stage1(flags = 0, width = 48): Uint8Array {
  const bytes = new Uint8Array(24);
  putU32(bytes, 0, flags);
  putU32(bytes, 16, width);
  return bytes;
}

test('VT-d in scalable mode', () => {
  const m = new Machine();
  assert.is(m.info(1, vtd(ECAP.nest, ECAP.smts, ECAP.slts), { log2: 16, caps: NO_ATS | 1 }).verdict, 'learned');
  assert.is(m.info(1, vtd(ECAP.nest, ECAP.smts, ECAP.slts), { log2: 16, caps: NO_ATS | 1 }).verdict, 'match');
  assert.is(m.info(1, vtd(ECAP.nest, ECAP.smts, ECAP.slts), { log2: 16, caps: NO_ATS | 1, asked: 1 }).verdict, 'match');
  const other = m.ioctl(3, 0x3b8a, struct(40, [4, 1], [8, m.nic], [24, 2]));
  decidedBy(other, 'EOPNOTSUPP', 'hw-info.type');
  const made = [0, PASID, DIRTY, NEST, NEST | DIRTY, FAULT].map((flags) => {
    const fault = m.ioctl(3, 0x3b8e, struct(16)).u32(8);
    return m.hwptAlloc(m.nic, m.ioas, flags, [40, fault]).verdict;
  });
  assert.equal(made, ['match', 'match', 'match', 'match', 'match', 'match']);
  decidedBy(m.nested(m.ioas, 1, stage1()), 'EOPNOTSUPP', 'hwpt-alloc.data-type');
  decidedBy(m.hwptAlloc(m.nic, m.ioas, NEST | FAULT), 'EOPNOTSUPP', 'hwpt-alloc.fault-parent');
  decidedBy(m.viommu(1, 99), 'EOPNOTSUPP', 'viommu-alloc.type');
  m.keep();
});

test('VT-d in legacy mode has page tables for PASIDs, and no others', () => {
  const m = new Machine();
  m.info(1, vtd(ECAP.nest, ECAP.slts), { caps: NO_ATS });
  decidedBy(m.hwptAlloc(m.nic, m.ioas, PASID), '', 'hwpt-alloc.ok');
  decidedBy(m.hwptAlloc(m.nic, m.ioas, DIRTY), 'EOPNOTSUPP', 'hwpt-alloc.dirty');
  decidedBy(m.hwptAlloc(m.nic, m.ioas, NEST), 'EOPNOTSUPP', 'hwpt-alloc.driver');
  m.keep();
});

test('VT-d: a nested HWPT, its first-stage table and invalidations', () => {
  const m = new Machine();
  m.info(1, vtd(ECAP.nest, ECAP.srs, ECAP.smts, ECAP.slts), { log2: 16, caps: NO_ATS });
  const plain = m.hwptAlloc(m.nic, m.ioas).u32(16);
  const parent = m.hwptAlloc(m.nic, m.ioas, NEST).u32(16);
  const rows: [string, string, Answer][] = [
    ['EOPNOTSUPP', 'hwpt-alloc.nested-flags', m.nested(parent, 1, stage1(), NEST)],
    ['EOPNOTSUPP', 'hwpt-alloc.nested-data', m.nested(parent, 0, new Uint8Array(0))],
    ['EINVAL', 'hwpt-alloc.no-nest-parent', m.nested(plain, 1, stage1())],
    ['EOPNOTSUPP', 'hwpt-alloc.data-type', m.nested(parent, 2, stage1())],
    ['EINVAL', 'hwpt-alloc.data-size', m.nested(parent, 1, new Uint8Array(20))],
    ['EFAULT', 'hwpt-alloc.data-fault', m.hwptAlloc(m.nic, parent, 0, [24, 1], [28, 24], [32, 0x7000_0000, 8])],
    ['', 'hwpt-alloc.ok', m.nested(parent, 1, stage1(), PASID)],
  ];
  for (const [errno, rule, answer] of rows) decidedBy(answer, errno, rule);
  // A parent that another device made is a parent all the same.
  const fields: Field[] = [
    [24, 1],
    [28, 24],
    [32, DATA, 8],
  ];
  const byOther = m.ioctl(3, 0x3b89, struct(48, [8, m.gpu], [12, parent], ...fields), { mem: [note(DATA, stage1())] });
  assert.equal([byOther.errno, byOther.verdict], ['', 'learned']);
  const width = m.nested(parent, 1, stage1(0, 40)).u32(16);
  assert.equal(m.attach(width), refusal('EINVAL', 'attach.stage-1'));
  assert.is((m.attach(m.nested(parent, 1, stage1(0, 57)).u32(16)) as Refusal).rule, 'attach.stage-1');
  assert.is((m.attach(m.nested(parent, 1, stage1(2)).u32(16)) as Refusal).rule, 'attach.stage-1');
  const hwpt = m.nested(parent, 1, stage1(1)).u32(16);
  assert.equal(m.attach(hwpt), { ptId: hwpt });
  const range = (address: number, pages: number | bigint, flags = 0, reserved = 0): Uint8Array => {
    const bytes = words(address, pages, 0);
    putU32(bytes, 16, flags);
    putU32(bytes, 20, reserved);
    return bytes;
  };
  const asks: [string, string, number, Answer][] = [
    ['EINVAL', 'invalidate.data-type', 0, m.invalidate(hwpt, 1, [range(0, 1)])],
    ['EINVAL', 'invalidate.entry-size', 0, m.invalidate(hwpt, 0, [words(0, 1)])],
    ['EFAULT', 'invalidate.entry-fault', 0, m.invalidate(hwpt, 0, [range(0, 1)], [8, 0x7000_0000, 8])],
    ['EOPNOTSUPP', 'invalidate.flags', 1, m.invalidate(hwpt, 0, [range(0x1000, 1, 1), range(0, 1, 2)])],
    ['EOPNOTSUPP', 'invalidate.flags', 0, m.invalidate(hwpt, 0, [range(0, 1, 0, 1)])],
    ['EINVAL', 'invalidate.entry', 0, m.invalidate(hwpt, 0, [range(0x800, 1)])],
    ['EINVAL', 'invalidate.entry', 1, m.invalidate(hwpt, 0, [range(0, 2n ** 64n - 1n), range(4096, 2n ** 64n - 1n)])],
    ['', 'invalidate.ok', 2, m.invalidate(hwpt, 0, [range(0, 2n ** 64n - 1n), range(4096, 1)])],
    ['', 'invalidate.ok', 0, m.invalidate(hwpt, 0, [])],
  ];
  for (const [errno, rule, done, answer] of asks) {
    decidedBy(answer, errno, rule);
    assert.is(answer.u32(24), done, rule);
  }
  m.keep();
});

test('the nest parent of VT-d takes no memory that is only read', () => {
  const m = new Machine();
  m.info(1, vtd(ECAP.nest, ECAP.smts, ECAP.slts), { log2: 16, caps: NO_ATS });
  m.map(m.ioas, BUFFER, 0x1000, 0x10_0000, 4);
  decidedBy(m.hwptAlloc(m.nic, m.ioas, NEST), 'EINVAL', 'domain.read-only');
  const plain = m.hwptAlloc(m.nic, m.ioas);
  decidedBy(plain, '', 'hwpt-alloc.ok');
  decidedBy(m.hwptAlloc(m.nic, m.ioas, NEST), 'EINVAL', 'domain.read-only');
  decidedBy(m.unmap(m.ioas, 0x10_0000, 0x1000), '', 'unmap.ok');
  decidedBy(m.hwptAlloc(m.nic, m.ioas, NEST), '', 'hwpt-alloc.ok');
  decidedBy(m.map(m.ioas, BUFFER, 0x1000, 0x10_0000, 4), 'EINVAL', 'domain.read-only');
  decidedBy(m.map(m.ioas, BUFFER, 0x1000, 0x10_0000, 2), '', 'map.ok');
  m.keep();
});

test('AMD-Vi: any vIOMMU, and nothing that can be done with it', () => {
  const m = new Machine();
  m.info(4, words((1n << 4n) | (1n << 48n), 8), { caps: NO_ATS | 1 });
  decidedBy(m.hwptAlloc(m.nic, m.ioas, DIRTY | PASID), 'EOPNOTSUPP', 'hwpt-alloc.driver');
  decidedBy(m.hwptAlloc(m.nic, m.ioas, DIRTY), '', 'hwpt-alloc.ok');
  assert.is(m.hwptAlloc(m.nic, m.ioas, PASID).verdict, 'learned');
  const parent = m.hwptAlloc(m.nic, m.ioas, NEST).u32(16);
  decidedBy(m.nested(parent, 3, new Uint8Array(32)), 'EOPNOTSUPP', 'hwpt-alloc.nesting');
  const viommu = m.viommu(7, parent);
  decidedBy(viommu, '', 'viommu-alloc.ok');
  decidedBy(m.nested(viommu.u32(20), 3, new Uint8Array(32)), 'EOPNOTSUPP', 'hwpt-alloc.nesting');
  decidedBy(m.invalidate(viommu.u32(20), 0, []), 'EOPNOTSUPP', 'invalidate.driver');
  decidedBy(m.queue(viommu.u32(20), 0, 0, 64), 'EOPNOTSUPP', 'hw-queue.type');
  decidedBy(m.vdevice(viommu.u32(20), m.nic, 9), '', 'vdevice-alloc.ok');
  assert.is(m.vdevice(viommu.u32(20), m.gpu, 10).verdict, 'learned');
  m.keep();
});

/** IDR0 with both stages, IDR1 with queues of 2^8 entries. */
function smmu(): Uint8Array {
  const bytes = new Uint8Array(40);
  putU32(bytes, 8, 3);
  putU32(bytes, 12, 8 << 21);
  return bytes;
}
const ste = (first: bigint, second = 0n): Uint8Array => words(first, second);
const TRANSLATES = 1n | (5n << 1n);
const ABORTS = 0n;

test('SMMUv3: nested HWPTs of a vIOMMU, vDEVICEs and commands', () => {
  const m = new Machine();
  m.info(2, smmu());
  decidedBy(m.hwptAlloc(m.nic, m.ioas, NEST | PASID), 'EOPNOTSUPP', 'hwpt-alloc.driver');
  const made = m.hwptAlloc(m.nic, m.ioas, NEST);
  assert.is(made.verdict, 'learned');
  const parent = made.u32(16);
  assert.is(m.hwptAlloc(m.nic, m.ioas, NEST).verdict, 'match');
  decidedBy(m.nested(parent, 2, ste(ABORTS)), 'EOPNOTSUPP', 'hwpt-alloc.nesting');
  decidedBy(m.viommu(3, parent), 'EOPNOTSUPP', 'viommu-alloc.type');
  const viommu = m.viommu(1, parent).u32(20);
  const rows: [string, string, Answer][] = [
    ['EOPNOTSUPP', 'hwpt-alloc.nested-flags', m.nested(viommu, 2, ste(ABORTS), PASID)],
    ['EINVAL', 'hwpt-alloc.smmu-data-type', m.nested(viommu, 1, ste(ABORTS))],
    ['EINVAL', 'hwpt-alloc.data-size', m.nested(viommu, 2, words(0))],
    ['EIO', 'hwpt-alloc.smmu-ste', m.nested(viommu, 2, ste(1n | (1n << 52n)))],
    ['EIO', 'hwpt-alloc.smmu-ste', m.nested(viommu, 2, ste(1n | (6n << 1n)))],
    ['EIO', 'hwpt-alloc.smmu-ste', m.nested(viommu, 2, ste(TRANSLATES, 2n << 28n))],
    ['', 'hwpt-alloc.ok', m.nested(viommu, 2, ste(1n << 52n))],
  ];
  for (const [errno, rule, answer] of rows) decidedBy(answer, errno, rule);
  const translating = m.nested(viommu, 2, ste(TRANSLATES, 1n << 28n)).u32(16);
  assert.is((m.attach(translating, 7) as Refusal).rule, 'attach.pasid-compat');
  assert.is((m.attach(translating) as Refusal).rule, 'attach.vdevice');
  assert.is(m.vdevice(viommu, m.nic, 9).verdict, 'learned');
  decidedBy(m.vdevice(viommu, m.nic, 8), 'EEXIST', 'vdevice-alloc.device-taken');
  const whole = m.hwptAlloc(m.nic, m.ioas, PASID).u32(16);
  assert.equal(m.attach(whole, 7), { ptId: whole });
  // So no PASID can be in use where a guest would manage them.
  assert.is((m.attach(translating) as Refusal).rule, 'attach.pasid-compat');
  const tx = new Tx(m.world);
  detachDevice(tx, 1, m.nic, 7);
  m.world = tx.commit();
  assert.equal(m.attach(translating), { ptId: translating });
  const asks: [string, string, number, Answer][] = [
    ['EINVAL', 'invalidate.data-type', 0, m.invalidate(viommu, 0, [words(0x10, 0)])],
    ['EINVAL', 'invalidate.empty', 0, m.invalidate(viommu, 1, [])],
    ['ENOMEM', 'invalidate.memory', 0, m.invalidate(viommu, 1, [], [24, 300_000])],
    ['E2BIG', 'invalidate.entry-tail', 0, m.invalidate(viommu, 1, [words(0x10, 0, 1)])],
    ['EIO', 'invalidate.command', 1, m.invalidate(viommu, 1, [words(0x10, 0), words(3, 0)])],
    ['EIO', 'invalidate.command', 0, m.invalidate(viommu, 1, [words(5n | (8n << 32n), 0)])],
    ['', 'invalidate.ok', 2, m.invalidate(viommu, 1, [words(5n | (9n << 32n), 0), words(0x12, 0)])],
    ['EOPNOTSUPP', 'invalidate.driver', 0, m.invalidate(translating, 1, [words(0x10, 0)])],
  ];
  for (const [errno, rule, done, answer] of asks) {
    decidedBy(answer, errno, rule);
    assert.is(answer.u32(24), done, rule);
  }
  m.keep();
});

test("Tegra's CMDQV: registers to mmap, virtual ids, queues", () => {
  const m = new Machine();
  m.info(2, smmu());
  m.info(3, Uint8Array.of(0, 0, 0, 0, 1, 1, 4, 0), { asked: 3 });
  assert.is(m.info(3, Uint8Array.of(0, 0, 0, 0, 1, 1, 4, 0), { asked: 3 }).verdict, 'match');
  const parent = m.hwptAlloc(m.nic, m.ioas, NEST).u32(16);
  m.map(m.ioas, BUFFER, 0x4000, 0x10_0000);
  decidedBy(m.viommu(2, parent), 'EINVAL', 'viommu-alloc.data');
  decidedBy(m.viommu(2, parent, words(0)), 'EINVAL', 'viommu-alloc.data');
  const made = m.viommu(2, parent, words(0, 0));
  assert.equal([made.at(DATA)?.u64(0), made.at(DATA)?.u64(8)], [4096, 65536]);
  const viommu = made.u32(20);
  decidedBy(m.vdevice(viommu, m.nic, 0x10_0000), 'EINVAL', 'vdevice-alloc.virt-id');
  assert.is(m.vdevice(viommu, m.nic, 9).verdict, 'learned');
  const rows: [string, string, Answer][] = [
    ['EOPNOTSUPP', 'hw-queue.type', m.queue(viommu, 0, 0x10_0000, 64, 2)],
    ['EINVAL', 'hw-queue.index', m.queue(viommu, 2, 0x10_0000, 64)],
    ['EIO', 'hw-queue.order', m.queue(viommu, 1, 0x10_0000, 64)],
    ['EINVAL', 'hw-queue.size', m.queue(viommu, 0, 0x10_0000, 16)],
    ['EINVAL', 'hw-queue.size', m.queue(viommu, 0, 0x10_0000, 96)],
    ['EINVAL', 'hw-queue.base', m.queue(viommu, 0, 0x10_0020, 64)],
    ['', 'hw-queue.ok', m.queue(viommu, 0, 0x10_0000, 4096)],
    ['EEXIST', 'hw-queue.taken', m.queue(viommu, 0, 0x10_0000, 64)],
    ['EEXIST', 'hw-queue.taken', m.queue(viommu, 0, 0x10_0000, 8192)],
    ['', 'hw-queue.ok', m.queue(viommu, 1, 0x10_1000, 64)],
  ];
  for (const [errno, rule, answer] of rows) decidedBy(answer, errno, rule);
  m.keep();
});

test('what was not told is shown by the first call that needs it, and must stay', () => {
  const m = new Machine();
  const fails = (errno: string): CallOptions => ({ recorded: { ret: -1, errno } });
  const alloc = (flags: number, options: CallOptions): Answer =>
    m.ioctl(3, 0x3b89, struct(48, [4, flags], [8, m.nic], [12, m.ioas]), options);
  const refused = alloc(DIRTY, fails('EOPNOTSUPP'));
  assert.is(refused.verdict, 'unknown');
  assert.match(refused.unknown, /was not told yet: HWPT with flags 2/);
  decidedBy(alloc(DIRTY, fails('EOPNOTSUPP')), 'EOPNOTSUPP', 'hwpt-alloc.driver');
  assert.is(alloc(DIRTY, { recorded: { ret: 0, errno: '' } }).verdict, 'diverge');
  const parent = alloc(NEST, { recorded: { ret: 0, errno: '' } });
  assert.is(parent.verdict, 'learned');
  assert.is(alloc(NEST, fails('EOPNOTSUPP')).verdict, 'diverge');
  assert.is(m.nested(parent.u32(16), 1, stage1(), 0, { recorded: { ret: 0, errno: '' } }).verdict, 'learned');
  // Only VT-d nests so: from here on the machine is known to have it.
  decidedBy(m.viommu(1, parent.u32(16)), 'EOPNOTSUPP', 'viommu-alloc.type');
  const other = new Machine();
  const viommu = other.viommu(1, other.hwptAlloc(other.nic, other.ioas, NEST).u32(16));
  assert.is(viommu.verdict, 'learned');
  assert.is(other.nested(viommu.u32(20), 2, ste(ABORTS)).verdict, 'learned');
  decidedBy(other.invalidate(viommu.u32(20), 1, []), 'EINVAL', 'invalidate.empty');
});

test('devices behind different IOMMUs, and more than one stream', () => {
  const m = new Machine();
  m.info(2, smmu());
  const fails = (errno: string): CallOptions => ({ recorded: { ret: -1, errno } });
  const parent = m.hwptAlloc(m.gpu, m.ioas, NEST).u32(16);
  for (const verdict of ['unknown', 'match'])
    assert.is(m.viommu(1, parent, undefined, fails('EINVAL')).verdict, verdict);
  decidedBy(m.viommu(1, parent), 'EINVAL', 'viommu-alloc.other-iommu');
  const viommu = m.viommu(1, m.hwptAlloc(m.nic, m.ioas, NEST).u32(16)).u32(20);
  decidedBy(m.vdevice(viommu, m.gpu, 1), 'EINVAL', 'vdevice-alloc.other-iommu');
  const fields: Field[] = [
    [8, m.gpu],
    [12, viommu],
    [24, 2],
    [28, 16],
    [32, DATA, 8],
  ];
  const nested = m.ioctl(3, 0x3b89, struct(48, ...fields), { mem: [note(DATA, ste(ABORTS))] });
  decidedBy(nested, 'EINVAL', 'hwpt-alloc.other-iommu');
  const make = struct(24, [4, viommu], [8, m.nic], [16, 9, 8]);
  for (const verdict of ['unknown', 'match']) assert.is(m.ioctl(3, 0x3b91, make, fails('EOPNOTSUPP')).verdict, verdict);
  decidedBy(m.vdevice(viommu, m.nic, 9), 'EOPNOTSUPP', 'vdevice-alloc.streams');
  m.keep();
});

test('drivers without data of their own', () => {
  const m = new Machine();
  m.info(0, new Uint8Array(0));
  assert.is(m.info(0, new Uint8Array(0), { asked: 9 }).verdict, 'match');
  for (const flags of [NEST, DIRTY, PASID])
    assert.is(m.hwptAlloc(m.nic, m.ioas, flags).errno, 'EOPNOTSUPP', String(flags));
  decidedBy(m.viommu(1, 99), 'EOPNOTSUPP', 'viommu-alloc.type');
  decidedBy(m.hwptAlloc(m.nic, m.ioas), '', 'hwpt-alloc.ok');
});

test('every rule that only real IOMMUs break has a row', () => {
  assert.equal(
    REAL_ONLY.filter((id) => !seen.has(id)),
    [],
  );
  const ids = new Set(IOMMUFD_RULES.map((rule) => rule.id));
  assert.equal(
    REAL_ONLY.filter((id) => !ids.has(id)),
    [],
  );
});
