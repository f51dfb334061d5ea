import type { Tx } from '../tx.js';
import { type CoherentPages, Machine } from './machine.js';
import { evictDevice } from './migrate.js';
import { isPrivateDevice } from './state.js';

/**
 * The dmirror devices themselves: whose memory is where, and what is known of their free pages. A device with
 * private memory always finds room; of one with coherent memory the size of the free pages depends on what happened
 * since boot, see `allocate` in migrate.ts. It is a fact of the machine, learned from the first page that is taken.
 */

const UNKNOWN_PAGES: readonly CoherentPages[] = ['large', 'small'];
const ANY_PAGES: readonly CoherentPages[] = ['small'];

function key(device: number): string {
  return `dmirror/${device}/free-pages`;
}

/** The sizes that the free pages of a device may have. */
export function coherentPages(tx: Tx, device: number): readonly CoherentPages[] {
  if (isPrivateDevice(device)) return ANY_PAGES;
  const known = tx.world.facts.get(key(device))?.value;
  return known === 'small' || known === 'large' || known === 'fresh' ? [known] : UNKNOWN_PAGES;
}

export function noteCoherentPages(tx: Tx, device: number, pages: CoherentPages, seq: number): void {
  if (isPrivateDevice(device) || tx.world.facts.get(key(device))?.value === pages) return;
  tx.world.facts.set(key(device), Object.freeze({ value: pages, since: seq }));
}

/** All memory of the device goes back to the system, in every process; with RELEASE its chunks go too. */
export function releaseDevice(tx: Tx, device: number, seq: number, chunks: boolean): void {
  for (const table of [...tx.world.pageTables.values()]) {
    if ((table.devices & (1 << device)) === 0) continue;
    const machine = Machine.of(tx, table.space, seq);
    if (machine === undefined) continue;
    evictDevice(machine, device);
    machine.store(tx);
  }
  if (chunks) noteCoherentPages(tx, device, 'fresh', seq);
}
