import type { Bytes } from '../../core/bytes.js';
import { add, mul } from '../../core/u64.js';
import type { Call } from '../call.js';
import { missing, objectOf, patchObject, typedObject } from './context.js';
import { PAGE } from './iopt.js';
import type { Rule } from './rules.js';
import type { NestedHwpt, Viommu } from './state.js';

/**
 * HWPT_INVALIDATE (drivers/iommu/iommufd/hw_pagetable.c; for mock devices selftest.c).
 *
 * A nested HWPT or a vIOMMU hands an array of requests to its driver, which stops at the first bad one. Whatever the
 * result, the kernel writes the struct back with the number of requests that were done. Requests that were
 * done before a bad one have taken effect.
 */
export const INVALIDATE_RULES: readonly Rule[] = [
  { id: 'invalidate.reserved', errno: 'EOPNOTSUPP', text: 'the reserved field is not 0' },
  { id: 'invalidate.array', errno: 'EINVAL', text: 'the array has no address, or too many or too long entries' },
  { id: 'invalidate.object', errno: 'ENOENT', text: 'no object has the id' },
  { id: 'invalidate.type', errno: 'EINVAL', text: 'the object is neither nested HWPT nor vIOMMU' },
  { id: 'invalidate.data-type', errno: 'EINVAL', text: 'the driver does not know the type of data' },
  { id: 'invalidate.entry-size', errno: 'EINVAL', text: 'entries are shorter or longer than the driver takes' },
  { id: 'invalidate.entry-tail', errno: 'E2BIG', text: 'an entry has bytes that the driver does not know' },
  { id: 'invalidate.flags', errno: 'EOPNOTSUPP', text: 'an entry has an unknown flag' },
  { id: 'invalidate.entry', errno: 'EINVAL', text: 'an entry names a cache or device that does not exist' },
  { id: 'invalidate.ok', errno: '', text: 'all requests are done' },
];

const MAX_ENTRIES = 1 << 19;
const DATA_SELFTEST = 0xdeadbeef;
const FLAG_ALL = 1;
const MAX_CACHE_ID = 3;

interface Outcome {
  /** '' when all requests were done. */
  readonly errno: string;
  readonly rule: string;
  readonly done: number;
  /** Takes effect for the requests that were done. */
  readonly apply: () => void;
}

function refused(errno: string, rule: string, done = 0, apply: () => void = () => {}): Outcome {
  return { errno, rule, done, apply };
}

export function hwptInvalidate(call: Call): void {
  const outcome = judge(call);
  if (outcome === undefined) return;
  const agreed = outcome.errno === '' ? call.succeed('invalidate.ok') : call.fail(outcome.errno, outcome.rule);
  if (call.recordedErrno !== outcome.errno || !agreed) return;
  call.out32(24, outcome.done, 'entry_num');
  outcome.apply();
}

/** How the call ends; undefined after it was answered `unknown`. */
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
  if (object.type !== 'hwpt-nested' && object.type !== 'viommu') return refused('EINVAL', 'invalidate.type');
  if (object.owner !== 'mock') {
    call.unknown('not modelled: invalidations of real IOMMUs');
    return undefined;
  }
  return object.type === 'hwpt-nested' ? nestedIotlb(call, object, count) : viommuCaches(call, object, count);
}

/** Bytes of entry `index` as the driver sees them; an error name; or undefined where the recording lacks them. */
function entryAt(call: Call, index: number, sizeBytes: number): Bytes | string | undefined {
  const s = call.struct;
  const length = s.u32(20);
  const address = add(s.u64(8), mul(index, length));
  const known = call.bytesAt(address, length);
  if (known === undefined) return undefined;
  if (length > sizeBytes) return known.isZero(sizeBytes) ? known.slice(0, sizeBytes) : 'E2BIG';
  return known;
}

function field(entry: Bytes, at: number): number {
  return entry.has(at, 4) ? entry.u32(at) : 0;
}

function payloadMissing(call: Call): undefined {
  call.unknown('payload not recorded');
  return undefined;
}

/** `mock_domain_cache_invalidate_user`: entries of {flags, iotlb_id}. */
function nestedIotlb(call: Call, hwpt: NestedHwpt, count: number): Outcome | undefined {
  if (call.struct.u32(16) !== DATA_SELFTEST) return refused('EINVAL', 'invalidate.data-type');
  const iotlb = [...hwpt.iotlb];
  const apply = (): void => {
    patchObject(call.tx, call.file.object, hwpt, { iotlb: Object.freeze(iotlb) });
  };
  for (let i = 0; i < count; i++) {
    // The mock struct has no room to grow: its length must be exact.
    if (call.struct.u32(20) !== 8) return refused('EINVAL', 'invalidate.entry-size', i, apply);
    const entry = entryAt(call, i, 8);
    if (entry === undefined || typeof entry === 'string') return payloadMissing(call);
    const flags = field(entry, 0);
    const id = field(entry, 4);
    if ((flags & ~FLAG_ALL) !== 0) return refused('EOPNOTSUPP', 'invalidate.flags', i, apply);
    if (id > MAX_CACHE_ID) return refused('EINVAL', 'invalidate.entry', i, apply);
    if (flags & FLAG_ALL) iotlb.fill(0);
    else iotlb[id] = 0;
  }
  return refused('', '', count, apply);
}

/** `mock_viommu_cache_invalidate`: entries of {flags, vdev_id, cache_id}; all are read before the first is done. */
function viommuCaches(call: Call, viommu: Viommu, count: number): Outcome | undefined {
  const known = call.struct.u32(16) === DATA_SELFTEST;
  if (count === 0 && known) return refused('', '', 0);
  if (!known || count === 0) return refused('EINVAL', 'invalidate.data-type');
  const entries: Bytes[] = [];
  for (let i = 0; i < count; i++) {
    const entry = entryAt(call, i, 12);
    if (entry === undefined) return payloadMissing(call);
    if (typeof entry === 'string') return refused(entry, 'invalidate.entry-tail');
    entries.push(entry);
  }
  const caches = new Map<number, number[]>();
  const apply = (): void => {
    for (const [id, cache] of caches) setCache(call, id, cache);
  };
  for (let i = 0; i < count; i++) {
    const entry = entries[i] as Bytes;
    const flags = field(entry, 0);
    const cacheId = field(entry, 8);
    if ((flags & ~FLAG_ALL) !== 0) return refused('EOPNOTSUPP', 'invalidate.flags', i, apply);
    if (cacheId > MAX_CACHE_ID) return refused('EINVAL', 'invalidate.entry', i, apply);
    const device = deviceByVirtualId(call, viommu, field(entry, 4));
    if (device === undefined) return refused('EINVAL', 'invalidate.entry', i, apply);
    const cache = caches.get(device.id) ?? [...device.cache];
    if (flags & FLAG_ALL) cache.fill(0);
    else cache[cacheId] = 0;
    caches.set(device.id, cache);
  }
  return refused('', '', count, apply);
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
