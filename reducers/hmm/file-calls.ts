import type { IoEvent, OtherEvent } from '../../core/event.js';
import { carve, type Interval, trimmed, unite } from '../../core/interval.js';
import { OrderedMap } from '../../core/ordered-map.js';
import { add, alignDown, sub, type U64 } from '../../core/u64.js';
import type { Families } from '../family.js';
import { fileOfFd, processOf } from '../files/fds.js';
import { resizedFile, takenPart } from '../files/size.js';
import type { OpenFile } from '../files/state.js';
import { fileKey } from '../memory/identity.js';
import { PAGE_BYTES } from '../memory/flags.js';
import { backingOf } from '../memory/substance.js';
import type { Tx } from '../tx.js';
import { Machine } from './machine.js';
import { unmapFile } from './page-cache.js';

/**
 * What calls on memory files do to their pages (mm/shmem.c).
 *
 * - A write brings the pages that it writes to into memory. Pages that fallocate gives to a file are not up to date until somebody
 *   touches them, and no fault maps such neighbours; a read makes none.
 * - ftruncate takes the pages behind the new end from the file and from whoever maps them, copies of private mappings included;
 *   a hole that fallocate punches takes whole pages, and leaves the copies.
 */
export function fileWritten(tx: Tx, event: IoEvent, families: Families): void {
  if (event.ret === null || event.ret === -1 || event.ret === 0 || event.offset === null) return;
  if (!event.call.includes('write')) return;
  const file = fileOfFd(tx, processOf(tx, event), event.fd, event.path, event, families);
  if (file === undefined || !keepsPages(file)) return;
  const start = alignDown(event.offset, PAGE_BYTES);
  const last = add(alignDown(sub(add(event.offset, event.ret), 1), PAGE_BYTES), PAGE_BYTES - 1);
  unite(cacheOf(tx, fileKey(tx, file.id)), start, last);
}

/** Whether a call of its name may take pages from a file; see {@link fileCut}. */
export function mayCutFile({ call }: OtherEvent): boolean {
  return call === 'ftruncate' || call === 'ftruncate64' || call === 'fallocate';
}

/** ftruncate and fallocate; to be called before the file has its new size. */
export function fileCut(tx: Tx, event: OtherEvent, families: Families): void {
  if (event.ret === null || event.ret === -1) return;
  const taken = takenPart(event);
  const file = taken === undefined ? undefined : resizedFile(tx, event, families);
  if (taken === undefined || file === undefined || !keepsPages(file)) return;
  if (taken.evenCopies && file.sizeBytes !== null && file.sizeBytes <= taken.start) return;
  const key = fileKey(tx, file.id);
  const machines = [...tx.world.pageTables.keys()]
    .filter((space) => mapsFile(tx, space, key))
    .flatMap((space) => Machine.of(tx, space, event.seq) ?? []);
  unmapFile(machines, key, taken, taken.evenCopies);
  for (const machine of machines) machine.store(tx);
  if (tx.world.pageCaches.has(key)) carve(cacheOf(tx, key), taken.start, taken.last, trimmed);
}

function keepsPages(file: OpenFile): boolean {
  return backingOf(file) === 'memory';
}

function mapsFile(tx: Tx, space: number, key: string): boolean {
  const files = tx.world.spaces.get(space)?.fileVmas.keys() ?? [];
  for (const file of files) if (fileKey(tx, file) === key) return true;
  return false;
}

function cacheOf(tx: Tx, key: string): OrderedMap<U64, Interval> {
  if (!tx.world.pageCaches.has(key))
    tx.world.pageCaches.set(key, Object.freeze({ key, pages: tx.adopt(OrderedMap.numeric<U64, Interval>()) }));
  return tx.openTable(tx.world.pageCaches, key, 'pages');
}
