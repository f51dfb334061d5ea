import { isDeepStrictEqual } from 'node:util';
import { firstOverlap, type Interval, rangeAt, type RangeMap } from '../../core/interval.js';
import { add, alignDown, hex, max, min, modPow2, sub, type U64, U64_MAX } from '../../core/u64.js';
import type { World } from '../world.js';
import { gapsAround } from './gaps.js';
import { areaSpan, pageSpan } from './held-pages.js';
import { smallestPage } from './domain.js';
import { areaAddress, byteAt } from './pages.js';
import type { Area, Ioas, SharedPages } from './state.js';

/** The part of consistency.ts that looks at IOVA spaces and at the memory behind them. */

export function* ofIoas(world: World, ioas: Ioas, contradicted: boolean): Generator<string> {
  const context = world.iommufds.get(ioas.context);
  const object = context?.objects.get(ioas.objectId);
  if (context === undefined || object?.type !== 'ioas' || object.ioas !== ioas.id) {
    yield 'no object has it';
    return;
  }
  yield* disjoint('areas', ioas.areas);
  yield* disjoint('allowed ranges', ioas.allowed);
  yield* ofReserved(ioas);
  const owners = [...context.objects.values()];
  const hwpts = owners.filter((each) => each.type === 'hwpt-paging').filter((each) => each.ioas === ioas.objectId);
  const accesses = owners.filter((each) => each.type === 'access').filter((each) => each.ioas === ioas.objectId);
  if (!sameIds(ioas.hwpts, hwpts)) yield `lists HWPTs ${ioas.hwpts.join()}`;
  if (!sameIds(ioas.accesses, accesses)) yield `lists accesses ${ioas.accesses.join()}`;
  const alignments = [ioas.noLargePages ? 4096 : 1, ...hwpts.map((hwpt) => smallestPage(hwpt.domain))];
  const alignment = Math.max(...alignments, ...accesses.map((access) => access.alignment));
  if (ioas.alignment !== alignment) yield `has alignment ${ioas.alignment} where ${alignment} is asked for`;
  for (const area of ioas.areas.values()) {
    yield* ofArea(ioas, area, accesses);
    if (!contradicted) yield* ofPlace(ioas, area);
  }
  for (const { start, last } of contradicted ? [] : ioas.blocked.values())
    if (firstOverlap(ioas.allowed, start, last) !== undefined) yield `${hex(start)} is reserved and allowed`;
  const gaps = world.ioasGaps.get(ioas.id);
  if (gaps !== undefined && !isDeepStrictEqual(gaps, gapsAround(ioas.areas.values()))) yield 'has gaps where areas are';
  for (const hwpt of hwpts)
    for (const range of [...hwpt.dirty.values(), ...hwpt.maybeDirty.values()])
      if (!isCovered(ioas.areas, range))
        yield `HWPT ${hwpt.id} is dirty at ${hex(range.start)}, where nothing is mapped`;
}

function sameIds(listed: readonly number[], objects: readonly { readonly id: number }[]): boolean {
  const byNumber = (a: number, b: number): number => a - b;
  return (
    [...listed].sort(byNumber).join() ===
    objects
      .map(({ id }) => id)
      .sort(byNumber)
      .join()
  );
}

function* disjoint(what: string, ranges: RangeMap<Interval>): Generator<string> {
  let last: U64 | -1 = -1;
  for (const [start, range] of ranges) {
    if (range.start !== start || range.last < start || start <= last) yield `${what} overlap at ${hex(range.start)}`;
    last = range.last;
  }
}

function* ofReserved(ioas: Ioas): Generator<string> {
  yield* disjoint('blocked ranges', ioas.blocked);
  for (const { start, last } of ioas.reserved.values())
    if (!isCovered(ioas.blocked, { start, last })) yield `${hex(start)} is reserved and not blocked`;
  for (const { start, last } of ioas.blocked.values()) {
    if (![...ioas.reserved.values()].some((range) => range.start === start)) yield `${hex(start)} is blocked by nobody`;
    if (![...ioas.reserved.values()].some((range) => range.last === last)) yield `${hex(last)} is blocked by nobody`;
  }
}

