import * as assert from 'uvu/assert';
import type { Event } from '../../core/event.js';
import { suite } from '../../core/testing.js';
import type { U64 } from '../../core/u64.js';
import { Lab, MEMORY, PAGE } from '../hmm/testing.js';
import { ev } from '../testing.js';
import { invariants } from './index.js';

const test = suite('invariants/driver-mirror');

const MM = 0xffff_8881_0000_1000n;
const LAST = MEMORY + 4 * PAGE - 1;
const TABLE = 0xffff_8882_0000_0100n;
const OTHER_TABLE = 0xffff_8882_0000_0200n;
const OWNER = 0xffff_a000;
const OTHER_OWNER = 0xffff_b000;
/** The thread that serves the device's faults; of no process that the recording knows. */
const WORKER = 50;

const UNMAP = 0;
const CLEAR = 1;
const PROTECTION_VMA = 2;
const MIGRATE = 6;
const EXCLUDE = 7;
const READ = 1;
const READ_WRITE = 3;
const ATOMIC = 7;

type Span = readonly [start: number, last: number];
const ALL: Span = [MEMORY, LAST];
const ONE: Span = [MEMORY, MEMORY + PAGE - 1];

const ranged = ([start, last]: Span): object => ({ mm: MM, start, last });

function maps(span: Span, flags: number, fields: object = {}, mirror: U64 = TABLE): Event {
  return ev('mirrorMap', { tid: WORKER, mirror, driver: 'nic', flags, ...ranged(span), ...fields });
}

function unmaps(span: Span, tid = 1, mirror: U64 = TABLE): Event {
  return ev('mirrorUnmap', { tid, mirror, ...ranged(span) });
}

function told(span: Span, notifierSeq: number | null, tid = 1, mirror: U64 = TABLE): Event {
  return ev('mirrorInvalidate', { tid, mirror, ...ranged(span), notifierSeq });
}

function started(type: number, span: Span, fields: object = {}): Event {
  return invalidation('invalidateStart', type, span, { flags: 1, ...fields });
}

function ended(type: number, span: Span, fields: object = {}): Event {
  return invalidation('invalidateEnd', type, span, fields);
}

function invalidation(kind: string, type: number, span: Span, fields: object): Event {
  return { ...ev('signal'), kind, type, flags: 0, owner: 0, ...ranged(span), ...fields } as unknown as Event;
}

/** The process's own fault (tid 1), or one for the device. */
function fault(addr: number, write: boolean, tid = 1): Event {
  const flags = (write ? 0x255 : 0x254) | (tid === 1 ? 0 : 0x80);
  return { ...ev('signal'), kind: 'fault', tid, mm: MM, addr, flags, ret: 0 } as unknown as Event;
}

const faults = (write: boolean): Event[] => [0, 1, 2, 3].map((page) => fault(MEMORY + page * PAGE, write, WORKER));
const GOES_ON = ev('madvise', { addr: 0x7f20_0000_0000, lengthBytes: PAGE, advice: 14 });
const BINDS = fault(0x7f10_0000_0000, true);

function play(events: readonly Event[], bound = true): Lab {
  const lab = new Lab(invariants);
  if (bound) lab.feed(BINDS);
  for (const event of events) lab.feed(event);
  return lab;
}

function names(lab: Lab): string[] {
  return lab.findings.map((found) => found.invariant);
}

/** An invalidation with what a driver does about it. */
function invalidated(type: number, span: Span, number = 11): Event[] {
  return [started(type, span), told(span, number), unmaps(span), ended(type, span)];
}

// ---- mutations of good recordings --------------------------------------------------------------------------

interface Tape {
  readonly title: string;
  /** The invariant that tells of a lost invalidation. */
  readonly tells: string;
  readonly before: readonly Event[];
  /** The call that changes memory where the recorder shows it first. */
  readonly first: readonly Event[];
  readonly type: number;
  readonly span: Span;
  readonly after: readonly Event[];
}

