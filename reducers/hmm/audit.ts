import { overlapping, rangeAt } from '../../core/interval.js';
import { max, min, type U64 } from '../../core/u64.js';
import { PROT_READ } from '../memory/flags.js';
import { type PageTable, type PteRun, pieces } from '../memory/pagetable.js';
import type { World } from '../world.js';
import type { Mirror, MirrorPte } from './state.js';

/**
 * Compares mirrors with the CPU page table that they mirror, over one range: O(log n) plus the runs touched.
 *
 * What a mirror may hold at any time (include/linux/mmu_notifier.h, Documentation/mm/hmm.rst):
 * - `gone`: nothing where the CPU has nothing, or may not read;
 * - `older page`: no page that the CPU's entry does not mean any more;
 * - `more rights`: no right to write that the CPU's entry does not give;
 * - `foreign memory`: no device-private memory of another device;
 * - `not exclusive`: no entry beside that of the device that holds the page exclusively, and no exclusive entry for
 *   a page that the CPU has got back.
 */
export type Fault = 'gone' | 'older page' | 'more rights' | 'foreign memory' | 'not exclusive';

export interface Problem {
  readonly fault: Fault;
  readonly mirror: Mirror;
  readonly entry: MirrorPte;
  readonly start: U64;
  readonly last: U64;
  /** The CPU's entry, where it has one. */
  readonly pte: PteRun | undefined;
}

/** At most `limit` problems of the mirrors of a space in a range. */
export function auditMirrors(world: World, table: PageTable, start: U64, last: U64, limit: number): Problem[] {
  const found: Problem[] = [];
  const vmas = world.spaces.get(table.space)?.vmas;
  if (vmas === undefined) return found;
  for (const mirror of world.mirrors.values()) {
    if (mirror.space !== table.space || !mirror.complete) continue;
    for (const entry of overlapping(mirror.ptes, start, last)) {
      for (const piece of pieces(table.runs, max(entry.start, start), min(entry.last, last))) {
        const readable = ((rangeAt(vmas, piece.start)?.prot ?? 0) & PROT_READ) !== 0;
        const fault = readable ? compare(world, mirror, entry, piece.pte, piece.start) : 'gone';
        if (fault !== undefined)
          found.push({ fault, mirror, entry, start: piece.start, last: piece.last, pte: piece.pte });
        if (found.length >= limit) return found;
      }
    }
  }
  return found;
}

function compare(world: World, mirror: Mirror, entry: MirrorPte, pte: PteRun | undefined, at: U64): Fault | undefined {
  if (pte === undefined) return 'gone';
  // Bare entries have an invariant of their own.
  if (entry.bare) return undefined;
  if (pte.kind === 'private' && pte.device !== mirror.device) return 'foreign memory';
  if (pte.kind === 'exclusive') return entry.access === 'atomic' ? undefined : exclusiveFault(world, mirror, at);
  if (entry.access === 'atomic') return 'not exclusive';
  if (entry.since < pte.since) return 'older page';
  return entry.access === 'write' && !pte.write ? 'more rights' : undefined;
}

/** An ordinary entry for a page that some mirror holds exclusively. */
function exclusiveFault(world: World, mirror: Mirror, at: U64): Fault | undefined {
  for (const other of world.mirrors.values()) {
    if (other.id === mirror.id || other.space !== mirror.space) continue;
    if (rangeAt(other.ptes, at)?.access === 'atomic') return 'not exclusive';
  }
  return undefined;
}

/** Whether a mirror of the space has an entry in the range: what an audit would look at. */
export function anyMirrored(world: World, space: number, start: U64, last: U64): boolean {
  for (const mirror of world.mirrors.values()) {
    if (mirror.space !== space || mirror.ptes.size === 0) continue;
    const below = mirror.ptes.floor(last);
    if (below !== undefined && below.last >= start) return true;
  }
  return false;
}
