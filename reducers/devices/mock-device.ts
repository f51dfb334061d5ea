import type { Call } from '../call.js';
import {
  type Attached,
  attachDevice,
  bindDevice,
  detachDevice,
  replaceDevice,
  type Told,
  unbindDevice,
} from '../iommufd/attach.js';
import { attachmentOf, hwptOf } from '../iommufd/attach-hwpt.js';
import {
  deviceOf,
  giveId,
  handOut,
  lookup,
  missing,
  newObjectId,
  objectOf,
  putObject,
  takeId,
  toldId,
} from '../iommufd/context.js';
import { predictRefusal } from '../iommufd/refuse.js';
import type { Refusal, Rule } from '../iommufd/rules.js';
import { newMockDevice } from './mock-domain.js';

/**
 * Mock devices as the self-tests make and attach them (drivers/iommu/iommufd/selftest.c).
 *
 * MOCK_DOMAIN makes one object for the device itself, binds it (a second object) and attaches it to an IOAS or HWPT (a
 * third object when an automatic HWPT is made); ids are taken in this order. Destroying the first object
 * undoes it all. Each device is a group of its own.
 */
export const DEVICE_TEST_RULES: readonly Rule[] = [
  { id: 'mock-domain.flags', errno: 'EINVAL', text: 'a device flag is unknown' },
  { id: 'mock-domain.ok', errno: '', text: 'the device is made, bound and attached' },
  { id: 'mock-replace.device', errno: 'ENOENT', text: 'no mock device has the id' },
  { id: 'mock-replace.ok', errno: '', text: 'the device is attached to another HWPT' },
  { id: 'pasid-check.mismatch', errno: 'EINVAL', text: 'the PASID is attached to something else' },
  { id: 'pasid-check.hwpt', errno: 'ENOENT', text: 'no object has the id' },
  { id: 'pasid-check.type', errno: 'EINVAL', text: 'the object is no HWPT' },
  { id: 'pasid-check.ok', errno: '', text: 'the PASID is attached to it' },
];

const OP_MOCK_DOMAIN_FLAGS = 12;
const VALID_FLAGS = 5;

/**
 * Attaches, or moves, and predicts; gives what was attached when the call goes on. With fault injection the kernel's look at
 * reserved ranges can fail, which it takes for an automatic HWPT that does not fit the device: the search
 * goes on to the next one, or to a new one.
 */
function attached(
  call: Call,
  hwptAt: number,
  rule: string,
  change: (told: Told) => Attached | Refusal,
): Attached | undefined {
  call.trial();
  let result = change({ hwpt: toldId(call, hwptAt) });
  if ('ptId' in result && call.wentAnotherWay(hwptAt, result.ptId)) result = change({ passOver: result.ptId });
  if (!('ptId' in result)) {
    predictRefusal(call, result);
    return undefined;
  }
  if (result.unknown !== undefined) call.unknown(result.unknown);
  return call.succeed(rule) ? result : undefined;
}

export function mockDomain(call: Call): void {
  const s = call.struct;
  const { tx } = call;
  const contextId = call.file.object;
  const flags = s.u32(4) === OP_MOCK_DOMAIN_FLAGS ? s.u32(28) : 0;
  if ((flags & ~VALID_FLAGS) !== 0 && call.fail('EINVAL', 'mock-domain.flags')) return;
  let standing = 0;
  let device = 0;
  const made = attached(call, 20, 'mock-domain.ok', (told) => {
    standing = newObjectId(call, 16);
    takeId(tx, contextId, standing);
    const key = `mock:${tx.nextId('mock-devices')}`;
    const { seq } = call.event;
    const id = newObjectId(call, 24);
    device = bindDevice(tx, contextId, key, seq, key, id, newMockDevice(flags));
    const result = attachDevice(tx, contextId, device, s.u32(8), seq, 0, told);
    if ('ptId' in result) putObject(tx, contextId, { type: 'selftest', id: standing, users: 0, since: seq, device });
    else {
      unbindDevice(tx, contextId, device);
      giveId(tx, contextId, standing);
    }
    return result;
  });
  if (made === undefined) return;
  handOut(call, standing, 16, 'out_stdev_id');
  handOut(call, made.ptId, 20, 'out_hwpt_id');
  handOut(call, device, 24, 'out_idev_id');
}

/** Object id of the bound device behind the id at 8; undefined after a prediction was made. */
function boundDevice(call: Call): number | undefined {
  return lookup(call, call.struct.u32(8), 'selftest', 'mock-replace.device')?.device;
}

export function mockDomainReplace(call: Call): void {
  replace(call, 0, 16);
}

export function pasidReplace(call: Call): void {
  replace(call, call.struct.u32(16), 20);
}

function replace(call: Call, pasid: number, ptAt: number): void {
  const device = boundDevice(call);
  if (device === undefined) return;
  const { tx, event } = call;
  const ptId = call.struct.u32(ptAt);
  const made = attached(call, ptAt, 'mock-replace.ok', (told) =>
    replaceDevice(tx, call.file.object, device, ptId, event.seq, pasid, told),
  );
  if (made !== undefined) handOut(call, made.ptId, ptAt, 'pt_id');
}

export function pasidAttach(call: Call): void {
  const device = boundDevice(call);
  if (device === undefined) return;
  const { tx, event } = call;
  const [pasid, ptId] = [call.struct.u32(16), call.struct.u32(20)];
  const made = attached(call, 20, 'mock-replace.ok', (told) =>
    attachDevice(tx, call.file.object, device, ptId, event.seq, pasid, told),
  );
  if (made !== undefined) handOut(call, made.ptId, 20, 'pt_id');
}

export function pasidDetach(call: Call): void {
  const device = boundDevice(call);
  if (device !== undefined && call.succeed('mock-replace.ok'))
    detachDevice(call.tx, call.file.object, device, call.struct.u32(16));
}

export function pasidCheck(call: Call): void {
  const id = boundDevice(call);
  if (id === undefined) return;
  const contextId = call.file.object;
  const device = deviceOf(call.tx, contextId, id);
  const attached = attachmentOf(call.tx, contextId, device, call.struct.u32(16))?.hwpt ?? 0;
  const hwptId = call.struct.u32(20);
  if (hwptId !== 0) {
    const object = objectOf(call.tx, contextId, hwptId);
    if (object === undefined) {
      missing(call, contextId, 'pasid-check.hwpt');
      return;
    }
    if (hwptOf(call.tx, contextId, hwptId) === undefined && call.fail('EINVAL', 'pasid-check.type')) return;
  }
  if (attached !== hwptId && call.fail('EINVAL', 'pasid-check.mismatch')) return;
  call.succeed('pasid-check.ok');
}
