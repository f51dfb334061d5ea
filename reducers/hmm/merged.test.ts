import * as assert from 'uvu/assert';
import { rangeAt } from '../../core/interval.js';
import { OrderedMap } from '../../core/ordered-map.js';
import { suite } from '../../core/testing.js';
import type { U64 } from '../../core/u64.js';
import { MAP_PRIVATE, MAP_SHARED } from '../memory/flags.js';
import type { AnonRun } from '../memory/pagetable.js';
import { VMA_GUARD, VMA_NOHUGEPAGE, type Vma } from '../memory/state.js';
import { ev } from '../testing.js';
import { mergedVma } from './merged.js';
import { command, Lab, MEMORY, PAGE, READ, WRITE } from './testing.js';

const test = suite('hmm/merged');

const PLAIN = { prot: 3, flags: MAP_PRIVATE, file: 0, offset: 0, since: 1, traits: 0 };

/** VMAs of one page each, one after the other from page 1 on, and what mergedVma makes of each. */
function merged(vmas: readonly Partial<Vma>[], anon: readonly AnonRun[] = []): string[] {
  const map = OrderedMap.numeric<U64, Vma>();
  for (const [index, fields] of vmas.entries()) {
    const start = (index + 1) * PAGE;
    map.set(start, { ...PLAIN, start, last: start + PAGE - 1, ...fields });
  }
  const runs = OrderedMap.numeric<U64, AnonRun>();
  for (const run of anon) runs.set(run.start, run);
  return vmas.map((_, index) => {
    const vma = mergedVma(map, runs, (index + 1) * PAGE);
    return vma === undefined ? '' : `${Number(vma.start) / PAGE}-${(Number(vma.last) + 1) / PAGE - 1}`;
  });
}

test('neighbours that differ in nothing but the call that made them are one', () => {
  assert.equal(merged([{ since: 1 }, { since: 2 }, { since: 3 }]), ['1-3', '1-3', '1-3']);
});

test('what keeps neighbours apart', () => {
  const file = { file: 7, flags: MAP_SHARED };
  const shared = { flags: MAP_SHARED, offset: PAGE };
  const rows: readonly [name: string, low: Partial<Vma>, high: Partial<Vma>, one: boolean][] = [
    ['rights', {}, { prot: 1 }, false],
    ['advice', {}, { traits: VMA_NOHUGEPAGE }, false],
    ['kind', {}, { flags: MAP_SHARED }, false],
    ['guard pages do not', {}, { traits: VMA_GUARD }, true],
    ['one file, on', file, { ...file, offset: PAGE }, true],
    ['one file, elsewhere', file, { ...file, offset: 2 * PAGE }, false],
    ['two files', file, { ...file, file: 8, offset: PAGE }, false],
    ['one piece of shared memory', shared, { ...shared, offset: 2 * PAGE }, true],
    ['the same in another order', { ...shared, offset: 2 * PAGE }, shared, false],
    ['two pieces of shared memory', shared, { ...shared, offset: 2 * PAGE, since: 2 }, false],
  ];
  for (const [name, low, high, one] of rows)
    assert.equal(merged([low, high]), one ? ['1-2', '1-2'] : ['1-1', '2-2'], name);
});

test('a merged mapping begins at the offset of its first part, and may have guard pages where any part has', () => {
  const map = OrderedMap.numeric<U64, Vma>();
  const part = (page: number, fields: Partial<Vma>): unknown =>
    map.set(page * PAGE, { ...PLAIN, file: 7, start: page * PAGE, last: page * PAGE + PAGE - 1, ...fields });
  part(3, { offset: 0 });
  part(4, { offset: PAGE, traits: VMA_GUARD });
  const vma = mergedVma(map, OrderedMap.numeric<U64, AnonRun>(), 4 * PAGE);
  assert.is(vma?.offset, 0);
  assert.is(vma?.traits, VMA_GUARD);
});

test('what was moved with pages of its own merges with what was moved as far', () => {
  const anon = (page: number, moved: U64): AnonRun => ({ start: page * PAGE, last: page * PAGE + PAGE - 1, moved });
  assert.equal(merged([{}, {}], [anon(1, 0), anon(2, PAGE)]), ['1-1', '2-2']);
  assert.equal(merged([{}, {}], [anon(1, PAGE), anon(2, PAGE)]), ['1-2', '1-2']);
  assert.equal(merged([{}, {}], [anon(2, PAGE)]), ['1-1', '2-2']);
  assert.equal(merged([{}, {}], [anon(2, 0)]), ['1-2', '1-2'], 'a mapping without pages is where it is');
});

test('the walk over neighbours is bounded', () => {
  const wide = merged(Array.from({ length: 1000 }, (_, index) => ({ since: index })));
  assert.is(wide[0], '1-257');
  assert.is(wide[999], '744-1000');
});

// ---- mappings that got pages of their own ------------------------------------------------------------------

function move(lab: Lab, from: number, to: number, flags = 3): void {
  lab.feed(ev('mremap', { addr: from, flags, newAddr: to, ret: to }));
}

