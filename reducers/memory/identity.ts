import type { Event } from '../../core/event.js';
import { carve, type Interval, overlapping, type RangeMap, rangeAt } from '../../core/interval.js';
import { add, max, min, sub, type U64 } from '../../core/u64.js';
import { plainPath } from '../files/kinds.js';
import type { Tx } from '../tx.js';
import { MADV_FREE, MAP_SHARED } from './flags.js';
import { lostRanges } from './lost.js';
import { pinRemove, pinsOver } from './pins.js';
import type { AddressSpace, Loss, Vma } from './state.js';

/**
 * Which memory an address shows, now or when its pages were pinned.
 *
 * Pinned pages stay what they are while the address comes to mean other memory: after munmap and mmap, MADV_DONTNEED,
 * mremap. So that a pin can still be compared with an address, a space keeps for the ranges that somebody
 * pinned (`losses`) when their memory was lost last, and what it was. A range that nobody pinned costs nothing.
 *
 * Two addresses show the same memory when key and offset are equal: the same address of one process, the same place of
 * one file, the same address of one piece of shared anonymous memory. Key '' is memory that the recording
 * does not tell.
 */
export interface MemoryRun extends Interval {
  readonly key: string;
  /** What `start` shows of it. */
  readonly offset: U64;
}

const NEVER = -1;

/** The identity of a memory file: itself, or for a file with a name its path, so that a second open is the same. */
export function fileKey(tx: Tx, fileId: number): string {
  const file = tx.world.files.get(fileId);
  return file === undefined || file.kind === 'memfd' || file.path === ''
    ? `file:${fileId}`
    : `path:${plainPath(file.path)}`;
}

function keyOf(tx: Tx, spaceId: number, vma: Vma): string {
  if ((vma.flags & MAP_SHARED) === 0) return `space:${spaceId}`;
  return vma.file === 0 ? `shared:${vma.since}` : fileKey(tx, vma.file);
}

function offsetIn(vma: Vma, address: U64): U64 {
  const ofFile = vma.file !== 0 && (vma.flags & MAP_SHARED) !== 0;
  return ofFile ? add(vma.offset, sub(address, vma.start)) : address;
}

/**
 * The memory of `start..last` of a space, in order and without a gap.
 *
 * @param since the event that pinned it, or undefined for what the addresses show now
 */
export function memoryRuns(tx: Tx, spaceId: number, start: U64, last: U64, since?: number): MemoryRun[] {
  const runs: MemoryRun[] = [];
  const space = tx.world.spaces.get(spaceId);
  let at = start;
  for (;;) {
    const run = runAt(tx, space, at, last, since);
    runs.push(run);
    if (run.last >= last) return runs;
    at = add(run.last, 1);
  }
}

function runAt(tx: Tx, space: AddressSpace | undefined, at: U64, last: U64, since: number | undefined): MemoryRun {
  if (space === undefined) return { start: at, last, key: '', offset: 0 };
  let end = last;
  if (since !== undefined && space.losses.size > 0) {
    const loss = rangeAt(space.losses, at);
    if (loss !== undefined) {
      end = min(end, loss.last);
      // Lost more than once since: what it was the first time is not kept.
      const known = loss.before <= since;
      if (loss.since > since)
        return { start: at, last: end, key: known ? loss.key : '', offset: add(loss.offset, sub(at, loss.start)) };
    } else {
      const next = space.losses.higher(at);
      if (next !== undefined) end = min(end, sub(next.start, 1));
    }
  }
  const { key, offset, last: currentLast } = current(tx, space, at, end);
  return { start: at, last: currentLast, key, offset };
}

function current(tx: Tx, space: AddressSpace, at: U64, last: U64): { last: U64; key: string; offset: U64 } {
  const vma = rangeAt(space.vmas, at);
  if (vma !== undefined) return { last: min(last, vma.last), key: keyOf(tx, space.id, vma), offset: offsetIn(vma, at) };
  const next = space.vmas.higher(at);
  return { last: next === undefined ? last : min(last, sub(next.start, 1)), key: '', offset: at };
}

