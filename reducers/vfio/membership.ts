import type { Interval } from '../../core/interval.js';
import { Bytes } from '../../core/bytes.js';
import { max, min, U64_MAX } from '../../core/u64.js';
import { charge } from '../memory/locked.js';
import { pinRemove } from '../memory/pins.js';
import type { Tx } from '../tx.js';
import { areGroupsKnown, hasDomain, patchContainer, patchGroup } from './containers.js';
import { ENTRY_LIMIT_KEY, iommuKey, numberFact, smallFact } from './facts.js';
import type { Backend, DmaMapping, VfioContainer } from './state.js';
import { PAGE_BYTES } from '../memory/flags.js';

/**
 * Groups enter and leave containers (drivers/vfio/container.c, and attach_group/detach_group of
 * vfio_iommu_type1.c). The backend, and with it every mapping, ends with the last group: the container is then as
 * after its open. While groups remain, the departure of the last one with a real IOMMU unpins the mappings and
 * leaves them in the table for the mediated devices.
 */

/** Puts the group into the container; its backend, when set, takes the group's hardware in. */
export function attachGroup(tx: Tx, containerId: number, groupId: number): void {
  const container = tx.world.containers.get(containerId);
  if (container === undefined) return;
  patchContainer(tx, containerId, { groups: Object.freeze([...container.groups, groupId]) });
  patchGroup(tx, groupId, { container: containerId, openDevices: 0 });
  refreshHardware(tx, containerId);
}

/** Gives the container a backend, for the groups it has. */
export function setBackend(tx: Tx, containerId: number, backend: Backend): void {
  const entryLimit = smallFact(tx, ENTRY_LIMIT_KEY);
  patchContainer(tx, containerId, { backend, ...(entryLimit === undefined ? {} : { entryLimit }) });
  refreshHardware(tx, containerId);
}

/** Takes over what is known of the IOMMU behind the groups that the container has now. */
export function refreshHardware(tx: Tx, containerId: number): void {
  const container = tx.world.containers.get(containerId);
  if (container === undefined) return;
  const groups = physicalGroups(tx, container);
  if (!areGroupsKnown(container)) {
    patchContainer(tx, containerId, { ranges: null, pageBytes: PAGE_BYTES });
    return;
  }
  if (groups.length === 0) {
    patchContainer(tx, containerId, { ranges: isUnlimited(container) ? UNLIMITED : NO_RANGES, pageBytes: PAGE_BYTES });
    return;
  }
  const sizes = numberFact(tx, iommuKey(groups, 'pgsizes'));
  const pageBytes = sizes === undefined ? PAGE_BYTES : lowestBit(sizes);
  patchContainer(tx, containerId, { ranges: knownRanges(tx, groups), pageBytes });
}

/** A container that never had a group with an IOMMU has no list of valid ranges; one that had is left with this. */
const NO_RANGES: readonly Interval[] = Object.freeze([]);
const UNLIMITED: readonly Interval[] = Object.freeze([Object.freeze({ start: 0, last: U64_MAX })]);

function isUnlimited(container: VfioContainer): boolean {
  const only = container.ranges?.length === 1 ? container.ranges[0] : undefined;
  return only?.start === 0 && only.last === U64_MAX;
}

/** Smallest page size of a bitmap of sizes; sizes below a CPU page are hidden by the kernel. */
export function lowestBit(sizes: number | bigint): number {
  const big = BigInt(sizes);
  const bit = Number(big & -big);
  return bit > 0 && bit <= 2 ** 32 ? bit : PAGE_BYTES;
}

/** Groups with a real IOMMU, by number. */
export function physicalGroups(tx: Tx, container: VfioContainer): readonly number[] {
  return container.groups.filter((id) => !tx.world.groups.get(id)?.emulated);
}

/** The valid IOVA ranges of a set of groups: as a GET_INFO told, or what those of each group have in common; or null. */
export function knownRanges(tx: Tx, groups: readonly number[]): readonly Interval[] | null {
  const told = toldRanges(tx, groups);
  if (told !== null || groups.length < 2) return told;
  let common: readonly Interval[] | null = null;
  for (const group of groups) {
    const own = toldRanges(tx, [group]);
    if (own === null) return null;
    common = common === null ? own : intersection(common, own);
  }
  return common;
}

function toldRanges(tx: Tx, groups: readonly number[]): readonly Interval[] | null {
  const value = tx.world.facts.get(iommuKey(groups, 'iova_ranges'))?.value;
  if (!(value instanceof Bytes)) return null;
  const ranges: Interval[] = [];
  for (let at = 0; value.has(at, 16); at += 16)
    ranges.push(Object.freeze({ start: value.u64(at), last: value.u64(at + 8) }));
  return Object.freeze(ranges);
}

