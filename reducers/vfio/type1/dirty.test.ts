import { fc } from '../../../core/property.js';
import * as assert from 'uvu/assert';
import { Bytes } from '../../../core/bytes.js';
import { suite } from '../../../core/testing.js';
import { ev } from '../../testing.js';
import { checkRows, DATA, type FieldAt, Lab, MDEV, MEMORY, PCI_DEVICE, type Row, struct, text } from '../testing.js';
import {
  DIRTY_GET_BITMAP,
  DIRTY_START,
  DIRTY_STOP,
  GROUP_GET_DEVICE_FD,
  GROUP_SET_CONTAINER,
  GROUP_UNSET_CONTAINER,
  IOMMU_DIRTY_PAGES,
} from '../uapi.js';
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
    rule: R.fault,
    errno: 'EFAULT',
    run(lab, errno) {
      tracking(lab).good(lab.map(0, 0x1000));
      return get(lab, errno, [40, 0x5000, 8]);
    },
  },
  {
    rule: R.fault,
    errno: 'EFAULT',
    run(lab, errno) {
      tracking(lab).good(lab.map(0x1000, 0x1000));
      lab.feed(ev('mprotect', { addr: MEMORY, lengthBytes: 0x1000, prot: 1 }));
      return get(lab, errno, [16, 0x2000, 8], [40, MEMORY, 8]);
    },
  },
  {
    rule: R.cuts,
    errno: 'EINVAL',
    run(lab, errno) {
      tracking(lab).good(lab.map(0, 0x2000));
      return get(lab, errno);
    },
  },
];

test('each rejection has its errno, in the kernel order', () => checkRows(R, rows));

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

test('a bitmap that nothing is written to may lie anywhere', () => {
  const lab = tracking(new Lab());
  lab.good(get(lab, '', [40, 0x5000, 8]));
});

const whole = rangeStruct([16, 0x1_0000, 8]);

/** GET_BITMAP of the first 16 pages; `before` is in the caller's memory. */
function reads(lab: Lab, bits: number, before = 0): string {
  const data = { in: struct(8, [0, before]), out: struct(8, [0, bits]) };
  return lab.ioctl(3, IOMMU_DIRTY_PAGES, { in: whole, data }).verdict;
}

test('nothing is dirty where only sample devices are, which pin nothing', () => {
  const lab = new Lab().device(MDEV);
  lab.setDriver(MDEV, 'mtty');
  lab.good(simple(lab, DIRTY_START));
  lab.good(lab.map(0x1000, 0x2000));
  assert.is(reads(lab, 0), 'match');
  assert.is(reads(lab, 2), 'diverge');
  lab.setDriver(MDEV, 'mdev');
  assert.is(reads(lab, 2), 'unknown');
});

test('all is dirty once when the last group with an IOMMU leaves, then what mediated devices say', () => {
  const lab = new Lab().device(MDEV);
  lab.setDriver(MDEV, 'mtty');
  lab.open('/dev/vfio/9', 6);
  lab.good(lab.ioctl(6, GROUP_SET_CONTAINER, { in: struct(4, [0, 3]) }));
  lab.good(lab.ioctl(6, GROUP_GET_DEVICE_FD, { in: text(PCI_DEVICE), ret: 7 }));
  lab.good(lab.map(0, 0x2000));
  lab.good(simple(lab, DIRTY_START));
  assert.is(reads(lab, 3), 'match');
  lab.close(7);
  lab.good(lab.ioctl(6, GROUP_UNSET_CONTAINER));
  assert.is(reads(lab, 3), 'match');
  assert.is(reads(lab, 0), 'match');
});

/** The kernel's bitmaps, bit by bit: `update_user_bitmap` with what it calls. */
class Simulated {
  readonly #bits: number[];
  readonly #start: number;
  readonly #pages: number;

  constructor(start: number, pages: number) {
    this.#start = start;
    this.#pages = pages;
    this.#bits = new Array<number>((Math.ceil(pages / 64) + 1) * 64).fill(0);
  }

  report(user: number[], base: number): void {
    const offset = this.#start - base;
    const word = Math.floor(offset / 64) * 64;
    const shift = offset % 64;
    const bits = this.#bits;
    bits.fill(1, 0, this.#pages);
    const moved = Math.ceil((this.#pages + shift) / 64) * 64;
    if (shift > 0) {
      for (let i = moved - 1; i >= 0; i--) bits[i] = i < shift ? 0 : (bits[i - shift] as number);
      for (let i = 0; i < 64; i++) bits[i] = (bits[i] as number) | (user[word + i] as number);
    }
    for (let i = 0; i < moved; i++) user[word + i] = bits[i] as number;
    bits.fill(0, 0, this.#pages);
  }
}

function packed(bits: readonly number[]): Bytes {
  const bytes = new Uint8Array(bits.length / 8);
  for (const [i, bit] of bits.entries()) bytes[i >> 3] = (bytes[i >> 3] as number) | (bit << (i & 7));
  return new Bytes(bytes);
}

test('repeated reports from different places are those of the kernel, bit by bit', () => {
  const gap = fc.integer({ min: 0, max: 70 });
  const length = fc.oneof(fc.integer({ min: 1, max: 8 }), fc.integer({ min: 1, max: 200 }));
  const word = fc.bigInt({ min: 0n, max: (1n << 64n) - 1n });
  const scene = fc.record({
    mappings: fc.array(fc.tuple(gap, length), { minLength: 1, maxLength: 4 }),
    asks: fc.array(fc.record({ from: fc.nat(3), before: gap, word }), { minLength: 1, maxLength: 6 }),
  });
  fc.assert(
    fc.property(scene, ({ mappings, asks }) => {
      const lab = tracking(new Lab());
      const simulated: { start: number; last: number; bits: Simulated }[] = [];
      let page = 80;
      for (const [skipped, pages] of mappings) {
        page += skipped;
        lab.good(lab.map(page * 4096, pages * 4096));
        simulated.push({ start: page, last: page + pages - 1, bits: new Simulated(page, pages) });
        page += pages;
      }
      for (const { from, before, word: first } of asks) {
        const inside = simulated.slice(Math.min(from, simulated.length - 1));
        const lowest = inside[0]?.start ?? 0;
        const under = simulated.findLast(({ last }) => last < lowest)?.last ?? -1;
        const base = Math.max(lowest - before, under + 1);
        const pages = (inside[inside.length - 1]?.last ?? 0) - base + 1;
        const user = new Array<number>(Math.ceil(pages / 64) * 64).fill(0);
        for (let i = 0; i < 64; i++) user[i] = Number((first >> BigInt(i)) & 1n);
        const data = { in: packed(user), out: Bytes.EMPTY };
        for (const { bits } of inside) bits.report(user, base);
        const range: FieldAt[] = [
          [8, base * 4096, 8],
          [16, pages * 4096, 8],
          [32, user.length / 8, 8],
        ];
        const ask = { in: rangeStruct(...range), data: { ...data, out: packed(user) } };
        const answer = lab.ioctl(3, IOMMU_DIRTY_PAGES, ask);
        assert.is(answer.verdict, 'match', answer.explanation);
      }
    }),
  );
});

test('STOP ends tracking, and START can begin it twice', () => {
  const lab = tracking(new Lab());
  lab.good(simple(lab, DIRTY_START));
  lab.good(simple(lab, DIRTY_STOP));
  lab.good(get(lab, 'EINVAL'));
});
