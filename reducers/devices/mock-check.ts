import { addOverflows, lastOf, mod, U64_MAX } from '../../core/u64.js';
import type { Call } from '../call.js';
import { lookup } from '../iommufd/context.js';
import { smallestPage } from '../iommufd/domain.js';
import type { Rule } from '../iommufd/rules.js';
import { sameMemory } from './mock-compare.js';
import { REFS_RULES } from './mock-refs.js';

/**
 * Questions of the self-tests about the kernel's own state (drivers/iommu/iommufd/selftest.c): does a domain map the
 * same pages as a user address, how often are pages pinned, what is in the IOTLB of a nested domain or the cache of a
 * device. They change nothing; a model that answers them right holds the same state as the kernel.
 */
export const CHECK_RULES: readonly Rule[] = [
  { id: 'check-map.hwpt', errno: 'ENOENT', text: 'no paging HWPT has the id' },
  { id: 'check-map.owner', errno: 'EINVAL', text: 'the HWPT is of a real IOMMU' },
  { id: 'check-map.aligned', errno: 'EINVAL', text: 'IOVA, length or address is no multiple of the smallest page' },
  { id: 'check-map.fault', errno: 'EFAULT', text: 'the address is not mapped' },
  { id: 'check-map.other', errno: 'EINVAL', text: 'the domain maps other memory there, or none' },
  { id: 'check-map.ok', errno: '', text: 'the domain maps the memory at the address' },
  ...REFS_RULES,
  { id: 'check-iotlb.hwpt', errno: 'ENOENT', text: 'no nested HWPT has the id' },
  { id: 'check-iotlb.value', errno: 'EINVAL', text: 'there is no such entry, or it holds another value' },
  { id: 'check-iotlb.ok', errno: '', text: 'the entry holds the value' },
  { id: 'check-cache.device', errno: 'ENOENT', text: 'no device has the id' },
  { id: 'check-cache.value', errno: 'EINVAL', text: 'there is no such entry, or it holds another value' },
  { id: 'check-cache.ok', errno: '', text: 'the entry holds the value' },
];

const MAX_ID = 3;

export function checkMap(call: Call): void {
  const s = call.struct;
  const iova = s.u64(16);
  const length = s.u64(24);
  const address = s.u64(32);
  const hwpt = lookup(call, s.u32(8), 'hwpt-paging', 'check-map.hwpt');
  if (hwpt === undefined) return;
  if (hwpt.domain.owner !== 'mock' && call.fail('EINVAL', 'check-map.owner')) return;
  const page = smallestPage(hwpt.domain);
  const uneven = mod(iova, page) !== 0 || mod(length, page) !== 0 || mod(address, page) !== 0;
  if ((uneven || addOverflows(address, length)) && call.fail('EINVAL', 'check-map.aligned')) return;
  if (length !== 0) {
    // No mock domain reaches the end of the address space: a range that passes it differs before.
    const last = lastOf(iova, length) ?? U64_MAX;
    const same = sameMemory(call, call.file.object, hwpt.ioas, iova, last, address);
    if (same === 'fault' && call.fail('EFAULT', 'check-map.fault')) return;
    if (same === 'other' && call.fail('EINVAL', 'check-map.other')) return;
    if (typeof same === 'object') call.unknown(same.unknown);
  }
  call.succeed('check-map.ok');
}

// ---- IOTLB and device caches --------------------------------------------------------------------------------

export function checkIotlb(call: Call): void {
  const s = call.struct;
  const hwpt = lookup(call, s.u32(8), 'hwpt-nested', 'check-iotlb.hwpt');
  if (hwpt === undefined) return;
  const id = s.u32(16);
  if ((id > MAX_ID || hwpt.iotlb[id] !== s.u32(20)) && call.fail('EINVAL', 'check-iotlb.value')) return;
  call.succeed('check-iotlb.ok');
}

export function checkCache(call: Call): void {
  const s = call.struct;
  const device = lookup(call, s.u32(8), 'device', 'check-cache.device');
  if (device === undefined) return;
  if (device.mock === null) {
    call.unknown('the kernel takes any device for a mock device here');
    return;
  }
  const id = s.u32(16);
  if ((id > MAX_ID || device.mock.cache[id] !== s.u32(20)) && call.fail('EINVAL', 'check-cache.value')) return;
  call.succeed('check-cache.ok');
}
