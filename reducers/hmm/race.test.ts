import * as assert from 'uvu/assert';
import { Bytes } from '../../core/bytes.js';
import type { Event, IoctlEvent } from '../../core/event.js';
import { rangeAt } from '../../core/interval.js';
import { suite } from '../../core/testing.js';
import type { Verdict } from '../call.js';
import { ev } from '../testing.js';
import { BUFFER, command, EXCLUSIVE, ioctl, Lab, MEMORY, PAGE, READ, SNAPSHOT, TO_DEV, WRITE } from './testing.js';

const test = suite('hmm/race');

/** Another thread of the mirrored process. */
const OTHER = { tid: 2, pid: 1 };
const HALF = { addr: MEMORY + 2 * PAGE, lengthBytes: 2 * PAGE };
const FOUR = command(MEMORY, 4);

/** A lab whose process has a second thread, and has written to the first pages. */
function twoThreads(): Lab {
  const lab = new Lab();
  lab.feed(ev('fork', { flags: 0x5_0f00, ret: OTHER.tid }));
  lab.populate(MEMORY, 8, true);
  return lab;
}

type Answer = Partial<IoctlEvent>;
const FAULT: Answer = { ret: -1, errno: 'EFAULT' };

/** The struct as the kernel leaves it. */
function counts(npages: number, faults: number): Answer {
  const bytes = command(MEMORY, npages, BUFFER, npages).toUint8Array();
  bytes[32] = faults;
  return { memOut: [{ addr: 0x7f10_0000_0000, bytes: new Bytes(bytes) }] };
}

interface Told {
  readonly verdict: Verdict | undefined;
  readonly lab: Lab;
}

/** One command during which other things happen. */
function during(nr: number, others: readonly Event[], answer: Answer, lab = twoThreads(), struct = FOUR): Told {
  const entered = lab.next;
  lab.feed(ev('enter', { tid: 1, call: 'ioctl', fd: 3, request: (0xc028_4800 + nr) >>> 0 }));
  for (const event of others) lab.feed(event);
  const verdict = lab.feed(ioctl(3, nr, struct, { enteredAt: entered, ...answer }));
  return { verdict, lab };
}

function mirrored(lab: Lab, addr: number): string {
  const mirror = [...lab.world.mirrors.values()].find(({ device }) => device === 0);
  return mirror === undefined ? 'gone' : (rangeAt(mirror.ptes, addr)?.access ?? 'none');
}

const UNMAPPED = ev('munmap', { ...OTHER, ...HALF });
const UNMAPPING = ev('enter', { ...OTHER, call: 'munmap', ...HALF });

test('READ while another thread unmaps a part: as before or as after, and nothing else', () => {
  for (const others of [[UNMAPPED], [UNMAPPING]]) {
    assert.is(during(READ, others, counts(4, 1)).verdict, 'match');
    assert.is(during(READ, others, FAULT).verdict, 'match');
    assert.is(during(READ, others, { ret: -1, errno: 'EPERM' }).verdict, 'diverge');
    assert.is(during(READ, others, counts(4, 0)).verdict, 'unknown', 'a mixture may have counted otherwise');
  }
  const nothing = during(READ, [ev('munmap', { ...OTHER, addr: MEMORY + 8 * PAGE, lengthBytes: PAGE })], FAULT);
  assert.is(nothing.verdict, 'diverge', 'elsewhere is no race');
});

test('what the command did stays, but not where the memory went', () => {
  const seenBefore = during(READ, [UNMAPPED], counts(4, 1));
  assert.equal([mirrored(seenBefore.lab, MEMORY), mirrored(seenBefore.lab, HALF.addr)], ['write', 'none']);
  const seenAfter = during(READ, [UNMAPPED], FAULT);
  // All is one step of 32 pages, and a step that fails leaves nothing.
  assert.equal([mirrored(seenAfter.lab, MEMORY), mirrored(seenAfter.lab, HALF.addr)], ['none', 'none']);
  const later = during(READ, [UNMAPPING], counts(4, 1));
  assert.is(mirrored(later.lab, HALF.addr), 'write', 'the munmap has still to end');
  later.lab.feed(UNMAPPED);
  assert.is(mirrored(later.lab, HALF.addr), 'none');
});

