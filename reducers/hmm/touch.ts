import { firstOverlap, type Interval } from '../../core/interval.js';
import { add, alignDown, max, min, sub, type U64 } from '../../core/u64.js';
import { MAP_SHARED, PROT_WRITE, PAGE_BYTES } from '../memory/flags.js';
import { HUGE_BYTES, newPte, type PteRun, pieceAt, setRun } from '../memory/pagetable.js';
import { VMA_GUARD, VMA_HUGETLB, VMA_NOHUGEPAGE, type Vma } from '../memory/state.js';
import { noteAnon } from './anon.js';
import { hold, holdNothing, UNKNOWN_DATA } from './contents.js';
import { makeWritable } from './copy-on-write.js';
import { type Machine, NOTIFY_CLEAR, NOTIFY_MIGRATE, type WorkMirror } from './machine.js';
import { dropEntries } from './mirror-table.js';
import { fillFromFile } from './page-cache.js';
import { blockAround, entriesOf, type Part, relocate, splitPages, tellSharers } from './sharing.js';
import { hasTable, tabledIn } from './tables.js';

/**
 * Page faults: what an access of the CPU, of the kernel or of hmm_range_fault() makes of page table entries
 * (mm/memory.c `handle_pte_fault`, mm/huge_memory.c).
 *
 * | entry before | read | write |
 * |---|---|---|
 * | none, private anonymous memory | page of zeros | new page |
 * | none, shared or file | see page-cache.ts | see page-cache.ts |
 * | zero | - | new page; CLEAR |
 * | anon, coherent, read-only | - | writable; shared since a fork: see copy-on-write.ts |
 * | file page in a private mapping | - | copied into a new page; CLEAR |
 * | private | back to system memory by the mirror that took it; MIGRATE | then as anon |
 * | exclusive | back to the CPU, writable where the VMA is; CLEAR | the same |
 *
 * The caller has checked that the VMA allows the access. Guard pages let nothing through.
 */

/**
 * Why a fault fails, as get_user_pages() says it: no page can be there (VM_FAULT_SIGBUS, _SIGSEGV), or no memory is to be had
 * (VM_FAULT_OOM). '' when it does not.
 */
export type FaultErrno = '' | 'EFAULT' | 'ENOMEM';

/** Touches every page of `start..last`, all within `vma`, up to the first whose fault fails. */
export function touch(machine: Machine, vma: Vma, start: U64, last: U64, write: boolean): FaultErrno {
  const guard = vma.traits & VMA_GUARD ? machine.guardIn(start, last) : undefined;
  if (guard !== undefined) return (guard > start && touchPages(machine, vma, start, sub(guard, 1), write)) || 'EFAULT';
  return touchPages(machine, vma, start, last, write);
}

/**
 * The same as a call does it that goes on where get_user_pages() stopped (`madvise_populate`, `__mm_populate`): what failed for want
 * of memory is tried once more, unless it was the first page of all.
 */
export function populateRange(machine: Machine, vma: Vma, start: U64, last: U64, write: boolean): FaultErrno {
  const errno = touch(machine, vma, start, last, write);
  const atFirst = pieceAt(machine.runs, start, start).pte?.kind === 'private';
  return errno !== 'ENOMEM' || atFirst ? errno : touch(machine, vma, start, last, write);
}

function touchPages(machine: Machine, vma: Vma, start: U64, last: U64, write: boolean): FaultErrno {
  let at = start;
  for (;;) {
    const piece = pieceAt(machine.runs, at, last);
    const { pte } = piece;
    const errno = pte === undefined ? fill(machine, vma, piece, write) : touchEntry(machine, vma, piece, pte, write);
    if (errno !== '' || piece.last >= last) return errno;
    at = add(piece.last, 1);
  }
}

export function isPrivateAnonymous(vma: Vma): boolean {
  return vma.file === 0 && (vma.flags & MAP_SHARED) === 0;
}

// ---- nothing there yet -----------------------------------------------------------------------------------

