import type { IoctlEvent, MirrorMapEvent } from '../../core/event.js';
import type { Interval, RangeMap } from '../../core/interval.js';
import { overlapping, rangeAt } from '../../core/interval.js';
import { max, min, type U64 } from '../../core/u64.js';
import { MAP_SHARED, PROT_READ, PROT_WRITE } from '../memory/flags.js';
import { surelyEmpty } from '../memory/lookup.js';
import { type PageTable, type PteRun, pieces } from '../memory/pagetable.js';
import type { AddressSpace } from '../memory/state.js';
import type { World } from '../world.js';
import { accessOf, mustCopy } from './driver-mirror.js';
import { deviceOfOwner } from './kernel-events.js';
import { NOTIFY_MIGRATE } from './machine.js';
import {
  clearedSince,
  type DriverMirror,
  type DriverPte,
  driversIn,
  mirrorTitle,
  openInvalidations,
} from './notified.js';
import type { Mirror, MirrorAccess, MirrorPte } from './state.js';

/**
 * Compares mirrors with the CPU page table that they mirror, over one range: O(log n) plus the runs touched.
 *
 * What a mirror may hold at any time (include/linux/mmu_notifier.h, Documentation/mm/hmm.rst):
 * - `gone`: nothing where the CPU has nothing, or may not read;
 * - `older page`: no page that the CPU's entry does not mean any more;
 * - `kept`: nothing of what an invalidation that is over took back;
 * - `more rights`: no right to write that the CPU's entry does not give;
 * - `foreign memory`: no device-private memory of another device;
 * - `not exclusive`: no entry beside that of the device that holds the page exclusively, and no exclusive entry for
 *   a page that the CPU has got back;
 * - `under way`: nothing that was stored while an invalidation of the range went on;
 * - `outdated`: nothing that was read before an invalidation of the range, and stored after it.
 */
export type Fault =
  | 'gone'
  | 'older page'
  | 'kept'
  | 'more rights'
  | 'foreign memory'
  | 'not exclusive'
  | 'under way'
  | 'outdated';

/** An entry of a mirror that must not be, or not so. */
export interface Problem extends Interval {
  readonly fault: Fault;
  /** The mirror, in words. */
  readonly mirror: string;
  readonly access: MirrorAccess;
  /** `seq` of the event that made the entry. */
  readonly since: number;
  /** The events beside it that show the fault. */
  readonly because: readonly number[];
}

/** At most `limit` problems of the mirrors of a space in a range. */
export function auditMirrors(world: World, table: PageTable, start: U64, last: U64, limit: number): Problem[] {
  const found: Problem[] = [];
  const space = world.spaces.get(table.space);
  if (space === undefined) return found;
  for (const mirror of world.mirrors.values()) {
    if (mirror.space !== table.space || !mirror.complete) continue;
    const check = (entry: MirrorPte, pte: PteRun | undefined, at: U64): Fault | undefined =>
      compare(world, space, mirror, entry, pte, at);
    auditOne(
      `dmirror${mirror.device}`,
      overlapping(mirror.ptes, start, last),
      check,
      table,
      { start, last },
      limit,
      found,
    );
  }
  for (const mirror of driversIn(world, table.mm, start, last)) {
    const check = (entry: DriverPte, pte: PteRun | undefined, at: U64): Fault | undefined =>
      compareDriver(world, space, mirror.id, mirror, entry, pte, at);
    auditOne(mirrorTitle(mirror), overlapping(mirror.ptes, start, last), check, table, { start, last }, limit, found);
  }
  return found;
}

function auditOne<P extends Interval & { readonly access: MirrorAccess; readonly since: number }>(
  mirror: string,
  entries: readonly P[],
  check: (entry: P, pte: PteRun | undefined, at: U64) => Fault | undefined,
  { runs }: PageTable,
  range: Interval,
  limit: number,
  found: Problem[],
): void {
  for (const entry of entries) {
    for (const { start, last, pte } of pieces(runs, max(entry.start, range.start), min(entry.last, range.last))) {
      if (found.length >= limit) return;
      const fault = check(entry, pte, start);
      const because = pte === undefined ? [] : [pte.since];
      if (fault !== undefined)
        found.push({ fault, mirror, access: entry.access, since: entry.since, start, last, because });
    }
  }
}

function compare(
  world: World,
  space: AddressSpace,
  mirror: Mirror,
  entry: MirrorPte,
  pte: PteRun | undefined,
  at: U64,
): Fault | undefined {
  if (((rangeAt(space.vmas, at)?.prot ?? 0) & PROT_READ) === 0 || pte === undefined) return 'gone';
  // Bare entries have an invariant of their own.
  if (entry.bare) return undefined;
  if (pte.kind === 'private' && pte.device !== mirror.device) return 'foreign memory';
  if (pte.kind === 'exclusive')
    return entry.access !== 'atomic' && heldElsewhere(world, space.id, mirror.id, at) ? 'not exclusive' : undefined;
  if (entry.access === 'atomic') return 'not exclusive';
  if (entry.since < pte.since) return 'older page';
  return entry.access === 'write' && !pte.write ? 'more rights' : undefined;
}

