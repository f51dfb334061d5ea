import type { Event, MlockEvent, MmapEvent, MprotectEvent, MremapEvent } from '../../core/event.js';
import { firstGap, firstOverlap } from '../../core/interval.js';
import { add, alignDown, alignUp, lastOf, max, min, sub, type U64 } from '../../core/u64.js';
import {
  lastOfMapping,
  lastOfPages,
  MADV_COLLAPSE,
  MADV_DONTNEED,
  MADV_DONTNEED_LOCKED,
  MADV_FREE,
  MADV_GUARD_INSTALL,
  MADV_REMOVE,
  MAP_LOCKED,
  MAP_SHARED,
  MLOCK_ONFAULT,
  MREMAP_DONTUNMAP,
  MREMAP_FIXED,
  PAGE_BYTES,
  PROT_READ,
  PROT_WRITE,
} from '../memory/flags.js';
import { HUGE_BYTES, newPte, type Pte, pieces, setRun } from '../memory/pagetable.js';
import { type MovedPart, movedParts, targetOf } from '../memory/moved.js';
import type { Vma } from '../memory/state.js';
import { dropAnon, putAnon } from './anon.js';
import { advise } from './advice.js';
import { heldIn, hold } from './contents.js';
import { type Machine, NOTIFY_PROTECTION_VMA, NOTIFY_UNMAP } from './machine.js';
import { isWritableAtOnce } from './page-cache.js';
import { cutMappings, splitEdges, splitEntries } from './sharing.js';
import { dropTables, freeTables, keepTables } from './tables.js';
import { populateRange, touch } from './touch.js';

/**
 * What memory calls do to page table entries, and which invalidations they cause.
 *
 * All of it is worked out before the call changes the VMAs: what goes is described by the VMAs that were there.
 * Each function names where the kernel notifies: munmap and mmap once over the range asked for when anything is
 * mapped in it (`unmap_vmas`), mprotect once for each VMA whose rights change (`change_pud_range`), madvise once
 * for each VMA (advice.ts), mremap once for the old place (`move_page_tables`). Where a call cuts a mapping, mirrors are told
 * of the block around (`cutMappings`).
 */

const MAP_POPULATE = 0x8000;

/** Applies a memory call before the VMAs change. Calls that failed without effect must not come here. */
export function callChangesPages(machine: Machine, event: Event): void {
  switch (event.kind) {
    case 'mmap':
      replace(machine, event);
      return;
    case 'munmap':
      if (event.ret !== -1) unmap(machine, event.addr, lastOfPages(event.addr, event.lengthBytes));
      return;
    case 'brk':
      shrinkHeap(machine, event.ret);
      return;
    case 'mprotect':
      protect(machine, event);
      return;
    case 'mremap':
      if (event.ret !== null && event.ret !== -1) move(machine, event, event.ret);
      return;
    case 'madvise':
      advise(machine, event);
      return;
    case 'mlock':
      lock(machine, event);
      return;
    default:
  }
}

/**
 * Whether a call that recorders of kernel events take where it begins may take page table entries away, or rights of them: its
 * invalidations follow. mmap and mremap are taken where they return.
 */
export function takesPages(event: Event): boolean {
  switch (event.kind) {
    case 'madvise':
      return TAKING.has(event.advice);
    case 'munmap':
    case 'mprotect':
      return true;
    default:
      return false;
  }
}

const TAKING: ReadonlySet<number> = new Set([
  MADV_DONTNEED,
  MADV_FREE,
  MADV_REMOVE,
  MADV_DONTNEED_LOCKED,
  MADV_COLLAPSE,
  MADV_GUARD_INSTALL,
]);

/** Whether {@link mappingFills} may do anything: most new mappings are empty. */
export function mayFill(event: MmapEvent): boolean {
  return event.fd >= 0 || (event.flags & (MAP_POPULATE | MAP_LOCKED)) !== 0;
}

