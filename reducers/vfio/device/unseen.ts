import { markFdsIncomplete } from '../../files/processes.js';
import type { Call } from '../../call.js';
import { forgetContext } from '../../iommufd/forget.js';
import { deviceOf, forgetMigration, patchDevice } from '../devices.js';
import { happenedUnseen, NOT_RECORDED } from '../payload.js';
import {
  DEVICE_ATTACH_IOMMUFD_PT,
  DEVICE_DETACH_IOMMUFD_PT,
  DEVICE_FEATURE,
  DEVICE_GET_INFO,
  DEVICE_IOEVENTFD,
  DEVICE_PCI_HOT_RESET,
  DEVICE_SET_IRQS,
} from '../uapi.js';
import { forgetBindings } from './cdev.js';
import { resetMigration } from './migration.js';

/**
 * After a call on a device that succeeded, and of which the recording does not hold the struct, or not all of it: what it
 * may have changed is not known any more. BIND_IOMMUFD tells more than that, and is not here.
 */
export function afterUnseen(call: Call, command: number): void {
  if (call.unknownReason !== NOT_RECORDED || !happenedUnseen(call)) return;
  const { tx } = call;
  const { name, iommufd } = deviceOf(call);
  const { seq } = call.event;
  switch (command) {
    case DEVICE_GET_INFO:
      patchDevice(tx, name, { infoAsked: true });
      return;
    case DEVICE_SET_IRQS:
    case DEVICE_IOEVENTFD:
      patchDevice(tx, name, { unknownSince: seq });
      return;
    case DEVICE_FEATURE:
      forgetMigration(tx, name);
      patchDevice(tx, name, { lowPower: null });
      // A data file or a dma-buf.
      markFdsIncomplete(tx, call.process.fdTable);
      return;
    case DEVICE_PCI_HOT_RESET:
      patchDevice(tx, name, { asleep: false });
      resetMigration(call, name);
      return;
    case DEVICE_ATTACH_IOMMUFD_PT:
    case DEVICE_DETACH_IOMMUFD_PT:
      if (iommufd === 0) forgetBindings(call);
      else forgetContext(tx, iommufd, seq);
      return;
    default:
  }
}
