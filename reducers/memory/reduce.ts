import type { BrkEvent, Event, MadviseEvent, MmapEvent, MprotectEvent, MunmapEvent } from '../../core/event.js';
import { firstGap, overlapping } from '../../core/interval.js';
import { add, alignUp, sub, type U64 } from '../../core/u64.js';
import type { Families } from '../family.js';
import { fileOfFd, processOf } from '../files/fds.js';
import type { OpenFile, Process } from '../files/state.js';
import type { Tx } from '../tx.js';
import { emptied, filled } from './emptied.js';
import {
  lastOfMapping,
  lastOfPages,
  MADV_DODUMP,
  MADV_DOFORK,
  MADV_DONTDUMP,
  MADV_DONTFORK,
  MADV_GUARD_INSTALL,
  MADV_GUARD_REMOVE,
  MADV_HUGEPAGE,
  MADV_KEEPONFORK,
  MADV_NOHUGEPAGE,
  MADV_WIPEONFORK,
  MAP_32BIT,
  MAP_ANONYMOUS,
  MAP_FIXED,
  MAP_FIXED_NOREPLACE,
  MAP_GROWSDOWN,
  MAP_HUGE_MASK,
  MAP_HUGE_SHIFT,
  MAP_HUGETLB,
  MAP_LOCKED,
  MAP_NORESERVE,
  MAP_PRIVATE,
  MAP_SHARED,
  MAP_TYPE,
  PAGE_BYTES,
  PROT_READ,
  PROT_WRITE,
} from './flags.js';
import { loseMemory } from './identity.js';
import { isLocked, lockNew, reduceMlock, unlockLost } from './mlock.js';
import { piecesOf, replaceRange, trimVma } from './ranges.js';
import { remap } from './remap.js';
import {
  type AddressSpace,
  VMA_ASSUMED,
  VMA_DONTDUMP,
  VMA_DONTFORK,
  VMA_GUARD,
  VMA_HEAP,
  VMA_HUGEPAGE,
  VMA_HUGETLB,
  VMA_NOHUGEPAGE,
  VMA_PFNMAP,
  VMA_WIPEONFORK,
  type Vma,
} from './state.js';

/**
 * What the memory calls of a process do to its address space.
 *
 * The result is recorded, so these calls are followed, not predicted: a successful one happened as asked, and the
 * address returned says where. A failed one changed nothing, with two exceptions of the kernel: mprotect and
 * madvise work through the range VMA by VMA. mprotect keeps what it did before the hole that gave ENOMEM; madvise
 * goes on after a hole and gives ENOMEM at the end (mm/mprotect.c, mm/madvise.c). A call without a
 * recorded result changes nothing certain; only mprotect, which one kind of recorder takes where it begins, is then
 * done up to the first hole, for there it ends.
 *
 * What a call would not have done without a VMA there is taken as proof of one (VMA_ASSUMED): so the program's
 * own pages, which execve maps, appear with their first mprotect.
 */
export function reduceMemory(tx: Tx, event: Event, families: Families): boolean {
  switch (event.kind) {
    case 'mlock':
      reduceMlock(tx, event);
      return true;
    case 'mmap':
    case 'munmap':
    case 'mprotect':
    case 'mremap':
    case 'madvise':
    case 'brk':
      break;
    default:
      return false;
  }
  if (event.ret === null ? event.kind !== 'mprotect' : event.ret === -1 && event.errno !== 'ENOMEM') return true;
  const process = processOf(tx, event);
  const space = tx.world.spaces.get(process.space);
  if (space === undefined) return true;
  loseMemory(tx, space, event);
  const carried = event.kind === 'mremap' && isLocked(tx, space.id, event.addr);
  unlockLost(tx, space, event);
  switch (event.kind) {
    case 'mmap':
      mapped(tx, process, space, event, families);
      break;
    case 'munmap':
      unmapped(tx, space, event, families);
      break;
    case 'mprotect':
      protectedRange(tx, space, event, families);
      break;
    case 'mremap':
      if (event.ret !== null && event.ret !== -1) remap(tx, space, event, event.ret, families);
      break;
    case 'madvise':
      advised(tx, space, event, families);
      break;
    case 'brk':
      if (event.ret !== null && event.ret !== -1) breakMoved(tx, space, event, event.ret, families);
  }
  lockNew(tx, space, event, carried);
  return true;
}

