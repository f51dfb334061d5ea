import { add } from '../../../core/u64.js';
import { find, unknownSinceText } from '../../answer.js';
import type { Call } from '../../call.js';
import { refusedUnseen } from '../../iommufd/access.js';
import {
  type Attached,
  attachDevice,
  bindDevice,
  bindRefusal,
  detachDevice,
  isAttached,
  predictDeviceId,
  replaceDevice,
} from '../../iommufd/attach.js';
import { lacksPageRequests, takesPasids } from '../../iommufd/attach-real.js';
import {
  contextOf,
  deviceOf as deviceObject,
  handOut,
  markContextUnknown,
  objectOf,
  patchObject,
  shownId,
  toldId,
  typedObject,
} from '../../iommufd/context.js';
import { forgetContext } from '../../iommufd/forget.js';
import { predictRefusal } from '../../iommufd/refuse.js';
import type { Refusal } from '../../iommufd/rules.js';
import type { Tx } from '../../tx.js';
import { BY_GROUP, deviceOf, leaveIommufd, openDevice, patchDevice } from '../devices.js';
import { tellDriver } from '../driver.js';
import {
  attachEmulated,
  bindEmulated,
  detachEmulated,
  failedByMark,
  isAttachedEmulated,
  isMediated,
} from '../emulated.js';
import { deviceKey, teach } from '../facts.js';
import { fdUnknown, joinableFiles, lookFd } from '../fd-look.js';
import { happenedUnseen, takeStruct } from '../payload.js';
import { type Rule, refuse } from '../rules.js';
import type { VfioDevice } from '../state.js';
import { USER_PTR_MAX } from '../uapi.js';
import { GROUP_BLOCK_RULES, groupBlocks, keepBlockFree, openThroughGroup } from './group-block.js';
import { groupName, sharedGroupShows } from './shared-group.js';

/**
 * The device's own character device with an iommufd (drivers/vfio/device_cdev.c).
 *
 * Its file gives no access until BIND_IOMMUFD has bound the device to a context, which one file can do once; from then
 * on the device is an object of the context, attached to an IOAS or HWPT by ATTACH and detached by DETACH. Structs:
 * bind argsz 0, flags 4, iommufd 8, out_devid 12, token_uuid_ptr 16; attach argsz 0, flags 4, pt_id 8, pasid 12;
 * detach argsz 0, flags 4, pasid 8.
 */
export const CDEV_RULES = {
  bindArgsz: { id: 'bind.argsz', errno: 'EINVAL', text: 'argsz is less than 16' },
  bindTail: { id: 'bind.tail', errno: 'E2BIG', text: 'bytes beyond the struct are not zero' },
  bindFlags: { id: 'bind.flags', errno: 'EINVAL', text: 'a flag other than TOKEN, or a negative iommufd' },
  bindGroup: { id: 'bind.group-file', errno: 'EINVAL', text: 'the file was opened through the group' },
  ...GROUP_BLOCK_RULES,
  bindTwice: { id: 'bind.again', errno: 'EINVAL', text: 'this file has bound the device already' },
  bindTokenFault: { id: 'bind.token-copy-in', errno: 'EFAULT', text: 'the token is no user memory' },
  bindToken: { id: 'bind.token', errno: 'EINVAL', text: 'a token for a device that takes none' },
  bindBadFd: { id: 'bind.fd', errno: 'EBADF', text: 'the iommufd is not open' },
  bindNotIommufd: { id: 'bind.not-an-iommufd', errno: 'EBADFD', text: 'the fd is no iommufd' },
  attachArgsz: { id: 'attach-pt.argsz', errno: 'EINVAL', text: 'argsz is less than 12' },
  attachFlags: { id: 'attach-pt.flags', errno: 'EINVAL', text: 'a flag other than PASID' },
  attachPasid: { id: 'attach-pt.pasid-argsz', errno: 'EINVAL', text: 'PASID, and argsz is less than 16' },
  detachArgsz: { id: 'detach-pt.argsz', errno: 'EINVAL', text: 'argsz is less than 8' },
  detachFlags: { id: 'detach-pt.flags', errno: 'EINVAL', text: 'a flag other than PASID' },
  detachPasid: { id: 'detach-pt.pasid-argsz', errno: 'EINVAL', text: 'PASID, and argsz is less than 12' },
  pasidTooHigh: { id: 'attach-pt.pasid-too-high', errno: 'ENOSPC', text: 'the PASID is 2^31 or more' },
  noPasid: { id: 'device.no-pasid', errno: 'EOPNOTSUPP', text: 'the driver of the device knows no PASIDs' },
} as const satisfies Record<string, Rule>;

