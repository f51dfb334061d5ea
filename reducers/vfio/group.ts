import type { IoctlEvent } from '../../core/event.js';
import { add } from '../../core/u64.js';
import { find, unknownSinceText } from '../answer.js';
import type { Call } from '../call.js';
import { type Explanations, explained, listText, rangeText } from '../explain.js';
import { givenField } from '../explain-given.js';
import type { FileFamily } from '../family.js';
import type { OpenFile } from '../files/state.js';
import { attachShortageText } from '../iommufd/asked.js';
import { contextOf, patchContext } from '../iommufd/context.js';
import { bindRefusal, compatIoasId, ensureCompatIoas } from '../iommufd/attach.js';
import { forgetContext } from '../iommufd/forget.js';
import { PAGES_MEMLOCK } from '../iommufd/charges.js';
import { explainShortage, refuseLikely } from '../memory/memlock.js';
import type { Tx } from '../tx.js';
import { isNoIommu, patchContainer, patchGroup } from './containers.js';
import { fdUnknown, joinableFiles, lookFd } from './fd-look.js';
import { endGroup, joinIommufd, leaveIommufd, openGroup } from './groups.js';
import { keepBoundElsewhere } from './device/group-block.js';
import { getDeviceFd } from './group-device.js';
import { isRevealedByLeaving, TOLD_BY_ANSWER } from './iommufd-container.js';
import { attachGroup, detachGroup, detachUnseen } from './membership.js';
import { happenedUnseen, isBadPointer, takeStruct } from './payload.js';
import { refuse, type Rule } from './rules.js';
import { JOIN_BUSY } from './spapr/backend.js';
import type { VfioContainer, VfioGroup } from './state.js';
import { JOIN_RULES, joinQuestions, joinRefused, pinForGroup } from './type1/join.js';
import {
  GROUP_CONTAINER_SET,
  GROUP_GET_DEVICE_FD,
  GROUP_GET_STATUS,
  GROUP_SET_CONTAINER,
  GROUP_UNSET_CONTAINER,
  GROUP_VIABLE,
} from './uapi.js';

/**
 * /dev/vfio/N (drivers/vfio/group.c).
 *
 * A group is put into one container, or onto one iommufd that plays the container's part, and stays there until
 * UNSET_CONTAINER or until its file is gone. Each device that is open through a container counts as a user of
 * it and holds the group's file, so the group cannot leave and its file does not end before the device's.
 */
export const GROUP_RULES = {
  unknownCommand: { id: 'group.unknown-command', errno: 'ENOTTY', text: 'the number is no command of a group' },
  statusArgsz: { id: 'group-status.argsz', errno: 'EINVAL', text: 'argsz is less than 8' },
  setFault: { id: 'set-container.copy-in', errno: 'EFAULT', text: 'the argument does not point to user memory' },
  setBadFd: { id: 'set-container.fd', errno: 'EBADF', text: 'the fd is not open' },
  setAgain: { id: 'set-container.again', errno: 'EINVAL', text: 'the group has a container or an iommufd already' },
  setMixed: {
    id: 'set-container.mixed',
    errno: 'EPERM',
    text: 'groups with and without an IOMMU do not share a container',
  },
  setClaimed: {
    id: 'set-container.claimed',
    errno: 'EPERM',
    text: 'a device of the group is bound to an iommufd, which owns the DMA of the group',
  },
  setVaddr: {
    id: 'set-container.vaddr-invalid',
    errno: 'EBUSY',
    text: 'the container has mappings whose user address was taken away',
  },
  ...JOIN_RULES,
  setNoIommu: {
    id: 'set-container.no-iommu',
    errno: 'EINVAL',
    text: 'the iommufd has a compatibility IOAS and the group has no IOMMU, or it stands in for one without and the group has one',
  },
  setNotContainer: {
    id: 'set-container.not-a-container',
    errno: 'EBADFD',
    text: 'the fd is neither a container nor an iommufd',
  },
  unsetNone: { id: 'unset-container.none', errno: 'EINVAL', text: 'the group has neither container nor iommufd' },
  unsetBusy: { id: 'unset-container.busy', errno: 'EBUSY', text: 'a device of the group is open' },
} as const satisfies Record<string, Rule>;

const R = GROUP_RULES;
const NOT_PERMITTED = 'whether drivers of the host use devices of the group, or its interrupts are not isolated';

/** The group behind the file of the call. */
function groupOf(call: Call): VfioGroup {
  const group = call.tx.world.groups.get(call.file.object);
  if (group === undefined) throw new Error(`group ${call.file.object} does not exist`);
  return group;
}

function ioctl(call: Call): void {
  switch ((call.event as IoctlEvent).request) {
    case GROUP_GET_STATUS:
      return getStatus(call);
    case GROUP_SET_CONTAINER:
      return setContainer(call);
    case GROUP_UNSET_CONTAINER:
      return unsetContainer(call);
    case GROUP_GET_DEVICE_FD:
      return getDeviceFd(call, groupOf(call));
    default:
      refuse(call, R.unknownCommand);
  }
}

