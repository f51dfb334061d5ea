import type { Interval } from '../../core/interval.js';
import { add, min, sub, type U64 } from '../../core/u64.js';
import { PROT_READ, PROT_WRITE, PAGE_BYTES } from '../memory/flags.js';
import { newPte, type Pte, type PteRun, pieceAt, setRun } from '../memory/pagetable.js';
import { VMA_HUGETLB, VMA_PFNMAP, type Vma } from '../memory/state.js';
import { noteAnon } from './anon.js';
import { holdNothing } from './contents.js';
import { type Machine, NOTIFY_CLEAR, NOTIFY_MIGRATE, type WorkMirror } from './machine.js';
import { dropEntries, putEntries } from './mirror-table.js';
import { tellMappers } from './page-cache.js';
import { blockAround, hugeBlock, relocate, splitEntry, splitPage, splitPages, tellSharers } from './sharing.js';
import { isPrivateDevice } from './state.js';
import { hasTable } from './tables.js';
import { isPrivateAnonymous } from './touch.js';

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

// ---- to the device ---------------------------------------------------------------------------------------

/** What a migration takes: an entry of a huge page, or entries or places of small ones. */
interface Taken extends Interval {
  readonly pte: PteRun | undefined;
  /** One entry or place for the whole block. */
  readonly whole: boolean;
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
    const taken = eachBlock(from, to, (at, end) => takeForDevice(machine, vma, at, end));
    for (const { pte, start: first, last: end } of taken)
      if (pte?.kind === 'file') tellMappers(machine, vma, { start: first, last: end });
      else if (pte !== undefined) tellSharers(machine, pte, { start: first, last: end });
    // Mirrors hear of all that is taken before the driver stores what it got.
    const stored = taken.flatMap((one) => toDevice(machine, mirror, vma, one));
    for (const { start: first, last: end, access } of stored)
      putEntries(mirror.ptes, first, end, { access, bare: false, since: machine.seq });
    return '';
  });
}

function eachBlock<T>(from: U64, to: U64, work: (at: U64, end: U64) => readonly T[]): T[] {
  const found: T[] = [];
  for (let at = from; ; ) {
    const end = min(to, blockAround(at).last);
    found.push(...work(at, end));
    if (end >= to) return found;
    at = add(end, 1);
  }
}

/** `migrate_vma_collect_pmd` when system memory is asked for: the part of one block. A huge page taken in part is split. */
function takeForDevice(machine: Machine, vma: Vma, at: U64, end: U64): readonly Taken[] {
  const whole = isWhole(at, end);
  const first = pieceAt(machine.runs, at, end);
  if (first.pte !== undefined && hugeBlock(first.pte, at) !== undefined) {
    if (whole && isTakenWhole(first.pte)) return [{ ...first, whole: true }];
    if (first.pte.kind === 'anon') splitPage(machine, first.pte, at);
  } else if (whole && first.pte === undefined && first.last === end && !hasTable(machine, at))
    return isPrivateAnonymous(vma) ? [{ ...first, whole: true }] : [];
  return takeSmall(machine, vma, at, end);
}

function isTakenWhole(pte: Pte): boolean {
  return pte.kind === 'anon' || pte.kind === 'zero';
}

function takeSmall(machine: Machine, vma: Vma, from: U64, to: U64): readonly Taken[] {
  const taken: Taken[] = [];
  for (let at = from; ; ) {
    let piece = pieceAt(machine.runs, at, to);
    if (piece.pte?.kind === 'anon' && piece.pte.large) {
      splitPages(machine, piece.pte, piece);
      piece = pieceAt(machine.runs, at, to);
    }
    const kind = piece.pte?.kind;
    const isPlace = kind === undefined || kind === 'zero';
    if (isPlace ? isPrivateAnonymous(vma) : kind === 'anon' || kind === 'file')
      for (const part of machine.unguarded(vma, piece)) taken.push({ pte: piece.pte, ...part, whole: false });
    if (piece.last >= to) return taken;
    at = add(piece.last, 1);
  }
}

interface Stored extends Interval {
  readonly access: 'read' | 'write';
}

