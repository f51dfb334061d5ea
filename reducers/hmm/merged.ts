import { firstOverlap, type RangeMap, rangeAt } from '../../core/interval.js';
import { add, sub, type U64 } from '../../core/u64.js';
import { MAP_SHARED } from '../memory/flags.js';
import type { AnonRun } from '../memory/pagetable.js';
import { VMA_GUARD, type Vma } from '../memory/state.js';

/**
 * VMAs as the kernel has them: neighbours that differ in nothing are one (mm/vma.c `can_vma_merge_before`).
 *
 * The model's own list keeps apart what different calls mapped. How far a VMA reaches decides which pages one fault of a
 * device brings in, how a migration is cut, and whether a huge page fits. Private memory whose pages mremap has moved
 * does not merge with pages that are where they began, since its place in the reverse map is another one. Guard pages are no
 * mappings of their own: a mapping that may hold some has VMA_GUARD.
 */

/** A program has few neighbours that calls made one by one; beyond so many it makes no difference how far it reaches. */
const STEPS_MAX = 256;

export function mergedVma(vmas: RangeMap<Vma>, anon: RangeMap<AnonRun>, address: U64): Vma | undefined {
  const vma = rangeAt(vmas, address);
  if (vma === undefined) return undefined;
  let { start, last, offset, traits } = vma;
  let edge = vma;
  for (let steps = 0; steps < STEPS_MAX; steps++) {
    const next = vmas.get(add(edge.last, 1));
    if (next === undefined || !merge(anon, edge, next)) break;
    edge = next;
    last = next.last;
    traits |= next.traits;
  }
  edge = vma;
  for (let steps = 0; steps < STEPS_MAX && start > 0; steps++) {
    const before = vmas.lower(start);
    if (before === undefined || !merge(anon, before, edge)) break;
    edge = before;
    ({ start, offset } = before);
    traits |= before.traits;
  }
  return start === vma.start && last === vma.last ? vma : Object.freeze({ ...vma, start, last, offset, traits });
}

function merge(anon: RangeMap<AnonRun>, low: Vma, high: Vma): boolean {
  if (add(low.last, 1) !== high.start || low.prot !== high.prot || low.flags !== high.flags) return false;
  if ((low.traits ^ high.traits) & ~VMA_GUARD || low.file !== high.file) return false;
  if ((low.file !== 0 || low.flags & MAP_SHARED) && add(low.offset, sub(high.start, low.start)) !== high.offset)
    return false;
  // Each call makes a file of its own for shared anonymous memory.
  if (low.file === 0 && low.flags & MAP_SHARED) return low.since === high.since;
  return (low.flags & MAP_SHARED) !== 0 || movedOf(anon, low) === movedOf(anon, high);
}

/** How far a private mapping is from its place in the reverse map; one that never got a page of its own is where it is. */
function movedOf(anon: RangeMap<AnonRun>, { start, last }: Vma): U64 {
  return firstOverlap(anon, start, last)?.moved ?? 0;
}
