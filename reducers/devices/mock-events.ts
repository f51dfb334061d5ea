import { Bytes, putU32, putU64 } from '../../core/bytes.js';
import { low32 } from '../../core/u64.js';
import type { Call } from '../call.js';
import { attachKey, attachmentOf, hwptOf } from '../iommufd/attach-hwpt.js';
import { lookup, patchObject, typedObject } from '../iommufd/context.js';
import { reportVevent } from '../iommufd/eventq.js';
import type { Rule } from '../iommufd/rules.js';
import type { BoundDevice } from '../iommufd/state.js';

/**
 * Events that the self-tests make a mock device send: a page request to the fault queue of the HWPT that it is attached
 * to, or an event to the queue of its vIOMMU. A page request that nobody takes is answered by the kernel.
 */
export const EVENT_TEST_RULES: readonly Rule[] = [
  { id: 'trigger-fault.device', errno: 'ENOENT', text: 'no device has the id' },
  { id: 'trigger-fault.kind', errno: 'EINVAL', text: 'the device is no mock device' },
  { id: 'trigger-fault.ok', errno: '', text: 'the request is queued, or answered at once' },
  { id: 'trigger-vevent.device', errno: 'ENOENT', text: 'no device has the id' },
  { id: 'trigger-vevent.viommu', errno: 'ENOENT', text: 'the device is in no vIOMMU, or its virtual id is 0' },
  { id: 'trigger-vevent.queue', errno: 'EOPNOTSUPP', text: 'the vIOMMU has no queue for the event' },
  { id: 'trigger-vevent.ok', errno: '', text: 'the event is queued or counted as lost' },
];

const PASID_VALID = 1;
const LAST_PAGE = 2;
const VEVENTQ_SELFTEST = 0xbeefbeef;

export function triggerFault(call: Call): void {
  const s = call.struct;
  const device = lookup(call, s.u32(16), 'device', 'trigger-fault.device');
  if (device === undefined) return;
  if (device.mock === null && call.fail('EINVAL', 'trigger-fault.kind')) return;
  if (!call.succeed('trigger-fault.ok')) return;
  const pasid = s.u32(20);
  const attach = handlerOf(call, device, pasid);
  if (attach === undefined) return;
  const message = new Uint8Array(40);
  putU32(message, 0, LAST_PAGE | (pasid !== 0 ? PASID_VALID : 0));
  putU32(message, 4, device.id);
  putU32(message, 8, pasid);
  putU32(message, 12, s.u32(24));
  putU32(message, 16, s.u32(28));
  putU64(message, 24, s.u64(32));
  const queue = typedObject(call.tx, call.file.object, attach.fault, 'fault');
  if (queue === undefined) return;
  const group = Object.freeze({ device: device.id, attach: attach.key, cookie: 0, message: new Bytes(message) });
  patchObject(call.tx, call.file.object, queue, {
    deliver: queue.deliver
      .edit()
      .set((queue.deliver.lastKey() ?? 0) + 1, group)
      .freeze(),
  });
}

/** The attach whose HWPT takes page requests of a PASID (`find_fault_handler`). */
function handlerOf(call: Call, device: BoundDevice, pasid: number): { key: string; fault: number } | undefined {
  const contextId = call.file.object;
  let used = pasid;
  let attachment = attachmentOf(call.tx, contextId, device, pasid);
  if (attachment === undefined && pasid !== 0) {
    // The mock driver has PASID tables of user space: other PASIDs go through the nested domain of the device.
    used = 0;
    attachment = attachmentOf(call.tx, contextId, device, 0);
    if (attachment !== undefined && hwptOf(call.tx, contextId, attachment.hwpt)?.type !== 'hwpt-nested')
      return undefined;
  }
  const hwpt = attachment === undefined ? undefined : hwptOf(call.tx, contextId, attachment.hwpt);
  return hwpt === undefined || hwpt.fault === 0 ? undefined : { key: attachKey(device, used), fault: hwpt.fault };
}

export function triggerVevent(call: Call): void {
  const { tx } = call;
  const contextId = call.file.object;
  const device = lookup(call, call.struct.u32(16), 'device', 'trigger-vevent.device');
  if (device === undefined) return;
  const mock = device.mock;
  if (mock === null) {
    call.unknown('the kernel takes any device for a mock device here');
    return;
  }
  const viommu = typedObject(tx, contextId, mock.viommu, 'viommu');
  if ((viommu === undefined || mock.vdevId === 0) && call.fail('ENOENT', 'trigger-vevent.viommu')) return;
  const queue = (viommu?.veventqs ?? [])
    .map((id) => typedObject(tx, contextId, id, 'veventq'))
    .find((candidate) => candidate?.queueType === VEVENTQ_SELFTEST);
  if (queue === undefined) {
    call.fail('EOPNOTSUPP', 'trigger-vevent.queue');
    return;
  }
  if (!call.succeed('trigger-vevent.ok')) {
    // The queue remembers an event that there was no memory for. Of a call that strace kept back it knows nothing.
    if (call.recordedErrno === 'ENOMEM' && !call.event.injected) reportVevent(tx, contextId, queue, null);
    return;
  }
  const data = new Uint8Array(4);
  putU32(data, 0, low32(mock.vdevId));
  reportVevent(tx, contextId, queue, new Bytes(data));
}
