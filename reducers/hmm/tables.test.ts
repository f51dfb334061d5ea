import * as assert from 'uvu/assert';
import { suite } from '../../core/testing.js';
import { ev } from '../testing.js';
import { command, Lab, PAGE, READ, TO_DEV } from './testing.js';

const test = suite('hmm/tables');

const AT = 0x4000_0000;
const BLOCK = 2 << 20;
const BIG = 0x7f01_0000_0000;

/** Two blocks of memory that may be huge, of which something makes the first one's page table. */
function withTable(before: (lab: Lab) => unknown): Lab {
  const lab = new Lab();
  lab.feed(ev('mmap', { addr: AT, lengthBytes: 2 * BLOCK, flags: 0x32, ret: AT }));
  lab.feed(ev('mmap', { lengthBytes: 4 << 20, ret: BIG }));
  before(lab);
  return lab;
}

function dontNeed(lab: Lab, page: number, count: number): void {
  lab.feed(ev('madvise', { addr: AT + page * PAGE, lengthBytes: count * PAGE, advice: 4 }));
}

function unmap(lab: Lab, page: number, count: number): void {
  lab.feed(ev('munmap', { addr: AT + page * PAGE, lengthBytes: count * PAGE }));
}

function map(lab: Lab, page: number, count: number): void {
  const addr = AT + page * PAGE;
  lab.feed(ev('mmap', { addr, lengthBytes: count * PAGE, flags: 0x32, ret: addr }));
}

const ROWS: readonly [name: string, before: (lab: Lab) => unknown, kept: boolean][] = [
  ['nothing', () => undefined, false],
  ['DONTNEED in parts', (lab) => [lab.populate(AT, 512, true), dontNeed(lab, 0, 8), dontNeed(lab, 8, 504)], true],
  [
    'DONTNEED for all of the block, after a part',
    (lab) => [lab.populate(AT, 512, true), dontNeed(lab, 0, 8), dontNeed(lab, 0, 512)],
    false,
  ],
  ['DONTNEED for all of a huge page', (lab) => [lab.populate(AT, 512, true), dontNeed(lab, 0, 512)], false],
  [
    'munmap of all and a new mapping',
    (lab) => [lab.populate(AT, 512, true), dontNeed(lab, 0, 8), unmap(lab, 0, 1024), map(lab, 0, 1024)],
    false,
  ],
  [
    'munmap of a part, with something left in the block',
    (lab) => [lab.populate(AT, 512, true), dontNeed(lab, 8, 504), unmap(lab, 0, 8), map(lab, 0, 8)],
    true,
  ],
  [
    'munmap in two parts',
    (lab) => [lab.populate(AT, 512, true), unmap(lab, 0, 8), unmap(lab, 8, 1016), map(lab, 0, 1024)],
    false,
  ],
  ['a mapping over all of it', (lab) => [lab.populate(AT, 512, true), dontNeed(lab, 0, 8), map(lab, 0, 1024)], false],
  [
    'a move to a place that is not as far in its block',
    (lab) => {
      lab.populate(AT, 512, true);
      const moved = { oldLengthBytes: BLOCK, newLengthBytes: BLOCK, newAddr: 0x6000_1000, ret: 0x6000_1000 };
      lab.feed(ev('mremap', { addr: AT, ...moved, flags: 7 }));
    },
    true,
  ],
  [
    'a move to a place that is as far',
    (lab) => {
      lab.populate(AT, 512, true);
      dontNeed(lab, 0, 1);
      const moved = { oldLengthBytes: BLOCK, newLengthBytes: BLOCK, newAddr: 0x6000_0000, ret: 0x6000_0000 };
      lab.feed(ev('mremap', { addr: AT, ...moved, flags: 7 }));
    },
    false,
  ],
  [
    'guard pages that are gone',
    (lab) => {
      lab.feed(ev('madvise', { addr: AT + 8 * PAGE, advice: 102 }));
      lab.feed(ev('madvise', { addr: AT + 8 * PAGE, advice: 103 }));
    },
    true,
  ],
];

test('a block with an empty page table gets small pages, one without a huge one', () => {
  for (const [name, before, kept] of ROWS) {
    const lab = withTable(before);
    lab.populate(AT + 4 * PAGE, 1, true);
    assert.equal(lab.snapshot(0, AT + 3 * PAGE, 2), kept ? [0, 2] : [6, 6], name);
  }
});

test('a migration of such a block goes page by page', () => {
  for (const [name, before, kept] of ROWS) {
    const lab = withTable(before);
    lab.ask(0, TO_DEV, command(AT, 512, BIG));
    assert.equal(lab.snapshot(0, AT, 1), [kept ? 0x22 : 0x26], name);
  }
});

test('COLLAPSE makes a huge page of nothing where there is a page table, and the table goes', () => {
  const lab = withTable((of) => [of.populate(AT, 512, true), dontNeed(of, 0, 8), dontNeed(of, 8, 504)]);
  lab.feed(ev('madvise', { addr: AT, lengthBytes: BLOCK, advice: 25 }));
  assert.equal(lab.snapshot(0, AT, 1), [6]);
  dontNeed(lab, 0, 512);
  lab.populate(AT, 1, true);
  assert.equal(lab.snapshot(0, AT, 1), [6]);
});

test('one fault call over blocks with and without tables', () => {
  const lab = withTable((of) => [of.populate(AT, 512, true), dontNeed(of, 0, 8), dontNeed(of, 8, 504)]);
  lab.populate(AT, 1024, true);
  assert.equal([lab.snapshot(0, AT + 511 * PAGE, 2)].flat(), [2, 6]);
  const other = withTable((of) => [of.populate(AT + BLOCK, 512, true), dontNeed(of, 512, 8), dontNeed(of, 520, 504)]);
  other.ask(0, READ, command(AT, 1024, BIG));
  assert.equal([other.snapshot(0, AT + 511 * PAGE, 2)].flat(), [5, 0x11]);
});

test('a child has the tables of its parent', () => {
  const lab = withTable((of) => [of.populate(AT, 512, true), dontNeed(of, 0, 8), dontNeed(of, 8, 504)]);
  lab.feed(ev('fork', { ret: 77 }));
  const child = { tid: 77, pid: 77 };
  lab.feed(ev('open', { ...child, path: '/dev/hmm_dmirror0', ret: 3 }));
  lab.feed(ev('madvise', { ...child, addr: AT, lengthBytes: PAGE, advice: 23 }));
  assert.equal(lab.snapshot(0, AT, 2, child), [2, 0]);
});
