import * as assert from 'uvu/assert';
import type { Event, FaultEvent, InvalidateEvent } from '../../core/event.js';
import { suite } from '../../core/testing.js';
import { command, EXCLUSIVE, ioctl, Lab, MEMORY, PAGE, READ, TO_DEV, TO_SYS, WRITE } from '../hmm/testing.js';
import { ev } from '../testing.js';
import { invariants as ALL } from './index.js';

const test = suite('invariants/mirror');

// ---- device-private pages in a mirror ----------------------------------------------------------------------

test('a READ that misses its first page takes device-private pages behind it for what they are', () => {
  const lab = new Lab(ALL);
  lab.populate(MEMORY, 4, true);
  const moved = lab.next;
  lab.ask(0, TO_DEV, command(MEMORY + PAGE, 2));
  assert.equal(lab.findings, []);
  lab.feed(ioctl(3, READ, command(MEMORY, 4), { ret: null }));
  assert.is(lab.findings.length, 1);
  const found = lab.findings[0];
  assert.is(found?.invariant, 'mirror-bare');
  assert.ok(found?.causes.includes(moved));
  assert.match(
    found?.message ?? '',
    /dmirror0 for 0x20001000-0x20002fff holds the device-private page itself.*the kernel dies/,
  );
});

test('a WRITE to memory that was migrated before it had a page dies, too', () => {
  const lab = new Lab(ALL);
  lab.ask(1, TO_DEV, command(MEMORY, 1));
  lab.ask(1, READ, command(MEMORY, 1));
  assert.equal(lab.findings, []);
  lab.feed(ioctl(4, WRITE, command(MEMORY, 1), { ret: null }));
  assert.is(lab.findings.length, 1);
});

test('a call that fails after it has stored such an entry leaves it to the next', () => {
  const lab = new Lab(ALL);
  lab.populate(MEMORY, 40, true);
  lab.ask(0, TO_DEV, command(MEMORY + PAGE, 2));
  lab.ask(0, TO_DEV, command(MEMORY + 36 * PAGE, 1));
  // Device-private memory loses the right to write, and does not get it back.
  for (const prot of [1, 3]) lab.feed(ev('mprotect', { addr: MEMORY + 36 * PAGE, lengthBytes: PAGE, prot }));
  assert.equal(lab.findings, []);
  const stored = lab.next;
  assert.is(lab.ask(0, WRITE, command(MEMORY, 40), 'EFAULT').verdict, 'match');
  assert.is(lab.findings.length, 1);
  assert.match(lab.findings[0]?.message ?? '', /for 0x20001000-0x20002fff .* The next access through it kills/);
  lab.feed(ioctl(3, READ, command(MEMORY + 2 * PAGE, 1), { ret: null }));
  assert.is(lab.findings.length, 2);
  assert.match(lab.findings[1]?.message ?? '', /READ goes through it, and the kernel dies in this call/);
  assert.ok(lab.findings[1]?.causes.includes(stored));
});

test('the finding does not rest on how the call ended in the recording', () => {
  for (const end of [{ ret: null }, { ret: 0 }, { ret: -1, errno: 'EFAULT' }] as const) {
    const lab = new Lab(ALL);
    lab.populate(MEMORY, 4, true);
    lab.ask(0, TO_DEV, command(MEMORY + PAGE, 2));
    lab.feed(ioctl(3, READ, command(MEMORY, 4), end));
    assert.equal(
      lab.findings.map((found) => found.invariant),
      ['mirror-bare'],
    );
  }
});

