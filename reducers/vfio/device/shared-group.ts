import type { Call } from '../../call.js';
import type { Tx } from '../../tx.js';
import { deviceKey } from '../facts.js';
import type { VfioDevice } from '../state.js';
import { groupOfDevice } from './group-block.js';

/**
 * Devices that share an IOMMU group share what happens to it: one iommufd owns its DMA, and one HWPT is attached. A cdev
 * does not tell its group; where the recording does not either, a device is taken to have a group for itself until an
 * answer shows that it shares it with another one.
 */

/** What devices of one group have in common: its path where that is known, else the name of one of them. */
export function groupName(tx: Tx, device: VfioDevice): string {
  const leader = leaderOf(tx, device);
  return tx.world.groups.get(groupOfDevice(tx, leader))?.path ?? leader.name;
}

function leaderOf(tx: Tx, device: VfioDevice): VfioDevice {
  const name = tx.world.facts.get(sharesKey(device))?.value;
  return (typeof name === 'string' ? tx.world.devices.get(name) : undefined) ?? device;
}

/**
 * Whether the call fails with `errno` because another device, one of those that `claims` chooses, is in the same group, which
 * nothing showed before. Where there is one such device, it is known from then on. True: the prediction ends the call.
 */
export function sharedGroupShows(
  call: Call,
  device: VfioDevice,
  errno: string,
  claims: (other: VfioDevice) => boolean,
): boolean {
  const { tx } = call;
  const others: VfioDevice[] = [];
  for (const other of tx.world.devices.values())
    if (other.name !== device.name && claims(other) && mayShare(tx, device, other)) others.push(other);
  const [only, more] = others;
  if (only === undefined) return false;
  const reason = `whether ${device.name} shares its group with ${only.name} was not shown before`;
  // What the driver is may have been open before, so that the answer was unknown already.
  const fails = call.unknownReason === '' ? call.failedByFact(errno, reason) : call.recordedErrno === errno;
  if (!fails) return false;
  call.abandonTrial();
  if (more === undefined) keepShared(call, device, leaderOf(tx, only));
  return true;
}

function keepShared(call: Call, device: VfioDevice, leader: VfioDevice): void {
  call.tx.world.facts.set(sharesKey(device), Object.freeze({ value: leader.name, since: call.event.seq }));
}

/** Whether two devices that have different names for their groups may be in the same one all the same. */
function mayShare(tx: Tx, device: VfioDevice, other: VfioDevice): boolean {
  if (groupName(tx, device) === groupName(tx, other)) return false;
  return groupOfDevice(tx, device) === 0 || groupOfDevice(tx, other) === 0;
}

function sharesKey(device: VfioDevice): string {
  return deviceKey(device.name, 'shares-group');
}
