import { fc } from '../../core/property.js';
import * as assert from 'uvu/assert';
import type { Event } from '../../core/event.js';
import { suite } from '../../core/testing.js';
import { add, mul, sub, type U64 } from '../../core/u64.js';
import { ev, hashOf, replay } from '../testing.js';
import { emptyWorld, type World } from '../world.js';
import { MADV_DOFORK, MADV_DONTFORK, MREMAP_DONTUNMAP } from './flags.js';
import { VMA_DONTFORK } from './state.js';

const test = suite('memory/reduce');

/** The model to compare with: one entry per page, changed page by page. */
interface Page {
  readonly prot: number;
  readonly file: number;
  readonly offset: U64;
  readonly dontFork: boolean;
  /** `seq` of the mmap. */
  readonly since: number;
}
type Pages = Map<number, Page>;

const PAGE = 4096;
const PAGES = 48;

type Op =
  | { op: 'mmap'; at: number; pages: number; prot: number; file: boolean; offset: number }
  | { op: 'munmap'; at: number; pages: number }
  | { op: 'mprotect'; at: number; pages: number; prot: number; recorded: boolean }
  | { op: 'advise'; at: number; pages: number; dontFork: boolean }
  | { op: 'mremap'; at: number; pages: number; to: number; newPages: number; keep: boolean };

const place = fc.nat(PAGES - 1);
const count = fc.integer({ min: 1, max: 12 });
const prot = fc.constantFrom(0, 1, 3);
const operation: fc.Arbitrary<Op> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      op: fc.constant('mmap' as const),
      at: place,
      pages: count,
      prot,
      file: fc.boolean(),
      offset: fc.nat(20),
    }),
  },
  { weight: 3, arbitrary: fc.record({ op: fc.constant('munmap' as const), at: place, pages: count }) },
  {
    weight: 3,
    arbitrary: fc.record({
      op: fc.constant('mprotect' as const),
      at: place,
      pages: count,
      prot,
      recorded: fc.boolean(),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ op: fc.constant('advise' as const), at: place, pages: count, dontFork: fc.boolean() }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      op: fc.constant('mremap' as const),
      at: place,
      pages: count,
      to: place,
      newPages: count,
      keep: fc.boolean(),
    }),
  },
);

function range(at: number, pages: number): number[] {
  return Array.from({ length: pages }, (_, index) => at + index);
}

/** Does the operation on the pages; gives the event that records it, or undefined where the kernel would refuse. */
function perform(op: Op, pages: Pages, base: U64, seq: number): Event | undefined {
  const address = (page: number): U64 => add(base, page * PAGE);
  const addr = address(op.at);
  const lengthBytes = op.pages * PAGE;
  switch (op.op) {
    case 'mmap':
      for (const page of range(op.at, op.pages)) {
        const offset = op.file ? (op.offset + page - op.at) * PAGE : address(page);
        pages.set(page, { prot: op.prot, file: op.file ? 1 : 0, offset, dontFork: false, since: seq });
      }
      return ev('mmap', {
        addr,
        lengthBytes: lengthBytes - 100,
        prot: op.prot,
        flags: op.file ? 0x11 : 0x32,
        fd: op.file ? 3 : -1,
        offset: op.offset * PAGE,
        ret: addr,
      });
    case 'munmap':
      for (const page of range(op.at, op.pages)) pages.delete(page);
      return ev('munmap', { addr, lengthBytes });
    case 'mprotect': {
      let failed = false;
      for (const page of range(op.at, op.pages)) {
        const was = pages.get(page);
        failed ||= was === undefined;
        if (was !== undefined && !failed) pages.set(page, { ...was, prot: op.prot });
      }
      const result = failed ? ({ ret: -1, errno: 'ENOMEM' } as const) : {};
      const outcome = op.recorded ? result : { ret: null };
      return ev('mprotect', { addr, lengthBytes, prot: op.prot, ...outcome });
    }
    case 'advise': {
      let hole = false;
      for (const page of range(op.at, op.pages)) {
        const was = pages.get(page);
        hole ||= was === undefined;
        if (was !== undefined) pages.set(page, { ...was, dontFork: op.dontFork });
      }
      const outcome = hole ? ({ ret: -1, errno: 'ENOMEM' } as const) : {};
      return ev('madvise', { addr, lengthBytes, advice: op.dontFork ? MADV_DONTFORK : MADV_DOFORK, ...outcome });
    }
    case 'mremap':
      return performRemap(op, pages, address);
  }
}