const R = CDEV_RULES;
const BIND_MIN_BYTES = 16;
const BIND_BYTES = 24;
const FLAG_TOKEN = 1;
const FLAG_PASID = 1;

// ---- BIND --------------------------------------------------------------------------------------------------

export function bindIommufd(call: Call): void {
  const struct = takeStruct(call, BIND_MIN_BYTES, R.bindArgsz);
  const device = deviceOf(call);
  if (struct === undefined) {
    if (happenedUnseen(call)) bindUnseen(call, device);
    return;
  }
  const argsz = struct.u32(0);
  call.extentBytes = Math.min(argsz, BIND_BYTES);
  if (argsz > BIND_BYTES && struct.length >= argsz && !struct.isZero(BIND_BYTES, argsz - BIND_BYTES))
    if (refuse(call, R.bindTail)) return;
  if (struct.length < argsz && call.failedByFact(R.bindTail.errno, 'bytes beyond the struct are not recorded')) return;
  const flags = struct.u32(4);
  const fd = struct.s32(8);
  if (((flags & ~FLAG_TOKEN) !== 0 || fd < 0) && refuse(call, R.bindFlags)) return;
  if (call.file.object === BY_GROUP && refuse(call, R.bindGroup)) return;
  if (groupBlocks(call, device)) return;
  if (device.boundFile === call.file.id) {
    if (device.unknownSince < 0 && refuse(call, R.bindTwice)) return;
    call.unknown(unknownSinceText('whether the file has bound the device is', device.unknownSince));
  }
  if ((flags & FLAG_TOKEN) !== 0 && tokenEnds(call, device, argsz)) return;
  const file = lookFd(call, fd);
  if (file === 'unknown') {
    if (call.unknown(fdUnknown(fd))) giveAccess(call, device, 0, 0);
    return;
  }
  if (file === 'none' && refuse(call, R.bindBadFd)) return;
  if ((file === 'none' || file.kind !== 'iommufd') && refuse(call, R.bindNotIommufd)) return;
  if (file === 'none') return;
  if (device.openCount > 0 && device.boundFile !== call.file.id && refuse(call, R.openElsewhere)) return;
  if (openThroughGroup(call, device)) return;
  bind(call, device, file.object);
}

/** A device that is bound nobody knows where was attached to something, or detached: in any iommufd. */
export function forgetBindings(call: Call): void {
  for (const { kind, object } of joinableFiles(call).files)
    if (kind === 'iommufd') forgetContext(call.tx, object, call.event.seq);
}

/** The device is bound now, and the recording does not show to which iommufd: each may have an object more. */
function bindUnseen(call: Call, device: VfioDevice): void {
  giveAccess(call, device, 0, 0);
  for (const { kind, object } of joinableFiles(call).files)
    if (kind === 'iommufd') markContextUnknown(call.tx, object, call.event.seq);
}

/** A PCI device reads the token; only a virtual function, which is not modelled, takes one. */
function tokenEnds(call: Call, device: VfioDevice, argsz: number): boolean {
  if (device.driver === 'unknown') return !call.unknown('the driver of the device is not known');
  const at = argsz < BIND_BYTES || !call.struct.has(16, 8) ? 0 : call.struct.u64(16);
  const fault = device.driver === 'pci' && (at < 0x1000 || at >= USER_PTR_MAX);
  return refuse(call, fault ? R.bindTokenFault : R.bindToken);
}

