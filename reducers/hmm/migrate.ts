import { add, alignUp, min, sub, type U64 } from '../../core/u64.js';
import { PROT_READ, PROT_WRITE } from '../memory/flags.js';
import {
  HUGE_BYTES,
  hugePart,
  PAGE_BYTES,
  type Piece,
  type Pte,
  type PteRun,
  pieces,
  setRun,
} from '../memory/pagetable.js';
import { VMA_HUGETLB, VMA_PFNMAP, type Vma } from '../memory/state.js';
import { type Machine, NOTIFY_CLEAR, NOTIFY_MIGRATE, type WorkMirror } from './machine.js';
import { dropEntries, putEntries } from './mirror-table.js';
import { isPrivateDevice } from './state.js';
import { hugeAllowed, isPrivateAnonymous } from './touch.js';

/**
 * Migration between system and device memory as dmirror does it (lib/test_hmm.c, mm/migrate_device.c).
 *
 * A range is worked through in segments that end at VMAs and after 512 pages; a failure leaves the segments before
 * it migrated. To the device go pages of system memory and, in anonymous memory, places without a page; pages of
 * files do not (only anonymous folios can become device memory), nor what is in device memory or exclusive. The entry
 * keeps its right to write; a place without a page becomes writable where the VMA is, but its mirror entry does not:
 * the driver sees no page that could have been writable. Back go the pages of the caller's own device. A page in
 * coherent memory that is mapped by a huge entry stays: the walk skips huge present entries unless system memory
 * was asked for.
 */

const SEGMENT_BYTES = 512 * PAGE_BYTES;

/** A mapping without struct pages or with foreign ones cannot be migrated, nor hugetlbfs (VM_SPECIAL). */
function migratable(vma: Vma | undefined, special: (vma: Vma) => boolean): vma is Vma {
  if (vma === undefined || (vma.prot & PROT_READ) === 0) return false;
  return (vma.traits & (VMA_HUGETLB | VMA_PFNMAP)) === 0 && !special(vma);
}

/** Calls `work` for each segment of the range; the errno of the first that cannot be migrated, or ''. */
function eachSegment(
  machine: Machine,
  start: U64,
  last: U64,
  special: (vma: Vma) => boolean,
  work: (vma: Vma, start: U64, last: U64) => string,
): string {
  let at = start;
  for (;;) {
    const vma = machine.vmaAt(at);
    if (!migratable(vma, special)) return 'EINVAL';
    const end = min(min(last, add(at, SEGMENT_BYTES - 1)), vma.last);
    const errno = work(vma, at, end);
    if (errno !== '') return errno;
    if (end >= last) return '';
    at = add(end, 1);
  }
}

/** MIGRATE_TO_DEV without the reading back: errno, or ''. */
export function migrateToDevice(
  machine: Machine,
  mirror: WorkMirror,
  start: U64,
  last: U64,
  special: (vma: Vma) => boolean,
): string {
  return eachSegment(machine, start, last, special, (vma, from, to) => {
    machine.invalidate(NOTIFY_MIGRATE, from, to, mirror.device);
    for (const piece of pieces(machine.runs, from, to)) toDevice(machine, mirror, vma, piece, from, to);
    return '';
  });
}

function toDevice(machine: Machine, mirror: WorkMirror, vma: Vma, piece: Piece, segStart: U64, segLast: U64): void {
  const { pte } = piece;
  const empty = pte === undefined || pte.kind === 'zero';
  if (empty ? !isPrivateAnonymous(vma) : pte.kind !== 'anon' && pte.kind !== 'file') return;
  const page = allocate(machine, mirror, wholeBlocks(vma, piece, segStart, segLast));
  const start = page === 'none once' ? add(piece.start, PAGE_BYTES) : piece.start;
  if (page === 'none' || start > piece.last || pte?.kind === 'file') return;
  const write = empty ? (vma.prot & PROT_WRITE) !== 0 : pte.write;
  const kind = isPrivateDevice(mirror.device) ? 'private' : 'coherent';
  const { device, id } = mirror;
  const huge = page === 'huge';
  const moved: Pte = { kind, write, cow: pte?.cow ?? false, huge, device, mirror: id, since: machine.seq };
  setRun(machine.runs, start, piece.last, moved);
  machine.devices |= 1 << device;
  const access = !empty && pte.write ? 'write' : 'read';
  putEntries(mirror.ptes, start, piece.last, { access, bare: false, since: machine.seq });
}

/**
 * What the device gives for the pages of a piece. FAIL_ALLOC makes the next allocation fail: a huge page falls back to
 * small ones, a small one stays where it is. A device with private memory makes room for either size whenever it
 * runs out. One with coherent memory has a single chunk: all small pages at boot, and after RELEASE whatever is asked
 * for first; the other size cannot be had, but 512 small pages stand in for a huge one.
 */
