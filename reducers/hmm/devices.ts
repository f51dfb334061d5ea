import type { Interval, RangeMap } from '../../core/interval.js';
import { type Pte, type PteRun, pieces, setRun } from '../memory/pagetable.js';
import type { Tx } from '../tx.js';
import { type CoherentPages, Machine } from './machine.js';
import { evictDevice } from './migrate.js';
import { isPrivateDevice } from './state.js';

/**
 * The dmirror devices themselves: whose memory is where, and what is known of their free pages. A device with
 * private memory always finds room; of one with coherent memory the size of the free pages depends on what happened
 * since boot, see `allocate` in migrate.ts. It is a fact of the machine, learned from the first page that is taken; until
 * then the likelier size is assumed, and corrected when it was wrong.
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

/** A device whose free pages matter to a command, and the sizes that they may have. */
export interface Subject {
  readonly device: number;
  readonly sizes: readonly CoherentPages[];
}

/**
 * The device of a command, or where its size is known, one that is taken to have given huge pages to the range while its own is not.
 */
export function subjectOf(tx: Tx, machine: Machine, device: number, { start, last }: Interval): Subject {
  const own = { device, sizes: coherentPages(tx, device) };
  if (own.sizes.length > 1) return own;
  for (const { pte } of pieces(machine.runs, start, last)) {
    if (pte?.kind !== 'coherent' || !pte.large || pte.device === device) continue;
    const sizes = coherentPages(tx, pte.device);
    if (sizes.length > 1) return { device: pte.device, sizes };
  }
  return own;
}

export function noteCoherentPages(tx: Tx, device: number, pages: CoherentPages, seq: number): void {
  const known = tx.world.facts.get(key(device))?.value;
  if (isPrivateDevice(device) || known === pages) return;
  tx.world.facts.set(key(device), Object.freeze({ value: pages, since: seq }));
  if (known !== undefined || pages === 'fresh') return;
  for (const table of [...tx.world.pageTables.values()])
    if (table.devices & (1 << device)) correct(tx.openTable(tx.world.pageTables, table.space, 'runs'), device, pages);
}

/** What was taken to have migrated while the size was not known: there never were pages of the other size. */
function correct(runs: RangeMap<PteRun>, device: number, pages: 'small' | 'large'): void {
  const wrong = [...runs.values()].filter((run) => run.device === device && run.large !== (pages === 'large'));
  for (const run of wrong) setRun(runs, run.start, run.last, corrected(run, pages));
}

/** A page in memory of a device, as it is when the device's free pages have a size. */
export function corrected(run: PteRun, pages: 'small' | 'large'): Pte {
  return pages === 'small' ? { ...run, huge: false, large: false } : { ...run, kind: 'anon', device: -1, mirror: 0 };
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
