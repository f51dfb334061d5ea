import type { FaultEvent, InvalidateEvent } from '../../core/event.js';
import { rangeAt } from '../../core/interval.js';
import { add, alignDown, hex, type U64 } from '../../core/u64.js';
import type { Families } from '../family.js';
import { processOf } from '../files/processes.js';
import type { Process } from '../files/state.js';
import { PROT_READ, PROT_WRITE, PAGE_BYTES } from '../memory/flags.js';
import { newPte, pageTableOf, raiseKnowledge, setRun } from '../memory/pagetable.js';
import { newSpace, putSpace } from '../memory/spaces.js';
import type { Tx } from '../tx.js';
import type { World } from '../world.js';
import { settleTold, teachAll } from './driver-mirror.js';
import { actOn, Machine, NOTIFY_MIGRATE } from './machine.js';
import { invalidatedJustNow, noteInvalidation } from './notified.js';
import { dropPages } from './space-life.js';
import type { Invalidation, Mirror } from './state.js';
import { touch } from './touch.js';

/**
 * Page faults and invalidations that the recorder saw in the kernel.
 *
 * They name address spaces by the kernel's address of the mm. The first fault that a process makes for itself tells
 * which space that is; a later one with another address tells that it has executed another program, which these
 * recordings do not show otherwise. Faults for somebody else's space (FAULT_FLAG_REMOTE: a device's, a debugger's)
 * bind nothing.
 *
 * The owner of a migration is named by the kernel's address of its device. Which device that is shows with the call
 * or the fault that the migration was part of, and that comes after it on the tape: until then the
 * invalidation waits, with its thread.
 */

const FAULT_WRITE = 0x1;
const FAULT_REMOTE = 0x80;
/** VM_FAULT_OOM, SIGBUS, HWPOISON, HWPOISON_LARGE, SIGSEGV, FALLBACK; and RETRY, after which it comes again. */
const FAILED = 0x1 | 0x2 | 0x10 | 0x20 | 0x40 | 0x800 | 0x400;

export function followFault(tx: Tx, event: FaultEvent, families: Families): void {
  const space = spaceOfFault(tx, event, families);
  if (space === undefined) return;
  raiseKnowledge(tx, space, 'events');
  if (event.ret & FAILED) return;
  const start = alignDown(event.addr, PAGE_BYTES);
  const before = rangeAt(pageTableOf(tx, space, 'events').runs, start);
  if (before?.kind === 'private') settleDeferred(tx, event.tid, before.device, event.seq);
  // A fault is shown when it is over. What it invalidated was exchanged before its end, and others may have seen it.
  const exchanged = invalidatedJustNow(tx.world, event.mm, event.tid, start);
  const since = exchanged?.seq ?? event.seq;
  if (before !== undefined && before.since > since) return;
  const machine = Machine.of(tx, space, since);
  if (machine === undefined) return;
  machine.exchanged = exchanged;
  const vma = machine.vmaAt(event.addr);
  const write = (event.flags & FAULT_WRITE) !== 0;
  if (vma === undefined) {
    notePage(tx, space, start, write, event.seq);
    return;
  }
  if ((vma.prot & (write ? PROT_WRITE : PROT_READ | PROT_WRITE)) === 0) return;
  touch(machine, vma, start, add(start, PAGE_BYTES - 1), write);
  machine.store(tx);
}

/** A page of memory that no recorded call mapped (the program, the heap, the stack): it is there, no more is known. */
function notePage(tx: Tx, space: number, start: U64, write: boolean, since: number): void {
  const runs = tx.openTable(tx.world.pageTables, space, 'runs');
  const known = rangeAt(runs, start);
  if (known !== undefined && (known.write || !write)) return;
  setRun(runs, start, add(start, PAGE_BYTES - 1), newPte('file', since, { write }));
}

/** The space that a fault is about; undefined while nothing tells. */
function spaceOfFault(tx: Tx, event: FaultEvent, families: Families): number | undefined {
  const bound = tx.world.mms.get(event.mm);
  if (event.flags & FAULT_REMOTE) return bound;
  const process = processOf(tx, event);
  if (bound === process.space) return bound;
  if (bound !== undefined && tx.world.spaces.has(bound)) return bound;
  return bindSpace(tx, process, event, families);
}

