import type { Call } from '../call.js';
import { MOCK_OWNER, mockTraits } from '../devices/mock-domain.js';
import { MAY_BE_MEDIATED, mayBeMediated } from './attach.js';
import {
  addUsers,
  handOut,
  lookup,
  missing,
  newObjectId,
  objectOf,
  putObject,
  takeId,
  typedObject,
} from './context.js';
import { realTraits } from './domain.js';
import { DIRTY_TRACKING, FAULT_ID_VALID, makesPageTable, NEST_PARENT, needs, PASID, tracksDirty } from './hardware.js';
import { makePagingHwpt } from './hwpt-make.js';
import { NESTED_RULES, nestedData, selftestData } from './hwpt-nested.js';
import { destroyNestedHwpt, destroyPagingHwpt, setFault } from './hwpt-object.js';
import { predictRefusal } from './refuse.js';
import type { Rule } from './rules.js';
import type { BoundDevice, DomainTraits, IoasObject, NestedHwpt, PagingHwpt, Viommu } from './state.js';

/**
 * HWPT_ALLOC (drivers/iommu/iommufd/hw_pagetable.c, and for mock devices selftest.c).
 *
 * What is made depends on the object that `pt_id` names: of an IOAS a paging HWPT, filled with its areas; of a paging
 * HWPT that may be a parent, or of a vIOMMU, a nested one. The driver looks at flags and data after the core did. The
 * fault queue is looked up last, when the domain is already part of the IOAS.
 * What a real driver makes of the flags depends on the hardware (hardware.ts).
 */
export const HWPT_RULES: readonly Rule[] = [
  { id: 'hwpt-alloc.reserved', errno: 'EOPNOTSUPP', text: 'the reserved field is not 0' },
  { id: 'hwpt-alloc.data', errno: 'EINVAL', text: 'data without a type, or a type without data' },
  { id: 'hwpt-alloc.device', errno: 'ENOENT', text: 'no device has the id' },
  { id: 'hwpt-alloc.parent', errno: 'EINVAL', text: 'no object has the parent id' },
  { id: 'hwpt-alloc.parent-type', errno: 'EINVAL', text: 'the parent is no IOAS, paging HWPT or vIOMMU' },
  { id: 'hwpt-alloc.flags', errno: 'EOPNOTSUPP', text: 'a flag is unknown here' },
  { id: 'hwpt-alloc.dirty', errno: 'EOPNOTSUPP', text: 'the device does not track dirty pages' },
  { id: 'hwpt-alloc.fault-parent', errno: 'EOPNOTSUPP', text: 'a nest parent cannot have a fault queue' },
  { id: 'hwpt-alloc.driver', errno: 'EOPNOTSUPP', text: 'the driver makes no page table for these flags' },
  { id: 'hwpt-alloc.page-table', errno: 'EOPNOTSUPP', text: 'the mock driver has no such page table' },
  ...NESTED_RULES,
  { id: 'hwpt-alloc.fault', errno: 'ENOENT', text: 'no fault queue has the id' },
  { id: 'hwpt-alloc.ok', errno: '', text: 'the HWPT is made' },
];

const DATA_NONE = 0;

export function hwptAlloc(call: Call): void {
  const s = call.struct;
  if (s.u32(20) !== 0 && call.fail('EOPNOTSUPP', 'hwpt-alloc.reserved')) return;
  const dataLength = s.u32(28);
  if ((s.u32(24) === DATA_NONE) !== (dataLength === 0) && call.fail('EINVAL', 'hwpt-alloc.data')) return;
  const device = lookup(call, s.u32(8), 'device', 'hwpt-alloc.device');
  if (device === undefined) return;
  if (mayBeMediated(call.tx, device) && call.failedByFact('ENOENT', MAY_BE_MEDIATED)) return;
  const parent = objectOf(call.tx, call.file.object, s.u32(12));
  if (parent === undefined) {
    missing(call, call.file.object, 'hwpt-alloc.parent', 'EINVAL');
    return;
  }
  switch (parent.type) {
    case 'ioas':
      paging(call, device, parent);
      return;
    case 'hwpt-paging':
      nested(call, device, parent);
      return;
    case 'viommu':
      nested(call, device, parent);
      return;
    default:
      call.fail('EINVAL', 'hwpt-alloc.parent-type');
  }
}

// ---- paging -------------------------------------------------------------------------------------------------

