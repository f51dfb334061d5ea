import { rangeAt } from '../../core/interval.js';
import { add, alignDown, alignUp, sub, type U64 } from '../../core/u64.js';
import type { OpenFile } from '../files/state.js';
import { changesAround } from '../in-flight.js';
import type { Tx } from '../tx.js';
import { MAP_SHARED, PAGE_BYTES, PROT_READ, PROT_WRITE } from './flags.js';
import { surelyEmpty } from './lookup.js';
import { type AddressSpace, VMA_ASSUMED, VMA_GUARD, VMA_PFNMAP, type Vma } from './state.js';
import { backingOf } from './substance.js';

/**
 * What the kernel would say to taking the pages of a user range for a device.
 *
 * Both interfaces call `pin_user_pages*` with FOLL_LONGTERM, and FOLL_WRITE where the device may write;
 * neither gives FOLL_FORCE (drivers/vfio/vfio_iommu_type1.c `vaddr_get_pfns`, drivers/iommu/iommufd/pages.c
 * `pfn_reader_user_pin`). For each VMA in turn (mm/gup.c `check_vma_flags`):
 *
 * 1. no VMA: EFAULT. The stack is not grown for it.
 * 2. VM_IO or VM_PFNMAP: EFAULT; type1 then looks the page frames up by itself (`follow_fault_pfn`).
 * 3. write to a shared, writable mapping of a file whose pages are written back to a disk: EFAULT,
 *    when the pin is for long (`writable_file_mapping_allowed`); shmem and hugetlbfs are allowed.
 * 4. write without PROT_WRITE, read without PROT_READ: EFAULT.
 * 5. then the page fault: beyond the end of the file, or in a guard page, it fails (EFAULT).
 */
export type PinAnswer =
  | { readonly kind: 'ok' /** Some of it is memory of a device. */; readonly device: boolean }
  | { readonly kind: 'fault' | 'unknown'; readonly at: U64; readonly why: string };

export interface PinRequest {
  /** The device may write (FOLL_WRITE). */
  readonly write: boolean;
  /** FOLL_LONGTERM. */
  readonly longterm: boolean;
  /** Device memory without struct pages is taken too (type1 only). */
  readonly pfnmapOk: boolean;
  /** The CPU touches it for the process: what may be written can be read. */
  readonly cpu?: boolean;
}

const MEMORY: PinAnswer = Object.freeze({ kind: 'ok', device: false });
const PARTLY_DEVICE: PinAnswer = Object.freeze({ kind: 'ok', device: true });

/**
 * Asks for the pages of `start..last` (user addresses, inclusive) of a space. `fault`: the call fails with
 * EFAULT, first at `at`. `unknown`: the recording does not tell, because of what is at `at`, or because another
 * thread changes the memory while the call runs and the answer depends on who was first.
 * O(log n) plus the VMAs touched.
 */
export function probePin(tx: Tx, spaceId: number, start: U64, last: U64, request: PinRequest): PinAnswer {
  const space = tx.world.spaces.get(spaceId);
  const now = space === undefined ? gone(start) : probeSpace(tx, space, start, last, request);
  return tx.world.inFlight.size === 0 ? now : probeRaced(tx, spaceId, start, last, request, now);
}

function gone(at: U64): PinAnswer {
  return answer('fault', at, 'the address space is gone');
}

/** The same answer in all states that the call may have seen, or `unknown`. */
function probeRaced(tx: Tx, spaceId: number, start: U64, last: U64, request: PinRequest, now: PinAnswer): PinAnswer {
  const { past, coming } = changesAround(tx.world, spaceId, { start: alignDown(start, PAGE_BYTES), last });
  const before = past.some(({ space }) => probeSpace(tx, space, start, last, request).kind !== now.kind);
  const after = coming.some(({ call, prot }) => {
    if (call === 'madvise') return false;
    const opens = call === 'mprotect' && (prot & (request.write ? PROT_WRITE : PROT_READ)) !== 0;
    return opens ? now.kind === 'fault' : now.kind === 'ok';
  });
  return before || after ? answer('unknown', start, 'another thread changed what is mapped during the call') : now;
}

function probeSpace(tx: Tx, space: AddressSpace, start: U64, last: U64, request: PinRequest): PinAnswer {
  let at = alignDown(start, PAGE_BYTES);
  let device = false;
  for (;;) {
    const vma = rangeAt(space.vmas, at);
    if (vma === undefined) {
      return surelyEmpty(space, at)
        ? answer('fault', at, 'nothing is mapped there')
        : answer('unknown', at, 'memory there was mapped outside of the recording, if at all');
    }
    const bad = checkVma(tx, vma, at, last, request, space.complete);
    if (bad !== undefined) return bad;
    if (vma.traits & VMA_PFNMAP) device = true;
    if (vma.last >= last) return device ? PARTLY_DEVICE : MEMORY;
    at = add(vma.last, 1);
  }
}

function answer(kind: 'fault' | 'unknown', at: U64, why: string): PinAnswer {
  return { kind, at, why };
}

function checkVma(tx: Tx, vma: Vma, at: U64, last: U64, request: PinRequest, complete: boolean): PinAnswer | undefined {
  const { write } = request;
  if (vma.traits & VMA_PFNMAP && !request.pfnmapOk)
    return answer('fault', at, 'memory of a device, which has no struct pages');
  if (vma.prot === 0) return answer('fault', at, 'the memory is PROT_NONE');
  if (vma.traits & VMA_GUARD) return answer('fault', at, 'guard pages');
  if (write && !(vma.prot & PROT_WRITE)) return answer('fault', at, 'the memory is not writable');
  if (!write && !(vma.prot & PROT_READ) && !(request.cpu === true && vma.prot & PROT_WRITE)) {
    // Pages that are present already are taken without a look at the VMA by the fast path, which type1 has not.
    const kind = request.pfnmapOk ? 'fault' : 'unknown';
    return answer(kind, at, 'the memory is not readable');
  }
  if (vma.traits & VMA_ASSUMED && !complete) return answer('unknown', at, 'what is mapped there was not recorded');
  if (vma.file === 0 || vma.traits & VMA_PFNMAP) return undefined;
  const file = tx.world.files.get(vma.file);
  return file === undefined ? undefined : checkFile(file, vma, at, last, request);
}

function checkFile(file: OpenFile, vma: Vma, at: U64, last: U64, request: PinRequest): PinAnswer | undefined {
  const backing = backingOf(file);
  if (backing === 'unknown') return answer('unknown', at, 'a file whose driver is not modelled');
  const shared = (vma.flags & MAP_SHARED) !== 0;
  if (backing === 'disk' && shared && request.write && request.longterm)
    return answer('unknown', at, 'a shared file mapping: refused where the file system writes pages back');
  if (file.sizeBytes === null) return undefined;
  const end = alignUp(file.sizeBytes, PAGE_BYTES);
  const mapped = add(vma.offset, sub(last < vma.last ? last : vma.last, vma.start));
  if (mapped < end) return undefined;
  const first = vma.offset >= end ? vma.start : add(vma.start, sub(end, vma.offset));
  return answer('fault', first > at ? first : at, 'beyond the end of the file');
}
