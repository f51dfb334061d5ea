import { Bytes, putU64 } from '../../core/bytes.js';
import { firstOverlap, type Interval } from '../../core/interval.js';
import { OrderedMap } from '../../core/ordered-map.js';
import { add, mul, type U64 } from '../../core/u64.js';
import type { Call } from '../call.js';
import { find, unknownSinceText } from '../answer.js';
import {
  addIoas,
  contextOf,
  handOutId,
  lookup,
  lookupIoas,
  markContextUnknown,
  objectOf,
  patchContext,
  patchIoas,
  recorded32,
} from './context.js';
import { hardwareUnknown, usableRanges } from './iopt.js';
import { learnRanges, pendingText, rangeCountKey, rangesFrom } from './limits.js';
import { predictRefusal } from './refuse.js';
import type { Rule } from './rules.js';
import type { Ioas } from './state.js';
import { probeBuffer } from './user-buffer.js';

/**
 * IOAS_ALLOC, IOVA_RANGES, ALLOW_IOVAS and VFIO_IOAS (drivers/iommu/iommufd/ioas.c, vfio_compat.c).
 *
 * IOVA_RANGES tells the holes between reserved ranges: as many as fit the caller's array are written, their full
 * count always, and EMSGSIZE says that there were more. Of an IOAS whose hardware limits are not known yet
 * the answer is learned.
 * ALLOW_IOVAS replaces the whole set or, when one range is reserved, changes nothing.
 */
export const IOAS_RULES: readonly Rule[] = [
  { id: 'ioas-alloc.flags', errno: 'EOPNOTSUPP', text: 'a flag is set' },
  { id: 'ioas-alloc.ok', errno: '', text: 'an empty IOAS is made' },
  { id: 'iova-ranges.reserved', errno: 'EOPNOTSUPP', text: 'the reserved field is not 0' },
  { id: 'iova-ranges.ioas', errno: 'ENOENT', text: 'no IOAS has the id' },
  { id: 'iova-ranges.fault', errno: 'EFAULT', text: 'the array cannot be written' },
  { id: 'iova-ranges.size', errno: 'EMSGSIZE', text: 'there are more ranges than the array holds' },
  { id: 'iova-ranges.ok', errno: '', text: 'all ranges are told' },
  { id: 'allow-iovas.reserved', errno: 'EOPNOTSUPP', text: 'the reserved field is not 0' },
  { id: 'allow-iovas.ioas', errno: 'ENOENT', text: 'no IOAS has the id' },
  { id: 'allow-iovas.fault', errno: 'EFAULT', text: 'the array cannot be read' },
  { id: 'allow-iovas.order', errno: 'EINVAL', text: 'a range does not end after its start' },
  { id: 'allow-iovas.overlap', errno: 'EINVAL', text: 'two ranges overlap' },
  { id: 'allow-iovas.in-use', errno: 'EADDRINUSE', text: 'a range is reserved' },
  { id: 'allow-iovas.ok', errno: '', text: 'the allowed ranges are replaced' },
  { id: 'vfio-ioas.reserved', errno: 'EOPNOTSUPP', text: 'the reserved field is not 0' },
  { id: 'vfio-ioas.none', errno: 'ENODEV', text: 'there is no compatibility IOAS' },
  { id: 'vfio-ioas.ioas', errno: 'ENOENT', text: 'no IOAS has the id' },
  { id: 'vfio-ioas.op', errno: 'EOPNOTSUPP', text: 'no such operation' },
  { id: 'vfio-ioas.ok', errno: '', text: 'the compatibility IOAS is told, set or cleared' },
];

export function ioasAlloc(call: Call): void {
  if (call.struct.u32(4) !== 0 && call.fail('EOPNOTSUPP', 'ioas-alloc.flags')) return;
  if (!call.succeed('ioas-alloc.ok')) return;
  addIoas(call.tx, call.file.object, handOutId(call, 8, 'out_ioas_id'), call.event.seq);
}

// ---- IOVA_RANGES --------------------------------------------------------------------------------------------

/** An array that a client gives for ranges it does not know yet has room for all in practice. */
const ROOMY = 16;