test('what looks alike and is good is not reported', () => {
  const goods: readonly ((lab: Lab) => void)[] = [
    // Brought back before.
    (lab) => lab.ask(0, TO_SYS, command(MEMORY + PAGE, 2)),
    // The CPU has brought it back.
    (lab) => lab.populate(MEMORY + PAGE, 2, false),
    // The mirror lacks nothing.
    (lab) => lab.ask(0, TO_DEV, command(MEMORY, 4)),
  ];
  for (const prepare of goods) {
    const lab = new Lab(ALL);
    lab.populate(MEMORY, 4, true);
    lab.ask(0, TO_DEV, command(MEMORY + PAGE, 2));
    prepare(lab);
    assert.is(lab.ask(0, READ, command(MEMORY, 4)).verdict, 'match');
    assert.equal(lab.findings, []);
  }
  // Another device asks: its own memory is not there.
  const lab = new Lab(ALL);
  lab.populate(MEMORY, 4, true);
  lab.ask(0, TO_DEV, command(MEMORY + PAGE, 2));
  assert.is(lab.ask(1, READ, command(MEMORY, 4)).verdict, 'match');
  assert.equal(lab.findings, []);
  // And so is a range that begins behind what the mirror lacks.
  lab.ask(0, TO_DEV, command(MEMORY + PAGE, 2));
  assert.is(lab.ask(0, READ, command(MEMORY + PAGE, 2)).verdict, 'match');
  assert.equal(lab.findings, []);
});

test('a page that the CPU lacks behind them makes them come back: nothing is found', () => {
  const lab = new Lab(ALL);
  lab.populate(MEMORY + PAGE, 2, true);
  lab.ask(0, TO_DEV, command(MEMORY + PAGE, 2));
  assert.is(lab.ask(0, READ, command(MEMORY, 4)).verdict, 'match');
  assert.equal(lab.snapshot(0, MEMORY, 4), [0x11, 2, 2, 0x11]);
  assert.equal(lab.findings, []);
});

test('coherent memory can be read through whatever page stands for it', () => {
  const lab = new Lab(ALL);
  lab.populate(MEMORY, 4, true);
  lab.ask(2, TO_DEV, command(MEMORY + PAGE, 2));
  assert.is(lab.ask(2, READ, command(MEMORY, 4)).verdict, 'match');
  assert.equal(lab.findings, []);
});

test('two opens of one device: the second does not hear of what the first one migrates', () => {
  const lab = new Lab(ALL);
  lab.populate(MEMORY, 1, true);
  lab.open(0);
  lab.ask(4, READ, command(MEMORY, 1));
  lab.ask(0, TO_DEV, command(MEMORY, 1));
  assert.is(lab.findings[0]?.invariant, 'mirror-stale');
  assert.match(lab.findings[0]?.message ?? '', /another page is there now/);
});

// ---- invalidations of the kernel, mutated ------------------------------------------------------------------

const MM = 0xffff_8881;
const LAST = MEMORY + 4 * PAGE - 1;

function fault(addr: number, write: boolean): FaultEvent {
  return {
    ...ev('signal'),
    kind: 'fault',
    mm: MM,
    addr,
    flags: write ? 0x255 : 0x254,
    ret: 0,
  } as unknown as FaultEvent;
}

function invalidation(type: number, start: number, last: number, owner = 0): InvalidateEvent[] {
  const head = { ...ev('signal'), mm: MM, start, last, type, flags: 1, owner };
  return ['invalidateStart', 'invalidateEnd'].map((kind) => ({ ...head, kind })) as unknown as InvalidateEvent[];
}

const UNMAP = 0;
const CLEAR = 1;
const PROTECTION = 2;
const MIGRATE = 6;
const EXCLUDE = 7;
const DEVICE_0 = 0xffff_a000;

interface Tape {
  readonly title: string;
  /** The invariant that tells of the lost invalidation. */
  readonly tells: string;
  readonly before: readonly Event[];
  /** The event that changes memory where the recorder shows it first, then its invalidations, then what comes after. */
  readonly first: readonly Event[];
  readonly pair: readonly InvalidateEvent[];
  readonly after: readonly Event[];
}

const written = ioctl(3, WRITE, command(MEMORY, 4));
const other = ev('madvise', { addr: 0x7f20_0000_0000, lengthBytes: PAGE, advice: 14 });

