import { carve, trimmed, unite } from '../../core/interval.js';
import type { U64 } from '../../core/u64.js';
import type { Tx } from '../tx.js';
import type { AddressSpace } from './state.js';

/**
 * Knowledge about holes in a space whose beginning was not recorded: a range that a recorded call
 * unmapped is empty until something is mapped there. A space known from its execve on does not need it.
 */

/** Something is mapped in the range now. */
export function filled(tx: Tx, space: AddressSpace, start: U64, last: U64): void {
  if (space.complete) return;
  carve(tx.openTable(tx.world.spaces, space.id, 'emptied'), start, last, trimmed);
}

/** Nothing is mapped in the range any more; it is joined with what was known so. */
export function emptied(tx: Tx, space: AddressSpace, start: U64, last: U64): void {
  if (space.complete) return;
  unite(tx.openTable(tx.world.spaces, space.id, 'emptied'), start, last);
}
