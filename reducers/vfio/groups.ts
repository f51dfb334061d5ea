import type { Call } from '../call.js';
import { contextOf, patchContext } from '../iommufd/context.js';
import { releaseContextIfDone } from '../iommufd/teardown.js';
import type { OpenFile } from '../files/state.js';
import type { Tx } from '../tx.js';
import { hasDomain, patchGroup } from './containers.js';
import { emulatedKey, teach } from './facts.js';
import { detachGroup, detachUnseen, refreshHardware, unpinAll } from './membership.js';
import type { VfioContainer, VfioGroup } from './state.js';

/** Records of groups: which one a file stands for, and how it ends. */

const GROUP_PATH = /^\/dev\/vfio\/(noiommu-)?(\d+)$/;
/** Keys of groups without an IOMMU, and of those whose number is not known, in the table of groups. */
const NOIOMMU_KEYS = 2 ** 32;
const UNNAMED_KEYS = 2 ** 33;

function keyOf(file: OpenFile): number {
  const match = GROUP_PATH.exec(file.path);
  const number = match === null ? Number.NaN : Number(match[2]);
  if (!(number < NOIOMMU_KEYS)) return UNNAMED_KEYS + file.id;
  return match?.[1] === undefined ? number : NOIOMMU_KEYS + number;
}

/** Whether the recording does not tell which group it is; its key ends with the file. */
export function isUnnamed({ id }: VfioGroup): boolean {
  return id >= UNNAMED_KEYS;
}

/** The group that a file just opened stands for. A file found open leaves the group's state unknown. */
export function openGroup(tx: Tx, file: OpenFile, seq: number): VfioGroup {
  const id = keyOf(file);
  const before = tx.world.groups.get(id);
  const fresh: VfioGroup = {
    id,
    path: file.path,
    noIommu: id >= NOIOMMU_KEYS && id < UNNAMED_KEYS,
    emulated: before?.emulated ?? false,
    bus: before?.bus ?? 'unknown',
    file: file.id,
    closing: false,
    container: 0,
    iommufd: 0,
    openDevices: 0,
    unknownSince: file.complete ? -1 : seq,
  };
  // A second open cannot succeed while the first lasts: what the recording shows means that the first has ended.
  if (before !== undefined && before.file !== 0) endGroup(tx, before);
  const group = Object.freeze(fresh);
  tx.world.groups.set(id, group);
  return group;
}

/** The group's file is gone, and so is everything that it held. */
export function endGroup(tx: Tx, group: VfioGroup): void {
  if (group.container !== 0) detachGroup(tx, group.id);
  if (group.iommufd !== 0) leaveIommufd(tx, group);
  if (group.unknownSince >= 0) detachUnseen(tx, group.unknownSince);
  if (isUnnamed(group)) tx.world.groups.delete(group.id);
  else patchGroup(tx, group.id, { file: 0, closing: false, unknownSince: -1 });
}

/** The group's hold on an iommufd, which keeps the context alive without its own fd. */
export function joinIommufd(tx: Tx, groupId: number, contextId: number): void {
  patchContext(tx, contextId, { holders: contextOf(tx, contextId).holders + 1 });
  patchGroup(tx, groupId, { iommufd: contextId });
}

export function leaveIommufd(tx: Tx, group: VfioGroup): void {
  patchGroup(tx, group.id, { iommufd: 0 });
  if (!tx.world.iommufds.has(group.iommufd)) return;
  patchContext(tx, group.iommufd, { holders: contextOf(tx, group.iommufd).holders - 1 });
  releaseContextIfDone(tx, group.iommufd);
}

/**
 * Whether nothing has shown yet if the container has an IOMMU behind it: no device of its groups was named, and those
 * that were are mediated. Until then an IOMMU is assumed.
 */
export function isNatureOpen(tx: Tx, container: VfioContainer): boolean {
  let open = false;
  for (const id of container.groups) {
    const group = tx.world.groups.get(id);
    if (group === undefined || group.noIommu || group.bus === 'pci') return false;
    if (!group.emulated) open = true;
  }
  return open;
}

/** An answer that only a container without an IOMMU gives: all its groups have mediated devices. */
export function learnEmulated(call: Call, container: VfioContainer): void {
  for (const id of container.groups) {
    markEmulated(call.tx, id);
    teach(call, emulatedKey(id), 1);
  }
}

/** A name shows that the group's devices are mediated: what its container maps is not pinned on its account. */
export function markEmulated(tx: Tx, groupId: number): void {
  const group = tx.world.groups.get(groupId);
  if (group === undefined || group.emulated) return;
  patchGroup(tx, groupId, { emulated: true, bus: 'mdev' });
  const container = tx.world.containers.get(group.container);
  if (container === undefined) return;
  if (!hasDomain(tx, container)) unpinAll(tx, container.id);
  refreshHardware(tx, container.id);
}
