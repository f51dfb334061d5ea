import type { Interval, RangeMap } from '../../core/interval.js';
import type { OrderedMap } from '../../core/ordered-map.js';
import type { U64 } from '../../core/u64.js';

/** A run of pages with one set of rights and one backing. Neighbours that differ in nothing are one run. */
export interface Vma extends Interval {
  readonly prot: number;
  /** MAP_* flags that the mapping was made with, without those that only steer the making of it. */
  readonly flags: number;
  /** Open file id that backs it, 0 for anonymous memory. */
  readonly file: number;
  /**
   * Offset into the file at `start`. Of anonymous memory: the address that `start` had when the memory was made; mremap leaves it.
   */
  readonly offset: U64;
  /** `seq` of the event that made it. */
  readonly since: number;
  /** `VMA_*` bits below. */
  readonly traits: number;
}

/** Not copied by fork (MADV_DONTFORK). */
export const VMA_DONTFORK = 1;
/** Empty in the child after fork (MADV_WIPEONFORK). */
export const VMA_WIPEONFORK = 2;
/** MADV_HUGEPAGE was asked for. */
export const VMA_HUGEPAGE = 4;
/** MADV_NOHUGEPAGE was asked for. */
export const VMA_NOHUGEPAGE = 8;
/** The heap of brk. */
export const VMA_HEAP = 16;
/** Seen only through a call that would have failed without it: what backs it is not known. */
export const VMA_ASSUMED = 32;
/** Memory of a device, without struct pages (VM_IO | VM_PFNMAP). */
export const VMA_PFNMAP = 64;
/** Pages of hugetlbfs. */
export const VMA_HUGETLB = 128;

/** Guard pages (MADV_GUARD_INSTALL): present in the list of VMAs, but no access gets through. */
export const VMA_GUARD = 256;
/** Not in core dumps (MADV_DONTDUMP). */
export const VMA_DONTDUMP = 512;

/** One DMA mapping that holds user memory of this space; see pins.ts. */
export interface Pin extends Interval {
  readonly id: number;
  /** Who holds it, e.g. `type1:3` or `ioas:1:2`. */
  readonly owner: string;
  /** Which DMA mapping of the owner: its IOVA. */
  readonly key: U64;
  /** `seq` of the event that made the DMA mapping. */
  readonly since: number;
  /** Neighbours in the list of pins with equal start and size class; 0 at its ends. */
  readonly next: number;
  readonly prev: number;
}

/** What a range of pinned memory was when the space lost it last; see identity.ts. */
export interface Loss extends Interval {
  /** `seq` of the event that took it, -1 where it was not lost yet. */
  readonly since: number;
  /** `seq` of the loss before that one, -1 for none: what is kept tells of the time between both. */
  readonly before: number;
  /** Key and offset of the memory, as identity.ts has them. */
  readonly key: string;
  readonly offset: U64;
}

export interface AddressSpace {
  readonly id: number;
  /** Processes that share it (CLONE_VM). */
  readonly users: number;
  /** True when the recording saw it from its execve on, or from a fork of such a one. */
  readonly complete: boolean;
  readonly vmas: RangeMap<Vma>;
  /** Where the space is not complete: ranges that a recorded call emptied. */
  readonly emptied: RangeMap<Interval>;
  /** How many VMAs map a file, by open file id. */
  readonly fileVmas: OrderedMap<number, number>;
  /** How many VMAs have VMA_DONTFORK. */
  readonly dontForkVmas: number;
  /** Start of the heap, from the first brk; null while unknown. */
  readonly heapStart: U64 | null;
  /** First address after the heap; null while unknown. */
  readonly heapEnd: U64 | null;
  /** Last address of the first mapping that the kernel placed by itself after execve; null while unknown. */
  readonly firstPlacedLast: U64 | null;
  /** Live DMA mappings by user address; see pins.ts. */
  readonly pins: OrderedMap<number, Pin>;
  /** Ranges whose memory somebody pinned while it was lost, or may lose it unseen; see identity.ts. */
  readonly losses: RangeMap<Loss>;
}