// ---- what is kept of memory that was lost -------------------------------------------------------------------

function trimLoss(loss: Loss, start: U64, last: U64): Loss {
  return Object.freeze({ ...loss, start, last, offset: add(loss.offset, sub(start, loss.start)) });
}

/** From now on, losses in this range are kept: somebody pinned memory in it. */
export function watchMemory(tx: Tx, spaceId: number, start: U64, last: U64): void {
  const space = tx.world.spaces.get(spaceId);
  if (space === undefined) return;
  const gaps: Interval[] = [];
  let at = start;
  for (const loss of overlapping(space.losses, start, last)) {
    if (loss.start > at) gaps.push({ start: at, last: sub(loss.start, 1) });
    at = add(loss.last, 1);
    if (loss.last >= last) break;
  }
  if (at <= last) gaps.push({ start: at, last });
  if (gaps.length === 0) return;
  const losses = tx.openTable(tx.world.spaces, spaceId, 'losses');
  for (const gap of gaps)
    losses.set(gap.start, Object.freeze({ ...gap, since: NEVER, before: NEVER, key: '', offset: gap.start }));
}

/** How many pins one search hands over; the search is repeated until none is left. */
const PINS_AT_ONCE = 256;

/**
 * Before an event changes a space: keeps what the pinned memory was that the event takes from it, and drops the pins from
 * the index of live ones.
 */
export function loseMemory(tx: Tx, space: AddressSpace, event: Event): void {
  if (space.pins.size === 0 && space.losses.size === 0) return;
  for (const lost of lostRanges(space, event)) {
    const dropped = dropPins(tx, space.id, lost);
    // MADV_FREE leaves pinned pages where they are: only memory that nobody refers to is given up.
    if (event.kind === 'madvise' && event.advice === MADV_FREE) continue;
    for (const range of dropped) watchMemory(tx, space.id, range.start, range.last);
    const now = tx.world.spaces.get(space.id) ?? space;
    const hit = overlapping(now.losses, lost.start, lost.last);
    if (hit.length === 0) continue;
    const losses = tx.openTable(tx.world.spaces, space.id, 'losses');
    for (const loss of hit) keepLoss(tx, now, losses, loss, lost.start, lost.last, lost.how, event.seq);
  }
}

function dropPins(tx: Tx, spaceId: number, lost: Interval): Interval[] {
  const dropped: Interval[] = [];
  for (;;) {
    const space = tx.world.spaces.get(spaceId);
    const pins = space === undefined ? [] : pinsOver(space, lost.start, lost.last, PINS_AT_ONCE);
    for (const pin of pins) {
      pinRemove(tx, spaceId, pin.id, pin.since);
      dropped.push(pin);
    }
    if (pins.length < PINS_AT_ONCE) return dropped;
  }
}

function keepLoss(
  tx: Tx,
  space: AddressSpace,
  losses: RangeMap<Loss>,
  loss: Loss,
  start: U64,
  last: U64,
  how: string,
  seq: number,
): void {
  const from = max(loss.start, start);
  const to = min(loss.last, last);
  carve(losses, from, to, trimLoss);
  for (let at = from; ; ) {
    const now = current(tx, space, at, to);
    // Where nothing was since the last loss, nothing is lost again.
    const stays = now.key === '' && loss.since !== NEVER;
    losses.set(at, stays ? trimLoss(loss, at, now.last) : lossOf(now, at, loss.since, how, seq));
    if (now.last >= to) return;
    at = add(now.last, 1);
  }
}

/** Moved memory lives on at another address; discarded private memory, and what was cut out of a file, nowhere. */
function lossOf(now: { last: U64; key: string; offset: U64 }, at: U64, before: number, how: string, seq: number): Loss {
  const gone = how === 'discarded' || now.key.startsWith('space:');
  const key = how === 'moved' ? '' : gone ? `gone:${seq}` : now.key;
  return Object.freeze({ start: at, last: now.last, since: seq, before, key, offset: now.offset });
}
