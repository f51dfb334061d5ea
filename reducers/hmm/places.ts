import { carve, type Interval, overlapping, put, type RangeMap, trimmed } from '../../core/interval.js';
import { add, max, min, sub, type U64 } from '../../core/u64.js';

/**
 * Which mirrors of an mm have entries where: an index, so that an invalidation costs nothing for mirrors elsewhere (with
 * on-demand paging each memory region is a mirror, and a process may have thousands).
 */
export interface Place extends Interval {
  /** The kernel's addresses of the mirrors, in the order in which they came. */
  readonly mirrors: readonly U64[];
}

/** More mirrors than this of one page are no machine's, and are not looked at together. */
const MIRRORS_MAX = 64;

function joins(a: Place, b: Place): boolean {
  return a.mirrors.length === b.mirrors.length && a.mirrors.every((id, i) => id === b.mirrors[i]);
}

/** A mirror has entries all over a range now. */
export function cover(places: RangeMap<Place>, start: U64, last: U64, id: U64): void {
  const only: readonly U64[] = Object.freeze([id]);
  let at = start;
  for (const place of overlapping(places, start, last)) {
    const from = max(place.start, start);
    const to = min(place.last, last);
    if (from > at) putPlace(places, at, sub(from, 1), only);
    if (!place.mirrors.includes(id) && place.mirrors.length < MIRRORS_MAX)
      putPlace(places, from, to, Object.freeze([...place.mirrors, id]));
    if (to >= last) return;
    at = add(to, 1);
  }
  putPlace(places, at, last, only);
}

/** A mirror has no entries in a range any more. */
export function uncover(places: RangeMap<Place>, start: U64, last: U64, id: U64): void {
  for (const place of overlapping(places, start, last)) {
    if (!place.mirrors.includes(id)) continue;
    const from = max(place.start, start);
    const to = min(place.last, last);
    const others = place.mirrors.filter((other) => other !== id);
    if (others.length === 0) carve(places, from, to, trimmed);
    else putPlace(places, from, to, Object.freeze(others));
  }
}

function putPlace(places: RangeMap<Place>, start: U64, last: U64, mirrors: readonly U64[]): void {
  put(places, Object.freeze({ start, last, mirrors }), trimmed, joins);
}

/** The mirrors that have entries in a range, each once, in the order of their places. */
export function mirrorsIn(places: RangeMap<Place>, start: U64, last: U64): readonly U64[] {
  const found = overlapping(places, start, last);
  if (found.length <= 1) return found[0]?.mirrors ?? NONE;
  return [...new Set(found.flatMap(({ mirrors }) => mirrors))];
}

const NONE: readonly U64[] = Object.freeze([]);