/** Memory that no recorded call mapped is not judged, nor whether a shared page may be written without notice. */
function compareDriver(
  world: World,
  space: AddressSpace,
  id: U64,
  mirror: DriverMirror | undefined,
  entry: DriverPte,
  pte: PteRun | undefined,
  at: U64,
): Fault | undefined {
  const vma = rangeAt(space.vmas, at);
  if (vma === undefined && !surelyEmpty(space, at)) return undefined;
  if (vma === undefined || (vma.prot & PROT_READ) === 0 || pte === undefined) return 'gone';
  if (pte.kind === 'private') return 'foreign memory';
  if (pte.kind === 'exclusive')
    return entry.access !== 'atomic' && heldElsewhere(world, space.id, id, at) ? 'not exclusive' : undefined;
  if (entry.access === 'atomic') return 'not exclusive';
  if (entry.since < pte.since) return 'older page';
  const copies = mustCopy(pte, (vma.flags & MAP_SHARED) !== 0) && !clearedSince(mirror, at, pte.since);
  const refused = (vma.prot & PROT_WRITE) === 0 || copies;
  return entry.access === 'write' && refused ? 'more rights' : undefined;
}

/** Whether entries that a driver stores may differ from the page table as it is before they teach anything. */
export function mayContradict(world: World, table: PageTable, event: MirrorMapEvent): boolean {
  const space = world.spaces.get(table.space);
  if (space === undefined) return false;
  const { mirror, start, last, memory, seq } = event;
  const entry: DriverPte = { start, last, access: accessOf(event.flags), memory, since: seq };
  const known = world.notified.get(event.mm)?.mirrors.get(mirror);
  return pieces(table.runs, start, last).some((piece) =>
    piece.pte === undefined
      ? mayBeHole(space, piece)
      : compareDriver(world, space, mirror, known, entry, piece.pte, piece.start) !== undefined,
  );
}

function mayBeHole(space: AddressSpace, { start, last }: Interval): boolean {
  const vma = rangeAt(space.vmas, start);
  return vma === undefined || vma.last < last || (vma.prot & (PROT_READ | PROT_WRITE)) !== (PROT_READ | PROT_WRITE);
}

/** Whether another mirror than this one (an id of ours, or the kernel's address) holds a page exclusively. */
function heldElsewhere(world: World, space: number, id: U64, at: U64): boolean {
  for (const mirror of world.mirrors.values())
    if (mirror.id !== id && mirror.space === space && rangeAt(mirror.ptes, at)?.access === 'atomic') return true;
  const mm = world.pageTables.get(space)?.mm ?? null;
  for (const mirror of driversIn(world, mm, at, at))
    if (mirror.id !== id && rangeAt(mirror.ptes, at)?.access === 'atomic') return true;
  return false;
}

/**
 * Entries that a call of dmirror stored while an invalidation of another thread went on that had begun before the call.
 * Migrations that may be those of its own device are none: it ignores them.
 */
export function filledUnderWay(before: World, event: IoctlEvent, after: World, limit: number): Problem[] {
  const found: Problem[] = [];
  for (const mirror of after.mirrors.values()) {
    const open = openInvalidations(before, after.pageTables.get(mirror.space)?.mm ?? null);
    for (const { seq, tid, type, owner, start, last } of open) {
      if (tid === event.tid || seq >= event.enteredAt) continue;
      if (type === NOTIFY_MIGRATE && owner !== 0 && (deviceOfOwner(after, owner) ?? mirror.device) === mirror.device)
        continue;
      for (const entry of overlapping(mirror.ptes, start, last)) {
        if (entry.since !== event.seq) continue;
        const { access, since } = entry;
        const part = { start: max(entry.start, start), last: min(entry.last, last) };
        found.push({ fault: 'under way', mirror: `dmirror${mirror.device}`, access, since, ...part, because: [seq] });
        if (found.length >= limit) return found;
      }
    }
  }
  return found;
}

/** Whether a mirror of the space has an entry in the range: what an audit would look at. */
export function anyMirrored(world: World, { space, mm }: PageTable, start: U64, last: U64): boolean {
  for (const mirror of world.mirrors.values()) if (mirror.space === space && reaches(mirror, start, last)) return true;
  return driversIn(world, mm, start, last).length > 0;
}

function reaches(mirror: { readonly ptes: RangeMap<Interval> }, start: U64, last: U64): boolean {
  const below = mirror.ptes.floor(last);
  return below !== undefined && below.last >= start;
}
