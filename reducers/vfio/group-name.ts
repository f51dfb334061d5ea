import type { Call } from '../call.js';
import type { Tx } from '../tx.js';
import { patchGroup } from './containers.js';
import { driverOfName, ensureDevice, patchDevice, soleDeviceOf } from './devices.js';
import { noDeviceKey, smallFact, teach } from './facts.js';
import { markEmulated } from './groups.js';
import { refuse, type Rule } from './rules.js';
import type { VfioGroup } from './state.js';

/**
 * Names of devices in VFIO_GROUP_GET_DEVICE_FD (`vfio_device_get_from_name`).
 *
 * A name is that of a device of the group or it is nothing, and the kernel says so before it looks at anything else.
 * Which devices a group has is the machine's. A name is taken for right until an answer shows otherwise; any error that
 * comes after the look-up shows that the group has the device. A device is in one group only, and a mediated device
 * has its group for itself. PCI devices take options after the name, of which there is one, `vf_token=<uuid>`.
 */
export const NAME_RULES = {
  noDevice: { id: 'get-device-fd.no-device', errno: 'ENODEV', text: 'the group has no device of that name' },
  options: {
    id: 'get-device-fd.options',
    errno: 'EINVAL',
    text: 'an option after the name is unknown, repeated or malformed, or a token for a device that takes none',
  },
} as const satisfies Record<string, Rule>;

const R = NAME_RULES;
/** Errors of the checks after the look-up. */
const AFTER_LOOKUP: readonly string[] = ['', 'EINVAL', 'EPERM', 'EBUSY'];

/** Whether the group has no device of that name. True: the prediction ends the call. */
export function nameMissing(call: Call, group: VfioGroup, name: string, options: string): boolean {
  const { tx } = call;
  if (options !== '' && driverOfName(name) !== 'pci') return refuse(call, R.noDevice);
  const known = tx.world.devices.get(name)?.group ?? 0;
  if (name !== '' && known === group.id) return false;
  const key = noDeviceKey(group.id, name);
  const proper = driverOfName(name) !== 'unknown';
  const wrong = name === '' || known !== 0 || !fitsGroup(tx, group, name) || (proper && smallFact(tx, key) === 1);
  if (wrong) return refuse(call, R.noDevice);
  if (!call.failedByFact(R.noDevice.errno, `whether group ${group.id} has a device ${name} was not shown before`))
    return false;
  if (proper) teach(call, key, 1);
  return true;
}

/** Whether the devices that the group is known to have leave room for one of that name. */
function fitsGroup(tx: Tx, group: VfioGroup, name: string): boolean {
  if (group.bus === 'unknown') return true;
  const driver = driverOfName(name);
  if (group.bus === 'pci') return driver === 'pci';
  // That the group's device is mediated may have been shown without its name.
  return driver === 'mdev' && soleDeviceOf(tx, group.id) === undefined;
}

/** The answer shows that the group has the device: what came after the look-up. Only after a prediction. */
export function keepPresence(call: Call, group: VfioGroup, name: string): void {
  const { tx } = call;
  const driver = driverOfName(name);
  if (driver === 'unknown' || call.recordedRet === null || !AFTER_LOOKUP.includes(call.recordedErrno)) return;
  if (tx.world.devices.get(name)?.group === group.id && group.bus !== 'unknown') return;
  ensureDevice(tx, name, driver);
  patchDevice(tx, name, { group: group.id });
  patchGroup(tx, group.id, { bus: driver === 'pci' ? 'pci' : 'mdev' });
  if (driver === 'mdev') markEmulated(tx, group.id);
}

/** Options of a PCI device. False when the call ends here. */
export function optionsFit(call: Call, options: string): boolean {
  const words = options.split(' ').filter((word) => word !== '');
  if (words.length === 0) return true;
  const token = /^vf_token=[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}$/i;
  if (words.length > 1 || !token.test(words[0] as string)) return !refuse(call, R.options);
  call.unknown('whether the device takes a VF token is not in the recording');
  return true;
}
