import { carve, firstOverlap, type Interval, overlapping, trimmed, unite } from '../../core/interval.js';
import { add, alignDown, alignUp, max, sub, type U64, U64_MAX } from '../../core/u64.js';
import { HUGE_BYTES, pieces } from '../memory/pagetable.js';
import type { Machine } from './machine.js';
import { blockAround, entriesOf } from './sharing.js';

/**
 * Page tables that hold nothing any more.
 *
 * A block of 2 MiB that ever had small entries has a page table of its own, and no fault or migration makes one huge entry of
 * it. The table goes with the last mapping in its block (`free_pgtables`), when DONTNEED is for all of the block
 * (CONFIG_PT_RECLAIM), and when COLLAPSE puts a huge page there. `PageTable.tables` has the blocks that are known to have one; where a
 * block holds small entries it has one in any case.
 */

/** Whether the block at an address is known to have a page table. */
export function hasTable(machine: Machine, block: U64): boolean {
  return machine.tables.size > 0 && firstOverlap(machine.tables, block, block) !== undefined;
}

/** The parts of a range that are in blocks with a page table, in order. */
export function tabledIn(machine: Machine, { start, last }: Interval): readonly Interval[] {
  return machine.tables.size === 0 ? [] : overlapping(machine.tables, start, last);
}

/** The entries of a range are about to go: the tables of small ones stay for now. */
export function keepTables(machine: Machine, start: U64, last: U64): void {
  for (const { pte, start: from, last: to } of pieces(machine.runs, start, last)) {
    if (pte === undefined) continue;
    for (const part of entriesOf(pte, from, to)) if (!part.huge) addTables(machine, part.start, part.last);
  }
}

/** The blocks that a range touches have tables. */
export function addTables(machine: Machine, start: U64, last: U64): void {
  unite(machine.tablesToWrite(), blockAround(start).start, blockAround(last).last);
}

/** Tables of the blocks that lie in a range go. */
export function dropTables(machine: Machine, start: U64, last: U64): void {
  const from = alignUp(start, HUGE_BYTES);
  const end = last === U64_MAX ? last : alignDown(add(last, 1), HUGE_BYTES);
  if (machine.tables.size > 0 && end > from) carve(machine.tablesToWrite(), from, sub(end, 1), trimmed);
}

/** A range is unmapped: so go the tables of blocks in which nothing is mapped any more. */
export function freeTables(machine: Machine, start: U64, last: U64): void {
  if (machine.tables.size === 0) return;
  const { vmas } = machine.space;
  const low = blockAround(start);
  const high = blockAround(last);
  const lowFree = low.start === start || firstOverlap(vmas, low.start, sub(start, 1)) === undefined;
  const highFree = high.last === last || firstOverlap(vmas, add(last, 1), high.last) === undefined;
  const from = lowFree && (highFree || low.start !== high.start) ? low.start : add(low.last, 1);
  const to = highFree ? high.last : sub(high.start, 1);
  if (from < to) dropTables(machine, max(from, 0), to);
}