const hasIommu = (group: VfioGroup): boolean => group.container !== 0 || group.iommufd !== 0;

function groupUnknown(group: VfioGroup): string {
  return unknownSinceText('state of the group', group.unknownSince);
}

/** A device of the group that is still bound to an iommufd owns the group's DMA, also when the group has left it. */
function isClaimed(tx: Tx, group: VfioGroup): boolean {
  return bindRefusal(tx, 0, group.path) !== undefined;
}

function getStatus(call: Call): void {
  if (takeStruct(call, 8, R.statusArgsz) === undefined) return;
  const group = groupOf(call);
  call.extentBytes = 8;
  if (!hasIommu(group) && group.unknownSince >= 0) {
    call.unknown(groupUnknown(group));
    return;
  }
  if (!call.succeed('group-status.ok')) return;
  const without = isClaimed(call.tx, group) ? 0 : GROUP_VIABLE;
  const flags = hasIommu(group) ? GROUP_VIABLE | GROUP_CONTAINER_SET : without;
  const foreign = flags === GROUP_VIABLE && find(call.memOut, add(call.arg, 4), 4)?.u32(0) === 0;
  if (foreign) call.outUnknown(add(call.arg, 4), 4, NOT_PERMITTED);
  else call.out32(4, flags, 'flags');
}

// ---- SET_CONTAINER -----------------------------------------------------------------------------------------

function setContainer(call: Call): void {
  call.extentBytes = 4;
  const group = groupOf(call);
  if (call.struct.length < 4) {
    if (isBadPointer(call)) refuse(call, R.setFault);
    else if (hasIommu(group) && call.unknown('payload not recorded: EBADF or EINVAL')) return;
    else call.unknown('payload not recorded');
    if (happenedUnseen(call)) joinUnseen(call, group);
    return;
  }
  const fd = call.struct.s32(0);
  const file = lookFd(call, fd);
  if (file === 'none') {
    refuse(call, R.setBadFd);
    return;
  }
  if (hasIommu(group) && refuse(call, R.setAgain)) return;
  if (file === 'unknown') {
    if (call.unknown(fdUnknown(fd))) joinUnseen(call, group);
    return;
  }
  if (group.unknownSince >= 0) call.unknown(groupUnknown(group));
  const container = file.kind === 'vfio-container' ? call.tx.world.containers.get(file.object) : undefined;
  if (container !== undefined) joinContainer(call, group, container);
  else if (file.kind === 'iommufd') joinContext(call, group, file.object);
  else refuse(call, R.setNotContainer);
}

const NO_CAPABILITY = 'whether the process has CAP_SYS_RAWIO';

/**
 * The group joined something, and the recording does not show what. Where the process has one file that it can be, it
 * is that one; else each container without a backend may have a group now.
 */
function joinUnseen(call: Call, group: VfioGroup): void {
  const { tx, event } = call;
  const { files, complete } = joinableFiles(call);
  const [only] = files;
  if (complete && files.length === 1 && only !== undefined && !hasIommu(group)) {
    const container = only.kind === 'vfio-container' ? tx.world.containers.get(only.object) : undefined;
    if (container !== undefined) enterContainer(call, group, container);
    else if (tx.world.iommufds.has(only.object)) enterContext(call, group, only.object);
    return;
  }
  patchGroup(tx, group.id, { unknownSince: event.seq });
  for (const { kind, object } of files) {
    if (kind === 'iommufd') forgetContext(tx, object, event.seq);
    else if (tx.world.containers.get(object)?.backend === 'none')
      patchContainer(tx, object, { backend: 'unknown', unknownSince: event.seq });
  }
}

function joinContainer(call: Call, group: VfioGroup, container: VfioContainer): void {
  const mixed = container.groups.length > 0 && isNoIommu(call.tx, container) !== group.noIommu;
  if (mixed && refuse(call, R.setMixed)) return;
  if (isClaimed(call.tx, group) && refuse(call, R.setClaimed)) return;
  if (!group.emulated && call.failedByFact('EPERM', group.noIommu ? NO_CAPABILITY : NOT_PERMITTED)) return;
  if (container.spapr?.v2 === false && refuse(call, JOIN_BUSY)) return;
  if (container.vaddrInvalid > 0 && refuse(call, R.setVaddr)) return;
  const joins = joinsType1(group, container);
  if (joins && joinRefused(call, container, group)) return;
  const questions = joins ? joinQuestions(call, container) : [];
  if (questions.some((question) => refuseLikely(call, question, R.memlock.id))) return;
  if (call.succeed('set-container.ok')) enterContainer(call, group, container);
  else for (const question of questions) explainShortage(call, question);
}

function enterContainer(call: Call, group: VfioGroup, container: VfioContainer): void {
  attachGroup(call.tx, container.id, group.id);
  if (joinsType1(group, container)) pinForGroup(call, container.id);
  patchGroup(call.tx, group.id, { unknownSince: -1 });
}

