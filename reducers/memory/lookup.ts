import { rangeAt } from '../../core/interval.js';
import type { U64 } from '../../core/u64.js';
import { PAGE_BYTES } from './flags.js';
import type { AddressSpace } from './state.js';

/**
 * Questions about an address space, and what the absence of a VMA means.
 *
 * In a space that was recorded from its execve on, the only mappings without a call of their own are those of
 * execve itself: the program just below the heap, and the dynamic loader, vdso and stack above the first mapping
 * that the kernel places by itself, because it searches downwards and they took the highest
 * place (fs/binfmt_elf.c, mm/mmap.c `generic_get_unmapped_area_topdown`). Everything else without a VMA is a
 * hole. In a space whose beginning was not recorded, only what a recorded call emptied is one.
 */

/** Where mappings below are refused by default (vm.mmap_min_addr). */
const LOWEST = 0x1_0000;
/** The end of user addresses with five-level page tables; above, no process has memory. */
const HIGHEST_END = 2 ** 56;
/** End of user addresses on x86-64 with four levels (TASK_SIZE_MAX). */
const X86_END = 2 ** 47 - PAGE_BYTES;
/** No program image is longer; the heap starts at most this far above its image (`arch_randomize_brk`). */
const IMAGE_BYTES = 2 ** 32;
/** Mappings placed downwards from the stack start above this; in the old layout they go upwards from a third. */
const TOP_DOWN_FROM = 0x6000_0000_0000;

/** Whether an address without a VMA is surely empty. False: memory may be there that was not recorded. */
export function surelyEmpty(space: AddressSpace, address: U64): boolean {
  if (address < PAGE_BYTES || address >= HIGHEST_END) return true;
  if (!space.complete) return rangeAt(space.emptied, address) !== undefined;
  const placed = space.firstPlacedLast;
  if (address < LOWEST) return true;
  if (placed === null || placed < TOP_DOWN_FROM) return false;
  if (placed < X86_END && address >= X86_END) return true;
  if (address > placed || space.heapStart === null || space.heapEnd === null) return false;
  return address >= space.heapEnd || (space.heapStart > TOP_DOWN_FROM / 2 && address < belowImage(space.heapStart));
}

function belowImage(heapStart: U64): U64 {
  return heapStart > IMAGE_BYTES ? Number(heapStart) - IMAGE_BYTES : 0;
}
