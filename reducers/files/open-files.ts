import type { Event } from '../../core/event.js';
import type { U64 } from '../../core/u64.js';
import type { Families } from '../family.js';
import type { Tx } from '../tx.js';
import type { FileKind, OpenFile, Process } from './state.js';

/**
 * Open file descriptions and who keeps them alive.
 *
 * The kernel's `struct file` has one counter; here it is split by holder, because each holder is
 * maintained by another reducer: fd tables (`fdRefs`), address spaces that map it (`vmaRefs`) and IOASes that map its
 * pages (`pageRefs`). When all are zero the family's `release` runs, once, and the record is gone (fs/file_table.c
 * `__fput`). IOASes let go while objects come apart; as in the kernel, that takes effect when the call is over.
 */

/** What the maker of a file says about it; the rest starts at zero. */
export interface NewFile {
  readonly kind: FileKind;
  readonly path: string;
  readonly object?: number;
  readonly objectKey?: string;
  readonly flags?: number;
  /** False when the file was open before the recording began. Default true. */
  readonly complete?: boolean;
  readonly sizeBytes?: U64 | null;
}

/** Puts a file without references into the table; the caller adds the first one. */
export function makeFile(tx: Tx, made: NewFile, event: Event): OpenFile {
  const file: OpenFile = Object.freeze({
    id: tx.nextId('files'),
    kind: made.kind,
    path: made.path,
    object: made.object ?? 0,
    objectKey: made.objectKey ?? '',
    flags: made.flags ?? 0,
    openedAt: event.seq,
    complete: made.complete ?? true,
    fdRefs: 0,
    vmaRefs: 0,
    pageRefs: 0,
    sizeBytes: made.sizeBytes ?? null,
  });
  tx.world.files.set(file.id, file);
  return file;
}

/** Lets the family of the file make its object; the file as it is then. */
export function announceFile(
  tx: Tx,
  file: OpenFile,
  event: Event,
  process: Process,
  families: Families | undefined,
): OpenFile {
  const open = families?.[file.kind]?.open;
  if (open === undefined) return file;
  const made = open(tx, file, event, process);
  const now = tx.world.files.get(file.id) ?? made;
  const { kind, object, objectKey } = made;
  if (now.kind === kind && now.object === object && now.objectKey === objectKey) return now;
  const joined = Object.freeze({ ...now, kind, object, objectKey });
  tx.world.files.set(file.id, joined);
  return joined;
}

/** A file of unknown kind showed by a call which it is: it gets its object now. Other kinds stay as they are. */
export function identifyFile(
  tx: Tx,
  file: OpenFile,
  kind: FileKind,
  families: Families,
  event: Event,
  process: Process,
  path = file.path,
): OpenFile {
  const now = tx.world.files.get(file.id);
  if (now === undefined) return file;
  if (now.kind !== 'unknown') return now;
  const named = Object.freeze({ ...now, kind, path });
  tx.world.files.set(named.id, named);
  return announceFile(tx, named, event, process, families);
}

type Holder = 'fdRefs' | 'vmaRefs' | 'pageRefs';

function addRef(tx: Tx, id: number, holder: Holder): void {
  const file = tx.world.files.get(id);
  if (file !== undefined) tx.world.files.set(id, Object.freeze({ ...file, [holder]: file[holder] + 1 }));
}

function putRef(tx: Tx, id: number, holder: Holder, event: Event, families: Families | undefined): void {
  const file = tx.world.files.get(id);
  if (file === undefined || file[holder] === 0) return;
  const left = Object.freeze({ ...file, [holder]: file[holder] - 1 });
  tx.world.files.set(id, left);
  if (left.fdRefs > 0 || left.vmaRefs > 0 || left.pageRefs > 0) return;
  families?.[left.kind]?.release?.(tx, left, event);
  tx.world.files.delete(id);
}

/** An fd table entry now refers to the file. */
export function addFdRef(tx: Tx, id: number): void {
  addRef(tx, id, 'fdRefs');
}

/** An fd table entry is gone. */
export function putFdRef(tx: Tx, id: number, event: Event, families: Families | undefined): void {
  putRef(tx, id, 'fdRefs', event, families);
}

/** An address space maps the file for the first time. */
export function addVmaRef(tx: Tx, id: number): void {
  addRef(tx, id, 'vmaRefs');
}

/** An address space does not map the file any more. */
export function putVmaRef(tx: Tx, id: number, event: Event, families: Families | undefined): void {
  putRef(tx, id, 'vmaRefs', event, families);
}

/** An IOAS maps memory by the file. */
export function addPagesRef(tx: Tx, id: number): void {
  addRef(tx, id, 'pageRefs');
}

/** Ends what {@link addPagesRef} began, for all files that the event let go of (`Tx.letGo`). */
export function putPagesRefs(tx: Tx, event: Event, families: Families): void {
  for (let id = tx.takeLetGo(); id !== undefined; id = tx.takeLetGo()) putRef(tx, id, 'pageRefs', event, families);
}
