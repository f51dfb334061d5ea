import type { Event } from '../../core/event.js';
import { OrderedMap } from '../../core/ordered-map.js';
import type { U64 } from '../../core/u64.js';
import type { Families } from '../family.js';
import { addVmaRef, putVmaRef } from '../files/open-files.js';
import type { Tx } from '../tx.js';
import { type AddressSpace, VMA_DONTFORK, type Vma } from './state.js';

/**
 * The life of address spaces (the kernel's `mm_struct`): made by exec, or for a process whose beginning
 * was not recorded; copied or shared by clone; gone with the last process that uses it (kernel/fork.c).
 *
 * A copy costs O(1) plus the distinct files mapped: both spaces hold the same frozen tables until one of
 * them writes. A space holds one reference to each file that it maps, however many VMAs do so.
 */

/** A space without VMAs, with one user. */
export function newSpace(tx: Tx, complete: boolean): AddressSpace {
  const space: AddressSpace = Object.freeze({
    id: tx.nextId('spaces'),
    users: 1,
    complete,
    vmas: tx.adopt(OrderedMap.numeric<U64, Vma>()),
    emptied: tx.adopt(OrderedMap.numeric<U64, { start: U64; last: U64 }>()),
    fileVmas: tx.adopt(OrderedMap.numeric<number, number>()),
    dontForkVmas: 0,
    heapStart: null,
    heapEnd: null,
    firstPlacedLast: null,
    pins: tx.adopt(OrderedMap.numeric<number, never>()),
    losses: tx.adopt(OrderedMap.numeric<U64, never>()),
  });
  tx.world.spaces.set(space.id, space);
  return space;
}

/** One more process uses the space (CLONE_VM). */
export function shareSpace(tx: Tx, id: number): number {
  const space = tx.world.spaces.get(id);
  if (space === undefined) return newSpace(tx, false).id;
  tx.world.spaces.set(id, Object.freeze({ ...space, users: space.users + 1 }));
  return id;
}

/**
 * The copy that fork makes: all VMAs but those with MADV_DONTFORK. DMA mappings stay with the pages of the
 * parent, so the copy has no pins (a pinned anonymous page is copied at once, `copy_present_page`).
 */
export function forkSpace(tx: Tx, id: number, event: Event, families: Families): number {
  const parent = tx.world.spaces.get(id);
  if (parent === undefined) return newSpace(tx, false).id;
  // Both records share the frozen tables; the first write on either side opens a clone.
  const child: AddressSpace = Object.freeze({
    ...parent,
    id: tx.nextId('spaces'),
    users: 1,
    vmas: parent.vmas.freeze(),
    emptied: parent.emptied.freeze(),
    fileVmas: parent.fileVmas.freeze(),
    pins: tx.adopt(OrderedMap.numeric<number, never>()),
    losses: tx.adopt(OrderedMap.numeric<U64, never>()),
  });
  tx.world.spaces.set(child.id, child);
  for (const file of child.fileVmas.keys()) addVmaRef(tx, file);
  if (child.dontForkVmas > 0) dropDontFork(tx, child, event, families);
  return child.id;
}

function dropDontFork(tx: Tx, child: AddressSpace, event: Event, families: Families): void {
  const gone: Vma[] = [];
  for (const vma of child.vmas.values()) if (vma.traits & VMA_DONTFORK) gone.push(vma);
  const vmas = tx.openTable(tx.world.spaces, child.id, 'vmas');
  for (const vma of gone) {
    vmas.delete(vma.start);
    if (vma.file !== 0) unmapFile(tx, child.id, vma.file, event, families);
  }
  const now = tx.world.spaces.get(child.id);
  if (now !== undefined) tx.world.spaces.set(child.id, Object.freeze({ ...now, dontForkVmas: 0 }));
}

/** A process stops using the space (exit, exec); with its last user the mappings go. */
export function putSpace(tx: Tx, id: number, event: Event, families: Families): void {
  const space = tx.world.spaces.get(id);
  if (space === undefined) return;
  if (space.users > 1) {
    tx.world.spaces.set(id, Object.freeze({ ...space, users: space.users - 1 }));
    return;
  }
  tx.world.spaces.delete(id);
  tx.world.spaceLocked.delete(id);
  for (const file of space.fileVmas.keys()) putVmaRef(tx, file, event, families);
}

/** One more VMA of the space maps the file. */
export function mapFile(tx: Tx, spaceId: number, file: number): void {
  const counts = tx.openTable(tx.world.spaces, spaceId, 'fileVmas');
  const before = counts.get(file) ?? 0;
  counts.set(file, before + 1);
  if (before === 0) addVmaRef(tx, file);
}

/** One VMA less maps the file; the last one of all spaces may release it. */
export function unmapFile(tx: Tx, spaceId: number, file: number, event: Event, families: Families): void {
  const counts = tx.openTable(tx.world.spaces, spaceId, 'fileVmas');
  const before = counts.get(file) ?? 0;
  if (before > 1) counts.set(file, before - 1);
  else if (counts.delete(file)) putVmaRef(tx, file, event, families);
}