function performRemap(
  op: Extract<Op, { op: 'mremap' }>,
  pages: Pages,
  address: (page: number) => U64,
): Event | undefined {
  const source = range(op.at, op.pages).map((page) => pages.get(page));
  if (source.some((page) => page === undefined)) return undefined;
  const inPlace = op.to === op.at;
  const apart = op.to + op.newPages <= op.at || op.at + op.pages <= op.to;
  if (!inPlace && !apart) return undefined;
  if (op.keep && (inPlace || op.newPages !== op.pages)) return undefined;
  const lastPage = source.at(-1) as Page;
  const result = range(0, op.newPages).map((index): Page => {
    const beyond = index - op.pages + 1;
    if (beyond <= 0) return source[index] as Page;
    return { ...lastPage, offset: add(lastPage.offset, beyond * PAGE) };
  });
  if (!op.keep) for (const page of range(op.at, op.pages)) pages.delete(page);
  result.forEach((page, index) => pages.set(op.to + index, page));
  return ev('mremap', {
    addr: address(op.at),
    oldLengthBytes: op.pages * PAGE,
    newLengthBytes: op.newPages * PAGE,
    flags: inPlace ? 1 : 3 | (op.keep ? MREMAP_DONTUNMAP : 0),
    newAddr: inPlace ? 0 : address(op.to),
    ret: address(op.to),
  });
}

/** The state's VMAs, page by page. */
function pagesOf(world: World, pid: number, base: U64): Pages {
  const pages: Pages = new Map();
  const space = world.spaces.get(world.processes.get(pid)?.space ?? 0);
  let before: U64 = 0;
  for (const vma of space?.vmas.values() ?? []) {
    assert.ok(vma.start >= before && vma.last >= vma.start, 'VMAs are in order and apart');
    before = add(vma.last, 1);
    const first = Number(sub(vma.start, base)) / PAGE;
    const length = (Number(sub(vma.last, vma.start)) + 1) / PAGE;
    for (let index = 0; index < length; index++) {
      const offset = add(vma.offset, mul(index, PAGE));
      const dontFork = (vma.traits & VMA_DONTFORK) !== 0;
      pages.set(first + index, { prot: vma.prot, file: vma.file === 0 ? 0 : 1, offset, dontFork, since: vma.since });
    }
  }
  return pages;
}

function sorted(pages: Pages): [number, Page][] {
  return [...pages].sort((a, b) => a[0] - b[0]);
}

function checkCounts(world: World): void {
  const spacesOf = new Map<number, number>();
  for (const space of world.spaces.values()) {
    const counts = new Map<number, number>();
    let dontFork = 0;
    for (const vma of space.vmas.values()) {
      if (vma.file !== 0) counts.set(vma.file, (counts.get(vma.file) ?? 0) + 1);
      if (vma.traits & VMA_DONTFORK) dontFork++;
    }
    assert.equal(
      [...space.fileVmas],
      [...counts].sort((a, b) => a[0] - b[0]),
    );
    assert.is(space.dontForkVmas, dontFork);
    for (const file of counts.keys()) spacesOf.set(file, (spacesOf.get(file) ?? 0) + 1);
  }
  for (const file of world.files.values()) assert.is(file.vmaRefs, spacesOf.get(file.id) ?? 0);
}

const EXEC = ev('exec');
const OPEN = ev('open', { path: '/tmp/file', flags: 2, ret: 3 });

for (const base of [0x7f00_0000_0000, 2n ** 55n]) {
  test(`random calls agree with a page-by-page model at ${base.toString(16)}`, () => {
    fc.assert(
      fc.property(fc.array(operation, { maxLength: 40 }), (ops) => {
        const pages: Pages = new Map();
        const events: Event[] = [EXEC, OPEN];
        for (const op of ops) {
          const event = perform(op, pages, base, events.length);
          if (event !== undefined) events.push(event);
        }
        const world = replay(events);
        assert.equal(sorted(pagesOf(world, 1, base)), sorted(pages));
        checkCounts(world);
        assert.is(hashOf(replay(events, {}, emptyWorld(), 1)), hashOf(world), 'batches of 1 and of all');
      }),
      { numRuns: 150 },
    );
  });
}

