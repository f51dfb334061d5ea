import type { Interval, RangeMap } from '../../core/interval.js';
import { carve, firstGap, overlapping, put, trimmed } from '../../core/interval.js';
import { max, min, sub, type U64 } from '../../core/u64.js';
import type { MirrorEntry, MirrorPte } from './state.js';

/**
 * The page table of a device as a range map: what dmirror keeps in its xarray, and any other driver's mirror alike.
 * Each operation costs O(log n) plus the runs touched.
 */

/** Takes all entries of a range away, as an invalidation does. Gives what was touched, as it was. */
export function dropEntries<P extends Interval>(ptes: RangeMap<P>, start: U64, last: U64): readonly P[] {
  return carve(ptes, start, last, trimmed);
}

/** Puts equal entries into a range and joins them with equal neighbours. */
export function putEntries(ptes: RangeMap<MirrorPte>, start: U64, last: U64, entry: MirrorEntry): void {
  const { access, bare, since } = entry;
  put(ptes, Object.freeze({ start, last, access, bare, since }), trimmed, equal);
}

function equal(a: MirrorEntry, b: MirrorEntry): boolean {
  return a.access === b.access && a.bare === b.bare && a.since === b.since;
}

/** The entries in a range, cut to it, in order; holes are left out. */
export function entriesIn(ptes: RangeMap<MirrorPte>, start: U64, last: U64): MirrorPte[] {
  return overlapping(ptes, start, last).map((pte) => trimmed(pte, max(pte.start, start), min(pte.last, last)));
}

/** The first address of the range that the device may not read (`write` false) or write; undefined when there is none. */
export function firstRefused(ptes: RangeMap<MirrorPte>, start: U64, last: U64, write: boolean): U64 | undefined {
  const hole = firstGap(ptes, start, last);
  if (!write) return hole;
  const until = hole === undefined ? last : sub(hole, 1);
  if (hole === start) return hole;
  for (const pte of overlapping(ptes, start, until)) if (pte.access !== 'write') return max(pte.start, start);
  return hole;
}

/** The first entry of the range without memory behind it, or undefined. */
export function firstBare(ptes: RangeMap<MirrorPte>, start: U64, last: U64): MirrorPte | undefined {
  for (const pte of overlapping(ptes, start, last)) if (pte.bare) return trimmed(pte, max(pte.start, start), pte.last);
  return undefined;
}
