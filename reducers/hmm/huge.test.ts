import * as assert from 'uvu/assert';
import { rangeAt } from '../../core/interval.js';
import { suite } from '../../core/testing.js';
import type { Verdict } from '../call.js';
import { ev } from '../testing.js';
import { BUFFER, command, EXCLUSIVE, FLAGS, Lab, PAGE, READ, TO_DEV, TO_SYS, WRITE } from './testing.js';

const test = suite('hmm/huge');

const AT = 0x4000_0000;
const BLOCK = 2 << 20;

/** A lab with two blocks of memory that may be huge, and 4 MiB to copy to. */
function withBlocks(write: boolean | undefined): Lab {
  const lab = new Lab();
  lab.feed(ev('mmap', { addr: AT, lengthBytes: 2 * BLOCK, flags: 0x32, ret: AT }));
  if (write !== undefined) lab.populate(AT, 1024, write);
  return lab;
}

/** What a mirror of the whole block has to fault in again of its last page after something else. */
function tells(lab: Lab, what: (lab: Lab) => void): number {
  lab.ask(1, READ, command(AT + BLOCK - 16 * PAGE, 16));
  what(lab);
  return Number(lab.ask(1, READ, command(AT + BLOCK - 2 * PAGE, 1)).faults);
}

test('a huge page that is taken in part is split; what holds zeros gives way to the page of zeros', () => {
  const lab = withBlocks(true);
  lab.snapshot(0, AT, 1);
  lab.ask(0, WRITE, command(AT + 4 * PAGE, 2));
  lab.ask(0, TO_DEV, command(AT, 1));
  assert.equal(lab.snapshot(0, AT, 7), [0x22, 0x11, 0x11, 0x11, 2, 0x11, 0x11], 'the snapshot was in the buffer');
  assert.equal(lab.snapshot(0, AT + BLOCK, 1), [6]);
});

test('what the CPU may have written to by itself is not known to be zeros', () => {
  const lab = withBlocks(undefined);
  lab.feed(ev('exec', { tid: 9 }));
  const by = { tid: 9 };
  lab.feed(ev('brk', { ...by, ret: 0x5555_0000_0000 }));
  lab.feed(ev('mmap', { ...by, lengthBytes: 1 << 20, ret: 0x7f10_0000_0000 }));
  lab.feed(ev('mmap', { ...by, lengthBytes: BLOCK, ret: BUFFER }));
  lab.feed(ev('mmap', { ...by, addr: AT, lengthBytes: BLOCK, flags: 0x32, ret: AT }));
  lab.feed(ev('open', { ...by, path: '/dev/hmm_dmirror0', ret: 3 }));
  lab.ask(0, WRITE, command(AT, 512), '', by);
  lab.ask(0, TO_DEV, command(AT, 1), '', by);
  const runs = lab.world.pageTables.get(lab.world.processes.get(9)?.space ?? 0)?.runs;
  assert.is(runs === undefined ? undefined : rangeAt(runs, AT + PAGE)?.kind, 'anon');
});

test('mirrors hear of the whole block when its entry or its page is split', () => {
  const rows: readonly [name: string, write: boolean, what: (lab: Lab) => void][] = [
    ['a migration of a part', true, (lab) => lab.ask(0, TO_DEV, command(AT, 1))],
    ['a migration of a part of zeros', false, (lab) => lab.ask(0, TO_DEV, command(AT, 1))],
    ['exclusive access', true, (lab) => lab.ask(0, EXCLUSIVE, command(AT, 1))],
    ['munmap', true, (lab) => lab.feed(ev('munmap', { addr: AT, lengthBytes: PAGE }))],
    ['mprotect', true, (lab) => lab.feed(ev('mprotect', { addr: AT, lengthBytes: PAGE, prot: 1 }))],
    ['MADV_DONTNEED', true, (lab) => lab.feed(ev('madvise', { addr: AT, lengthBytes: PAGE, advice: 4 }))],
    ['MADV_FREE', true, (lab) => lab.feed(ev('madvise', { addr: AT, lengthBytes: PAGE, advice: 8 }))],
    ['advice for a part', true, (lab) => lab.feed(ev('madvise', { addr: AT, lengthBytes: PAGE, advice: 15 }))],
    [
      'a mapping over a part',
      true,
      (lab) => lab.feed(ev('mmap', { addr: AT, lengthBytes: PAGE, flags: 0x32, ret: AT })),
    ],
    [
      'a move of a part',
      true,
      (lab) => lab.feed(ev('mremap', { addr: AT, flags: 3, newAddr: 0x5000_0000, ret: 0x5000_0000 })),
    ],
    ['the first write to a page of zeros', false, (lab) => lab.populate(AT, 1, true)],
  ];
  for (const [name, write, what] of rows) assert.is(tells(withBlocks(write), what), 1, name);
  const nothing: typeof rows = [
    ['mprotect of all', true, (lab) => lab.feed(ev('mprotect', { addr: AT, lengthBytes: 2 * BLOCK, prot: 3 }))],
    ['advice for how to read', true, (lab) => lab.feed(ev('madvise', { addr: AT, lengthBytes: PAGE, advice: 3 }))],
    ['small memory', true, (lab) => lab.feed(ev('munmap', { addr: AT + BLOCK, lengthBytes: PAGE }))],
  ];
  for (const [name, write, what] of nothing) assert.is(tells(withBlocks(write), what), 0, name);
});

