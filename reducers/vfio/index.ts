import type { Families } from '../family.js';
import { containerFamily } from './container.js';
import { deviceFamily } from './device/device.js';
import { groupFamily } from './group.js';
import { migrationFamily } from './migration-file.js';

/** VFIO: containers, groups, devices and migration data fds. */
export const vfioFamilies: Families = {
  'vfio-container': containerFamily,
  'vfio-group': groupFamily,
  'vfio-device': deviceFamily,
  'vfio-migration': migrationFamily,
};
