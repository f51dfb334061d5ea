import type { Event } from '../../core/event.js';
import type { Interval } from '../../core/interval.js';
import type { Families } from '../family.js';
import { knownProcessOf } from '../files/processes.js';
import type { Process } from '../files/state.js';
import { lastOfPages, MADV_POPULATE_READ, MADV_POPULATE_WRITE } from '../memory/flags.js';
import { noteChange, raiseKnowledge, settleChanges } from '../memory/pagetable.js';
import type { Tx } from '../tx.js';
import type { World } from '../world.js';
import { followMirror } from './driver-mirror.js';
import { fileCut, mayCutFile } from './file-calls.js';
import { followFault, followInvalidation, settleDeferred } from './kernel-events.js';
import { Machine } from './machine.js';
import { threadWentOn } from './notified.js';
import { callChangesPages, mappingFills, mayFill, takesPages } from './space-calls.js';
import { dropPages, forkPages } from './space-life.js';

/**
 * Page tables and mirrors follow every event that is not a call of theirs: before memory and files do (what goes
 * is described by what was there), and after them (what is new). Where no space has a page table, an event costs one
 * look at an empty table.
 */

/** The process of an event, also by a thread that was not seen before. */
function callerOf(world: World, event: Event): Process | undefined {
  return knownProcessOf(world, event) ?? (event.pid === 0 ? undefined : world.processes.get(event.pid));
}

/** Whether an event may stand in the middle of a call of its thread, and tells nothing of the call's end. */
function insideCall({ kind }: Event): boolean {
  switch (kind) {
    case 'invalidateStart':
    case 'invalidateEnd':
    case 'mirrorMap':
    case 'mirrorUnmap':
    case 'mirrorInvalidate':
    case 'mirrorEnd':
      return true;
    default:
      return false;
  }
}

/** The space that an event acts in, as it was before; 0 where no page table is concerned. */
export function pagesBefore(tx: Tx, event: Event, families: Families): number {
  if (event.kind === 'other' && mayCutFile(event)) fileCut(tx, event, families);
  if (event.kind === 'madvise' && (event.advice === MADV_POPULATE_READ || event.advice === MADV_POPULATE_WRITE)) {
    const caller = callerOf(tx.world, event);
    if (caller !== undefined && event.ret !== null) raiseKnowledge(tx, caller.space, 'calls');
  }
  if (tx.world.pageTables.size === 0) return 0;
  const process = callerOf(tx.world, event);
  const space = process?.space ?? 0;
  if (!tx.world.pageTables.has(space)) return 0;
  if (!insideCall(event)) settleChanges(tx, space, event.tid);
  switch (event.kind) {
    case 'mmap':
    case 'munmap':
    case 'mprotect':
    case 'mremap':
    case 'madvise':
    case 'mlock':
    case 'brk': {
      if (tx.world.deferred.size > 0) settleDeferred(tx, event.tid, -1, event.seq);
      const machine = Machine.of(tx, space, event.seq);
      if (machine === undefined) return 0;
      const open = !machine.derives && takesPages(event);
      callChangesPages(machine, event);
      machine.store(tx);
      // Only a device's call can overlap this one, and only mirrors have to hear of it.
      if (tx.world.mirrors.size === 0 && tx.world.notified.size === 0) return space;
      const changed = rangeOf(event);
      if (changed === undefined) return space;
      const { start, last } = changed;
      noteChange(tx, space, { start, last, seq: event.seq, tid: event.tid, open });
      return space;
    }
    default:
      return space;
  }
}

/** What a call that changes mappings is about; enough of it to tell whether it overlaps another call. */
function rangeOf(event: Event): Interval | undefined {
  switch (event.kind) {
    case 'munmap':
    case 'mprotect':
    case 'mmap':
    case 'mremap':
    case 'madvise':
      break;
    default:
      return undefined;
  }
  const start = event.kind === 'mmap' && event.ret !== null && event.ret !== -1 ? event.ret : event.addr;
  const last = lastOfPages(start, event.kind === 'mremap' ? event.oldLengthBytes : event.lengthBytes);
  return last === undefined ? undefined : { start, last };
}

/** `space` is what {@link pagesBefore} gave. */
export function pagesAfter(tx: Tx, event: Event, space: number, families: Families): void {
  changePages(tx, event, space, families);
  if (tx.world.notified.size > 0 && !insideCall(event)) threadWentOn(tx, event);
}

function changePages(tx: Tx, event: Event, space: number, families: Families): void {
  switch (event.kind) {
    case 'fault':
      followFault(tx, event, families);
      return;
    case 'invalidateStart':
    case 'invalidateEnd':
      followInvalidation(tx, event);
      return;
    case 'mirrorMap':
    case 'mirrorUnmap':
    case 'mirrorInvalidate':
    case 'mirrorEnd':
      followMirror(tx, event);
      return;
    case 'exec':
    case 'exit':
      if (space !== 0 && !tx.world.spaces.has(space)) dropPages(tx, space, event.seq);
      return;
    case 'fork': {
      const child = typeof event.ret === 'number' ? tx.world.processes.get(event.ret) : undefined;
      const table = tx.world.pageTables.get(space);
      if (child !== undefined && table !== undefined && child.space !== space)
        forkPages(tx, table, child.space, event.seq);
      return;
    }
    case 'mmap': {
      if (space === 0 || !mayFill(event)) return;
      const machine = Machine.of(tx, space, event.seq);
      const file = typeof event.ret === 'number' ? machine?.vmaAt(event.ret)?.file : undefined;
      if (machine === undefined || file === undefined) return;
      mappingFills(machine, event, file !== 0 && tx.world.files.get(file)?.kind === 'dmirror');
      machine.store(tx);
      return;
    }
    default:
  }
}
