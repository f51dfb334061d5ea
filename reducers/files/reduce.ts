import type {
  CloseEvent,
  CloseRangeEvent,
  DupEvent,
  Event,
  FcntlEvent,
  NewFdsEvent,
  OpenEvent,
} from '../../core/event.js';
import { modPow2, type U64 } from '../../core/u64.js';
import type { Families } from '../family.js';
import type { Tx } from '../tx.js';
import { closeFd, fileOfFd, installFd, linkFd } from './fds.js';
import { identified, limited } from './authority.js';
import { kindOfPath } from './kinds.js';
import { execed, exited, forked } from './lifecycle.js';
import { passFiles, receiveFile } from './passing.js';
import { markFdsIncomplete, processOf, setCloexec, unshareFdTable } from './processes.js';
import { followSize } from './size.js';
import type { FileKind } from './state.js';

/**
 * What the calls on file descriptors and processes do to the tables.
 *
 * These calls are followed, not predicted: their results are recorded. A failed one changed nothing, but for
 * close, which gives the number free whatever else it reports, unless it was no fd at all (EBADF; fs/open.c). A call
 * without a recorded result changes nothing certain. Replaced fds (dup2, dup3) are closed after the new
 * entry stands, and files are released with their last reference, as the kernel does.
 */
export function reduceFiles(tx: Tx, event: Event, families: Families): boolean {
  switch (event.kind) {
    case 'open':
      opened(tx, event, families);
      return true;
    case 'close':
      closed(tx, event, families);
      return true;
    case 'closeRange':
      rangeClosed(tx, event, families);
      return true;
    case 'dup':
      duplicated(tx, event, families);
      return true;
    case 'fcntl':
      controlled(tx, event, families);
      return true;
    case 'newFds':
      received(tx, event, families);
      return true;
    case 'fork':
      forked(tx, event, families);
      return true;
    case 'exec':
      execed(tx, event, families);
      return true;
    case 'exit':
      exited(tx, event, families);
      return true;
    case 'prlimit':
      limited(tx, event);
      return true;
    case 'creds':
      identified(tx, event);
      return true;
    case 'io':
    case 'other':
      // Sizes only; the call still belongs to whoever else knows it.
      followSize(tx, event, families);
      return false;
    default:
      return false;
  }
}

const O_CLOEXEC = 0x8_0000;
const FD_CLOEXEC = 1;
const F_DUPFD = 0;
const F_SETFD = 2;
const F_DUPFD_CLOEXEC = 1030;
const CLOSE_RANGE_UNSHARE = 2;
const CLOSE_RANGE_CLOEXEC = 4;
/** fds are C ints. */
const MAX_FD = 0x7fff_ffff;

/** The new fd that a call returned, or undefined when it failed, or the result is none. */
function fdOf(ret: U64 | -1 | null): number | undefined {
  return typeof ret === 'number' && ret >= 0 && ret <= MAX_FD ? ret : undefined;
}

function opened(tx: Tx, event: OpenEvent, families: Families): void {
  const process = processOf(tx, event);
  const fd = fdOf(event.ret);
  if (fd === undefined) return;
  const path = event.retPath === '' ? event.path : event.retPath;
  const kind = kindOfOpen(event, path);
  const cloexec = (event.flags & O_CLOEXEC) !== 0;
  const sizeBytes = event.call === 'memfd_create' ? 0 : null;
  installFd(tx, process, fd, { kind, path, flags: event.flags, cloexec, sizeBytes }, event, families);
}

function kindOfOpen(event: OpenEvent, path: string): FileKind {
  switch (event.call) {
    case 'memfd_create':
      return 'memfd';
    case 'eventfd':
    case 'eventfd2':
      return 'eventfd';
    default:
      return kindOfPath(path) ?? 'other';
  }
}

function closed(tx: Tx, event: CloseEvent, families: Families): void {
  const process = processOf(tx, event);
  if (event.ret === null || (event.ret === -1 && event.errno === 'EBADF')) return;
  if (!closeFd(tx, process, event.fd, event, families)) markFdsIncomplete(tx, process.fdTable);
}

function rangeClosed(tx: Tx, event: CloseRangeEvent, families: Families): void {
  const process = processOf(tx, event);
  if (event.ret !== 0) return;
  if (event.flags & CLOSE_RANGE_UNSHARE) unshareFdTable(tx, process, event, families);
  const now = tx.world.processes.get(process.pid) ?? process;
  const fds: number[] = [];
  const last = event.lastFd < event.firstFd ? MAX_FD : event.lastFd;
  tx.world.fdTables.get(now.fdTable)?.fds.forRange(event.firstFd, last, (entry) => {
    fds.push(entry.fd);
    return undefined;
  });
  for (const fd of fds) {
    if (event.flags & CLOSE_RANGE_CLOEXEC) setCloexec(tx, now.fdTable, fd, true);
    else closeFd(tx, now, fd, event, families);
  }
}

function duplicated(tx: Tx, event: DupEvent, families: Families): void {
  const process = processOf(tx, event);
  const fd = fdOf(event.ret);
  if (fd === undefined) return;
  const file = fileOfFd(tx, process, event.fd, event.path, event, families);
  // dup2 of an fd onto itself does nothing, not even to its flag.
  if (file === undefined || fd === event.fd) return;
  linkFd(tx, process, fd, file.id, (event.flags & O_CLOEXEC) !== 0, event, families);
}

function controlled(tx: Tx, event: FcntlEvent, families: Families): void {
  const process = processOf(tx, event);
  if (event.ret === null || event.ret === -1) return;
  const file = fileOfFd(tx, process, event.fd, event.path, event, families);
  if (file === undefined) return;
  if (event.cmd === F_SETFD) {
    setCloexec(tx, process.fdTable, event.fd, (modPow2(event.arg, 2) & FD_CLOEXEC) !== 0);
  } else if (event.cmd === F_DUPFD || event.cmd === F_DUPFD_CLOEXEC) {
    const fd = fdOf(event.ret);
    if (fd !== undefined) linkFd(tx, process, fd, file.id, event.cmd === F_DUPFD_CLOEXEC, event, families);
  }
}

/** Pipes and sockets are new; files received from a process that was not recorded have a past that nobody knows. */
function received(tx: Tx, event: NewFdsEvent, families: Families): void {
  const process = processOf(tx, event);
  if (event.ret === null || event.ret === -1) return;
  if (event.call.startsWith('send')) return passFiles(tx, event, families);
  const complete = !event.call.startsWith('recv');
  event.fds.forEach((fd, index) => {
    if (fdOf(fd) === undefined) return;
    const path = event.paths[index] ?? '';
    if (!complete && receiveFile(tx, event, fd, path, families)) return;
    const kind = kindOfPath(path) ?? (complete ? 'other' : 'unknown');
    installFd(tx, process, fd, { kind, path, complete, cloexec: event.cloexec }, event, families);
  });
}
