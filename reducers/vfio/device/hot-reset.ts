import { Bytes, putU32 } from '../../../core/bytes.js';
import { add } from '../../../core/u64.js';
import { find } from '../../answer.js';
import type { Call } from '../../call.js';
import { deviceOf, patchDevice } from '../devices.js';
import { deviceKey, smallFact, teach } from '../facts.js';
import { fdUnknown, lookFd } from '../fd-look.js';
import { takeStruct } from '../payload.js';
import { refuse, type Rule } from '../rules.js';
import type { VfioDevice } from '../state.js';
import { resetMigration } from './migration.js';

/**
 * Hot reset of PCI devices (`vfio_pci_ioctl_get_pci_hot_reset_info`, `vfio_pci_ioctl_pci_hot_reset`).
 *
 * The slot or bus above the device is reset, with every device on it. A device on a root bus has no bridge above it and
 * cannot be reset so. Which devices share the bus is the machine's. All of them must be VFIO's and the user's: their
 * groups are among those that are given, or, for a device opened by its cdev, they are bound to its iommufd.
 *
 * Structs: info argsz 0, flags 4, count 8, devices from 12, of 8 bytes each (owner 0, segment 4, bus 6, devfn 7);
 * reset argsz 0, flags 4, count 8, group fds from 12.
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
  notOwned: {
    id: 'hot-reset.not-owned',
    errno: 'EINVAL',
    text: 'a device on the bus is in none of the given groups',
  },
} as const satisfies Record<string, Rule>;

const R = HOT_RESET_RULES;
const HEAD_BYTES = 12;
const DEVICE_BYTES = 8;
const MAX_DEVICES = 256 * 8;
const DEV_ID = 1;
const DEV_ID_OWNED = 2;
/** Groups without an IOMMU and those without a number have keys from here on. */
const GROUP_NUMBERS = 2 ** 32;
const NO_BRIDGE = 'whether there is a bridge above the device that can reset it is not in the recording';
const NO_COUNT = 'how many devices share the bus is not in the recording';

interface Address {
  readonly segment: number;
  readonly bus: number;
  readonly devfn: number;
}

/** The place of a device on its bus; undefined where its name does not tell. */
function addressOf(device: VfioDevice): Address | undefined {
  const parts = /^([0-9a-f]+):([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])$/.exec(device.name)?.slice(1);
  const [segment, bus, slot, fn] = parts?.map((part) => Number.parseInt(part, 16)) ?? [];
  if (segment === undefined || bus === undefined || slot === undefined || fn === undefined) return undefined;
  return { segment, bus, devfn: (slot << 3) | fn };
}

function countKey(device: VfioDevice): string {
  return deviceKey(device.name, 'hot_reset_count');
}

function devicesKey(device: VfioDevice): string {
  return deviceKey(device.name, 'hot_reset_devices');
}

/** Bus 0 is a root bus; of other buses an answer shows it, which holds from then on. True: the call ends here. */
function cannotReset(call: Call, device: VfioDevice): boolean {
  const key = deviceKey(device.name, 'hot_reset_none');
  const none = smallFact(call.tx, key) === 1 || addressOf(device)?.bus === 0;
  if (none) return refuse(call, R.rootBus);
  if (!call.failedByFact(R.rootBus.errno, NO_BRIDGE)) return false;
  teach(call, key, 1);
  return true;
}

// ---- GET_PCI_HOT_RESET_INFO --------------------------------------------------------------------------------

export function hotResetInfo(call: Call): void {
  const struct = takeStruct(call, HEAD_BYTES, R.infoArgsz);
  if (struct === undefined) return;
  const device = deviceOf(call);
  call.extentBytes = HEAD_BYTES;
  if (cannotReset(call, device)) return;
  const room = Math.floor((struct.u32(0) - HEAD_BYTES) / DEVICE_BYTES);
  const known = smallFact(call.tx, countKey(device));
  if (room === 0 || (known !== undefined && known > room)) {
    refuse(call, R.infoRoom);
    outCount(call, device, known);
    return;
  }
  if (known !== undefined ? !call.succeed('hot-reset-info.ok') : !call.succeedByFact('hot-reset-info.ok', NO_COUNT)) {
    if (known === undefined && call.recordedErrno === R.infoRoom.errno) outCount(call, device, known);
    return;
  }
  const count = outCount(call, device, known);
  if (count !== undefined) outDevices(call, device, count);
}

