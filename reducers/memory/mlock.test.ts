import { fc } from '../../core/property.js';
import * as assert from 'uvu/assert';
import type { Event } from '../../core/event.js';
import { suite } from '../../core/testing.js';
import { ev, replay } from '../testing.js';
import type { World } from '../world.js';
import { NOTHING_LOCKED, type SpaceLocked } from './locked.js';

const test = suite('memory/mlock');

const PAGE = 4096;
const BASE = 0x7000_0000_0000;
const START = [ev('exec'), ev('brk', { ret: 0x5555_0000_0000 })];

const at = (page: number): number => BASE + page * PAGE;
const mmap = (page: number, pages: number, more: object = {}): Event =>
  ev('mmap', { ret: at(page), lengthBytes: pages * PAGE, ...more });
const range = (page: number, pages: number): { addr: number; lengthBytes: number } => ({
  addr: at(page),
  lengthBytes: pages * PAGE,
});
const mlock = (page: number, pages: number, more: object = {}): Event =>
  ev('mlock', { ...range(page, pages), ...more });
const mlockall = (flags: number): Event => ev('mlock', { call: 'mlockall', flags });
const CURRENT = 1;
const FUTURE = 2;

function lockedOf(world: World, pid = 1): SpaceLocked {
  return world.spaceLocked.get(world.processes.get(pid)?.space ?? 0) ?? NOTHING_LOCKED;
}

test('how many pages are locked after each call', () => {
  const failed = { ret: -1 as const, errno: 'ENOMEM' };
  const rows: readonly [events: readonly Event[], pages: number, what: string][] = [
    [[mlock(0, 4)], 4, 'mlock'],
    [[mlock(0, 4), mlock(2, 4)], 6, 'again, in part'],
    [[ev('mlock', { addr: at(0) + 1, lengthBytes: PAGE })], 2, 'whole pages'],
    [[ev('mlock', { addr: at(0), lengthBytes: 0 })], 0, 'nothing'],
    [[mlock(0, 4, { call: 'mlock2', flags: 1 })], 4, 'on fault'],
    [[mlock(0, 4, failed)], 0, 'refused'],
    [[mlock(0, 8), ev('mlock', { call: 'munlock', ...range(2, 2) })], 6, 'munlock'],
    [[mlock(0, 8), ev('mlock', { call: 'munlock', ...range(2, 2), ...failed })], 6, 'munlock that met a hole'],
    [[mlock(0, 8), ev('munmap', range(6, 10))], 6, 'munmap'],
    [[mlock(0, 8), mmap(0, 4)], 4, 'replaced'],
    [[mlock(0, 8), ev('madvise', { ...range(0, 8), advice: 4 })], 8, 'discarded'],
    [
      [mlock(0, 4), ev('mremap', { addr: at(0), oldLengthBytes: 4 * PAGE, newLengthBytes: 9 * PAGE, ret: at(20) })],
      9,
      'moved',
    ],
    [
      [mlock(0, 4), ev('mremap', { addr: at(0), oldLengthBytes: 4 * PAGE, newLengthBytes: PAGE, ret: at(0) })],
      1,
      'shrunk',
    ],
    [
      [ev('mremap', { addr: at(0), oldLengthBytes: PAGE, newLengthBytes: 9 * PAGE, ret: at(20) })],
      0,
      'moved without lock',
    ],
    [[mmap(50, 3, { flags: 0x2022 })], 3, 'MAP_LOCKED'],
    [[mlockall(FUTURE), mmap(50, 3)], 3, 'MCL_FUTURE'],
    [[mlockall(FUTURE), ev('brk', { ret: 0x5555_0000_2000 })], 2, 'MCL_FUTURE and the heap'],
    [[mlockall(FUTURE), mlockall(CURRENT), mmap(50, 3)], 16, 'MCL_CURRENT alone ends it'],
    [[mlockall(CURRENT)], 16, 'all that is there'],
    [[mlockall(CURRENT | FUTURE), ev('mlock', { call: 'munlockall' }), mmap(50, 3)], 0, 'munlockall'],
    [[mmap(50, 512, { flags: 0x4_0022 }), mlock(50, 512)], 0, 'huge pages of hugetlbfs'],
    [[mlock(0, 4), ev('exec')], 0, 'execve'],
  ];
  for (const [events, pages, what] of rows) {
    const locked = lockedOf(replay([...START, mmap(0, 16), ...events]));
    assert.equal([locked.pages, locked.mlockedPages], [pages, pages], what);
  }
});

test('device memory is never locked', () => {
  const open = ev('open', { path: '/dev/vfio/7', ret: 3, retPath: 'anon_inode:[vfio-device]' });
  const world = replay([...START, open, mmap(0, 4, { fd: 3, flags: 1 }), mmap(4, 4), mlock(0, 8)]);
  assert.is(lockedOf(world).pages, 4);
});

test('a child begins without locked memory, its parent keeps it', () => {
  const world = replay([
    ...START,
    mmap(0, 16),
    mlock(0, 4),
    mlockall(FUTURE),
    ev('fork', { ret: 2 }),
    mmap(50, 1, { tid: 2 }),
  ]);
  assert.is(lockedOf(world, 2).pages, 0);
  assert.is(lockedOf(world).pages, 4);
});

test('what mlockall locked of what execve mapped is not known, until munlockall', () => {
  const world = replay([...START, mmap(0, 16), mlockall(CURRENT)]);
  assert.is(lockedOf(world).moreSince, 3);
  assert.is(lockedOf(replay([ev('mlock', { call: 'munlockall' })], {}, world, 1, 4)).moreSince, -1);
});

test('an account goes with its address space', () => {
  const world = replay([...START, mmap(0, 16), mlock(0, 4), ev('exit')]);
  assert.is(world.spaceLocked.size, 0);
});

test('law: as many pages as a list of pages has, in any batches', () => {
  const step = fc.record({ op: fc.nat(3), page: fc.nat(15), pages: fc.integer({ min: 1, max: 8 }) });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 30 }), fc.integer({ min: 1, max: 7 }), (steps, batch) => {
      const naive = new Set<number>();
      const events: Event[] = [...START, mmap(0, 24)];
      for (const { op, page, pages } of steps) {
        const all = Array.from({ length: pages }, (_, i) => page + i);
        if (op === 0 || op === 1) {
          events.push(mlock(page, pages));
          for (const each of all) naive.add(each);
        } else {
          events.push(op === 2 ? ev('mlock', { call: 'munlock', ...range(page, pages) }) : mmap(page, pages));
          for (const each of all) naive.delete(each);
        }
      }
      const world = replay(events, {}, undefined, batch);
      const locked = lockedOf(world);
      assert.equal([locked.pages, locked.mlockedPages], [naive.size, naive.size]);
    }),
  );
});
