import { rangeAt } from '../../core/interval.js';
import { add, div, mod, mul, sub, type U64 } from '../../core/u64.js';
import type { Call } from '../call.js';
import { ioasOfObject, lookup, patchObject } from '../iommufd/context.js';
import { addRange } from '../iommufd/dirty-state.js';
import type { Rule } from '../iommufd/rules.js';
import type { PagingHwpt } from '../iommufd/state.js';
import { probeBuffer } from '../iommufd/user-buffer.js';

/**
 * IOMMU_TEST_OP_DIRTY: the self-test marks pages of a mock domain dirty, by a bitmap.
 *
 * A page table entry is dirty as a whole, and its size depends on how the memory lies physically: up to the whole
 * area. So a page named in the bitmap is dirty for sure, and its area may be. Where the bitmap was not
 * recorded the whole range may be dirty, and how many bits were set is not known.
 */
export const DIRTY_TEST_RULES: readonly Rule[] = [
  { id: 'test-dirty.range', errno: 'EINVAL', text: 'page size, length or bitmap is 0, or the range is uneven' },
  { id: 'test-dirty.size', errno: 'EOVERFLOW', text: 'more than 2^27 pages' },
  { id: 'test-dirty.hwpt', errno: 'ENOENT', text: 'no paging HWPT has the id' },
  { id: 'test-dirty.owner', errno: 'EINVAL', text: 'the HWPT is of a real IOMMU' },
  { id: 'test-dirty.off', errno: 'EINVAL', text: 'dirty tracking is off' },
  { id: 'test-dirty.fault', errno: 'EFAULT', text: 'the bitmap cannot be read' },
  { id: 'test-dirty.ok', errno: '', text: 'the pages are dirty' },
];

const MAX_PAGES = 0x800_0000;

export function markDirty(call: Call): void {
  const s = call.struct;
  const iova = s.u64(24);
  const length = s.u64(32);
  const pageSize = s.u64(40);
  const bitmap = s.u64(48);
  const bad = pageSize === 0 || length === 0 || bitmap === 0;
  if (bad) {
    call.fail('EINVAL', 'test-dirty.range');
    return;
  }
  if ((mod(iova, pageSize) !== 0 || mod(length, pageSize) !== 0) && call.fail('EINVAL', 'test-dirty.range')) return;
  const count = div(length, pageSize);
  if (count > MAX_PAGES && call.fail('EOVERFLOW', 'test-dirty.size')) return;
  const hwpt = lookup(call, s.u32(8), 'hwpt-paging', 'test-dirty.hwpt');
  if (hwpt === undefined) return;
  if (hwpt.domain.owner !== 'mock' && call.fail('EINVAL', 'test-dirty.owner')) return;
  if (!hwpt.dirtyOn && call.fail('EINVAL', 'test-dirty.off')) return;
  const bitmapBytes = Math.ceil(Number(count) / 8);
  const bits = call.bytesAt(bitmap, bitmapBytes);
  const faults = bits === undefined && probeBuffer(call, bitmap, bitmapBytes, false) === 'fault';
  if (faults && call.fail('EFAULT', 'test-dirty.fault')) return;
  if (!call.succeed('test-dirty.ok')) return;
  if (bits === undefined) {
    const at = add(call.arg, 56);
    call.outUnknown(at, 8, 'the bitmap was not recorded');
    mayBeDirty(call, hwpt, iova, length);
    return;
  }
  let set = 0;
  let dirty = hwpt.dirty;
  let maybeDirty = hwpt.maybeDirty;
  const { areas } = ioasOfObject(call.tx, call.file.object, hwpt.ioas);
  for (let i = 0; i < Number(count); i++) {
    if (((bits.u8(i >> 3) >> (i & 7)) & 1) === 0) continue;
    set++;
    const start = add(iova, mul(i, pageSize));
    const area = rangeAt(areas, start);
    if (area === undefined) continue;
    dirty = addRange(dirty, start, start);
    maybeDirty = addRange(maybeDirty, area.start, area.last);
  }
  patchObject(call.tx, call.file.object, hwpt, { dirty, maybeDirty });
  call.out64(56, set, 'out_nr_dirty');
}

function mayBeDirty(call: Call, hwpt: PagingHwpt, iova: U64, length: U64): void {
  const { areas } = ioasOfObject(call.tx, call.file.object, hwpt.ioas);
  const last = sub(add(iova, length), 1);
  let maybeDirty = hwpt.maybeDirty;
  for (let area = rangeAt(areas, iova) ?? areas.ceiling(iova); area !== undefined; area = areas.higher(area.start)) {
    if (area.start > last) break;
    maybeDirty = addRange(maybeDirty, area.start, area.last);
  }
  patchObject(call.tx, call.file.object, hwpt, { maybeDirty });
}
