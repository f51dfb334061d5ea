import type { Tx } from '../tx.js';
import { ioasByKey } from './context.js';
import { dropSharer, unpinArea } from './held-pages.js';

/** Forgets an IOAS record with all its areas. */
export function dropIoas(tx: Tx, ioasKey: number): void {
  const ioas = ioasByKey(tx, ioasKey);
  const pinned = ioas.hwpts.length > 0;
  for (const area of ioas.areas.values()) {
    if (pinned) unpinArea(tx, area);
    dropSharer(tx, area);
  }
  tx.world.ioases.delete(ioasKey);
  tx.world.ioasGaps.delete(ioasKey);
}
