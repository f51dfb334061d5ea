import type { Bytes } from '../../../core/bytes.js';
import { overlapping, rangeAt } from '../../../core/interval.js';
import { add, lastOf, lengthOf, modPow2, type U64, U64_MAX } from '../../../core/u64.js';
import type { Call } from '../../call.js';
import { areGroupsKnown, containerOf, hasEmulated, markMappingsUnknown, patchContainer } from '../containers.js';
import { isNatureOpen, learnEmulated } from '../groups.js';
import { unpin } from '../membership.js';
import { happenedUnseen, takeStruct } from '../payload.js';
import { type Rule, refuse, refuseOverflow } from '../rules.js';
import type { DmaMapping, VfioContainer } from '../state.js';
import { UNMAP_ALL, UNMAP_GET_DIRTY_BITMAP, UNMAP_VADDR } from '../uapi.js';
import { bitmapArgumentFits, DirtyReport, TRACKING_UNKNOWN } from './bitmap.js';
import { unknownSinceText } from '../../answer.js';

/**
 * VFIO_IOMMU_UNMAP_DMA of type1 (`vfio_iommu_type1_unmap_dma`, `vfio_dma_do_unmap`).
 *
 * v2 removes every mapping inside the range and refuses a range that cuts one. v1 never refuses: a range that
 * begins inside a mapping removes nothing, one that covers the beginning of a mapping removes all of it. Success
 * writes back how many bytes went, which is 0 when there was nothing. With VADDR nothing is removed: the mappings
 * lose their user address until MAP with VADDR gives them one.
 *
 * Struct: argsz 0, flags 4, iova 8, size 16, then for GET_DIRTY_BITMAP a bitmap: pgsize 24, size 32, data 40.
 */
export const UNMAP_RULES = {
  argsz: { id: 'unmap-dma.argsz', errno: 'EINVAL', text: 'argsz is less than 24' },
  flags: { id: 'unmap-dma.flags', errno: 'EINVAL', text: 'a flag other than GET_DIRTY_BITMAP, ALL, VADDR' },
  flagsTogether: {
    id: 'unmap-dma.flags-together',
    errno: 'EINVAL',
    text: 'GET_DIRTY_BITMAP together with ALL or VADDR',
  },
  bitmapArgsz: { id: 'unmap-dma.bitmap-argsz', errno: 'EINVAL', text: 'GET_DIRTY_BITMAP, and argsz is less than 48' },
  bitmapSize: {
    id: 'unmap-dma.bitmap-size',
    errno: 'EINVAL',
    text: 'the bitmap is no user memory, empty, over 256 MiB, or too small for the range',
  },
  mediated: {
    id: 'unmap-dma.vaddr-mediated',
    errno: 'EBUSY',
    text: 'VADDR, and the container has a group of mediated devices',
  },
  iovaAligned: { id: 'unmap-dma.iova-aligned', errno: 'EINVAL', text: 'iova is no multiple of the page size' },
  allNotZero: { id: 'unmap-dma.all-range', errno: 'EINVAL', text: 'ALL, and iova or size is not 0' },
  size: { id: 'unmap-dma.size', errno: 'EINVAL', text: 'size is 0 or no multiple of the page size' },
  overflow: { id: 'unmap-dma.overflow', errno: 'EOVERFLOW', text: 'iova + size passes 2^64' },
  notTracking: {
    id: 'unmap-dma.not-tracking',
    errno: 'EINVAL',
    text: 'GET_DIRTY_BITMAP, and dirty tracking is off or pgsize is not the smallest page size',
  },
  cutsFirst: { id: 'unmap-dma.cuts-first', errno: 'EINVAL', text: 'v2: the range begins inside a mapping' },
  cutsLast: { id: 'unmap-dma.cuts-last', errno: 'EINVAL', text: 'v2: the range ends inside a mapping' },
  bitmapFault: { id: 'unmap-dma.bitmap-fault', errno: 'EFAULT', text: 'the bitmap cannot be read and written' },
  vaddrTwice: {
    id: 'unmap-dma.vaddr-twice',
    errno: 'EINVAL',
    text: 'VADDR, and a mapping in the range has no user address already',
  },
  nothing: { id: 'unmap-dma.nothing', errno: '', text: 'nothing is mapped in the range, and nothing goes' },
  inside: {
    id: 'unmap-dma.inside',
    errno: '',
    text: 'v1: the range begins inside a mapping, and nothing goes',
  },
  more: {
    id: 'unmap-dma.more',
    errno: '',
    text: 'v1: a mapping that ends behind the range goes as a whole',
  },
} as const satisfies Record<string, Rule>;

