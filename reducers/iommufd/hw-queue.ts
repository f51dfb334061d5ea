import { add, addOverflows, alignDown, alignUp, lastOf, modPow2, sub, type U64 } from '../../core/u64.js';
import type { Call } from '../call.js';
import { MOCK_OWNER } from '../devices/mock-domain.js';
import type { Tx } from '../tx.js';
import { changeAccessIoas, destroyAccess, makeAccess, pinRange, refusePin } from './access.js';
import {
  giveId,
  handOut,
  ioasOfObject,
  lookup,
  markContextUnknown,
  newObjectId,
  patchObject,
  putObject,
  takeId,
  typedObject,
} from './context.js';
import { needs, type Support, tegraLimits, viommuKind } from './hardware.js';
import { PAGE } from './iopt.js';
import { predictRefusal } from './refuse.js';
import { type Refusal, type Rule, refusal } from './rules.js';
import type { AccessObject, PagingHwpt, Viommu } from './state.js';

/**
 * HW_QUEUE_ALLOC (drivers/iommu/iommufd/viommu.c; for mock devices selftest.c, for Tegra's CMDQV tegra241-cmdqv.c,
 * which are the only drivers that have queues).
 *
 * A queue that hardware reads by physical address needs its guest pages pinned, next to each other, and not to be
 * unmapped: an access of its own locks the areas of the nest parent's IOAS. The object's id is taken first, that
 * of its access second. Each queue needs the one before it. The mock vIOMMU has two; how many Tegra's has, and how long
 * they can be, GET_HW_INFO tells. The mock driver frees the first place whatever queue goes (see hw-queue-object.ts).
 */
export const HW_QUEUE_RULES: readonly Rule[] = [
  { id: 'hw-queue.flags', errno: 'EOPNOTSUPP', text: 'a flag is set, or the type is 0' },
  { id: 'hw-queue.length', errno: 'EINVAL', text: 'the length is 0' },
  { id: 'hw-queue.overflow', errno: 'EOVERFLOW', text: 'IOVA and length pass 2^64' },
  { id: 'hw-queue.viommu', errno: 'ENOENT', text: 'no vIOMMU has the id' },
  { id: 'hw-queue.type', errno: 'EOPNOTSUPP', text: 'the driver has no queue of the type' },
  { id: 'hw-queue.range', errno: 'ERANGE', text: 'the length in whole pages passes 2^64' },
  { id: 'hw-queue.memory', errno: 'ENOMEM', text: 'the list of its pages would be larger than 2 GiB' },
  { id: 'hw-queue.index', errno: 'EINVAL', text: 'the vIOMMU has fewer queues' },
  { id: 'hw-queue.taken', errno: 'EEXIST', text: 'the index is taken' },
  { id: 'hw-queue.order', errno: 'EIO', text: 'the queue before it does not exist' },
  { id: 'hw-queue.size', errno: 'EINVAL', text: 'the length is no power of 2 that the hardware takes' },
  { id: 'hw-queue.base', errno: 'EINVAL', text: 'the queue is not aligned to its length' },
  { id: 'hw-queue.ok', errno: '', text: 'the queue is made' },
];

const TAKEN = refusal('EEXIST', 'hw-queue.taken');

const TYPE_SELFTEST = 0xdeadbeef;
const TYPE_TEGRA = 1;
const MOCK_QUEUES = 2;
/** Bytes of an entry of Tegra's queues, as a power of 2; none is shorter than two. */
const ENTRY_LOG2 = 4;
const MIN_BYTES = 32;
/** Pages whose list, 8 bytes each, the kernel still allocates. */
const MAX_PAGES = 2 ** 28;

export function hwQueueAlloc(call: Call): void {
  const s = call.struct;
  const type = s.u32(12);
  if ((s.u32(4) !== 0 || type === 0) && call.fail('EOPNOTSUPP', 'hw-queue.flags')) return;
  const iova = s.u64(24);
  const length = s.u64(32);
  if (length === 0 && call.fail('EINVAL', 'hw-queue.length')) return;
  if (lastOf(iova, length) === undefined && call.fail('EOVERFLOW', 'hw-queue.overflow')) return;
  const viommu = lookup(call, s.u32(8), 'viommu', 'hw-queue.viommu');
  if (viommu === undefined) return;
  const what = `HW queue of type ${type}`;
  const has = hasQueues(call.tx, viommu, type);
  if (needs(call, viommu.owner, what, has, 'EOPNOTSUPP', 'hw-queue.type', 'smmuv3')) return;
  const start = alignDown(iova, PAGE);
  const offset = sub(iova, start);
  if (addOverflows(add(length, offset), PAGE - 1) && call.fail('ERANGE', 'hw-queue.range')) return;
  const whole = alignUp(add(length, offset), PAGE);
  if (whole > MAX_PAGES * PAGE && call.fail('ENOMEM', 'hw-queue.memory')) return;
  pinAndMake(call, viommu, start, whole);
}

function hasQueues(tx: Tx, viommu: Viommu, type: number): Support {
  switch (viommuKind(tx, viommu)) {
    case 'mock':
      return type === TYPE_SELFTEST;
    case 'tegra':
      return type === TYPE_TEGRA;
    case 'unknown':
      return undefined;
    default:
      return false;
  }
}

