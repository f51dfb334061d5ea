import * as assert from 'uvu/assert';
import type { Event } from '../../core/event.js';
import { rangeAt } from '../../core/interval.js';
import { suite } from '../../core/testing.js';
import type { PteRun } from '../memory/pagetable.js';
import { ev } from '../testing.js';
import { command, EXCLUSIVE, ioctl, Lab, MEMORY, PAGE, READ, TO_DEV, WRITE } from './testing.js';

const test = suite('hmm/kernel-events');

const MM = 0xffff_8881_0006_f080n;
const OTHER_MM = 0xffff_8881_0006_0000n;
const WRITE_FAULT = 0x255;
const READ_FAULT = 0x254;
const REMOTE = 0x80;
const RETRY = 0x400;

interface More {
  readonly tid?: number;
  readonly mm?: bigint;
  readonly ret?: number;
}

function fault(addr: number, flags: number, { tid = 1, mm = MM, ret = 0 }: More = {}): Event {
  return { ...ev('signal'), kind: 'fault', tid, mm, addr, flags, ret } as unknown as Event;
}

function started(type: number, start: number, last: number, owner = 0, tid = 1): Event {
  return {
    ...ev('signal'),
    kind: 'invalidateStart',
    tid,
    mm: MM,
    start,
    last,
    type,
    flags: 1,
    owner,
  } as unknown as Event;
}

function ended(type: number, start: number, last: number): Event {
  return { ...started(type, start, last), kind: 'invalidateEnd' } as unknown as Event;
}

/** A lab whose process has made its first fault. */
function bound(): Lab {
  const lab = new Lab();
  lab.feed(fault(0x7f10_0000_0000, WRITE_FAULT));
  return lab;
}

function space(lab: Lab): number {
  return lab.world.processes.get(1)?.space ?? 0;
}

function entry(lab: Lab, addr: number): PteRun | undefined {
  const runs = lab.world.pageTables.get(space(lab))?.runs;
  return runs === undefined ? undefined : rangeAt(runs, addr);
}

function mirrored(lab: Lab, minor: number): number {
  return [...lab.world.mirrors.values()].find((mirror) => mirror.device === minor)?.ptes.size ?? 0;
}

test('the first fault of a process names its space; another mm is another program', () => {
  const lab = bound();
  const before = space(lab);
  assert.is(lab.world.mms.get(MM), before);
  lab.feed(fault(0x7fff_0000_0000, WRITE_FAULT, { mm: OTHER_MM }));
  assert.is.not(space(lab), before);
  assert.is(lab.world.mms.get(OTHER_MM), space(lab));
  assert.is(lab.world.mms.get(MM), undefined, 'the mm is gone with its space');
});

test('a fault for somebody else binds nothing', () => {
  const lab = new Lab();
  lab.feed(fault(MEMORY, REMOTE));
  assert.is(lab.world.mms.size, 0);
  const after = bound();
  after.feed(fault(MEMORY, REMOTE, { tid: 77 }));
  assert.is(entry(after, MEMORY)?.kind, 'zero', 'but it populates the space it names');
});

test('faults make entries; those that failed or come again do not', () => {
  const lab = bound();
  lab.feed(fault(MEMORY + 5, READ_FAULT));
  lab.feed(fault(MEMORY + PAGE, WRITE_FAULT, { ret: RETRY }));
  lab.feed(fault(MEMORY + 2 * PAGE, WRITE_FAULT, { ret: 0x40 }));
  assert.is(entry(lab, MEMORY)?.kind, 'zero');
  assert.is(entry(lab, MEMORY + PAGE), undefined);
  assert.is(entry(lab, MEMORY + 2 * PAGE), undefined);
  lab.feed(fault(MEMORY, WRITE_FAULT));
  assert.equal([entry(lab, MEMORY)?.kind, entry(lab, MEMORY)?.write], ['anon', true]);
});

test('a recorded invalidation empties its range in all mirrors, and one page more', () => {
  const lab = bound();
  lab.ask(0, WRITE, command(MEMORY, 4));
  lab.ask(1, READ, command(MEMORY, 1));
  lab.feed(started(1, MEMORY, MEMORY + PAGE - 1));
  assert.is(mirrored(lab, 1), 0);
  const left = [...lab.world.mirrors.values()].find((m) => m.device === 0)?.ptes.first();
  assert.is(left?.start, MEMORY + 2 * PAGE);
});

