import { carve, type Interval, overlapping, type RangeMap, trimmed } from '../../core/interval.js';
import { OrderedMap } from '../../core/ordered-map.js';
import { add, div, lengthOf, max, min, mul, sub, type U64 } from '../../core/u64.js';
import { watchMemory } from '../memory/identity.js';
import { pinAdd, pinRemove } from '../memory/pins.js';
import type { Tx } from '../tx.js';
import { chargePages } from './charges.js';
import { PAGE } from './iopt.js';
import { areaAddress, byteAt, pinSlice } from './pages.js';
import { Checks, type Refusal } from './rules.js';
import type { Area, HeldRun, IoPages, SharedPages } from './state.js';

/**
 * Which pages of some memory somebody holds pinned (the `domains_itree`, `access_itree` and `pinned_pfns` of
 * drivers/iommu/iommufd/pages.c), and since when.
 *
 * A page is pinned once, by the first who needs it, and stays until the last lets go. Whoever needs it in between takes
 * the page frame from the domain or from the access that holds it and does not look at the user's memory, which may be
 * gone or other memory by then. Domains hold the whole area, accesses what they pinned; copies of an
 * area share its pages, so a domain of one IOAS serves a copy in another one.
 *
 * Nearly all memory is shown by one area and pinned by no access: the area itself then says since when its pages are
 * held (`pinnedSince`). Only for the rest there is an entry in `World.sharedPages`.
 */

/** {@link Area.pinnedSince} where no domain holds the area. */
export const NOT_HELD = -1;

/** Indexes of the pages that hold some bytes. */
export function pageSpan(firstByte: U64, lastByte: U64): Interval {
  return { start: div(firstByte, PAGE), last: div(lastByte, PAGE) };
}

export function areaSpan(area: Area): Interval {
  return pageSpan(area.startByte, byteAt(area, area.last));
}

/** The pages of a span that are held, in order; `area` shows them. */
export function heldRuns(tx: Tx, area: Area, span: Interval): HeldRun[] {
  const shared = tx.world.sharedPages.get(area.pages.id);
  if (shared !== undefined)
    return overlapping(shared.runs, span.start, span.last).map((run) =>
      trimmed(run, max(run.start, span.start), min(run.last, span.last)),
    );
  if (area.pinnedSince < 0) return [];
  return [{ start: span.start, last: span.last, domains: 1, accesses: 0, since: area.pinnedSince }];
}

/** How many pages of a span nobody holds. `area` shows them already, null for new memory. */
export function countUnheld(tx: Tx, area: Area | null, span: Interval): number {
  let count = pagesOf(span);
  if (area !== null) for (const run of heldRuns(tx, area, span)) count -= pagesOf(run);
  return count;
}

/** How many pages of the memory that an area shows are held. */
export function countHeld(tx: Tx, area: Area): number {
  const shared = tx.world.sharedPages.get(area.pages.id);
  if (shared === undefined) return area.pinnedSince < 0 ? 0 : pagesOf(areaSpan(area));
  let count = 0;
  for (const run of shared.runs.values()) count += pagesOf(run);
  return count;
}

/** Page indexes are below 2^52. */
function pagesOf(span: Interval): number {
  return Number(span.last) - Number(span.start) + 1;
}

/**
 * Why the pages under some bytes cannot be had; undefined when they can. What is held already is not looked for in the
 * user's memory. `area` shows the pages already, null for new ones.
 */
export function refusePages(
  tx: Tx,
  pages: IoPages,
  area: Area | null,
  firstByte: U64,
  lastByte: U64,
): Refusal | undefined {
  const checks = new Checks();
  const ask = (first: U64, last: U64): Refusal | undefined =>
    checks.add(pinSlice(tx, pages, max(first, firstByte), min(last, lastByte)));
  if (area === null) return ask(firstByte, lastByte) ?? checks.doubt;
  let at = firstByte;
  for (const run of heldRuns(tx, area, pageSpan(firstByte, lastByte))) {
    const start = mul(run.start, PAGE);
    const refused = start > at ? ask(at, sub(start, 1)) : undefined;
    if (refused !== undefined) return refused;
    at = mul(add(run.last, 1), PAGE);
    if (at > lastByte) return checks.doubt;
  }
  return ask(at, lastByte) ?? checks.doubt;
}

// ---- domains ------------------------------------------------------------------------------------------------

/** The area as it is once the domains of its IOAS hold its pages, and its entry in the index of pinned memory. */
export function pinArea(tx: Tx, ioasKey: number, area: Area, seq: number): Area {
  const span = areaSpan(area);
  const pinned = isShared(tx, area.pages) ? hold(tx, area.pages.id, span, 'domains', 1, seq) : pagesOf(span);
  chargePages(tx, area.pages, pinned, seq);
  const start = areaAddress(area);
  const indexed = area.pages.kind === 'user' && area.pin === 0;
  const pin = indexed
    ? pinAdd(tx, area.pages.space, {
        start,
        last: add(start, sub(lengthOf(area.start, area.last), 1)),
        owner: `ioas:${ioasKey}`,
        key: area.start,
        since: area.since,
      })
    : area.pin;
  return Object.freeze({ ...area, pin, pinnedSince: seq });
}

