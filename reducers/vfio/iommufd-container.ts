import type { IoctlEvent, MemNote } from '../../core/event.js';
import { findCommand } from '../../core/uapi/lookup.js';
import { add, type U64 } from '../../core/u64.js';
import { find } from '../answer.js';
import type { OpenFile } from '../files/state.js';
import { compatIoasId, ensureCompatIoas } from '../iommufd/attach.js';
import {
  contextOf,
  ioasOfObject,
  markContextUnknown,
  newContext,
  patchContext,
  patchIoas,
} from '../iommufd/context.js';
import { setLargePages } from '../iommufd/option.js';
import type { Tx } from '../tx.js';
import { patchContainer, patchGroup } from './containers.js';
import { emulatedKey, smallFact } from './facts.js';
import { joinIommufd } from './groups.js';
import { detachGroup, dropIfUnused } from './membership.js';
import type { VfioContainer, VfioGroup } from './state.js';
import {
  CHECK_EXTENSION,
  EXT_UPDATE_VADDR,
  GROUP_UNSET_CONTAINER,
  IOMMU_CAP_DMA_AVAIL,
  IOMMU_GET_INFO,
  IOMMU_MAP_DMA,
  IOMMU_UNMAP_DMA,
  SET_IOMMU,
} from './uapi.js';

/**
 * /dev/vfio/vfio of a kernel without VFIO's own containers (CONFIG_IOMMUFD_VFIO_CONTAINER, drivers/iommu/iommufd/main.c):
 * each open of it is an iommufd that charges pinned pages to the address space, as type1 does.
 *
 * Most answers are those of a container. Until one shows otherwise, it is taken for a container; these only an iommufd gives:
 *
 * - any command of iommufd that succeeds, or fails past the look at its number;
 * - ENODEV for what needs a group, where a container without a backend says EINVAL, and ENOTTY for a number that nobody
 *   knows;
 * - GET_INFO that makes argsz smaller (type1 leaves it where everything fits), or has room for 2^32 - 1 mappings;
 * - success of what needs a group when the groups have left: the IOAS that the first one made stays;
 * - success of a group's UNSET_CONTAINER while a device of it is open;
 * - ENOENT for UNMAP_DMA where nothing is mapped, where type1 says that it unmapped nothing;
 * - no VFIO_UPDATE_VADDR for PCI devices.
 *
 * A program that asks for none of these is told nothing. It is a property of the kernel: all containers are iommufds then,
 * those of the past too. Their groups are known; what they have mapped, other than an iommufd would have, is not.
 */
const KEY = 'kernel/vfio_container';

export const TOLD_BY_ANSWER = 'whether iommufd provides /dev/vfio/vfio was not shown before';

/** Whether the recording has shown that iommufd provides /dev/vfio/vfio. */
export function isProvidedByIommufd(tx: Tx): boolean {
  return smallFact(tx, KEY) === 1;
}

/** A file of /dev/vfio/vfio as it is after a call on it that only an iommufd answers so; undefined for any other call. */
export function revealedIommufd(tx: Tx, file: OpenFile, event: IoctlEvent): OpenFile | undefined {
  const container = tx.world.containers.get(file.object);
  if (container === undefined || container.spapr !== null || event.ret === null || event.injected) return undefined;
  const shown = event.ret === -1 ? failsAsIommufd(container, event) : succeedsAsIommufd(tx, container, event);
  if (!shown) return undefined;
  keepRevealed(tx, event.seq);
  return tx.world.files.get(file.id);
}

/** Whether a group that left its container shows it: of a container it would have to close its devices first. */
export function isRevealedByLeaving(tx: Tx, group: VfioGroup, event: IoctlEvent): boolean {
  const left = event.request === GROUP_UNSET_CONTAINER && event.ret === 0;
  if (!left || group.openDevices === 0 || tx.world.containers.get(group.container)?.spapr !== null) return false;
  keepRevealed(tx, event.seq);
  return true;
}

function keepRevealed(tx: Tx, seq: number): void {
  tx.world.facts.set(KEY, Object.freeze({ value: 1, since: seq }));
  for (const file of [...tx.world.files.values()]) if (file.kind === 'vfio-container') becomeIommufd(tx, file, seq);
}

/** Errors that come after the command was found. */
const LATER_ERRORS: readonly string[] = ['ENOENT', 'EOPNOTSUPP', 'E2BIG', 'EBUSY', 'EMSGSIZE', 'EADDRINUSE'];

function failsAsIommufd({ backend, groups }: VfioContainer, event: IoctlEvent): boolean {
  if (event.request === IOMMU_UNMAP_DMA && event.errno === 'ENOENT') return true;
  if (isIommufdCommand(event)) return LATER_ERRORS.includes(event.errno);
  if (backend !== 'none') return false;
  return event.errno === 'ENOTTY' || (event.errno === 'ENODEV' && groups.length === 0);
}