test("a migration's device is told by the call that it was part of", () => {
  const lab = bound();
  lab.ask(0, READ, command(MEMORY, 1));
  lab.ask(1, READ, command(MEMORY, 1));
  lab.feed(started(6, MEMORY, MEMORY + PAGE - 1, 0xa000));
  assert.equal([mirrored(lab, 0), mirrored(lab, 1)], [1, 1], 'it waits');
  lab.feed(ioctl(4, TO_DEV, command(MEMORY, 1)));
  assert.is(mirrored(lab, 0), 0);
  assert.is(lab.world.facts.get('dmirror/owner/0xa000')?.value, 1);
  lab.feed(ioctl(3, READ, command(MEMORY + PAGE, 1)));
  lab.feed(started(6, MEMORY + PAGE, MEMORY + 2 * PAGE - 1, 0xa000));
  assert.is(mirrored(lab, 0), 0, 'later ones are known at once');
});

test('or by the fault that brings its memory back', () => {
  const lab = bound();
  lab.ask(1, TO_DEV, command(MEMORY, 1));
  lab.feed(started(6, MEMORY, MEMORY + PAGE - 1, 0xb000));
  lab.feed(fault(MEMORY, READ_FAULT));
  assert.is(lab.world.facts.get('dmirror/owner/0xb000')?.value, 1);
  assert.is(entry(lab, MEMORY)?.kind, 'anon');
  assert.is(mirrored(lab, 1), 0, 'the mirror that took the page forgets it');
});

test('a migration that nothing explains counts as a foreign one', () => {
  const lab = bound();
  lab.ask(0, READ, command(MEMORY, 1));
  lab.feed(started(6, MEMORY, MEMORY + PAGE - 1, 0xc000));
  lab.feed(ev('madvise', { addr: MEMORY + 8 * PAGE, lengthBytes: PAGE, advice: 14 }));
  assert.is(mirrored(lab, 0), 0);
});

test('memory that no call mapped is there in a child too, and gone when it is unmapped', () => {
  const heap = 0x5577_0000_0000;
  const lab = bound();
  lab.feed(fault(heap, WRITE_FAULT));
  lab.feed(ev('fork', { ret: 9 }));
  const struct = command(MEMORY, 1, heap);
  assert.is(lab.feed(ioctl(3, WRITE, struct, { tid: 9, pid: 9 })), 'match');
  lab.feed(ev('munmap', { tid: 9, pid: 9, addr: heap, lengthBytes: PAGE }));
  const failed = { tid: 9, pid: 9, ret: -1, errno: 'EFAULT' } as const;
  assert.is(lab.feed(ioctl(3, WRITE, struct, failed)), 'match');
});

test('another thread that unmaps during a call leaves its answer unknown', () => {
  const lab = bound();
  const entered = lab.next;
  lab.feed(ev('other'));
  lab.feed(ev('munmap', { tid: 2, pid: 1, addr: MEMORY + PAGE, lengthBytes: PAGE }));
  const verdict = lab.feed(ioctl(3, READ, command(MEMORY, 4), { enteredAt: entered, ret: -1, errno: 'EFAULT' }));
  assert.is(verdict, 'unknown');
});

test('hostile recordings: ends without starts, starts without end, ranges of everything', () => {
  const lab = bound();
  for (let i = 0; i < 3000; i++) lab.feed(started(i % 9, 0, Number.MAX_SAFE_INTEGER, 0xd000 + (i % 2)));
  for (let i = 0; i < 10; i++) lab.feed(ended(40 + i, 0, 1));
  lab.feed({ ...started(1, 0, 0), last: 0xffff_ffff_ffff_ffffn } as Event);
  assert.ok((lab.world.notified.get(MM)?.invalidations.length ?? 0) <= 256);
  assert.is(lab.ask(0, EXCLUSIVE, command(MEMORY, 1)).verdict, 'match');
});