/** What a new mapping is filled with at once: MAP_POPULATE, and the pages that dmirror puts into a mapping of itself. */
export function mappingFills(machine: Machine, event: MmapEvent, byDriver: boolean): void {
  if (event.ret === null || event.ret === -1) return;
  const vma = machine.vmaAt(event.ret);
  const last = lastOfPages(event.ret, event.lengthBytes);
  if (vma === undefined || last === undefined) return;
  const write = (vma.prot & PROT_WRITE) !== 0 && (vma.flags & MAP_SHARED) === 0;
  if (byDriver) {
    const shared = (vma.flags & MAP_SHARED) !== 0 && (vma.prot & PROT_WRITE) !== 0;
    setRun(machine.runs, vma.start, min(last, vma.last), newPte('file', machine.seq, { write: shared }));
  } else if (event.flags & (MAP_POPULATE | MAP_LOCKED) && vma.prot & PROT_READ)
    touch(machine, vma, vma.start, min(last, vma.last), write);
}

/** A new mapping has no entries; faults of MAP_POPULATE that a recording shows before it are made again. */
function replace(machine: Machine, event: MmapEvent): void {
  if (event.ret === null || event.ret === -1) return;
  const last = lastOfMapping(event.ret, event.lengthBytes, event.flags);
  unmap(machine, event.ret, last);
  if (last !== undefined) machine.clear(event.ret, last);
}

function unmap(machine: Machine, start: U64, last: U64 | undefined): void {
  if (last === undefined) return;
  if (firstOverlap(machine.space.vmas, start, last) !== undefined) {
    cutMappings(machine, start, last);
    machine.invalidate(NOTIFY_UNMAP, start, last);
  }
  dropAnon(machine, start, last);
  keepTables(machine, start, last);
  machine.clear(start, last);
  freeTables(machine, start, last);
}

function shrinkHeap(machine: Machine, ret: U64 | -1 | null): void {
  const { heapEnd } = machine.space;
  if (ret === null || ret === -1 || heapEnd === null || ret >= heapEnd) return;
  const from = alignUp(ret, PAGE_BYTES);
  const end = alignUp(heapEnd, PAGE_BYTES);
  if (from < end) unmap(machine, from, sub(end, 1));
}

// ---- mprotect --------------------------------------------------------------------------------------------

function protect(machine: Machine, event: MprotectEvent): void {
  const asked = lastOfPages(event.addr, event.lengthBytes);
  if (asked === undefined || (event.ret === -1 && event.errno !== 'ENOMEM')) return;
  const gap = event.ret === 0 ? undefined : firstGap(machine.space.vmas, event.addr, asked);
  if (gap === event.addr) return;
  const last = gap === undefined ? asked : sub(gap, 1);
  const prot = event.prot & 7;
  for (const vma of machine.vmasIn(event.addr, last)) {
    if (vma.prot === prot) continue;
    const from = max(vma.start, event.addr);
    const to = min(vma.last, last);
    cutMappings(machine, from, to);
    machine.invalidate(NOTIFY_PROTECTION_VMA, from, to);
    for (const piece of pieces(machine.runs, from, to)) {
      if (piece.pte === undefined) continue;
      const write = writeAfter(machine, piece.pte, vma, prot);
      if (write !== piece.pte.write) setRun(machine.runs, piece.start, piece.last, { ...piece.pte, write });
    }
  }
}

/**
 * Whether an entry is writable after mprotect: without PROT_WRITE none is (exclusive entries are left alone); with
 * it, anonymous pages that nobody shares are at once, and shared pages of memory files; device-private entries stay
 * read-only until they come back (mm/mprotect.c `can_change_pte_writable`, `change_softleaf_pte`).
 */
function writeAfter(machine: Machine, pte: Pte, vma: Vma, prot: number): boolean {
  if (pte.kind === 'exclusive') return pte.write;
  if ((prot & PROT_WRITE) === 0) return false;
  if (pte.kind === 'anon' || pte.kind === 'coherent') return pte.write || !pte.cow;
  if (pte.kind === 'file') return pte.write || isWritableAtOnce(machine, { ...vma, prot });
  return pte.write;
}

// ---- mremap ----------------------------------------------------------------------------------------------

