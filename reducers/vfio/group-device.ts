import type { Call } from '../call.js';
import { installFd } from '../files/fds.js';
import {
  type Attached,
  attachDevice,
  bindDevice,
  bindRefusal,
  compatIoasId,
  detachDevice,
  isAttached,
} from '../iommufd/attach.js';
import { contextOf } from '../iommufd/context.js';
import { forgetContext } from '../iommufd/forget.js';
import { predictRefusal } from '../iommufd/refuse.js';
import { notKnown, type Refusal, refusal } from '../iommufd/rules.js';
import { succeedWithFd } from '../new-fd.js';
import type { Tx } from '../tx.js';
import { patchGroup } from './containers.js';
import { BY_GROUP, driverOfName, ensureDevice, openDevice, patchDevice, unnamedDevice } from './devices.js';
import { attachEmulated, bindEmulated, failedByMark, unbindAny } from './emulated.js';
import { NAME_RULES, keepPresence, nameMissing, optionsFit } from './group-name.js';
import { markEmulated } from './groups.js';
import { isBadPointer } from './payload.js';
import { refuse, type Rule } from './rules.js';
import type { VfioGroup } from './state.js';
import { unknownSinceText } from '../answer.js';

/**
 * VFIO_GROUP_GET_DEVICE_FD (drivers/vfio/group.c): opens a device of the group by its name on its bus.
 *
 * The name is looked up first, then the state of the group is looked at: the group needs a container with a backend, or
 * an iommufd; on an iommufd the first open binds the device and attaches it to the compatibility IOAS. Which names are
 * right is in group-name.ts.
 */
export const DEVICE_FD_RULES = {
  copyIn: { id: 'get-device-fd.copy-in', errno: 'EFAULT', text: 'the argument does not point to user memory' },
  tooLong: { id: 'get-device-fd.too-long', errno: 'EINVAL', text: 'the name has 4096 or more bytes' },
  ...NAME_RULES,
  noContainer: {
    id: 'get-device-fd.no-container',
    errno: 'EINVAL',
    text: 'the group has neither container nor iommufd',
  },
  noBackend: {
    id: 'get-device-fd.no-backend',
    errno: 'EINVAL',
    text: 'the container of the group has no IOMMU backend yet',
  },
  noIoas: { id: 'get-device-fd.no-ioas', errno: 'ENODEV', text: 'the iommufd has no compatibility IOAS any more' },
} as const satisfies Record<string, Rule>;

const R = DEVICE_FD_RULES;
const PATH = 'anon_inode:[vfio-device]';
const O_RDWR = 2;
const MAX_NAME = 4096;

export function getDeviceFd(call: Call, group: VfioGroup): void {
  call.extentBytes = 0;
  const text = nameArgument(call);
  if (text === undefined) {
    if (call.predicted) return;
    call.unknown('payload not recorded');
    const fd = succeedWithFd(call, '');
    if (fd !== undefined) open(call, group, unnamedDevice(group.id), 0, fd);
    if (fd !== undefined && group.iommufd !== 0) forgetContext(call.tx, group.iommufd, call.event.seq);
    return;
  }
  const space = text.indexOf(' ');
  const name = space < 0 ? text : text.slice(0, space);
  const options = space < 0 ? '' : text.slice(space);
  if (nameMissing(call, group, name, options) || !optionsFit(call, options)) return;
  openNamed(call, group, name);
  if (options === '') keepPresence(call, group, name);
}

function openNamed(call: Call, group: VfioGroup, name: string): void {
  const container = call.tx.world.containers.get(group.container);
  const first = (call.tx.world.devices.get(name)?.openCount ?? 0) === 0;
  if (container === undefined && group.iommufd === 0) {
    if (group.unknownSince < 0) {
      if (refuse(call, R.noContainer)) return;
    } else call.unknown(unknownSinceText('state of the group', group.unknownSince));
  } else if (first && container?.backend === 'none') {
    if (isUnnamedOpen(call, group))
      call.unknown('which device of the group is open was not recorded: this one or another');
    else if (refuse(call, R.noBackend)) return;
  } else if (container?.backend === 'unknown')
    call.unknown(unknownSinceText('state of the container', container.unknownSince));
  const devid = first && group.iommufd !== 0 ? bind(call, group, name) : 0;
  if (devid === REFUSED) return;
  const fd = succeedWithFd(call, 'get-device-fd.ok');
  if (fd !== undefined) open(call, group, name, devid, fd);
  else if (devid !== 0) unbind(call, group, devid);
}

