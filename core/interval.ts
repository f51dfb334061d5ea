import type { OrderedMap } from './ordered-map.js';
import { add, sub, type U64, U64_MAX } from './u64.js';

/** A closed interval of addresses. `end` and `length` exist only at the uAPI edge. */
export interface Interval {
  readonly start: U64;
  readonly last: U64;
}

export function overlaps(a: Interval, start: U64, last: U64): boolean {
  return a.start <= last && a.last >= start;
}

export function contains(a: Interval, start: U64, last: U64): boolean {
  return a.start <= start && a.last >= last;
}

/**
 * A range map is an `OrderedMap` from `start` to values that carry their own `start` and `last`
 * and do not overlap. The functions below are all that is done with them; each costs O(log n) plus
 * the number of ranges touched.
 */
export type RangeMap<R extends Interval> = OrderedMap<U64, R>;

/** The range that holds `address`. */
export function rangeAt<R extends Interval>(map: RangeMap<R>, address: U64): R | undefined {
  const below = map.floor(address);
  return below !== undefined && below.last >= address ? below : undefined;
}

/** The lowest range that touches `start..last`. */
export function firstOverlap<R extends Interval>(map: RangeMap<R>, start: U64, last: U64): R | undefined {
  const below = map.floor(start);
  if (below !== undefined && below.last >= start) return below;
  const above = map.higher(start);
  return above !== undefined && above.start <= last ? above : undefined;
}

/** All ranges that touch `start..last`, in order; a copy, so the map may be written to afterwards. */
export function overlapping<R extends Interval>(map: RangeMap<R>, start: U64, last: U64): R[] {
  const found: R[] = [];
  const below = map.floor(start);
  if (below !== undefined && below.start < start && below.last >= start) found.push(below);
  map.forRange(start, last, (range) => {
    found.push(range);
    return undefined;
  });
  return found;
}

/**
 * Puts a range into an open map, in the place of whatever was there, and joins it with the neighbours that `joins` says
 * are equal but for their place. `trim` as for {@link carve}.
 */
export function put<R extends Interval>(
  map: RangeMap<R>,
  range: R,
  trim: (range: R, start: U64, last: U64) => R,
  joins: (a: R, b: R) => boolean,
): void {
  const { start, last } = range;
  carve(map, start, last, trim);
  const left = map.lower(start);
  const from = left !== undefined && add(left.last, 1) === start && joins(left, range) ? left.start : start;
  const right = last === U64_MAX ? undefined : map.get(add(last, 1));
  if (right === undefined || !joins(range, right)) {
    map.set(from, trim(range, from, last));
    return;
  }
  map.delete(right.start);
  map.set(from, trim(range, from, right.last));
}

/** A range as it is but for its place: the `trim` of ranges in which nothing moves with the start. */
export function trimmed<R extends Interval>(range: R, start: U64, last: U64): R {
  return range.start === start && range.last === last ? range : Object.freeze({ ...range, start, last });
}

/** Adds `start..last` to an open map that is a mere set of addresses: neighbours are one range. */
export function unite(set: RangeMap<Interval>, start: U64, last: U64): void {
  put(set, Object.freeze({ start, last }), trimmed, () => true);
}

/** The first address of `start..last` that no range holds; undefined when the ranges cover all of it. */
export function firstGap<R extends Interval>(map: RangeMap<R>, start: U64, last: U64): U64 | undefined {
  let at = start;
  let range = rangeAt(map, at);
  while (range !== undefined) {
    if (range.last >= last) return undefined;
    at = add(range.last, 1);
    range = map.get(at);
  }
  return at;
}

/**
 * Removes `start..last` from an open map. A range that is only partly inside is replaced by what is
 * left of it, which `trim(range, start, last)` makes (offsets into a file move with the start).
 * Gives the removed or cut ranges as they were.
 */
export function carve<R extends Interval>(
  map: RangeMap<R>,
  start: U64,
  last: U64,
  trim: (range: R, start: U64, last: U64) => R,
): R[] {
  const touched = overlapping(map, start, last);
  for (const range of touched) {
    map.delete(range.start);
    if (range.start < start) map.set(range.start, trim(range, range.start, sub(start, 1)));
    if (range.last > last) {
      const from = add(last, 1);
      map.set(from, trim(range, from, range.last));
    }
  }
  return touched;
}