function paging(call: Call, device: BoundDevice, ioas: IoasObject): void {
  const flags = call.struct.u32(4);
  const contextId = call.file.object;
  if ((flags & ~(NEST_PARENT | DIRTY_TRACKING | FAULT_ID_VALID | PASID)) !== 0) {
    if (call.fail('EOPNOTSUPP', 'hwpt-alloc.flags')) return;
  }
  const domain = device.mock !== null ? mockPaging(call, device, flags) : realPaging(call, device, flags);
  if (domain === undefined) return;
  call.trial();
  const made = makePagingHwpt(call.tx, {
    contextId,
    ioasId: ioas.id,
    device,
    domain,
    auto: false,
    nestParent: (flags & NEST_PARENT) !== 0,
    pasidCompat: (flags & PASID) !== 0,
    seq: call.event.seq,
    id: newObjectId(call, 16),
    attachPasid: -1,
  });
  if ('errno' in made) {
    predictRefusal(call, made);
    return;
  }
  if ('hwpt' in made) call.unknown(made.unknown);
  finish(call, 'hwpt' in made ? made.hwpt : made, (hwpt) => destroyPagingHwpt(call.tx, contextId, hwpt as PagingHwpt));
}

/** The domain that the mock driver makes (`mock_domain_alloc_paging_flags`), or undefined after a failure. */
function mockPaging(call: Call, device: BoundDevice, flags: number): DomainTraits | undefined {
  const s = call.struct;
  const dirty = (flags & DIRTY_TRACKING) !== 0;
  if (dirty && device.mock?.noDirty && call.fail('EOPNOTSUPP', 'hwpt-alloc.dirty')) return undefined;
  if (flags & FAULT_ID_VALID && flags & NEST_PARENT && call.fail('EOPNOTSUPP', 'hwpt-alloc.fault-parent'))
    return undefined;
  if (s.u32(28) === 0) return mockTraits(false, dirty);
  const bytes = selftestData(call);
  if (bytes === undefined) return undefined;
  const pageTable = bytes.u32(4);
  if (pageTable > 1 && call.fail('EOPNOTSUPP', 'hwpt-alloc.page-table')) return undefined;
  return mockTraits(pageTable === 1, dirty);
}

/**
 * The domain that a real driver makes. None takes data for a paging HWPT; plain ones always work; what flags choose depends
 * on the hardware.
 */
function realPaging(call: Call, device: BoundDevice, flags: number): DomainTraits | undefined {
  if (call.struct.u32(28) !== 0 && call.fail('EOPNOTSUPP', 'hwpt-alloc.data-type')) return undefined;
  const noDirty = (flags & DIRTY_TRACKING) !== 0 && tracksDirty(call.tx, device) === false;
  if (noDirty && call.fail('EOPNOTSUPP', 'hwpt-alloc.dirty')) return undefined;
  if (flags & FAULT_ID_VALID && flags & NEST_PARENT && call.fail('EOPNOTSUPP', 'hwpt-alloc.fault-parent'))
    return undefined;
  const asked = flags & (NEST_PARENT | DIRTY_TRACKING | PASID);
  const what = `HWPT with flags ${asked}`;
  const made = makesPageTable(call.tx, device, asked);
  if (asked !== 0 && needs(call, device.key, what, made, 'EOPNOTSUPP', 'hwpt-alloc.driver')) return undefined;
  return realTraits(call.tx, device, asked);
}

// ---- nested -------------------------------------------------------------------------------------------------

function nested(call: Call, device: BoundDevice, parent: PagingHwpt | Viommu): void {
  const data = nestedData(call, device, parent);
  if (data === undefined) return;
  call.trial();
  const contextId = call.file.object;
  const id = newObjectId(call, 16);
  takeId(call.tx, contextId, id);
  const hwpt: NestedHwpt = {
    type: 'hwpt-nested',
    id,
    users: 0,
    since: call.event.seq,
    parent: parent.type === 'viommu' ? parent.hwpt : parent.id,
    viommu: parent.type === 'viommu' ? parent.id : 0,
    owner: device.mock !== null ? MOCK_OWNER : device.key,
    pasidCompat: (call.struct.u32(4) & PASID) !== 0,
    fault: 0,
    ...data,
  };
  putObject(call.tx, contextId, hwpt);
  addUsers(call.tx, contextId, parent.id, 1);
  finish(call, hwpt, (made) => destroyNestedHwpt(call.tx, contextId, made as NestedHwpt));
}

// ---- the end that both share --------------------------------------------------------------------------------

function finish(call: Call, made: PagingHwpt | NestedHwpt, undo: (hwpt: PagingHwpt | NestedHwpt) => void): void {
  const contextId = call.file.object;
  if (call.struct.u32(4) & FAULT_ID_VALID) {
    const fault = typedObject(call.tx, contextId, call.struct.u32(40), 'fault');
    if (fault === undefined && missing(call, contextId, 'hwpt-alloc.fault')) {
      undo(made);
      return;
    }
    if (fault !== undefined) setFault(call.tx, contextId, made, fault.id);
  }
  if (call.succeed('hwpt-alloc.ok')) handOut(call, made.id, 16, 'out_hwpt_id');
}
