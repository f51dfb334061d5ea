import { fc } from '../../core/property.js';
import * as assert from 'uvu/assert';
import { suite } from '../../core/testing.js';
import type { LockedPages } from '../memory/locked.js';
import { ev } from '../testing.js';
import { CHANGE_PROCESS_RULES } from './change-process.js';
import { CHARGE_RULES } from './charges.js';
import { allSeen, type Answer, Bench, type CallOptions, decidedBy, struct } from './testing.js';

const test = suite('iommufd and RLIMIT_MEMLOCK');

const PAGE = 4096;
const MEMORY = 0x1000_0000;
/** Where the mock IOMMU's addresses begin, in pages. */
const APERTURE = 0x1000;
const UID = 1000;
const IPC_LOCK = 1 << 14;
const RULE = 'pages.memlock';

const seen = new Set<string>();

interface Person {
  readonly tid?: number;
  readonly limitPages?: number;
  /** null: not told. */
  readonly caps?: number | null;
  readonly uid?: number | null;
}

/** Tells limit, capabilities and user id of a process. */
function tell(b: Bench, { tid = 1, limitPages, caps = 0, uid = UID }: Person): void {
  if (uid !== null) b.event(ev('creds', { tid, realUid: uid, ret: uid }));
  if (limitPages !== undefined) b.event(ev('prlimit', { tid, oldSoft: limitPages * PAGE, oldHard: limitPages * PAGE }));
  if (caps !== null) b.event(ev('creds', { call: 'capget', tid, effectiveCaps: caps, permittedCaps: caps }));
}

function bench(limitPages: number, more: Person = {}): Bench {
  const b = new Bench();
  b.mmap(MEMORY, 256 * PAGE);
  b.open();
  tell(b, { limitPages, ...more });
  return b;
}

function map(
  b: Bench,
  ioas: number,
  firstPage: number,
  pages: number,
  iovaPage: number,
  more: CallOptions = {},
): Answer {
  return b.ioctl(
    3,
    0x3b85,
    struct(40, [4, 7], [8, ioas], [16, MEMORY + firstPage * PAGE, 8], [24, pages * PAGE, 8], [32, iovaOf(iovaPage), 8]),
    more,
  );
}

function iovaOf(page: number): number {
  return (APERTURE + page) * PAGE;
}

function unmap(b: Bench, ioas: number, iovaPage: number, pages: number): void {
  decidedBy(b.unmap(ioas, iovaOf(iovaPage), pages * PAGE), '', 'unmap.ok');
}

function ofUser(b: Bench, uid = UID): Pick<LockedPages, 'pages' | 'maybePages'> {
  const { pages, maybePages } = b.world.userLocked.get(uid) ?? { pages: 0, maybePages: 0 };
  return { pages, maybePages };
}

function ofSpace(b: Bench, pid = 1): number {
  return b.world.spaceLocked.get(b.world.processes.get(pid)?.space ?? 0)?.pages ?? 0;
}

function keep(b: Bench): void {
  for (const rule of b.seen) seen.add(rule);
}

function refused(answer: Answer, rule = RULE): void {
  decidedBy(answer, 'ENOMEM', rule);
}

/** An access that pins pages. */
function access(b: Bench, ioas: number): number {
  return b.test(5, ioas, [20, 1]).u32(16);
}

function accessPages(b: Bench, fd: number, iovaPage: number, pages: number): Answer {
  return b.test(7, fd, [16, 0], [24, iovaOf(iovaPage), 8], [32, pages * PAGE, 8]);
}

test('MAP into an IOAS with a domain asks the limit, without one it pins nothing', () => {
  const b = bench(4);
  const ioas = b.ioasAlloc();
  decidedBy(map(b, ioas, 0, 64, 64), '', 'map.ok');
  assert.equal(ofUser(b), { pages: 0, maybePages: 0 });
  unmap(b, ioas, 64, 64);
  b.mockDomain(ioas);
  decidedBy(map(b, ioas, 0, 3, 64), '', 'map.ok');
  refused(map(b, ioas, 3, 2, 128));
  assert.match(
    b.said.get(RULE) ?? '',
    /^user 1000 has 12 KiB locked and asks for 8 KiB, 20 KiB in all; RLIMIT_MEMLOCK is 16 KiB \(event \d+\), and CAP_IPC_LOCK is missing/,
  );
  decidedBy(map(b, ioas, 3, 1, 128), '', 'map.ok');
  assert.equal(ofUser(b), { pages: 4, maybePages: 0 });
  unmap(b, ioas, 64, 3);
  assert.equal([ofUser(b), ofSpace(b)], [{ pages: 1, maybePages: 0 }, 0]);
  keep(b);
});