test('a mapping that had pages of its own keeps its place when it is moved, even when they are gone', () => {
  for (const had of [true, false]) {
    const lab = new Lab();
    const block = 0x4000_0000;
    const other = 0x3000_0000;
    lab.feed(ev('mmap', { addr: block, lengthBytes: 2 << 20, flags: 0x32, ret: block }));
    lab.feed(ev('mmap', { addr: other, flags: 0x32, ret: other }));
    for (const [addr, lengthBytes] of [
      [block, 2 << 20],
      [other, PAGE],
    ] as const)
      lab.feed(ev('madvise', { addr, lengthBytes, advice: 15 }));
    lab.populate(other, 1, had);
    lab.feed(ev('madvise', { addr: other, advice: 4 }));
    lab.feed(ev('munmap', { addr: block + 8 * PAGE }));
    move(lab, other, block + 8 * PAGE);
    lab.ask(0, READ, command(block, 1));
    lab.feed(ev('mprotect', { addr: block + 64 * PAGE, prot: 1 }));
    // Where the block lies in one mapping, mirrors are told of all of it when that is cut.
    assert.is(lab.ask(0, READ, command(block, 1)).faults, had ? 0 : 1);
  }
});

test('fork copies the entries of a mapping that had pages of its own, and tells its mirrors', () => {
  for (const had of [true, false]) {
    const lab = new Lab();
    lab.populate(MEMORY, 1, had);
    lab.feed(ev('madvise', { addr: MEMORY, advice: 4 }));
    lab.ask(0, READ, command(MEMORY + PAGE, 1));
    lab.feed(ev('fork', { ret: 77 }));
    const runs = lab.world.pageTables.get(lab.world.processes.get(77)?.space ?? 0)?.runs;
    assert.is(runs === undefined ? undefined : rangeAt(runs, MEMORY + PAGE)?.kind, had ? 'zero' : undefined);
    assert.is(lab.ask(0, READ, command(MEMORY + PAGE, 1)).faults, had ? 1 : 0);
  }
});

test('what is mapped anew had no pages yet', () => {
  const lab = new Lab();
  lab.populate(MEMORY, 1, true);
  lab.feed(ev('munmap', { addr: MEMORY, lengthBytes: 1 << 20 }));
  lab.feed(ev('mmap', { addr: MEMORY, lengthBytes: 4 * PAGE, flags: 0x32, ret: MEMORY }));
  lab.populate(MEMORY, 4, false);
  lab.ask(0, READ, command(MEMORY, 4));
  lab.feed(ev('fork', { ret: 77 }));
  assert.is(lab.ask(0, READ, command(MEMORY, 4)).faults, 0);
  lab.ask(0, WRITE, command(MEMORY, 1));
  lab.feed(ev('fork', { ret: 78 }));
  assert.is(lab.ask(0, READ, command(MEMORY + PAGE, 1)).faults, 1);
});

test('shared memory stays what it is when it is moved', () => {
  const lab = new Lab();
  const at = 0x5000_0000;
  const to = 0x5100_0000;
  lab.feed(ev('mmap', { addr: at, lengthBytes: 32 * PAGE, flags: 0x31, ret: at }));
  lab.ask(0, WRITE, command(at, 4));
  const moved = { oldLengthBytes: 2 * PAGE, newLengthBytes: 2 * PAGE };
  lab.feed(ev('mremap', { addr: at + 2 * PAGE, ...moved, flags: 7, newAddr: to, ret: to }));
  lab.ask(0, READ, command(to, 1));
  assert.equal(lab.snapshot(0, to, 2), [2, 2], 'the next page is in memory, too');
  assert.equal(lab.snapshot(0, at, 4), [2, 2, 0, 0]);
  lab.ask(0, READ, command(at, 5));
  assert.equal(lab.snapshot(0, at, 6), [2, 2, 2, 2, 2, 0]);
});

test('a moved part of a mapping that comes to lie beside the rest is no part of it any more', () => {
  const lab = new Lab();
  const block = 0x4000_0000;
  const moved = 0x3000_0000;
  for (const [addr, lengthBytes] of [
    [block, 1 << 20],
    [moved, 1 << 20],
  ] as const)
    lab.feed(ev('mmap', { addr, lengthBytes, flags: 0x32, ret: addr }));
  lab.feed(ev('munmap', { addr: moved, lengthBytes: 1 << 20 }));
  lab.populate(block, 256, true);
  const half = { oldLengthBytes: 1 << 19, newLengthBytes: 1 << 19, flags: 3 };
  lab.feed(ev('mremap', { addr: block, ...half, newAddr: block + (1 << 20), ret: block + (1 << 20) }));
  const vmas = [...(lab.world.spaces.get(lab.world.processes.get(1)?.space ?? 0)?.vmas.values() ?? [])];
  assert.equal(
    vmas.filter(({ start }) => start >= block && start < block + (4 << 20)).map(({ start, offset }) => [start, offset]),
    [
      [block + (1 << 19), block + (1 << 19)],
      [block + (1 << 20), block],
    ],
  );
});
