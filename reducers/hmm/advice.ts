import type { MadviseEvent } from '../../core/event.js';
import type { Interval } from '../../core/interval.js';
import { add, alignDown, alignUp, max, min, sub, type U64 } from '../../core/u64.js';
import {
  lastOfPages,
  MADV_COLD,
  MADV_COLLAPSE,
  MADV_DODUMP,
  MADV_DOFORK,
  MADV_DONTDUMP,
  MADV_DONTFORK,
  MADV_DONTNEED,
  MADV_DONTNEED_LOCKED,
  MADV_FREE,
  MADV_GUARD_INSTALL,
  MADV_HUGEPAGE,
  MADV_KEEPONFORK,
  MADV_NOHUGEPAGE,
  MADV_PAGEOUT,
  MADV_POPULATE_READ,
  MADV_POPULATE_WRITE,
  MADV_REMOVE,
  MADV_WIPEONFORK,
  MAP_SHARED,
  PAGE_BYTES,
  PROT_READ,
  PROT_WRITE,
} from '../memory/flags.js';
import { HUGE_BYTES, hugePart, newPte, pieceAt, pieces, setRun } from '../memory/pagetable.js';
import { ADVICE_TRAITS } from '../memory/reduce.js';
import { VMA_HUGETLB, VMA_NOHUGEPAGE, VMA_PFNMAP, type Vma } from '../memory/state.js';
import { hasAnon, noteAnon } from './anon.js';
import { holdNothing } from './contents.js';
import { type Machine, NOTIFY_CLEAR } from './machine.js';
import { pageOut, removePages } from './page-cache.js';
import { cutMappings, splitEdges, splitUncovered } from './sharing.js';
import { addTables, dropTables, hasTable, keepTables, tabledIn } from './tables.js';
import { isPrivateAnonymous, populateRange, touch } from './touch.js';

/**
 * What madvise does to page table entries (mm/madvise.c).
 *
 * It works VMA by VMA, as the kernel has them. A VMA that does not allow the advice ends the call (EINVAL, EACCES): what came before
 * it is done; holes are left out, and give ENOMEM at the end.
 *
 * | advice | entries | mirrors are told |
 * |---|---|---|
 * | DONTNEED, GUARD_INSTALL | gone; blocks that the range cuts are split | CLEAR, per VMA; for a guard only where something was |
 * | FREE | stay, until memory is short; see `splitUncovered` | CLEAR, per VMA |
 * | COLD, PAGEOUT | stay (nothing is paged out without swap); see `splitUncovered`. PAGEOUT of memory files: see `pageOut` | of splits; CLEAR |
 * | REMOVE | of the file: gone for all who map it | CLEAR |
 * | COLLAPSE | blocks become huge pages of their own, see `collapse` | CLEAR, per block |
 * | POPULATE_* | as touched | as touched |
 * | those that give the VMA other flags | stay | where the VMA is cut |
 */
export function advise(machine: Machine, event: MadviseEvent): void {
  const { addr, advice } = event;
  const last = lastOfPages(addr, event.lengthBytes);
  if (last === undefined || event.ret === null) return;
  if (advice === MADV_POPULATE_READ || advice === MADV_POPULATE_WRITE) {
    // Where faults are recorded, they follow: the call is shown as it begins.
    if (machine.derives) populate(machine, addr, last, advice === MADV_POPULATE_WRITE);
    return;
  }
  const stopped = event.ret === -1 && event.errno !== 'ENOMEM';
  const vmas = [...machine.vmasIn(addr, last)];
  if (alignDown(addr, PAGE_BYTES) !== addr) return;
  if (advice === MADV_COLLAPSE) {
    collapseEach(machine, vmas, addr, last, stopped);
    return;
  }
  const refused = vmas.findIndex((vma) => refuses(machine, vma, advice));
  // Where no VMA explains the error, the call did nothing.
  const end = stopped ? Math.max(refused, 0) : vmas.length;
  for (const vma of vmas.slice(0, end)) adviseVma(machine, vma, advice, max(vma.start, addr), min(vma.last, last));
}

/** Whether a VMA ends a call with an error other than ENOMEM. */
function refuses(machine: Machine, vma: Vma, advice: number): boolean {
  const locked = machine.isLocked(vma.start);
  switch (advice) {
    case MADV_DONTNEED:
    case MADV_DONTNEED_LOCKED:
      return (vma.traits & VMA_PFNMAP) !== 0 || (locked && advice === MADV_DONTNEED);
    case MADV_FREE:
      return locked || !isPrivateAnonymous(vma) || (vma.traits & VMA_HUGETLB) !== 0;
    case MADV_COLD:
    case MADV_PAGEOUT:
    case MADV_GUARD_INSTALL:
      return locked || (vma.traits & (VMA_PFNMAP | VMA_HUGETLB)) !== 0;
    case MADV_REMOVE:
      return locked || (vma.flags & MAP_SHARED) === 0;
    case MADV_WIPEONFORK:
      return !isPrivateAnonymous(vma);
    default:
      return false;
  }
}

