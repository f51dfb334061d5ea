import { addOverflows, lastOf, mod, sub, type U64, U64_MAX } from '../../../core/u64.js';
import type { Call } from '../../call.js';
import { takeBytes } from '../payload.js';
import { refuse, type Rule } from '../rules.js';
import type { VfioDevice } from '../state.js';

/**
 * Features DMA_LOGGING_START and DMA_LOGGING_REPORT (`vfio_ioctl_device_feature_logging_start` and `_report`): the
 * checks that the VFIO core makes before the driver sees the request. Start: page_size 8, num_ranges 16, ranges 24 (each
 * iova, length); report: iova 8, length 16, page_size 24, bitmap 32. mtty accepts what passes, and logs nothing.
 */
export const LOGGING_RULES = {
  none: { id: 'logging-start.none', errno: 'EINVAL', text: 'num_ranges is 0' },
  tooMany: { id: 'logging-start.too-many', errno: 'E2BIG', text: 'more than 256 ranges' },
  copyIn: { id: 'logging-start.copy-in', errno: 'EFAULT', text: 'the ranges are no user memory' },
  aligned: { id: 'logging-start.aligned', errno: 'EINVAL', text: 'a range is no multiple of page_size' },
  overflow: { id: 'logging-start.overflow', errno: 'EOVERFLOW', text: 'a range passes 2^64' },
  overlap: { id: 'logging-start.overlap', errno: 'EINVAL', text: 'two ranges overlap' },
  reportPage: {
    id: 'logging-report.page-size',
    errno: 'EINVAL',
    text: 'page_size is less than 4096 or no power of two',
  },
  reportOverflow: { id: 'logging-report.overflow', errno: 'EOVERFLOW', text: 'iova + length passes 2^64' },
} as const satisfies Record<string, Rule>;

const R = LOGGING_RULES;
const MAX_RANGES = 256;
const RANGE_BYTES = 16;
const MIN_PAGE = 4096;

export function loggingStart(call: Call, device: VfioDevice): void {
  const { struct } = call;
  const count = struct.u32(16);
  if (count === 0 && refuse(call, R.none)) return;
  if (count > MAX_RANGES && refuse(call, R.tooMany)) return;
  const ranges = takeBytes(call, struct.u64(24), Math.min(count, MAX_RANGES) * RANGE_BYTES, R.copyIn);
  if (ranges === undefined) return;
  const page = struct.u64(8);
  const taken: { start: U64; last: U64 }[] = [];
  for (let i = 0; i < ranges.length; i += RANGE_BYTES) {
    const iova = ranges.u64(i);
    const length = ranges.u64(i + 8);
    if (!(aligned(iova, page) && aligned(length, page)) && refuse(call, R.aligned)) return;
    if (addOverflows(iova, length) && refuse(call, R.overflow)) return;
    // A range of no bytes ends before it begins; at 0 that is the last address of all.
    const last = length === 0 ? before(iova) : (lastOf(iova, length) ?? U64_MAX);
    if (taken.some((one) => one.start <= last && one.last >= iova) && refuse(call, R.overlap)) return;
    taken.push({ start: iova, last });
  }
  if (device.driver === 'mtty') call.succeed('logging-start.mtty');
  else call.unknown('what the driver accepts for DMA logging is its own affair');
}

function before(address: U64): U64 {
  return address === 0 ? U64_MAX : sub(address, 1);
}

/** `IS_ALIGNED` masks with page - 1, whatever page is; a page size that is no power of two is the driver's problem. */
function aligned(value: U64, page: U64): boolean {
  if (page === 0) return value === 0;
  return isPowerOfTwo(page) ? mod(value, page) === 0 : (BigInt(value) & (BigInt(page) - 1n)) === 0n;
}

function isPowerOfTwo(value: U64): boolean {
  const big = BigInt(value);
  return big !== 0n && (big & (big - 1n)) === 0n;
}

export function loggingReport(call: Call, device: VfioDevice): void {
  const { struct } = call;
  const page = struct.u64(24);
  if ((page < MIN_PAGE || !isPowerOfTwo(page)) && refuse(call, R.reportPage)) return;
  if (addOverflows(struct.u64(8), struct.u64(16)) && refuse(call, R.reportOverflow)) return;
  if (device.driver === 'mtty') call.succeed('logging-report.mtty');
  else call.unknown('which pages the device wrote is not in the recording');
}
