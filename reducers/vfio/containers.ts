import { OrderedMap } from '../../core/ordered-map.js';
import { type Interval, overlaps } from '../../core/interval.js';
import type { Call } from '../call.js';
import { MSI_WINDOW, SURELY_TRANSLATED } from '../devices/pc-iommu.js';
import { markUnsure } from '../memory/locked.js';
import type { Tx } from '../tx.js';
import type { VfioContainer, VfioGroup } from './state.js';
import { PAGE_BYTES } from '../memory/flags.js';

/** Records of containers and groups: making, finding, changing. No rules here. */

/** Default of the module parameter `dma_entry_limit` (vfio_iommu_type1.c). */
export const DEFAULT_ENTRY_LIMIT = 65535;

/** Makes a container; `unknownSince` is -1 when its open was recorded. */
export function newContainer(tx: Tx, unknownSince: number): VfioContainer {
  const container: VfioContainer = Object.freeze({
    id: tx.nextId('containers'),
    fileOpen: true,
    backend: unknownSince < 0 ? 'none' : 'unknown',
    spapr: null,
    groups: Object.freeze([]),
    mappings: OrderedMap.numeric<number, never>().freeze(),
    unknownSince,
    had: 'nothing',
    vaddrInvalid: 0,
    dirtyTracking: false,
    bitmaps: OrderedMap.numeric<number, never>().freeze(),
    ranges: null,
    pageBytes: PAGE_BYTES,
    entryLimit: DEFAULT_ENTRY_LIMIT,
  });
  tx.world.containers.set(container.id, container);
  return container;
}

/** The container behind the file of the call. */
export function containerOf(call: Call): VfioContainer {
  const container = call.tx.world.containers.get(call.file.object);
  if (container === undefined) throw new Error(`container ${call.file.object} does not exist`);
  return container;
}

export function patchContainer(tx: Tx, id: number, patch: Partial<VfioContainer>): void {
  const container = tx.world.containers.get(id);
  if (container !== undefined) tx.world.containers.set(id, Object.freeze({ ...container, ...patch }));
}

export function patchGroup(tx: Tx, id: number, patch: Partial<VfioGroup>): void {
  const group = tx.world.groups.get(id);
  if (group !== undefined) tx.world.groups.set(id, Object.freeze({ ...group, ...patch }));
}

/** Whether the container has a group behind a real IOMMU, so that MAP_DMA pins memory. */
export function hasDomain(tx: Tx, container: VfioContainer): boolean {
  for (const id of container.groups) if (!tx.world.groups.get(id)?.emulated) return true;
  return false;
}

/** Whether the groups of the container are known: a backend without any means that a call which joined them was not seen. */
export function areGroupsKnown(container: VfioContainer): boolean {
  return container.groups.length > 0 || container.backend === 'none';
}

export function hasEmulated(tx: Tx, container: VfioContainer): boolean {
  for (const id of container.groups) if (tx.world.groups.get(id)?.emulated) return true;
  return false;
}

/** Whether the container is for groups without an IOMMU; false for one without groups. */
export function isNoIommu(tx: Tx, container: VfioContainer): boolean {
  const first = container.groups[0];
  return first !== undefined && tx.world.groups.get(first)?.noIommu === true;
}

/** From now on the container may hold mappings that the recording does not show. */
export function markMappingsUnknown(call: Call, container: VfioContainer): void {
  if (container.unknownSince >= 0) return;
  patchContainer(call.tx, container.id, { unknownSince: call.event.seq });
  const mapper = container.mappings.first()?.space ?? call.process.space;
  for (const space of new Set([mapper, call.process.space])) markUnsure(call.tx, 'space', space, call.event.seq);
}

export type RangeAnswer = 'valid' | 'invalid' | 'unknown';

/**
 * Whether a mapping `start..last` lies inside one valid IOVA range. Where no GET_INFO told the ranges, what every
 * x86-64 machine with an IOMMU has in common decides: at least 39 bits, without the window of the local APICs, which
 * no device can reach.
 */
export function rangeAnswer(container: VfioContainer, start: number | bigint, last: number | bigint): RangeAnswer {
  const ranges = container.ranges;
  if (ranges !== null) {
    if (ranges.length === 0) return 'valid';
    for (const range of ranges) if (start >= range.start && last <= range.last) return 'valid';
    return 'invalid';
  }
  if (overlaps(MSI_WINDOW, start, last)) return 'invalid';
  return last <= SURELY_TRANSLATED ? 'valid' : 'unknown';
}

/** `0x0-0xfedfffff, 0xfef00000-0x7fffffffff`. */
export function rangesText(ranges: readonly Interval[]): string {
  return ranges.map((r) => `0x${r.start.toString(16)}-0x${r.last.toString(16)}`).join(', ');
}
