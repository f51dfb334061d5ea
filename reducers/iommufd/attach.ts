import { mockTraits } from '../devices/mock-domain.js';
import type { Tx } from '../tx.js';
import { attachHwpt, attachmentOf, detachHwpt, ioasKeyOf, replaceHwpt } from './attach-hwpt.js';
import { domainInDoubt } from './attach-real.js';
import {
  addIoas,
  addUsers,
  contextOf,
  deviceOf,
  dropObject,
  ioasByKey,
  ioasOfObject,
  isFreeId,
  isIdGuessed,
  nextObjectId,
  objectOf,
  objectsUnknown,
  patchContext,
  patchObject,
  putObject,
  takeId,
  typedObject,
} from './context.js';
import { realTraits } from './domain.js';
import { makePagingHwpt } from './hwpt-make.js';
import { destroyPagingHwpt } from './hwpt-object.js';
import { areasInDoubt } from './iopt.js';
import { notKnown, type Refusal, type Rule, refusal } from './rules.js';
import type { BoundDevice, DomainTraits, MockDevice } from './state.js';
import { releaseContextIfDone } from './teardown.js';
import { destroyVdevice } from './viommu-object.js';

/**
 * What a driver does with a device and a context (drivers/iommu/iommufd/device.c): bind, attach, replace, detach,
 * unbind. VFIO's cdev, VFIO's compatibility mode and the kernel's mock devices all come through here.
 *
 * A bound device is an object whose id user space gets. It cannot be destroyed by its id: the driver is a
 * user, and each attached PASID another. Attaching to an IOAS looks for an automatic HWPT of it that takes
 * the device, oldest first, and makes one when there is none; that one goes with its last device.
 */
export const DEVICE_RULES: readonly Rule[] = [
  { id: 'bind.owner', errno: 'EPERM', text: 'another context owns the group of the device' },
  { id: 'attach.object', errno: 'ENOENT', text: 'no object has the id' },
  { id: 'attach.type', errno: 'EINVAL', text: 'the object is neither IOAS nor HWPT' },
];

const NOT_OWNER = refusal('EPERM', 'bind.owner');
const NO_OBJECT = refusal('ENOENT', 'attach.object');
const WRONG_TYPE = refusal('EINVAL', 'attach.type');

/** The id that a bind, or any other allocation, would get next. */
export function predictDeviceId(tx: Tx, contextId: number): number {
  return nextObjectId(tx, contextId);
}

/**
 * Binds a device to a context and gives its object id (`iommufd_device_bind`). The checks before it (ownership of
 * the group) are {@link bindRefusal}. A real device keeps the context alive until it is unbound.
 *
 * @param deviceKey key of the device in `World.devices`, or `mock:<n>`
 * @param group devices with an equal group share their attachments; the device's own when not given
 * @param id the id to take where the recording shows one; else the next
 */
export function bindDevice(
  tx: Tx,
  contextId: number,
  deviceKey: string,
  seq: number,
  group: string = deviceKey,
  id: number = nextObjectId(tx, contextId),
  mock: MockDevice | null = null,
): number {
  takeId(tx, contextId, id);
  const device: BoundDevice = {
    type: 'device',
    id,
    users: 1,
    since: seq,
    key: deviceKey,
    group,
    mock,
    vdevice: 0,
  };
  putObject(tx, contextId, device);
  if (mock === null) patchContext(tx, contextId, { holders: contextOf(tx, contextId).holders + 1 });
  return id;
}

/** Whether another context owns the group (`iommu_device_claim_dma_owner`). */
export function bindRefusal(tx: Tx, contextId: number, group: string): Refusal | undefined {
  for (const context of tx.world.iommufds.values()) {
    if (context.id === contextId) continue;
    for (const object of context.objects.values())
      if (object.type === 'device' && object.group === group) return NOT_OWNER;
  }
  return undefined;
}

/**
 * Unbinds a device; its vDEVICE goes and leaves its id reserved for good (`iommufd_device_unbind`). A real device is
 * detached before, as VFIO does when it closes one.
 */
