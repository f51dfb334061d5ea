import { overlapping, type RangeMap, rangeAt } from '../../core/interval.js';
import { add, alignDown, lastOf, type U64 } from '../../core/u64.js';
import { PROT_READ, PROT_WRITE } from '../memory/flags.js';
import { surelyEmpty } from '../memory/lookup.js';
import { HUGE_BYTES, type PteRun } from '../memory/pagetable.js';
import { type AddressSpace, VMA_GUARD } from '../memory/state.js';
import type { Tx } from '../tx.js';

/**
 * Whether the kernel can copy to or from memory of a process (copy_to_user, copy_from_user).
 * Pages whose faults were recorded are there though no call of the recording mapped them.
 * `unknown`: memory may be there that was not recorded. O(log n) plus the VMAs and runs touched.
 */
export function canCopy(
  tx: Tx,
  space: AddressSpace | undefined,
  start: U64,
  lengthBytes: U64,
  write: boolean,
): 'yes' | 'no' | 'unknown' {
  const last = lastOf(start, lengthBytes);
  if (lengthBytes === 0) return 'yes';
  if (last === undefined || space === undefined) return 'no';
  const runs = tx.world.pageTables.get(space.id)?.runs;
  let at = start;
  for (;;) {
    const vma = rangeAt(space.vmas, at);
    if (vma !== undefined) {
      if ((vma.prot & (write ? PROT_WRITE : PROT_READ)) === 0 || vma.traits & VMA_GUARD) return 'no';
    } else if (runs === undefined || !blockSeen(runs, at, write)) return surelyEmpty(space, at) ? 'no' : 'unknown';
    const reached = vma?.last ?? add(alignDown(at, HUGE_BYTES), HUGE_BYTES - 1);
    if (reached >= last) return 'yes';
    at = add(reached, 1);
  }
}

/**
 * Whether a fault was recorded in the block of 2 MiB: the heap, which no recorded call maps in these recordings, is
 * faulted in by whole blocks; and where it is not, the copy itself makes a fault for each page.
 */
function blockSeen(runs: RangeMap<PteRun>, at: U64, write: boolean): boolean {
  const block = alignDown(at, HUGE_BYTES);
  return overlapping(runs, block, add(block, HUGE_BYTES - 1)).some((run) => run.write || !write);
}
