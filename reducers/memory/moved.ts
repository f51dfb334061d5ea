import type { MremapEvent } from '../../core/event.js';
import { firstOverlap, type Interval } from '../../core/interval.js';
import { add, alignUp, lastOf, max, min, sub, type U64 } from '../../core/u64.js';
import { PAGE_BYTES } from './flags.js';
import { surelyEmpty } from './lookup.js';
import type { AddressSpace } from './state.js';

/** A part of the address space that mremap moves: what is mapped there, and where it goes. */
export interface MovedPart extends Interval {
  readonly to: U64;
}

/**
 * What a mremap that kept the length moves (mm/mremap.c `remap_move`): each VMA of the range by itself, so that holes between
 * them, and what stands at their places in the new range, stay as they are. Undefined for the other forms, which
 * move one VMA.
 */
export function movedParts(space: AddressSpace, event: MremapEvent, to: U64): readonly MovedPart[] | undefined {
  const oldBytes = alignUp(event.oldLengthBytes, PAGE_BYTES);
  const last = lastOf(event.addr, oldBytes);
  if (oldBytes !== alignUp(event.newLengthBytes, PAGE_BYTES) || last === undefined || to === event.addr)
    return undefined;
  const parts: MovedPart[] = [];
  let at = event.addr;
  for (;;) {
    const vma = firstOverlap(space.vmas, at, last);
    const next = vma === undefined ? undefined : max(vma.start, at);
    // Memory that no recorded call mapped moves too.
    if (next !== at && !surelyEmpty(space, at))
      parts.push(part(event.addr, to, at, next === undefined ? last : sub(next, 1)));
    if (vma === undefined || next === undefined) return parts;
    const end = min(vma.last, last);
    parts.push(part(event.addr, to, next, end));
    if (end >= last) return parts;
    at = add(end, 1);
  }
}

function part(from: U64, to: U64, start: U64, last: U64): MovedPart {
  return { start, last, to: add(to, sub(start, from)) };
}

/** Where a part goes to. */
export function targetOf({ start, last, to }: MovedPart): Interval {
  return { start: to, last: add(to, sub(last, start)) };
}
