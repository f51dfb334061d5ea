import { mockAttach, mockAttachPasid, mockDetach, mockDetachPasid } from '../devices/mock-domain.js';
import type { Tx } from '../tx.js';
import { REAL_ATTACH_RULES, refuseDomain } from './attach-real.js';
import { addUsers, contextOf, deviceOf, objectOf, typedObject } from './context.js';
import { answerFaultsOf } from './eventq-state.js';
import { putHwpt } from './hwpt-object.js';
import { reserveForDevice, unreserveForDevice } from './limits.js';
import { type Refusal, type Rule, refusal } from './rules.js';
import type { Attachment, BoundDevice, NestedHwpt, PagingHwpt } from './state.js';

/**
 * Devices and the HWPT that their group is attached to (drivers/iommu/iommufd/device.c), for the whole device
 * (PASID 0) or one PASID of it.
 *
 * All devices of a group share one HWPT per PASID: the first one attaches the domain, the others follow, the last
 * one detaches it. Each device adds its own reserved ranges to the IOAS below, whether it was first or not, and one
 * user to the HWPT. A domain with PASID support and one without cannot be mixed in a group.
 */
export const ATTACH_RULES: readonly Rule[] = [
  { id: 'attach.twice', errno: 'EBUSY', text: 'the device is attached already' },
  { id: 'attach.other-hwpt', errno: 'EINVAL', text: 'the group is attached to another HWPT' },
  { id: 'attach.pasid-compat', errno: 'EINVAL', text: 'the HWPT, or the one of PASID 0, was not made for PASIDs' },
  { id: 'attach.other-iommu', errno: 'EINVAL', text: 'the domain belongs to another kind of IOMMU' },
  ...REAL_ATTACH_RULES,
  { id: 'replace.not-attached', errno: 'EINVAL', text: 'the device is not attached' },
];

const TWICE = refusal('EBUSY', 'attach.twice');
const OTHER_HWPT = refusal('EINVAL', 'attach.other-hwpt');
const PASID_COMPAT = refusal('EINVAL', 'attach.pasid-compat');
const OTHER_IOMMU = refusal('EINVAL', 'attach.other-iommu');
const NOT_ATTACHED = refusal('EINVAL', 'replace.not-attached');

export type Hwpt = PagingHwpt | NestedHwpt;

export function attachKey(device: BoundDevice, pasid: number): string {
  return `${device.group}/${pasid}`;
}

export function attachmentOf(tx: Tx, contextId: number, device: BoundDevice, pasid: number): Attachment | undefined {
  return contextOf(tx, contextId).attachments.get(attachKey(device, pasid));
}

function setAttachment(tx: Tx, contextId: number, key: string, value: Attachment | undefined): void {
  const table = tx.openTable(tx.world.iommufds, contextId, 'attachments');
  if (value === undefined) table.delete(key);
  else table.set(key, Object.freeze({ hwpt: value.hwpt, devices: Object.freeze(value.devices) }));
}

export function hwptOf(tx: Tx, contextId: number, id: number): Hwpt | undefined {
  const object = objectOf(tx, contextId, id);
  return object?.type === 'hwpt-paging' || object?.type === 'hwpt-nested' ? object : undefined;
}

/** Key of the IOAS record whose IOVA space a HWPT stands on. */
export function ioasKeyOf(tx: Tx, contextId: number, hwptId: number): number | undefined {
  const hwpt = hwptOf(tx, contextId, hwptId);
  if (hwpt === undefined) return undefined;
  const paging = hwpt.type === 'hwpt-paging' ? hwpt : typedObject(tx, contextId, hwpt.parent, 'hwpt-paging');
  return paging === undefined ? undefined : typedObject(tx, contextId, paging.ioas, 'ioas')?.ioas;
}

function pasidRefusal(tx: Tx, contextId: number, hwpt: Hwpt, device: BoundDevice, pasid: number): Refusal | undefined {
  const attachments = contextOf(tx, contextId).attachments;
  if (pasid === 0) {
    if (hwpt.pasidCompat) return undefined;
    // Keys of one group are neighbours: `/0` sorts first, and `0` is the character after `/`.
    let other = false;
    attachments.forRange(`${device.group}/`, `${device.group}0`, (_, key) => {
      if (key.startsWith(`${device.group}/`) && key !== attachKey(device, 0)) other = true;
      return !other;
    });
    return other ? PASID_COMPAT : undefined;
  }
  if (!hwpt.pasidCompat) return PASID_COMPAT;
  const whole = attachments.get(attachKey(device, 0));
  const wholeHwpt = whole === undefined ? undefined : hwptOf(tx, contextId, whole.hwpt);
  return wholeHwpt !== undefined && !wholeHwpt.pasidCompat ? PASID_COMPAT : undefined;
}

function attachDomain(
  tx: Tx,
  contextId: number,
  hwpt: Hwpt,
  device: BoundDevice,
  pasid: number,
  old: Hwpt | undefined,
): Refusal | undefined {
  const refused = pasidRefusal(tx, contextId, hwpt, device, pasid);
  if (refused !== undefined) return refused;
  const owner = hwpt.type === 'hwpt-paging' ? hwpt.domain.owner : hwpt.owner;
  if ((owner === 'mock') !== (device.mock !== null)) return OTHER_IOMMU;
  if (device.mock === null) return refuseDomain(tx, contextId, device, hwpt, pasid);
  return pasid === 0
    ? mockAttach(tx, contextId, device, hwpt, old)
    : mockAttachPasid(tx, contextId, device, hwpt, old, pasid);
}

