import type { Event, MlockEvent } from '../../core/event.js';
import { carve, type Interval, overlapping, rangeAt, trimmed } from '../../core/interval.js';
import { add, alignDown, alignUp, lastOf, max, min, sub, type U64 } from '../../core/u64.js';
import { processOf } from '../files/processes.js';
import type { Tx } from '../tx.js';
import { lastOfMapping, lastOfPages, MAP_LOCKED, PAGE_BYTES } from './flags.js';
import { charge, NOTHING_LOCKED, type SpaceLocked } from './locked.js';
import { lostRanges } from './lost.js';
import { type AddressSpace, VMA_HUGETLB } from './state.js';
import { pagesBetween, substanceOf } from './substance.js';

/**
 * Which VMAs are locked (VM_LOCKED), because their pages count against the same limit as pinned ones (mm/mlock.c).
 *
 * - mlock and mlock2 lock whole VMAs or parts of them, munlock undoes it; ranges are kept here, whatever VMAs are
 *   there. Device memory and huge pages of hugetlbfs are never counted (`vma_supports_mlock`).
 * - A call that fails with ENOMEM or EAGAIN may have locked or unlocked some: what is locked for sure is kept.
 * - mlockall locks all that is there (MCL_CURRENT), also what execve mapped, whose size no recording shows; or what
 *   comes (MCL_FUTURE), as MAP_LOCKED does for one mapping. munlockall, like an mlockall without MCL_FUTURE, ends that.
 * - Memory that is unmapped or replaced is not locked any more; mremap takes the lock along and locks what grows.
 * - A child of fork, and an execve, begin without locked memory (kernel/fork.c, `mm_init`).
 */

const MCL_CURRENT = 1;
const MCL_FUTURE = 2;

export function reduceMlock(tx: Tx, event: MlockEvent): void {
  const space = tx.world.spaces.get(processOf(tx, event).space);
  if (space === undefined || event.ret === null) return;
  if (event.ret === -1) {
    if (event.errno === 'ENOMEM' || event.errno === 'EAGAIN') partly(tx, space, event);
    return;
  }
  switch (event.call) {
    case 'mlock':
    case 'mlock2':
    case 'munlock': {
      const range = rangeOf(event);
      if (range === undefined) return;
      if (event.call === 'munlock') unlock(tx, space.id, range);
      else lock(tx, space, range);
      return;
    }
    default:
      lockAll(tx, space, event);
  }
}

/** The pages that the call names. */
function rangeOf(event: MlockEvent): Interval | undefined {
  const start = alignDown(event.addr, PAGE_BYTES);
  const last = lastOf(start, alignUp(add(event.lengthBytes, sub(event.addr, start)), PAGE_BYTES));
  return last === undefined ? undefined : { start, last };
}

/** Worked through the range until something stopped it. */
function partly(tx: Tx, space: AddressSpace, event: MlockEvent): void {
  const range = rangeOf(event);
  if (event.call === 'munlock' && range !== undefined) unlock(tx, space.id, range);
  patch(tx, space.id, { moreSince: event.seq });
}

function lockAll(tx: Tx, space: AddressSpace, event: MlockEvent): void {
  const flags = event.call === 'mlockall' ? event.flags : 0;
  const lockFuture = (flags & MCL_FUTURE) !== 0;
  if ((flags & MCL_CURRENT) !== 0) {
    for (const vma of [...space.vmas.values()]) lock(tx, space, vma);
    patch(tx, space.id, { lockFuture, moreSince: event.seq });
    return;
  }
  if (lockFuture) {
    patch(tx, space.id, { lockFuture });
    return;
  }
  const locked = tx.world.spaceLocked.get(space.id);
  if (locked === undefined) return;
  charge(tx, 'space', space.id, -locked.mlockedPages, 0);
  const { ranges } = NOTHING_LOCKED;
  patch(tx, space.id, { mlockedPages: 0, ranges, lockFuture, moreSince: -1 });
}

function patch(tx: Tx, spaceId: number, change: Partial<SpaceLocked>): void {
  const locked = tx.world.spaceLocked.get(spaceId) ?? NOTHING_LOCKED;
  tx.world.spaceLocked.set(spaceId, Object.freeze({ ...locked, ...change }));
}

// ---- what other calls do to locked memory -----------------------------------------------------------------

