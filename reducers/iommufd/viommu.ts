import { Bytes, putU32, putU64 } from '../../core/bytes.js';
import { OrderedMap } from '../../core/ordered-map.js';
import type { U64 } from '../../core/u64.js';
import type { Call } from '../call.js';
import { MOCK_OWNER } from '../devices/mock-domain.js';
import type { Tx } from '../tx.js';
import {
  addUsers,
  contextOf,
  handOut,
  lookup,
  markContextUnknown,
  nextObjectId,
  patchObject,
  putObject,
  takeId,
} from './context.js';
import {
  driverOf,
  type IommuDriver,
  needs,
  needsSameIommu,
  type Support,
  VIOMMU_SMMUV3,
  VIOMMU_TEGRA,
  viommuKind,
} from './hardware.js';
import { PAGE } from './iopt.js';
import type { Rule } from './rules.js';
import type { BoundDevice, PagingHwpt, Viommu } from './state.js';
import { probeBuffer } from './user-buffer.js';
import { readUserData } from './user-data.js';

/**
 * VIOMMU_ALLOC and VDEVICE_ALLOC (drivers/iommu/iommufd/viommu.c; for mock devices selftest.c, for AMD-Vi
 * amd/iommufd.c, for SMMUv3 and Tegra's CMDQV arm/arm-smmu-v3). VT-d and all others have no vIOMMU.
 *
 * A vIOMMU stands on a nest parent and keeps it alive; vDEVICEs, event queues, HW queues and nested HWPTs keep the
 * vIOMMU alive. A vDEVICE gives one bound device a virtual id in one vIOMMU: neither can have two. When the
 * device is unbound its vDEVICE goes too, and leaves its object id reserved.
 * The mock vIOMMU offers two pages to mmap and returns the word that it was given; Tegra's offers 64 KiB of registers.
 * AMD-Vi takes every type of vIOMMU for its own.
 */
export const VIOMMU_RULES: readonly Rule[] = [
  { id: 'viommu-alloc.flags', errno: 'EOPNOTSUPP', text: 'a flag is set, or the type is 0' },
  { id: 'viommu-alloc.device', errno: 'ENOENT', text: 'no device has the id' },
  { id: 'viommu-alloc.type', errno: 'EOPNOTSUPP', text: 'the driver has no vIOMMU of the type' },
  { id: 'viommu-alloc.hwpt', errno: 'ENOENT', text: 'no paging HWPT has the id' },
  { id: 'viommu-alloc.no-nest-parent', errno: 'EINVAL', text: 'the HWPT was not made to be a parent' },
  { id: 'viommu-alloc.other-iommu', errno: 'EINVAL', text: 'the HWPT belongs to another IOMMU than the device' },
  { id: 'viommu-alloc.data', errno: 'EINVAL', text: 'the data is shorter or longer than the driver takes' },
  { id: 'viommu-alloc.data-fault', errno: 'EFAULT', text: 'the data cannot be read or written' },
  { id: 'viommu-alloc.ok', errno: '', text: 'the vIOMMU is made' },
  { id: 'vdevice-alloc.viommu', errno: 'ENOENT', text: 'no vIOMMU has the id' },
  { id: 'vdevice-alloc.device', errno: 'ENOENT', text: 'no device has the id' },
  { id: 'vdevice-alloc.other-iommu', errno: 'EINVAL', text: 'the device belongs to another IOMMU' },
  { id: 'vdevice-alloc.device-taken', errno: 'EEXIST', text: 'the device has a vDEVICE' },
  { id: 'vdevice-alloc.id-taken', errno: 'EEXIST', text: 'the virtual id is taken' },
  { id: 'vdevice-alloc.virt-id', errno: 'EINVAL', text: "the virtual id has more bits than Tegra's CMDQV matches" },
  { id: 'vdevice-alloc.streams', errno: 'EOPNOTSUPP', text: 'the device has more than one stream in the SMMUv3' },
  { id: 'vdevice-alloc.ok', errno: '', text: 'the vDEVICE is made' },
];

const DATA_RULES = { size: 'viommu-alloc.data', fault: 'viommu-alloc.data-fault' };

const TYPE_SELFTEST = 0xdeadbeef;
const DATA_BYTES = 24;
const MMAP_BYTES = 2 * PAGE;
const TEGRA_BYTES = 16;
const TEGRA_MMAP_BYTES = 0x1_0000;
const TEGRA_MAX_SID = 0xf_ffff;