const R = UNMAP_RULES;
const STRUCT_BYTES = 24;
const WITH_BITMAP_BYTES = 48;
const KNOWN_FLAGS = UNMAP_GET_DIRTY_BITMAP | UNMAP_ALL | UNMAP_VADDR;
const SIZE_OFFSET = 16;

export function unmapDma(call: Call): void {
  const struct = takeStruct(call, STRUCT_BYTES, R.argsz);
  if (struct === undefined) {
    if (happenedUnseen(call)) forgetMappings(call);
    return;
  }
  call.extentBytes = STRUCT_BYTES;
  const flags = struct.u32(4);
  if ((flags & ~KNOWN_FLAGS) !== 0 && refuse(call, R.flags)) return;
  const wantsBitmap = (flags & UNMAP_GET_DIRTY_BITMAP) !== 0;
  if (wantsBitmap && !bitmapArgumentOk(call, struct, flags)) return;
  const container = containerOf(call);
  const iova = struct.u64(8);
  const size = struct.u64(SIZE_OFFSET);
  const page = container.pageBytes;
  if ((flags & UNMAP_VADDR) !== 0 && refusedAsMediated(call, container)) return;
  if (modPow2(iova, page) !== 0 && refuse(call, R.iovaAligned)) return;
  const last = endOfRange(call, flags, iova, size, page);
  if (last === undefined) return;
  if (wantsBitmap) {
    const off = container.dirtyTracking === false || struct.u64(24) !== page;
    if (off && refuse(call, R.notTracking)) return;
    if (container.dirtyTracking === null) call.unknown(TRACKING_UNKNOWN);
  }
  removeRange(call, container, flags, iova, last);
}

function refusedAsMediated(call: Call, container: VfioContainer): boolean {
  if (hasEmulated(call.tx, container)) return refuse(call, R.mediated);
  const isKnown = areGroupsKnown(container);
  if (isKnown && !isNatureOpen(call.tx, container)) return false;
  if (!call.failedByFact(R.mediated.errno, NATURE_OPEN)) return false;
  if (isKnown) learnEmulated(call, container);
  return true;
}

const NATURE_OPEN = 'whether the devices of the group are mediated was not shown yet';

function bitmapArgumentOk(call: Call, struct: Bytes, flags: number): boolean {
  if ((flags & (UNMAP_ALL | UNMAP_VADDR)) !== 0 && refuse(call, R.flagsTogether)) return false;
  if (struct.u32(0) < WITH_BITMAP_BYTES && refuse(call, R.bitmapArgsz)) return false;
  if (struct.length < WITH_BITMAP_BYTES) {
    if (call.unknown('payload not recorded')) forgetMappings(call);
    return false;
  }
  return bitmapArgumentFits(struct, 24, struct.u64(SIZE_OFFSET)) || !refuse(call, R.bitmapSize);
}

/** Last address of the range, or undefined after a failure was predicted. */
function endOfRange(call: Call, flags: number, iova: U64, size: U64, page: number): U64 | undefined {
  if ((flags & UNMAP_ALL) !== 0) {
    if ((iova !== 0 || size !== 0) && refuse(call, R.allNotZero)) return undefined;
    return U64_MAX;
  }
  if ((size === 0 || modPow2(size, page) !== 0) && refuse(call, R.size)) return undefined;
  const last = lastOf(iova, size);
  if (last === undefined) refuseOverflow(call, R.overflow);
  return last;
}

function removeRange(call: Call, container: VfioContainer, flags: number, iova: U64, last: U64): void {
  const tx = call.tx;
  const mappings = tx.openTable(tx.world.containers, container.id, 'mappings');
  const v1 = container.backend === 'type1';
  // Nearly every call names exactly one mapping: one look-up instead of four.
  const exact = mappings.get(iova);
  const whole = exact !== undefined && exact.last === last ? exact : undefined;
  if (whole === undefined && !v1 && (flags & UNMAP_ALL) === 0) {
    const first = rangeAt(mappings, iova);
    if (first !== undefined && first.start !== iova && refuse(call, R.cutsFirst)) return;
    const end = rangeAt(mappings, last);
    if (end !== undefined && end.last !== last && refuse(call, R.cutsLast)) return;
  }
  if (container.unknownSince >= 0) {
    forgetRange(call, container, flags, iova, last);
    return;
  }
  const inside = whole === undefined ? touched(mappings, iova, last, v1) : [whole];
  if ((flags & UNMAP_VADDR) !== 0) {
    takeAddresses(call, container, inside);
    return;
  }
  if ((flags & UNMAP_GET_DIRTY_BITMAP) !== 0 && !reportDirty(call, container, inside, iova)) return;
  const rule = whole !== undefined || (flags & UNMAP_ALL) !== 0 ? 'unmap-dma.ok' : effect(mappings, inside, iova, last);
  if (!call.succeed(rule)) return;
  outSize(call, inside);
  for (const mapping of inside) drop(call, container, mapping);
}