/** What an event unmaps is not locked any more. To be called before the event changes the space. */
export function unlockLost(tx: Tx, space: AddressSpace, event: Event): void {
  const locked = tx.world.spaceLocked.get(space.id);
  if (locked === undefined || locked.ranges.size === 0) return;
  for (const lost of lostRanges(space, event)) if (lost.how !== 'discarded') unlock(tx, space.id, lost);
}

/** Whether an mremap takes a lock along. To be called before {@link unlockLost}. */
export function isLocked(tx: Tx, spaceId: number, address: U64): boolean {
  const ranges = tx.world.spaceLocked.get(spaceId)?.ranges;
  return ranges !== undefined && ranges.size > 0 && rangeAt(ranges, address) !== undefined;
}

/** New mappings, and what grew. To be called after the event has changed the space; `carried` is {@link isLocked} of before. */
export function lockNew(tx: Tx, before: AddressSpace, event: Event, carried: boolean): void {
  const range = newRange(before, event, carried, tx.world.spaceLocked.get(before.id)?.lockFuture ?? false);
  const space = range === undefined ? undefined : tx.world.spaces.get(before.id);
  if (range !== undefined && space !== undefined) lock(tx, space, range);
}

function newRange(before: AddressSpace, event: Event, carried: boolean, future: boolean): Interval | undefined {
  if (!('ret' in event) || event.ret === null || event.ret === -1) return undefined;
  switch (event.kind) {
    case 'mmap':
      if (!future && (event.flags & MAP_LOCKED) === 0) return undefined;
      return interval(event.ret, lastOfMapping(event.ret, event.lengthBytes, event.flags));
    case 'mremap':
      if (!carried) return undefined;
      return interval(event.ret, lastOfPages(event.ret, event.newLengthBytes));
    case 'brk': {
      if (!future || before.heapEnd === null) return undefined;
      const start = alignUp(before.heapEnd, PAGE_BYTES);
      const end = alignUp(event.ret, PAGE_BYTES);
      return end > start ? { start, last: sub(end, 1) } : undefined;
    }
    default:
      return undefined;
  }
}

function interval(start: U64, last: U64 | undefined): Interval | undefined {
  return last === undefined ? undefined : { start, last };
}

// ---- ranges -------------------------------------------------------------------------------------------------

/** Locks the parts of a range that count. */
function lock(tx: Tx, space: AddressSpace, range: Interval): void {
  let at = range.start;
  for (const vma of overlapping(space.vmas, range.start, range.last)) {
    if ((vma.traits & VMA_HUGETLB) === 0 && substanceOf(tx, vma) === 'memory') continue;
    if (vma.start > at) lockPart(tx, space.id, at, sub(vma.start, 1));
    if (vma.last >= range.last) return;
    at = add(vma.last, 1);
  }
  lockPart(tx, space.id, at, range.last);
}

function lockPart(tx: Tx, spaceId: number, start: U64, last: U64): void {
  if (!tx.world.spaceLocked.has(spaceId)) tx.world.spaceLocked.set(spaceId, NOTHING_LOCKED);
  const ranges = tx.openTable(tx.world.spaceLocked, spaceId, 'ranges');
  const again = carved(ranges, start, last);
  ranges.set(start, Object.freeze({ start, last }));
  count(tx, spaceId, pagesBetween(start, last) - again);
}

function unlock(tx: Tx, spaceId: number, { start, last }: Interval): void {
  const locked = tx.world.spaceLocked.get(spaceId);
  if (locked === undefined || locked.ranges.size === 0) return;
  count(tx, spaceId, -carved(tx.openTable(tx.world.spaceLocked, spaceId, 'ranges'), start, last));
}

/** Takes a range out; how many pages of it were locked. */
function carved(ranges: SpaceLocked['ranges'], start: U64, last: U64): number {
  let pages = 0;
  for (const gone of carve(ranges, start, last, trimmed))
    pages += pagesBetween(max(gone.start, start), min(gone.last, last));
  return pages;
}

function count(tx: Tx, spaceId: number, pages: number): void {
  if (pages === 0) return;
  charge(tx, 'space', spaceId, pages, 0);
  const locked = tx.world.spaceLocked.get(spaceId);
  if (locked !== undefined) patch(tx, spaceId, { mlockedPages: locked.mlockedPages + pages });
}
