import { firstOverlap } from '../../core/interval.js';
import { add, alignDown, max, min, sub, type U64 } from '../../core/u64.js';
import { MAP_SHARED, PROT_WRITE } from '../memory/flags.js';
import { HUGE_BYTES, hugePart, type Piece, type Pte, type PteRun, pieces, setRun } from '../memory/pagetable.js';
import { VMA_GUARD, VMA_HUGETLB, VMA_NOHUGEPAGE, type Vma } from '../memory/state.js';
import { type Machine, NOTIFY_CLEAR, NOTIFY_MIGRATE } from './machine.js';
import { dropEntries } from './mirror-table.js';

/**
 * Page faults: what an access of the CPU, of the kernel or of hmm_range_fault() makes of page table entries
 * (mm/memory.c `handle_pte_fault`, mm/huge_memory.c).
 *
 * | entry before | read | write |
 * |---|---|---|
 * | none, private anonymous memory | page of zeros | new page |
 * | none, shared or file | page of the file, writable where the mapping lets it be without notice | the same, writable |
 * | zero | - | new page; CLEAR |
 * | anon, coherent, read-only | - | writable; shared since a fork: a copy, CLEAR |
 * | file page in a private mapping | - | copied into a new page; CLEAR |
 * | private | back to system memory by the mirror that took it; MIGRATE | then as anon |
 * | exclusive | back to the CPU, writable where the VMA is; CLEAR | the same |
 *
 * The caller has checked that the VMA allows the access. Guard pages let nothing through.
 */

const ANON: Pte = { kind: 'anon', write: true, cow: false, huge: false, device: -1, mirror: 0, since: 0 };

/** Touches every page of `start..last`, all within `vma`. False when a fault fails (VM_FAULT_ERROR). */
export function touch(machine: Machine, vma: Vma, start: U64, last: U64, write: boolean): boolean {
  if (vma.traits & VMA_GUARD) return false;
  for (const piece of pieces(machine.runs, start, last)) {
    if (piece.pte === undefined) {
      if (!fill(machine, vma, piece, write)) return false;
    } else if (!touchEntry(machine, vma, piece, piece.pte, write)) return false;
  }
  return true;
}

export function isPrivateAnonymous(vma: Vma): boolean {
  return vma.file === 0 && (vma.flags & MAP_SHARED) === 0;
}

/** False when the hole reaches beyond the end of the file: what is before it is filled. */
function fill(machine: Machine, vma: Vma, hole: Piece, write: boolean): boolean {
  const since = machine.seq;
  if (!isPrivateAnonymous(vma)) {
    const end = machine.fileLast(vma);
    if (end !== undefined && end < hole.last) {
      if (end >= hole.start) fill(machine, vma, { ...hole, last: end }, write);
      return false;
    }
    const shared = (vma.flags & MAP_SHARED) !== 0;
    if (write && !shared) setRun(machine.runs, hole.start, hole.last, { ...ANON, since });
    else {
      const writable = shared && (vma.prot & PROT_WRITE) !== 0 && (write || vma.file === 0);
      const huge = (vma.traits & VMA_HUGETLB) !== 0;
      setRun(machine.runs, hole.start, hole.last, { ...ANON, kind: 'file', write: writable, huge, since });
    }
    return true;
  }
  const pte: Pte = { ...ANON, kind: write ? 'anon' : 'zero', write, since };
  if (vma.traits & VMA_HUGETLB) {
    const block = { start: alignDown(hole.start, HUGE_BYTES), last: blockLast(hole.last) };
    const all = { ...ANON, kind: write ? 'anon' : 'zero', write, huge: true, since } as const;
    setRun(machine.runs, max(block.start, vma.start), min(block.last, vma.last), all);
    return true;
  }
  const huge = hugeReach(machine, vma, hole);
  if (huge === undefined) {
    setRun(machine.runs, hole.start, hole.last, pte);
    return true;
  }
  if (hole.start < huge.start) setRun(machine.runs, hole.start, sub(huge.start, 1), pte);
  setRun(machine.runs, huge.start, huge.last, { ...pte, huge: true });
  if (hole.last > huge.last) setRun(machine.runs, add(huge.last, 1), hole.last, pte);
  return true;
}

function blockLast(address: U64): U64 {
  return add(alignDown(address, HUGE_BYTES), HUGE_BYTES - 1);
}

/** Whether faults in the VMA may map 2 MiB at once: transparent huge pages are on by default (`always`). */
export function hugeAllowed(vma: Vma): boolean {
  return isPrivateAnonymous(vma) && (vma.traits & VMA_NOHUGEPAGE) === 0;
}

/** Whether all of a block lies in the VMA and has no entry yet. */
function blockIsFree(machine: Machine, vma: Vma, block: U64): boolean {
  const last = add(block, HUGE_BYTES - 1);
  return block >= vma.start && last <= vma.last && firstOverlap(machine.runs, block, last) === undefined;
}

