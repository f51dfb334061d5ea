import { overlapping } from '../../core/interval.js';
import { alignDown, lengthOf, max, min, type U64 } from '../../core/u64.js';
import type { OpenFile } from '../files/state.js';
import type { Tx } from '../tx.js';
import { PAGE_BYTES } from './flags.js';
import { VMA_ASSUMED, VMA_PFNMAP, type Vma } from './state.js';

/** What is behind a VMA: pages of memory, which can be pinned and locked and count, or a device's. */

/** Where a mapped file keeps its pages. */
export type Backing = 'memory' | 'disk' | 'unknown';

export function backingOf(file: OpenFile): Backing {
  switch (file.kind) {
    case 'memfd':
      return 'memory';
    case 'other':
      break;
    default:
      return 'unknown';
  }
  const { path } = file;
  if (path.startsWith('/dev/shm/') || path.startsWith('/dev/hugepages/') || path === '/dev/zero') return 'memory';
  if (path.startsWith('/dev/') || !path.startsWith('/')) return 'unknown';
  return 'disk';
}

export type Substance = 'memory' | 'device' | 'unknown';

export function substanceOf(tx: Tx, vma: Vma): Substance {
  if (vma.traits & VMA_PFNMAP) return 'device';
  const file = vma.file === 0 ? undefined : tx.world.files.get(vma.file);
  return file !== undefined && backingOf(file) === 'unknown' ? 'unknown' : 'memory';
}

/** How many pages of a range are memory, and of how many nobody knows. */
export interface PageCount {
  readonly pages: number;
  readonly maybePages: number;
}

/** Counts the pages that `start..last` of a space touches. O(log n) plus the VMAs touched. */
export function countPages(tx: Tx, spaceId: number, start: U64, last: U64): PageCount {
  const first = alignDown(start, PAGE_BYTES);
  let maybePages = pagesBetween(first, last);
  let pages = 0;
  const space = tx.world.spaces.get(spaceId);
  if (space === undefined) return { pages, maybePages };
  for (const vma of overlapping(space.vmas, first, last)) {
    const count = pagesBetween(max(vma.start, first), min(vma.last, last));
    const guessed = vma.traits & VMA_ASSUMED && !space.complete;
    const substance = guessed ? 'unknown' : substanceOf(tx, vma);
    if (substance !== 'unknown') maybePages -= count;
    if (substance === 'memory') pages += count;
  }
  return { pages, maybePages };
}

/** Pages of a range that begins at one. */
export function pagesBetween(start: U64, last: U64): number {
  return Math.ceil(Number(lengthOf(start, last)) / PAGE_BYTES);
}
