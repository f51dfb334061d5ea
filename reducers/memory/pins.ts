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
 * The first pin of a class and start stands in the table under just these two, so the usual pin costs one entry.
 * More of them (one buffer mapped again and again) get ids of their own and form a doubly linked list
 * behind the first, which makes adding and removing O(log n) however many there are. When the first goes before the others,
 * a hollow entry keeps its place.
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

/** Ids from here on are of pins behind a first one; keys of first ones end at 2^50. */
const FOLLOWER = 2 ** 52;
/** `since` of a hollow entry. */
const HOLLOW = -1;

/**
 * Takes up a pin; gives its id for {@link pinRemove}, or 0 where there is nothing to index (the space is
 * gone, or the addresses are none of a process).
 */
export function pinAdd(tx: Tx, spaceId: number, made: NewPin): number {
  if (!tx.world.spaces.has(spaceId) || made.last < made.start || made.last >= USER_END) return 0;
  const { last, owner, key, since } = made;
  const start = alignDown(made.start, PAGE_BYTES);
  const head = headKey(start, last);
  const pins = tx.openTable(tx.world.spaces, spaceId, 'pins');
  const alone: Pin = Object.freeze({ id: head, start, last, owner, key, since, next: 0, prev: 0 });
  if (pins.insert(head, alone)) return head;
  const first = pins.get(head) as Pin;
  if (first.since === HOLLOW) {
    pins.set(head, Object.freeze({ ...alone, next: first.next }));
    return head;
  }
  const id = FOLLOWER + tx.nextId('pins');
  pins.set(id, Object.freeze({ id, start, last, owner, key, since, next: first.next, prev: head }));
  if (first.next !== 0) relink(pins, first.next, 'prev', id);
  relink(pins, head, 'next', id);
  return id;
}

/**
 * Forgets a pin by its id and the event that made it. No-op for id 0, and for a pin that the index dropped
 * already: its id may belong to a newer one by now, which `since` tells.
 */
export function pinRemove(tx: Tx, spaceId: number, id: number, since: number): void {
  const space = id === 0 || since === HOLLOW ? undefined : tx.world.spaces.get(spaceId);
  if (space === undefined) return;
  const pins = tx.openTable(tx.world.spaces, spaceId, 'pins');
  if (id < FOLLOWER && pins.deleteIf(id, (pin) => pin.since === since && pin.next === 0)) return;
  const pin = pins.get(id);
  if (pin === undefined || pin.since !== since) return;
  if (id < FOLLOWER) {
    pins.set(id, Object.freeze({ ...pin, since: HOLLOW }));
    return;
  }
  pins.delete(id);
  if (pin.next !== 0) relink(pins, pin.next, 'prev', pin.prev);
  relink(pins, pin.prev, 'next', pin.next);
  const before = pins.get(pin.prev);
  if (before !== undefined && before.since === HOLLOW && before.next === 0) pins.delete(before.id);
}

/** Pins that touch `start..last`, at most `limit`, in order of size class and start, newest first at one start. */
export function pinsOver(space: AddressSpace, start: U64, last: U64, limit: number): Pin[] {
  const found: Pin[] = [];
  if (space.pins.size === 0 || start >= USER_END) return found;
  const firstPage = pageOf(start);
  const lastPage = last >= USER_END ? CLASS_SPAN - 1 : pageOf(last);
  let key = space.pins.firstKey();
  while (key !== undefined && key < FOLLOWER && found.length < limit) {
    const sizeClass = Math.floor(key / CLASS_SPAN) - 1;
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
  const base = baseOf(sizeClass);
  const lowest = Math.max(0, firstPage - 2 ** (sizeClass + 1) + 2);
  let misses = 0;
  space.pins.forRange(base + lowest, base + lastPage, (head) => {
    let pin: Pin | undefined = head;
    while (pin !== undefined && found.length < limit && misses < MAX_MISSES) {
      if (pageOf(pin.last) < firstPage) misses++;
      else if (pin.since !== HOLLOW) found.push(pin);
      pin = pin.next === 0 ? undefined : space.pins.get(pin.next);
    }
    return found.length < limit && misses < MAX_MISSES ? undefined : false;
  });
}

function nextClassKey(space: AddressSpace, sizeClass: number): number | undefined {
  let key: number | undefined;
  space.pins.forRange(baseOf(sizeClass + 1), FOLLOWER - 1, (_head, at) => {
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
  return baseOf(log2Floor(pages)) + first;
}

/** Where the keys of a size class begin; none begins at 0, which is no id. */
function baseOf(sizeClass: number): number {
  return (sizeClass + 1) * CLASS_SPAN;
}

function log2Floor(value: number): number {
  return value < 2 ** 32 ? 31 - Math.clz32(value) : 63 - Math.clz32(Math.floor(value / 2 ** 32));
}