function bindSpace(tx: Tx, process: Process, event: FaultEvent, families: Families): number {
  let { space } = process;
  if (pageTableOf(tx, space, 'events').mm !== null) {
    // Another mm in the same process: execve.
    const made = newSpace(tx, false);
    tx.world.processes.set(process.pid, Object.freeze({ ...process, space: made.id }));
    putSpace(tx, space, event, families);
    if (!tx.world.spaces.has(space)) dropPages(tx, space, event.seq);
    space = made.id;
  }
  tx.world.mms.set(event.mm, space);
  const table = pageTableOf(tx, space, 'events');
  tx.world.pageTables.set(space, Object.freeze({ ...table, mm: event.mm }));
  teachAll(tx, event.mm);
  return space;
}

// ---- invalidations ---------------------------------------------------------------------------------------

/** Mirrors act where the kernel calls them: at the start. */
export function followInvalidation(tx: Tx, event: InvalidateEvent): void {
  if (event.kind === 'invalidateEnd') settleTold(tx, event);
  noteInvalidation(tx, event);
  const space = tx.world.mms.get(event.mm);
  if (space === undefined || event.kind === 'invalidateEnd') return;
  if (event.type === NOTIFY_MIGRATE && event.owner !== 0) {
    const device = deviceOfOwner(tx.world, event.owner);
    if (device === undefined) defer(tx, event, space);
    else
      actOnSpace(tx, space, {
        start: event.start,
        last: event.last,
        seq: event.seq,
        type: event.type,
        device,
        derived: false,
      });
    return;
  }
  actOnSpace(tx, space, {
    start: event.start,
    last: event.last,
    seq: event.seq,
    type: event.type,
    device: -1,
    derived: false,
  });
}

/** How many invalidations of one call wait at most; more are taken for a foreign device's. */
const DEFERRED_MAX = 1024;

function defer(tx: Tx, event: InvalidateEvent, space: number): void {
  const waiting = tx.world.deferred.get(event.tid);
  if (waiting !== undefined && (waiting.owner !== event.owner || waiting.ranges.length >= DEFERRED_MAX))
    settleDeferred(tx, event.tid, -1, event.seq);
  const ranges = tx.world.deferred.get(event.tid)?.ranges ?? [];
  const all = Object.freeze([...ranges, Object.freeze({ start: event.start, last: event.last })]);
  tx.world.deferred.set(event.tid, Object.freeze({ space, owner: event.owner, ranges: all }));
}

/** The device that a migration's owner is; undefined while nothing has told. */
export function deviceOfOwner(world: World, owner: U64): number | undefined {
  const device = world.facts.get(ownerKey(owner))?.value;
  return typeof device === 'number' ? device : undefined;
}

function ownerKey(owner: U64): string {
  return `dmirror/owner/${hex(owner)}`;
}

/** The thread's migrations are those of a device (-1: of none that is known), which is a fact from now on. */
export function settleDeferred(tx: Tx, tid: number, device: number, seq: number): void {
  const waiting = tx.world.deferred.get(tid);
  if (waiting === undefined) return;
  tx.world.deferred.delete(tid);
  if (device >= 0) tx.world.facts.set(ownerKey(waiting.owner), Object.freeze({ value: device, since: seq }));
  for (const { start, last } of waiting.ranges)
    actOnSpace(tx, waiting.space, { start, last, seq, type: NOTIFY_MIGRATE, device, derived: false });
}

function actOnSpace(tx: Tx, space: number, invalidation: Invalidation): void {
  const concerned: Mirror[] = [];
  for (const mirror of tx.world.mirrors.values()) if (mirror.space === space) concerned.push(mirror);
  for (const mirror of concerned) {
    const changed = { ...mirror, ptes: tx.openTable(tx.world.mirrors, mirror.id, 'ptes') };
    actOn(changed, invalidation);
    tx.world.mirrors.set(mirror.id, Object.freeze(changed));
  }
}
