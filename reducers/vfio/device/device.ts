import type { IoctlEvent } from '../../../core/event.js';
import type { Call } from '../../call.js';
import type { DisplayDriver } from '../../devices/vfio-display.js';
import { explained } from '../../explain.js';
import type { FileFamily } from '../../family.js';
import {
  BY_CDEV,
  BY_GROUP,
  cdevName,
  closeDevice,
  deviceOf,
  driverOfName,
  ensureDevice,
  openDevice,
  patchDevice,
} from '../devices.js';
import { tellDriver } from '../driver.js';
import { refuse, type Rule } from '../rules.js';
import { deviceOfCdev } from '../sysfs.js';
import type { VfioDevice } from '../state.js';
import {
  DEVICE_ATTACH_IOMMUFD_PT,
  DEVICE_BIND_IOMMUFD,
  DEVICE_DETACH_IOMMUFD_PT,
  DEVICE_FEATURE,
  DEVICE_FLAG_RESET,
  DEVICE_GET_GFX_DMABUF,
  DEVICE_GET_INFO,
  DEVICE_GET_IRQ_INFO,
  DEVICE_GET_PCI_HOT_RESET_INFO,
  DEVICE_GET_REGION_INFO,
  DEVICE_IOEVENTFD,
  DEVICE_PCI_HOT_RESET,
  DEVICE_QUERY_GFX_PLANE,
  DEVICE_RESET,
  DEVICE_SET_IRQS,
} from '../uapi.js';
import { deviceKey, smallFact, teach } from '../facts.js';
import { attachPt, bindIommufd, detachPt } from './cdev.js';
import { displayOf, planeShows, queryPlane } from './display.js';
import { DEVICE_EXPLANATIONS } from './explain.js';
import { feature } from './feature.js';
import { hotReset, hotResetInfo } from './hot-reset.js';
import { deviceInfo } from './info.js';
import { ioeventfd } from './ioeventfd.js';
import { irqInfo } from './irq-info.js';
import { resetMigration } from './migration.js';
import { regionInfo } from './region.js';
import { ioMeaning, regionIo } from './region-io.js';
import { setIrqs } from './set-irqs.js';
import { afterUnseen } from './unseen.js';

/**
 * Files of a device, opened through its group or as /dev/vfio/devices/vfioN (drivers/vfio/vfio_main.c
 * `vfio_device_fops_unl_ioctl`). A cdev file gives no access before BIND_IOMMUFD. Then: ATTACH and DETACH on cdev
 * files, FEATURE and GET_REGION_INFO by the VFIO core, everything else by the driver, which answers ENOTTY to
 * what it does not know.
 */
export const DEVICE_RULES = {
  noAccess: { id: 'device.no-access', errno: 'EINVAL', text: 'a cdev file that has not bound the device' },
  unknownCommand: { id: 'device.unknown-command', errno: 'ENOTTY', text: 'the driver does not know the command' },
  noReset: { id: 'device-reset.none', errno: 'EINVAL', text: 'the device cannot be reset by itself' },
} as const satisfies Record<string, Rule>;

const R = DEVICE_RULES;

function ioctl(call: Call): void {
  const command = (call.event as IoctlEvent).request;
  answer(call, command);
  afterUnseen(call, command);
}

function answer(call: Call, command: number): void {
  const device = deviceOf(call);
  if (command === DEVICE_BIND_IOMMUFD) return bindIommufd(call);
  const cdev = call.file.object === BY_CDEV;
  if (cdev && device.boundFile !== call.file.id && refuse(call, R.noAccess)) return;
  if (cdev && command === DEVICE_ATTACH_IOMMUFD_PT) return attachPt(call);
  if (cdev && command === DEVICE_DETACH_IOMMUFD_PT) return detachPt(call);
  if (command === DEVICE_FEATURE) return feature(call);
  if (command === DEVICE_GET_REGION_INFO) return regionInfo(call);
  if (!driverCommand(call, device, command)) refuse(call, R.unknownCommand);
}

/** Commands that the driver takes. False when it does not know the command. */
function driverCommand(call: Call, device: VfioDevice, command: number): boolean {
  switch (command) {
    case DEVICE_GET_INFO:
      deviceInfo(call);
      return true;
    case DEVICE_GET_IRQ_INFO:
      irqInfo(call);
      return true;
    case DEVICE_SET_IRQS:
      setIrqs(call);
      return true;
    case DEVICE_RESET:
      reset(call, device);
      return true;
    default:
      return device.driver === 'pci' ? pciCommand(call, command) : otherCommand(call, device, command);
  }
}

function pciCommand(call: Call, command: number): boolean {
  switch (command) {
    case DEVICE_GET_PCI_HOT_RESET_INFO:
      hotResetInfo(call);
      return true;
    case DEVICE_PCI_HOT_RESET:
      hotReset(call);
      return true;
    case DEVICE_IOEVENTFD:
      ioeventfd(call);
      return true;
    default:
      return false;
  }
}

