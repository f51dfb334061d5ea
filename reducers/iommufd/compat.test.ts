import * as assert from 'uvu/assert';
import { suite } from '../../core/testing.js';
import { U64_MAX } from '../../core/u64.js';
import { COMPAT_RULES } from './compat.js';
import { type Answer, allSeen, Bench, decidedBy, type Field, struct } from './testing.js';

const test = suite('iommufd compat');
const seen = new Set<string>();
const BUFFER = 0x1000_0000;
const APERTURE = 0x100_0000;
const TYPE1 = 1;

function bench(): { b: Bench; ioas: number } {
  const b = new Bench();
  b.open();
  b.mmap(BUFFER, 0x10000);
  const ioas = b.ioasAlloc();
  b.ioctl(3, 0x3b88, struct(12, [4, ioas], [8, 1, 2]));
  return { b, ioas };
}

function keep(b: Bench): void {
  for (const id of b.seen) seen.add(id);
}

function mapDma(b: Bench, iova: number | bigint, size: number | bigint, flags = 3, ...more: Field[]): Answer {
  return b.ioctl(3, 0x3b71, struct(32, [4, flags], [8, BUFFER, 8], [16, iova, 8], [24, size, 8], ...more));
}

function unmapDma(b: Bench, iova: number | bigint, size: number | bigint, flags = 0, ...more: Field[]): Answer {
  return b.ioctl(3, 0x3b72, struct(24, [4, flags], [8, iova, 8], [16, size, 8], ...more));
}

function plain(b: Bench, request: number, arg = 0): Answer {
  return b.ioctl(3, request, null, { arg });
}

test('without a compatibility IOAS', () => {
  const b = new Bench();
  b.open();
  decidedBy(plain(b, 0x3b64), '', 'compat.version');
  decidedBy(plain(b, 0x3b75), 'ENOTTY', 'compat.number');
  decidedBy(plain(b, 0x3b66, 2), 'EINVAL', 'compat-set-iommu.type');
  decidedBy(plain(b, 0x3b66, TYPE1), 'ENODEV', 'compat.no-ioas');
  decidedBy(plain(b, 0x3b65, 4), 'ENODEV', 'compat.no-ioas');
  decidedBy(mapDma(b, 0, 0, 4), 'EINVAL', 'compat-map.argsz');
  decidedBy(mapDma(b, 0, 0), 'ENODEV', 'compat.no-ioas');
  decidedBy(b.ioctl(3, 0x3b71, null, { arg: 0 }), 'EFAULT', 'common.fault');
  decidedBy(b.ioctl(3, 0x3b71, struct(4, [0, 1])), 'EINVAL', 'compat-map.argsz');
  keep(b);
});

test('extensions', () => {
  const { b, ioas } = bench();
  const extension = (type: number): unknown => plain(b, 0x3b65, type).ret;
  assert.equal([1, 3, 9, 6, 10, 0, 4].map(extension), [1, 1, 1, 0, 0, 0, 1]);
  b.mockDomain(ioas);
  assert.is(extension(4), 0);
  assert.is(plain(b, 0x3b65, 8).verdict, 'learned');
  assert.is(plain(b, 0x3b65, 8).verdict, 'match');
  keep(b);
});

test('MAP and UNMAP', () => {
  const { b, ioas } = bench();
  const rows: [string, string, Answer][] = [
    ['', 'map.ok', mapDma(b, 0x4000, 0x4000, 0)],
    ['EEXIST', 'iova.exists', mapDma(b, 0x4000, 0x1000)],
    ['EINVAL', 'compat-unmap.argsz', unmapDma(b, 0, 0, 1)],
    ['EINVAL', 'compat-unmap.argsz', unmapDma(b, 0, 0, 0, [0, 23])],
    ['EINVAL', 'compat-unmap.all', unmapDma(b, 0x4000, 0x1000, 2)],
    ['EINVAL', 'unmap.length', unmapDma(b, 0x4000, 0)],
    ['EOVERFLOW', 'unmap.overflow', unmapDma(b, 0x4000, U64_MAX)],
    ['ENOENT', 'unmap.part', unmapDma(b, 0x4000, 0x1000)],
    ['', 'compat-unmap.nothing', unmapDma(b, 0x1_0000, 0x1000)],
  ];
  for (const [errno, rule, answer] of rows) decidedBy(answer, errno, rule);
  assert.equal(
    rows.slice(5).map(([, , answer]) => answer.u64(16)),
    [0, 0, 0, 0],
  );
  const all = unmapDma(b, 0, 0, 2);
  decidedBy(all, '', 'compat-unmap.ok');
  assert.is(all.u64(16), 0x4000);
  assert.is(b.world.ioases.first()?.objectId, ioas);
  keep(b);
});

test('TYPE1 may cut areas', () => {
  const { b, ioas } = bench();
  mapDma(b, 0x10_0000, 0x1000);
  decidedBy(plain(b, 0x3b66, TYPE1), '', 'compat-set-iommu.ok');
  mapDma(b, 0x4000, 0x4000);
  decidedBy(unmapDma(b, 0x4800, 0x800), 'EINVAL', 'compat-unmap.cut-alignment');
  const middle = unmapDma(b, 0x5000, 0x2000);
  decidedBy(middle, '', 'compat-unmap.ok');
  assert.is(middle.u64(16), 0x2000);
  const left = [...(b.world.ioases.first()?.areas.values() ?? [])].map(({ start, last, startByte }) => [
    start,
    last,
    startByte,
  ]);
  assert.equal(left.slice(0, 2), [
    [0x4000, 0x4fff, 0],
    [0x7000, 0x7fff, 0x3000],
  ]);
  mapDma(b, 0x2_0000, 0x4000);
  const fd = b.test(5, ioas, [20, 1]).u32(16);
  b.test(7, fd, [24, 0x2_0000, 8], [32, 0x1000, 8]);
  decidedBy(unmapDma(b, 0x2_1000, 0x1000), 'EINVAL', 'compat-unmap.cut-access');
  const dmabuf = b.test(22, 0, [16, 0x2000]).ret as number;
  b.ioctl(3, 0x3b8f, struct(40, [4, 7], [8, ioas], [12, dmabuf], [24, 0x2000, 8], [32, 0x4_0000, 8]));
  decidedBy(unmapDma(b, 0x4_0000, 0x1000), 'EOPNOTSUPP', 'compat-unmap.cut-dma-buf');
  keep(b);
});

function getInfo(b: Bench, argsz: number): Answer {
  return b.ioctl(3, 0x3b70, struct(Math.max(argsz, 16), [0, argsz]));
}

test('GET_INFO writes what fits', () => {
  const { b, ioas } = bench();
  decidedBy(getInfo(b, 15), 'EINVAL', 'compat-info.argsz');
  b.mockDomain(ioas);
  const small = getInfo(b, 16);
  decidedBy(small, '', 'compat-info.ok');
  assert.equal([small.u32(0), small.u32(4), small.u64(8)], [72, 3, 0x1f_ffff_f000]);
  const caps = getInfo(b, 40);
  assert.equal([caps.u32(16), caps.u32(24), caps.u32(28), caps.u32(32)], [0, 0x1_0003, 40, 0xffff_ffff]);
  const whole = getInfo(b, 72);
  assert.equal([whole.u32(16), whole.u32(40), whole.u32(48), whole.u64(56)], [24, 0x1_0001, 1, APERTURE]);
  keep(b);
});

test('every rule has a row', () => {
  allSeen(seen, [COMPAT_RULES]);
});