/** A device is open whose name the recording lacks: of one that was open before, the container is not asked again. */
function isUnnamedOpen(call: Call, group: VfioGroup): boolean {
  return (call.tx.world.devices.get(unnamedDevice(group.id))?.openCount ?? 0) > 0;
}

/** {@link bind}: the prediction ends the call. */
const REFUSED = -1;

/** The name, or undefined where the recording lacks it or the call fails for the pointer. */
function nameArgument(call: Call): string | undefined {
  const { struct } = call;
  if (struct.length === 0) {
    if (isBadPointer(call)) refuse(call, R.copyIn);
    return undefined;
  }
  const text = struct.cString();
  if (text.length < struct.length) return text;
  if (text.length >= MAX_NAME) refuse(call, R.tooLong);
  return undefined;
}

/**
 * On an iommufd: an object for the device, attached to the IOAS of the compatibility mode. Gives its id, 0 where the
 * context is not known, or {@link REFUSED}.
 */
function bind(call: Call, group: VfioGroup, name: string): number {
  const { tx } = call;
  if (!tx.world.iommufds.has(group.iommufd)) return 0;
  const mediated = driverOfName(name) === 'mdev';
  const notOwner = mediated ? undefined : bindRefusal(tx, group.iommufd, group.path);
  if (notOwner !== undefined && ends(call, notOwner)) return REFUSED;
  const { seq } = call.event;
  const devid = mediated ? bindEmulated(tx, group.iommufd, seq) : bindDevice(tx, group.iommufd, name, seq, group.path);
  if (group.noIommu) return devid;
  const attached = attachCompat(tx, group.iommufd, devid, mediated, seq);
  if ('ptId' in attached) {
    const failed = mediated && failedByMark(call);
    if (!failed && (attached.unknown === undefined || call.unknown(attached.unknown))) return devid;
  } else if (!ends(call, attached)) return devid;
  unbind(call, group, devid);
  return REFUSED;
}

/** Attaches a device that was just bound to the IOAS of the compatibility mode (`vfio_iommufd_compat_attach_ioas`). */
function attachCompat(tx: Tx, contextId: number, id: number, mediated: boolean, seq: number): Attached | Refusal {
  const ioas = compatIoasId(tx, contextId);
  if (ioas === 0) {
    const since = contextOf(tx, contextId).unknownSince;
    return since < 0 ? refusal(R.noIoas.errno, R.noIoas.id) : notKnown(unknownSinceText('objects', since));
  }
  return mediated ? attachEmulated(tx, contextId, id, ioas) : attachDevice(tx, contextId, id, ioas, seq);
}

/** Predicts what the iommufd refused. True: the call ends here. */
function ends(call: Call, refused: Refusal): boolean {
  return predictRefusal(call, refused);
}

function unbind(call: Call, group: VfioGroup, devid: number): void {
  if (isAttached(call.tx, group.iommufd, devid)) detachDevice(call.tx, group.iommufd, devid);
  unbindAny(call.tx, group.iommufd, devid);
}

/** The open happened: enters the fd, the device and what the first open does. */
function open(call: Call, group: VfioGroup, name: string, devid: number, fd: number): void {
  const { tx } = call;
  const driver = driverOfName(name);
  const device = ensureDevice(tx, name, driver);
  const first = device.openCount === 0;
  patchDevice(tx, name, { group: group.id });
  if (driver === 'mdev') markEmulated(tx, group.id);
  openDevice(tx, name);
  if (first && group.iommufd !== 0) patchDevice(tx, name, devid === 0 ? {} : { iommufd: group.iommufd, devid });
  else if (first) patchGroup(tx, group.id, { openDevices: group.openDevices + 1 });
  const made = {
    kind: 'vfio-device',
    path: PATH,
    object: BY_GROUP,
    objectKey: name,
    flags: O_RDWR,
    cloexec: true,
  } as const;
  installFd(tx, call.process, fd, made, call.event, call.families);
}
