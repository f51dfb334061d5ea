import type { Call } from '../call.js';
import { patchObject, typedObject } from './context.js';
import { allDone, allEntries, exactEntry, type Outcome, refused, word } from './invalidate-array.js';
import type { NestedHwpt, Viommu } from './state.js';

/** Invalidation requests to the mock driver (drivers/iommu/iommufd/selftest.c). */
const DATA_SELFTEST = 0xdeadbeef;
const FLAG_ALL = 1;
const MAX_CACHE_ID = 3;

/** `mock_domain_cache_invalidate_user`: entries of {flags, iotlb_id}, done one by one. */
export function nestedIotlb(call: Call, hwpt: NestedHwpt, count: number): Outcome | undefined {
  if (call.struct.u32(16) !== DATA_SELFTEST) return refused('EINVAL', 'invalidate.data-type');
  const iotlb = [...hwpt.iotlb];
  const apply = (): void => {
    patchObject(call.tx, call.file.object, hwpt, { iotlb: Object.freeze(iotlb) });
  };
  for (let i = 0; i < count; i++) {
    const entry = exactEntry(call, i, 8, apply);
    if ('end' in entry) return entry.end;
    const flags = word(entry.bytes, 0);
    const id = word(entry.bytes, 4);
    if ((flags & ~FLAG_ALL) !== 0) return refused('EOPNOTSUPP', 'invalidate.flags', i, apply);
    if (id > MAX_CACHE_ID) return refused('EINVAL', 'invalidate.entry', i, apply);
    if (flags & FLAG_ALL) iotlb.fill(0);
    else iotlb[id] = 0;
  }
  return allDone(count, apply);
}

/** `mock_viommu_cache_invalidate`: entries of {flags, vdev_id, cache_id}; no entries of the right type are fine. */
export function viommuCaches(call: Call, viommu: Viommu, count: number): Outcome | undefined {
  if (count === 0 && call.struct.u32(16) === DATA_SELFTEST) return allDone(0);
  const entries = allEntries(call, count, 12, DATA_SELFTEST);
  if ('end' in entries) return entries.end;
  const caches = new Map<number, number[]>();
  const apply = (): void => {
    for (const [id, cache] of caches) setCache(call, id, cache);
  };
  for (const [i, entry] of entries.entries()) {
    const flags = word(entry, 0);
    const cacheId = word(entry, 8);
    if ((flags & ~FLAG_ALL) !== 0) return refused('EOPNOTSUPP', 'invalidate.flags', i, apply);
    if (cacheId > MAX_CACHE_ID) return refused('EINVAL', 'invalidate.entry', i, apply);
    const device = deviceByVirtualId(call, viommu, word(entry, 4));
    if (device === undefined) return refused('EINVAL', 'invalidate.entry', i, apply);
    const cache = caches.get(device.id) ?? [...device.cache];
    if (flags & FLAG_ALL) cache.fill(0);
    else cache[cacheId] = 0;
    caches.set(device.id, cache);
  }
  return allDone(count, apply);
}

function deviceByVirtualId(
  call: Call,
  viommu: Viommu,
  id: number,
): { id: number; cache: readonly number[] } | undefined {
  const vdevice = typedObject(call.tx, call.file.object, viommu.vdevices.get(id) ?? 0, 'vdevice');
  const device = vdevice && typedObject(call.tx, call.file.object, vdevice.device, 'device');
  return device?.mock ? { id: device.id, cache: device.mock.cache } : undefined;
}

function setCache(call: Call, deviceId: number, cache: number[]): void {
  const device = typedObject(call.tx, call.file.object, deviceId, 'device');
  if (device?.mock)
    patchObject(call.tx, call.file.object, device, {
      mock: Object.freeze({ ...device.mock, cache: Object.freeze(cache) }),
    });
}
