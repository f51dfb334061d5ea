import type { Call } from '../call.js';
import { attachDevice, bindDevice, detachDevice, replaceDevice, unbindDevice } from '../iommufd/attach.js';
import { attachmentOf, hwptOf } from '../iommufd/attach-hwpt.js';
import {
  deviceOf,
  dropObject,
  giveId,
  handOut,
  lookup,
  missing,
  nextObjectId,
  objectOf,
  putObject,
  takeId,
} from '../iommufd/context.js';
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

/** Predicts what a refusal says; true when the call fails. */
function answerRefusal(call: Call, refused: Refusal): void {
  if (refused.unknown !== '') call.unknown(refused.unknown);
  else call.fail(refused.errno, refused.rule);
}

export function mockDomain(call: Call): void {
  const s = call.struct;
  const { tx } = call;
  const contextId = call.file.object;
  const flags = s.u32(4) === OP_MOCK_DOMAIN_FLAGS ? s.u32(28) : 0;
  if ((flags & ~VALID_FLAGS) !== 0 && call.fail('EINVAL', 'mock-domain.flags')) return;
  const standing = nextObjectId(tx, contextId);
  takeId(tx, contextId, standing);
  const key = `mock:${tx.nextId('mock-devices')}`;
  const device = bindDevice(tx, contextId, key, call.event.seq, key, nextObjectId(tx, contextId), newMockDevice(flags));
  const attached = attachDevice(tx, contextId, device, s.u32(8), call.event.seq);
  if (!('ptId' in attached)) {
    unbindDevice(tx, contextId, device);
    giveId(tx, contextId, standing);
    answerRefusal(call, attached);
    return;
  }
  if (attached.unknown !== undefined) call.unknown(attached.unknown);
  putObject(tx, contextId, { type: 'selftest', id: standing, users: 0, since: call.event.seq, device });
  if (!call.succeed('mock-domain.ok')) {
    detachDevice(tx, contextId, device);
    unbindDevice(tx, contextId, device);
    dropObject(tx, contextId, standing);
    return;
  }
  handOut(call, standing, 16, 'out_stdev_id');
  handOut(call, attached.ptId, 20, 'out_hwpt_id');
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
  replaceDevice(call.tx, call.file.object, device, call.struct.u32(ptAt), call.event.seq, pasid, (replaced) => {
    if (!('ptId' in replaced)) {
      answerRefusal(call, replaced);
      return false;
    }
    if (replaced.unknown !== undefined) call.unknown(replaced.unknown);
    if (!call.succeed('mock-replace.ok')) return false;
    handOut(call, replaced.ptId, ptAt, 'pt_id');
    return true;
  });
}

export function pasidAttach(call: Call): void {
  const device = boundDevice(call);
  if (device === undefined) return;
  const pasid = call.struct.u32(16);
  const contextId = call.file.object;
  const attached = attachDevice(call.tx, contextId, device, call.struct.u32(20), call.event.seq, pasid);
  if (!('ptId' in attached)) {
    answerRefusal(call, attached);
    return;
  }
  if (attached.unknown !== undefined) call.unknown(attached.unknown);
  if (call.succeed('mock-replace.ok')) handOut(call, attached.ptId, 20, 'pt_id');
  else detachDevice(call.tx, contextId, device, pasid);
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
