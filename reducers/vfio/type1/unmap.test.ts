import * as assert from 'uvu/assert';
import type { Bytes } from '../../../core/bytes.js';
import { suite } from '../../../core/testing.js';
import { U64_MAX } from '../../../core/u64.js';
import { pinsOver } from '../../memory/pins.js';
import { checkRows, DATA, type FieldAt, Lab, MDEV, MEMORY, type Row, struct } from '../testing.js';
import {
  GROUP_SET_CONTAINER,
  IOMMU_DIRTY_PAGES,
  IOMMU_UNMAP_DMA,
  SET_IOMMU,
  UNMAP_ALL,
  UNMAP_GET_DIRTY_BITMAP,
  UNMAP_VADDR,
} from '../uapi.js';
import { UNMAP_RULES as R } from './unmap.js';

const test = suite('type1 unmap');

const TOP = 0xffff_ffff_ffff_f000n;

function unmap(lab: Lab, errno: string, ...fields: readonly FieldAt[]) {
  return lab.ioctl(3, IOMMU_UNMAP_DMA, { in: struct(24, ...fields), errno });
}

function withBitmap(lab: Lab, errno: string, ...fields: readonly FieldAt[]) {
  const all: FieldAt[] = [
    [4, UNMAP_GET_DIRTY_BITMAP],
    [16, 0x1000, 8],
    [24, 4096, 8],
    [32, 8, 8],
    [40, DATA, 8],
    ...fields,
  ];
  return lab.ioctl(3, IOMMU_UNMAP_DMA, { in: struct(48, ...all), errno });
}

function fresh(errno: string, rule: Row['rule'], ...fields: readonly FieldAt[]): Row {
  return { rule, errno, run: (lab, e) => unmap(lab.container(), e, ...fields) };
}

const rows: readonly Row[] = [
  fresh('EINVAL', R.argsz, [0, 23]),
  fresh('EINVAL', R.flags, [4, 8], [16, 0x1000, 8]),
  { rule: R.flagsTogether, errno: 'EINVAL', run: (l, e) => withBitmap(l.container(), e, [4, 1 | UNMAP_ALL]) },
  { rule: R.bitmapArgsz, errno: 'EINVAL', run: (l, e) => withBitmap(l.container(), e, [0, 47]) },
  { rule: R.bitmapSize, errno: 'EINVAL', run: (l, e) => withBitmap(l.container(), e, [32, 0, 8]) },
  { rule: R.bitmapSize, errno: 'EINVAL', run: (l, e) => withBitmap(l.container(), e, [16, 65 << 12, 8]) },
  { rule: R.bitmapSize, errno: 'EINVAL', run: (l, e) => withBitmap(l.container(), e, [40, TOP, 8]) },
  { rule: R.mediated, errno: 'EBUSY', run: (l, e) => unmap(l.device(MDEV), e, [4, UNMAP_VADDR], [8, 1, 8]) },
  fresh('EINVAL', R.iovaAligned, [8, 0x800, 8], [16, 0x1000, 8]),
  fresh('EINVAL', R.allNotZero, [4, UNMAP_ALL], [16, 0x1000, 8]),
  fresh('EINVAL', R.size),
  fresh('EINVAL', R.size, [16, 0x1001, 8]),
  fresh('EOVERFLOW', R.overflow, [8, TOP, 8], [16, 0x2000, 8]),
  { rule: R.notTracking, errno: 'EINVAL', run: (l, e) => withBitmap(l.container(), e) },
  {
    rule: R.notTracking,
    errno: 'EINVAL',
    run(lab, errno) {
      lab.container().good(lab.ioctl(3, IOMMU_DIRTY_PAGES, { in: struct(8, [4, 1]) }));
      return withBitmap(lab, errno, [24, 8192, 8], [16, 0x2000, 8]);
    },
  },
  {
    rule: R.cutsFirst,
    errno: 'EINVAL',
    run(lab, errno) {
      lab.container().good(lab.map(0, 0x2000));
      return unmap(lab, errno, [8, 0x1000, 8], [16, 0x1000, 8]);
    },
  },
  {
    rule: R.cutsLast,
    errno: 'EINVAL',
    run(lab, errno) {
      lab.container().good(lab.map(0, 0x2000));
      return unmap(lab, errno, [16, 0x1000, 8]);
    },
  },
  {
    rule: R.bitmapFault,
    errno: 'EFAULT',
    run(lab, errno) {
      lab.container().good(lab.ioctl(3, IOMMU_DIRTY_PAGES, { in: struct(8, [4, 1]) }));
      lab.good(lab.map(0, 0x1000));
      return withBitmap(lab, errno, [40, 0x5000, 8]);
    },
  },
  { rule: R.nothing, errno: '', run: (l) => l.container().unmap(0, 0x1000, 0) },
  {
    rule: R.inside,
    errno: '',
    run(lab) {
      lab.container(1).good(lab.map(0, 0x2000));
      return lab.unmap(0x1000, 0x1000, 0);
    },
  },
  {
    rule: R.more,
    errno: '',
    run(lab) {
      lab.container(1).good(lab.map(0, 0x2000));
      return lab.unmap(0, 0x1000, 0x2000);
    },
  },
  {
    rule: R.vaddrTwice,
    errno: 'EINVAL',
    run(lab, errno) {
      lab.container().good(lab.map(0, 0x2000));
      const all: FieldAt = [4, UNMAP_ALL | UNMAP_VADDR];
      lab.good(lab.ioctl(3, IOMMU_UNMAP_DMA, { in: struct(24, all), out: struct(24, all, [16, 0x2000, 8]) }));
      return unmap(lab, errno, all);
    },
  },
];

