import { add } from '../../../core/u64.js';
import { find } from '../../answer.js';
import type { Call } from '../../call.js';
import { deviceOf } from '../devices.js';
import { deviceKey, smallFact, teach } from '../facts.js';
import { fdUnknown, lookFd } from '../fd-look.js';
import { takeStruct } from '../payload.js';
import { refuse, type Rule } from '../rules.js';
import type { VfioDevice } from '../state.js';

/**
 * Hot reset of PCI devices (`vfio_pci_ioctl_get_pci_hot_reset_info`, `vfio_pci_ioctl_pci_hot_reset`).
 *
 * The slot or bus above the device is reset, with every device on it. A device on a root bus has no bridge above it and
 * cannot be reset so. Which devices share the bus is the machine's. Structs: info argsz 0, flags 4, count 8,
 * devices of 12 bytes from 12; reset argsz 0, flags 4, count 8, group fds from 12.
 */
export const HOT_RESET_RULES = {
  infoArgsz: { id: 'hot-reset-info.argsz', errno: 'EINVAL', text: 'argsz is less than 12' },
  rootBus: { id: 'hot-reset.root-bus', errno: 'ENODEV', text: 'neither the slot nor the bus can be reset' },
  infoRoom: {
    id: 'hot-reset-info.room',
    errno: 'ENOSPC',
    text: 'argsz has no room for all devices; count says how many there are',
  },
  argsz: { id: 'hot-reset.argsz', errno: 'EINVAL', text: 'argsz is less than 12, or flags is not 0' },
  count: {
    id: 'hot-reset.count',
    errno: 'EINVAL',
    text: 'groups are given for a device opened by its cdev, or none for one opened by its group',
  },
  tooMany: { id: 'hot-reset.too-many', errno: 'EINVAL', text: 'more groups than devices are on the bus' },
  badFd: { id: 'hot-reset.fd', errno: 'EBADF', text: 'a group fd is not open' },
  notGroup: { id: 'hot-reset.not-a-group', errno: 'EINVAL', text: 'an fd is no group' },
} as const satisfies Record<string, Rule>;

const R = HOT_RESET_RULES;
const HEAD_BYTES = 12;
const DEVICE_BYTES = 12;
const MAX_DEVICES = 256 * 8;
const NO_ADDRESS = 'which bus the device is on is not in the recording';
const NO_COUNT = 'how many devices share the bus is not in the recording';

/** Whether the device is on a root bus; undefined for a device whose PCI address is not known. */
function onRootBus(device: VfioDevice): boolean | undefined {
  const address = /^[0-9a-f]+:([0-9a-f]{2}):/.exec(device.name);
  return address === null ? undefined : address[1] === '00';
}

function countKey(device: VfioDevice): string {
  return deviceKey(device.name, 'hot_reset_count');
}

export function hotResetInfo(call: Call): void {
  const struct = takeStruct(call, HEAD_BYTES, R.infoArgsz);
  if (struct === undefined) return;
  const device = deviceOf(call);
  call.extentBytes = HEAD_BYTES;
  const root = onRootBus(device);
  if (root === undefined) {
    call.unknown(NO_ADDRESS);
    return;
  }
  if (root && refuse(call, R.rootBus)) return;
  const room = Math.floor((struct.u32(0) - HEAD_BYTES) / DEVICE_BYTES);
  const known = smallFact(call.tx, countKey(device));
  if (known === undefined && room > 0) {
    call.unknown(NO_COUNT);
    return;
  }
  if (known === undefined || known > room) {
    refuse(call, R.infoRoom);
    outCount(call, device, known);
    return;
  }
  if (!call.succeed('hot-reset-info.ok')) return;
  outDevices(call, device, known);
}

/** No room: only the number of devices comes back. */
function outCount(call: Call, device: VfioDevice, known: number | undefined): void {
  call.out32(4, 0, 'flags');
  const told = known ?? find(call.memOut, call.arg, HEAD_BYTES)?.u32(8);
  if (told === undefined || told > MAX_DEVICES) return;
  call.out32(8, told, 'count');
  if (known === undefined) teach(call, countKey(device), told);
}

function outDevices(call: Call, device: VfioDevice, count: number): void {
  const byCdev = device.boundFile !== 0;
  if (byCdev) call.outUnknown(add(call.arg, 4), 4, 'which of the devices the user owns');
  else call.out32(4, 0, 'flags');
  call.out32(8, count, 'count');
  const at = add(call.arg, HEAD_BYTES);
  call.extentBytes = HEAD_BYTES + count * DEVICE_BYTES;
  if (byCdev) call.outUnknown(at, count * DEVICE_BYTES, 'object ids of the devices on the bus');
  else call.learnBytes(at, count * DEVICE_BYTES, deviceKey(device.name, 'hot_reset_devices'), 'devices');
}

export function hotReset(call: Call): void {
  const struct = takeStruct(call, HEAD_BYTES, R.argsz);
  if (struct === undefined) return;
  const device = deviceOf(call);
  call.extentBytes = HEAD_BYTES;
  if (struct.u32(4) !== 0 && refuse(call, R.argsz)) return;
  const count = struct.u32(8);
  if ((count !== 0) === (device.boundFile !== 0) && refuse(call, R.count)) return;
  const root = onRootBus(device);
  if (root === undefined) {
    call.unknown(NO_ADDRESS);
    return;
  }
  if (root && refuse(call, R.rootBus)) return;
  const devices = smallFact(call.tx, countKey(device));
  if (devices !== undefined && count > devices && refuse(call, R.tooMany)) return;
  if (groupsEnd(call, count)) return;
  call.unknown('whether all devices on the bus belong to the given groups is not in the recording');
}

/** Whether one of the group fds ends the call. */
function groupsEnd(call: Call, count: number): boolean {
  for (let i = 0; i < count && i < MAX_DEVICES; i++) {
    if (!call.struct.has(HEAD_BYTES + i * 4, 4)) return !call.unknown('payload not recorded');
    const fd = call.struct.s32(HEAD_BYTES + i * 4);
    const file = lookFd(call, fd);
    if (file === 'unknown') return !call.unknown(fdUnknown(fd));
    if (file === 'none') {
      if (refuse(call, R.badFd)) return true;
    } else if (file.kind !== 'vfio-group' && refuse(call, R.notGroup)) return true;
  }
  return false;
}