/** The part around a hole that faults map by huge entries: whole blocks without any entry, all inside the VMA. */
function hugeReach(machine: Machine, vma: Vma, hole: Piece): { start: U64; last: U64 } | undefined {
  if (!hugeAllowed(vma)) return undefined;
  const low = alignDown(hole.start, HUGE_BYTES);
  const high = alignDown(hole.last, HUGE_BYTES);
  const start = blockIsFree(machine, vma, low) ? low : add(low, HUGE_BYTES);
  const last = high === low || blockIsFree(machine, vma, high) ? add(high, HUGE_BYTES - 1) : sub(high, 1);
  return start < last ? { start, last } : undefined;
}

function touchEntry(machine: Machine, vma: Vma, piece: Piece, pte: PteRun, write: boolean): boolean {
  switch (pte.kind) {
    case 'zero':
      if (write) replaceZero(machine, piece, pte);
      return true;
    case 'anon':
    case 'coherent':
      if (write && !pte.write) makeWritable(machine, piece, pte);
      return true;
    case 'file':
      if (write && !pte.write) writeFilePage(machine, vma, piece, pte);
      return true;
    case 'exclusive':
      restoreExclusive(machine, vma, piece, pte);
      return true;
    case 'private':
      return bringBack(machine, vma, piece, pte, write);
  }
}

/** The page of zeros gives way to a new page; a huge one to a huge page. */
function replaceZero(machine: Machine, piece: Piece, pte: PteRun): void {
  const huge = hugePart(pte, piece.start, piece.last);
  const start = huge === undefined ? piece.start : min(piece.start, alignDown(huge.start, HUGE_BYTES));
  const last = huge === undefined ? piece.last : max(piece.last, blockLast(huge.last));
  machine.invalidate(NOTIFY_CLEAR, start, last);
  setRun(machine.runs, start, last, { ...ANON, huge: pte.huge, since: machine.seq });
}

/** An exclusive page is written to in place, without a word to mirrors; a shared one is copied. */
function makeWritable(machine: Machine, piece: Piece, pte: PteRun): void {
  if (!pte.cow) {
    setRun(machine.runs, piece.start, piece.last, { ...pte, write: true });
    return;
  }
  machine.invalidate(NOTIFY_CLEAR, piece.start, piece.last);
  // Whether it was copied, or the last to share it kept it, only an invalidation of the recording would tell.
  const since = machine.derives ? machine.seq : pte.since;
  setRun(machine.runs, piece.start, piece.last, { ...ANON, huge: false, since });
}

function writeFilePage(machine: Machine, vma: Vma, piece: Piece, pte: PteRun): void {
  if (vma.flags & MAP_SHARED) {
    setRun(machine.runs, piece.start, piece.last, { ...pte, write: true });
    return;
  }
  machine.invalidate(NOTIFY_CLEAR, piece.start, piece.last);
  setRun(machine.runs, piece.start, piece.last, { ...ANON, since: machine.seq });
}

/** `restore_exclusive_pte`: the page is not shared, so it becomes writable where the VMA is. */
export function restoreExclusive(machine: Machine, vma: Vma, piece: Piece, pte: PteRun): void {
  machine.invalidate(NOTIFY_CLEAR, piece.start, piece.last);
  const kind = pte.device >= 0 ? 'coherent' : 'anon';
  const write = (vma.prot & PROT_WRITE) !== 0;
  setRun(machine.runs, piece.start, piece.last, { ...pte, kind, write, cow: false });
}

/**
 * `dmirror_devmem_fault`: the mirror that took the pages brings them back and forgets its entries for them. When its
 * next allocation is to fail, the fault fails with it, and that once.
 */
function bringBack(machine: Machine, vma: Vma, piece: Piece, pte: PteRun, write: boolean): boolean {
  machine.invalidate(NOTIFY_MIGRATE, piece.start, piece.last, pte.device);
  const owner = machine.mirror(pte.mirror);
  const huge = hugePart(pte, piece.start, piece.last);
  const fails = owner?.failAlloc ?? false;
  if (owner !== undefined) owner.failAlloc = false;
  // A huge page falls back to small ones.
  if (fails && huge === undefined) return false;
  const start = huge === undefined ? piece.start : min(piece.start, alignDown(huge.start, HUGE_BYTES));
  const last = huge === undefined ? piece.last : max(piece.last, blockLast(huge.last));
  if (owner !== undefined) dropEntries(owner.ptes, start, last);
  const since = machine.seq;
  setRun(machine.runs, start, last, { ...pte, kind: 'anon', huge: pte.huge && !fails, device: -1, mirror: 0, since });
  if (!write || pte.write) return true;
  return touch(machine, vma, piece.start, piece.last, true);
}