// ---- mmap, munmap ----------------------------------------------------------------------------------------

const KEPT_FLAGS =
  MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_LOCKED | MAP_NORESERVE | MAP_HUGETLB | (MAP_HUGE_MASK << MAP_HUGE_SHIFT);

function mapped(tx: Tx, process: Process, space: AddressSpace, event: MmapEvent, families: Families): void {
  if (event.ret === null || event.ret === -1) return;
  const start = event.ret;
  const last = lastOfMapping(start, event.lengthBytes, event.flags);
  if (last === undefined) return;
  const anonymous = (event.flags & MAP_ANONYMOUS) !== 0 || event.fd === -1;
  const file = anonymous ? undefined : fileOfFd(tx, process, event.fd, event.path, event, families);
  const shared = (event.flags & MAP_TYPE & MAP_SHARED) !== 0;
  const vma: Vma = Object.freeze({
    start,
    last,
    prot: event.prot & 7,
    flags: (event.flags & KEPT_FLAGS) | (shared ? MAP_SHARED : MAP_PRIVATE),
    file: file?.id ?? 0,
    offset: file === undefined ? start : event.offset,
    since: event.seq,
    traits: traitsOf(event.flags, anonymous, file),
  });
  if (space.firstPlacedLast === null) notePlace(tx, space, event, last);
  replaceRange(tx, space, start, last, [vma], false, event, families);
  filled(tx, space, start, last);
}

function traitsOf(flags: number, anonymous: boolean, file: OpenFile | undefined): number {
  if (anonymous) return flags & MAP_HUGETLB ? VMA_HUGETLB : 0;
  if (file === undefined) return VMA_ASSUMED;
  return file.kind === 'vfio-device' || file.kind === 'iommufd' ? VMA_PFNMAP : 0;
}

function notePlace(tx: Tx, space: AddressSpace, event: MmapEvent, last: U64): void {
  const steered = MAP_FIXED | MAP_FIXED_NOREPLACE | MAP_32BIT;
  if (!space.complete || event.addr !== 0 || (event.flags & steered) !== 0) return;
  tx.world.spaces.set(space.id, Object.freeze({ ...space, firstPlacedLast: last }));
}

function unmapped(tx: Tx, space: AddressSpace, event: MunmapEvent, families: Families): void {
  const last = lastOfPages(event.addr, event.lengthBytes);
  if (event.ret !== 0 || last === undefined) return;
  replaceRange(tx, space, event.addr, last, [], false, event, families);
  emptied(tx, space, event.addr, last);
}

// ---- mprotect, madvise -----------------------------------------------------------------------------------

function protectedRange(tx: Tx, space: AddressSpace, event: MprotectEvent, families: Families): void {
  const asked = lastOfPages(event.addr, event.lengthBytes);
  if (asked === undefined) return;
  const gap = firstGap(space.vmas, event.addr, asked);
  if (event.ret !== 0) {
    if (gap === event.addr || (gap === undefined && event.ret === -1)) return;
    const last = gap === undefined ? asked : sub(gap, 1);
    rewrite(tx, space, event.addr, last, event, families, (vma) => ({ ...vma, prot: event.prot & 7 }));
    return;
  }
  if (gap !== undefined) assume(tx, space, event.addr, asked, event.prot & 7, event, families);
  rewrite(tx, space, event.addr, asked, event, families, (vma) => ({ ...vma, prot: event.prot & 7 }));
}

/** Which trait bits an advice sets and clears. */
export const ADVICE_TRAITS: ReadonlyMap<number, { readonly set: number; readonly clear: number }> = new Map([
  [MADV_DONTFORK, { set: VMA_DONTFORK, clear: 0 }],
  [MADV_DOFORK, { set: 0, clear: VMA_DONTFORK }],
  [MADV_WIPEONFORK, { set: VMA_WIPEONFORK, clear: 0 }],
  [MADV_KEEPONFORK, { set: 0, clear: VMA_WIPEONFORK }],
  [MADV_HUGEPAGE, { set: VMA_HUGEPAGE, clear: VMA_NOHUGEPAGE }],
  [MADV_NOHUGEPAGE, { set: VMA_NOHUGEPAGE, clear: VMA_HUGEPAGE }],
  [MADV_DONTDUMP, { set: VMA_DONTDUMP, clear: 0 }],
  [MADV_DODUMP, { set: 0, clear: VMA_DONTDUMP }],
  [MADV_GUARD_INSTALL, { set: VMA_GUARD, clear: 0 }],
  [MADV_GUARD_REMOVE, { set: 0, clear: VMA_GUARD }],
]);