function fill(machine: Machine, vma: Vma, hole: Interval, write: boolean): FaultErrno {
  if (vma.traits & VMA_HUGETLB) return fillHugetlb(machine, vma, hole, write);
  if (!isPrivateAnonymous(vma)) return fillFromFile(machine, vma, hole, write) ? '' : 'EFAULT';
  const [tabled] = tabledIn(machine, hole);
  if (tabled !== undefined && (tabled.start > hole.start || tabled.last < hole.last))
    return fillPart(machine, vma, hole, tabled, write);
  holdNothing(machine, hole.start, hole.last);
  const small = newPte(write ? 'anon' : 'zero', machine.seq, { write });
  const huge = tabled === undefined ? hugeReach(machine, vma, hole) : undefined;
  if (write || huge !== undefined) noteAnon(machine, vma);
  if (huge === undefined) {
    setRun(machine.runs, hole.start, hole.last, small);
    return '';
  }
  if (hole.start < huge.start) setRun(machine.runs, hole.start, sub(huge.start, 1), small);
  holdNothing(machine, huge.start, huge.last);
  setRun(machine.runs, huge.start, huge.last, { ...small, huge: true, large: write });
  if (hole.last > huge.last) setRun(machine.runs, add(huge.last, 1), hole.last, small);
  return '';
}

/** A hole of which a part is in blocks with page tables is filled in parts. */
function fillPart(machine: Machine, vma: Vma, hole: Interval, tabled: Interval, write: boolean): FaultErrno {
  const end = tabled.start > hole.start ? sub(tabled.start, 1) : tabled.last;
  const errno = fill(machine, vma, { start: hole.start, last: end }, write);
  // A huge page may have filled more than was asked for.
  return errno === '' ? touchPages(machine, vma, add(end, 1), hole.last, write) : errno;
}

/** hugetlbfs has no page of zeros: a read makes a page of its own too, without the right to write (`hugetlb_no_page`). */
function fillHugetlb(machine: Machine, vma: Vma, hole: Interval, write: boolean): FaultErrno {
  const start = max(blockAround(hole.start).start, vma.start);
  const last = min(blockAround(hole.last).last, vma.last);
  const shared = (vma.flags & MAP_SHARED) !== 0;
  const writable = shared ? (vma.prot & PROT_WRITE) !== 0 : write;
  const pte = newPte(shared ? 'file' : 'anon', machine.seq, { write: writable, huge: true, large: !shared });
  noteAnon(machine, vma);
  setRun(machine.runs, start, last, pte);
  return '';
}

/** Whether faults in the VMA may map 2 MiB at once: transparent huge pages are on by default (`always`). */
function hugeAllowed(vma: Vma): boolean {
  return isPrivateAnonymous(vma) && (vma.traits & VMA_NOHUGEPAGE) === 0;
}

/** Whether all of a block lies in the VMA and has no entry yet. */
function blockIsFree(machine: Machine, vma: Vma, block: U64): boolean {
  const last = add(block, HUGE_BYTES - 1);
  if (block < vma.start || last > vma.last || firstOverlap(machine.runs, block, last) !== undefined) return false;
  return !hasTable(machine, block);
}

/** The part around a hole that faults map by huge entries: whole blocks without any entry, all inside the VMA. */
function hugeReach(machine: Machine, vma: Vma, hole: Interval): Interval | undefined {
  if (!hugeAllowed(vma)) return undefined;
  const low = alignDown(hole.start, HUGE_BYTES);
  const high = alignDown(hole.last, HUGE_BYTES);
  const start = blockIsFree(machine, vma, low) ? low : add(low, HUGE_BYTES);
  const last = high === low || blockIsFree(machine, vma, high) ? add(high, HUGE_BYTES - 1) : sub(high, 1);
  return start < last ? { start, last } : undefined;
}

// ---- entries ---------------------------------------------------------------------------------------------

function touchEntry(machine: Machine, vma: Vma, piece: Interval, pte: PteRun, write: boolean): FaultErrno {
  switch (pte.kind) {
    case 'zero':
      if (write) replaceZero(machine, vma, piece, pte);
      return '';
    case 'anon':
    case 'coherent':
      if (write && !pte.write) makeWritable(machine, vma, piece, pte);
      return '';
    case 'file':
      if (write && !pte.write) writeFilePage(machine, vma, piece, pte);
      return '';
    case 'exclusive':
      restoreExclusive(machine, vma, piece, pte);
      return '';
    case 'private':
      for (const part of entriesOf(pte, piece.start, piece.last)) if (!bringBack(machine, pte, part)) return 'ENOMEM';
      return !write || pte.write ? '' : touchPages(machine, vma, piece.start, piece.last, true);
  }
}