/** What two sorted lists of ranges have in common. */
function intersection(a: readonly Interval[], b: readonly Interval[]): readonly Interval[] {
  const common: Interval[] = [];
  for (const one of a) {
    for (const other of b) {
      const start = max(one.start, other.start);
      const last = min(one.last, other.last);
      if (start <= last) common.push(Object.freeze({ start, last }));
    }
  }
  return Object.freeze(common);
}

/** Takes the group out of its container. */
export function detachGroup(tx: Tx, groupId: number): void {
  const containerId = tx.world.groups.get(groupId)?.container ?? 0;
  patchGroup(tx, groupId, { container: 0, openDevices: 0 });
  const container = tx.world.containers.get(containerId);
  if (container === undefined) return;
  const groups = Object.freeze(container.groups.filter((id) => id !== groupId));
  // Before SET_IOMMU nothing knows of the group's IOMMU.
  const hadDomain = container.backend !== 'none' && hasDomain(tx, container);
  patchContainer(tx, containerId, { groups });
  const left = { ...container, groups };
  const stray = groups.length === 0 ? strayGroupSince(tx) : -1;
  if (groups.length === 0) clearContainer(tx, left);
  if (stray >= 0) patchContainer(tx, containerId, { backend: 'unknown', unknownSince: stray });
  if (groups.length > 0) {
    if (hadDomain && !hasDomain(tx, left)) {
      unpinAll(tx, containerId);
      patchContainer(tx, containerId, { ranges: UNLIMITED });
    }
    if (container.dirtyTracking && !tx.world.groups.get(groupId)?.emulated) allDirty(tx, containerId);
    refreshHardware(tx, containerId);
  }
  dropIfUnused(tx, containerId);
}

/** `seq` since which a group may be in any container; -1 when there is no such group. */
function strayGroupSince(tx: Tx): number {
  for (const { container, unknownSince } of tx.world.groups.values())
    if (container === 0 && unknownSince >= 0) return unknownSince;
  return -1;
}

/** A group that may have written anywhere has left: each page of each mapping is dirty once. */
function allDirty(tx: Tx, containerId: number): void {
  const bitmaps = tx.openTable(tx.world.containers, containerId, 'bitmaps');
  const mappings = tx.world.containers.get(containerId)?.mappings.values() ?? [];
  for (const { start } of mappings)
    bitmaps.set(start, Object.freeze({ whole: true, tail: bitmaps.get(start)?.tail ?? '' }));
}

/** Bitmaps that are made anew, or are gone. */
export function clearBitmaps(tx: Tx, containerId: number): void {
  tx.openTable(tx.world.containers, containerId, 'bitmaps').clear();
}

/**
 * A group left, and nobody knows which container: each whose groups are not known may have lost its last one, and with it
 * all that it held.
 */
export function detachUnseen(tx: Tx, seq: number): void {
  for (const container of [...tx.world.containers.values()]) {
    if (areGroupsKnown(container)) continue;
    clearContainer(tx, container);
    patchContainer(tx, container.id, { backend: 'unknown', unknownSince: seq });
  }
}

/** The last group is gone: no backend, no mappings, everything known again. */
function clearContainer(tx: Tx, container: VfioContainer): void {
  const mappings = tx.openTable(tx.world.containers, container.id, 'mappings');
  const had = mappings.size > 0 || container.had === 'mappings' ? 'mappings' : 'groups';
  for (const mapping of mappings.values()) unpin(tx, mapping);
  mappings.clear();
  clearBitmaps(tx, container.id);
  patchContainer(tx, container.id, {
    backend: 'none',
    spapr: null,
    unknownSince: -1,
    had,
    vaddrInvalid: 0,
    dirtyTracking: false,
    ranges: null,
    pageBytes: PAGE_BYTES,
  });
}

/** No IOMMU holds the mappings any more; they stay for mediated devices. */
export function unpinAll(tx: Tx, containerId: number): void {
  const mappings = tx.openTable(tx.world.containers, containerId, 'mappings');
  for (const mapping of [...mappings.values()]) {
    unpin(tx, mapping);
    mappings.set(
      mapping.start,
      Object.freeze({ ...mapping, pinned: false, pin: 0, lockedPages: 0, maybeLockedPages: 0 }),
    );
  }
}

/** Takes the mapping's pages out of the index of pinned memory and off the account of the address space. */
export function unpin(tx: Tx, mapping: DmaMapping): void {
  if (mapping.pin !== 0) pinRemove(tx, mapping.space, mapping.pin, mapping.since);
  charge(tx, 'space', mapping.space, -mapping.lockedPages, -mapping.maybeLockedPages);
}

/** A container is gone when neither its file nor a group holds it. */
export function dropIfUnused(tx: Tx, containerId: number): void {
  const container = tx.world.containers.get(containerId);
  if (container !== undefined && !container.fileOpen && container.groups.length === 0)
    tx.world.containers.delete(containerId);
}