function bind(call: Call, device: VfioDevice, contextId: number): void {
  const { tx } = call;
  if (!tx.world.iommufds.has(contextId)) {
    if (call.unknown('the state of the iommufd is not known')) giveAccess(call, device, 0, 0);
    return;
  }
  const owner = groupName(tx, device);
  const mediated = isMediated(device);
  const refused = mediated ? undefined : bindRefusal(tx, contextId, owner);
  if (refused !== undefined && predictRefusal(call, refused)) return;
  const ownsDma = (other: VfioDevice): boolean =>
    isBoundUnseen(other) || (other.iommufd !== contextId && isBehindIommu(tx, other));
  if (!mediated && sharedGroupShows(call, device, NOT_OWNER_ERRNO, ownsDma)) return;
  if (!call.succeed('bind.ok')) return;
  const next = predictDeviceId(tx, contextId);
  const since = contextOf(tx, contextId).unknownSince;
  if (since < 0) call.out32(12, next, 'out_devid');
  else call.outUnknown(add(call.arg, 12), 4, unknownSinceText('objects', since));
  if (mediated) {
    giveAccess(call, device, contextId, bindEmulated(tx, contextId, call.event.seq));
    return;
  }
  const told = find(call.memOut, add(call.arg, 12), 4)?.u32(0);
  const id = shownId(tx, contextId, next, told, call.event.seq);
  giveAccess(call, device, contextId, bindDevice(tx, contextId, device.name, call.event.seq, owner, id));
}

const NOT_OWNER_ERRNO = 'EPERM';

function isBehindIommu(tx: Tx, { iommufd, devid }: VfioDevice): boolean {
  return tx.world.iommufds.has(iommufd) && typedObject(tx, iommufd, devid, 'device') !== undefined;
}

/** Bound to an iommufd that the recording does not show. */
function isBoundUnseen(device: VfioDevice): boolean {
  return device.boundFile !== 0 && device.iommufd === 0 && !isMediated(device);
}

function giveAccess(call: Call, device: VfioDevice, iommufd: number, devid: number): void {
  // Bound to another iommufd it cannot be: that its file was closed there is not in the recording.
  if (device.iommufd !== 0) leaveIommufd(call.tx, device);
  openDevice(call.tx, device.name);
  keepBlockFree(call, device);
  patchDevice(call.tx, device.name, { boundFile: call.file.id, iommufd, devid, unknownSince: -1 });
}

// ---- ATTACH and DETACH -------------------------------------------------------------------------------------

export function attachPt(call: Call): void {
  const struct = takeStruct(call, 12, R.attachArgsz);
  if (struct === undefined) return;
  const device = deviceOf(call);
  call.extentBytes = 12;
  const pasid = pasidOf(call, device, 12, R.attachFlags, R.attachPasid);
  if (pasid === undefined) return;
  if (device.iommufd === 0 || !call.tx.world.iommufds.has(device.iommufd)) {
    if (call.unknown('which iommufd the device is bound to is not in the recording')) forgetBindings(call);
    return;
  }
  const ptId = struct.u32(8);
  const unshown = pasid === WHOLE_DEVICE && device.driver === 'unknown';
  if (unshown && objectOf(call.tx, device.iommufd, ptId) !== undefined && attachShows(call, device, ptId)) return;
  if (isMediated(deviceOf(call))) attachMediated(call, device, ptId);
  else attach(call, device, ptId, pasid);
}

/**
 * Of attaching to an IOAS that is there: what pins and has domains may fail so, an access for the mark that was left alone;
 * EADDRINUSE, of areas that are not aligned to pages, both.
 */
const BEHIND_IOMMU_ERRORS: readonly string[] = ['EFAULT', 'EINVAL'];
const MEDIATED_ERROR = 'ENOENT';
const NOT_SHOWN = 'whether the device is behind an IOMMU or mediated was not shown yet';