/** Mediated devices of drivers that are not known here may have displays; no driver resets the bus of one. */
function otherCommand(call: Call, device: VfioDevice, command: number): boolean {
  if (device.driver === 'mtty') return false;
  const display = displayOf(device);
  if (display !== undefined) return displayCommand(call, display, command);
  const theirs = [
    DEVICE_QUERY_GFX_PLANE,
    DEVICE_GET_GFX_DMABUF,
    DEVICE_GET_PCI_HOT_RESET_INFO,
    DEVICE_PCI_HOT_RESET,
    DEVICE_IOEVENTFD,
  ];
  if (!theirs.includes(command) || (device.driver === 'mdev' && PCI_ONLY.includes(command))) return false;
  call.unknown('the driver of the device is not known');
  if (PCI_ONLY.includes(command)) pciShows(call, device, command);
  if (command === DEVICE_QUERY_GFX_PLANE) planeShows(call, device);
  return true;
}

function displayCommand(call: Call, display: DisplayDriver, command: number): boolean {
  if (command === DEVICE_QUERY_GFX_PLANE) {
    queryPlane(call, display);
    return true;
  }
  if (display === 'mdpy' || command !== DEVICE_GET_GFX_DMABUF) return false;
  call.unknown('which dma-bufs the display has depends on the modes that were set');
  return true;
}

/**
 * Only vfio-pci has these commands: whatever it answers but ENOTTY shows it. A hot reset says ENOTTY also of a bus that did not
 * come back from it. Only after a prediction.
 */
function pciShows(call: Call, device: VfioDevice, command: number): void {
  if (call.recordedRet === null || call.recordedErrno === 'EFAULT') return;
  if (call.recordedErrno !== 'ENOTTY') tellDriver(call.tx, device, 'pci', call.event.seq);
  else if (command !== DEVICE_PCI_HOT_RESET) tellDriver(call.tx, device, 'mdev', call.event.seq);
}

const PCI_ONLY: readonly number[] = [DEVICE_GET_PCI_HOT_RESET_INFO, DEVICE_PCI_HOT_RESET, DEVICE_IOEVENTFD];

function reset(call: Call, device: VfioDevice): void {
  if (device.driver === 'pci') {
    const flags = smallFact(call.tx, deviceKey(device.name, 'flags'));
    const works = flags === undefined || (flags & DEVICE_FLAG_RESET) !== 0;
    if (!works && refuse(call, R.noReset)) return;
  } else if (device.driver === 'unknown' && !worksForAll(call, device)) return;
  if (!call.succeed('device-reset.ok')) return;
  patchDevice(call.tx, device.name, { asleep: false });
  resetMigration(call, device.name);
}

/** A device that was reset once can be reset; one that said so as well, whatever its driver. */
function worksForAll(call: Call, device: VfioDevice): boolean {
  const key = deviceKey(device.name, 'feature/reset');
  const flags = smallFact(call.tx, deviceKey(device.name, 'flags')) ?? 0;
  if (smallFact(call.tx, key) === 1 || (flags & DEVICE_FLAG_RESET) !== 0) return true;
  if (!call.succeedByFact('device-reset.ok', 'whether the device can be reset by itself was not shown')) return false;
  teach(call, key, 1);
  return true;
}

// ---- the family --------------------------------------------------------------------------------------------

export const deviceFamily: FileFamily = {
  open(tx, file, event) {
    const cdev = cdevName(file.path);
    if (cdev === undefined) {
      // Found open, made by GET_DEVICE_FD before the recording began: which device it is nobody tells.
      const key = `file ${file.id}`;
      ensureDevice(tx, key, 'unknown');
      openDevice(tx, key);
      patchDevice(tx, key, { unknownSince: event.seq, pciCommand: -1 });
      return Object.freeze({ ...file, object: BY_GROUP, objectKey: key });
    }
    const name = deviceOfCdev(tx, cdev, event.seq);
    const device = ensureDevice(tx, name, driverOfName(name));
    if (!file.complete && device.boundFile === 0) {
      openDevice(tx, name);
      patchDevice(tx, name, { boundFile: file.id, unknownSince: event.seq, pciCommand: -1 });
    }
    return Object.freeze({ ...file, object: BY_CDEV, objectKey: name });
  },
  ioctl,
  explain: (call) => explained(DEVICE_EXPLANATIONS, call),
  io: regionIo,
  meaning: ioMeaning,
  release(tx, file) {
    const device = tx.world.devices.get(file.objectKey);
    if (file.object === BY_GROUP || device?.boundFile === file.id) closeDevice(tx, file.objectKey);
  },
};