export function unbindDevice(tx: Tx, contextId: number, deviceId: number): void {
  const device = typedObject(tx, contextId, deviceId, 'device');
  if (device === undefined) return;
  const vdevice = typedObject(tx, contextId, device.vdevice, 'vdevice');
  if (vdevice !== undefined && vdevice.users === 0) destroyVdevice(tx, contextId, vdevice, true);
  if (device.mock === null)
    for (const pasid of attachedPasids(tx, contextId, device)) detachDevice(tx, contextId, deviceId, pasid);
  const now = deviceOf(tx, contextId, deviceId);
  if (now.users > 1) {
    // Still attached for a PASID: the driver's reference goes, the object stays until the context does.
    const mock = now.mock === null ? null : Object.freeze({ ...now.mock, gone: true });
    patchObject(tx, contextId, now, { users: now.users - 1, mock });
    return;
  }
  dropObject(tx, contextId, deviceId);
  if (device.mock === null) {
    patchContext(tx, contextId, { holders: contextOf(tx, contextId).holders - 1 });
    releaseContextIfDone(tx, contextId);
  }
}

function attachedPasids(tx: Tx, contextId: number, device: BoundDevice): number[] {
  const pasids: number[] = [];
  const { attachments } = contextOf(tx, contextId);
  attachments.forRange(`${device.group}/`, `${device.group}0`, (attachment, key) => {
    if (key.startsWith(`${device.group}/`) && attachment.devices.includes(device.id))
      pasids.push(Number(key.slice(device.group.length + 1)));
    return undefined;
  });
  return pasids;
}

/** Whether a device is attached for a PASID. */
export function isAttached(tx: Tx, contextId: number, deviceId: number, pasid = 0): boolean {
  const device = typedObject(tx, contextId, deviceId, 'device');
  return device !== undefined && (attachmentOf(tx, contextId, device, pasid)?.devices.includes(deviceId) ?? false);
}

export interface Attached {
  /** Object id of the HWPT, which user space gets back. */
  readonly ptId: number;
  /** Why the recording cannot tell whether the kernel does it; the change is made, for the caller to undo. */
  readonly unknown?: string;
}

/** What a recording tells of the automatic HWPT that an attach takes. */
export interface Told {
  /** Its id, where objects are unknown so that it cannot be predicted. */
  readonly hwpt?: number | undefined;
  /** One that an injected fault kept the device from. */
  readonly passOver?: number;
}

const NOTHING_TOLD: Told = Object.freeze({});

type Change = (tx: Tx, contextId: number, deviceId: number, hwptId: number, pasid: number) => Refusal | undefined;

/**
 * Attaches a bound device to an IOAS or HWPT by object id (`iommufd_device_attach`). Changes nothing when it refuses;
 * with `unknown` set the recording cannot tell.
 */
export function attachDevice(
  tx: Tx,
  contextId: number,
  deviceId: number,
  ptId: number,
  seq: number,
  pasid = 0,
  told: Told = NOTHING_TOLD,
): Attached | Refusal {
  const result = changePt(tx, contextId, deviceId, ptId, seq, pasid, told, attachHwpt);
  if ('ptId' in result) addUsers(tx, contextId, deviceId, 1);
  return result;
}

/** Moves an attached device to another IOAS or HWPT (`iommufd_device_replace`). */
export function replaceDevice(
  tx: Tx,
  contextId: number,
  deviceId: number,
  ptId: number,
  seq: number,
  pasid = 0,
  told: Told = NOTHING_TOLD,
): Attached | Refusal {
  return changePt(tx, contextId, deviceId, ptId, seq, pasid, told, replaceHwpt);
}

/** Detaches a device; nothing when it is not attached (`iommufd_device_detach`). */
export function detachDevice(tx: Tx, contextId: number, deviceId: number, pasid = 0): void {
  if (detachHwpt(tx, contextId, deviceId, pasid)) addUsers(tx, contextId, deviceId, -1);
}

function changePt(
  tx: Tx,
  contextId: number,
  deviceId: number,
  ptId: number,
  seq: number,
  pasid: number,
  told: Told,
  change: Change,
): Attached | Refusal {
  const object = objectOf(tx, contextId, ptId);
  const since = contextOf(tx, contextId).unknownSince;
  // Where objects are unknown, what this call makes has an id that is not told yet.
  const unsure = object === undefined || object.since === seq || isIdGuessed(tx, contextId, object);
  if (since >= 0 && unsure) return notKnown(objectsUnknown(since));
  if (object === undefined) return NO_OBJECT;
  switch (object.type) {
    case 'hwpt-paging':
    case 'hwpt-nested':
      return change(tx, contextId, deviceId, ptId, pasid) ?? attached(tx, contextId, deviceId, ptId);
    case 'ioas':
      return autoDomain(tx, contextId, deviceId, ptId, seq, pasid, told, change);
    default:
      return WRONG_TYPE;
  }
}

