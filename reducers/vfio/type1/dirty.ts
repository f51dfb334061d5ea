import { overlapping, rangeAt } from '../../../core/interval.js';
import { lastOf, modPow2, sub, type U64 } from '../../../core/u64.js';
import type { Call } from '../../call.js';
import { containerOf, patchContainer } from '../containers.js';
import { clearBitmaps } from '../membership.js';
import { happenedUnseen, takeStruct } from '../payload.js';
import { refuse, refuseOverflow, type Rule } from '../rules.js';
import type { DirtyBits, DmaMapping, VfioContainer } from '../state.js';
import { DIRTY_GET_BITMAP, DIRTY_START, DIRTY_STOP } from '../uapi.js';
import { bitmapArgumentFits, DirtyReport, TRACKING_UNKNOWN } from './bitmap.js';
import { BITMAP_PAGES_MAX } from './map.js';
import { unknownSinceText } from '../../answer.js';

/**
 * VFIO_IOMMU_DIRTY_PAGES of type1 (`vfio_iommu_type1_dirty_pages`): START and STOP switch tracking, GET_BITMAP
 * reports. Struct: argsz 0, flags 4; for GET_BITMAP iova 8, size 16, then a bitmap: pgsize 24, size 32, data 40.
 */
export const DIRTY_RULES = {
  v1: { id: 'dirty-pages.v1', errno: 'EACCES', text: 'the backend is type1 v1' },
  argsz: { id: 'dirty-pages.argsz', errno: 'EINVAL', text: 'argsz is less than 8' },
  flags: { id: 'dirty-pages.flags', errno: 'EINVAL', text: 'not exactly one of START, STOP, GET_BITMAP' },
  startHuge: {
    id: 'dirty-pages.start-huge',
    errno: 'EINVAL',
    text: 'START, and a mapping has more than 2^31 - 1 pages',
  },
  rangeArgsz: { id: 'dirty-pages.range-argsz', errno: 'EINVAL', text: 'GET_BITMAP, and argsz is less than 48' },
  sizeZero: { id: 'dirty-pages.size-zero', errno: 'EINVAL', text: 'size is 0' },
  overflow: { id: 'dirty-pages.overflow', errno: 'EOVERFLOW', text: 'iova + size passes 2^64' },
  bitmapSize: {
    id: 'dirty-pages.bitmap-size',
    errno: 'EINVAL',
    text: 'the bitmap is no user memory, empty, over 256 MiB, or too small for the range',
  },
  pageSize: { id: 'dirty-pages.page-size', errno: 'EINVAL', text: 'pgsize is not the smallest page size' },
  aligned: { id: 'dirty-pages.aligned', errno: 'EINVAL', text: 'iova or size is no multiple of the page size' },
  off: { id: 'dirty-pages.off', errno: 'EINVAL', text: 'tracking is off' },
  fault: { id: 'dirty-pages.bitmap-fault', errno: 'EFAULT', text: 'the bitmap cannot be read and written' },
  cuts: { id: 'dirty-pages.cuts', errno: 'EINVAL', text: 'the range begins or ends inside a mapping' },
} as const satisfies Record<string, Rule>;

const R = DIRTY_RULES;
const HEAD_BYTES = 8;
const RANGE_BYTES = 48;

export function dirtyPages(call: Call): void {
  const container = containerOf(call);
  if (container.backend === 'unknown') {
    if (call.unknown(unknownSinceText('state of the container', container.unknownSince)))
      setTracking(call, container.id, null);
    return;
  }
  if (container.backend === 'type1' && refuse(call, R.v1)) return;
  const struct = takeStruct(call, HEAD_BYTES, R.argsz);
  if (struct === undefined) {
    if (happenedUnseen(call)) setTracking(call, container.id, null);
    return;
  }
  const flags = struct.u32(4);
  call.extentBytes = HEAD_BYTES;
  switch (flags) {
    case DIRTY_START:
      return start(call, container);
    case DIRTY_STOP:
      if (call.succeed('dirty-pages.stop')) setTracking(call, container.id, false);
      return;
    case DIRTY_GET_BITMAP:
      return getBitmap(call, container);
    default:
      refuse(call, R.flags);
  }
}

