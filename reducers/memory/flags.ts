import { alignUp, lastOf, type U64 } from '../../core/u64.js';

/** Numbers of the mmap family (include/uapi/asm-generic/mman-common.h, mman.h), as x86 and arm64 use them. */
export const PROT_READ = 1;
export const PROT_WRITE = 2;

export const MAP_SHARED = 0x01;
export const MAP_PRIVATE = 0x02;
export const MAP_TYPE = 0x0f;
export const MAP_FIXED = 0x10;
export const MAP_ANONYMOUS = 0x20;
export const MAP_32BIT = 0x40;
export const MAP_GROWSDOWN = 0x100;
export const MAP_LOCKED = 0x2000;
export const MAP_NORESERVE = 0x4000;
export const MAP_HUGETLB = 0x4_0000;
export const MAP_FIXED_NOREPLACE = 0x10_0000;
export const MAP_HUGE_SHIFT = 26;
export const MAP_HUGE_MASK = 0x3f;

export const MREMAP_FIXED = 2;
export const MREMAP_DONTUNMAP = 4;

export const MADV_DONTNEED = 4;
export const MADV_FREE = 8;
export const MADV_REMOVE = 9;
export const MADV_DONTFORK = 10;
export const MADV_DOFORK = 11;
export const MADV_HUGEPAGE = 14;
export const MADV_NOHUGEPAGE = 15;
export const MADV_DONTDUMP = 16;
export const MADV_DODUMP = 17;
export const MADV_WIPEONFORK = 18;
export const MADV_KEEPONFORK = 19;
export const MADV_COLD = 20;
export const MADV_PAGEOUT = 21;
export const MADV_POPULATE_READ = 22;
export const MADV_POPULATE_WRITE = 23;
export const MADV_DONTNEED_LOCKED = 24;
export const MADV_COLLAPSE = 25;
export const MADV_GUARD_INSTALL = 102;
export const MADV_GUARD_REMOVE = 103;

/** mlock2: pages are locked as they come. */
export const MLOCK_ONFAULT = 1;

export const PAGE_BYTES = 4096;
const DEFAULT_HUGE_BYTES = 2 ** 21;

/** Last address of the pages that `lengthBytes` from a page-aligned address touch; undefined when there are none. */
export function lastOfPages(start: U64, lengthBytes: U64): U64 | undefined {
  return lastOf(start, alignUp(lengthBytes, PAGE_BYTES));
}

/** The same for a mapping with these flags: anonymous huge pages are rounded up to their own size. */
export function lastOfMapping(start: U64, lengthBytes: U64, flags: number): U64 | undefined {
  if ((flags & MAP_HUGETLB) === 0 || (flags & MAP_ANONYMOUS) === 0) return lastOfPages(start, lengthBytes);
  const order = (flags >>> MAP_HUGE_SHIFT) & MAP_HUGE_MASK;
  const pageBytes = order === 0 ? DEFAULT_HUGE_BYTES : order <= 32 ? 2 ** order : DEFAULT_HUGE_BYTES;
  return lastOf(start, alignUp(lengthBytes, pageBytes));
}