test('a page that cannot be had decides before the limit', () => {
  const b = bench(1);
  const ioas = b.ioasAlloc();
  b.mockDomain(ioas);
  decidedBy(map(b, ioas, 250, 16, 64), 'EFAULT', 'pages.fault');
  decidedBy(b.map(ioas, MEMORY, 8 * PAGE, 0, 0x10), 'EOPNOTSUPP', 'map.flags');
});

test('the first domain pins what is mapped: an attach asks the limit, and says the figures', () => {
  const b = bench(4);
  const ioas = b.ioasAlloc();
  map(b, ioas, 0, 3, 64);
  map(b, ioas, 8, 2, 128);
  refused(b.mockDomain(ioas).answer);
  assert.match(b.said.get(RULE) ?? '', /user 1000 has 0 KiB locked and asks for 20 KiB, 20 KiB in all/);
  assert.equal(ofUser(b), { pages: 0, maybePages: 0 });
  unmap(b, ioas, 128, 2);
  const { standing } = b.mockDomain(ioas);
  assert.is(ofUser(b).pages, 3);
  const second = b.mockDomain(ioas);
  assert.is(ofUser(b).pages, 3);
  b.destroy(second.standing);
  assert.is(ofUser(b).pages, 3);
  b.destroy(standing);
  assert.is(ofUser(b).pages, 0);
});

test('an attach that was short of memory says the figures, too', () => {
  const b = bench(64, { caps: null });
  const ioas = b.ioasAlloc();
  map(b, ioas, 0, 3, 64);
  const answer = b.ioctl(3, 0x3ba0, struct(72, [4, 2], [8, ioas]), { recorded: { ret: -1, errno: 'ENOMEM' } });
  assert.is(answer.verdict, 'learned');
  assert.match(
    b.said.get('mock-domain.ok') ?? '',
    /12 KiB in all; RLIMIT_MEMLOCK is 256 KiB \(event \d+\), which is enough unless/,
  );
  assert.equal(ofUser(b), { pages: 0, maybePages: 0 });
});

test('a copy shares pages, which count once', () => {
  const b = bench(4);
  const ioas = b.ioasAlloc();
  const other = b.ioasAlloc();
  b.mockDomain(ioas);
  b.mockDomain(other);
  map(b, ioas, 0, 4, 64);
  decidedBy(b.copy(ioas, iovaOf(64), other, 4 * PAGE, iovaOf(64)), '', 'copy.ok');
  assert.is(ofUser(b).pages, 4);
  unmap(b, ioas, 64, 4);
  assert.is(ofUser(b).pages, 4);
  unmap(b, other, 64, 4);
  assert.is(ofUser(b).pages, 0);
  // Mapped twice by its address, it is pinned and counts twice.
  map(b, ioas, 0, 3, 64);
  refused(map(b, other, 0, 3, 64));
});

test('an access pins what no domain holds, and keeps it when the domain goes', () => {
  const b = bench(4);
  const ioas = b.ioasAlloc();
  const fd = access(b, ioas);
  map(b, ioas, 0, 16, 64);
  decidedBy(accessPages(b, fd, 64, 2), '', 'access-pages.ok');
  decidedBy(accessPages(b, fd, 65, 2), '', 'access-pages.ok');
  assert.is(ofUser(b).pages, 3);
  refused(accessPages(b, fd, 70, 2));
  refused(b.mockDomain(ioas).answer);
  tell(b, { limitPages: 16 });
  const { standing } = b.mockDomain(ioas);
  assert.is(ofUser(b).pages, 16);
  b.destroy(standing);
  assert.is(ofUser(b).pages, 3);
  b.close(fd);
  assert.is(ofUser(b).pages, 0);
});

