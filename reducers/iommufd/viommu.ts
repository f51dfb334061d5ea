import { Bytes, putU32, putU64 } from '../../core/bytes.js';
import { OrderedMap } from '../../core/ordered-map.js';
import type { U64 } from '../../core/u64.js';
import type { Call } from '../call.js';
import { MOCK_OWNER } from '../devices/mock-domain.js';
import type { Tx } from '../tx.js';
import { addUsers, contextOf, handOut, lookup, nextObjectId, patchObject, putObject, takeId } from './context.js';
import { PAGE } from './iopt.js';
import type { Rule } from './rules.js';
import type { BoundDevice, PagingHwpt, Viommu } from './state.js';
import { probeBuffer } from './user-buffer.js';
import { readUserData } from './user-data.js';

/**
 * VIOMMU_ALLOC and VDEVICE_ALLOC (drivers/iommu/iommufd/viommu.c; for mock devices selftest.c).
 *
 * A vIOMMU stands on a nest parent and keeps it alive; vDEVICEs, event queues, HW queues and nested HWPTs keep the
 * vIOMMU alive. A vDEVICE gives one bound device a virtual id in one vIOMMU: neither can have two. When the
 * device is unbound its vDEVICE goes too, and leaves its object id reserved.
 * The mock vIOMMU offers two pages to mmap and returns the word that it was given.
 */
export const VIOMMU_RULES: readonly Rule[] = [
  { id: 'viommu-alloc.flags', errno: 'EOPNOTSUPP', text: 'a flag is set, or the type is 0' },
  { id: 'viommu-alloc.device', errno: 'ENOENT', text: 'no device has the id' },
  { id: 'viommu-alloc.type', errno: 'EOPNOTSUPP', text: 'the driver has no vIOMMU of the type' },
  { id: 'viommu-alloc.hwpt', errno: 'ENOENT', text: 'no paging HWPT has the id' },
  { id: 'viommu-alloc.no-nest-parent', errno: 'EINVAL', text: 'the HWPT was not made to be a parent' },
  { id: 'viommu-alloc.data', errno: 'EINVAL', text: 'the data is shorter or longer than the driver takes' },
  { id: 'viommu-alloc.data-fault', errno: 'EFAULT', text: 'the data cannot be read or written' },
  { id: 'viommu-alloc.ok', errno: '', text: 'the vIOMMU is made' },
  { id: 'vdevice-alloc.viommu', errno: 'ENOENT', text: 'no vIOMMU has the id' },
  { id: 'vdevice-alloc.device', errno: 'ENOENT', text: 'no device has the id' },
  { id: 'vdevice-alloc.other-iommu', errno: 'EINVAL', text: 'the device belongs to another IOMMU' },
  { id: 'vdevice-alloc.device-taken', errno: 'EEXIST', text: 'the device has a vDEVICE' },
  { id: 'vdevice-alloc.id-taken', errno: 'EEXIST', text: 'the virtual id is taken' },
  { id: 'vdevice-alloc.ok', errno: '', text: 'the vDEVICE is made' },
];

const DATA_RULES = { size: 'viommu-alloc.data', fault: 'viommu-alloc.data-fault' };

const TYPE_SELFTEST = 0xdeadbeef;
const DATA_BYTES = 24;
const MMAP_BYTES = 2 * PAGE;

export function viommuAlloc(call: Call): void {
  const s = call.struct;
  const type = s.u32(8);
  if ((s.u32(4) !== 0 || type === 0) && call.fail('EOPNOTSUPP', 'viommu-alloc.flags')) return;
  const device = lookup(call, s.u32(12), 'device', 'viommu-alloc.device');
  if (device === undefined) return;
  if (device.mock === null) call.unknown('not modelled: vIOMMUs of real IOMMUs');
  else if (type !== TYPE_SELFTEST && call.fail('EOPNOTSUPP', 'viommu-alloc.type')) return;
  const hwpt = lookup(call, s.u32(16), 'hwpt-paging', 'viommu-alloc.hwpt');
  if (hwpt === undefined) return;
  if (!hwpt.nestParent && call.fail('EINVAL', 'viommu-alloc.no-nest-parent')) return;
  const word = device.mock === null || s.u32(24) === 0 ? null : inData(call);
  if (word === undefined) return;
  if (call.succeed('viommu-alloc.ok')) makeViommu(call, device, hwpt, word);
}

/** The word in the mock driver's data; undefined after a prediction was made. */
function inData(call: Call): number | undefined {
  const s = call.struct;
  const data = readUserData(call, s.u64(32), s.u32(24), DATA_BYTES, 8, DATA_RULES);
  if (data === undefined) {
    call.unknown('payload not recorded');
    return undefined;
  }
  if ('errno' in data) {
    call.fail(data.errno, data.rule);
    return undefined;
  }
  const writable = probeBuffer(call, s.u64(32), s.u32(24), true) !== 'fault';
  return writable || !call.fail('EFAULT', DATA_RULES.fault) ? data.bytes.u32(0) : undefined;
}

function makeViommu(call: Call, device: BoundDevice, hwpt: PagingHwpt, word: number | null): void {
  const { tx } = call;
  const contextId = call.file.object;
  const id = handOut(call, nextObjectId(tx, contextId), 20, 'out_viommu_id');
  takeId(tx, contextId, id);
  const mmapOffset = word === null ? 0 : offerMmap(tx, contextId, id);
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
    queues: Object.freeze([0, 0]),
    mmapOffset,
  };
  putObject(tx, contextId, viommu);
  addUsers(tx, contextId, hwpt.id, 1);
  if (word === null) return;
  const out = new Uint8Array(DATA_BYTES);
  putU32(out, 0, word);
  putU32(out, 4, word);
  putU64(out, 8, mmapOffset);
  putU64(out, 16, MMAP_BYTES);
  const length = Math.min(call.struct.u32(24), DATA_BYTES);
  call.outBytes(call.struct.u64(32), new Bytes(out).slice(0, length), 'data_uptr');
}

/** The lowest offset from the second page on with room for the pages (`_iommufd_alloc_mmap`). */
function offerMmap(tx: Tx, contextId: number, owner: number): number {
  let offset = PAGE;
  for (const [start, offer] of contextOf(tx, contextId).mmaps) {
    if (start - offset >= MMAP_BYTES) break;
    offset = start + offer.lengthBytes;
  }
  const offer = Object.freeze({ owner, lengthBytes: MMAP_BYTES });
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
  const owner = device.mock === null ? device.key : MOCK_OWNER;
  if (viommu.owner !== owner && call.fail('EINVAL', 'vdevice-alloc.other-iommu')) return;
  if (device.vdevice !== 0 && call.fail('EEXIST', 'vdevice-alloc.device-taken')) return;
  const virtId = s.u64(16);
  if (viommu.vdevices.has(virtId) && call.fail('EEXIST', 'vdevice-alloc.id-taken')) return;
  if (!call.succeed('vdevice-alloc.ok')) return;
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