test('fork copies what is not DONTFORK, both sides go on by themselves, snapshots stay', () => {
  fc.assert(
    fc.property(fc.array(operation, { maxLength: 15 }), fc.array(operation, { maxLength: 15 }), (first, second) => {
      const base = 0x7f00_0000_0000;
      const parent: Pages = new Map();
      const events: Event[] = [EXEC, OPEN];
      for (const op of first) events.push(...listed(perform(op, parent, base, events.length)));
      const before = replay(events);
      const hashBefore = hashOf(before);
      const child: Pages = new Map([...parent].filter(([, page]) => !page.dontFork));
      const more: Event[] = [ev('fork', { ret: 2 })];
      for (const [index, op] of second.entries()) {
        const tid = 1 + (index % 2);
        const event = perform(op, tid === 1 ? parent : child, base, events.length + more.length);
        if (event !== undefined) more.push({ ...event, tid });
      }
      const after = replay(more, {}, before, 4096, events.length);
      assert.equal(sorted(pagesOf(after, 1, base)), sorted(parent));
      assert.equal(sorted(pagesOf(after, 2, base)), sorted(child));
      checkCounts(after);
      assert.is(hashOf(before), hashBefore, 'the snapshot before is untouched');
      assert.is(hashOf(replay(more, {}, before, 1, events.length)), hashOf(after), 'batches of 1 and of all');
      const gone = replay([ev('exit', { tid: 2 }), ev('exit', { tid: 1 })], {}, after);
      assert.is(gone.spaces.size + gone.files.size + gone.fdTables.size + gone.processes.size + gone.threads.size, 0);
    }),
    { numRuns: 150 },
  );
});

function listed(event: Event | undefined): Event[] {
  return event === undefined ? [] : [event];
}

test('mremap moves the mappings of a range each by itself: holes, and what stands at their places, stay', () => {
  const base = 0x2000_0000;
  const at = (page: number): number => base + page * PAGE;
  const fixed = (page: number, pages: number): Event =>
    ev('mmap', { addr: at(page), lengthBytes: pages * PAGE, flags: 0x32, ret: at(page) });
  const remap = (length: number): Event =>
    ev('mremap', {
      addr: at(0),
      oldLengthBytes: 6 * PAGE,
      newLengthBytes: length * PAGE,
      flags: 3,
      newAddr: at(20),
      ret: at(20),
    });
  const known = [EXEC, ev('brk', { ret: 0x5555_0000_0000 }), ev('mmap', { ret: 0x7f10_0000_0000 })];
  const mapped = (events: Event[]): number[] => sorted(pagesOf(replay(events), 1, base)).map(([page]) => page);
  const calls = [fixed(0, 2), fixed(4, 2), fixed(20, 7)];
  const below = (pages: number[]): number[] => pages.filter((page) => page < 40);
  assert.equal(below(mapped([...known, ...calls, remap(6)])), [20, 21, 22, 23, 24, 25, 26]);
  assert.equal(below(mapped([...known, fixed(0, 2), fixed(4, 2), remap(6)])), [20, 21, 24, 25]);
  assert.equal(
    below(mapped([EXEC, fixed(0, 2), fixed(4, 2), remap(6)])),
    [20, 21, 22, 23, 24, 25],
    'memory that nobody told of moves, too',
  );
});

test('pieces of one mapping that become equal again are one run', () => {
  const calls = [
    EXEC,
    ev('mmap', { lengthBytes: 65536, ret: 0x10000 }),
    ev('mmap', { lengthBytes: 4096, ret: 0x20000 }),
  ];
  const cut = [ev('mprotect', { addr: 0x14000, prot: 0 }), ev('mprotect', { addr: 0x16000, prot: 0 })];
  const runs = (events: Event[]): number => replay(events).spaces.first()?.vmas.size ?? 0;
  assert.is(runs([...calls, ...cut]), 6);
  const healed = [...calls, ...cut, ev('mprotect', { addr: 0x10000, lengthBytes: 65536, prot: 3 })];
  assert.is(runs(healed), 2, 'the second mapping stays by itself: another call made it');
});