/** The domains let go of an area that {@link pinArea} gave. */
export function unpinArea(tx: Tx, area: Area): void {
  if (area.pinnedSince >= 0) {
    const span = areaSpan(area);
    const gone = isShared(tx, area.pages) ? hold(tx, area.pages.id, span, 'domains', -1, NOT_HELD) : -pagesOf(span);
    chargePages(tx, area.pages, gone, NOT_HELD);
  }
  if (area.pin !== 0) pinRemove(tx, area.pages.space, area.pin, area.since);
}

// ---- sharing ------------------------------------------------------------------------------------------------

/** The pages of an area are about to be shown by a second one, or pinned by an access. */
export function sharePages(tx: Tx, area: Area): void {
  if (tx.world.sharedPages.has(area.pages.id)) return;
  const runs = tx.adopt(OrderedMap.numeric<U64, HeldRun>());
  const span = areaSpan(area);
  if (area.pinnedSince >= 0)
    runs.set(span.start, Object.freeze({ ...span, domains: 1, accesses: 0, since: area.pinnedSince }));
  tx.world.sharedPages.set(area.pages.id, Object.freeze({ areas: 1, runs }));
}

/** One more area shows pages that are shared. */
export function addSharer(tx: Tx, pagesId: number): void {
  countAreas(tx, pagesId, 1);
}

/** An area that showed the pages is gone; domains that held it have let go. The last one takes the pages with it. */
export function dropSharer(tx: Tx, area: Area): void {
  const { pages } = area;
  if (isShared(tx, pages)) {
    const last = tx.world.sharedPages.get(pages.id)?.areas === 1;
    // What accesses of a context hold until its end goes with the last area.
    if (last) chargePages(tx, pages, -countHeld(tx, area), NOT_HELD);
    countAreas(tx, pages.id, -1);
    if (!last) return;
  }
  if (pages.kind !== 'user') tx.letGo(pages.file);
}

function countAreas(tx: Tx, pagesId: number, by: 1 | -1): void {
  const shared = tx.world.sharedPages.get(pagesId);
  if (shared === undefined) return;
  if (shared.areas + by <= 0) tx.world.sharedPages.delete(pagesId);
  else tx.world.sharedPages.set(pagesId, Object.freeze({ ...shared, areas: shared.areas + by }));
}

// ---- accesses -----------------------------------------------------------------------------------------------

/** An access pins the pages under some bytes of an area. */
export function holdForAccess(tx: Tx, area: Area, firstByte: U64, lastByte: U64, seq: number): void {
  sharePages(tx, area);
  const span = pageSpan(firstByte, lastByte);
  chargePages(tx, area.pages, hold(tx, area.pages.id, span, 'accesses', 1, seq), seq);
  if (area.pages.kind !== 'user') return;
  const at = (index: U64): U64 => add(area.pages.base, mul(index, PAGE));
  watchMemory(tx, area.pages.space, at(span.start), add(at(span.last), PAGE - 1));
}

/** The access lets go of them. */
export function letForAccess(tx: Tx, area: Area, firstByte: U64, lastByte: U64): void {
  if (!isShared(tx, area.pages)) return;
  const gone = hold(tx, area.pages.id, pageSpan(firstByte, lastByte), 'accesses', -1, NOT_HELD);
  chargePages(tx, area.pages, gone, NOT_HELD);
}

// ---- counting who holds what --------------------------------------------------------------------------------

function isShared(tx: Tx, pages: IoPages): boolean {
  return tx.world.sharedPages.size > 0 && tx.world.sharedPages.has(pages.id);
}

/**
 * Counts a holder of shared pages in, or with -1 out. Pages that nobody held are pinned now; pages that nobody holds any more
 * are let go. Gives by how many pages more are held.
 */
function hold(tx: Tx, pagesId: number, span: Interval, who: 'domains' | 'accesses', by: 1 | -1, seq: number): number {
  let change = 0;
  const runs: RangeMap<HeldRun> = tx.openTable<number, SharedPages, 'runs'>(tx.world.sharedPages, pagesId, 'runs');
  const held = carve(runs, span.start, span.last, trimmed);
  let at = span.start;
  const fresh = (last: U64): void => {
    if (by < 0) return;
    const none = { start: at, last, domains: 0, accesses: 0, since: seq };
    runs.set(at, Object.freeze({ ...none, [who]: 1 }));
    change += pagesOf(none);
  };
  for (const run of held) {
    const start = max(run.start, span.start);
    const last = min(run.last, span.last);
    if (start > at) fresh(sub(start, 1));
    const count = Math.max(0, run[who] + by);
    const left = Object.freeze({ ...run, start, last, [who]: count });
    if (left.domains > 0 || left.accesses > 0) runs.set(start, left);
    else change -= pagesOf(left);
    at = add(last, 1);
  }
  if (at <= span.last) fresh(span.last);
  return change;
}
