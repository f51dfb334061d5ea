import { add, addOverflows, modPow2, type U64 } from '../../../core/u64.js';
import type { Call } from '../../call.js';
import { installFd } from '../../files/fds.js';
import { succeedWithFd } from '../../new-fd.js';
import { PAYLOAD_RULES, takeBytes } from '../payload.js';
import { refuse, type Rule } from '../rules.js';
import type { VfioDevice } from '../state.js';
import { PCI_ROM_REGION } from '../uapi.js';
import { configOf, isPorts } from './config-space.js';
import { regionBytes } from './region.js';
import { PAGE_BYTES } from '../../memory/flags.js';

/**
 * Feature DMA_BUF (vfio_pci_dmabuf.c, `vfio_pci_core_feature_dma_buf`): a dma-buf over parts of a BAR, for other
 * devices to reach it. Data: region_index 8, open_flags 12, flags 16, nr_ranges 20, ranges of offset and length
 * from 24. The call returns an fd.
 */
export const DMA_BUF_RULES = {
  header: { id: 'dma-buf.header', errno: 'EINVAL', text: 'no ranges, or flags is not 0' },
  bar: { id: 'dma-buf.bar', errno: 'ENODEV', text: 'the region is no BAR that the device has' },
  tooMany: { id: 'dma-buf.too-many', errno: 'ENOMEM', text: 'more than 262144 ranges' },
  range: { id: 'dma-buf.range', errno: 'EINVAL', text: 'a range is empty or no multiple of a page' },
  total: { id: 'dma-buf.total', errno: 'EINVAL', text: 'the ranges together reach 2^63 bytes' },
  ports: { id: 'dma-buf.ports', errno: 'EINVAL', text: 'the BAR is of I/O ports' },
  overflow: { id: 'dma-buf.overflow', errno: 'EOVERFLOW', text: 'a range passes 2^64' },
  beyond: { id: 'dma-buf.beyond', errno: 'EINVAL', text: 'a range ends beyond the BAR' },
} as const satisfies Record<string, Rule>;

const R = DMA_BUF_RULES;
const RANGES_AT = 24;
const RANGE_BYTES = 16;
/** All of them have to fit into 4 MiB, the most that the kernel allocates in one piece. */
const MAX_RANGES = 2 ** 18;
const TOTAL_LIMIT = 1n << 63n;
const NO_SIZE = 'the size of the BAR was not asked yet (GET_REGION_INFO)';
const O_CLOEXEC = 0x8_0000;
/** From here on an offset and a physical address of 52 bits may pass 2^64. */
const PHYSICAL_UNSURE = (1n << 64n) - (1n << 52n);

export function dmaBuf(call: Call, device: VfioDevice): void {
  const { struct } = call;
  const count = struct.u32(20);
  if ((count === 0 || struct.u32(16) !== 0) && refuse(call, R.header)) return;
  const bar = struct.u32(8);
  const size = bar < PCI_ROM_REGION ? regionBytes(call, device, bar) : 0;
  if (size === 0 && refuse(call, R.bar)) return;
  if (size === undefined && call.failedByFact(R.bar.errno, NO_SIZE)) return;
  if (count > MAX_RANGES && refuse(call, R.tooMany)) return;
  const ranges = takeBytes(call, add(call.arg, RANGES_AT), count * RANGE_BYTES, PAYLOAD_RULES.copyIn);
  if (ranges === undefined) return;
  const pairs: [U64, U64][] = [];
  for (let at = 0; at < ranges.length; at += RANGE_BYTES) pairs.push([ranges.u64(at), ranges.u64(at + 8)]);
  if (rangesRefused(call, pairs)) return;
  if (isPorts(configOf(call.tx, device), bar) === true && refuse(call, R.ports)) return;
  if (size === undefined) call.unknown(NO_SIZE);
  else if (beyond(call, pairs, size)) return;
  returnFd(call, struct.u32(12));
}

function rangesRefused(call: Call, pairs: readonly (readonly [U64, U64])[]): boolean {
  let total = 0n;
  for (const [offset, length] of pairs) {
    const odd = length === 0 || modPow2(offset, PAGE_BYTES) + modPow2(length, PAGE_BYTES) !== 0;
    if (odd && refuse(call, R.range)) return true;
    total += BigInt(length);
  }
  return total >= TOTAL_LIMIT && refuse(call, R.total);
}

function beyond(call: Call, pairs: readonly (readonly [U64, U64])[], size: U64): boolean {
  for (const [offset, length] of pairs) {
    if (addOverflows(offset, length)) {
      if (refuse(call, R.overflow)) return true;
      continue;
    }
    const end = add(offset, length);
    if (end <= size) continue;
    // The kernel counts from where the BAR is in physical memory, which the recording does not tell.
    if (end < PHYSICAL_UNSURE) return refuse(call, R.beyond);
    call.unknown('where the BAR is in physical memory: EINVAL or EOVERFLOW');
    return true;
  }
  return false;
}

function returnFd(call: Call, openFlags: number): void {
  const fd = succeedWithFd(call, 'dma-buf.ok');
  if (fd === undefined) return;
  const cloexec = (openFlags & O_CLOEXEC) !== 0;
  installFd(call.tx, call.process, fd, { kind: 'dma-buf', path: '', cloexec }, call.event, call.families);
}
