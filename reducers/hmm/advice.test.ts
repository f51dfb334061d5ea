import * as assert from 'uvu/assert';
import { suite } from '../../core/testing.js';
import { ev } from '../testing.js';
import { BUFFER, command, EXCLUSIVE, FLAGS, Lab, MEMORY, PAGE, READ, TO_DEV, WRITE } from './testing.js';

const test = suite('hmm/advice');

const AT = 0x4000_0000;
const BLOCK = 2 << 20;
const BIG = 0x7f01_0000_0000;
const DONTNEED = 4;
const FREE = 8;
const COLD = 20;
const PAGEOUT = 21;
const COLLAPSE = 25;
const GUARD = 102;

/** A lab with two blocks that were written to by the CPU, each one page. */
function withBlocks(): Lab {
  const lab = new Lab();
  lab.feed(ev('mmap', { addr: AT, lengthBytes: 2 * BLOCK, flags: 0x32, ret: AT }));
  lab.feed(ev('mmap', { lengthBytes: 4 << 20, ret: BIG }));
  lab.populate(AT, 1024, true);
  return lab;
}

function advise(lab: Lab, advice: number, addr: number, npages: number, errno = ''): void {
  const outcome = errno === '' ? {} : { ret: -1, errno };
  lab.feed(ev('madvise', { addr, lengthBytes: npages * PAGE, advice, ...outcome }));
}

/** The first pages of both blocks. */
function firsts(lab: Lab, minor = 0): number[] {
  return [lab.snapshot(minor, AT, 1), lab.snapshot(minor, AT + BLOCK, 1)].flat();
}

test('FREE, COLD and PAGEOUT split a huge page of which they get a part, and no other', () => {
  for (const advice of [FREE, COLD, PAGEOUT]) {
    const lab = withBlocks();
    advise(lab, advice, AT + PAGE, 2);
    assert.equal(firsts(lab), [0x11, 6], 'zeros give way to the page of zeros');
    advise(lab, advice, AT + BLOCK, 512);
    assert.is(lab.snapshot(0, AT + BLOCK, 1)[0], 6);
  }
});

test('a huge page that many entries map is split likewise, unless all of them are meant', () => {
  const lab = withBlocks();
  for (const at of [AT, AT + BLOCK]) {
    lab.ask(0, WRITE, command(at, 512, BIG));
    lab.feed(ev('mprotect', { addr: at, lengthBytes: PAGE, prot: 1 }));
    lab.feed(ev('mprotect', { addr: at, lengthBytes: PAGE, prot: 3 }));
    assert.is(lab.snapshot(0, at, 1)[0], 2);
  }
  advise(lab, FREE, AT, 512);
  lab.ask(1, READ, command(AT + BLOCK - PAGE, 1));
  lab.populate(AT, 1, true);
  assert.is(lab.ask(1, READ, command(AT + BLOCK - PAGE, 1)).faults, 0, 'nobody was told');
  advise(lab, COLD, AT + BLOCK, 511);
  assert.equal(lab.snapshot(0, AT + 2 * BLOCK - PAGE, 1), [0x11]);
});

test('a huge page that a child maps too is not split', () => {
  const lab = withBlocks();
  lab.feed(ev('fork', { ret: 77 }));
  advise(lab, FREE, AT, 1);
  assert.equal(firsts(lab), [5, 5]);
  lab.feed(ev('exit', { tid: 77, pid: 77 }));
  advise(lab, FREE, AT, 1);
  assert.equal(firsts(lab), [0x11, 5]);
});

test('mirrors hear of FREE, and of COLD only where a page is split', () => {
  const rows: readonly [advice: number, npages: number, told: number][] = [
    [FREE, 512, 1],
    [COLD, 512, 0],
    [COLD, 1, 1],
  ];
  for (const [advice, npages, told] of rows) {
    const lab = withBlocks();
    lab.ask(1, READ, command(AT, 1));
    advise(lab, advice, AT, npages);
    assert.is(lab.ask(1, READ, command(AT, 1)).faults, told);
  }
});