function move(machine: Machine, event: MremapEvent, to: U64): void {
  const oldBytes = alignUp(event.oldLengthBytes, PAGE_BYTES);
  const newBytes = alignUp(event.newLengthBytes, PAGE_BYTES);
  const from = event.addr;
  if (to === from) {
    if (newBytes < oldBytes) unmap(machine, add(from, newBytes), lastOf(add(from, newBytes), sub(oldBytes, newBytes)));
    return;
  }
  const oldLast = lastOf(from, oldBytes);
  const stays = (event.flags & MREMAP_DONTUNMAP) !== 0;
  const parts = movedParts(machine.space, event, to);
  if (parts !== undefined) {
    for (const part of wholeParts(machine, parts)) {
      const target = targetOf(part);
      unmap(machine, target.start, target.last);
      movePages(machine, part, stays);
    }
    return;
  }
  if (event.flags & MREMAP_FIXED) unmap(machine, to, lastOf(to, newBytes));
  if (oldLast === undefined) return;
  if (newBytes < oldBytes) unmap(machine, add(from, newBytes), oldLast);
  const last = lastOf(from, min(oldBytes, newBytes));
  if (last !== undefined) movePages(machine, { start: from, last, to }, stays);
}

/** The parts as the kernel has them, whose mappings are one where they differ in nothing. */
function wholeParts(machine: Machine, parts: readonly MovedPart[]): MovedPart[] {
  const whole: MovedPart[] = [];
  for (const part of parts) {
    const before = whole.at(-1);
    const joined = before !== undefined && (machine.vmaAt(before.start)?.last ?? 0) >= part.start;
    if (joined) whole[whole.length - 1] = { ...before, last: part.last };
    else whole.push(part);
  }
  return whole;
}

/** The new mapping takes along that it got pages of its own; the old one forgets it where all of it has moved. */
function moveAnon(machine: Machine, from: U64, last: U64, distance: U64, stays: boolean): void {
  const vma = machine.vmaAt(from);
  const anon = vma === undefined ? undefined : firstOverlap(machine.anon, vma.start, vma.last);
  if (vma === undefined || anon === undefined) return;
  if (!stays || (vma.start === from && vma.last === last)) dropAnon(machine, from, last);
  putAnon(machine, { start: add(from, distance), last: add(last, distance), moved: add(anon.moved, distance) });
}

/**
 * `move_page_tables`: the entries go to the new place; what one entry maps goes whole where both places allow it. Then
 * the old place is unmapped, unless the mapping stays.
 */
function movePages(machine: Machine, { start: from, last, to }: MovedPart, stays: boolean): void {
  machine.invalidate(NOTIFY_UNMAP, from, last);
  if (stays) splitEdges(machine, from, last);
  else cutMappings(machine, from, last);
  const distance = sub(to, from);
  moveAnon(machine, from, last, distance, stays);
  if (alignDown(distance, HUGE_BYTES) !== distance) splitEntries(machine, from, last);
  if (machine.data.size > 0)
    for (const held of heldIn(machine.data, from, last))
      hold(machine.dataToWrite(), add(held.start, distance), add(held.last, distance), held.upto);
  const kept = pieces(machine.runs, from, last);
  // Tables of whole blocks move where the new place is as far from its own block.
  keepTables(machine, from, last);
  if (alignDown(distance, HUGE_BYTES) === distance) dropTables(machine, from, last);
  machine.clear(from, last);
  if (!stays) freeTables(machine, from, last);
  for (const { start, last: end, pte } of kept) {
    if (pte === undefined) continue;
    if (pte.cow || pte.large) machine.strayed = true;
    const moved = { since: machine.seq, moved: add(pte.moved, distance) };
    setRun(machine.runs, add(start, distance), add(end, distance), { ...pte, ...moved });
  }
}

// ---- mlock -----------------------------------------------------------------------------------------------

/** mlock and munlock cut the mapping where its lock ends; mlock touches all pages, private ones to write (mm/mlock.c). */
function lock(machine: Machine, event: MlockEvent): void {
  if (event.ret === null) return;
  const locks = event.call !== 'munlock';
  if (event.call === 'mlockall' || event.call === 'munlockall') return;
  const start = alignDown(event.addr, PAGE_BYTES);
  const last = lastOfPages(start, add(event.lengthBytes, sub(event.addr, start)));
  if (last === undefined || event.ret === -1) return;
  for (const vma of [...machine.vmasIn(start, last)]) {
    const from = max(vma.start, start);
    const to = min(vma.last, last);
    if (machine.isLocked(from) !== locks) cutMappings(machine, from, to);
    if (!locks || event.flags & MLOCK_ONFAULT || (vma.prot & (PROT_READ | PROT_WRITE)) === 0) continue;
    const write = (vma.prot & PROT_WRITE) !== 0 && (vma.flags & MAP_SHARED) === 0;
    if (machine.derives) populateRange(machine, vma, from, to, write);
  }
}