function adviseVma(machine: Machine, vma: Vma, advice: number, from: U64, to: U64): void {
  switch (advice) {
    case MADV_GUARD_INSTALL:
      if (isPrivateAnonymous(vma)) noteAnon(machine, vma);
      if (pieces(machine.runs, from, to).some(({ pte }) => pte !== undefined)) discard(machine, from, to);
      addTables(machine, from, to);
      return;
    case MADV_DONTNEED:
    case MADV_DONTNEED_LOCKED:
      discard(machine, from, to);
      for (const part of machine.unguarded(vma, { start: from, last: to })) dropTables(machine, part.start, part.last);
      return;
    case MADV_REMOVE:
      removePages(machine, vma, { start: from, last: to });
      return;
    case MADV_FREE:
      if (!isPrivateAnonymous(vma)) return;
      machine.invalidate(NOTIFY_CLEAR, from, to);
      splitUncovered(machine, from, to);
      return;
    case MADV_COLD:
      splitUncovered(machine, from, to);
      return;
    case MADV_PAGEOUT:
      if (isPrivateAnonymous(vma)) splitUncovered(machine, from, to);
      else pageOut(machine, vma, { start: from, last: to });
      return;
    case MADV_HUGEPAGE:
    case MADV_NOHUGEPAGE:
    case MADV_DONTFORK:
    case MADV_DOFORK:
    case MADV_WIPEONFORK:
    case MADV_KEEPONFORK:
    case MADV_DONTDUMP:
    case MADV_DODUMP:
      if (adviceChanges(vma, advice)) cutMappings(machine, from, to);
      return;
    default:
  }
}

function discard(machine: Machine, from: U64, to: U64): void {
  splitEdges(machine, from, to);
  machine.invalidate(NOTIFY_CLEAR, from, to);
  keepTables(machine, from, to);
  machine.clear(from, to);
}

/** Whether an advice gives a mapping other traits: a part of it becomes a mapping of its own then. */
function adviceChanges(vma: Vma, advice: number): boolean {
  const change = ADVICE_TRAITS.get(advice);
  return change !== undefined && ((vma.traits & ~change.clear) | change.set) !== vma.traits;
}

/** Touches the pages VMA by VMA up to the first that is missing or does not allow it (mm/gup.c). */
function populate(machine: Machine, start: U64, last: U64, write: boolean): void {
  let at = start;
  for (;;) {
    const vma = machine.vmaAt(at);
    if (vma === undefined || (vma.prot & (write ? PROT_WRITE : PROT_READ)) === 0) return;
    if (vma.traits & VMA_PFNMAP) return;
    if (populateRange(machine, vma, at, min(vma.last, last), write) !== '' || vma.last >= last) return;
    at = add(vma.last, 1);
  }
}

// ---- COLLAPSE ---------------------------------------------------------------------------------------------

/** The VMAs of a call, up to the one that ends it. */
function collapseEach(machine: Machine, vmas: readonly Vma[], start: U64, last: U64, stopped: boolean): void {
  for (const vma of vmas) {
    const allowed = isPrivateAnonymous(vma) && (vma.traits & (VMA_NOHUGEPAGE | VMA_HUGETLB)) === 0;
    const done = allowed && collapse(machine, vma, max(vma.start, start), min(vma.last, last));
    if (stopped && !done) return;
  }
}

/**
 * Each block of a range that has a page table becomes one huge page (mm/khugepaged.c `madvise_collapse`): its pages are copied,
 * what is not there is zeros. Pages out of the CPU's reach are brought back first, and a failure of that ends the call, as does a
 * mapping that never got a page of its own. A block stays as it is where one entry maps it already, where it has no page table, and
 * where it holds memory of a coherent device.
 *
 * @returns whether all blocks are huge now
 */
function collapse(machine: Machine, vma: Vma, start: U64, last: U64): boolean {
  const end = alignDown(add(last, 1), HUGE_BYTES);
  let all = true;
  for (let at = alignUp(start, HUGE_BYTES); at < end; ) {
    const { pte, last: reach } = pieceAt(machine.runs, at, sub(end, 1));
    // Blocks of equal entries, or of none, go together.
    const wholeEnd =
      tabledIn(machine, { start: at, last: reach }).length > 0
        ? add(at, HUGE_BYTES)
        : max(alignDown(add(reach, 1), HUGE_BYTES), add(at, HUGE_BYTES));
    const blocks = { start: at, last: sub(wholeEnd, 1) };
    if (pte !== undefined && hugePart(pte, at, at) !== undefined) all = all && pte.kind !== 'private';
    else if (pte === undefined && reach >= blocks.last && !hasTable(machine, at)) all = false;
    else if (pieces(machine.runs, blocks.start, blocks.last).some((piece) => piece.pte?.kind === 'coherent'))
      all = false;
    else if (!bringAllBack(machine, vma, blocks) || !hasAnon(machine, vma)) return false;
    else collapseBlocks(machine, vma, blocks);
    at = wholeEnd;
  }
  return all;
}

/** False when a page cannot be brought back. */
function bringAllBack(machine: Machine, vma: Vma, { start, last }: Interval): boolean {
  for (const { pte, start: from, last: to } of pieces(machine.runs, start, last))
    if ((pte?.kind === 'private' || pte?.kind === 'exclusive') && touch(machine, vma, from, to, false) !== '')
      return false;
  return true;
}

function collapseBlocks(machine: Machine, vma: Vma, { start, last }: Interval): void {
  machine.invalidate(NOTIFY_CLEAR, start, last);
  for (const { pte, start: from, last: to } of pieces(machine.runs, start, last))
    if (pte === undefined) holdNothing(machine, from, to);
  const write = (vma.prot & PROT_WRITE) !== 0;
  setRun(machine.runs, start, last, newPte('anon', machine.seq, { write, huge: true, large: true }));
  dropTables(machine, start, last);
}