/**
 * An attach shows which kind of device it is. Behind an IOMMU the id that comes back is that of a HWPT, and an object
 * that is none has the wrong type; a mediated device gives the id of the IOAS back, and finds no other objects. True:
 * the prediction ends the call.
 */
function attachShows(call: Call, device: VfioDevice, ptId: number): boolean {
  if (objectOf(call.tx, device.iommufd, ptId)?.type !== 'ioas') {
    const part = call.partByFact('ENOENT', NOT_SHOWN);
    if (part !== 'open') learnBehindIommu(call, device, part === 'has');
    return part === 'lacks';
  }
  const told = find(call.memOut, add(call.arg, 8), 4)?.u32(0);
  if (told === undefined) call.unknown(NOT_SHOWN);
  else if (call.succeedByFact('attach-pt.ok', NOT_SHOWN)) learnBehindIommu(call, device, told !== ptId);
  else if (BEHIND_IOMMU_ERRORS.includes(call.recordedErrno)) learnBehindIommu(call, device, true);
  else if (call.recordedErrno === MEDIATED_ERROR) learnBehindIommu(call, device, false);
  return false;
}

/** The answer that this call was given tells what the device is. */
function learnBehindIommu(call: Call, device: VfioDevice, isBehind: boolean): void {
  tellDriver(call.tx, device, isBehind ? 'pci' : 'mdev', call.event.seq);
  teach(call, deviceKey(device.name, 'behind_iommu'), isBehind ? 1 : 0);
}

function attachMediated(call: Call, device: VfioDevice, ptId: number): void {
  const { tx } = call;
  const { iommufd, devid } = device;
  const moves = isAttachedEmulated(tx, iommufd, devid);
  call.trial();
  const result = attachEmulated(tx, iommufd, devid, ptId);
  if (!('ptId' in result)) {
    predictRefusal(call, result);
    return;
  }
  if (refusedUnseen(call, iommufd, ptId)) return;
  if (moves || !failedByMark(call)) call.succeed('attach-pt.mediated');
}

/**
 * Attaches or, where this way of attaching is in use already, moves. Without a PASID and with PASID 0 are two ways to
 * attach the same: each is refused while the other one holds the device.
 */
function attach(call: Call, device: VfioDevice, ptId: number, pasid: number): void {
  const { tx } = call;
  const { iommufd, devid } = device;
  const { seq } = call.event;
  const rid = pasid === WHOLE_DEVICE ? 0 : pasid;
  if (lacksPageRequests(call, iommufd, deviceObject(tx, iommufd, devid), ptId)) return;
  const told = { hwpt: toldId(call, 8, iommufd) };
  call.trial();
  if (pasid === WHOLE_DEVICE ? device.attached : device.pasids.includes(pasid)) {
    happens(call, device, rid, replaceDevice(tx, iommufd, devid, ptId, seq, rid, told));
    return;
  }
  if (pasid > MAX_PASID && refuse(call, R.pasidTooHigh)) return;
  const result = attachDevice(tx, iommufd, devid, ptId, seq, rid, told);
  if (!('errno' in result && result.errno === OTHER_HWPT_ERRNO) && groupIsElsewhere(call, device, rid)) return;
  if (happens(call, device, rid, result)) keepAttached(tx, device, pasid);
}

const OTHER_HWPT_ERRNO = 'EINVAL';

/** Whether the attach fails because a device of the same group, as it shows, is attached to another HWPT. */
function groupIsElsewhere(call: Call, device: VfioDevice, pasid: number): boolean {
  const { tx } = call;
  const { iommufd, devid } = device;
  const isAttachedHere = (other: VfioDevice): boolean =>
    other.iommufd === iommufd && isBehindIommu(tx, other) && isAttached(tx, iommufd, other.devid, pasid);
  if (!sharedGroupShows(call, device, OTHER_HWPT_ERRNO, isAttachedHere)) return false;
  const object = deviceObject(tx, iommufd, devid);
  const group = groupName(tx, device);
  const free = !device.attached && device.pasids.length === 0;
  if (free && group !== object.group) patchObject(tx, iommufd, object, { group });
  return true;
}

