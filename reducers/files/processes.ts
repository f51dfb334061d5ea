import type { Event } from '../../core/event.js';
import { OrderedMap } from '../../core/ordered-map.js';
import type { Families } from '../family.js';
import { newSpace, putSpace } from '../memory/spaces.js';
import type { Tx } from '../tx.js';
import type { World } from '../world.js';
import { unknownCreds } from './creds.js';
import { addFdRef, makeFile, putFdRef } from './open-files.js';
import { type FdEntry, type FdTable, NO_LIMIT_KNOWN, type Process } from './state.js';

/**
 * Processes (thread groups), their threads and their fd tables: who is who, made and dropped.
 *
 * An event names a thread; `pid` only where the recorder knew it. A thread that no recorded fork made
 * "comes from nowhere": it is its own process, and fds and memory may exist that the recording never
 * showed (`complete: false`). Only a process whose first recorded call is its own successful execve begins with
 * known tables: three inherited fds, and the memory that execve maps by itself.
 */

/** The process of the event's thread; made when nothing was recorded of it before. */
export function processOf(tx: Tx, event: Event): Process {
  const pid = tx.world.threads.get(event.tid);
  if (pid !== undefined && (event.pid === 0 || event.pid === pid)) {
    const process = tx.world.processes.get(pid);
    if (process !== undefined) return process;
  }
  return processFromNowhere(tx, event);
}

/** The process of the event's thread, or undefined where nothing was recorded of it before. */
export function knownProcessOf(world: World, event: Event): Process | undefined {
  const pid = world.threads.get(event.tid);
  return pid === undefined ? undefined : world.processes.get(pid);
}

function processFromNowhere(tx: Tx, event: Event): Process {
  const { tid } = event;
  const pid = event.pid === 0 ? tid : event.pid;
  const group = tx.world.processes.get(pid);
  if (group !== undefined) {
    addThread(tx, group.pid, tid, event.seq);
    return tx.world.processes.get(group.pid) ?? group;
  }
  const complete = event.kind === 'exec' && event.ret === 0;
  const made = makeProcess(tx, pid, event.seq, newSpace(tx, complete).id, newFdTable(tx, complete).id, true);
  addThread(tx, pid, tid, event.seq);
  if (complete) for (let fd = 0; fd < 3; fd++) inherit(tx, made.fdTable, fd, event);
  return tx.world.processes.get(pid) ?? made;
}

function inherit(tx: Tx, table: number, fd: number, event: Event): void {
  const file = makeFile(tx, { kind: 'other', path: '', complete: false }, event);
  setFd(tx, table, Object.freeze({ fd, file: file.id, cloexec: false }));
}

/** Puts a process without threads into the table; a child is given the credentials and limits of its parent. */
export function makeProcess(
  tx: Tx,
  pid: number,
  since: number,
  space: number,
  fdTable: number,
  fromNowhere: boolean,
  inherited?: Pick<Process, 'creds' | 'memlock'>,
): Process {
  const process: Process = Object.freeze({
    pid,
    space,
    fdTable,
    tids: tx.adopt(OrderedMap.numeric<number, number>()),
    since,
    fromNowhere,
    creds: inherited?.creds ?? unknownCreds(since),
    memlock: inherited?.memlock ?? NO_LIMIT_KNOWN,
    limitsSince: since,
  });
  tx.world.processes.set(pid, process);
  return process;
}

/** The thread belongs to the process from now on. */
export function addThread(tx: Tx, pid: number, tid: number, seq: number): void {
  tx.openTable(tx.world.processes, pid, 'tids').set(tid, seq);
  tx.world.threads.set(tid, pid);
}

/** All threads end: memory goes first, then the fds in ascending order (kernel/exit.c, `do_exit`). */
export function dropProcess(tx: Tx, process: Process, event: Event, families: Families): void {
  for (const tid of process.tids.keys()) forgetThread(tx, tid, process.pid);
  tx.world.processes.delete(process.pid);
  putSpace(tx, process.space, event, families);
  putFdTable(tx, process.fdTable, event, families);
}

/** The thread id means nothing any more, unless it was given to another process meanwhile. */
export function forgetThread(tx: Tx, tid: number, pid: number): void {
  if (tx.world.threads.get(tid) === pid) tx.world.threads.delete(tid);
}

// ---- fd tables -------------------------------------------------------------------------------------------

/** An empty table with one user. */
export function newFdTable(tx: Tx, complete: boolean): FdTable {
  const table: FdTable = Object.freeze({
    id: tx.nextId('fdTables'),
    users: 1,
    complete,
    fds: tx.adopt(OrderedMap.numeric<number, FdEntry>()),
  });
  tx.world.fdTables.set(table.id, table);
  return table;
}

/** One more process uses the table (CLONE_FILES). */
export function shareFdTable(tx: Tx, id: number): number {
  const table = tx.world.fdTables.get(id);
  if (table === undefined) return newFdTable(tx, false).id;
  tx.world.fdTables.set(id, Object.freeze({ ...table, users: table.users + 1 }));
  return id;
}

/** A copy with the same files (fork without CLONE_FILES). */
export function copyFdTable(tx: Tx, id: number): number {
  const from = tx.world.fdTables.get(id);
  if (from === undefined) return newFdTable(tx, false).id;
  const copy: FdTable = Object.freeze({ ...from, id: tx.nextId('fdTables'), users: 1, fds: from.fds.freeze() });
  tx.world.fdTables.set(copy.id, copy);
  for (const entry of copy.fds.values()) addFdRef(tx, entry.file);
  return copy.id;
}

/** A process stops using the table; with its last user all fds are closed. */
export function putFdTable(tx: Tx, id: number, event: Event, families: Families): void {
  const table = tx.world.fdTables.get(id);
  if (table === undefined) return;
  if (table.users > 1) {
    tx.world.fdTables.set(id, Object.freeze({ ...table, users: table.users - 1 }));
    return;
  }
  tx.world.fdTables.delete(id);
  for (const entry of table.fds.values()) putFdRef(tx, entry.file, event, families);
}

/** A table of its own for the process (execve, close_range with UNSHARE); its id. */
export function unshareFdTable(tx: Tx, process: Process, event: Event, families: Families): number {
  const table = tx.world.fdTables.get(process.fdTable);
  if (table === undefined || table.users === 1) return process.fdTable;
  const own = copyFdTable(tx, table.id);
  putFdTable(tx, table.id, event, families);
  const now = tx.world.processes.get(process.pid);
  if (now !== undefined) tx.world.processes.set(now.pid, Object.freeze({ ...now, fdTable: own }));
  return own;
}

/** Writes an entry at a number that is free, and counts the reference. */
export function setFd(tx: Tx, tableId: number, entry: FdEntry): void {
  tx.openTable(tx.world.fdTables, tableId, 'fds').set(entry.fd, entry);
  addFdRef(tx, entry.file);
}

/** Says that fds exist which the recording never showed. */
export function markFdsIncomplete(tx: Tx, tableId: number): void {
  const table = tx.world.fdTables.get(tableId);
  if (table?.complete) tx.world.fdTables.set(tableId, Object.freeze({ ...table, complete: false }));
}

/** Sets or clears close-on-exec of an fd. */
export function setCloexec(tx: Tx, tableId: number, fd: number, cloexec: boolean): void {
  const entry = tx.world.fdTables.get(tableId)?.fds.get(fd);
  if (entry === undefined || entry.cloexec === cloexec) return;
  tx.openTable(tx.world.fdTables, tableId, 'fds').set(fd, Object.freeze({ ...entry, cloexec }));
}