function advised(tx: Tx, space: AddressSpace, event: MadviseEvent, families: Families): void {
  const change = ADVICE_TRAITS.get(event.advice);
  const last = change === undefined ? undefined : lastOfPages(event.addr, event.lengthBytes);
  if (change === undefined || last === undefined) return;
  rewrite(tx, space, event.addr, last, event, families, (vma) => ({
    ...vma,
    traits: (vma.traits & ~change.clear) | change.set,
  }));
}

/** Changes every VMA piece in the range that the recipe changes. */
function rewrite(
  tx: Tx,
  space: AddressSpace,
  start: U64,
  last: U64,
  event: Event,
  families: Families,
  recipe: (vma: Vma) => Vma,
): void {
  const now = tx.world.spaces.get(space.id) ?? space;
  const pieces = piecesOf(now.vmas, start, last).map((vma) => Object.freeze(recipe(vma)));
  if (pieces.length > 0) replaceRange(tx, now, start, last, pieces, true, event, families);
}

/** Fills the holes of the range with VMAs that must be there, since the call succeeded. */
function assume(
  tx: Tx,
  space: AddressSpace,
  start: U64,
  last: U64,
  prot: number,
  event: Event,
  families: Families,
): void {
  const filler = { prot, flags: MAP_PRIVATE, file: 0, offset: 0, since: event.seq, traits: VMA_ASSUMED };
  const pieces: Vma[] = [];
  let at: U64 = start;
  for (const vma of overlapping(space.vmas, start, last)) {
    if (at < vma.start) pieces.push(Object.freeze({ ...filler, start: at, last: sub(vma.start, 1) }));
    pieces.push(trimVma(vma, vma.start > start ? vma.start : start, vma.last < last ? vma.last : last));
    if (vma.last >= last) break;
    at = add(vma.last, 1);
  }
  const end = pieces.at(-1);
  if (end === undefined || end.last < last) pieces.push(Object.freeze({ ...filler, start: at, last }));
  replaceRange(tx, space, start, last, pieces, false, event, families);
  filled(tx, space, start, last);
}

// ---- brk -------------------------------------------------------------------------------------------------

/** brk returns the end of the heap, moved or not; the first call of a program asks for it (mm/mmap.c). */
function breakMoved(tx: Tx, space: AddressSpace, event: BrkEvent, end: U64, families: Families): void {
  const before = space.heapEnd;
  if (before !== null && end !== before) {
    const oldEnd = alignUp(before, PAGE_BYTES);
    const newEnd = alignUp(end, PAGE_BYTES);
    if (newEnd > oldEnd) growHeap(tx, space, oldEnd, sub(newEnd, 1), event, families);
    if (newEnd < oldEnd) {
      replaceRange(tx, space, newEnd, sub(oldEnd, 1), [], false, event, families);
      emptied(tx, space, newEnd, sub(oldEnd, 1));
    }
  }
  const now = tx.world.spaces.get(space.id);
  if (now === undefined || end === now.heapEnd) return;
  const heapStart = now.heapStart ?? (now.complete && event.addr === 0 ? end : null);
  tx.world.spaces.set(space.id, Object.freeze({ ...now, heapStart, heapEnd: end }));
}

function growHeap(tx: Tx, space: AddressSpace, start: U64, last: U64, event: Event, families: Families): void {
  const below = space.vmas.lower(start);
  const continued = below !== undefined && (below.traits & VMA_HEAP) !== 0 && add(below.last, 1) === start;
  const since = continued ? below.since : event.seq;
  const prot = PROT_READ | PROT_WRITE;
  const flags = MAP_PRIVATE | MAP_ANONYMOUS;
  const vma: Vma = Object.freeze({ start, last, prot, flags, file: 0, offset: start, since, traits: VMA_HEAP });
  replaceRange(tx, space, start, last, [vma], true, event, families);
  filled(tx, space, start, last);
}