test('all processes of a user pay into one account, each under its own limit', () => {
  const b = bench(8);
  const ioas = b.ioasAlloc();
  b.mockDomain(ioas);
  map(b, ioas, 0, 6, 64);
  b.event(ev('fork', { ret: 2 }));
  refused(map(b, ioas, 0, 4, 128, { tid: 2 }));
  tell(b, { tid: 2, limitPages: 10 });
  decidedBy(map(b, ioas, 0, 4, 128, { tid: 2 }), '', 'map.ok');
  assert.equal([ofUser(b).pages, ofSpace(b), ofSpace(b, 2)], [10, 0, 0]);
  // Another user has room of its own.
  b.event(ev('creds', { call: 'setresuid', tid: 2, realUid: 7, effectiveUid: 7, savedUid: 7 }));
  decidedBy(map(b, ioas, 16, 4, 192, { tid: 2 }), '', 'map.ok');
  assert.equal([ofUser(b).pages, ofUser(b, 7).pages], [10, 4]);
  b.event(ev('exit', { tid: 2 }));
  b.unmap(ioas, iovaOf(128), 128 * PAGE);
  assert.equal([ofUser(b).pages, ofUser(b, 7).pages], [6, 0]);
});

test('a user whose id is told late keeps what it has pinned', () => {
  const b = bench(8, { uid: null });
  const ioas = b.ioasAlloc();
  b.mockDomain(ioas);
  map(b, ioas, 0, 6, 64);
  assert.is([...b.world.userLocked.values()].length, 1);
  tell(b, {});
  assert.equal([ofUser(b).pages, b.world.userLocked.size], [6, 1]);
  refused(map(b, ioas, 6, 3, 128));
  unmap(b, ioas, 64, 6);
  assert.is(ofUser(b).pages, 0);
});

test('RLIMIT_MODE 1 charges the address space, with what mlock locked', () => {
  const b = bench(8);
  const option = b.ioctl(3, 0x3b87, struct(24, [8, 0, 2], [16, 1, 8]), { recorded: { ret: 0, errno: '' } });
  assert.equal([option.errno, option.rule, option.verdict], ['EPERM', 'option.rlimit-capability', 'diverge']);
  const ioas = b.ioasAlloc();
  b.mockDomain(ioas);
  b.event(ev('mlock', { addr: MEMORY, lengthBytes: 5 * PAGE }));
  refused(map(b, ioas, 16, 4, 64));
  assert.match(b.said.get(RULE) ?? '', /^the process has 20 KiB locked \(20 KiB by mlock\) and asks for 16 KiB/);
  decidedBy(map(b, ioas, 16, 3, 64), '', 'map.ok');
  assert.equal([ofUser(b).pages, ofSpace(b)], [0, 8]);
  unmap(b, ioas, 64, 3);
  assert.is(ofSpace(b), 5);
});

test('with CAP_IPC_LOCK nobody pays, also when it is given up later', () => {
  const b = bench(1, { caps: IPC_LOCK });
  const ioas = b.ioasAlloc();
  b.mockDomain(ioas);
  decidedBy(map(b, ioas, 0, 64, 64), '', 'map.ok');
  tell(b, { caps: 0 });
  unmap(b, ioas, 64, 64);
  assert.equal(ofUser(b), { pages: 0, maybePages: 0 });
  refused(map(b, ioas, 0, 2, 64));
});

test('a limit without a capability told: an answer teaches it', () => {
  const b = bench(4, { caps: null });
  const ioas = b.ioasAlloc();
  b.mockDomain(ioas);
  decidedBy(map(b, ioas, 0, 4, 64), '', 'map.ok');
  assert.equal(ofUser(b), { pages: 0, maybePages: 4 });
  const ENOMEM = { recorded: { ret: -1, errno: 'ENOMEM' }, learns: true } as const;
  assert.is(map(b, ioas, 4, 1, 128, ENOMEM).verdict, 'learned');
  assert.is(map(b, ioas, 4, 1, 128, ENOMEM).verdict, 'match');
  assert.is(map(b, ioas, 4, 1, 128, { learns: true }).verdict, 'learned');
  assert.is(map(b, ioas, 5, 9, 192).verdict, 'match');
});

