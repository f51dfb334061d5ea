import type { Interval } from '../../core/interval.js';
import { max, min, sub } from '../../core/u64.js';
import { newPte, type Pte, type PteRun, setRun } from '../memory/pagetable.js';
import { VMA_HUGETLB, type Vma } from '../memory/state.js';
import { type Machine, NOTIFY_CLEAR } from './machine.js';
import { entriesOf, mappersOf, partsOf, splitEntries } from './sharing.js';
import { PAGE_BYTES } from '../memory/flags.js';

/**
 * A write to a page that may not be written to, in memory that may (mm/memory.c `do_wp_page`, mm/huge_memory.c
 * `do_huge_pmd_wp_page`):
 *
 * 1. a page that no fork shared becomes writable in place, without a word to mirrors; a huge entry as a whole;
 * 2. so does one that nobody else maps any more; of a huge page nobody else may map any part;
 * 3. a page that somebody else maps is copied: CLEAR, page by page. A huge entry is split for it: CLEAR over the block;
 * 4. the last page that is left of a huge one is copied too, for that frees the huge page. Pages of hugetlbfs are copied
 *    whole.
 */
export function makeWritable(machine: Machine, vma: Vma, asked: Interval, pte: PteRun): void {
  for (const part of entriesOf(pte, asked.start, asked.last)) {
    if (!pte.cow) setRun(machine.runs, part.start, part.last, { ...pte, write: true });
    else if (!part.huge) writeSmall(machine, pte, part);
    else writeHuge(machine, vma, pte, part, asked);
  }
}

/** Blocks that one entry maps each, of which `asked` is written to. */
function writeHuge(machine: Machine, vma: Vma, pte: PteRun, blocks: Interval, asked: Interval): void {
  for (const part of partsOf(machine, pte, blocks)) {
    if (!part.shared) reuse(machine, pte, part);
    else if (vma.traits & VMA_HUGETLB) copy(machine, pte, part, true);
    else {
      splitEntries(machine, part.start, part.last);
      const written = { start: max(part.start, asked.start), last: min(part.last, asked.last) };
      copy(machine, pte, written, false);
    }
  }
}

function writeSmall(machine: Machine, pte: Pte, written: Interval): void {
  for (const part of partsOf(machine, pte, written)) {
    if (part.shared || isLastOfHuge(machine, pte, part)) copy(machine, pte, part, false);
    else reuse(machine, { ...pte, huge: false }, part);
  }
}

/** Whether a part is one page, and all that is mapped of a huge one. */
function isLastOfHuge(machine: Machine, pte: Pte, { start, last }: Interval): boolean {
  if (!pte.large || sub(last, start) >= PAGE_BYTES) return false;
  const [first, second] = mappersOf(machine, pte, start);
  return second === undefined && first !== undefined && sub(first.last, first.start) < PAGE_BYTES;
}

function reuse(machine: Machine, pte: Pte, { start, last }: Interval): void {
  setRun(machine.runs, start, last, { ...pte, write: true, cow: false });
}

function copy(machine: Machine, pte: Pte, { start, last }: Interval, huge: boolean): void {
  machine.invalidate(NOTIFY_CLEAR, start, last);
  const { seq } = machine;
  // Where invalidations are recorded, they say whether there was a copy: a relative may have gone a little earlier.
  const since = machine.derives ? seq : pte.since;
  setRun(machine.runs, start, last, newPte('anon', since, { write: true, huge, large: huge, page: seq }));
}
