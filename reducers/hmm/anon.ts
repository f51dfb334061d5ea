import { carve, firstOverlap, type Interval, put, trimmed } from '../../core/interval.js';
import type { U64 } from '../../core/u64.js';
import { MAP_SHARED } from '../memory/flags.js';
import type { AnonRun } from '../memory/pagetable.js';
import type { Vma } from '../memory/state.js';
import type { Machine } from './machine.js';

/**
 * Private mappings that ever got a page of their own (`vma->anon_vma`, mm/rmap.c `__anon_vma_prepare`). It is the mapping that has it
 * and not the page: a mapping keeps it when its pages are gone, its parts have it when it is cut, and all of it has it when a part
 * that has it merges with one that has not. Fork copies entries of such mappings only, and one that is moved keeps its place in the
 * reverse map, so that it does not merge with what is around the new place.
 */

/** A private mapping gets a page of its own. */
export function noteAnon(machine: Machine, { start, last, flags }: Vma): void {
  if (flags & MAP_SHARED) return;
  const known = firstOverlap(machine.anon, start, last);
  if (known !== undefined && known.start <= start && known.last >= last) return;
  putAnon(machine, { start, last, moved: known?.moved ?? 0 });
}

export function putAnon(machine: Machine, run: AnonRun): void {
  put(machine.anonToWrite(), Object.freeze(run), trimmed, (a, b) => a.moved === b.moved);
}

/** A range is not mapped any more, or goes to another place. */
export function dropAnon(machine: Machine, start: U64, last: U64): void {
  if (firstOverlap(machine.anon, start, last) !== undefined) carve(machine.anonToWrite(), start, last, trimmed);
}

/** Whether a mapping ever got a page of its own. */
export function hasAnon(machine: Machine, { start, last }: Interval): boolean {
  return firstOverlap(machine.anon, start, last) !== undefined;
}