test('brk: the first answer is the start of the heap, then it grows and shrinks by pages', () => {
  const heap = 0x5555_5555_0000;
  const events = [
    EXEC,
    ev('brk', { ret: heap + 0x10 }),
    ev('brk', { addr: heap + 0x5000, ret: heap + 0x5000 }),
    ev('brk', { addr: heap + 0x9001, ret: heap + 0x9001 }),
    ev('brk', { addr: 2 ** 50, ret: heap + 0x9001 }),
  ];
  const grown = replay(events);
  const vmas = [...(grown.spaces.first()?.vmas.values() ?? [])];
  assert.equal(
    vmas.map((vma) => [vma.start, vma.last]),
    [[heap + 0x1000, heap + 0x9fff]],
  );
  const shrunk = replay([...events, ev('brk', { addr: heap + 0x2000, ret: heap + 0x2000 })]);
  assert.equal(
    [...(shrunk.spaces.first()?.vmas.values() ?? [])].map((vma) => vma.last),
    [heap + 0x1fff],
  );
  assert.is(shrunk.spaces.first()?.heapStart, heap + 0x10);
});

const hostile: readonly [string, Event][] = [
  ['mmap of 2^64-1 bytes', ev('mmap', { lengthBytes: 2n ** 64n - 1n, ret: 0x1000 })],
  ['mmap at the very end', ev('mmap', { lengthBytes: 4096, ret: 2n ** 64n - 4096n })],
  ['munmap of nothing', ev('munmap', { addr: 0x1000, lengthBytes: 0 })],
  ['munmap beyond the end', ev('munmap', { addr: 2n ** 64n - 4096n, lengthBytes: 8192 })],
  ['mremap to a range past the end', ev('mremap', { addr: 0x1000, newLengthBytes: 8192, ret: 2n ** 64n - 4096n })],
  ['mremap of nothing to nothing', ev('mremap', { oldLengthBytes: 0, newLengthBytes: 0, ret: 0x1000 })],
  ['mprotect of an unseen range', ev('mprotect', { addr: 2n ** 64n - 8192n, lengthBytes: 8192 })],
  ['brk to the end', ev('brk', { addr: 2n ** 64n - 1n, ret: 2n ** 64n - 1n })],
  ['mmap of an fd that nobody opened', ev('mmap', { flags: 1, fd: 99, ret: 0x1000 })],
];
for (const [name, event] of hostile) {
  test(`hostile: ${name}`, () => {
    const events = [
      EXEC,
      ev('brk', { ret: 0x1000 }),
      event,
      event,
      ev('fork', { ret: 2 }),
      ev('munmap', { addr: 0x1000 }),
    ];
    const world = replay(events);
    assert.is(hashOf(replay(events, {}, emptyWorld(), 1)), hashOf(world));
    checkCounts(world);
  });
}

const nothing: readonly [string, Event][] = [
  ['a failed mmap', ev('mmap', { ret: -1, errno: 'ENOMEM' })],
  ['an unfinished mmap', ev('mmap', { ret: null })],
  ['a failed munmap', ev('munmap', { addr: 0x10000, lengthBytes: 65536, ret: -1, errno: 'EINVAL' })],
  ['an unfinished munmap', ev('munmap', { addr: 0x10000, lengthBytes: 65536, ret: null })],
  ['a refused mprotect', ev('mprotect', { addr: 0x10000, ret: -1, errno: 'EACCES' })],
  ['a failed mremap', ev('mremap', { addr: 0x10000, ret: -1, errno: 'EFAULT' })],
  ['a refused madvise', ev('madvise', { addr: 0x10000, advice: MADV_DONTFORK, ret: -1, errno: 'EINVAL' })],
];
for (const [name, event] of nothing) {
  test(`changes nothing: ${name}`, () => {
    const world = replay([EXEC, ev('mmap', { lengthBytes: 65536, ret: 0x10000 })]);
    assert.is(hashOf(replay([event], {}, world, 1, 2)), hashOf(world));
  });
}
