import { Bytes } from '../../core/bytes.js';
import { type Interval, overlapping, rangeAt } from '../../core/interval.js';
import { OrderedMap } from '../../core/ordered-map.js';
import { add, addOverflows, and, max, min, mod, sub, type U64 } from '../../core/u64.js';
import { find } from '../answer.js';
import type { Call } from '../call.js';
import { ioasOfObject, lookup, patchObject } from './context.js';
import { addRange, removeRange } from './dirty-state.js';
import type { Rule } from './rules.js';
import type { Ioas, PagingHwpt } from './state.js';

/**
 * HWPT_SET_DIRTY_TRACKING and HWPT_GET_DIRTY_BITMAP (drivers/iommu/iommufd/hw_pagetable.c, io_pagetable.c).
 *
 * Turning tracking on cleans all entries. A bitmap read sets bits in the caller's bitmap (it clears none), for the
 * areas that follow each other from its start without a gap, and cleans what it told unless NO_CLEAR is given.
 * Which pages a device wrote is nobody's to predict: of a real domain everything mapped may be dirty. Of a mock domain
 * the self-test sets the bits; what of its input was recorded is known, and the rest may be dirty.
 */
export const DIRTY_RULES: readonly Rule[] = [
  { id: 'dirty-tracking.flags', errno: 'EOPNOTSUPP', text: 'an unknown flag is set' },
  { id: 'dirty-tracking.hwpt', errno: 'ENOENT', text: 'no paging HWPT has the id' },
  { id: 'dirty-tracking.unsupported', errno: 'EOPNOTSUPP', text: 'the HWPT was not made for dirty tracking' },
  { id: 'dirty-tracking.ok', errno: '', text: 'tracking is on or off' },
  { id: 'dirty-bitmap.flags', errno: 'EOPNOTSUPP', text: 'an unknown flag or the reserved field is set' },
  { id: 'dirty-bitmap.hwpt', errno: 'ENOENT', text: 'no paging HWPT has the id' },
  { id: 'dirty-bitmap.overflow', errno: 'EOVERFLOW', text: 'IOVA and length pass 2^64' },
  { id: 'dirty-bitmap.aligned', errno: 'EINVAL', text: 'the range does not keep to the IOAS alignment' },
  { id: 'dirty-bitmap.page-size', errno: 'EINVAL', text: 'the page size is 0 or does not divide the range' },
  { id: 'dirty-bitmap.unsupported', errno: 'EOPNOTSUPP', text: 'the HWPT was not made for dirty tracking' },
  { id: 'dirty-bitmap.ok', errno: '', text: 'bits of dirty pages are set' },
];

const ENABLE = 1;
const NO_CLEAR = 1;

export function setDirtyTracking(call: Call): void {
  const flags = call.struct.u32(4);
  if ((flags & ~ENABLE) !== 0 && call.fail('EOPNOTSUPP', 'dirty-tracking.flags')) return;
  const hwpt = lookup(call, call.struct.u32(8), 'hwpt-paging', 'dirty-tracking.hwpt');
  if (hwpt === undefined) return;
  if (!hwpt.domain.dirtyTracking && call.fail('EOPNOTSUPP', 'dirty-tracking.unsupported')) return;
  if (!call.succeed('dirty-tracking.ok')) return;
  const on = (flags & ENABLE) !== 0;
  const clean = OrderedMap.numeric<U64, Interval>().freeze();
  patchObject(call.tx, call.file.object, hwpt, {
    dirtyOn: on,
    ...(on ? { dirty: clean, maybeDirty: clean } : {}),
  });
}

export function getDirtyBitmap(call: Call): void {
  const s = call.struct;
  const flags = s.u32(8);
  if (((flags & ~NO_CLEAR) !== 0 || s.u32(12) !== 0) && call.fail('EOPNOTSUPP', 'dirty-bitmap.flags')) return;
  const hwpt = lookup(call, s.u32(4), 'hwpt-paging', 'dirty-bitmap.hwpt');
  if (hwpt === undefined) return;
  const ioas = ioasOfObject(call.tx, call.file.object, hwpt.ioas);
  const iova = s.u64(16);
  const span = sub(s.u64(24), 1);
  if (addOverflows(iova, span) && call.fail('EOVERFLOW', 'dirty-bitmap.overflow')) return;
  const last = add(iova, span);
  const pageSize = s.u64(32);
  if (refuseAligned(call, iova, last, ioas.alignment, pageSize)) return;
  if (!hwpt.domain.dirtyTracking && call.fail('EOPNOTSUPP', 'dirty-bitmap.unsupported')) return;
  if (!call.succeed('dirty-bitmap.ok')) return;
  const covered = contiguousLast(ioas, iova, last);
  if (covered === undefined) return;
  tell(call, hwpt, iova, covered, pageSize, s.u64(40), (flags & NO_CLEAR) === 0);
}