/** The rule of a success, which tells one apart that does not do what its caller thinks. */
function effect(mappings: VfioContainer['mappings'], inside: readonly DmaMapping[], iova: U64, last: U64): string {
  const end = inside.at(-1);
  if (end === undefined) return rangeAt(mappings, iova) === undefined ? R.nothing.id : R.inside.id;
  return end.last > last ? R.more.id : 'unmap-dma.ok';
}

/** Mappings that the request removes; v1 stops at one that begins before the range. */
function touched(mappings: VfioContainer['mappings'], iova: U64, last: U64, v1: boolean): readonly DmaMapping[] {
  const found = overlapping(mappings, iova, last);
  return v1 && found[0] !== undefined && found[0].start < iova ? [] : found;
}

/** The size that comes back; where it is the one asked for, the struct is simply unchanged. */
function outSize(call: Call, mappings: readonly DmaMapping[]): void {
  let total: U64 = 0;
  for (const mapping of mappings) total = add(total, lengthOf(mapping.start, mapping.last));
  if (total !== call.struct.u64(SIZE_OFFSET)) call.out64(SIZE_OFFSET, total, 'size');
}

function drop(call: Call, container: VfioContainer, mapping: DmaMapping): void {
  const mappings = call.tx.openTable(call.tx.world.containers, container.id, 'mappings');
  unpin(call.tx, mapping);
  mappings.delete(mapping.start);
  if (container.bitmaps.size > 0)
    call.tx.openTable(call.tx.world.containers, container.id, 'bitmaps').delete(mapping.start);
  if (mapping.vaddrInvalid) changeInvalid(call, container.id, -1);
}

/** An UNMAP of which the recording does not hold the range: any mapping may be gone. */
function forgetMappings(call: Call): void {
  const container = containerOf(call);
  markMappingsUnknown(call, container);
  for (const mapping of [...container.mappings.values()]) drop(call, container, mapping);
}

function changeInvalid(call: Call, id: number, by: number): void {
  const count = call.tx.world.containers.get(id)?.vaddrInvalid ?? 0;
  patchContainer(call.tx, id, { vaddrInvalid: count + by });
}

/** The mappings lose their user addresses; one that has none already undoes the call, and itself gets none back. */
function takeAddresses(call: Call, container: VfioContainer, inside: readonly DmaMapping[]): void {
  const tx = call.tx;
  const mappings = tx.openTable(tx.world.containers, container.id, 'mappings');
  const twice = inside.findIndex((mapping) => mapping.vaddrInvalid);
  if (twice >= 0 && refuse(call, R.vaddrTwice)) return;
  if (!call.succeed('unmap-dma.vaddr-ok')) return;
  outSize(call, inside);
  for (const mapping of inside) {
    if (mapping.vaddrInvalid) continue;
    mappings.set(mapping.start, Object.freeze({ ...mapping, vaddrInvalid: true }));
    changeInvalid(call, container.id, 1);
  }
}

/** Writes the bitmaps. A mapping whose bitmap cannot be written ends the call; those before it are gone. */
function reportDirty(call: Call, container: VfioContainer, inside: readonly DmaMapping[], iova: U64): boolean {
  const report = new DirtyReport(call, container, call.struct.u64(40), iova);
  for (const [at, mapping] of inside.entries()) {
    if (report.add(mapping) !== 'fault') continue;
    if (!refuse(call, R.bitmapFault)) break;
    for (const gone of inside.slice(0, at)) drop(call, container, gone);
    return false;
  }
  report.predict();
  return true;
}

/** Not all mappings are known: what the recording says is taken over. */
function forgetRange(call: Call, container: VfioContainer, flags: number, iova: U64, last: U64): void {
  const happened = call.unknown(unknownSinceText('mappings of the container', container.unknownSince));
  if (!happened || (flags & UNMAP_VADDR) !== 0) return;
  const mappings = call.tx.openTable(call.tx.world.containers, container.id, 'mappings');
  const inside = touched(mappings, iova, last, container.backend === 'type1');
  for (const mapping of inside) drop(call, container, mapping);
  if ((flags & UNMAP_ALL) !== 0) patchContainer(call.tx, container.id, { unknownSince: -1 });
}
