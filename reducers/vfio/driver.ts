import { makeAccess } from '../iommufd/access.js';
import { unbindDevice } from '../iommufd/attach.js';
import { contextOf, objectOf, patchContext, typedObject } from '../iommufd/context.js';
import { releaseContextIfDone } from '../iommufd/teardown.js';
import type { Tx } from '../tx.js';
import { patchDevice } from './devices.js';
import { ACCESS_ALIGNMENT_BYTES } from './emulated.js';
import type { DeviceDriver, VfioDevice } from './state.js';

/** An answer told which driver a device has; one that was bound as a device and is mediated turns into an access. */
export function tellDriver(tx: Tx, device: VfioDevice, driver: Exclude<DeviceDriver, 'unknown'>, seq: number): void {
  if (device.driver !== 'unknown' && !(device.driver === 'mdev' && driver !== 'pci' && driver !== 'mdev')) return;
  patchDevice(tx, device.name, { driver });
  const { iommufd, devid } = device;
  if (driver === 'pci' || iommufd === 0 || !tx.world.iommufds.has(iommufd)) return;
  if (typedObject(tx, iommufd, devid, 'device') === undefined) return;
  // The context must outlive the moment between the two.
  patchContext(tx, iommufd, { holders: contextOf(tx, iommufd).holders + 1 });
  unbindDevice(tx, iommufd, devid);
  if (objectOf(tx, iommufd, devid) === undefined) makeAccess(tx, iommufd, ACCESS_ALIGNMENT_BYTES, false, seq, devid);
  patchContext(tx, iommufd, { holders: contextOf(tx, iommufd).holders - 1 });
  releaseContextIfDone(tx, iommufd);
}
