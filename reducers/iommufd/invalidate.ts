import type { Call } from '../call.js';
import { missing, objectOf } from './context.js';
import { needs, viommuKind } from './hardware.js';
import { nestedIotlb, viommuCaches } from './invalidate-mock.js';
import { intelRequests, smmuRequests } from './invalidate-real.js';
import { type Outcome, refused } from './invalidate-array.js';
import { PAGE } from './iopt.js';
import type { Rule } from './rules.js';
import type { NestedHwpt, Viommu } from './state.js';

/**
 * HWPT_INVALIDATE (drivers/iommu/iommufd/hw_pagetable.c).
 *
 * A nested HWPT or a vIOMMU hands an array of requests to its driver, which stops at the first bad one. Whatever the
 * result, the kernel writes the struct back with the number of requests that were done. Requests that were
 * done before a bad one have taken effect. VT-d takes them for a HWPT, SMMUv3 and Tegra's CMDQV for a vIOMMU, the mock for
 * both; AMD-Vi takes none.
 */
export const INVALIDATE_RULES: readonly Rule[] = [
  { id: 'invalidate.reserved', errno: 'EOPNOTSUPP', text: 'the reserved field is not 0' },
  { id: 'invalidate.array', errno: 'EINVAL', text: 'the array has no address, or too many or too long entries' },
  { id: 'invalidate.object', errno: 'ENOENT', text: 'no object has the id' },
  { id: 'invalidate.type', errno: 'EINVAL', text: 'the object is neither nested HWPT nor vIOMMU' },
  { id: 'invalidate.driver', errno: 'EOPNOTSUPP', text: 'the driver takes no requests for such an object' },
  { id: 'invalidate.memory', errno: 'ENOMEM', text: 'a copy of all requests would be larger than 4 MiB' },
  { id: 'invalidate.data-type', errno: 'EINVAL', text: 'the driver does not know the type of data' },
  { id: 'invalidate.empty', errno: 'EINVAL', text: 'the SMMUv3 driver wants at least one request' },
  { id: 'invalidate.entry-size', errno: 'EINVAL', text: 'entries are shorter or longer than the driver takes' },
  { id: 'invalidate.entry-fault', errno: 'EFAULT', text: 'the array cannot be read' },
  { id: 'invalidate.entry-tail', errno: 'E2BIG', text: 'an entry has bytes that the driver does not know' },
  { id: 'invalidate.flags', errno: 'EOPNOTSUPP', text: 'an entry has an unknown flag or a reserved field' },
  { id: 'invalidate.entry', errno: 'EINVAL', text: 'an entry names a cache, device or range that does not exist' },
  { id: 'invalidate.command', errno: 'EIO', text: 'a guest may not give the command, or names no vDEVICE' },
  { id: 'invalidate.ok', errno: '', text: 'all requests are done' },
];

const MAX_ENTRIES = 1 << 19;

export function hwptInvalidate(call: Call): void {
  const outcome = judge(call);
  if (outcome === undefined) return;
  const agreed = outcome.errno === '' ? call.succeed('invalidate.ok') : call.fail(outcome.errno, outcome.rule);
  if (call.recordedErrno !== outcome.errno || !agreed) return;
  call.out32(24, outcome.done, 'entry_num');
  outcome.apply();
}

/** How the call ends; undefined after it was answered `unknown`, or by a fact that was told before. */
function judge(call: Call): Outcome | undefined {
  const s = call.struct;
  const count = s.u32(24);
  const entryLength = s.u32(20);
  if (s.u32(28) !== 0) return refused('EOPNOTSUPP', 'invalidate.reserved');
  const badArray = s.u64(8) === 0 || entryLength === 0 || entryLength > PAGE || count > MAX_ENTRIES;
  if (count !== 0 && badArray) return refused('EINVAL', 'invalidate.array');
  const object = objectOf(call.tx, call.file.object, s.u32(4));
  if (object === undefined) {
    missing(call, call.file.object, 'invalidate.object');
    if (call.recordedErrno === 'ENOENT') call.out32(24, 0, 'entry_num');
    return undefined;
  }
  switch (object.type) {
    case 'hwpt-nested':
      return ofHwpt(call, object, count);
    case 'viommu':
      return ofViommu(call, object, count);
    default:
      return refused('EINVAL', 'invalidate.type');
  }
}

/** Only VT-d's nested HWPTs stand on a HWPT, and only its driver takes requests for them. */
function ofHwpt(call: Call, hwpt: NestedHwpt, count: number): Outcome | undefined {
  if (hwpt.owner === 'mock') return nestedIotlb(call, hwpt, count);
  return hwpt.viommu === 0 ? intelRequests(call, count) : refused('EOPNOTSUPP', 'invalidate.driver');
}

function ofViommu(call: Call, viommu: Viommu, count: number): Outcome | undefined {
  switch (viommuKind(call.tx, viommu)) {
    case 'mock':
      return viommuCaches(call, viommu, count);
    case 'smmuv3':
    case 'tegra':
      return smmuRequests(call, viommu, count);
    case 'unknown': {
      const { owner } = viommu;
      if (needs(call, owner, 'vIOMMU requests', undefined, 'EOPNOTSUPP', 'invalidate.driver', 'smmuv3')) {
        call.out32(24, 0, 'entry_num');
        return undefined;
      }
      return smmuRequests(call, viommu, count);
    }
    default:
      return refused('EOPNOTSUPP', 'invalidate.driver');
  }
}
