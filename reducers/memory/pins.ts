import { alignDown, div, type U64 } from '../../core/u64.js';
import type { Tx } from '../tx.js';
import { PAGE_BYTES } from './flags.js';
import type { AddressSpace, Pin } from './state.js';

/**
 * Which live DMA mappings hold the memory at a user address.
 *
 * Ranges may overlap and repeat (one buffer mapped at several IOVAs), so this is no range map. Pins are sorted
 * into size classes: class c holds those of 2^c to 2^(c+1)-1 pages. A pin of class c that touches
 * page p starts in the 2^(c+1)-1 pages up to p, so one search in each class that is in use finds them all.
 * Pins with equal class and start form a doubly linked list by id, which makes adding and removing O(log n)
 * however often one buffer is mapped.
 *
 * The owner of a DMA mapping adds its pin when the pages are taken and removes it when they are given
 * back. The memory reducer drops a pin from the index as soon as memory under it is unmapped or
 * discarded: from then on the address means other memory than the device sees.
 */

/** A DMA mapping as its owner states it: user addresses, inclusive, and how to find the mapping again. */
export interface NewPin {
  readonly start: U64;
  readonly last: U64;
  /** e.g. `type1:3` or `ioas:1:2`. */
  readonly owner: string;
  /** The mapping's IOVA. */
  readonly key: U64;
  /** `seq` of the event that made the mapping. */
  readonly since: number;
}

const CLASS_SPAN = 2 ** 44;
/** User addresses end at 2^56 (five-level page tables); nothing above can be unmapped by a process. */
const USER_END = 2 ** 56;
/**
 * How many pins of one class, which start early enough to touch the range but end before it, a search passes
 * over. Disjoint buffers make at most two; only staggered overlapping ones make more.
 */
const MAX_MISSES = 1024;

/**
 * Takes up a pin; gives its id for {@link pinRemove}, or 0 where there is nothing to index (the space is
 * gone, or the addresses are none of a process).
 */
export function pinAdd(tx: Tx, spaceId: number, made: NewPin): number {
  if (!tx.world.spaces.has(spaceId) || made.last < made.start || made.last >= USER_END) return 0;
  const id = tx.nextId('pins');
  const start = alignDown(made.start, PAGE_BYTES);
  const head = headKey(start, made.last);
  const heads = tx.openTable(tx.world.spaces, spaceId, 'pinHeads');
  const pins = tx.openTable(tx.world.spaces, spaceId, 'pins');
  const next = heads.get(head) ?? 0;
  const { last, owner, key, since } = made;
  pins.set(id, Object.freeze({ id, start, last, owner, key, since, next, prev: 0 }));
  if (next !== 0) relink(pins, next, 'prev', id);
  heads.set(head, id);
  return id;
}

/** Forgets a pin by its id. No-op for 0, and for one that the index dropped already. */
export function pinRemove(tx: Tx, spaceId: number, id: number): void {
  const pin = id === 0 ? undefined : tx.world.spaces.get(spaceId)?.pins.get(id);
  if (pin === undefined) return;
  const pins = tx.openTable(tx.world.spaces, spaceId, 'pins');
  pins.delete(id);
  if (pin.next !== 0) relink(pins, pin.next, 'prev', pin.prev);
  if (pin.prev !== 0) {
    relink(pins, pin.prev, 'next', pin.next);
    return;
  }
  const heads = tx.openTable(tx.world.spaces, spaceId, 'pinHeads');
  const head = headKey(pin.start, pin.last);
  if (pin.next === 0) heads.delete(head);
  else heads.set(head, pin.next);
}

/** Pins that touch `start..last`, at most `limit`, in order of size class and start, newest first at one start. */
export function pinsOver(space: AddressSpace, start: U64, last: U64, limit: number): Pin[] {
  const found: Pin[] = [];
  if (space.pins.size === 0 || start >= USER_END) return found;
  const firstPage = pageOf(start);
  const lastPage = last >= USER_END ? CLASS_SPAN - 1 : pageOf(last);
  let key = space.pinHeads.firstKey();
  while (key !== undefined && found.length < limit) {
    const sizeClass = Math.floor(key / CLASS_SPAN);
    collect(space, sizeClass, firstPage, lastPage, limit, found);
    key = nextClassKey(space, sizeClass);
  }
  return found;
}

function collect(
  space: AddressSpace,
  sizeClass: number,
  firstPage: number,
  lastPage: number,
  limit: number,
  found: Pin[],
): void {
  const base = sizeClass * CLASS_SPAN;
  const lowest = Math.max(0, firstPage - 2 ** (sizeClass + 1) + 2);
  let misses = 0;
  space.pinHeads.forRange(base + lowest, base + lastPage, (head) => {
    let pin = space.pins.get(head);
    while (pin !== undefined && found.length < limit && misses < MAX_MISSES) {
      if (pageOf(pin.last) >= firstPage) found.push(pin);
      else misses++;
      pin = pin.next === 0 ? undefined : space.pins.get(pin.next);
    }
    return found.length < limit && misses < MAX_MISSES ? undefined : false;
  });
}

function nextClassKey(space: AddressSpace, sizeClass: number): number | undefined {
  let key: number | undefined;
  space.pinHeads.forRange((sizeClass + 1) * CLASS_SPAN, Number.MAX_SAFE_INTEGER, (_head, at) => {
    key = at;
    return false;
  });
  return key;
}

function relink(pins: AddressSpace['pins'], id: number, side: 'next' | 'prev', to: number): void {
  const pin = pins.get(id);
  if (pin !== undefined) pins.set(id, Object.freeze({ ...pin, [side]: to }));
}

/** Only for addresses below {@link USER_END}, whose page numbers are plain numbers. */
function pageOf(address: U64): number {
  return Number(div(address, PAGE_BYTES));
}

function headKey(start: U64, last: U64): number {
  const first = pageOf(start);
  const pages = pageOf(last) - first + 1;
  return log2Floor(pages) * CLASS_SPAN + first;
}

function log2Floor(value: number): number {
  return value < 2 ** 32 ? 31 - Math.clz32(value) : 63 - Math.clz32(Math.floor(value / 2 ** 32));
}