test('a mapping that does not allow the advice ends the call, and what came before is done', () => {
  const lab = new Lab();
  lab.populate(MEMORY, 4, true);
  lab.feed(ev('mlock', { addr: MEMORY + 2 * PAGE, lengthBytes: 2 * PAGE }));
  lab.feed(ev('mprotect', { addr: MEMORY + 2 * PAGE, lengthBytes: 2 * PAGE, prot: 1 }));
  advise(lab, DONTNEED, MEMORY + 1, 4, 'EINVAL');
  assert.equal(lab.snapshot(0, MEMORY, 4), [2, 2, 1, 1], 'a bad address: nothing is done');
  advise(lab, DONTNEED, MEMORY, 4, 'EINVAL');
  assert.equal(lab.snapshot(0, MEMORY, 4), [0, 0, 1, 1]);
});

test('COLLAPSE makes one huge page of what a block holds, and of nothing where it has no page table', () => {
  const small = (what: (lab: Lab) => unknown, expected: readonly number[], errno = ''): void => {
    const lab = new Lab();
    lab.feed(ev('mmap', { addr: AT, lengthBytes: 2 * BLOCK, flags: 0x32, ret: AT }));
    lab.feed(ev('mmap', { lengthBytes: 4 << 20, ret: BIG }));
    advise(lab, 15, AT, 1024);
    what(lab);
    advise(lab, 14, AT, 1024);
    advise(lab, COLLAPSE, AT, 1024, errno);
    assert.equal(firsts(lab), expected);
  };
  small((lab) => lab.populate(AT, 1024, true), [6, 6]);
  small((lab) => lab.populate(AT + 8 * PAGE, 1, true), [6, 0], 'EINVAL');
  small((lab) => lab.populate(AT + BLOCK, 512, false), [0, 0x11], 'EINVAL');
  small((lab) => [lab.populate(AT + BLOCK, 512, false), lab.populate(AT, 1, true)], [6, 6]);
  small(
    (lab) => {
      lab.populate(AT, 1024, true);
      lab.ask(0, TO_DEV, command(AT + 4 * PAGE, 4));
      lab.ask(0, EXCLUSIVE, command(AT + BLOCK + 4 * PAGE, 4));
    },
    [6, 6],
  );
  small(
    (lab) => {
      lab.populate(AT, 1024, true);
      lab.ask(2, TO_DEV, command(AT + 4 * PAGE, 4));
    },
    [2, 6],
    'EINVAL',
  );
  small(
    (lab) => {
      lab.populate(AT, 1024, true);
      lab.ask(0, TO_DEV, command(AT + 4 * PAGE, 4));
      lab.ask(0, FLAGS, command(AT, 1));
    },
    [2, 2],
    'EINVAL',
  );
});

test('COLLAPSE tells mirrors of the block; memory that wants no huge pages ends it', () => {
  const lab = new Lab();
  lab.feed(ev('mmap', { addr: AT, lengthBytes: BLOCK, flags: 0x32, ret: AT }));
  advise(lab, 15, AT, 512);
  lab.populate(AT, 512, true);
  lab.ask(1, READ, command(AT + PAGE, 1));
  advise(lab, COLLAPSE, AT, 512, 'EINVAL');
  assert.is(lab.ask(1, READ, command(AT + PAGE, 1)).faults, 0);
  advise(lab, 14, AT, 512);
  advise(lab, COLLAPSE, AT, 512);
  assert.is(lab.ask(1, READ, command(AT + PAGE, 1)).faults, 1);
});