/** Whether neighbouring ranges hold all of one. */
function isCovered(ranges: RangeMap<Interval>, { start, last }: Interval): boolean {
  for (let at = start; ; ) {
    const range = rangeAt(ranges, at);
    if (range === undefined) return false;
    if (range.last >= last || range.last === U64_MAX) return true;
    at = add(range.last, 1);
  }
}

function* ofArea(
  ioas: Ioas,
  area: Area,
  accesses: readonly { readonly internal: boolean; readonly items: readonly Interval[] }[],
): Generator<string> {
  const name = `area ${hex(area.start)}`;
  const touching = (internal: boolean): number =>
    accesses
      .filter((access) => access.internal === internal)
      .flatMap(({ items }) => items)
      .filter((item) => item.start <= area.last && item.last >= area.start).length;
  const locks = touching(true);
  if (area.locks !== locks || area.accesses !== locks + touching(false))
    yield `${name} counts ${area.accesses} pins, ${area.locks} of them locks; there are ${touching(false)} and ${locks}`;
  if (area.pin !== 0 && (ioas.hwpts.length === 0 || area.pages.kind !== 'user')) yield `${name} is pinned by no domain`;
  if (area.pinnedSince >= 0 !== ioas.hwpts.length > 0) yield `${name} is held since ${area.pinnedSince}`;
}

/** What the kernel checks before it makes an area or reserves a range. */
function* ofPlace(ioas: Ioas, area: Area): Generator<string> {
  const name = `area ${hex(area.start)}`;
  if (firstOverlap(ioas.blocked, area.start, area.last) !== undefined) yield `${name} lies in a reserved range`;
  const uneven = [area.start, add(sub(area.last, area.start), 1), modPow2(area.startByte, 4096)];
  if (uneven.some((value) => modPow2(value, ioas.alignment) !== 0)) yield `${name} does not keep to the alignment`;
}

/** What the index of pinned memory says of IOASes. */
export function* ofPins(
  world: World,
  pins: Iterable<{ owner: string; key: U64; since: number; start: U64; id: number }>,
): Generator<string> {
  for (const pin of pins) {
    const key = /^ioas:(\d+)$/.exec(pin.owner)?.[1];
    if (key === undefined || pin.since < 0) continue;
    const area = world.ioases.get(Number(key))?.areas.get(pin.key);
    const holds =
      area !== undefined &&
      area.pin === pin.id &&
      area.since === pin.since &&
      alignDown(areaAddress(area), 4096) === pin.start;
    if (!holds) yield `${hex(pin.start)} is pinned by ${pin.owner} at ${hex(pin.key)}, which does not map it`;
  }
}

// ---- pages that several hold ----------------------------------------------------------------------------------

interface Holder extends Interval {
  readonly who: 'domains' | 'accesses';
}

/** Who holds which pages, as areas and items of accesses say, against what is kept of them. */
export function* ofSharedPages(world: World): Generator<string> {
  const holders = new Map<number, Holder[]>();
  const areas = new Map<number, number>();
  for (const ioas of world.ioases.values()) {
    const items = [...itemsOf(world, ioas)];
    for (const area of ioas.areas.values()) {
      const { id } = area.pages;
      areas.set(id, (areas.get(id) ?? 0) + 1);
      const list = holders.get(id) ?? [];
      holders.set(id, list);
      if (area.pinnedSince >= 0) list.push({ ...areaSpan(area), who: 'domains' });
      for (const item of items)
        if (item.start <= area.last && item.last >= area.start)
          list.push({
            ...pageSpan(byteAt(area, max(item.start, area.start)), byteAt(area, min(item.last, area.last))),
            who: 'accesses',
          });
    }
  }
  for (const [id, count] of areas) {
    const shared = world.sharedPages.get(id);
    const pinned = (holders.get(id) ?? []).some(({ who }) => who === 'accesses');
    if (shared === undefined) {
      if (count > 1 || pinned) yield `${id} are not known to be shared`;
    } else if (shared.areas !== count) yield `${id} are in ${count} areas, counted are ${shared.areas}`;
    else yield* ofRuns(id, shared, holders.get(id) ?? []);
  }
  for (const id of world.sharedPages.keys()) if (!areas.has(id)) yield `${id} are shared by nobody`;
}

