import type { Call } from '../call.js';
import type { Tx } from '../tx.js';
import { forgetKnowledge } from '../memory/pagetable.js';
import { releaseDevice } from './devices.js';
import type { Mirror } from './state.js';

/**
 * Commands of which the recording does not hold the struct, or that are longer than the model follows. Which pages they
 * faulted in, moved or took is not known then: of the mirrored space and of its relatives, which may share the pages, nothing
 * that depends on pages is known any more. RELEASE is the same for every struct, and SNAPSHOT and CHECK_EXCLUSIVE change
 * nothing.
 */
export function forgetWhatItDid(call: Call, mirror: Mirror, command: string): void {
  const { tx, event } = call;
  if (command === 'HMM_DMIRROR_SNAPSHOT' || command === 'HMM_DMIRROR_CHECK_EXCLUSIVE') return;
  // The range was refused, or the process is gone.
  if (call.recordedErrno === 'EINVAL') return;
  if (command === 'HMM_DMIRROR_RELEASE') {
    if (event.ret === 0) releaseDevice(tx, mirror.device, event.seq, true);
    return;
  }
  const table = tx.world.pageTables.get(mirror.space);
  const relatives = [...(tx.world.kinships.get(table?.family ?? 0)?.members.keys() ?? [])];
  for (const space of new Set([mirror.space, ...relatives])) forgetPages(tx, space, event.seq);
}

function forgetPages(tx: Tx, space: number, seq: number): void {
  forgetKnowledge(tx, space);
  const table = tx.world.pageTables.get(space);
  if (table !== undefined) tx.world.pageTables.set(space, Object.freeze({ ...table, unseenSince: seq }));
  for (const mirror of [...tx.world.mirrors.values()]) {
    if (mirror.space !== space) continue;
    tx.openTable(tx.world.mirrors, mirror.id, 'ptes').clear();
    const now = tx.world.mirrors.get(mirror.id) ?? mirror;
    tx.world.mirrors.set(mirror.id, Object.freeze({ ...now, unseenSince: seq }));
  }
}

/** Why what a command finds in its space is not known; '' where it is. */
export function unseenText(tx: Tx, mirror: Mirror): string {
  const since = Math.max(mirror.unseenSince, tx.world.pageTables.get(mirror.space)?.unseenSince ?? -1);
  return since < 0 ? '' : `which pages the command of event ${since} changed is not known`;
}
