import type { RangeMap } from '../../core/interval.js';
import { carve, type Interval, trimmed } from '../../core/interval.js';
import { add, max, min, type U64 } from '../../core/u64.js';
import type { Tx } from '../tx.js';
import { patchObject, typedObject } from './context.js';
import type { Ioas, PagingHwpt } from './state.js';

/**
 * Sets of dirty IOVAs as disjoint ranges. Small changes to a frozen map: each gives a new frozen map that
 * shares what did not change.
 */

export function addRange(set: RangeMap<Interval>, start: U64, last: U64): RangeMap<Interval> {
  const open = set.edit();
  let from = start;
  let to = last;
  for (const old of carve(open, start, last, trimmed)) {
    from = min(from, old.start);
    to = max(to, old.last);
  }
  if (from < start) open.delete(from);
  if (to > last) open.delete(add(last, 1));
  open.set(from, Object.freeze({ start: from, last: to }));
  return open.freeze();
}

export function removeRange(set: RangeMap<Interval>, start: U64, last: U64): RangeMap<Interval> {
  if (set.size === 0) return set;
  const open = set.edit();
  carve(open, start, last, trimmed);
  return open.freeze();
}

/** Page table entries that go take their dirty bits with them. */
export function forgetDirty(tx: Tx, ioas: Ioas, range: Interval): void {
  for (const id of ioas.hwpts) {
    const hwpt = typedObject(tx, ioas.context, id, 'hwpt-paging');
    if (hwpt === undefined || (hwpt.dirty.size === 0 && hwpt.maybeDirty.size === 0)) continue;
    patchObject<PagingHwpt>(tx, ioas.context, hwpt, {
      dirty: removeRange(hwpt.dirty, range.start, range.last),
      maybeDirty: removeRange(hwpt.maybeDirty, range.start, range.last),
    });
  }
}