test('what other processes of the user hold shows in an ENOMEM within the limit', () => {
  const b = bench(16);
  const ioas = b.ioasAlloc();
  b.mockDomain(ioas);
  const ENOMEM = { recorded: { ret: -1, errno: 'ENOMEM' }, learns: true } as const;
  assert.is(map(b, ioas, 0, 4, 64, ENOMEM).verdict, 'learned');
  assert.match(b.said.get('map.ok') ?? '', /which is enough unless other processes of the user, or io_uring/);
  assert.is(b.world.userLocked.get(UID)?.otherPages, 13);
  assert.is(map(b, ioas, 0, 5, 64, ENOMEM).verdict, 'match');
  assert.match(
    b.said.get(RULE) ?? '',
    /has 0 KiB locked, with at least 52 KiB more that event \d+ showed, and asks for 20/,
  );
  decidedBy(map(b, ioas, 0, 3, 64), '', 'map.ok');
  // A success against it: others have let go.
  assert.is(map(b, ioas, 4, 2, 128, { learns: true }).verdict, 'learned');
  assert.is(b.world.userLocked.get(UID)?.otherPages, 0);
  assert.is(map(b, ioas, 8, 11, 192).verdict, 'match');
  refused(map(b, ioas, 32, 1, 224));
});

test('RLIMIT_MODE without a capability told: an answer teaches it', () => {
  const set = (b: Bench, more: CallOptions): Answer => b.ioctl(3, 0x3b87, struct(24, [8, 0, 2], [16, 1, 8]), more);
  const EPERM = { recorded: { ret: -1, errno: 'EPERM' }, learns: true } as const;
  const not = bench(4, { caps: null });
  assert.match(set(not, EPERM).unknown, /CAP_SYS_RESOURCE was not recorded/);
  assert.is(set(not, EPERM).verdict, 'match');
  const left = bench(4, { caps: null, uid: null });
  left.event(ev('creds', { call: 'setresuid', realUid: 7, effectiveUid: 7, savedUid: 7 }));
  assert.is(set(left, EPERM).verdict, 'match');
  assert.is(set(left, { learns: true }).verdict, 'learned');
  assert.is(set(left, {}).verdict, 'match');
});

// ---- CHANGE_PROCESS -------------------------------------------------------------------------------------------

/** 6 pages of a memory file, mapped and pinned by process 1; process 2 is its child. */
function fileOfParent(limitPages: number, mode = 0): Bench {
  const b = bench(limitPages, { caps: mode === 0 ? 0 : 1 << 24 });
  b.event(ev('open', { call: 'memfd_create', path: 'm', ret: 9 }));
  b.event(ev('other', { call: 'ftruncate', text: `9, ${64 * PAGE}` }));
  if (mode === 1) decidedBy(b.ioctl(3, 0x3b87, struct(24, [8, 0, 2], [16, 1, 8])), '', 'option.ok');
  const ioas = b.ioasAlloc();
  b.mockDomain(ioas);
  const request = struct(40, [4, 7], [8, ioas], [12, 9], [16, 0, 8], [24, 6 * PAGE, 8], [32, iovaOf(64), 8]);
  decidedBy(b.ioctl(3, 0x3b8f, request), '', 'map.ok');
  b.event(ev('fork', { ret: 2 }));
  return b;
}

function change(b: Bench): Answer {
  return b.ioctl(3, 0x3b92, struct(8), { tid: 2 });
}

test('CHANGE_PROCESS charges the caller before the old charge goes', () => {
  const b = fileOfParent(11);
  // One user: both charges stand for a moment.
  refused(change(b), 'change-process.memlock');
  assert.match(b.said.get('change-process.memlock') ?? '', /has 24 KiB locked and asks for 24 KiB, 48 KiB in all/);
  tell(b, { tid: 2, limitPages: 12 });
  decidedBy(change(b), '', 'change-process.ok');
  assert.is(ofUser(b).pages, 6);
  const pages = b.world.ioases.get(1)?.areas.first()?.pages;
  assert.equal([pages?.pid, pages?.space], [2, b.world.processes.get(2)?.space]);
  keep(b);
});