export function iovaRanges(call: Call): void {
  const s = call.struct;
  if (s.u32(12) !== 0 && call.fail('EOPNOTSUPP', 'iova-ranges.reserved')) return;
  const ioas = lookupIoas(call, s.u32(4), 'iova-ranges.ioas');
  if (ioas === undefined) return;
  const capacity = s.u32(8);
  const array = s.u64(16);
  if (ioas.unknownHardware.length > 0) {
    if (capacity > 0 && faults(call, array, 1)) return;
    learnFromAnswer(call, ioas, capacity, array);
    return;
  }
  if (ioas.unknownSince >= 0) {
    call.unknown(unknownSinceText('reserved ranges', ioas.unknownSince));
    return;
  }
  writeRanges(call, ioas, [...usableRanges(ioas)], capacity, array);
}

/** Predicts EFAULT where the caller's array cannot take so many ranges: each is copied at once when it is found. */
function faults(call: Call, array: U64, count: number): boolean {
  return probeBuffer(call, array, count * 16, true) === 'fault' && call.fail('EFAULT', 'iova-ranges.fault');
}

function writeRanges(call: Call, ioas: Ioas, ranges: readonly Interval[], capacity: number, array: U64): void {
  const written = Math.min(capacity, ranges.length);
  if (faults(call, array, written)) return;
  const fits = ranges.length <= capacity;
  if (fits) call.succeed('iova-ranges.ok');
  else call.fail('EMSGSIZE', 'iova-ranges.size');
  if (call.recordedErrno !== (fits ? '' : 'EMSGSIZE')) return;
  call.out32(8, ranges.length, 'num_iovas');
  call.out64(24, ioas.alignment, 'out_iova_alignment');
  if (written === 0) return;
  const bytes = new Uint8Array(written * 16);
  for (let i = 0; i < written; i++) {
    putU64(bytes, i * 16, (ranges[i] as Interval).start);
    putU64(bytes, i * 16 + 8, (ranges[i] as Interval).last);
  }
  call.outBytes(array, new Bytes(bytes), 'allowed_iovas');
}

/** The first answers about an IOAS whose limits nobody knows: the count, then the ranges. */
function learnFromAnswer(call: Call, ioas: Ioas, capacity: number, array: U64): void {
  const pending = pendingText(call.tx, ioas);
  const countKey = rangeCountKey(call.tx, ioas);
  const told = call.tx.world.facts.get(countKey)?.value;
  const count = told instanceof Bytes ? told.u32(0) : undefined;
  if (capacity === 0 || (count !== undefined && count > capacity)) {
    call.fail('EMSGSIZE', 'iova-ranges.size');
    if (call.recordedErrno !== 'EMSGSIZE') return;
    learnCount(call, ioas, countKey);
    if (capacity > 0) call.outUnknown(array, capacity * 16, `reserved ranges of ${pending} not recorded yet`);
    return;
  }
  if (count === undefined && capacity < ROOMY) {
    if (!call.unknown(`reserved ranges of ${pending} not recorded yet`)) return;
  } else if (!call.succeed('iova-ranges.ok')) return;
  const length = recorded32(call, 8);
  const bytes = length === undefined ? undefined : find(call.memOut, array, length * 16);
  if (length === undefined || bytes === undefined) {
    call.outUnknown(array, Math.min(capacity, 64) * 16, 'ranges not recorded');
    return;
  }
  const ranges = rangesFrom(new Bytes(bytes.toUint8Array()));
  if (!learnRanges(call.tx, ioas.id, ranges, call.event.seq)) {
    // What is known to be reserved does not allow the answer.
    writeRanges(call, ioas, [...usableRanges(ioas)], capacity, array);
    return;
  }
  learnCount(call, ioas, countKey);
  call.noteLearned();
  call.outBytes(array, new Bytes(bytes.toUint8Array()), 'allowed_iovas');
}

function learnCount(call: Call, ioas: Ioas, countKey: string): void {
  call.learn32(8, countKey, 'num_iovas');
  call.out64(24, ioas.alignment, 'out_iova_alignment');
}

// ---- ALLOW_IOVAS --------------------------------------------------------------------------------------------