const WRITTEN = [...faults(true), maps(ALL, READ_WRITE, { notifierSeq: 1 })];
const TAPES: readonly Tape[] = [
  {
    title: 'munmap',
    tells: 'mirror-stale',
    before: WRITTEN,
    first: [ev('munmap', { addr: MEMORY, lengthBytes: 4 * PAGE })],
    type: UNMAP,
    span: ALL,
    after: [GOES_ON],
  },
  {
    title: 'mprotect',
    tells: 'mirror-rights',
    before: WRITTEN,
    first: [ev('mprotect', { addr: MEMORY, lengthBytes: 4 * PAGE, prot: 1 })],
    type: PROTECTION_VMA,
    span: ALL,
    after: [GOES_ON],
  },
  {
    title: 'MADV_DONTNEED',
    tells: 'mirror-stale',
    before: WRITTEN,
    first: [ev('madvise', { addr: MEMORY, lengthBytes: 4 * PAGE, advice: 4 })],
    type: CLEAR,
    span: ALL,
    after: [GOES_ON],
  },
  {
    title: 'a write fault on the page of zeros',
    tells: 'mirror-stale',
    before: [...faults(false), maps(ALL, READ, { notifierSeq: 1 })],
    first: [],
    type: CLEAR,
    span: ONE,
    after: [fault(MEMORY, true), GOES_ON],
  },
  {
    title: "memory that moves to another driver's device",
    tells: 'mirror-stale',
    before: WRITTEN,
    first: [],
    type: MIGRATE,
    span: ALL,
    after: [maps(ALL, READ_WRITE, { owner: OTHER_OWNER, memory: OTHER_OWNER }, OTHER_TABLE), GOES_ON],
  },
  {
    title: 'exclusive access of another driver',
    tells: 'mirror-exclusive',
    before: WRITTEN,
    first: [],
    type: EXCLUDE,
    span: ONE,
    after: [maps(ONE, ATOMIC, { owner: OTHER_OWNER }, OTHER_TABLE), GOES_ON],
  },
  {
    title: 'a page held exclusively that the CPU takes back',
    tells: 'mirror-exclusive',
    before: [...faults(true), maps(ONE, ATOMIC, { notifierSeq: 1, owner: OWNER })],
    first: [],
    type: CLEAR,
    span: ONE,
    after: [fault(MEMORY, true), GOES_ON],
  },
];

for (const { title, tells, before, first, type, span, after } of TAPES) {
  const [start, callback, unmap, end] = invalidated(type, span) as [Event, Event, Event, Event];
  const whole = [start, callback, unmap, end];
  test(`${title}: the good recording has no findings`, () => {
    assert.equal(play([...before, ...first, ...whole, ...after]).findings, []);
  });
  test(`${title}: a dropped invalidation is known at the next event that shows it`, () => {
    const lab = play([...before, ...first, ...after]);
    assert.is(lab.findings[0]?.invariant, tells);
    assert.is(lab.findings[0]?.seq, lab.next - after.length);
    assert.ok((lab.findings[0]?.causes.length ?? 0) >= 2);
  });
  test(`${title}: an entry that the driver does not drop is known when the invalidation ends`, () => {
    const lab = play([...before, ...first, start, callback, end, ...after]);
    assert.is(lab.findings[0]?.invariant, 'mirror-stale');
    assert.is(lab.findings[0]?.seq, lab.next - after.length - 1);
    assert.match(
      lab.findings[0]?.message ?? '',
      /nic 0xffff888200000100 may .* an invalidation of the range has ended/,
    );
  });
  test(`${title}: one that it drops too late, too`, () => {
    const lab = play([...before, ...first, start, callback, end, unmap, ...after]);
    assert.equal(names(lab), ['mirror-stale']);
    assert.is(lab.findings[0]?.seq, lab.next - after.length - 2);
  });
  test(`${title}: an invalidation that comes after what it was for`, () => {
    const lab = play([...before, ...first, ...after, ...whole]);
    assert.is(lab.findings[0]?.invariant, tells);
  });
  test(`${title}: twice does no harm, a second end is one too many`, () => {
    assert.equal(play([...before, ...first, ...whole, ...whole, ...after]).findings, []);
    assert.equal(names(play([...before, ...first, ...whole, end, ...after])), ['invalidation-balance']);
  });
  test(`${title}: an end that is lost`, () => {
    assert.ok(
      names(play([...before, ...first, start, callback, unmap, ...after, GOES_ON])).includes('invalidation-balance'),
    );
  });
  if (span === ALL) {
    const short: Span = [MEMORY, MEMORY + 2 * PAGE - 1];
    test(`${title}: a driver that drops too little`, () => {
      const lab = play([...before, ...first, start, callback, unmaps(short), end, ...after]);
      assert.is(lab.findings[0]?.invariant, 'mirror-stale');
      assert.is(lab.findings[0]?.seq, lab.next - after.length - 1);
      assert.match(lab.findings[0]?.message ?? '', /^0x20002000-0x20003fff: /);
    });
    test(`${title}: an invalidation that is too short`, () => {
      const lab = play([...before, ...first, ...invalidated(type, short), ...after]);
      assert.is(lab.findings[0]?.invariant, tells);
      assert.match(lab.findings[0]?.message ?? '', /^0x20002000-/);
    });
  }
}