/** How many devices share the bus: known, or told by this answer. */
function outCount(call: Call, device: VfioDevice, known: number | undefined): number | undefined {
  call.out32(4, 0, 'flags');
  const told = known ?? find(call.memOut, call.arg, HEAD_BYTES)?.u32(8);
  if (told === undefined || told > MAX_DEVICES) return undefined;
  call.out32(8, told, 'count');
  if (known === undefined) teach(call, countKey(device), told);
  return told;
}

function outDevices(call: Call, device: VfioDevice, count: number): void {
  const byCdev = device.boundFile !== 0;
  const at = add(call.arg, HEAD_BYTES);
  call.extentBytes = HEAD_BYTES + count * DEVICE_BYTES;
  const own = count === 1 ? ownEntry(device, byCdev) : undefined;
  if (byCdev && own !== undefined) call.out32(4, DEV_ID | DEV_ID_OWNED, 'flags');
  if (byCdev && own === undefined) call.outUnknown(add(call.arg, 4), 4, 'which of the devices the user owns');
  if (own !== undefined) call.outBytes(at, own, 'devices');
  else if (byCdev) call.outUnknown(at, count * DEVICE_BYTES, 'object ids of the devices on the bus');
  else call.learnBytes(at, count * DEVICE_BYTES, devicesKey(device), 'devices');
}

/** The entry of a device that is alone on its bus; undefined where it cannot be told. */
function ownEntry(device: VfioDevice, byCdev: boolean): Bytes | undefined {
  const address = addressOf(device);
  const owner = byCdev ? device.devid : device.group;
  if (address === undefined || owner === 0 || owner >= GROUP_NUMBERS) return undefined;
  const entry = new Uint8Array(DEVICE_BYTES);
  putU32(entry, 0, owner);
  putU32(entry, 4, address.segment | (address.bus << 16) | (address.devfn << 24));
  return new Bytes(entry);
}

// ---- PCI_HOT_RESET -----------------------------------------------------------------------------------------

export function hotReset(call: Call): void {
  const struct = takeStruct(call, HEAD_BYTES, R.argsz);
  if (struct === undefined) return;
  const device = deviceOf(call);
  call.extentBytes = HEAD_BYTES;
  if (struct.u32(4) !== 0 && refuse(call, R.argsz)) return;
  const count = struct.u32(8);
  const byCdev = device.boundFile !== 0;
  if ((count !== 0) === byCdev && refuse(call, R.count)) return;
  if (cannotReset(call, device)) return;
  const devices = smallFact(call.tx, countKey(device));
  if (devices !== undefined && count > devices && refuse(call, R.tooMany)) return;
  const groups = givenGroups(call, count);
  if (groups === undefined) return;
  if (devices !== 1 && !byCdev && isForeign(call, device, groups) && refuse(call, R.notOwned)) return;
  if (devices === 1 && !byCdev && !groups.has(device.group) && refuse(call, R.notOwned)) return;
  const late = call.failedByFact(
    'ENOTTY',
    'whether the devices came back from the reset in time is not in the recording',
  );
  if (!late && devices !== 1) call.unknown('whether all devices on the bus are bound to VFIO, and the user’s');
  if (!call.succeed('hot-reset.ok') && !late) return;
  patchDevice(call.tx, device.name, { asleep: false });
  resetMigration(call, device.name);
}

/** Whether a device on the bus, as the info told, is in none of the groups. */
function isForeign(call: Call, device: VfioDevice, groups: ReadonlySet<number>): boolean {
  const told = call.tx.world.facts.get(devicesKey(device))?.value;
  if (!(told instanceof Bytes)) return false;
  for (let at = 0; told.has(at, DEVICE_BYTES); at += DEVICE_BYTES) if (!groups.has(told.u32(at))) return true;
  return false;
}

/** The groups behind the fds; undefined when one of them ends the call. */
function givenGroups(call: Call, count: number): ReadonlySet<number> | undefined {
  const groups = new Set<number>();
  for (let i = 0; i < count && i < MAX_DEVICES; i++) {
    if (!call.struct.has(HEAD_BYTES + i * 4, 4)) {
      call.unknown('payload not recorded');
      return undefined;
    }
    const fd = call.struct.s32(HEAD_BYTES + i * 4);
    const file = lookFd(call, fd);
    if (file === 'unknown') {
      call.unknown(fdUnknown(fd));
      return undefined;
    }
    if (file === 'none' && refuse(call, R.badFd)) return undefined;
    if (file !== 'none' && file.kind !== 'vfio-group' && refuse(call, R.notGroup)) return undefined;
    if (file !== 'none') groups.add(file.object);
  }
  return groups;
}