export function allowIovas(call: Call): void {
  const s = call.struct;
  if (s.u32(12) !== 0 && call.fail('EOPNOTSUPP', 'allow-iovas.reserved')) return;
  const ioas = lookupIoas(call, s.u32(4), 'allow-iovas.ioas');
  if (ioas === undefined) return;
  const ranges = loadRanges(call, s.u32(8), s.u64(16), ioas);
  if (ranges === undefined) return;
  for (const range of ranges.values()) {
    if (firstOverlap(ioas.blocked, range.start, range.last) === undefined) continue;
    if (call.fail('EADDRINUSE', 'allow-iovas.in-use')) return;
    break;
  }
  for (const range of ranges.values()) {
    const inDoubt = hardwareUnknown(ioas, range.last, 'EADDRINUSE');
    if (inDoubt !== undefined) predictRefusal(call, inDoubt);
  }
  const since = ioas.unknownSince;
  if (since >= 0 && call.failedByFact('EADDRINUSE', unknownSinceText('reserved ranges', since))) return;
  if (call.succeed('allow-iovas.ok')) patchIoas(call.tx, ioas.id, { allowed: call.tx.adopt(ranges) });
}

/** Reads and checks the caller's array one by one, as the kernel does; undefined after a prediction was made. */
function loadRanges(call: Call, count: number, array: U64, ioas: Ioas): OrderedMap<U64, Interval> | undefined {
  const ranges = OrderedMap.numeric<U64, Interval>();
  for (let i = 0; i < count; i++) {
    const bytes = call.bytesAt(add(array, mul(i, 16)), 16);
    if (bytes === undefined) {
      const address = add(array, mul(i, 16));
      if (probeBuffer(call, address, 16, false) === 'fault') call.fail('EFAULT', 'allow-iovas.fault');
      else if (call.unknown('payload not recorded')) patchIoas(call.tx, ioas.id, { unknownSince: call.event.seq });
      return undefined;
    }
    const start = bytes.u64(0);
    const last = bytes.u64(8);
    if (start >= last) {
      call.fail('EINVAL', 'allow-iovas.order');
      return undefined;
    }
    if (firstOverlap(ranges, start, last) !== undefined) {
      call.fail('EINVAL', 'allow-iovas.overlap');
      return undefined;
    }
    ranges.set(start, Object.freeze({ start, last }));
  }
  return ranges;
}

// ---- VFIO_IOAS ----------------------------------------------------------------------------------------------

const VFIO_IOAS_GET = 0;
const VFIO_IOAS_SET = 1;
const VFIO_IOAS_CLEAR = 2;

export function vfioIoas(call: Call): void {
  const s = call.struct;
  const { tx } = call;
  const contextId = call.file.object;
  if (s.u16(10) !== 0 && call.fail('EOPNOTSUPP', 'vfio-ioas.reserved')) return;
  switch (s.u16(8)) {
    case VFIO_IOAS_GET: {
      const { vfioIoas: id, unknownSince } = contextOf(tx, contextId);
      if (id === 0 && unknownSince >= 0) call.unknown(unknownSinceText('objects', unknownSince));
      else if (id === 0) call.fail('ENODEV', 'vfio-ioas.none');
      else if (call.succeed('vfio-ioas.ok')) call.out32(4, id, 'ioas_id');
      if (id === 0) adoptCompatIoas(call);
      return;
    }
    case VFIO_IOAS_SET: {
      const object = lookup(call, s.u32(4), 'ioas', 'vfio-ioas.ioas');
      if (object !== undefined && call.succeed('vfio-ioas.ok')) patchContext(tx, contextId, { vfioIoas: object.id });
      return;
    }
    case VFIO_IOAS_CLEAR:
      if (call.succeed('vfio-ioas.ok')) patchContext(tx, contextId, { vfioIoas: 0 });
      return;
    default:
      call.fail('EOPNOTSUPP', 'vfio-ioas.op');
  }
}

/** A recorded answer that names a compatibility IOAS which no event made. */
function adoptCompatIoas(call: Call): void {
  if (call.recordedErrno !== '' || call.recordedRet === null) return;
  const id = recorded32(call, 4);
  if (id === undefined || id === 0) return;
  const contextId = call.file.object;
  const known = objectOf(call.tx, contextId, id);
  if (known === undefined) addIoas(call.tx, contextId, id, call.event.seq, call.event.seq);
  // An id that something else has is gone in the kernel; what has taken its place is not known.
  if (known === undefined || known.type === 'ioas') patchContext(call.tx, contextId, { vfioIoas: id });
  else markContextUnknown(call.tx, contextId, call.event.seq);
}