test('mirrors hear of the whole block where a mapping is cut, whatever the block holds', () => {
  const at = AT + 3 * PAGE;
  const rows: readonly [name: string, what: (lab: Lab) => void, told: number][] = [
    ['mprotect', (lab) => lab.feed(ev('mprotect', { addr: at, lengthBytes: PAGE, prot: 1 })), 1],
    ['munmap', (lab) => lab.feed(ev('munmap', { addr: at, lengthBytes: PAGE })), 1],
    ['advice', (lab) => lab.feed(ev('madvise', { addr: at, lengthBytes: PAGE, advice: 10 })), 1],
    ['a mapping', (lab) => lab.feed(ev('mmap', { addr: at, lengthBytes: PAGE, flags: 0x32, ret: at })), 1],
    ['a move', (lab) => lab.feed(ev('mremap', { addr: at, flags: 3, newAddr: 0x5000_0000, ret: 0x5000_0000 })), 1],
    [
      'a move to it',
      (lab) => {
        lab.feed(ev('mmap', { addr: 0x5000_0000, lengthBytes: PAGE, flags: 0x32, ret: 0x5000_0000 }));
        lab.feed(ev('mremap', { addr: 0x5000_0000, flags: 3, newAddr: at, ret: at }));
      },
      1,
    ],
    [
      'a move that leaves the mapping',
      (lab) => lab.feed(ev('mremap', { addr: at, flags: 7, newAddr: 0x5000_0000, ret: 0x5000_0000 })),
      0,
    ],
    ['rights that it has', (lab) => lab.feed(ev('mprotect', { addr: at, lengthBytes: PAGE, prot: 3 })), 0],
    ['rights of whole blocks', (lab) => lab.feed(ev('mprotect', { addr: AT, lengthBytes: BLOCK, prot: 3 })), 0],
    ['what is not cut', (lab) => lab.feed(ev('madvise', { addr: at, lengthBytes: PAGE, advice: 4 })), 0],
  ];
  for (const [name, what, told] of rows) {
    const lab = withBlocks(undefined);
    lab.feed(ev('madvise', { addr: AT, lengthBytes: 2 * BLOCK, advice: 15 }));
    lab.populate(AT, 1024, true);
    assert.is(tells(lab, what), told, name);
  }
});

test('a mapping is cut once: where it ends already, and where a block reaches beyond it, nothing is told', () => {
  const lab = withBlocks(undefined);
  lab.feed(ev('madvise', { addr: AT, lengthBytes: 2 * BLOCK, advice: 15 }));
  lab.populate(AT, 1024, true);
  const protect = (pages: number, npages: number, prot: number) => (): Verdict | undefined =>
    lab.feed(ev('mprotect', { addr: AT + pages * PAGE, lengthBytes: npages * PAGE, prot }));
  assert.is(tells(lab, protect(4, 2, 1)), 1);
  assert.is(tells(lab, protect(7, 2, 1)), 0, 'the mapping begins inside of the block now');
  assert.is(tells(lab, protect(4, 5, 3)), 0);
  assert.is(tells(lab, protect(4, 2, 1)), 1, 'all of it is one mapping again');
});

