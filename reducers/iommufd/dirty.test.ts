import * as assert from 'uvu/assert';
import { suite } from '../../core/testing.js';
import { DIRTY_TEST_RULES } from '../devices/mock-dirty.js';
import { Tx } from '../tx.js';
import { attachDevice, bindDevice } from './attach.js';
import { DIRTY_RULES } from './dirty.js';
import { DOMAIN_RULES, smallestPage } from './domain.js';
import { type Answer, allSeen, Bench, decidedBy, type Field, note, struct } from './testing.js';

const test = suite('iommufd dirty');
const seen = new Set<string>();
const BUFFER = 0x1000_0000;
const APERTURE = 0x100_0000;
const BITMAP = 0x6000_0000;

interface Setup {
  readonly b: Bench;
  readonly ioas: number;
  readonly hwpt: number;
  readonly plain: number;
}

function setup(): Setup {
  const b = new Bench();
  b.open();
  b.mmap(BUFFER, 0x10000);
  b.mmap(BITMAP, 0x1000);
  const ioas = b.ioasAlloc();
  const { device, hwpt: plain } = b.mockDomain(ioas);
  const hwpt = b.hwptAlloc(device, ioas, 2).u32(16);
  b.map(ioas, BUFFER, 0x4000, APERTURE);
  return { b, ioas, hwpt, plain };
}

function keep(b: Bench): void {
  for (const id of b.seen) seen.add(id);
}

function track(b: Bench, hwpt: number, flags: number): Answer {
  return b.ioctl(3, 0x3b8b, struct(16, [4, flags], [8, hwpt]));
}

function bitmap(b: Bench, hwpt: number, iova: number | bigint, length: number | bigint, ...more: Field[]): Answer {
  const fields: Field[] = [[4, hwpt], [16, iova, 8], [24, length, 8], [32, 4096, 8], [40, BITMAP, 8], ...more];
  const zero = note(BITMAP, new Uint8Array(8));
  return b.ioctl(3, 0x3b8c, struct(48, ...fields), { mem: [zero], memOut: [zero] });
}

function dirty(b: Bench, hwpt: number, bits: number | null, ...more: Field[]): Answer {
  const fields: Field[] = [
    [24, APERTURE, 8],
    [32, 0x4000, 8],
    [40, 2048, 8],
    [48, BITMAP, 8],
  ];
  const mem = bits === null ? [] : [note(BITMAP, new Uint8Array([bits]))];
  return b.ioctl(3, 0x3ba0, struct(72, [4, 13], [8, hwpt], ...fields, ...more), { mem });
}

test('SET_DIRTY_TRACKING', () => {
  const { b, hwpt, plain } = setup();
  decidedBy(track(b, 99, 2), 'EOPNOTSUPP', 'dirty-tracking.flags');
  decidedBy(track(b, 99, 1), 'ENOENT', 'dirty-tracking.hwpt');
  decidedBy(track(b, plain, 1), 'EOPNOTSUPP', 'dirty-tracking.unsupported');
  decidedBy(track(b, hwpt, 1), '', 'dirty-tracking.ok');
  keep(b);
});

test('GET_DIRTY_BITMAP', () => {
  const { b, hwpt, plain } = setup();
  const rows: [string, string, Answer][] = [
    ['EOPNOTSUPP', 'dirty-bitmap.flags', bitmap(b, 99, 0, 0, [8, 2])],
    ['EOPNOTSUPP', 'dirty-bitmap.flags', bitmap(b, 99, 0, 0, [12, 1])],
    ['ENOENT', 'dirty-bitmap.hwpt', bitmap(b, 99, 0, 0)],
    ['EOVERFLOW', 'dirty-bitmap.overflow', bitmap(b, hwpt, 4096, 0)],
    ['EINVAL', 'dirty-bitmap.aligned', bitmap(b, hwpt, APERTURE + 1, 4096)],
    ['EINVAL', 'dirty-bitmap.page-size', bitmap(b, hwpt, APERTURE, 4096, [32, 0, 8])],
    ['EINVAL', 'dirty-bitmap.page-size', bitmap(b, hwpt, APERTURE, 4096, [32, 8192, 8])],
    ['EOPNOTSUPP', 'dirty-bitmap.unsupported', bitmap(b, plain, APERTURE, 4096)],
    ['', 'dirty-bitmap.ok', bitmap(b, hwpt, APERTURE, 4096)],
    ['', 'dirty-bitmap.ok', bitmap(b, hwpt, 0x200_0000, 4096)],
  ];
  for (const [errno, rule, answer] of rows) decidedBy(answer, errno, rule);
  assert.is(rows[8]?.[2].at(BITMAP)?.isZero(), true);
  keep(b);
});