function refuseAligned(call: Call, iova: U64, last: U64, alignment: number, pageSize: U64): boolean {
  const end = add(last, 1);
  if ((mod(iova, alignment) !== 0 || mod(end, alignment) !== 0) && call.fail('EINVAL', 'dirty-bitmap.aligned'))
    return true;
  if (pageSize === 0) {
    // Nothing can follow a recording that claims success here.
    call.fail('EINVAL', 'dirty-bitmap.page-size');
    return true;
  }
  const mask = sub(pageSize, 1);
  const uneven = and(iova, mask) !== 0 || and(end, mask) !== 0;
  return uneven && call.fail('EINVAL', 'dirty-bitmap.page-size');
}

/** How far areas follow each other from an IOVA, at most to `last`; undefined when there is none. */
function contiguousLast(ioas: Ioas, iova: U64, last: U64): U64 | undefined {
  let end: U64 | undefined;
  let at = iova;
  for (;;) {
    const area = rangeAt(ioas.areas, at);
    if (area === undefined) return end;
    end = min(area.last, last);
    if (area.last >= last) return end;
    at = add(area.last, 1);
  }
}

/** The bitmap is compared as far as the recording holds it, at most this much. */
const MAX_BITMAP_BYTES = 1 << 20;

function tell(call: Call, hwpt: PagingHwpt, iova: U64, last: U64, pageSize: U64, data: U64, clear: boolean): void {
  const shift = trailingZeros(pageSize);
  const real = hwpt.domain.owner !== 'mock';
  const dirty = real ? [] : overlapping(hwpt.dirty, iova, last);
  const maybe = real ? [{ start: iova, last }] : overlapping(hwpt.maybeDirty, iova, last);
  const note = call.memOut.find((candidate) => candidate.addr === data);
  const before = note === undefined ? undefined : find(call.memIn, data, note.bytes.length);
  if (maybe.length > 0) {
    call.outUnknown(
      data,
      Math.min(note?.bytes.length ?? 0, MAX_BITMAP_BYTES),
      'which pages were written is not recorded',
    );
  } else if (note !== undefined && before !== undefined) {
    const bytes = before.toUint8Array();
    for (const range of dirty) setBits(bytes, iova, max(range.start, iova), min(range.last, last), shift);
    call.outBytes(data, new Bytes(bytes), 'data');
  }
  if (clear) {
    patchObject(call.tx, call.file.object, hwpt, {
      dirty: removeRange(hwpt.dirty, iova, last),
      maybeDirty: removeRange(hwpt.maybeDirty, iova, last),
    });
  } else if (!real && maybe.length > 0 && note !== undefined && before?.isZero())
    adoptTold(call, hwpt, note.bytes, iova, last, shift);
}

function trailingZeros(value: U64): number {
  let bits = 0;
  for (let rest = BigInt(value); (rest & 1n) === 0n; rest >>= 1n) bits++;
  return bits;
}

/** Index of the bit of an IOVA, or a number beyond any bitmap. */
function bitOf(base: U64, iova: U64, shift: number): number {
  const offset = sub(iova, base);
  return typeof offset === 'number' ? Math.floor(offset / 2 ** shift) : Number(BigInt(offset) >> BigInt(shift));
}

function setBits(bytes: Uint8Array, base: U64, start: U64, last: U64, shift: number): void {
  const end = Math.min(bitOf(base, last, shift), bytes.length * 8 - 1);
  for (let bit = bitOf(base, start, shift); bit <= end; bit++) {
    bytes[bit >> 3] = (bytes[bit >> 3] as number) | (1 << (bit & 7));
  }
}

/** A read that did not clear: what it told stays dirty, and what it told clean is clean. */
function adoptTold(call: Call, hwpt: PagingHwpt, told: Bytes, iova: U64, last: U64, shift: number): void {
  const bits = Math.min(told.length * 8, bitOf(iova, last, shift) + 1);
  const size = 2 ** shift;
  let { dirty } = hwpt;
  for (let bit = 0; bit < bits; bit++) {
    if (((told.u8(bit >> 3) >> (bit & 7)) & 1) === 0) continue;
    const start = add(iova, bit * size);
    dirty = addRange(dirty, start, min(add(start, size - 1), last));
  }
  const knownLast = min(last, sub(add(iova, bits * size), 1));
  const maybeDirty = bits === 0 ? hwpt.maybeDirty : removeRange(hwpt.maybeDirty, iova, knownLast);
  patchObject(call.tx, call.file.object, hwpt, { dirty, maybeDirty });
}