/** The page of zeros gives way to a new page; a huge one to a huge page, or to a small one where there is none to be had. */
function replaceZero(machine: Machine, vma: Vma, piece: Interval, pte: PteRun): void {
  noteAnon(machine, vma);
  const { exchanged } = machine;
  const small = exchanged !== undefined && sub(exchanged.last, exchanged.start) < HUGE_BYTES - 1;
  for (const { start, last, huge } of small ? [{ ...piece, huge: false }] : entriesOf(pte, piece.start, piece.last)) {
    machine.invalidate(NOTIFY_CLEAR, start, last);
    setRun(machine.runs, start, last, newPte('anon', machine.seq, { write: true, huge, large: huge }));
  }
}

function writeFilePage(machine: Machine, vma: Vma, piece: Interval, pte: PteRun): void {
  if (vma.flags & MAP_SHARED) {
    setRun(machine.runs, piece.start, piece.last, { ...pte, write: true });
    return;
  }
  machine.invalidate(NOTIFY_CLEAR, piece.start, piece.last);
  noteAnon(machine, vma);
  hold(machine.dataToWrite(), piece.start, piece.last, UNKNOWN_DATA);
  setRun(machine.runs, piece.start, piece.last, newPte('anon', machine.seq, { write: true }));
}

/** `restore_exclusive_pte`: the page is not shared, so it becomes writable where the VMA is. */
export function restoreExclusive(machine: Machine, vma: Vma, piece: Interval, pte: PteRun): void {
  machine.invalidate(NOTIFY_CLEAR, piece.start, piece.last);
  const kind = pte.device >= 0 ? 'coherent' : 'anon';
  const write = (vma.prot & PROT_WRITE) !== 0;
  setRun(machine.runs, piece.start, piece.last, { ...pte, kind, write, cow: false });
}

// ---- device-private memory -------------------------------------------------------------------------------

/**
 * `dmirror_devmem_fault`: the mirror that took the pages brings them back, for all who share them, and forgets its entries for
 * them. When its next allocation is to fail, the fault fails with it, and that once. What one entry maps comes back
 * whole; of a huge page that many entries map each page comes back by itself, and the huge page is split for it.
 */
function bringBack(machine: Machine, pte: PteRun, part: Part): boolean {
  const owner = mirrorOf(machine, pte.mirror);
  if (owner?.failAlloc && part.huge && part.last > blockAround(part.start).last) {
    const first = { ...part, last: blockAround(part.start).last };
    return bringBack(machine, pte, first) && bringBack(machine, pte, { ...part, start: add(first.last, 1) });
  }
  if (owner?.failAlloc && !part.huge && sub(part.last, part.start) >= PAGE_BYTES)
    return bringBack(machine, pte, { ...part, last: add(part.start, PAGE_BYTES - 1) });
  machine.invalidate(NOTIFY_MIGRATE, part.start, part.last, pte.device);
  if (!part.huge && pte.large) splitPages(machine, pte, part);
  tellSharers(machine, pte, part);
  const fails = owner?.failAlloc ?? false;
  if (owner !== undefined) owner.failAlloc = false;
  if (fails && !part.huge) return false;
  // A huge page falls back to small ones.
  if (fails) machine.invalidate(NOTIFY_CLEAR, part.start, part.last);
  const back = { kind: 'anon', device: -1, mirror: 0, since: machine.seq } as const;
  relocate(machine, pte, part, back, part.huge && !fails);
  if (owner !== undefined) dropEntries(owner.ptes, part.start, part.last);
  return true;
}

/** The mirror that took a page, which may be one of a relative. */
function mirrorOf(machine: Machine, id: number): WorkMirror | undefined {
  const own = machine.mirror(id);
  if (own !== undefined || id === 0) return own;
  for (const kin of machine.kin()) {
    const found = kin.mirror(id);
    if (found !== undefined) return found;
  }
  return undefined;
}