const TAPES: readonly Tape[] = [
  {
    title: 'munmap',
    tells: 'mirror-stale',
    before: [written],
    first: [ev('munmap', { addr: MEMORY, lengthBytes: 4 * PAGE })],
    pair: invalidation(UNMAP, MEMORY, LAST),
    after: [other],
  },
  {
    title: 'mprotect',
    tells: 'mirror-rights',
    before: [written],
    first: [ev('mprotect', { addr: MEMORY, lengthBytes: 4 * PAGE, prot: 1 })],
    pair: invalidation(PROTECTION, MEMORY, LAST),
    after: [other],
  },
  {
    title: 'MADV_DONTNEED',
    tells: 'mirror-stale',
    before: [written],
    first: [ev('madvise', { addr: MEMORY, lengthBytes: 4 * PAGE, advice: 4 })],
    pair: invalidation(CLEAR, MEMORY, LAST),
    after: [other],
  },
  {
    title: 'a write fault on the page of zeros',
    tells: 'mirror-stale',
    before: [ioctl(3, READ, command(MEMORY, 4))],
    first: [],
    pair: invalidation(CLEAR, MEMORY, MEMORY + PAGE - 1),
    after: [fault(MEMORY, true), other],
  },
  {
    title: "another device's migration",
    tells: 'mirror-private',
    before: [ioctl(4, READ, command(MEMORY, 4))],
    first: [],
    pair: invalidation(MIGRATE, MEMORY, LAST, DEVICE_0),
    after: [ioctl(3, TO_DEV, command(MEMORY, 4)), other],
  },
  {
    title: 'exclusive access by another device',
    tells: 'mirror-exclusive',
    before: [ioctl(4, READ, command(MEMORY, 1))],
    first: [],
    pair: invalidation(EXCLUDE, MEMORY, MEMORY + PAGE - 1),
    after: [ioctl(3, EXCLUSIVE, command(MEMORY, 1)), other],
  },
];

function play(events: readonly Event[]): Lab {
  const lab = new Lab(ALL);
  lab.feed(fault(0x7f10_0000_0000, true));
  for (const event of events) lab.feed(event);
  return lab;
}

for (const { title, tells, before, first, pair, after } of TAPES) {
  const [start, end] = pair as [InvalidateEvent, InvalidateEvent];
  test(`${title}: the good recording has no findings`, () => {
    assert.equal(play([...before, ...first, ...pair, ...after]).findings, []);
  });
  test(`${title}: a dropped invalidation is known at the next event that shows it`, () => {
    const lab = play([...before, ...first, ...after]);
    assert.is(lab.findings[0]?.invariant, tells);
    const known = lab.next - after.length;
    assert.is(lab.findings[0]?.seq, known);
  });
  test(`${title}: a moved invalidation comes too late`, () => {
    assert.ok(play([...before, ...first, ...after, ...pair]).findings.length > 0);
  });
  test(`${title}: a second end without a start`, () => {
    const found = play([...before, ...first, ...pair, end, ...after]).findings;
    assert.equal(
      found.map((f) => f.invariant),
      ['invalidation-balance'],
    );
  });
  test(`${title}: the same invalidation twice does no harm`, () => {
    assert.equal(play([...before, ...first, ...pair, ...pair, ...after]).findings, []);
  });
  test(`${title}: an end that is lost`, () => {
    const found = play([...before, ...first, start, ...after, other]).findings;
    assert.ok(found.some((f) => f.invariant === 'invalidation-balance'));
  });
  if (start.last === LAST) {
    test(`${title}: a shortened invalidation leaves its tail stale`, () => {
      const short = pair.map((event) => ({ ...event, last: MEMORY + PAGE - 1 }));
      assert.is(play([...before, ...first, ...short, ...after]).findings[0]?.invariant, tells);
    });
  }
}

test('entries taken while an invalidation of their range is under way', () => {
  const [start, end] = invalidation(CLEAR, MEMORY, LAST) as [InvalidateEvent, InvalidateEvent];
  const lab = play([{ ...start, tid: 2 }, written, { ...end, tid: 2 }]);
  assert.equal(
    lab.findings.map((f) => [f.invariant, f.causes]),
    [['mirror-update', [lab.next - 3, lab.next - 2]]],
  );
});

test('memory that comes back by MIGRATE_TO_SYS is judged by the mirrors of all devices', () => {
  const lab = new Lab(ALL);
  lab.populate(MEMORY, 4, true);
  lab.ask(0, TO_DEV, command(MEMORY, 4));
  lab.ask(1, READ, command(MEMORY, 4));
  lab.ask(0, TO_DEV, command(MEMORY, 4));
  lab.ask(0, TO_SYS, command(MEMORY, 4));
  assert.equal(lab.findings, []);
});
