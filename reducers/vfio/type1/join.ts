import { firstOverlap, type Interval } from '../../../core/interval.js';
import { hex, lengthOf, add, sub, type U64, U64_MAX } from '../../../core/u64.js';
import type { Call } from '../../call.js';
import { MSI_WINDOW, SURELY_TRANSLATED } from '../../devices/pc-iommu.js';
import { charge } from '../../memory/locked.js';
import type { LimitQuestion } from '../../memory/memlock.js';
import { probePin } from '../../memory/pin.js';
import { pinAdd } from '../../memory/pins.js';
import { countPages, type PageCount } from '../../memory/substance.js';
import { knownRanges, physicalGroups } from '../membership.js';
import { refuse, type Rule } from '../rules.js';
import type { DmaMapping, VfioContainer, VfioGroup } from '../state.js';
import { MAP_WRITE } from '../uapi.js';
import { mappingText } from './explain.js';
import { teachWidth, type Width, widthOf } from './width.js';

/**
 * A group with an IOMMU joins a container that has mappings (`vfio_iommu_type1_attach_group`).
 *
 * No mapping may lie outside of what its IOMMU translates, where another IOMMU has set such limits before, nor in what
 * it reserves. Then the mappings that no IOMMU maps yet, made for mediated devices, are pinned, one by one, under
 * the limit of the caller.
 */
export const JOIN_RULES = {
  aperture: {
    id: 'set-container.aperture',
    errno: 'EINVAL',
    text: 'the container has a mapping that the IOMMU of the group cannot translate',
  },
  reserved: {
    id: 'set-container.reserved',
    errno: 'EINVAL',
    text: 'the container has a mapping where the group or its IOMMU reserves a range',
  },
  range: {
    id: 'set-container.map',
    errno: 'ERANGE',
    text: 'the IOMMU cannot translate a mapping that was made when the container had none',
  },
  pin: {
    id: 'set-container.pin',
    errno: 'EFAULT',
    text: 'memory of a mapping that was not pinned before cannot be pinned',
  },
  memlock: {
    id: 'set-container.memlock',
    errno: 'ENOMEM',
    text: 'pinning the mappings would lock more pages than RLIMIT_MEMLOCK allows, and CAP_IPC_LOCK was missing when they were made',
  },
} as const satisfies Record<string, Rule>;

const R = JOIN_RULES;

/** Makes the prediction where the group cannot join. True: the call ends here. */
export function joinRefused(call: Call, container: VfioContainer, group: VfioGroup): boolean {
  const { mappings } = container;
  const last = mappings.lastKey();
  const highest = last === undefined ? undefined : mappings.get(last);
  if (highest === undefined) return false;
  const told = knownRanges(call.tx, [group.id]);
  const limited = physicalGroups(call.tx, container).length > 0 || (container.ranges ?? []).length > 0;
  const { least, most } = told === null ? widthOf(call.tx, [group.id]) : endOf(told);
  const beyond = most !== undefined && highest.last > most;
  if (beyond || highest.last > least) {
    call.looked(mappingText(highest));
    if (beyond && limited) return refuse(call, R.aperture);
    if (!beyond) answerShowsWidth(call, group, highest.last, limited);
  }
  for (const hole of told === null ? [MSI_WINDOW] : holesOf(told)) {
    const hit = firstOverlap(mappings, hole.start, hole.last);
    if (hit === undefined) continue;
    call.looked(mappingText(hit));
    return refuse(call, R.reserved);
  }
  return pinRefused(call, container, most ?? U64_MAX);
}

/** The answer tells whether the IOMMU of the group translates the highest address: it may refuse the group, or the mapping. */
function answerShowsWidth(call: Call, group: VfioGroup, last: U64, limited: boolean): void {
  const reason = `what the IOMMU of group ${group.id} says to IOVA ${hex(last)} is not in the recording`;
  if (call.succeedByFact('set-container.ok', reason)) teachWidth(call, [group.id], last, true);
  else if (call.recordedErrno === (limited ? R.aperture.errno : R.range.errno))
    teachWidth(call, [group.id], last, false);
}