/** Takes both ids, pins, looks at the index; all of it is undone where the call fails. */
function pinAndMake(call: Call, viommu: Viommu, start: U64, whole: U64): void {
  call.trial();
  const { tx } = call;
  const contextId = call.file.object;
  const id = newObjectId(call, 20);
  takeId(tx, contextId, id);
  const access = makeAccess(tx, contextId, PAGE, true, call.event.seq);
  const made = judge(call, viommu, access, start, whole);
  if (!made) {
    destroyAccess(tx, contextId, access.id);
    giveId(tx, contextId, id);
    return;
  }
  handOut(call, id, 20, 'out_hw_queue_id');
  const now = typedObject(tx, contextId, access.id, 'access') as AccessObject;
  const last = sub(add(start, whole), 1);
  patchObject(tx, contextId, now, { items: Object.freeze([Object.freeze({ id: 0, start, last })]) });
  pinRange(tx, ioasOfObject(tx, contextId, now.ioas).id, { start, last }, true, call.event.seq);
  const index = call.struct.u32(16);
  const previous = index === 0 ? 0 : (viommu.queues.get(index - 1) ?? 0);
  putObject(tx, contextId, {
    type: 'hw-queue',
    id,
    users: 0,
    since: call.event.seq,
    viommu: viommu.id,
    index,
    access: access.id,
    previous,
  });
  patchObject(tx, contextId, viommu, {
    users: viommu.users + 1,
    queues: viommu.queues.edit().set(index, id).freeze(),
  });
  const before = typedObject(tx, contextId, previous, 'hw-queue');
  if (before !== undefined) patchObject(tx, contextId, before, { users: before.users + 1 });
}

const PAGES_APART = 'whether the pages are next to each other is not recorded';

/** Whether the queue comes to be. Predicts. */
function judge(call: Call, viommu: Viommu, access: AccessObject, start: U64, whole: U64): boolean {
  const { tx } = call;
  const contextId = call.file.object;
  const parent = typedObject(tx, contextId, viommu.hwpt, 'hwpt-paging') as PagingHwpt;
  const attach = changeAccessIoas(tx, contextId, access.id, parent.ioas);
  const attached = typedObject(tx, contextId, access.id, 'access') as AccessObject;
  const refused = attach ?? refusePin(tx, contextId, attached, start, whole, false);
  if (refused !== undefined && refused.unknown === '') return refuse(call, refused);
  if (refused !== undefined && predictRefusal(call, refused)) return false;
  // Pages that do not lie together fail it before its place is looked at.
  if (whole > PAGE && call.failedByFact('EFAULT', PAGES_APART)) return false;
  if (!placed(call, viommu)) return false;
  if (whole > PAGE) call.unknown(PAGES_APART);
  return sized(call, viommu) && call.succeed('hw-queue.ok');
}

/** Whether the queue can have its index; false when the handler stops. */
function placed(call: Call, viommu: Viommu): boolean {
  const index = call.struct.u32(16);
  const { queuesLog2 } = tegraLimits(call.tx, viommu.owner);
  const count = viommu.owner === MOCK_OWNER ? MOCK_QUEUES : queuesLog2 === undefined ? undefined : 2 ** queuesLog2;
  const fits = count === undefined ? undefined : index < count;
  if (needs(call, viommu.owner, `HW queue ${index}`, fits, 'EINVAL', 'hw-queue.index')) return false;
  if (viommu.queues.has(index)) return refuse(call, TAKEN);
  return index === 0 || viommu.queues.has(index - 1) || !call.fail('EIO', 'hw-queue.order');
}

/** Whether the hardware takes a queue of this length at this address; false when the handler stops. The mock takes any. */
function sized(call: Call, viommu: Viommu): boolean {
  if (viommu.owner === MOCK_OWNER) return true;
  const iova = call.struct.u64(24);
  const length = BigInt(call.struct.u64(32));
  const { queueLog2 } = tegraLimits(call.tx, viommu.owner);
  const longest = queueLog2 === undefined ? length : 1n << BigInt(queueLog2 + ENTRY_LOG2);
  const takes = (length & (length - 1n)) === 0n && length >= MIN_BYTES && length <= longest;
  if (!takes && call.fail('EINVAL', 'hw-queue.size')) return false;
  if (queueLog2 === undefined) call.unknown(`how long a queue ${viommu.owner} takes was not told: GET_HW_INFO`);
  // Inside a page, physical addresses are aligned as IOVAs are.
  const within = length < PAGE ? Number(length) : PAGE;
  if (modPow2(iova, within) !== 0 && call.fail('EINVAL', 'hw-queue.base')) return false;
  if (length > PAGE) call.unknown('how the pages are aligned is not recorded');
  return true;
}

/** A queue that a recording shows all the same is one that nobody knows. */
function refuse(call: Call, refused: Refusal): false {
  if (!predictRefusal(call, refused)) markContextUnknown(call.tx, call.file.object, call.event.seq);
  return false;
}