/** Predicts what became of an attach; true when the recording shows that the device has moved so. */
function happens(call: Call, device: VfioDevice, pasid: number, result: Attached | Refusal): boolean {
  if ('ptId' in result) {
    const unknown = result.unknown ?? pasidInDoubt(call.tx, device, pasid);
    if (unknown !== undefined) call.unknown(unknown);
    if (!call.succeed('attach-pt.ok')) return false;
    if (call.struct.u32(8) === result.ptId) call.out32(8, result.ptId, 'pt_id');
    else handOut(call, result.ptId, 8, 'pt_id', device.iommufd);
    return true;
  }
  const followed = !predictRefusal(call, result);
  // The device is attached in the kernel, to what nobody knows, and may have left what it was attached to.
  if (followed) forgetContext(call.tx, device.iommufd, call.event.seq);
  return false;
}

/** Of a device with PASIDs the driver of the IOMMU is asked; others never reach it (`__iommu_set_group_pasid`). */
function pasidInDoubt(tx: Tx, device: VfioDevice, pasid: number): string | undefined {
  if (pasid === 0) return undefined;
  return takesPasids(tx, deviceObject(tx, device.iommufd, device.devid))
    ? undefined
    : `what the IOMMU of ${device.name} says to PASIDs is not in the recording`;
}

function keepAttached(tx: Tx, device: VfioDevice, pasid: number): void {
  const patch = pasid === WHOLE_DEVICE ? { attached: true } : { pasids: Object.freeze([...device.pasids, pasid]) };
  patchDevice(tx, device.name, patch);
}

export function detachPt(call: Call): void {
  if (takeStruct(call, 8, R.detachArgsz) === undefined) return;
  const device = deviceOf(call);
  call.extentBytes = 8;
  const pasid = pasidOf(call, device, 8, R.detachFlags, R.detachPasid);
  if (pasid === undefined) return;
  if (!call.succeed('detach-pt.ok')) return;
  if (!call.tx.world.iommufds.has(device.iommufd)) return;
  if (isMediated(device)) detachEmulated(call.tx, device.iommufd, device.devid);
  else detach(call.tx, device, pasid);
}

/** Undoes an attach that was made the same way; nothing when there was none. */
function detach(tx: Tx, device: VfioDevice, pasid: number): void {
  const { name, iommufd, devid } = device;
  if (pasid === WHOLE_DEVICE) {
    if (device.attached) detachDevice(tx, iommufd, devid, 0);
    patchDevice(tx, name, { attached: false });
  } else if (device.pasids.includes(pasid)) {
    detachDevice(tx, iommufd, devid, pasid);
    patchDevice(tx, name, { pasids: Object.freeze(device.pasids.filter((one) => one !== pasid)) });
  }
}

/** {@link pasidOf}: the request has no PASID. */
const WHOLE_DEVICE = -1;
/** The kernel keeps PASIDs in a set of non-negative ints. */
const MAX_PASID = 0x7fff_ffff;

/** The PASID of the request or {@link WHOLE_DEVICE}; undefined when the prediction was made. */
function pasidOf(call: Call, device: VfioDevice, at: number, flagRule: Rule, argszRule: Rule): number | undefined {
  const { struct } = call;
  const flags = struct.u32(4);
  if ((flags & ~FLAG_PASID) !== 0 && refuse(call, flagRule)) return undefined;
  if ((flags & FLAG_PASID) === 0) return WHOLE_DEVICE;
  if (device.driver === 'unknown') {
    const part = call.partByFact(R.noPasid.errno, 'whether the driver of the device knows PASIDs was not shown yet');
    if (part === 'lacks') return undefined;
    if (part === 'has') learnBehindIommu(call, device, true);
  } else if (device.driver !== 'pci' && refuse(call, R.noPasid)) return undefined;
  if (struct.u32(0) < at + 4 && refuse(call, argszRule)) return undefined;
  if (struct.has(at, 4)) return struct.u32(at);
  call.unknown('payload not recorded');
  return undefined;
}