// ---- updates and sequence numbers --------------------------------------------------------------------------

for (const bound of [true, false]) {
  const where = bound ? '' : ', in a process that no fault names';
  test(`an update while an invalidation goes on of which the driver was told${where}`, () => {
    const lab = play(
      [started(CLEAR, ALL), told(ALL, 11), maps(ONE, READ, { notifierSeq: 11 }), ended(CLEAR, ALL)],
      bound,
    );
    assert.equal(names(lab), ['mirror-update']);
    assert.is(lab.findings[0]?.seq, lab.next - 2);
    assert.match(lab.findings[0]?.message ?? '', /was under way/);
    assert.equal(lab.findings[0]?.causes, [lab.next - 4, lab.next - 3, lab.next - 2]);
  });
  test(`an update before the driver is told waits for nobody, and is taken back${where}`, () => {
    assert.equal(
      play([...WRITTEN, started(CLEAR, ALL), maps(ONE, READ), ...invalidated(CLEAR, ALL).slice(1)], bound).findings,
      [],
    );
  });
  test(`an update with what was read before the invalidation${where}`, () => {
    const lab = play([...invalidated(CLEAR, ALL), maps(ALL, READ, { notifierSeq: 9 })], bound);
    assert.equal(names(lab), ['mirror-update']);
    assert.match(lab.findings[0]?.message ?? '', /read before an invalidation/);
  });
  test(`an update with what was read after it${where}`, () => {
    assert.equal(play([...invalidated(CLEAR, ALL), maps(ALL, READ, { notifierSeq: 11 })], bound).findings, []);
  });
  test(`device-private memory of somebody else${where}`, () => {
    const lab = play([maps(ALL, READ, { owner: OWNER, memory: OTHER_OWNER })], bound);
    assert.equal(names(lab), ['mirror-private']);
    assert.equal(play([maps(ALL, READ, { owner: OWNER, memory: OWNER })], bound).findings, []);
  });
  test(`a page that another driver holds exclusively${where}`, () => {
    const lab = play(
      [maps(ONE, ATOMIC, { owner: OWNER }), maps(ALL, READ, { owner: OTHER_OWNER }, OTHER_TABLE)],
      bound,
    );
    assert.ok(names(lab).includes('mirror-exclusive'));
  });
}

test('callbacks that are not recorded show by what they drop', () => {
  const late = maps(ONE, READ);
  const lab = play([maps(ALL, READ), started(CLEAR, ALL), unmaps(ALL), late, ended(CLEAR, ALL)], false);
  assert.equal(names(lab), ['mirror-update']);
  assert.equal(play([maps(ALL, READ), started(CLEAR, ALL), unmaps(ALL), ended(CLEAR, ALL), late], false).findings, []);
});

test('a driver may ignore migrations and exclusive access of its own', () => {
  for (const type of [MIGRATE, EXCLUDE]) {
    const own = { owner: OWNER, memory: type === MIGRATE ? OWNER : 0 };
    const flags = type === MIGRATE ? READ_WRITE : ATOMIC;
    const during = [started(type, ALL, { owner: OWNER }), maps(ALL, flags, own), ended(type, ALL)];
    assert.equal(play([...faults(true), maps(ALL, READ_WRITE, { owner: OWNER }), ...during, GOES_ON]).findings, []);
  }
});

test('an entry that only reads may outlive what takes rights away', () => {
  const protect = [started(PROTECTION_VMA, ALL), told(ALL, 11), ended(PROTECTION_VMA, ALL)];
  assert.equal(play([...faults(true), maps(ALL, READ), ...protect, GOES_ON]).findings, []);
  assert.equal(names(play([...WRITTEN, ...protect])), ['mirror-stale']);
});

test('an invalidation that must not block may be refused', () => {
  const refused = started(CLEAR, ALL, { flags: 0, tid: 9 });
  const again = started(CLEAR, ONE, { flags: 0, tid: 9 });
  const lab = play([...WRITTEN, refused, told(ALL, 11, 9), again, maps(ALL, READ_WRITE, { notifierSeq: 11 }), GOES_ON]);
  assert.equal(lab.findings, []);
});

// ---- what others do meanwhile ------------------------------------------------------------------------------

test('a fault is shown when it is over: a driver may have seen its page before', () => {
  const exchange = [started(CLEAR, ONE), told(ONE, 11), unmaps(ONE), ended(CLEAR, ONE)];
  const lab = play([
    ...faults(false),
    maps(ALL, READ, { notifierSeq: 1 }),
    ...exchange,
    maps(ONE, READ_WRITE, { notifierSeq: 11 }),
    fault(MEMORY, true),
    GOES_ON,
    ev('munmap', { addr: MEMORY + 8 * PAGE, lengthBytes: PAGE }),
    GOES_ON,
  ]);
  assert.equal(lab.findings, []);
});

