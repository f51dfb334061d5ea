import type { MremapEvent } from '../../core/event.js';
import { add, alignUp, lastOf, sub, type U64 } from '../../core/u64.js';
import type { Families } from '../family.js';
import type { Tx } from '../tx.js';
import { MAP_PRIVATE, MREMAP_DONTUNMAP, PAGE_BYTES, PROT_READ, PROT_WRITE } from './flags.js';
import { emptied, filled } from './emptied.js';
import { type MovedPart, movedParts, targetOf } from './moved.js';
import { piecesOf, replaceRange } from './ranges.js';
import { VMA_ASSUMED, type AddressSpace, type Vma } from './state.js';

/**
 * mremap: the address returned tells which of its forms happened (mm/mremap.c).
 *
 * - same address: the tail is cut off, or the last VMA grows;
 * - another address: what was mapped there goes, the VMA moves with its offset, and takes the new length; where that is the
 *   old one, each VMA of the range moves;
 * - MREMAP_DONTUNMAP: the old VMAs stay, without their pages;
 * - old length 0: a second view of a shared mapping, and the old one stays.
 */
export function remap(tx: Tx, space: AddressSpace, event: MremapEvent, to: U64, families: Families): void {
  const oldBytes = alignUp(event.oldLengthBytes, PAGE_BYTES);
  const newBytes = alignUp(event.newLengthBytes, PAGE_BYTES);
  const from = event.addr;
  const oldLast = lastOf(from, oldBytes);
  const newLast = lastOf(to, newBytes);
  if (newLast === undefined) return;
  if (to === from && oldLast !== undefined) {
    if (newBytes < oldBytes) cutTail(tx, space, add(newLast, 1), oldLast, event, families);
    else if (newBytes > oldBytes)
      placePieces(tx, space, grown(space, from, oldLast, event), from, newLast, event, families);
    return;
  }
  const parts = movedParts(space, event, to);
  if (parts !== undefined) {
    moveParts(tx, space, parts, event, families);
    return;
  }
  const source = oldLast ?? from;
  const moved = grown(space, from, source, event).map((vma) => shifted(vma, from, to));
  placePieces(tx, space, moved, to, newLast, event, families);
  const stays = oldLast === undefined || (event.flags & MREMAP_DONTUNMAP) !== 0;
  if (!stays) cutTail(tx, space, from, oldLast, event, families);
}

/** Each VMA of the range moves by itself. */
function moveParts(
  tx: Tx,
  space: AddressSpace,
  parts: readonly MovedPart[],
  event: MremapEvent,
  families: Families,
): void {
  for (const part of parts) {
    const moved = grown(space, part.start, part.last, event).map((vma) => shifted(vma, part.start, part.to));
    const target = targetOf(part);
    placePieces(tx, space, moved, target.start, target.last, event, families);
  }
  if (event.flags & MREMAP_DONTUNMAP) return;
  for (const { start, last } of parts) cutTail(tx, space, start, last, event, families);
}

function cutTail(tx: Tx, space: AddressSpace, start: U64, last: U64, event: MremapEvent, families: Families): void {
  replaceRange(tx, space, start, last, [], false, event, families);
  emptied(tx, space, start, last);
}

/** The pieces of the old range; a range without a recorded VMA holds one that must be there. */
function grown(space: AddressSpace, start: U64, last: U64, event: MremapEvent): Vma[] {
  const pieces = piecesOf(space.vmas, start, last);
  if (pieces.length > 0) return pieces;
  const prot = PROT_READ | PROT_WRITE;
  const assumed = { start, last, prot, flags: MAP_PRIVATE, file: 0, offset: 0, since: event.seq, traits: VMA_ASSUMED };
  return [Object.freeze(assumed)];
}

function shifted(vma: Vma, from: U64, to: U64): Vma {
  return Object.freeze({
    ...vma,
    start: add(to, sub(vma.start, from)),
    last: add(to, sub(vma.last, from)),
  });
}

/** Puts the pieces at `start..last`, cut or with the last one grown to fit. */
function placePieces(
  tx: Tx,
  space: AddressSpace,
  pieces: readonly Vma[],
  start: U64,
  last: U64,
  event: MremapEvent,
  families: Families,
): void {
  const fitting = pieces.filter((vma) => vma.start <= last);
  const end = fitting.pop();
  if (end !== undefined) fitting.push(Object.freeze({ ...end, last }));
  replaceRange(tx, space, start, last, fitting, true, event, families);
  filled(tx, space, start, last);
}