/** Where an IOMMU ends that told its ranges. */
function endOf(told: readonly Interval[]): Width {
  const last = told[told.length - 1]?.last ?? SURELY_TRANSLATED;
  return { least: last, most: last };
}

function holesOf(ranges: readonly Interval[]): Interval[] {
  const holes: Interval[] = [];
  ranges.forEach((range, i) => {
    const before = ranges[i - 1];
    if (before !== undefined) holes.push({ start: add(before.last, 1), last: sub(range.start, 1) });
  });
  return holes;
}

/** Each mapping is pinned, as far as its pages lie together, and then mapped, piece by piece. */
function pinRefused(call: Call, container: VfioContainer, end: U64): boolean {
  for (const mapping of container.mappings.values()) {
    if (mapping.pinned) continue;
    const { vaddr, last } = memoryOf(mapping);
    const request = { write: (mapping.flags & MAP_WRITE) !== 0, longterm: true, pfnmapOk: true };
    const answer = probePin(call.tx, mapping.space, vaddr, last, request);
    const beyond = mapping.last > end;
    if (beyond && (answer.kind === 'ok' || answer.at !== vaddr)) {
      call.looked(mappingText(mapping));
      // Where a later page cannot be pinned, it matters which pages lie together.
      if (answer.kind === 'ok' || mapping.start > end) return refuse(call, R.range);
      call.unknown(`${answer.why} (${hex(answer.at)}), and the IOMMU ends at ${hex(end)}`);
      return false;
    }
    if (answer.kind === 'ok') continue;
    call.looked(`${mappingText(mapping)}, ${hex(answer.at)}: ${answer.why}`);
    if (answer.kind === 'fault') return refuse(call, R.pin);
    call.unknown(`${answer.why} (${hex(answer.at)})`);
  }
  return false;
}

function memoryOf(mapping: DmaMapping): { vaddr: DmaMapping['vaddr']; last: DmaMapping['vaddr'] } {
  return { vaddr: mapping.vaddr, last: sub(add(mapping.vaddr, lengthOf(mapping.start, mapping.last)), 1) };
}

/**
 * What pinning the mappings asks of the caller's limit: one question for each address space that pays. Whether their makers
 * had CAP_IPC_LOCK is likely what holds for the caller.
 */
export function joinQuestions(call: Call, container: VfioContainer): LimitQuestion[] {
  const { process } = call;
  const { creds } = process;
  const ipcLock = creds.ipcLock === 'no' ? 'unlikely' : creds.ipcLock;
  const sums = new Map<number, LimitQuestion>();
  for (const mapping of container.mappings.values()) {
    if (mapping.pinned) continue;
    const counted = countMemory(call, mapping);
    const before = sums.get(mapping.space);
    const pages = counted.pages + (before?.pages ?? 0);
    const maybePages = counted.maybePages + (before?.maybePages ?? 0);
    sums.set(mapping.space, { account: 'space', key: mapping.space, process, ipcLock, pages, maybePages });
  }
  return [...sums.values()];
}

function countMemory(call: Call, mapping: DmaMapping): PageCount {
  const { vaddr, last } = memoryOf(mapping);
  return countPages(call.tx, mapping.space, vaddr, last);
}

/** The IOMMU of a group that joined maps all there is. */
export function pinForGroup(call: Call, containerId: number): void {
  const { tx } = call;
  const container = tx.world.containers.get(containerId);
  if (container === undefined) return;
  const open = [...container.mappings.values()].filter((mapping) => !mapping.pinned);
  if (open.length === 0) return;
  const mappings = tx.openTable(tx.world.containers, containerId, 'mappings');
  for (const mapping of open) {
    const { vaddr, last } = memoryOf(mapping);
    const owner = `type1:${containerId}`;
    const pin = pinAdd(tx, mapping.space, { start: vaddr, last, owner, key: mapping.start, since: mapping.since });
    const { pages, maybePages } = countMemory(call, mapping);
    charge(tx, 'space', mapping.space, pages, maybePages);
    const locked = { lockedPages: pages, maybeLockedPages: maybePages };
    mappings.set(mapping.start, Object.freeze({ ...mapping, pinned: true, pin, ...locked }));
  }
}
