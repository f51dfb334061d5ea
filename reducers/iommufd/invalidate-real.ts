import { modPow2, U64_MAX } from '../../core/u64.js';
import type { Call } from '../call.js';
import { allDone, allEntries, exactEntry, type Outcome, refused, word } from './invalidate-array.js';
import { PAGE } from './iopt.js';
import type { Viommu } from './state.js';

/**
 * Invalidation requests to real hardware. They change nothing that a later call can see.
 */
const DATA_VTD_S1 = 0;
const DATA_ARM_SMMUV3 = 1;
const VTD_BYTES = 24;
const VTD_LEAF = 1;

/** `intel_nested_cache_invalidate_user`: entries of {addr, npages, flags, reserved}, done one by one. */
export function intelRequests(call: Call, count: number): Outcome | undefined {
  if (call.struct.u32(16) !== DATA_VTD_S1) return refused('EINVAL', 'invalidate.data-type');
  for (let i = 0; i < count; i++) {
    const entry = exactEntry(call, i, VTD_BYTES);
    if ('end' in entry) return entry.end;
    const { bytes } = entry;
    if ((bytes.u32(16) & ~VTD_LEAF) !== 0 || bytes.u32(20) !== 0) return refused('EOPNOTSUPP', 'invalidate.flags', i);
    const address = bytes.u64(0);
    const all = bytes.u64(8) === U64_MAX;
    if (modPow2(address, PAGE) !== 0 || (all && address !== 0)) return refused('EINVAL', 'invalidate.entry', i);
  }
  return allDone(count);
}

const SMMU_BYTES = 16;
/** TLBI_NH_ALL, NH_ASID, NH_VA, NH_VAA, NSNH_ALL: the kernel puts the guest's VMID in. */
const TLBI = new Set([0x10, 0x11, 0x12, 0x13, 0x30]);
/** CFGI_CD, CFGI_CD_ALL, ATC_INV: the kernel looks the stream up among the vDEVICEs. */
const BY_STREAM = new Set([0x05, 0x06, 0x40]);

/** `arm_vsmmu_cache_invalidate`: commands of two words; all are read before the first is given. */
export function smmuRequests(call: Call, viommu: Viommu, count: number): Outcome | undefined {
  const entries = allEntries(call, count, SMMU_BYTES, DATA_ARM_SMMUV3);
  if ('end' in entries) return entries.end;
  for (const [i, entry] of entries.entries()) {
    const operation = word(entry, 0) & 0xff;
    const known = TLBI.has(operation) || (BY_STREAM.has(operation) && viommu.vdevices.has(word(entry, 4)));
    if (!known) return refused('EIO', 'invalidate.command', i);
  }
  return allDone(count);
}