/** Attaches a device to a HWPT (`iommufd_hw_pagetable_attach`). */
export function attachHwpt(
  tx: Tx,
  contextId: number,
  deviceId: number,
  hwptId: number,
  pasid: number,
): Refusal | undefined {
  const device = deviceOf(tx, contextId, deviceId);
  const hwpt = hwptOf(tx, contextId, hwptId) as Hwpt;
  const attachment = attachmentOf(tx, contextId, device, pasid);
  if (attachment?.devices.includes(deviceId)) return TWICE;
  if (attachment !== undefined && attachment.hwpt !== hwptId) return OTHER_HWPT;
  const ioasKey = pasid === 0 ? ioasKeyOf(tx, contextId, hwptId) : undefined;
  if (ioasKey !== undefined) {
    const refused = reserveForDevice(tx, ioasKey, device.key, device.mock !== null);
    if (refused !== undefined) return refused;
  }
  if (attachment === undefined) {
    const refused = attachDomain(tx, contextId, hwpt, device, pasid, undefined);
    if (refused !== undefined) {
      if (ioasKey !== undefined) unreserveForDevice(tx, ioasKey, device.key);
      return refused;
    }
  }
  addUsers(tx, contextId, hwptId, 1);
  setAttachment(tx, contextId, attachKey(device, pasid), {
    hwpt: hwptId,
    devices: [...(attachment?.devices ?? []), deviceId],
  });
  return undefined;
}

/** Detaches a device (`iommufd_hw_pagetable_detach`); false when it was not attached. */
export function detachHwpt(tx: Tx, contextId: number, deviceId: number, pasid: number): boolean {
  const device = deviceOf(tx, contextId, deviceId);
  const attachment = attachmentOf(tx, contextId, device, pasid);
  if (attachment === undefined || !attachment.devices.includes(deviceId)) return false;
  const hwpt = hwptOf(tx, contextId, attachment.hwpt) as Hwpt;
  const key = attachKey(device, pasid);
  const rest = attachment.devices.filter((id) => id !== deviceId);
  if (rest.length > 0) setAttachment(tx, contextId, key, { hwpt: attachment.hwpt, devices: rest });
  else {
    if (device.mock !== null) {
      if (pasid === 0) mockDetach(tx, contextId, device, hwpt);
      else mockDetachPasid(tx, contextId, device, hwpt, pasid);
    }
    if (hwpt.fault !== 0) answerFaultsOf(tx, contextId, hwpt.fault, key);
    setAttachment(tx, contextId, key, undefined);
  }
  const ioasKey = pasid === 0 ? ioasKeyOf(tx, contextId, hwpt.id) : undefined;
  if (ioasKey !== undefined) unreserveForDevice(tx, ioasKey, device.key);
  putHwpt(tx, contextId, hwpt.id);
  return true;
}

/**
 * Moves a device's group to another HWPT (`iommufd_device_do_replace`). The users of the old one are moved;
 * it may go, if it was automatic.
 */
export function replaceHwpt(
  tx: Tx,
  contextId: number,
  deviceId: number,
  hwptId: number,
  pasid: number,
): Refusal | undefined {
  const device = deviceOf(tx, contextId, deviceId);
  const hwpt = hwptOf(tx, contextId, hwptId) as Hwpt;
  const attachment = attachmentOf(tx, contextId, device, pasid);
  if (attachment === undefined || !attachment.devices.includes(deviceId)) return NOT_ATTACHED;
  if (attachment.hwpt === hwptId) return undefined;
  const old = hwptOf(tx, contextId, attachment.hwpt) as Hwpt;
  const ioasKey = pasid === 0 ? ioasKeyOf(tx, contextId, hwptId) : undefined;
  const oldKey = pasid === 0 ? ioasKeyOf(tx, contextId, old.id) : undefined;
  const moves = ioasKey !== oldKey;
  if (ioasKey !== undefined && moves) {
    const refused = reserveAll(tx, contextId, ioasKey, attachment);
    if (refused !== undefined) {
      unreserveAll(tx, contextId, ioasKey, attachment);
      return refused;
    }
  }
  const refused = attachDomain(tx, contextId, hwpt, device, pasid, old);
  if (refused !== undefined) {
    // Also where both stand on one IOAS: the kernel takes the reservations away all the same.
    if (ioasKey !== undefined) unreserveAll(tx, contextId, ioasKey, attachment);
    return refused;
  }
  if (old.fault !== 0) answerFaultsOf(tx, contextId, old.fault, attachKey(device, pasid));
  if (oldKey !== undefined && moves) unreserveAll(tx, contextId, oldKey, attachment);
  setAttachment(tx, contextId, attachKey(device, pasid), { hwpt: hwptId, devices: attachment.devices });
  addUsers(tx, contextId, hwptId, attachment.devices.length);
  addUsers(tx, contextId, old.id, 1 - attachment.devices.length);
  putHwpt(tx, contextId, old.id);
  return undefined;
}

function reserveAll(tx: Tx, contextId: number, ioasKey: number, attachment: Attachment): Refusal | undefined {
  for (const id of attachment.devices) {
    const device = deviceOf(tx, contextId, id);
    const refused = reserveForDevice(tx, ioasKey, device.key, device.mock !== null);
    if (refused !== undefined) return refused;
  }
  return undefined;
}

function unreserveAll(tx: Tx, contextId: number, ioasKey: number, attachment: Attachment): void {
  for (const id of attachment.devices) unreserveForDevice(tx, ioasKey, deviceOf(tx, contextId, id).key);
}
