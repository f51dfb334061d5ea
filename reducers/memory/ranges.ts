import type { Event } from '../../core/event.js';
import { carve, overlapping, type RangeMap } from '../../core/interval.js';
import { add, max, min, sub, type U64 } from '../../core/u64.js';
import type { Families } from '../family.js';
import type { Tx } from '../tx.js';
import { mapFile, unmapFile } from './spaces.js';
import { VMA_DONTFORK, type AddressSpace, type Vma } from './state.js';

/**
 * Writing to the VMAs of a space: whatever a call does, it replaces what is in a range by some pieces.
 * References to files and the counts in the space follow from what was there before and after.
 */

/** The part of a VMA in `start..last`; offsets into a file move with the start. */
export function trimVma(vma: Vma, start: U64, last: U64): Vma {
  if (vma.start === start && vma.last === last) return vma;
  const offset = add(vma.offset, sub(start, vma.start));
  return Object.freeze({ ...vma, start, last, offset });
}

/** The parts of VMAs in `start..last`, in order. */
export function piecesOf(vmas: RangeMap<Vma>, start: U64, last: U64): Vma[] {
  return overlapping(vmas, start, last).map((vma) => trimVma(vma, max(vma.start, start), min(vma.last, last)));
}

/**
 * Puts `pieces` (in order, all within `start..last`) in the place of everything that was there. Equal
 * neighbours that come of one mapping are joined when `join` says that there may be any.
 */
export function replaceRange(
  tx: Tx,
  space: AddressSpace,
  start: U64,
  last: U64,
  pieces: readonly Vma[],
  join: boolean,
  event: Event,
  families: Families,
): void {
  const vmas = tx.openTable(tx.world.spaces, space.id, 'vmas');
  const gone = carve(vmas, start, last, trimVma);
  for (const piece of pieces) vmas.set(piece.start, piece);
  let dontFork = 0;
  // New references first: a file must not be released and mapped by the same call.
  for (const piece of pieces) {
    if (piece.file !== 0) mapFile(tx, space.id, piece.file);
    if (piece.traits & VMA_DONTFORK) dontFork++;
  }
  for (const vma of gone) {
    // A cut VMA leaves a piece on one side or on both.
    const left = (vma.start < start ? 1 : 0) + (vma.last > last ? 1 : 0);
    if (vma.traits & VMA_DONTFORK) dontFork += left - 1;
    if (vma.file === 0) continue;
    if (left === 2) mapFile(tx, space.id, vma.file);
    else if (left === 0) unmapFile(tx, space.id, vma.file, event, families);
  }
  if (join) dontFork -= joinAround(tx, space, vmas, pieces, last, event, families);
  if (dontFork !== 0) addDontFork(tx, space.id, dontFork);
}

/** Joins each piece with what is right before it, and the last one with what follows. How many DONTFORK VMAs went. */
function joinAround(
  tx: Tx,
  space: AddressSpace,
  vmas: RangeMap<Vma>,
  pieces: readonly Vma[],
  last: U64,
  event: Event,
  families: Families,
): number {
  let dontFork = 0;
  const starts = pieces.map((piece) => piece.start);
  starts.push(add(last, 1));
  for (const start of starts) {
    const right = vmas.get(start);
    const left = right === undefined ? undefined : vmas.lower(start);
    if (right === undefined || left === undefined || !continues(left, right)) continue;
    vmas.delete(start);
    vmas.set(left.start, Object.freeze({ ...left, last: right.last }));
    if (right.traits & VMA_DONTFORK) dontFork++;
    if (right.file !== 0) unmapFile(tx, space.id, right.file, event, families);
  }
  return dontFork;
}

function continues(left: Vma, right: Vma): boolean {
  return (
    add(left.last, 1) === right.start &&
    left.prot === right.prot &&
    left.flags === right.flags &&
    left.file === right.file &&
    left.since === right.since &&
    left.traits === right.traits &&
    add(left.offset, sub(right.start, left.start)) === right.offset
  );
}

function addDontFork(tx: Tx, spaceId: number, change: number): void {
  const space = tx.world.spaces.get(spaceId);
  if (space === undefined) return;
  tx.world.spaces.set(spaceId, Object.freeze({ ...space, dontForkVmas: space.dontForkVmas + change }));
}