export function viommuAlloc(call: Call): void {
  const s = call.struct;
  const type = s.u32(8);
  if ((s.u32(4) !== 0 || type === 0) && call.fail('EOPNOTSUPP', 'viommu-alloc.flags')) return;
  const device = lookup(call, s.u32(12), 'device', 'viommu-alloc.device');
  if (device === undefined) return;
  const key = device.mock === null ? device.key : MOCK_OWNER;
  const has = hasViommu(call.tx, device, type);
  if (needs(call, key, `vIOMMU of type ${type}`, has, 'EOPNOTSUPP', 'viommu-alloc.type')) return;
  const hwpt = lookup(call, s.u32(16), 'hwpt-paging', 'viommu-alloc.hwpt');
  if (hwpt === undefined) return;
  if (!hwpt.nestParent && call.fail('EINVAL', 'viommu-alloc.no-nest-parent')) return;
  const kind = kindOf(call.tx, device, type);
  const bound = kind === 'smmuv3' || kind === 'tegra';
  if (bound && needsSameIommu(call, hwpt.domain.owner, device, 'EINVAL', 'viommu-alloc.other-iommu')) return;
  const offer = offerOf(call, kind);
  if (offer !== undefined && call.succeed('viommu-alloc.ok')) makeViommu(call, device, hwpt, offer);
}

function hasViommu(tx: Tx, device: BoundDevice, type: number): Support {
  switch (driverOf(tx, device)) {
    case 'mock':
      return type === TYPE_SELFTEST;
    case 'amd':
      return true;
    case 'smmuv3':
      return type === VIOMMU_SMMUV3 || type === VIOMMU_TEGRA ? undefined : false;
    case 'unknown':
      return undefined;
    default:
      return false;
  }
}

function kindOf(tx: Tx, device: BoundDevice, type: number): IommuDriver | 'tegra' {
  const driver = driverOf(tx, device);
  return driver === 'smmuv3' && type === VIOMMU_TEGRA ? 'tegra' : driver;
}

/** What a vIOMMU offers to mmap, 0 bytes for nothing, and what its driver writes about that before the offset. */
interface Offer {
  readonly lengthBytes: number;
  readonly dataBytes: number;
  readonly before: readonly number[];
}

const NO_OFFER: Offer = Object.freeze({ lengthBytes: 0, dataBytes: 0, before: Object.freeze([]) });

/** Reads the driver's data, where it takes any; undefined when the handler stops. */
function offerOf(call: Call, kind: IommuDriver | 'tegra'): Offer | undefined {
  const given = call.struct.u32(24);
  if (kind === 'tegra') {
    if (given === 0 && call.fail('EINVAL', 'viommu-alloc.data')) return undefined;
    const data = inData(call, TEGRA_BYTES, TEGRA_BYTES);
    return data && { lengthBytes: TEGRA_MMAP_BYTES, dataBytes: TEGRA_BYTES, before: Object.freeze([]) };
  }
  if (kind === 'unknown' && given !== 0 && call.struct.u32(8) === VIOMMU_TEGRA)
    call.outUnknown(call.struct.u64(32), Math.min(given, TEGRA_BYTES), 'the kind of IOMMU was not told');
  if (kind !== 'mock' || given === 0) return NO_OFFER;
  const data = inData(call, DATA_BYTES, 8);
  if (data === undefined) return undefined;
  const word = data.u32(0);
  return { lengthBytes: MMAP_BYTES, dataBytes: DATA_BYTES, before: Object.freeze([word, word]) };
}

/** The driver's struct, which it writes to as well; undefined after a prediction was made. */
function inData(call: Call, sizeBytes: number, minBytes: number): Bytes | undefined {
  const s = call.struct;
  const data = readUserData(call, s.u64(32), s.u32(24), sizeBytes, minBytes, DATA_RULES);
  if (data === undefined) {
    call.unknown('payload not recorded');
    return undefined;
  }
  if ('errno' in data) {
    call.fail(data.errno, data.rule);
    return undefined;
  }
  const writable = probeBuffer(call, s.u64(32), s.u32(24), true) !== 'fault';
  return writable || !call.fail('EFAULT', DATA_RULES.fault) ? data.bytes : undefined;
}

