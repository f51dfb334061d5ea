import { carve, type Interval } from '../../core/interval.js';
import { add, type U64 } from '../../core/u64.js';
import type { Tx } from '../tx.js';
import type { AddressSpace } from './state.js';

/**
 * Knowledge about holes in a space whose beginning was not recorded: a range that a recorded call
 * unmapped is empty until something is mapped there. A space known from its execve on does not need it.
 */

function trimInterval(_range: Interval, start: U64, last: U64): Interval {
  return Object.freeze({ start, last });
}

/** Something is mapped in the range now. */
export function filled(tx: Tx, space: AddressSpace, start: U64, last: U64): void {
  if (space.complete) return;
  carve(tx.openTable(tx.world.spaces, space.id, 'emptied'), start, last, trimInterval);
}

/** Nothing is mapped in the range any more; it is joined with what was known so. */
export function emptied(tx: Tx, space: AddressSpace, start: U64, last: U64): void {
  if (space.complete) return;
  const holes = tx.openTable(tx.world.spaces, space.id, 'emptied');
  carve(holes, start, last, trimInterval);
  let from = start;
  let to = last;
  const left = holes.lower(start);
  if (left !== undefined && add(left.last, 1) === start) from = left.start;
  const right = holes.get(add(last, 1));
  if (right !== undefined) {
    to = right.last;
    holes.delete(right.start);
  }
  holes.set(from, Object.freeze({ start: from, last: to }));
}
