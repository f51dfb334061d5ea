import { rangeAt } from '../../core/interval.js';
import { add, lastOf, type U64 } from '../../core/u64.js';
import { PROT_READ, PROT_WRITE } from '../memory/flags.js';
import { surelyEmpty } from '../memory/lookup.js';
import { VMA_GUARD, type AddressSpace } from '../memory/state.js';

/**
 * Whether the kernel can copy to or from memory of a process (copy_to_user, copy_from_user).
 * `unknown`: memory may be there that was not recorded. O(log n) plus the VMAs touched.
 */
export function canCopy(
  space: AddressSpace | undefined,
  start: U64,
  lengthBytes: U64,
  write: boolean,
): 'yes' | 'no' | 'unknown' {
  const last = lastOf(start, lengthBytes);
  if (lengthBytes === 0) return 'yes';
  if (last === undefined || space === undefined) return 'no';
  let at = start;
  for (;;) {
    const vma = rangeAt(space.vmas, at);
    if (vma === undefined) return surelyEmpty(space, at) ? 'no' : 'unknown';
    if ((vma.prot & (write ? PROT_WRITE : PROT_READ)) === 0 || vma.traits & VMA_GUARD) return 'no';
    if (vma.last >= last) return 'yes';
    at = add(vma.last, 1);
  }
}