function start(call: Call, container: VfioContainer): void {
  const limit = BigInt(BITMAP_PAGES_MAX) * BigInt(container.pageBytes);
  if (container.dirtyTracking !== true) {
    for (const mapping of container.mappings.values())
      if (BigInt(sub(mapping.last, mapping.start)) >= limit && startRefused(call, container)) return;
  }
  // Where tracking may be on already, START keeps bitmaps that are not known: all stays unknown.
  if (call.succeed('dirty-pages.start') && container.dirtyTracking === false) setTracking(call, container.id, true);
}

function startRefused(call: Call, container: VfioContainer): boolean {
  return container.dirtyTracking === null ? !call.unknown(TRACKING_UNKNOWN) : refuse(call, R.startHuge);
}

/** `null`: a call that was not seen may have switched tracking on or off. */
function setTracking(call: Call, id: number, dirtyTracking: boolean | null): void {
  patchContainer(call.tx, id, { dirtyTracking });
  clearBitmaps(call.tx, id);
}

function getBitmap(call: Call, container: VfioContainer): void {
  const struct = call.struct;
  if (struct.u32(0) < RANGE_BYTES && refuse(call, R.rangeArgsz)) return;
  if (struct.length < RANGE_BYTES) {
    call.unknown('payload not recorded');
    return;
  }
  call.extentBytes = RANGE_BYTES;
  const iova = struct.u64(8);
  const size = struct.u64(16);
  if (size === 0 && refuse(call, R.sizeZero)) return;
  const last = lastOf(iova, size);
  if (last === undefined) {
    refuseOverflow(call, R.overflow);
    return;
  }
  const page = container.pageBytes;
  if (!bitmapArgumentFits(struct, 24, size) && refuse(call, R.bitmapSize)) return;
  if (struct.u64(24) !== page && refuse(call, R.pageSize)) return;
  if (modPow2(iova, page) + modPow2(size, page) !== 0 && refuse(call, R.aligned)) return;
  if (container.dirtyTracking === null) {
    call.unknown(TRACKING_UNKNOWN);
    return;
  }
  if (!container.dirtyTracking && refuse(call, R.off)) return;
  const { mappings } = container;
  const first = rangeAt(mappings, iova);
  if (first !== undefined && first.start !== iova && refuse(call, R.cuts)) return;
  const end = rangeAt(mappings, last);
  if (end !== undefined && end.last !== last && refuse(call, R.cuts)) return;
  if (container.unknownSince >= 0) {
    call.unknown(unknownSinceText('mappings of the container', container.unknownSince));
    return;
  }
  report(call, container, overlapping(mappings, iova, last), iova);
}

function report(call: Call, container: VfioContainer, inside: readonly DmaMapping[], iova: U64): void {
  const dirty = new DirtyReport(call, container, call.struct.u64(40), iova);
  const after: [U64, DirtyBits][] = [];
  for (const mapping of inside) {
    const left = dirty.add(mapping);
    if (left === 'fault') {
      if (refuse(call, R.fault)) return;
      break;
    }
    after.push([mapping.start, left]);
  }
  if (!call.succeed('dirty-pages.get')) return;
  dirty.predict();
  keep(call, container.id, after);
}

/** What the bitmaps hold after they were read: nothing, mostly. */
function keep(call: Call, id: number, after: readonly (readonly [U64, DirtyBits])[]): void {
  const held = call.tx.world.containers.get(id)?.bitmaps;
  if (held?.size === 0 && after.every(([, { tail }]) => tail === '')) return;
  const bitmaps = call.tx.openTable(call.tx.world.containers, id, 'bitmaps');
  for (const [iova, bits] of after) {
    if (bits.tail === '') bitmaps.delete(iova);
    else bitmaps.set(iova, Object.freeze(bits));
  }
}