function* itemsOf(world: World, ioas: Ioas): Generator<Interval> {
  for (const id of ioas.accesses) {
    const access = world.iommufds.get(ioas.context)?.objects.get(id);
    if (access?.type === 'access') yield* access.items;
  }
}

/** Runs and holders change only at the borders of one or the other: it is enough to look there. */
function* ofRuns(id: number, shared: SharedPages, holders: readonly Holder[]): Generator<string> {
  yield* disjoint(`runs of ${id}`, shared.runs);
  const borders = [...shared.runs.values(), ...holders].flatMap(({ start, last }) => [start, add(last, 1)]);
  for (const at of new Set(borders)) {
    const run = rangeAt(shared.runs, at);
    for (const who of ['domains', 'accesses'] as const) {
      const there = holders.filter((each) => each.who === who && each.start <= at && each.last >= at).length;
      if ((run?.[who] ?? 0) !== there)
        yield `${id}: page ${at} is held by ${run?.[who] ?? 0} ${who}, there are ${there}`;
    }
  }
}

// ---- who pays ---------------------------------------------------------------------------------------------------

/**
 * What users are charged with: each page that is held, once, as iommufd is the only one that charges users. Pages that may
 * not count are dropped once a success shows it (memory/memlock.ts), so there may be fewer of these.
 */
export function* ofCharges(world: World): Generator<string> {
  const owed = new Map<number, { pages: number; maybePages: number }>();
  const seen = new Set<number>();
  for (const ioas of world.ioases.values())
    for (const area of ioas.areas.values()) {
      const { id, charged, surely, user } = area.pages;
      if (charged !== 'user' || seen.has(id)) continue;
      seen.add(id);
      const sum = owed.get(user) ?? { pages: 0, maybePages: 0 };
      sum[surely ? 'pages' : 'maybePages'] += heldPages(world, area);
      owed.set(user, sum);
    }
  for (const user of new Set([...owed.keys(), ...world.userLocked.keys()])) {
    const { pages, maybePages } = world.userLocked.get(user) ?? { pages: 0, maybePages: 0 };
    const sum = owed.get(user) ?? { pages: 0, maybePages: 0 };
    if (sum.pages !== pages || maybePages > sum.maybePages)
      yield `${user} is charged with ${pages} and ${maybePages} pages, holds ${sum.pages} and ${sum.maybePages}`;
  }
}

function heldPages(world: World, area: Area): number {
  const shared = world.sharedPages.get(area.pages.id);
  const runs = shared === undefined ? (area.pinnedSince < 0 ? [] : [areaSpan(area)]) : [...shared.runs.values()];
  return runs.reduce((sum, { start, last }) => sum + Number(last) - Number(start) + 1, 0);
}

/** Files that memory is mapped by are alive for each piece of it. */
export function* ofMappedFiles(world: World): Generator<string> {
  const files = new Map<number, number>();
  for (const ioas of world.ioases.values())
    for (const { pages } of ioas.areas.values()) if (pages.kind !== 'user') files.set(pages.id, pages.file);
  const counts = new Map<number, number>();
  for (const file of files.values()) counts.set(file, (counts.get(file) ?? 0) + 1);
  for (const { id, pageRefs } of world.files.values())
    if (pageRefs !== (counts.get(id) ?? 0))
      yield `${id} counts ${pageRefs} mapped pieces, there are ${counts.get(id) ?? 0}`;
  for (const id of counts.keys()) if (!world.files.has(id)) yield `${id} is gone, and memory is mapped by it`;
}