/** Puts what was taken into device memory, as far as there is room. */
function toDevice(machine: Machine, mirror: WorkMirror, vma: Vma, { pte, start, last, whole }: Taken): Stored[] {
  const page = allocate(machine, mirror, whole);
  const from = page === 'none once' ? add(start, PAGE_BYTES) : start;
  if (page === 'none' || from > last || pte?.kind === 'file') return [];
  const { device, id } = mirror;
  const huge = page === 'huge';
  const kind = isPrivateDevice(device) ? 'private' : 'coherent';
  const to = { kind, device, mirror: id, since: machine.seq } as const;
  machine.devices |= 1 << device;
  if (pte === undefined || pte.kind === 'zero') {
    // A huge page of zeros that is taken in part gives way to small ones (`migrate_vma_insert_page`).
    if (pte !== undefined && !huge) splitEntry(machine, from);
    const write = (vma.prot & PROT_WRITE) !== 0;
    noteAnon(machine, vma);
    holdNothing(machine, from, last);
    setRun(machine.runs, from, last, newPte(kind, machine.seq, { ...to, write, huge, large: huge }));
    return [{ start: from, last, access: 'read' }];
  }
  // A huge page for which there are small ones only is split once it is taken.
  if (whole && !huge) machine.invalidate(NOTIFY_CLEAR, start, last);
  relocate(machine, pte, { start: from, last }, to, huge);
  return [{ start: from, last, access: pte.write ? 'write' : 'read' }];
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
  if (huge) machine.madeHuge = mirror.device;
  return huge ? 'huge' : 'none';
}

/** Whether a part of a segment is a block. */
function isWhole(at: U64, end: U64): boolean {
  const block = blockAround(at);
  return block.start === at && block.last === end;
}

// ---- to the system ---------------------------------------------------------------------------------------

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
    const taken = eachBlock(from, to, (at, end) => takeFromDevice(machine, mirror.device, at, end));
    for (const { pte, start: first, last: end } of taken)
      if (pte !== undefined) tellSharers(machine, pte, { start: first, last: end });
    for (const one of taken) {
      const moved = toSystem(machine, mirror, one);
      if (moved < 0) return 'ENOMEM';
      cpages += moved;
    }
    return '';
  });
  return { errno, cpages };
}

/** The same where the caller's device memory is asked for. Coherent memory that one entry maps for a block stays where it is. */
function takeFromDevice(machine: Machine, device: number, from: U64, to: U64): readonly Taken[] {
  const first = pieceAt(machine.runs, from, to);
  if (first.pte !== undefined && hugeBlock(first.pte, from) !== undefined) {
    const own = first.pte.kind === 'private' && first.pte.device === device;
    if (!own) return [];
    if (isWhole(from, to)) return [{ ...first, whole: true }];
    splitPage(machine, first.pte, from);
  }
  const taken: Taken[] = [];
  for (let at = from; ; ) {
    let piece = pieceAt(machine.runs, at, to);
    const own = piece.pte?.device === device && piece.pte.kind !== 'exclusive';
    if (own && piece.pte?.large) {
      splitPages(machine, piece.pte, piece);
      piece = pieceAt(machine.runs, at, to);
    }
    if (own) taken.push({ ...piece, whole: false });
    if (piece.last >= to) return taken;
    at = add(piece.last, 1);
  }
}

/** How many pages came back; less than 0 when the first allocation failed. */
function toSystem(machine: Machine, mirror: WorkMirror, { pte, start, last, whole }: Taken): number {
  const fails = mirror.failAlloc;
  mirror.failAlloc = false;
  // A huge page falls back to small ones.
  if (fails && !whole) return -1;
  if (fails) machine.invalidate(NOTIFY_CLEAR, start, last);
  const huge = whole && !fails;
  dropEntries(mirror.ptes, start, last);
  if (pte !== undefined)
    relocate(machine, pte, { start, last }, { kind: 'anon', device: -1, mirror: 0, since: machine.seq }, huge);
  return huge ? 1 : pagesIn(start, last);
}

function pagesIn(start: U64, last: U64): number {
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
    // What was exclusive is the CPU's again, to be read (`try_to_migrate_one`).
    const write = run.kind !== 'exclusive' && run.write;
    setRun(machine.runs, run.start, run.last, {
      ...run,
      kind: 'anon',
      write,
      device: -1,
      mirror: 0,
      since: machine.seq,
    });
  }
  machine.devices &= ~(1 << device);
}