test('each rejection has its errno, in the kernel order', () => checkRows(R, rows));

test('v2: a range may hold several mappings, or none; the size that comes back is what went', () => {
  const lab = new Lab().container();
  lab.good(lab.map(0x1000, 0x1000));
  lab.good(lab.map(0x8000, 0x3000, [[8, MEMORY + 0x1000, 8]]));
  lab.good(lab.unmap(0, 0x10_0000, 0x4000));
  lab.good(lab.unmap(0, 0x10_0000, 0));
  assert.is(lab.unmap(0, 0x10_0000, 0x1000).verdict, 'diverge');
});

test('v1: inside a mapping nothing goes, from its beginning all of it', () => {
  const lab = new Lab().container(1);
  lab.good(lab.map(0x1000, 0x4000));
  lab.good(lab.unmap(0x2000, 0x1000, 0));
  lab.good(lab.unmap(0, 0x2000, 0x4000));
  lab.good(lab.unmap(0, 0x2000, 0));
});

test('ALL takes everything, up to 2^64', () => {
  const lab = new Lab().device(MDEV);
  lab.good(lab.map(0, 0x1000));
  lab.good(lab.map(TOP, 0x1000));
  const all: FieldAt = [4, UNMAP_ALL];
  lab.good(lab.ioctl(3, IOMMU_UNMAP_DMA, { in: struct(24, all), out: struct(24, all, [16, 0x2000, 8]) }));
});

test('the memory behind a mapping is in the index of pinned memory until it is unmapped', () => {
  const lab = new Lab().container();
  const pins = () => [...lab.world.spaces.values()].reduce((n, space) => n + pinsOver(space, 0, U64_MAX, 9).length, 0);
  lab.good(lab.map(0, 0x2000));
  lab.good(lab.map(0x10_0000, 0x2000));
  assert.is(pins(), 2);
  lab.good(lab.unmap(0, 0x2000));
  assert.is(pins(), 1);
  lab.close(4);
  assert.is(pins(), 0);
});

test('with GET_DIRTY_BITMAP every page behind a real IOMMU is dirty', () => {
  const lab = new Lab().container();
  lab.good(lab.ioctl(3, IOMMU_DIRTY_PAGES, { in: struct(8, [4, 1]) }));
  lab.good(lab.map(0, 0x3000));
  const ask = struct(48, [4, UNMAP_GET_DIRTY_BITMAP], [16, 0x3000, 8], [24, 4096, 8], [32, 8, 8], [40, DATA, 8]);
  const data = { in: word(0n), out: word(7n) };
  assert.is(lab.ioctl(3, IOMMU_UNMAP_DMA, { in: ask, data: { in: word(0n), out: word(3n) } }).verdict, 'diverge');
  lab.good(lab.map(0, 0x3000));
  lab.good(lab.ioctl(3, IOMMU_UNMAP_DMA, { in: ask, data }));
});

function word(value: bigint): Bytes {
  return struct(8, [0, value, 8]);
}

test('EBUSY of a container whose groups are not known shows that a device is mediated, maybe', () => {
  const lab = new Lab();
  lab.open('/dev/vfio/vfio', 3);
  lab.open('/dev/vfio/7', 4);
  lab.open('/dev/vfio/vfio', 5);
  lab.ioctl(4, GROUP_SET_CONTAINER, {});
  lab.ioctl(3, SET_IOMMU, { arg: 3 });
  lab.map(0, 0x2000);
  assert.is(unmap(lab, 'EBUSY', [4, UNMAP_VADDR], [16, 0x1000, 8]).verdict, 'unknown');
});