function makeViommu(call: Call, device: BoundDevice, hwpt: PagingHwpt, offer: Offer): void {
  const { tx } = call;
  const contextId = call.file.object;
  const id = handOut(call, nextObjectId(tx, contextId), 20, 'out_viommu_id');
  takeId(tx, contextId, id);
  const mmapOffset = offer.lengthBytes === 0 ? 0 : offerMmap(tx, contextId, id, offer.lengthBytes);
  const viommu: Viommu = {
    type: 'viommu',
    id,
    users: 0,
    since: call.event.seq,
    viommuType: call.struct.u32(8),
    hwpt: hwpt.id,
    owner: device.mock === null ? device.key : MOCK_OWNER,
    vdevices: OrderedMap.numeric<U64, number>().freeze(),
    veventqs: Object.freeze([]),
    queues: OrderedMap.numeric<number, number>().freeze(),
    mmapOffset,
  };
  putObject(tx, contextId, viommu);
  addUsers(tx, contextId, hwpt.id, 1);
  if (offer.lengthBytes === 0) return;
  const out = new Uint8Array(offer.dataBytes);
  for (const [index, word] of offer.before.entries()) putU32(out, index * 4, word);
  putU64(out, offer.before.length * 4, mmapOffset);
  putU64(out, offer.before.length * 4 + 8, offer.lengthBytes);
  const length = Math.min(call.struct.u32(24), offer.dataBytes);
  call.outBytes(call.struct.u64(32), new Bytes(out).slice(0, length), 'data_uptr');
}

/** The lowest offset from the second page on with room for the pages (`_iommufd_alloc_mmap`). */
function offerMmap(tx: Tx, contextId: number, owner: number, lengthBytes: number): number {
  let offset = PAGE;
  for (const [start, offer] of contextOf(tx, contextId).mmaps) {
    if (start - offset >= lengthBytes) break;
    offset = start + offer.lengthBytes;
  }
  const offer = Object.freeze({ owner, lengthBytes });
  tx.openTable(tx.world.iommufds, contextId, 'mmaps').set(offset, offer);
  return offset;
}

export function vdeviceAlloc(call: Call): void {
  const s = call.struct;
  const { tx } = call;
  const contextId = call.file.object;
  const viommu = lookup(call, s.u32(4), 'viommu', 'vdevice-alloc.viommu');
  if (viommu === undefined) return;
  const device = lookup(call, s.u32(8), 'device', 'vdevice-alloc.device');
  if (device === undefined) return;
  if (needsSameIommu(call, viommu.owner, device, 'EINVAL', 'vdevice-alloc.other-iommu')) return;
  const virtId = s.u64(16);
  const isTaken = device.vdevice !== 0;
  if (isTaken || viommu.vdevices.has(virtId)) {
    const happened = !call.fail('EEXIST', isTaken ? 'vdevice-alloc.device-taken' : 'vdevice-alloc.id-taken');
    // What had the place is gone then, and nobody knows since when.
    if (happened) markContextUnknown(tx, contextId, call.event.seq);
    return;
  }
  if (refusedByDriver(call, viommu, device, virtId) || !call.succeed('vdevice-alloc.ok')) return;
  const id = handOut(call, nextObjectId(tx, contextId), 12, 'out_vdevice_id');
  takeId(tx, contextId, id);
  putObject(tx, contextId, {
    type: 'vdevice',
    id,
    users: 0,
    since: call.event.seq,
    viommu: viommu.id,
    device: device.id,
    virtId,
  });
  const vdevices = viommu.vdevices.edit().set(virtId, id).freeze();
  patchObject(tx, contextId, viommu, { vdevices, users: viommu.users + 1 });
  patchObject(tx, contextId, device, { vdevice: id });
}

/** The driver's part of a vDEVICE (`vdevice_init`), which SMMUv3 and Tegra's CMDQV have; true when the handler stops. */
function refusedByDriver(call: Call, viommu: Viommu, device: BoundDevice, virtId: U64): boolean {
  const kind = viommuKind(call.tx, viommu);
  if (kind === 'mock' || kind === 'amd') return false;
  if (kind === 'tegra' && virtId > TEGRA_MAX_SID && call.fail('EINVAL', 'vdevice-alloc.virt-id')) return true;
  return needs(call, device.key, 'vDEVICE', undefined, 'EOPNOTSUPP', 'vdevice-alloc.streams');
}