test('the self-test sets bits that a read tells and cleans', () => {
  const { b, hwpt, plain, ioas } = setup();
  decidedBy(dirty(b, 99, 1, [48, 0, 8]), 'EINVAL', 'test-dirty.range');
  decidedBy(dirty(b, 99, 1, [32, 0x4001, 8]), 'EINVAL', 'test-dirty.range');
  decidedBy(dirty(b, 99, 1, [32, 2 ** 40, 8]), 'EOVERFLOW', 'test-dirty.size');
  decidedBy(dirty(b, 99, 1), 'ENOENT', 'test-dirty.hwpt');
  decidedBy(dirty(b, hwpt, 1), 'EINVAL', 'test-dirty.off');
  decidedBy(dirty(b, plain, 1), 'EINVAL', 'test-dirty.off');
  track(b, hwpt, 1);
  decidedBy(dirty(b, hwpt, null, [48, 0x7000_0000, 8]), 'EFAULT', 'test-dirty.fault');
  const told = dirty(b, hwpt, 0b101);
  decidedBy(told, '', 'test-dirty.ok');
  assert.is(told.u64(56), 2);
  const now = () => {
    const object = b.world.iommufds.first()?.objects.get(hwpt);
    return object?.type === 'hwpt-paging' ? [object.dirty.size, object.maybeDirty.size] : [];
  };
  assert.equal(now(), [2, 1]);
  // How large an entry is depends on physical memory: what was told clean is clean, the rest is taken over.
  bitmap(b, hwpt, APERTURE, 0x4000, [8, 1]);
  assert.equal(now(), [2, 0]);
  const again = bitmap(b, hwpt, APERTURE, 0x4000);
  assert.is(again.at(BITMAP)?.u8(0), 0b11);
  assert.equal(now(), [0, 0]);
  assert.is(bitmap(b, hwpt, APERTURE, 0x4000).at(BITMAP)?.u8(0), 0);
  dirty(b, hwpt, null);
  assert.equal(now(), [0, 1]);
  b.unmap(ioas, APERTURE, 0x4000);
  assert.equal(now(), [0, 0]);
  keep(b);
});

test('of a real domain nothing is known, and the mock operations refuse it', () => {
  const { b } = setup();
  const other = b.ioasAlloc();
  const tx = new Tx(b.world);
  const attached = attachDevice(tx, 1, bindDevice(tx, 1, 'nic', 0), other, 0);
  b.world = tx.commit();
  const real = 'ptId' in attached ? attached.ptId : 0;
  decidedBy(dirty(b, real, 1), 'EINVAL', 'test-dirty.owner');
  keep(b);
});

test('a domain with pages larger than those of the CPU fits no IOAS', () => {
  const traits = { owner: 'x', aperture: null, dirtyTracking: false, table: '', takesReadOnly: true };
  assert.is(smallestPage({ ...traits, pgsizes: 0x20_0000 }) > 4096, true);
  assert.is(smallestPage({ ...traits, pgsizes: 0x1f_ffff_f800 }), 2048);
  assert.is(smallestPage({ ...traits, pgsizes: 0 }), 4096);
  seen.add('domain.page-size');
});

test('every rule has a row', () => {
  allSeen(seen, [DIRTY_RULES, DIRTY_TEST_RULES, DOMAIN_RULES]);
});
