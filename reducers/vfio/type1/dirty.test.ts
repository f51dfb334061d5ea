import * as assert from 'uvu/assert';
import { suite } from '../../../core/testing.js';
import { checkRows, DATA, type FieldAt, Lab, MDEV, type Row, struct } from '../testing.js';
import { DIRTY_GET_BITMAP, DIRTY_START, DIRTY_STOP, IOMMU_DIRTY_PAGES } from '../uapi.js';
import { DIRTY_RULES as R } from './dirty.js';

const test = suite('type1 dirty pages');

const TOP = 0xffff_ffff_ffff_f000n;

function simple(lab: Lab, flags: number, errno = '') {
  return lab.ioctl(3, IOMMU_DIRTY_PAGES, { in: struct(8, [4, flags]), errno });
}

function rangeStruct(...fields: readonly FieldAt[]) {
  return struct(48, [4, DIRTY_GET_BITMAP], [16, 0x1000, 8], [24, 4096, 8], [32, 8, 8], [40, DATA, 8], ...fields);
}

function get(lab: Lab, errno: string, ...fields: readonly FieldAt[]) {
  return lab.ioctl(3, IOMMU_DIRTY_PAGES, { in: rangeStruct(...fields), errno });
}

function tracking(lab: Lab): Lab {
  lab.container().good(simple(lab, DIRTY_START));
  return lab;
}

function onTracking(errno: string, rule: Row['rule'], ...fields: readonly FieldAt[]): Row {
  return { rule, errno, run: (lab, e) => get(tracking(lab), e, ...fields) };
}

const rows: readonly Row[] = [
  { rule: R.v1, errno: 'EACCES', run: (l, e) => simple(l.container(1), 0, e) },
  {
    rule: R.argsz,
    errno: 'EINVAL',
    run: (l, e) => l.container().ioctl(3, IOMMU_DIRTY_PAGES, { in: struct(8, [0, 7], [4, 1]), errno: e }),
  },
  { rule: R.flags, errno: 'EINVAL', run: (l, e) => simple(l.container(), 0, e) },
  { rule: R.flags, errno: 'EINVAL', run: (l, e) => simple(l.container(), DIRTY_START | DIRTY_STOP, e) },
  { rule: R.flags, errno: 'EINVAL', run: (l, e) => simple(l.container(), 8, e) },
  {
    rule: R.startHuge,
    errno: 'EINVAL',
    run(lab, errno) {
      lab.device(MDEV).good(lab.map(0, 1n << 43n));
      return simple(lab, DIRTY_START, errno);
    },
  },
  onTracking('EINVAL', R.rangeArgsz, [0, 47]),
  onTracking('EINVAL', R.sizeZero, [16, 0, 8]),
  onTracking('EOVERFLOW', R.overflow, [8, TOP, 8], [16, 0x2000, 8]),
  onTracking('EINVAL', R.bitmapSize, [32, 1 << 29, 8]),
  onTracking('EINVAL', R.bitmapSize, [16, 0x800, 8]),
  onTracking('EINVAL', R.pageSize, [24, 2048, 8]),
  onTracking('EINVAL', R.aligned, [8, 0x800, 8]),
  { rule: R.off, errno: 'EINVAL', run: (l, e) => get(l.container(), e) },
  {
    rule: R.cuts,
    errno: 'EINVAL',
    run(lab, errno) {
      tracking(lab).good(lab.map(0, 0x2000));
      return get(lab, errno);
    },
  },
];

test('each rejection has its errno, in the kernel order', () => checkRows(R, rows, true));

test('a bitmap has the pages of each mapping; neighbours in one word are joined', () => {
  const lab = tracking(new Lab());
  lab.good(lab.map(0x1000, 0x2000));
  lab.good(lab.map(0x5000, 0x1000));
  const ask = rangeStruct([16, 0x1_0000, 8]);
  const answer = (bits: number) =>
    lab.ioctl(3, IOMMU_DIRTY_PAGES, { in: ask, data: { in: struct(8, [0, 0]), out: struct(8, [0, bits]) } });
  assert.is(answer(0b10_0110).verdict, 'match');
  assert.is(answer(0b10_0111).verdict, 'diverge');
});

test('STOP ends tracking, and START can begin it twice', () => {
  const lab = tracking(new Lab());
  lab.good(simple(lab, DIRTY_START));
  lab.good(simple(lab, DIRTY_STOP));
  lab.good(get(lab, 'EINVAL'));
});
