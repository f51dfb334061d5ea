import type { Event } from '../../core/event.js';
import type { Families } from '../family.js';
import type { Tx } from '../tx.js';
import { kindOfPath, pathIdentifies, plainPath } from './kinds.js';
import { announceFile, identifyFile, makeFile, putFdRef, type NewFile } from './open-files.js';
import { markFdsIncomplete, setFd } from './processes.js';
import type { FdEntry, OpenFile, Process } from './state.js';

/**
 * From an fd to the file behind it, and back.
 *
 * The table is what the recorded calls made of it. The recorder's own look at the fd (the path of strace
 * `-y`, read from /proc at the entry of the call) is a measurement: where it contradicts the table, a call that
 * changed the table was not recorded, and the measurement wins.
 */

export { processOf } from './processes.js';

/** A file for an fd that a call returned or stored. `object` 0 lets the family make its object. */
export interface InstalledFile extends NewFile {
  readonly cloexec: boolean;
}

/**
 * The file that `fd` of the process stands for. `path` is the recorder's annotation, or ''.
 * An fd that the table lacks becomes a file of unknown past, unless the recording says that it is none (EBADF
 * without annotation): then, and for negative numbers, undefined.
 */
export function fileOfFd(
  tx: Tx,
  process: Process,
  fd: number,
  path: string,
  event: Event,
  families: Families,
): OpenFile | undefined {
  const entry = tx.world.fdTables.get(process.fdTable)?.fds.get(fd);
  const file = entry === undefined ? undefined : tx.world.files.get(entry.file);
  if (file !== undefined && (path === '' || path === file.path)) return file;
  return fileByAnnotation(tx, process, fd, path, event, families, entry, file);
}

function fileByAnnotation(
  tx: Tx,
  process: Process,
  fd: number,
  path: string,
  event: Event,
  families: Families,
  entry: FdEntry | undefined,
  file: OpenFile | undefined,
): OpenFile | undefined {
  const kind = kindOfPath(path);
  if (file !== undefined && kind !== undefined) {
    if (file.kind === 'unknown') return identifyFile(tx, file, kind, families, event, process, path);
    if (!contradicts(file, path)) return file.path === '' ? named(tx, file, path) : file;
  }
  if (kind === undefined && (fd < 0 || !showsOpenFd(event))) return undefined;
  markFdsIncomplete(tx, process.fdTable);
  const seen = { kind: kind ?? 'unknown', path, complete: false, cloexec: entry?.cloexec ?? false } as const;
  return installFd(tx, process, fd, seen, event, families);
}

/** A file that was made without a name gets the one that the recorder prints. */
function named(tx: Tx, file: OpenFile, path: string): OpenFile {
  const now = Object.freeze({ ...file, path });
  tx.world.files.set(now.id, now);
  return now;
}

/** Whether the annotation names another file than the table does. */
function contradicts(file: OpenFile, path: string): boolean {
  // A kind that a call showed, other than the path says, stays.
  if (kindOfPath(path) !== file.kind) return kindOfPath(path) !== kindOfPath(file.path);
  return (
    pathIdentifies(file.kind, path) && pathIdentifies(file.kind, file.path) && plainPath(path) !== plainPath(file.path)
  );
}

/** A call that got past the look-up of its fd proves that the fd was open. */
function showsOpenFd(event: Event): boolean {
  return 'errno' in event && event.ret !== null && event.errno !== 'EBADF';
}

/** The lowest free fd, which the kernel gives out next; undefined where the table is not fully known. */
export function predictNewFd(tx: Tx, process: Process): number | undefined {
  return tx.world.fdTables.get(process.fdTable)?.complete ? lowestFreeFd(tx, process) : undefined;
}

/** The lowest fd that is free for all that was recorded. */
export function lowestFreeFd(tx: Tx, process: Process): number {
  let free = 0;
  tx.world.fdTables.get(process.fdTable)?.fds.forRange(0, Number.MAX_SAFE_INTEGER, (entry) => {
    if (entry.fd !== free) return false;
    free++;
    return undefined;
  });
  return free;
}

/**
 * Makes the file behind a new fd and enters it; an entry that was still there is closed first, since
 * its closing was not recorded. With `families` the family makes its object, unless `made` brings one.
 */
export function installFd(
  tx: Tx,
  process: Process,
  fd: number,
  made: InstalledFile,
  event: Event,
  families?: Families,
): OpenFile {
  closeFd(tx, process, fd, event, families);
  const { cloexec, ...about } = made;
  const file = makeFile(tx, about, event);
  setFd(tx, process.fdTable, Object.freeze({ fd, file: file.id, cloexec }));
  const counted = tx.world.files.get(file.id) ?? file;
  const hasObject = counted.object !== 0 || counted.objectKey !== '';
  return hasObject ? counted : announceFile(tx, counted, event, process, families);
}

/** Enters one more fd for a file that is open already (dup, SCM_RIGHTS within the recording). */
export function linkFd(
  tx: Tx,
  process: Process,
  fd: number,
  file: number,
  cloexec: boolean,
  event: Event,
  families?: Families,
): void {
  // The new reference is counted before the old one goes: both may be to the same file.
  const before = tx.world.fdTables.get(process.fdTable)?.fds.get(fd);
  setFd(tx, process.fdTable, Object.freeze({ fd, file, cloexec }));
  if (before !== undefined) putFdRef(tx, before.file, event, families);
}

/** Removes the fd; its file is released with its last reference. False when there is no such entry. */
export function closeFd(tx: Tx, process: Process, fd: number, event: Event, families?: Families): boolean {
  const entry = tx.world.fdTables.get(process.fdTable)?.fds.get(fd);
  if (entry === undefined) return false;
  tx.openTable(tx.world.fdTables, process.fdTable, 'fds').delete(fd);
  putFdRef(tx, entry.file, event, families);
  return true;
}