/** Commands that a container without groups, and with that without a backend, refuses. */
const OF_BACKEND: readonly number[] = [SET_IOMMU, IOMMU_MAP_DMA, IOMMU_UNMAP_DMA, IOMMU_GET_INFO];

function succeedsAsIommufd(tx: Tx, { backend, groups, had }: VfioContainer, event: IoctlEvent): boolean {
  if (backend === 'none' && groups.length === 0 && had !== 'nothing' && OF_BACKEND.includes(event.request)) return true;
  switch (event.request) {
    case IOMMU_GET_INFO:
      return isIommufdInfo(event);
    case CHECK_EXTENSION:
      if (event.arg !== EXT_UPDATE_VADDR || event.ret !== 0 || groups.length === 0) return false;
      return (
        (backend === 'type1' || backend === 'type1v2') && groups.every((id) => tx.world.groups.get(id)?.bus === 'pci')
      );
    default:
      return isIommufdCommand(event);
  }
}

const FIRST_IOMMUFD_NUMBER = 0x80;

function isIommufdCommand({ request }: IoctlEvent): boolean {
  if ((request & FIRST_IOMMUFD_NUMBER) === 0) return false;
  return findCommand('iommufd', request) !== undefined && findCommand('vfio-container', request) === undefined;
}

const NO_LIMIT = 0xffff_ffff;
/** A GET_INFO with one range of addresses. */
const LEAST_INFO_BYTES = 72;

function isIommufdInfo({ memIn, memOut, arg }: IoctlEvent): boolean {
  const asked = find(memIn, arg, 4)?.u32(0) ?? 0;
  const told = find(memOut, arg, 4)?.u32(0) ?? 0;
  if (told < LEAST_INFO_BYTES) return false;
  return told < asked || entriesLeft(memOut, arg) === NO_LIMIT;
}

/** Capabilities that a chain may have; a longer one is no answer of a kernel. */
const MAX_CAPS = 8;

/** How many more mappings GET_INFO says that there may be. */
function entriesLeft(memOut: readonly MemNote[], info: U64): number | undefined {
  let offset = find(memOut, add(info, 16), 4)?.u32(0) ?? 0;
  for (let i = 0; i < MAX_CAPS && offset !== 0; i++) {
    const cap = find(memOut, add(info, offset), 12);
    if (cap === undefined) return undefined;
    if (cap.u16(0) === IOMMU_CAP_DMA_AVAIL) return cap.u32(8);
    offset = cap.u32(4);
  }
  return undefined;
}

/** Gives a file of /dev/vfio/vfio the context that it stands for, with the groups that its container has. */
export function becomeIommufd(tx: Tx, file: OpenFile, seq: number): OpenFile {
  const context = newContext(tx, file.complete ? -1 : seq);
  patchContext(tx, context.id, { accountMm: true });
  const container = tx.world.containers.get(file.object);
  if (container !== undefined) moveGroups(tx, container, context.id, seq);
  const now = Object.freeze({ ...(tx.world.files.get(file.id) ?? file), kind: 'iommufd', object: context.id } as const);
  tx.world.files.set(now.id, now);
  return now;
}

function moveGroups(tx: Tx, container: VfioContainer, contextId: number, seq: number): void {
  const groups = container.groups.flatMap((id) => tx.world.groups.get(id) ?? []);
  const mapped = container.unknownSince >= 0 || container.mappings.size > 0 || container.had === 'mappings';
  const used = groups.some(({ openDevices }) => openDevices > 0);
  for (const { id } of groups) {
    detachGroup(tx, id);
    // What told it may as well have been the lack of a domain.
    if (tx.world.facts.delete(emulatedKey(id))) patchGroup(tx, id, { emulated: false, bus: 'unknown' });
  }
  patchContainer(tx, container.id, { fileOpen: false });
  dropIfUnused(tx, container.id);
  for (const { id, noIommu } of groups) {
    if (noIommu) patchContext(tx, contextId, { noIommu: true });
    else ensureCompatIoas(tx, contextId, seq);
    joinIommufd(tx, id, contextId);
  }
  if (container.had !== 'nothing' && !contextOf(tx, contextId).noIommu) ensureCompatIoas(tx, contextId, seq);
  const ioas = compatIoasId(tx, contextId);
  if (ioas !== 0) {
    const { id } = ioasOfObject(tx, contextId, ioas);
    if (container.backend === 'type1') setLargePages(tx, ioasOfObject(tx, contextId, ioas), false);
    if (mapped) patchIoas(tx, id, { unknownSince: seq });
  }
  if (mapped || used) markContextUnknown(tx, contextId, seq);
}
