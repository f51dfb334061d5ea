import * as assert from 'uvu/assert';
import { suite } from '../../core/testing.js';
import { ev } from '../testing.js';
import { BUFFER, command, EXCLUSIVE, FLAGS, Lab, MEMORY, PAGE, READ, TO_DEV, TO_SYS, WRITE } from './testing.js';

const test = suite('hmm/fork');

const CHILD = { tid: 50, pid: 50 };
const OTHER = { tid: 51, pid: 51 };
const TWO = command(MEMORY, 2);
/** Where the child has device 0 and 1 open by itself. */
const OWN = 7;

/** A lab whose process has written to its first pages, and has a child with a mirror of its own. */
function forked(): Lab {
  const lab = new Lab();
  lab.populate(MEMORY, 4, true);
  lab.feed(ev('fork', { ret: CHILD.pid }));
  lab.feed(ev('open', { ...CHILD, path: '/dev/hmm_dmirror0', ret: OWN }));
  lab.feed(ev('open', { ...CHILD, path: '/dev/hmm_dmirror1', ret: OWN + 1 }));
  return lab;
}

function childSees(lab: Lab, npages: number, minor = 0): readonly number[] {
  return lab.snapshot(0, MEMORY, npages, { ...CHILD, fd: OWN + minor });
}

function childPopulates(lab: Lab, npages: number, write: boolean): void {
  lab.feed(ev('madvise', { ...CHILD, addr: MEMORY, lengthBytes: npages * PAGE, advice: write ? 23 : 22 }));
}

test('what one takes to device memory is there for all who share it', () => {
  const lab = forked();
  assert.is(lab.ask(0, TO_DEV, TWO).cpages, 2);
  assert.equal(lab.snapshot(0, MEMORY, 3), [0x21, 0x21, 1]);
  assert.equal(childSees(lab, 3), [0x21, 0x21, 1], 'in memory of the same device');
  assert.equal(childSees(lab, 3, 1), [0, 0, 1]);
  assert.is(lab.ask(0, TO_SYS, TWO, '', { ...CHILD, fd: OWN }).cpages, 2, 'the child may bring it back');
  assert.equal(lab.snapshot(0, MEMORY, 2), [1, 1]);
});

test('a fault of one brings it back for all; the first write copies for one', () => {
  const lab = forked();
  lab.ask(0, TO_DEV, TWO);
  childPopulates(lab, 1, false);
  assert.equal(lab.snapshot(0, MEMORY, 2), [1, 0x21]);
  assert.is(lab.ask(0, READ, command(MEMORY, 1)).faults, 1, 'the mirror that took it has forgotten it');
  childPopulates(lab, 2, true);
  assert.equal(childSees(lab, 2), [2, 2]);
  assert.equal(lab.snapshot(0, MEMORY, 2), [1, 1]);
});

test('what was copied is shared no more', () => {
  const lab = forked();
  childPopulates(lab, 1, true);
  lab.ask(0, TO_DEV, TWO);
  assert.equal(childSees(lab, 2), [2, 0x21]);
  assert.equal(lab.snapshot(0, MEMORY, 2), [0x21, 0x21], 'but may not be written to without a fault');
});

test('the last one to map a page keeps it: nothing is copied, and no mirror hears of the write', () => {
  for (const ends of [true, false]) {
    const lab = forked();
    lab.ask(1, READ, TWO);
    if (ends) lab.feed(ev('exit', { ...CHILD }));
    lab.populate(MEMORY, 1, true);
    assert.equal(lab.snapshot(0, MEMORY, 1), [2]);
    assert.is(lab.ask(1, READ, TWO).faults, ends ? 0 : 1);
  }
});

test('taking pages from all who share them tells the mirrors of each, the own one where a younger space shares', () => {
  const lab = forked();
  lab.ask(0, READ, command(MEMORY, 4));
  lab.ask(0, READ, command(MEMORY, 4), '', { ...CHILD, fd: OWN });
  lab.ask(0, TO_DEV, TWO);
  assert.is(lab.ask(0, READ, command(MEMORY + 3 * PAGE, 1)).faults, 0);
  assert.is(lab.ask(0, READ, command(MEMORY + 2 * PAGE, 1)).faults, 1, 'one page more than was taken');
  const childReads = (page: number): unknown =>
    lab.ask(0, READ, command(MEMORY + page * PAGE, 1), '', { ...CHILD, fd: OWN }).faults;
  assert.equal([childReads(3), childReads(2)], [0, 1]);
  const other = forked();
  other.ask(0, READ, command(MEMORY, 4), '', { ...CHILD, fd: OWN });
  other.ask(0, TO_DEV, TWO, '', { ...CHILD, fd: OWN });
  const reads = other.ask(0, READ, command(MEMORY + 2 * PAGE, 1), '', { ...CHILD, fd: OWN });
  assert.is(reads.faults, 0, 'the older one was asked first, and then nobody was left');
});

