import { DMIRROR_COMMANDS } from './hmm.js';
import { IOMMUFD_COMMANDS, IOMMUFD_COMPAT_COMMANDS } from './iommufd.js';
import type { Command } from './types.js';
import { CONTAINER_COMMANDS, GROUP_COMMANDS } from './vfio-container.js';
import { DEVICE_COMMANDS, MIGRATION_COMMANDS } from './vfio-device.js';
import { SPAPR_COMMANDS } from './vfio-spapr.js';

/**
 * All commands of all kinds of file. Where a container's type1 and sPAPR backends give one request two meanings, the
 * type1 command comes first.
 */
export const COMMANDS: readonly Command[] = [
  ...CONTAINER_COMMANDS,
  ...SPAPR_COMMANDS,
  ...GROUP_COMMANDS,
  ...DEVICE_COMMANDS,
  ...MIGRATION_COMMANDS,
  ...IOMMUFD_COMMANDS,
  ...IOMMUFD_COMPAT_COMMANDS,
  ...DMIRROR_COMMANDS,
];