test('a driver may store what mprotect is just about to change', () => {
  const call = ev('mprotect', { addr: MEMORY, lengthBytes: 4 * PAGE, prot: 1 });
  const good = play([...faults(true), call, maps(ALL, READ_WRITE), ...invalidated(PROTECTION_VMA, ALL), GOES_ON]);
  assert.equal(good.findings, []);
  assert.equal(names(play([...faults(true), call, GOES_ON, maps(ALL, READ_WRITE)])), ['mirror-rights']);
});

test('a fault that was lost in the recording: its invalidation shows that the page of zeros is gone', () => {
  const lab = play([...faults(false), ...invalidated(CLEAR, ALL), maps(ALL, READ_WRITE, { notifierSeq: 11 })]);
  assert.equal(lab.findings, []);
  const kept = [
    ...faults(false),
    ...invalidated(PROTECTION_VMA, ALL),
    GOES_ON,
    maps(ALL, READ_WRITE, { notifierSeq: 11 }),
  ];
  assert.equal(names(play(kept)), ['mirror-rights']);
});

test('a fault exchanges no more than it invalidates, though the page of zeros was huge', () => {
  const HUGE = 0x4000_0000;
  const page: Span = [HUGE, HUGE + PAGE - 1];
  const lab = play([
    ev('mmap', { addr: HUGE, lengthBytes: 0x20_0000, flags: 0x32, ret: HUGE }),
    fault(HUGE, false, WORKER),
    maps([HUGE, HUGE + 2 * PAGE - 1], READ, { notifierSeq: 1 }),
    ...invalidated(CLEAR, page),
    fault(HUGE, true),
    GOES_ON,
  ]);
  assert.equal(lab.findings, []);
});

test('the right to write to a page of zeros, or where the mapping does not give it', () => {
  assert.equal(names(play([...faults(false), maps(ALL, READ_WRITE)])), ['mirror-rights']);
  const readOnly = ev('mmap', { addr: 0x3000_0000, prot: 1, flags: 0x32, ret: 0x3000_0000 });
  assert.equal(names(play([readOnly, GOES_ON, maps([0x3000_0000, 0x3000_0fff], READ_WRITE)])), ['mirror-rights']);
});

test('pages that were there before the recording began are known from the driver', () => {
  const drops = ev('madvise', { addr: MEMORY, lengthBytes: PAGE, advice: 4 });
  assert.equal(play([maps(ALL, READ_WRITE), GOES_ON]).findings, []);
  assert.equal(names(play([maps(ALL, READ_WRITE), drops, GOES_ON])), ['mirror-stale']);
  assert.equal(names(play([maps(ALL, READ_WRITE), BINDS, drops, GOES_ON], false)), ['mirror-stale']);
});

test('a mirror that has ended holds nothing, and neither do those of a process that is gone', () => {
  const end = ev('mirrorEnd', { tid: WORKER, mirror: TABLE, mm: MM });
  const drops = ev('munmap', { addr: MEMORY, lengthBytes: 4 * PAGE });
  const lab = play([...WRITTEN, end, drops, GOES_ON]);
  assert.equal(lab.findings, []);
  assert.is(lab.world.notified.get(MM)?.mirrors.size, 0);
  lab.feed(ev('exit'));
  assert.is(lab.world.notified.size, 0);
});

test('of many mirrors, those that have entries in a range are told apart from the others', () => {
  const ids = [0xa0, 0xb0, 0xc0, 0xd0];
  const page = (index: number): Span => [MEMORY + index * PAGE, MEMORY + index * PAGE + PAGE - 1];
  const spread = ids.map((id, index) => maps(page(index), READ, {}, id));
  const both = maps(page(0), READ, {}, 0xd0);
  const gone = ev('mirrorEnd', { mirror: 0xb0, mm: MM });
  const lab = play([...spread, both, gone, started(CLEAR, ALL), unmaps(ALL, 1, 0xc0), ended(CLEAR, ALL)], false);
  assert.equal(names(lab), ['mirror-stale']);
  const found = lab.findings[0]?.message ?? '';
  assert.equal(found.match(/0x2\w+-0x2\w+: nic 0x\w+/g), [
    '0x20000000-0x20000fff: nic 0xa0',
    '0x20000000-0x20000fff: nic 0xd0',
    '0x20003000-0x20003fff: nic 0xd0',
  ]);
});