test('pages that mremap moved are found', () => {
  const lab = forked();
  const to = 0x3000_0000;
  const moved = { ...CHILD, addr: MEMORY, oldLengthBytes: 4 * PAGE, newLengthBytes: 4 * PAGE, flags: 3, newAddr: to };
  lab.feed(ev('mremap', { ...moved, ret: to }));
  lab.ask(0, TO_DEV, TWO);
  assert.equal(lab.snapshot(0, to, 3, { ...CHILD, fd: OWN }), [0x21, 0x21, 1]);
});

test('a grandchild shares with both; who ends is forgotten', () => {
  const lab = forked();
  lab.feed(ev('fork', { ...CHILD, ret: OTHER.pid }));
  lab.ask(0, TO_DEV, TWO);
  lab.feed(ev('madvise', { ...OTHER, addr: MEMORY, lengthBytes: PAGE, advice: 22 }));
  assert.equal([...lab.snapshot(0, MEMORY, 2), ...childSees(lab, 2)], [1, 0x21, 1, 0x21]);
  lab.feed(ev('exit', { ...OTHER }));
  lab.feed(ev('exit', { ...CHILD }));
  lab.feed(ev('exit', {}));
  assert.is(lab.world.kinships.size, 0);
});

test('FAIL_ALLOC of the mirror that took a page fails the fault of a child, once', () => {
  const lab = forked();
  lab.ask(0, TO_DEV, TWO);
  lab.ask(0, FLAGS, command(MEMORY, 1));
  const reads = (errno: string) => lab.ask(0, READ, TWO, errno, { ...CHILD, fd: OWN + 1 });
  assert.is(reads('EFAULT').verdict, 'match');
  assert.is(reads('').verdict, 'match');
});

test('exclusive access ends with a fork, and begins with a copy', () => {
  const lab = new Lab();
  lab.ask(0, EXCLUSIVE, TWO);
  lab.feed(ev('fork', { ret: CHILD.pid }));
  assert.equal(lab.snapshot(0, MEMORY, 2), [1, 1]);
  lab.feed(ev('open', { ...CHILD, path: '/dev/hmm_dmirror0', ret: OWN }));
  lab.ask(0, EXCLUSIVE, TWO);
  assert.equal(
    [lab.snapshot(0, MEMORY, 2), childSees(lab, 2)],
    [
      [0, 0],
      [1, 1],
    ],
  );
});

test('huge pages: one who writes splits the entry and copies what was written to', () => {
  const at = 0x4000_0000;
  const lab = new Lab();
  lab.feed(ev('mmap', { addr: at, lengthBytes: 2 << 20, flags: 0x32, ret: at }));
  lab.populate(at, 1, true);
  lab.feed(ev('fork', { ret: CHILD.pid }));
  lab.feed(ev('open', { ...CHILD, path: '/dev/hmm_dmirror0', ret: OWN }));
  const child = (npages: number): readonly number[] => lab.snapshot(0, at, npages, { ...CHILD, fd: OWN });
  assert.equal([lab.snapshot(0, at, 2), child(2)].flat(), [5, 5, 5, 5]);
  lab.ask(1, READ, command(at + 9 * PAGE, 1));
  lab.ask(0, WRITE, command(at, 1));
  assert.equal([lab.snapshot(0, at, 2), child(2)].flat(), [2, 1, 5, 5]);
  assert.is(lab.ask(1, READ, command(at + 9 * PAGE, 1)).faults, 1, 'mirrors hear of the whole block');
  lab.feed(ev('exit', { ...CHILD }));
  lab.ask(1, READ, command(at + 9 * PAGE, 1));
  lab.populate(at + 9 * PAGE, 1, true);
  assert.is(lab.ask(1, READ, command(at + 9 * PAGE, 1)).faults, 0, 'nobody else maps a part of it: it is kept');
});

test('huge pages: of the last page that is left of one a copy is made', () => {
  const at = 0x4000_0000;
  const lab = new Lab();
  lab.feed(ev('mmap', { addr: at, lengthBytes: 2 << 20, flags: 0x32, ret: at }));
  lab.populate(at, 1, true);
  lab.feed(ev('fork', { ret: CHILD.pid }));
  lab.feed(ev('munmap', { addr: at + PAGE, lengthBytes: 511 * PAGE }));
  lab.feed(ev('exit', { ...CHILD }));
  lab.ask(1, READ, command(at, 1, BUFFER));
  lab.populate(at, 1, true);
  assert.is(lab.ask(1, READ, command(at, 1)).faults, 1);
});
