import type { Call } from '../call.js';
import { detachDevice, isAttached } from '../iommufd/attach.js';
import type { Tx } from '../tx.js';
import { patchGroup } from './containers.js';
import { unbindAny } from './emulated.js';
import { endGroup } from './groups.js';
import type { DeviceDriver, DeviceIrqs, DeviceMigration, VfioDevice } from './state.js';

/**
 * Records of devices: making, opening, closing. A device stays in the table after its last close, because its
 * driver keeps what lasts over opens (migration state), and because facts are asked for by its name.
 */

const NO_IRQS: DeviceIrqs = Object.freeze({ type: -1, vectors: 0, unmaskFile: 0, err: false, req: false });
const MIGRATION_UNKNOWN: DeviceMigration = Object.freeze({ state: -1, saving: 0, resuming: 0, precopyV2: false });
/** The command register after the driver enabled the device: I/O and memory are decoded. */
const COMMAND_ENABLED = 3;
const COMMAND_MEMORY = 2;

const NO_PASIDS: readonly number[] = Object.freeze([]);

const PCI_NAME = /^[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$/;
const UUID = /^[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}$/i;
const CDEV_PATH = /^\/dev\/vfio\/devices\/([^/]+)$/;

/** Files of a device: opened through its group, or its own character device. Kept in `OpenFile.object`. */
export const BY_GROUP = 1;
export const BY_CDEV = 2;

/** What a name on a bus says about the driver. */
export function driverOfName(name: string): DeviceDriver {
  if (PCI_NAME.test(name)) return 'pci';
  return UUID.test(name) ? 'mdev' : 'unknown';
}

/** `vfio2` of `/dev/vfio/devices/vfio2`; undefined for other paths. */
export function cdevName(path: string): string | undefined {
  return CDEV_PATH.exec(path)?.[1];
}

/** The device of that name; a new one when it was never seen. */
export function ensureDevice(tx: Tx, name: string, driver: DeviceDriver): VfioDevice {
  const known = tx.world.devices.get(name);
  if (known !== undefined) return known;
  const device: VfioDevice = Object.freeze({
    name,
    driver,
    group: 0,
    openCount: 0,
    boundFile: 0,
    iommufd: 0,
    devid: 0,
    attached: false,
    pasids: NO_PASIDS,
    irqs: NO_IRQS,
    ioeventfds: Object.freeze([]),
    lowPower: false,
    pciCommand: COMMAND_ENABLED,
    asleep: false,
    infoAsked: false,
    migration: MIGRATION_UNKNOWN,
    unknownSince: -1,
  });
  tx.world.devices.set(name, device);
  return device;
}

export function patchDevice(tx: Tx, name: string, patch: Partial<VfioDevice>): void {
  const device = tx.world.devices.get(name);
  if (device !== undefined) tx.world.devices.set(name, Object.freeze({ ...device, ...patch }));
}

/** What stands for the device of a group that was opened by a name that the recording does not show. */
export function unnamedDevice(groupId: number): string {
  return `unnamed of group ${groupId}`;
}

/** The device that is known to be in a group, of those that have one only. */
export function soleDeviceOf(tx: Tx, groupId: number): VfioDevice | undefined {
  const unnamed = unnamedDevice(groupId);
  for (const device of tx.world.devices.values())
    if (device.group === groupId && device.name !== unnamed) return device;
  return undefined;
}

/** The device behind the file of the call. */
export function deviceOf(call: Call): VfioDevice {
  const device = call.tx.world.devices.get(call.file.objectKey);
  if (device === undefined) throw new Error(`device ${call.file.objectKey} does not exist`);
  return device;
}

/** Whether the device decodes memory and is awake; one with an unknown past is taken to. */
export function isMemoryOn({ pciCommand, asleep }: VfioDevice): boolean {
  return !asleep && (pciCommand < 0 || (pciCommand & COMMAND_MEMORY) !== 0);
}

/** One more open with access; the first one finds the hardware reset. */
export function openDevice(tx: Tx, name: string): void {
  const device = tx.world.devices.get(name);
  if (device === undefined) return;
  const openCount = device.openCount + 1;
  patchDevice(tx, name, openCount === 1 ? { openCount, ...RESET } : { openCount });
}

const RESET = Object.freeze({
  irqs: NO_IRQS,
  ioeventfds: Object.freeze([]),
  lowPower: false,
  pciCommand: COMMAND_ENABLED,
  asleep: false,
  unknownSince: -1,
});

/**
 * One open with access is gone. With the last one interrupts and triggers end, migration data fds are shut, and the
 * device leaves its iommufd or lets go of its group's container.
 */
export function closeDevice(tx: Tx, name: string): void {
  const device = tx.world.devices.get(name);
  if (device === undefined || device.openCount === 0) return;
  const openCount = device.openCount - 1;
  if (openCount > 0) {
    patchDevice(tx, name, { openCount });
    return;
  }
  if (device.iommufd !== 0) leaveIommufd(tx, device);
  else if (device.group !== 0) leaveGroup(tx, device.group);
  shutMigrationFiles(tx, name);
  const migration = Object.freeze({
    ...(tx.world.devices.get(name)?.migration ?? MIGRATION_UNKNOWN),
    precopyV2: false,
  });
  const unbound = { boundFile: 0, iommufd: 0, devid: 0, attached: false, pasids: NO_PASIDS };
  patchDevice(tx, name, { ...RESET, ...unbound, openCount, migration });
}

/**
 * The state was changed by a call that was not seen: in which state the device is, and which data files it has, is not
 * known. What is open of them has an unknown past.
 */
export function forgetMigration(tx: Tx, name: string): void {
  const device = tx.world.devices.get(name);
  if (device === undefined) return;
  tx.world.migrations.delete(device.migration.saving);
  tx.world.migrations.delete(device.migration.resuming);
  const unseen = { state: -1, saving: UNSEEN_FILE, resuming: UNSEEN_FILE };
  patchDevice(tx, name, { migration: Object.freeze({ ...device.migration, ...unseen }) });
}

/** Stands for a data file that there may be, and that was not seen. */
export const UNSEEN_FILE = -1;

/** The device's object goes, after every address space that it was attached to. */
export function leaveIommufd(tx: Tx, device: VfioDevice): void {
  const { iommufd, devid } = device;
  if (!tx.world.iommufds.has(iommufd)) return;
  for (const pasid of [...device.pasids, 0])
    if (isAttached(tx, iommufd, devid, pasid)) detachDevice(tx, iommufd, devid, pasid);
  unbindAny(tx, iommufd, devid);
}

/** The device is no user of its group's container any more; a group whose fd is gone ends with its last device. */
function leaveGroup(tx: Tx, groupId: number): void {
  const group = tx.world.groups.get(groupId);
  if (group === undefined) return;
  const openDevices = Math.max(0, group.openDevices - 1);
  patchGroup(tx, groupId, { openDevices });
  if (group.closing && openDevices === 0) endGroup(tx, group);
}

const SHUT = Object.freeze({ disabled: true, filledBytes: 0, hasPorts: false, positionBytes: 0 });

/** The driver shuts the data files of a device and lets go of them: every later read and write on their fds fails. */
export function shutMigrationFiles(tx: Tx, name: string): void {
  const device = tx.world.devices.get(name);
  if (device === undefined) return;
  for (const id of [device.migration.saving, device.migration.resuming]) {
    const file = id === 0 ? undefined : tx.world.migrations.get(id);
    if (file === undefined) continue;
    if (!file.fdOpen) tx.world.migrations.delete(id);
    else tx.world.migrations.set(id, Object.freeze({ ...file, ...SHUT }));
  }
  patchDevice(tx, name, { migration: Object.freeze({ ...device.migration, saving: 0, resuming: 0 }) });
}
