import { add, addOverflows, alignDown, alignUp, lastOf, sub, type U64 } from '../../core/u64.js';
import type { Call } from '../call.js';
import { changeAccessIoas, destroyAccess, makeAccess, pinRange, refusePin } from './access.js';
import {
  giveId,
  handOut,
  ioasOfObject,
  lookup,
  newObjectId,
  patchObject,
  putObject,
  takeId,
  typedObject,
} from './context.js';
import { PAGE } from './iopt.js';
import type { Rule } from './rules.js';
import type { AccessObject, PagingHwpt, Viommu } from './state.js';

/**
 * HW_QUEUE_ALLOC (drivers/iommu/iommufd/viommu.c; for mock devices selftest.c).
 *
 * A queue that hardware reads by physical address needs its guest pages pinned, next to each other, and not to be
 * unmapped: an access of its own locks the areas of the nest parent's IOAS. The object's id is taken first, that
 * of its access second. The mock vIOMMU has two queues, the second needs the first.
 */
export const HW_QUEUE_RULES: readonly Rule[] = [
  { id: 'hw-queue.flags', errno: 'EOPNOTSUPP', text: 'a flag is set, or the type is 0' },
  { id: 'hw-queue.length', errno: 'EINVAL', text: 'the length is 0' },
  { id: 'hw-queue.overflow', errno: 'EOVERFLOW', text: 'IOVA and length pass 2^64' },
  { id: 'hw-queue.viommu', errno: 'ENOENT', text: 'no vIOMMU has the id' },
  { id: 'hw-queue.type', errno: 'EOPNOTSUPP', text: 'the driver has no queue of the type' },
  { id: 'hw-queue.range', errno: 'ERANGE', text: 'the length in whole pages passes 2^64' },
  { id: 'hw-queue.memory', errno: 'ENOMEM', text: 'the list of its pages would be larger than 2 GiB' },
  { id: 'hw-queue.index', errno: 'EINVAL', text: 'the mock vIOMMU has only two queues' },
  { id: 'hw-queue.taken', errno: 'EEXIST', text: 'the index is taken' },
  { id: 'hw-queue.order', errno: 'EIO', text: 'the queue before it does not exist' },
  { id: 'hw-queue.ok', errno: '', text: 'the queue is made' },
];

const TYPE_SELFTEST = 0xdeadbeef;
const QUEUE_COUNT = 2;
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
  if (viommu.owner !== 'mock') {
    call.unknown('not modelled: HW queues of real IOMMUs');
    return;
  }
  if (type !== TYPE_SELFTEST && call.fail('EOPNOTSUPP', 'hw-queue.type')) return;
  const start = alignDown(iova, PAGE);
  const offset = sub(iova, start);
  if (addOverflows(add(length, offset), PAGE - 1) && call.fail('ERANGE', 'hw-queue.range')) return;
  const whole = alignUp(add(length, offset), PAGE);
  if (whole > MAX_PAGES * PAGE && call.fail('ENOMEM', 'hw-queue.memory')) return;
  pinAndMake(call, viommu, start, whole);
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
  const previous = index === 0 ? 0 : (viommu.queues[index - 1] ?? 0);
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
    queues: Object.freeze(viommu.queues.map((old, at) => (at === index ? id : old))),
  });
  const before = typedObject(tx, contextId, previous, 'hw-queue');
  if (before !== undefined) patchObject(tx, contextId, before, { users: before.users + 1 });
}

/** Whether the queue comes to be. Predicts. */
function judge(call: Call, viommu: Viommu, access: AccessObject, start: U64, whole: U64): boolean {
  const { tx } = call;
  const contextId = call.file.object;
  const parent = typedObject(tx, contextId, viommu.hwpt, 'hwpt-paging') as PagingHwpt;
  const attach = changeAccessIoas(tx, contextId, access.id, parent.ioas);
  const attached = typedObject(tx, contextId, access.id, 'access') as AccessObject;
  const refused = attach ?? refusePin(tx, contextId, attached, start, whole, false);
  if (refused !== undefined) {
    if (refused.unknown !== '') return call.unknown(refused.unknown);
    if (call.fail(refused.errno, refused.rule)) return false;
  }
  const index = call.struct.u32(16);
  if (whole > PAGE) call.unknown('whether the pages are next to each other is not recorded');
  if (index >= QUEUE_COUNT) return !call.fail('EINVAL', 'hw-queue.index');
  if (viommu.queues[index] !== 0 && call.fail('EEXIST', 'hw-queue.taken')) return false;
  if (index > 0 && viommu.queues[index - 1] === 0 && call.fail('EIO', 'hw-queue.order')) return false;
  return call.succeed('hw-queue.ok');
}
