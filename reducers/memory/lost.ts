import type { Event, MremapEvent } from '../../core/event.js';
import { firstOverlap, overlapping, type Interval } from '../../core/interval.js';
import { add, alignUp, lastOf, max, min, sub, type U64 } from '../../core/u64.js';
import {
  lastOfMapping,
  lastOfPages,
  MADV_DONTNEED,
  MADV_DONTNEED_LOCKED,
  MADV_FREE,
  MADV_GUARD_INSTALL,
  MADV_REMOVE,
  MAP_SHARED,
  PAGE_BYTES,
} from './flags.js';
import { movedParts, targetOf } from './moved.js';
import type { AddressSpace } from './state.js';

/**
 * Which user addresses stop meaning the memory that they meant before an event.
 *
 * The memory reducer drops the pins over these ranges and the invariant on pinned memory reports them; both ask
 * here, so that they cannot disagree. Answers rest on the space as it was before the event.
 */
export interface LostRange extends Interval {
  readonly how: 'unmapped' | 'replaced by another mapping' | 'moved' | 'discarded';
}

const NOTHING: readonly LostRange[] = Object.freeze([]);

/** The ranges that a call took from the space; empty for events that take none, failed or unfinished calls. */
export function lostRanges(space: AddressSpace, event: Event): readonly LostRange[] {
  switch (event.kind) {
    case 'mmap': {
      if (event.ret === null || event.ret === -1) return NOTHING;
      return range(event.ret, lastOfMapping(event.ret, event.lengthBytes, event.flags), 'replaced by another mapping');
    }
    case 'munmap':
      return event.ret === 0 ? range(event.addr, lastOfPages(event.addr, event.lengthBytes), 'unmapped') : NOTHING;
    case 'mremap':
      return event.ret === null || event.ret === -1 ? NOTHING : lostByRemap(space, event, event.ret);
    case 'brk':
      return lostByBreak(space, event.ret);
    case 'madvise':
      return event.ret === 0 || event.errno === 'ENOMEM'
        ? discarded(space, event.addr, event.lengthBytes, event.advice)
        : NOTHING;
    default:
      return NOTHING;
  }
}

function range(start: U64, last: U64 | undefined, how: LostRange['how']): readonly LostRange[] {
  return last === undefined ? NOTHING : [{ start, last, how }];
}

/** A move takes all of the old range and what was at the new place; shrinking takes the tail. */
function lostByRemap(space: AddressSpace, event: MremapEvent, ret: U64): readonly LostRange[] {
  const { addr } = event;
  const oldBytes = alignUp(event.oldLengthBytes, PAGE_BYTES);
  const newBytes = alignUp(event.newLengthBytes, PAGE_BYTES);
  if (ret === addr) {
    if (oldBytes <= newBytes) return NOTHING;
    const from = add(addr, newBytes);
    return range(from, lastOf(from, sub(oldBytes, newBytes)), 'unmapped');
  }
  const parts = movedParts(space, event, ret);
  if (parts === undefined)
    return [
      ...range(addr, lastOf(addr, oldBytes), 'moved'),
      ...range(ret, lastOf(ret, newBytes), 'replaced by another mapping'),
    ];
  return parts.flatMap((part): LostRange[] => [
    { start: part.start, last: part.last, how: 'moved' },
    { ...targetOf(part), how: 'replaced by another mapping' },
  ]);
}

function lostByBreak(space: AddressSpace, ret: U64 | -1 | null): readonly LostRange[] {
  if (ret === null || ret === -1 || space.heapEnd === null || ret >= space.heapEnd) return NOTHING;
  const from = alignUp(ret, PAGE_BYTES);
  const end = alignUp(space.heapEnd, PAGE_BYTES);
  return from < end ? range(from, sub(end, 1), 'unmapped') : NOTHING;
}

/**
 * MADV_DONTNEED and _FREE give up the pages of private mappings only: a shared mapping finds its pages
 * again. MADV_REMOVE punches a hole into the file behind a shared one. Addresses without a recorded VMA are
 * taken for private memory, the usual case. (mm/madvise.c)
 */
function discarded(space: AddressSpace, addr: U64, lengthBytes: U64, advice: number): readonly LostRange[] {
  const last = lastOfPages(addr, lengthBytes);
  if (last === undefined) return NOTHING;
  switch (advice) {
    case MADV_REMOVE:
    case MADV_GUARD_INSTALL:
      return range(addr, last, 'discarded');
    case MADV_DONTNEED:
    case MADV_DONTNEED_LOCKED:
    case MADV_FREE:
      break;
    default:
      return NOTHING;
  }
  if (firstOverlap(space.vmas, addr, last) === undefined) return range(addr, last, 'discarded');
  const lost: LostRange[] = [];
  for (const vma of overlapping(space.vmas, addr, last)) {
    if (vma.flags & MAP_SHARED) continue;
    lost.push({ start: max(vma.start, addr), last: min(vma.last, last), how: 'discarded' });
  }
  return lost;
}
