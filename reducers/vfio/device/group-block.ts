import type { Call } from '../../call.js';
import type { Tx } from '../../tx.js';
import { deviceKey } from '../facts.js';
import { isUnnamed } from '../groups.js';
import { refuse, type Rule } from '../rules.js';
import type { VfioDevice, VfioGroup } from '../state.js';

/**
 * A device has one way of access at a time (drivers/vfio/group.c, `vfio_device_block_group`): BIND_IOMMUFD is refused
 * while the file of its group is open, and the file cannot be opened while a device of the group is bound.
 *
 * Which group a device is in is the machine's. A device that was opened through its group told; of another one,
 * a BIND tells: refused, its group is one of those that are open; not refused, it is none of them. While all that
 * are left are open, BIND is refused whichever it is. A
 * group that is opened is not that of a device that is bound by then.
 */
export const GROUP_BLOCK_RULES = {
  groupOpen: { id: 'bind.group-open', errno: 'EBUSY', text: 'the group of the device is open' },
  openElsewhere: {
    id: 'bind.other-file',
    errno: 'EINVAL',
    text: 'another file has the device open: one that bound it, or one from its group, whose own file is closed by now',
  },
} as const satisfies Record<string, Rule>;

const R = GROUP_BLOCK_RULES;

/** Whether BIND ends here, as the group is open. A success tells as well: {@link keepBlockFree}. */
export function groupBlocks(call: Call, device: VfioDevice): boolean {
  const { tx } = call;
  const known = groupOfDevice(tx, device);
  if (known !== 0) return (tx.world.groups.get(known)?.file ?? 0) !== 0 && refuse(call, R.groupOpen);
  const among = groupsLeft(tx, device);
  if (among?.every((id) => (tx.world.groups.get(id)?.file ?? 0) !== 0)) return refuse(call, R.groupOpen);
  const open = openGroupsInDoubt(tx, device);
  if (open.length === 0) return false;
  if (!call.failedByFact(R.groupOpen.errno, `which group ${device.name} is in was not shown before`)) return false;
  if (!open.some(isUnnamed))
    keepAmong(
      call,
      device,
      open.map(({ id }) => id),
    );
  return true;
}

/** The device's group is one of these. */
function keepAmong(call: Call, device: VfioDevice, groups: readonly number[]): void {
  const value = groups.join('+');
  call.tx.world.facts.set(deviceKey(device.name, 'group'), Object.freeze({ value, since: call.event.seq }));
  call.noteLearned();
}

/** The groups that the answers so far leave to the device; undefined while it can be any. */
function groupsLeft(tx: Tx, device: VfioDevice): readonly number[] | undefined {
  const kept = tx.world.facts.get(deviceKey(device.name, 'group'))?.value;
  if (typeof kept !== 'string') return undefined;
  const ids = kept.split('+').map(Number);
  const left = ids.filter((id) => !tx.world.facts.has(notGroupKey(device, id)));
  return left.length === 0 ? undefined : left;
}

/** BIND succeeded: none of the open groups is the device's. */
export function keepBlockFree(call: Call, device: VfioDevice): void {
  if (groupOfDevice(call.tx, device) !== 0) return;
  for (const group of openGroupsInDoubt(call.tx, device)) exclude(call.tx, device, group, call.event.seq);
}

/** A group was opened: the devices that are bound belong to others. */
export function keepBoundElsewhere(tx: Tx, group: VfioGroup, seq: number): void {
  for (const device of tx.world.devices.values())
    if (device.boundFile !== 0 && device.unknownSince < 0 && groupOfDevice(tx, device) === 0)
      exclude(tx, device, group, seq);
}

/** The group that the device is in, 0 where nothing told. */
export function groupOfDevice(tx: Tx, device: VfioDevice): number {
  if (device.group !== 0) return device.group;
  const [only, other] = groupsLeft(tx, device) ?? [];
  return only === undefined || other !== undefined ? 0 : only;
}

/**
 * Whether BIND ends here, as the device is open through its group. On an iommufd an open device does not keep the
 * file of its group. A mediated device has its group for itself, so that its cdev stands for the one that is open; others may
 * share theirs.
 */
export function openThroughGroup(call: Call, device: VfioDevice): boolean {
  const { tx } = call;
  if (device.group !== 0) return false;
  const known = groupOfDevice(tx, device);
  const sole: number[] = [];
  const shared: number[] = [];
  for (const other of tx.world.devices.values())
    if (other.openCount > 0 && isClosed(tx, other.group) && couldBe(tx, device, other.group))
      (isSole(tx, other) ? sole : shared).push(other.group);
  if (known !== 0 && sole.includes(known)) return refuse(call, R.openElsewhere);
  const [first, second] = known !== 0 ? shared.filter((group) => group === known) : [...sole, ...shared];
  if (first === undefined) return false;
  if (!call.failedByFact(R.openElsewhere.errno, `which group ${device.name} is in was not shown before`)) return false;
  if (second === undefined) keepAmong(call, device, [first]);
  return true;
}

/** A group whose own file is gone; one that is open would have refused the BIND before. */
function isClosed(tx: Tx, groupId: number): boolean {
  return tx.world.groups.get(groupId)?.file === 0;
}

function isSole(tx: Tx, { group }: VfioDevice): boolean {
  return tx.world.groups.get(group)?.emulated ?? false;
}

function couldBe(tx: Tx, device: VfioDevice, groupId: number): boolean {
  return groupsLeft(tx, device)?.includes(groupId) ?? !tx.world.facts.has(notGroupKey(device, groupId));
}

function openGroupsInDoubt(tx: Tx, device: VfioDevice): VfioGroup[] {
  const doubtful: VfioGroup[] = [];
  for (const group of tx.world.groups.values())
    if (group.file !== 0 && couldBe(tx, device, group.id)) doubtful.push(group);
  return doubtful;
}

function exclude(tx: Tx, device: VfioDevice, group: VfioGroup, seq: number): void {
  const key = notGroupKey(device, group.id);
  if (!tx.world.facts.has(key)) tx.world.facts.set(key, Object.freeze({ value: 1, since: seq }));
}

function notGroupKey(device: VfioDevice, groupId: number): string {
  return deviceKey(device.name, `not-group/${groupId}`);
}