function allocate(machine: Machine, mirror: WorkMirror, whole: boolean): 'huge' | 'small' | 'none' | 'none once' {
  const fails = mirror.failAlloc;
  mirror.failAlloc = false;
  if (fails && !whole) return 'none once';
  const huge = whole && !fails;
  if (isPrivateDevice(mirror.device)) return huge ? 'huge' : 'small';
  machine.askedPages = true;
  if (machine.coherentPages === 'fresh') machine.coherentPages = huge ? 'large' : 'small';
  if (machine.coherentPages === 'small') return 'small';
  return huge ? 'huge' : 'none';
}

/** Whether the piece is migrated by 2 MiB: it holds a whole block of the segment that is mapped so, or not at all. */
function wholeBlocks(vma: Vma, piece: Piece, segStart: U64, segLast: U64): boolean {
  const block = alignUp(segStart, HUGE_BYTES);
  if (block !== segStart || sub(segLast, segStart) !== SEGMENT_BYTES - 1) return false;
  if (piece.start !== segStart || piece.last !== segLast) return false;
  if (piece.pte === undefined) return hugeAllowed(vma);
  return hugePart(piece.pte, segStart, segLast)?.start === segStart;
}

/** MIGRATE_TO_SYS: the pages counted, and errno or ''. */
export function migrateToSystem(
  machine: Machine,
  mirror: WorkMirror,
  start: U64,
  last: U64,
  special: (vma: Vma) => boolean,
): { readonly errno: string; readonly cpages: number } {
  let cpages = 0;
  const errno = eachSegment(machine, start, last, special, (_vma, from, to) => {
    machine.invalidate(NOTIFY_MIGRATE, from, to, mirror.device);
    for (const piece of pieces(machine.runs, from, to)) {
      const moved = toSystem(machine, mirror, piece, from, to);
      if (moved < 0) return 'ENOMEM';
      cpages += moved;
    }
    return '';
  });
  return { errno, cpages };
}

function toSystem(machine: Machine, mirror: WorkMirror, piece: Piece, segStart: U64, segLast: U64): number {
  const { pte } = piece;
  if (pte === undefined || pte.device !== mirror.device || pte.kind === 'exclusive') return 0;
  const huge = hugePart(pte, piece.start, piece.last);
  // Coherent memory that huge entries map stays where it is.
  if (pte.kind === 'coherent' && huge?.start === piece.start && huge.last === piece.last) return 0;
  const aligned = huge?.start === segStart && huge.last === segLast && sub(segLast, segStart) === SEGMENT_BYTES - 1;
  const fails = mirror.failAlloc;
  mirror.failAlloc = false;
  // A huge page falls back to small ones.
  if (fails && !aligned) return -1;
  if (pte.kind === 'private') {
    const whole = aligned && !fails;
    comeBack(machine, mirror, pte, piece.start, piece.last, whole);
    return whole ? 1 : pagesIn(piece.start, piece.last);
  }
  if (huge === undefined) return comeBack(machine, mirror, pte, piece.start, piece.last, false);
  let count = 0;
  if (huge.start > piece.start) count += comeBack(machine, mirror, pte, piece.start, sub(huge.start, 1), false);
  if (huge.last < piece.last) count += comeBack(machine, mirror, pte, add(huge.last, 1), piece.last, false);
  return count;
}

/** Pages are in system memory again, and the mirror forgets its entries for them. How many pages. */
function comeBack(machine: Machine, mirror: WorkMirror, pte: PteRun, start: U64, last: U64, huge: boolean): number {
  dropEntries(mirror.ptes, start, last);
  setRun(machine.runs, start, last, { ...pte, kind: 'anon', huge, device: -1, mirror: 0, since: machine.seq });
  return pagesIn(start, last);
}

export function pagesIn(start: U64, last: U64): number {
  return Math.floor(Number(sub(last, start)) / PAGE_BYTES) + 1;
}

/**
 * All pages of a device leave it, by page and not by address (`dmirror_device_evict_chunk`): when one of its files is
 * closed, or on RELEASE. Each page is unmapped from wherever it is mapped, which tells every mirror.
 */
export function evictDevice(machine: Machine, device: number): void {
  if ((machine.devices & (1 << device)) === 0) return;
  const held: PteRun[] = [];
  for (const run of machine.runs.values()) if (run.device === device) held.push(run);
  for (const run of held) {
    machine.invalidate(NOTIFY_CLEAR, run.start, run.last);
    const kind = run.kind === 'exclusive' ? 'exclusive' : 'anon';
    setRun(machine.runs, run.start, run.last, { ...run, kind, device: -1, mirror: 0, since: machine.seq });
  }
  machine.devices &= ~(1 << device);
}