/** The group's IOMMU becomes part of a backend that may have mappings. */
function joinsType1(group: VfioGroup, { backend }: VfioContainer): boolean {
  return !group.noIommu && !group.emulated && (backend === 'type1' || backend === 'type1v2');
}

function joinContext(call: Call, group: VfioGroup, contextId: number): void {
  if (!call.tx.world.iommufds.has(contextId)) {
    if (call.unknown('the state of the iommufd is not known'))
      patchGroup(call.tx, group.id, { unknownSince: call.event.seq });
    return;
  }
  const context = contextOf(call.tx, contextId);
  const mixed = group.noIommu ? context.vfioIoas !== 0 : context.noIommu;
  if (mixed && refuse(call, R.setNoIommu)) return;
  if (call.succeed('set-container.iommufd')) enterContext(call, group, contextId);
}

function enterContext(call: Call, group: VfioGroup, contextId: number): void {
  if (group.noIommu) patchContext(call.tx, contextId, { noIommu: true });
  else ensureCompatIoas(call.tx, contextId, call.event.seq);
  joinIommufd(call.tx, group.id, contextId);
  patchGroup(call.tx, group.id, { unknownSince: -1 });
}

// ---- UNSET_CONTAINER ---------------------------------------------------------------------------------------

function unsetContainer(call: Call): void {
  const group = groupOf(call);
  if (!hasIommu(group) && group.unknownSince >= 0) {
    if (!call.unknown(groupUnknown(group))) return;
    patchGroup(call.tx, group.id, { unknownSince: -1 });
    detachUnseen(call.tx, call.event.seq);
    return;
  }
  if (!hasIommu(group) && refuse(call, R.unsetNone)) return;
  if (group.container !== 0 && group.openDevices > 0 && refuse(call, R.unsetBusy)) return;
  if (!call.succeed('unset-container.ok')) return;
  if (group.container !== 0) detachGroup(call.tx, group.id);
  if (group.iommufd !== 0) leaveIommufd(call.tx, group);
}

/** Which devices keep the group busy, and whether only mappings of their files are left. */
function openDevicesText(call: Call, group: VfioGroup): string {
  const names: string[] = [];
  for (const device of call.tx.world.devices.values()) {
    if (device.group !== group.id || device.openCount === 0) continue;
    const mapped: string[] = [];
    for (const file of call.tx.world.files.values())
      if (file.objectKey === device.name && file.vmaRefs > 0) mapped.push(...mappingsOf(call.tx, file));
    names.push(mapped.length > 0 ? `${device.name} (mmaps of its fd are alive: ${listText(mapped, 3)})` : device.name);
  }
  return `open devices: ${names.join(', ')}`;
}

/** Where a file is mapped, with the events that did it. */
function mappingsOf(tx: Tx, file: OpenFile): string[] {
  const ranges: string[] = [];
  for (const space of tx.world.spaces.values()) {
    if (!space.fileVmas.has(file.id)) continue;
    for (const vma of space.vmas.values())
      if (vma.file === file.id) ranges.push(`${rangeText(vma.start, vma.last)} of event ${vma.since}`);
  }
  return ranges;
}

const GROUP_EXPLANATIONS: Explanations = {
  'get-device-fd.no-backend': (call) => `${call.file.path} is in a container that no SET_IOMMU has given a backend`,
  'get-device-fd.no-container': (call) => call.file.path,
  'set-container.again': (call) =>
    `fd ${givenField(call, 'fd')}; ${call.file.path} is in ${groupOf(call).iommufd === 0 ? 'a container' : 'an iommufd'} already`,
  'get-device-fd.ok': attachShortage,
  'unset-container.busy': (call) => openDevicesText(call, groupOf(call)),
  [PAGES_MEMLOCK]: attachShortage,
};

/** On an iommufd the first open of a device attaches it to the compatibility IOAS. */
function attachShortage(call: Call): string {
  const { iommufd } = groupOf(call);
  if (call.recordedErrno !== 'ENOMEM' || !call.tx.world.iommufds.has(iommufd)) return '';
  return attachShortageText(call.tx, iommufd, compatIoasId(call.tx, iommufd));
}

// ---- the family --------------------------------------------------------------------------------------------

export const groupFamily: FileFamily = {
  open(tx, file, event) {
    const group = openGroup(tx, file, event.seq);
    if (file.complete) keepBoundElsewhere(tx, group, event.seq);
    return Object.freeze({ ...file, object: group.id });
  },
  reveals(tx, file, event) {
    const group = tx.world.groups.get(file.object);
    return group !== undefined && isRevealedByLeaving(tx, group, event) ? { file, why: TOLD_BY_ANSWER } : undefined;
  },
  ioctl,
  explain: (call) => explained(GROUP_EXPLANATIONS, call),
  release(tx, file) {
    const group = tx.world.groups.get(file.object);
    if (group === undefined || group.file !== file.id) return;
    if (group.openDevices > 0) patchGroup(tx, group.id, { closing: true });
    else endGroup(tx, group);
  },
};