/**
 * An attach that worked, for all that is known: what is mapped far up may be where the device reserves a range, and its
 * IOMMU may not take the domain.
 */
function attached(tx: Tx, contextId: number, deviceId: number, ptId: number): Attached {
  const ioasKey = ioasKeyOf(tx, contextId, ptId);
  const areas = ioasKey === undefined ? undefined : areasInDoubt(ioasByKey(tx, ioasKey))?.unknown;
  const unknown = areas ?? domainInDoubt(tx, contextId, deviceOf(tx, contextId, deviceId), ptId);
  return unknown === undefined ? { ptId } : { ptId, unknown };
}

/** Finds or makes the automatic HWPT of an IOAS for a device (`iommufd_device_auto_get_domain`). */
function autoDomain(
  tx: Tx,
  contextId: number,
  deviceId: number,
  ioasId: number,
  seq: number,
  pasid: number,
  told: Told,
  change: Change,
): Attached | Refusal {
  for (const id of ioasOfObject(tx, contextId, ioasId).hwpts) {
    if (id === told.passOver || (told.hwpt ?? id) !== id) continue;
    if (!typedObject(tx, contextId, id, 'hwpt-paging')?.auto) continue;
    const refused = change(tx, contextId, deviceId, id, pasid);
    if (refused === undefined) return attached(tx, contextId, deviceId, id);
    if (refused.errno !== 'EINVAL') return refused;
  }
  const device = deviceOf(tx, contextId, deviceId);
  const attaches = change === attachHwpt;
  const made = makePagingHwpt(tx, {
    contextId,
    ioasId,
    device,
    domain: defaultTraits(tx, device),
    auto: false,
    nestParent: false,
    pasidCompat: false,
    seq,
    id: told.hwpt !== undefined && isFreeId(tx, contextId, told.hwpt) ? told.hwpt : undefined,
    attachPasid: attaches ? pasid : -1,
  });
  if ('errno' in made) return made;
  const { id } = 'hwpt' in made ? made.hwpt : made;
  if (!attaches) {
    const refused = change(tx, contextId, deviceId, id, pasid);
    if (refused !== undefined) {
      abandonHwpt(tx, contextId, id);
      return refused;
    }
  }
  const hwpt = typedObject(tx, contextId, id, 'hwpt-paging');
  if (hwpt !== undefined) patchObject(tx, contextId, hwpt, { auto: true });
  return 'hwpt' in made ? { ptId: id, unknown: made.unknown } : { ptId: id };
}

function defaultTraits(tx: Tx, device: BoundDevice): DomainTraits {
  return device.mock !== null ? mockTraits(false, false) : realTraits(tx, device, 0);
}

function abandonHwpt(tx: Tx, contextId: number, hwptId: number): void {
  const hwpt = typedObject(tx, contextId, hwptId, 'hwpt-paging');
  if (hwpt !== undefined) destroyPagingHwpt(tx, contextId, hwpt);
}

/**
 * Whether a device may be a mediated one for all that was shown: such a one is an access, not a device, and is not found
 * as one.
 */
export function mayBeMediated(tx: Tx, device: BoundDevice): boolean {
  return tx.world.devices.get(device.key)?.driver === 'unknown';
}

export const MAY_BE_MEDIATED = 'whether the device is behind an IOMMU or mediated was not shown yet';

// ---- VFIO's compatibility mode ------------------------------------------------------------------------------

/** The IOAS that VFIO's container calls work on, made when the first group comes (`iommufd_vfio_compat_ioas_create`). */
export function ensureCompatIoas(tx: Tx, contextId: number, seq: number): number {
  const context = contextOf(tx, contextId);
  if (context.vfioIoas !== 0 && objectOf(tx, contextId, context.vfioIoas)?.type === 'ioas') return context.vfioIoas;
  const id = nextObjectId(tx, contextId);
  addIoas(tx, contextId, id, seq);
  patchContext(tx, contextId, { vfioIoas: id });
  return id;
}

/** Object id of the compatibility IOAS, 0 when there is none. */
export function compatIoasId(tx: Tx, contextId: number): number {
  return contextOf(tx, contextId).vfioIoas;
}
