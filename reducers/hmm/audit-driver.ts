import type { InvalidateEvent, MirrorMapEvent } from '../../core/event.js';
import { overlapping } from '../../core/interval.js';
import { max, min } from '../../core/u64.js';
import type { World } from '../world.js';
import type { Fault, Problem } from './audit.js';
import { accessOf } from './driver-mirror.js';
import { NOTIFY_EXCLUSIVE, NOTIFY_MIGRATE, takesRights } from './machine.js';
import {
  beginningOf,
  type DriverMirror,
  type DriverPte,
  driversIn,
  type MmInvalidation,
  mirrorTitle,
  openInvalidations,
  type Told,
} from './notified.js';
import type { MirrorAccess } from './state.js';

/**
 * What the events of a driver's mirror show by themselves, whether or not the CPU's page table is known.
 *
 * When a driver stores entries: no invalidation of the range may be under way of which its callback was told, and what it
 * stores must have been read after the last one (`mmu_interval_read_begin`, `mmu_interval_read_retry`); device-private
 * memory must be its own; and no other mirror may hold the page exclusively, or as other memory. Before its callback was
 * told, a driver may still store: the callback waits for its lock, and takes the entry away again.
 *
 * When an invalidation ends: entries of its range are gone, whenever they were made; an entry that only reads
 * may outlive one that takes rights away. A driver may ignore the migrations of its own device, and its own exclusive
 * access.
 */

/** Whether the driver caused the invalidation by itself, and so may ignore it. */
function isOwn(mirror: DriverMirror, { type, owner }: MmInvalidation): boolean {
  return (type === NOTIFY_MIGRATE || type === NOTIFY_EXCLUSIVE) && owner !== 0 && owner === mirror.owner;
}

/** Whether an entry may stay over an invalidation. */
export function mayStay(access: MirrorAccess, type: number): boolean {
  return takesRights(type) && access === 'read';
}

/** Entries that an invalidation leaves behind, as it ends. */
export function leftBehind(before: World, event: InvalidateEvent, limit: number): Problem[] {
  const record = before.notified.get(event.mm);
  const begun = record === undefined ? undefined : beginningOf(record.invalidations, event);
  const found: Problem[] = [];
  if (record === undefined || begun === undefined) return found;
  for (const mirror of driversIn(before, event.mm, begun.start, begun.last)) {
    if (isOwn(mirror, begun)) continue;
    for (const entry of overlapping(mirror.ptes, begun.start, begun.last)) {
      if (mayStay(entry.access, begun.type) || storedUnderWay(mirror, entry, begun)) continue;
      const start = max(entry.start, begun.start);
      const last = min(entry.last, begun.last);
      found.push(problem('kept', mirror, entry, start, last, [begun.seq]));
      if (found.length >= limit) return found;
    }
  }
  return found;
}

/** Reported when it was stored. */
function storedUnderWay(mirror: DriverMirror, entry: DriverPte, begun: MmInvalidation): boolean {
  return overlapping(mirror.told, entry.start, entry.last).some(
    (told) => told.invalidation === begun.seq && told.since < entry.since,
  );
}

/** Whether {@link leftBehind} would look at anything. */
export function mayLeaveBehind(before: World, event: InvalidateEvent): boolean {
  return driversIn(before, event.mm, event.start, event.last).length > 0;
}

/** What is wrong with entries that a driver stores, apart from the CPU's page table. */
export function storedWrongly(before: World, event: MirrorMapEvent, limit: number): Problem[] {
  const record = before.notified.get(event.mm);
  const known = record?.mirrors.get(event.mirror);
  const { start, last, memory, seq } = event;
  const entry: DriverPte = { start, last, access: accessOf(event.flags), memory, since: seq };
  const owner = event.owner === 0 ? (known?.owner ?? 0) : event.owner;
  const driver = event.driver === '' ? (known?.driver ?? '') : event.driver;
  const name = { id: event.mirror, driver };
  const found: Problem[] = [];
  if (memory !== 0 && memory !== owner) found.push(problem('foreign memory', name, entry, start, last, []));
  if (known !== undefined) {
    const open = openInvalidations(before, event.mm).filter((i) => !isOwn({ ...known, owner }, i));
    for (const told of overlapping(known.told, start, last)) {
      const fault = against(told, event, open);
      if (fault === undefined) continue;
      const because = told.invalidation < 0 ? [told.since] : [told.invalidation, told.since];
      found.push(problem(fault, name, entry, max(told.start, start), min(told.last, last), because));
      if (found.length >= limit) return found;
    }
  }
  for (const other of driversIn(before, event.mm, start, last)) {
    if (other.id === event.mirror) continue;
    for (const theirs of overlapping(other.ptes, start, last)) {
      const fault = beside(entry, theirs);
      if (fault !== undefined)
        found.push(problem(fault, other, theirs, max(theirs.start, start), min(theirs.last, last), [seq]));
      if (found.length >= limit) return found;
    }
  }
  return found;
}

function against(told: Told, event: MirrorMapEvent, open: readonly MmInvalidation[]): Fault | undefined {
  if (open.some((i) => i.seq === told.invalidation)) return 'under way';
  if (told.number === null || event.notifierSeq === null) return undefined;
  return event.notifierSeq < told.number ? 'outdated' : undefined;
}

/** What the older entry of another mirror must not be beside a new one. */
function beside(entry: DriverPte, theirs: DriverPte): Fault | undefined {
  if (entry.access === 'atomic' || theirs.access === 'atomic') return 'not exclusive';
  return entry.memory === theirs.memory ? undefined : 'older page';
}

function problem(
  fault: Fault,
  mirror: Pick<DriverMirror, 'driver' | 'id'>,
  { access, since }: DriverPte,
  start: Problem['start'],
  last: Problem['last'],
  because: readonly number[],
): Problem {
  return { fault, mirror: mirrorTitle(mirror), access, since, start, last, because };
}