test('CHANGE_PROCESS of nothing, and of memory that cannot be moved', () => {
  const b = new Bench();
  b.open();
  const moved = (reserved = 0): Answer => b.ioctl(3, 0x3b92, struct(8, [4, reserved]));
  decidedBy(moved(1), 'EOPNOTSUPP', 'change-process.reserved');
  const ioas = b.ioasAlloc();
  decidedBy(moved(), '', 'change-process.ok');
  b.map(ioas, MEMORY, PAGE);
  decidedBy(moved(), 'EINVAL', 'change-process.user-memory');
  keep(b);
});

test('CHANGE_PROCESS to another user, and between address spaces', () => {
  const b = fileOfParent(6);
  b.event(ev('creds', { call: 'setresuid', tid: 2, realUid: 7, effectiveUid: 7, savedUid: 7 }));
  decidedBy(change(b), '', 'change-process.ok');
  assert.equal([ofUser(b).pages, ofUser(b, 7).pages], [0, 6]);
  const spaces = fileOfParent(6, 1);
  assert.equal([ofSpace(spaces), ofSpace(spaces, 2)], [6, 0]);
  decidedBy(change(spaces), '', 'change-process.ok');
  assert.equal([ofSpace(spaces), ofSpace(spaces, 2)], [0, 6]);
  decidedBy(change(spaces), '', 'change-process.ok');
  assert.is(ofSpace(spaces, 2), 6);
});

// ---- laws -----------------------------------------------------------------------------------------------------

test('law: whatever was done, the account holds the pinned pages, and nothing when all is gone', () => {
  const step = fc.record({
    op: fc.constantFrom('map', 'map', 'copy', 'unmap', 'attach', 'detach', 'access', 'fork'),
    slot: fc.nat(5),
    pages: fc.integer({ min: 1, max: 16 }),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
      const b = bench(1 << 20);
      const ioases = [b.ioasAlloc(), b.ioasAlloc()];
      const fds = ioases.map((ioas) => access(b, ioas));
      const domains: number[] = [];
      let pid = 2;
      for (const { op, slot, pages } of steps) {
        const ioas = ioases[slot % 2] as number;
        const other = ioases[(slot + 1) % 2] as number;
        const iova = 64 * (slot + 1);
        if (op === 'map') map(b, ioas, slot * 16, pages, iova);
        else if (op === 'copy') b.copy(ioas, iovaOf(iova), other, pages * PAGE, iovaOf(iova));
        else if (op === 'unmap') b.unmap(ioas, iovaOf(iova), 16 * PAGE);
        else if (op === 'attach') domains.push(b.mockDomain(ioas).standing);
        else if (op === 'detach') b.destroy(domains.pop() ?? 99);
        else if (op === 'access') accessPages(b, fds[slot % 2] as number, iova, pages);
        else b.event(ev('fork', { ret: pid++ }));
        assert.equal(ofUser(b), { pages: pinnedPages(b), maybePages: 0 });
      }
      while (pid > 2) b.event(ev('exit', { tid: --pid }));
      b.event(ev('exit'));
      assert.equal(ofUser(b), { pages: 0, maybePages: 0 });
    }),
    { numRuns: 60 },
  );
});

/** Counted page by page, by what the areas and the table of shared pages say. */
function pinnedPages(b: Bench): number {
  const pinned = new Set<string>();
  for (const ioas of b.world.ioases.values()) {
    for (const { pages, startByte, start, last, pinnedSince } of ioas.areas.values()) {
      const first = Math.floor(Number(startByte) / PAGE);
      const count = (Number(last) - Number(start) + 1) / PAGE;
      if (pinnedSince >= 0) for (let i = 0; i < count; i++) pinned.add(`${pages.id}/${first + i}`);
    }
  }
  for (const [id, { runs }] of b.world.sharedPages)
    for (const { start, last } of runs.values())
      for (let page = Number(start); page <= Number(last); page++) pinned.add(`${id}/${page}`);
  return pinned.size;
}

test('every rule has a row', () => allSeen(seen, [CHARGE_RULES, CHANGE_PROCESS_RULES]));