test('other changes: mprotect, madvise, mremap, a mapping put over it', () => {
  const readOnly = { ...OTHER, ...HALF, prot: 1 };
  for (const others of [[ev('mprotect', readOnly)], [ev('enter', { ...readOnly, call: 'mprotect' })]]) {
    assert.is(during(WRITE, others, counts(4, 1)).verdict, 'match');
    assert.is(during(WRITE, others, { ret: -1, errno: 'EPERM' }).verdict, 'match');
    assert.is(during(READ, others, counts(4, 1)).verdict, 'match', 'it may still be read');
    assert.is(during(READ, others, FAULT).verdict, 'diverge');
  }
  const dropped = { ...OTHER, ...HALF, advice: 4 };
  const lab = twoThreads();
  lab.ask(0, READ, FOUR);
  for (const faults of [0, 1])
    assert.is(during(READ, [ev('enter', { ...dropped, call: 'madvise' })], counts(4, faults), lab).verdict, 'match');
  const moving = ev('enter', { ...OTHER, ...HALF, call: 'mremap', flags: 1 });
  assert.is(during(TO_DEV, [moving], { ret: -1, errno: 'EINVAL' }).verdict, 'match');
  const placing = ev('enter', { ...OTHER, ...HALF, call: 'mmap', prot: 0, flags: 0x32 });
  assert.is(during(EXCLUSIVE, [placing], FAULT).verdict, 'match');
});

test('several changes: each state between them may have been seen', () => {
  const none = ev('mprotect', { ...OTHER, ...HALF, prot: 0 });
  const back = ev('mprotect', { ...OTHER, ...HALF, prot: 3 });
  assert.is(during(WRITE, [none, back], FAULT).verdict, 'match');
  assert.is(during(WRITE, [none, back], counts(4, 1)).verdict, 'match');
  const many = Array.from({ length: 40 }, (_, i) => (i % 2 === 0 ? none : back));
  assert.is(during(WRITE, many, FAULT).verdict, 'match');
});

test('the mirrored process ends meanwhile', () => {
  const child = { tid: 9, pid: 9 };
  const lab = twoThreads();
  lab.feed(ev('fork', { ret: 9 }));
  const entered = lab.next;
  lab.feed(ev('enter', { ...child, call: 'ioctl', fd: 3, request: 0xc028_4802 }));
  lab.feed(ev('exit'));
  lab.feed(ev('exit', { ...OTHER }));
  const failed = ioctl(3, TO_DEV, FOUR, { ...child, enteredAt: entered, ret: -1, errno: 'EINVAL' });
  assert.is(lab.feed(failed), 'match', 'it came too late');
});

test('another ioctl on a mirror of the memory may give what no state of ours gives', () => {
  const device = ev('enter', { ...OTHER, call: 'ioctl', fd: 4, request: 0xc028_4802 });
  const done = ioctl(4, TO_DEV, FOUR, { ...OTHER });
  const told = during(READ, [device, done], { ret: -1, errno: 'EBUSY' });
  assert.is(told.verdict, 'unknown');
  assert.is(during(READ, [device, done], counts(4, 1)).verdict, 'match');
});

test('SNAPSHOT tells which state it saw', () => {
  const pages = (...bytes: number[]): Answer => ({
    memOut: [...(counts(4, 0).memOut ?? []), { addr: BUFFER, bytes: new Bytes(Uint8Array.from(bytes)) }],
  });
  assert.is(during(SNAPSHOT, [UNMAPPED], pages(2, 2, 2, 2)).verdict, 'match');
  assert.is(during(SNAPSHOT, [UNMAPPED], pages(2, 2, 0xff, 0xff)).verdict, 'match');
  assert.is(during(SNAPSHOT, [UNMAPPED], pages(1, 2, 2, 2)).verdict, 'unknown');
});

test('a recording without beginnings leaves the answer open', () => {
  const lab = twoThreads();
  const entered = lab.next;
  lab.feed(UNMAPPED);
  assert.is(lab.feed(ioctl(3, READ, FOUR, { enteredAt: entered, ...FAULT })), 'unknown');
});

test('hostile: more calls under way than are followed, and none that ever ends', () => {
  const lab = twoThreads();
  for (let tid = 100; tid < 1000; tid++) {
    lab.feed(ev('fork', { flags: 0x5_0f00, ret: tid }));
    lab.feed(ev('enter', { tid, pid: 1, call: 'ioctl', fd: 3, request: 0xc028_4800 }));
  }
  for (let i = 0; i < 50; i++) lab.feed(ev('munmap', { ...OTHER, addr: MEMORY + i * PAGE, lengthBytes: PAGE }));
  assert.ok(lab.world.inFlight.size <= 256);
});