test('guard pages let nothing through, cut no mapping, and do not migrate', () => {
  const lab = withBlocks();
  advise(lab, 15, AT, 1024);
  advise(lab, GUARD, AT + 2 * PAGE, 2);
  assert.equal(lab.snapshot(0, AT, 6), [2, 2, 0, 0, 2, 2]);
  assert.is(lab.ask(0, READ, command(AT, 6), 'EFAULT').verdict, 'match');
  assert.is(lab.ask(0, EXCLUSIVE, command(AT, 6), 'EFAULT').verdict, 'match');
  lab.populate(AT, 6, true);
  assert.equal(lab.snapshot(0, AT, 6), [2, 2, 0, 0, 2, 2]);
  assert.is(lab.ask(0, TO_DEV, command(AT, 6), 'ENOENT').verdict, 'match');
  assert.equal(lab.snapshot(0, AT, 6), [0x22, 0x22, 0, 0, 0x22, 0x22]);
  advise(lab, 103, AT, 6);
  assert.is(lab.ask(0, TO_DEV, command(AT, 6)).verdict, 'match');
  advise(lab, GUARD, AT + 2 * PAGE, 2);
  lab.feed(ev('mprotect', { addr: AT, lengthBytes: BLOCK, prot: 1 }));
  assert.is(lab.ask(1, WRITE, command(AT + PAGE, 2), 'EPERM').verdict, 'match');
  assert.is(
    lab.ask(1, WRITE, command(AT + 2 * PAGE, 2), 'EFAULT').verdict,
    'match',
    'a guard page is no question of rights',
  );
});

test('a block with guard pages has no huge page, and is not taken as a whole', () => {
  const lab = withBlocks();
  advise(lab, DONTNEED, AT, 1024);
  advise(lab, GUARD, AT + 2 * PAGE, 2);
  lab.populate(AT, 1, true);
  assert.equal(lab.snapshot(0, AT, 2), [2, 0]);
  advise(lab, GUARD, AT + BLOCK, 1);
  assert.is(lab.ask(0, TO_DEV, command(AT + BLOCK, 512, BIG), 'ENOENT').verdict, 'match');
  assert.equal(lab.snapshot(0, AT + BLOCK, 2), [0, 0x22]);
});

test('mlock touches its pages, to write where the memory is private and writable', () => {
  const lab = new Lab();
  const lock = (call: string, page: number, flags = 0): unknown =>
    lab.feed(ev('mlock', { call, addr: MEMORY + page * PAGE + 8, lengthBytes: 8, flags }));
  lab.feed(ev('mprotect', { addr: MEMORY + PAGE, lengthBytes: PAGE, prot: 1 }));
  lock('mlock', 0);
  lock('mlock', 1);
  lock('mlock2', 2, 1);
  lock('mlock2', 3);
  lab.populate(BUFFER, 1, true);
  assert.equal(lab.snapshot(0, MEMORY, 5), [2, 0x11, 0, 2, 0]);
});

test('mlock and munlock cut a mapping', () => {
  for (const call of ['mlock', 'munlock']) {
    const lab = withBlocks();
    if (call === 'munlock') lab.feed(ev('mlock', { addr: AT, lengthBytes: 2 * BLOCK }));
    lab.ask(1, READ, command(AT + 8 * PAGE, 1));
    lab.feed(ev('mlock', { call, addr: AT, lengthBytes: PAGE }));
    assert.is(lab.ask(1, READ, command(AT + 8 * PAGE, 1)).faults, 1, call);
    lab.feed(ev('mlock', { call, addr: AT, lengthBytes: PAGE }));
    assert.is(lab.ask(1, READ, command(AT + 8 * PAGE, 1)).faults, 0, 'nothing changes');
  }
});

test('a block of which a part is locked lies in several mappings: what is cut there tells nothing of the rest', () => {
  const lab = withBlocks();
  lab.feed(ev('mlock', { addr: AT, lengthBytes: PAGE }));
  lab.ask(1, READ, command(AT + 8 * PAGE, 1));
  lab.feed(ev('mprotect', { addr: AT + 64 * PAGE, lengthBytes: PAGE, prot: 1 }));
  assert.is(lab.ask(1, READ, command(AT + 8 * PAGE, 1)).faults, 0);
});
