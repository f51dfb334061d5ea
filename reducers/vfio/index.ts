import type { Families } from '../family.js';
import { containerFamily } from './container.js';
import { deviceFamily } from './device/device.js';
import { groupFamily } from './group.js';
import { migrationFamily } from './migration-file.js';
import { sysfsFamily } from './sysfs.js';

/** VFIO: containers, groups, devices and migration data fds; and what sysfs shows of devices. */
export const vfioFamilies: Families = {
  'vfio-container': containerFamily,
  'vfio-group': groupFamily,
  'vfio-device': deviceFamily,
  'vfio-migration': migrationFamily,
  other: sysfsFamily,
};
