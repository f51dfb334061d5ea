import type { Event, ExecEvent, ExitEvent, ForkEvent } from '../../core/event.js';
import { and, type U64 } from '../../core/u64.js';
import type { Families } from '../family.js';
import { replaceRange } from '../memory/ranges.js';
import { forkSpace, newSpace, putSpace, shareSpace } from '../memory/spaces.js';
import type { Vma } from '../memory/state.js';
import type { Tx } from '../tx.js';
import { CLONE_NEWUSER, type Creds, credsAfterExec, inNewNamespace, isTold } from './creds.js';
import { closeFd, installFd, predictNewFd } from './fds.js';
import {
  addThread,
  copyFdTable,
  dropProcess,
  forgetThread,
  knownProcessOf,
  makeProcess,
  processOf,
  setFd,
  shareFdTable,
  unshareFdTable,
} from './processes.js';
import type { FdEntry, Process } from './state.js';

/**
 * fork, clone, execve and the end of threads and processes (kernel/fork.c, fs/exec.c, kernel/exit.c).
 *
 * Importers hand a fork over before the first event of its child. Where a recording made that
 * impossible (only finished calls were printed, files of several threads were joined by time), the
 * child came from nowhere first, with tables of its own; when the fork returns later it is given what it should
 * have had: what it made itself stays, the rest is its parent's.
 */

const CLONE_VM = 0x100;
const CLONE_FILES = 0x400;
const CLONE_PIDFD = 0x1000;
const CLONE_THREAD = 0x1_0000;

/** A thread or process was made; `event.ret` is its thread id in the caller's view. */
export function forked(tx: Tx, event: ForkEvent, families: Families): void {
  const parent = processOf(tx, event);
  const tid = event.ret;
  if (typeof tid !== 'number' || tid <= 0) return;
  const early = replaceStale(tx, tid, parent, event, families);
  if (has(event.flags, CLONE_PIDFD)) addPidfd(tx, parent, event);
  if (has(event.flags, CLONE_THREAD)) {
    if (early !== undefined) mergeTables(tx, early, parent.fdTable, parent.space, event, families);
    if (tx.world.threads.get(tid) !== parent.pid) addThread(tx, parent.pid, tid, event.seq);
    return;
  }
  const space = has(event.flags, CLONE_VM)
    ? shareSpace(tx, parent.space)
    : forkSpace(tx, parent.space, event, families);
  const fdTable = has(event.flags, CLONE_FILES) ? shareFdTable(tx, parent.fdTable) : copyFdTable(tx, parent.fdTable);
  if (early !== undefined) mergeTables(tx, early, fdTable, space, event, families);
  const creds = credsOfChild(parent, early, event);
  makeProcess(tx, tid, event.seq, space, fdTable, false, { creds, memlock: parent.memlock });
  addThread(tx, tid, tid, event.seq);
}

function has(flags: U64, flag: number): boolean {
  return and(flags, flag) !== 0;
}

/** What an early child's own calls told of it counts; the rest is its parent's. */
function credsOfChild(parent: Process, early: Process | undefined, event: ForkEvent): Creds {
  if (early !== undefined && isTold(early.creds)) return early.creds;
  return has(event.flags, CLONE_NEWUSER) ? inNewNamespace(parent.creds, event.seq) : parent.creds;
}

function addPidfd(tx: Tx, parent: Process, event: ForkEvent): void {
  const fd = predictNewFd(tx, parent);
  if (fd !== undefined) installFd(tx, parent, fd, { kind: 'other', path: '', cloexec: true }, event);
}

/**
 * The thread id may be in use: by the child itself, whose first events came before the fork (given back, for
 * merging), or by a process whose end was not recorded, which is ended now.
 */
function replaceStale(tx: Tx, tid: number, parent: Process, event: ForkEvent, families: Families): Process | undefined {
  const pid = tx.world.threads.get(tid);
  if (pid === undefined || pid === parent.pid) return undefined;
  const known = tx.world.processes.get(pid);
  if (known === undefined) return undefined;
  if (known.pid === tid && known.fromNowhere && known.since >= event.enteredAt) return known;
  if (known.pid === tid || known.tids.size <= 1) dropProcess(tx, known, event, families);
  else endThread(tx, known, tid);
  return undefined;
}

/** Moves into the given tables what an early child made by its own calls, and drops the child's own tables. */
function mergeTables(tx: Tx, early: Process, fdTable: number, space: number, event: Event, families: Families): void {
  const own: FdEntry[] = [];
  for (const entry of tx.world.fdTables.get(early.fdTable)?.fds.values() ?? []) {
    if (tx.world.files.get(entry.file)?.complete) own.push(entry);
  }
  for (const entry of own) {
    if (!tx.world.fdTables.get(fdTable)?.fds.has(entry.fd)) setFd(tx, fdTable, entry);
  }
  const vmas: Vma[] = [...(tx.world.spaces.get(early.space)?.vmas.values() ?? [])];
  for (const vma of vmas) {
    const target = tx.world.spaces.get(space);
    if (target !== undefined) replaceRange(tx, target, vma.start, vma.last, [vma], false, event, families);
  }
  dropProcess(tx, early, event, families);
}

/**
 * execve: other threads end and the caller takes the process id; the fd table becomes its own and
 * loses its close-on-exec entries; the memory is new.
 */
export function execed(tx: Tx, event: ExecEvent, families: Families): void {
  const process = processOf(tx, event);
  if (event.ret !== 0) return;
  // Its first event: the process was made just now, with a new space and its three inherited fds.
  if (process.fromNowhere && process.since === event.seq) return;
  const fdTable = unshareFdTable(tx, process, event, families);
  const own = tx.world.processes.get(process.pid) ?? process;
  const closing: number[] = [];
  for (const entry of tx.world.fdTables.get(fdTable)?.fds.values() ?? []) if (entry.cloexec) closing.push(entry.fd);
  const space = newSpace(tx, true);
  const creds = credsAfterExec(own.creds, event.seq);
  tx.world.processes.set(own.pid, Object.freeze({ ...own, space: space.id, creds, limitsSince: event.seq }));
  putSpace(tx, own.space, event, families);
  for (const fd of closing) closeFd(tx, own, fd, event, families);
  keepOneThread(tx, own.pid);
}

function keepOneThread(tx: Tx, pid: number): void {
  const process = tx.world.processes.get(pid);
  if (process === undefined || (process.tids.size === 1 && process.tids.has(pid))) return;
  for (const tid of [...process.tids.keys()]) endThread(tx, process, tid);
  addThread(tx, pid, pid, process.since);
}

/** A thread or a whole process ended. Ends that nothing was recorded of before mean nothing. */
export function exited(tx: Tx, event: ExitEvent, families: Families): void {
  const process = knownProcessOf(tx.world, event);
  if (process === undefined) return;
  if (event.call === 'exit' && process.tids.size > 1) endThread(tx, process, event.tid);
  else dropProcess(tx, process, event, families);
}

function endThread(tx: Tx, process: Process, tid: number): void {
  tx.openTable(tx.world.processes, process.pid, 'tids').delete(tid);
  forgetThread(tx, tid, process.pid);
}