test('of huge device memory a part comes back by itself, or a page by a fault', () => {
  const lab = withBlocks(true);
  const whole = command(AT, 512, 0x7f01_0000_0000);
  lab.feed(ev('mmap', { lengthBytes: 4 << 20, ret: 0x7f01_0000_0000 }));
  lab.ask(0, TO_DEV, whole);
  assert.is(lab.ask(0, TO_SYS, command(AT, 2)).cpages, 2);
  assert.equal(lab.snapshot(0, AT, 4), [2, 2, 0x22, 0x22]);
  lab.populate(AT + 2 * PAGE, 1, false);
  assert.equal(lab.snapshot(0, AT, 4), [2, 2, 2, 0x22]);
  lab.ask(0, TO_DEV, command(AT + BLOCK, 512, 0x7f01_0000_0000));
  lab.populate(AT + BLOCK, 1, false);
  assert.equal(lab.snapshot(0, AT + BLOCK, 2), [6, 6], 'what one entry maps comes back whole');
});

test('a fault that finds no huge page falls back to small ones', () => {
  const lab = withBlocks(true);
  lab.feed(ev('mmap', { lengthBytes: 4 << 20, ret: 0x7f01_0000_0000 }));
  lab.ask(0, TO_DEV, command(AT, 1024, 0x7f01_0000_0000));
  lab.ask(0, FLAGS, command(AT, 1));
  lab.populate(AT, 1024, false);
  assert.equal([lab.snapshot(0, AT, 1), lab.snapshot(0, AT + BLOCK, 1)].flat(), [2, 6]);
});

test('places without a page become huge ones in any memory', () => {
  const lab = withBlocks(undefined);
  lab.feed(ev('mmap', { lengthBytes: 4 << 20, ret: 0x7f01_0000_0000 }));
  lab.feed(ev('madvise', { addr: AT, lengthBytes: BLOCK, advice: 15 }));
  lab.ask(0, TO_DEV, command(AT, 512, 0x7f01_0000_0000));
  assert.equal(lab.snapshot(0, AT, 2), [0x26, 0x26]);
});

test('neighbours that differ in nothing are one mapping for the device', () => {
  const lab = new Lab();
  const at = 0x3000_0000;
  for (const start of [at, at + 2 * PAGE])
    lab.feed(ev('mmap', { addr: start, lengthBytes: 2 * PAGE, flags: 0x32, ret: start }));
  lab.ask(1, TO_DEV, command(at + 2 * PAGE, 2));
  lab.ask(0, READ, command(at, 4));
  assert.equal(lab.snapshot(1, at, 4), [0x11, 0x11, 2, 2]);
  lab.feed(ev('mprotect', { addr: at, lengthBytes: PAGE, prot: 1 }));
  assert.is(lab.ask(0, EXCLUSIVE, command(at + PAGE, 3)).verdict, 'match');
  const moved = { oldLengthBytes: PAGE, newLengthBytes: PAGE, flags: 3 };
  lab.populate(at + 3 * PAGE, 1, true);
  lab.feed(ev('mremap', { addr: at + 3 * PAGE, ...moved, newAddr: at + 4 * PAGE, ret: at + 4 * PAGE }));
  assert.is(lab.ask(0, READ, command(at + 4 * PAGE, 1)).faults, 1);
});

test('a huge page of which a part was moved is split at all places, and each mapping that has a part is told', () => {
  const lab = withBlocks(true);
  const to = 0x6000_1000;
  const moved = { oldLengthBytes: 8 * PAGE, newLengthBytes: 8 * PAGE, flags: 3, newAddr: to, ret: to };
  lab.feed(ev('mremap', { addr: AT, ...moved }));
  lab.feed(ev('mprotect', { addr: AT + 16 * PAGE, lengthBytes: PAGE, prot: 1 }));
  for (const at of [to, AT + 8 * PAGE, AT + 16 * PAGE, AT + 17 * PAGE]) lab.ask(1, READ, command(at, 1));
  lab.ask(0, TO_DEV, command(to + PAGE, 1));
  assert.equal(lab.snapshot(0, to, 3), [0x11, 0x22, 0x11]);
  assert.equal(lab.snapshot(0, AT + 8 * PAGE, 1), [0x11]);
  for (const at of [to, AT + 8 * PAGE, AT + 16 * PAGE, AT + 17 * PAGE])
    assert.is(lab.ask(1, READ, command(at, 1)).faults, 1);
});
