import { firstOverlap, rangeAt } from '../../../core/interval.js';
import { hex, lastOf, lengthOf, sub, type U64, U64_MAX } from '../../../core/u64.js';
import type { Call } from '../../call.js';
import {
  bitsOf,
  containerTable,
  type Explanations,
  fieldsText,
  listText,
  rangeText,
  spanText,
  unevenText,
  unknownBitsText,
  type Told,
  unpinnable,
} from '../../explain.js';
import { givenText } from '../../explain-given.js';
import { MSI_WINDOW } from '../../devices/pc-iommu.js';
import { containerOf, rangesText } from '../containers.js';
import { iommuKey } from '../facts.js';
import { physicalGroups } from '../membership.js';
import type { DmaMapping, VfioContainer } from '../state.js';
import { MAP_READ, MAP_VADDR, MAP_WRITE, UNMAP_ALL, UNMAP_GET_DIRTY_BITMAP, UNMAP_VADDR } from '../uapi.js';
import { sleepingDevice } from './pinning.js';

/**
 * Why MAP_DMA, UNMAP_DMA and DIRTY_PAGES fail: the particulars of each rule of map.ts, unmap.ts and dirty.ts. A call that
 * fails changes nothing, so the state is asked as it is.
 *
 * MAP: argsz 0, flags 4, vaddr 8, iova 16, size 24. UNMAP and DIRTY_PAGES: argsz 0, flags 4, iova 8, size 16, then a
 * bitmap: pgsize 24, size 32, data 40.
 */
export const TYPE1_EXPLANATIONS: Explanations = {
  'container.no-backend': noBackend,
  'set-iommu.again': (call) => `${givenText(call)}; the container has ${containerOf(call).backend}`,
  'set-iommu.no-group': (call) => `${givenText(call)}; SET_CONTAINER of a group comes first`,
  'container.unknown-command': (call) => `the backend is ${containerOf(call).backend}`,
  'map-dma.argsz': argsz,
  'map-dma.flags': (call) => unknownBitsText(call.struct.u32(4), MAP_READ | MAP_WRITE | MAP_VADDR),
  'map-dma.size-zero': (call) => `iova ${hex(mapIova(call))}`,
  'map-dma.iova-overflow': (call) => fieldsText({ iova: mapIova(call), size: mapSize(call) }),
  'map-dma.vaddr-overflow': (call) => fieldsText({ vaddr: call.struct.u64(8), size: mapSize(call) }),
  'map-dma.access': (call) => `flags ${mapFlagsText(call.struct.u32(4))}`,
  'map-dma.iova-aligned': (call) =>
    unevenText({ iova: mapIova(call), vaddr: call.struct.u64(8), size: mapSize(call) }, containerOf(call).pageBytes),
  'map-dma.vaddr-none': vaddrNone,
  'map-dma.vaddr-mismatch': vaddrMismatch,
  'map-dma.overlap': overlap,
  'map-dma.entry-limit': entryLimit,
  'map-dma.iova-range': outsideRanges,
  'map-dma.pin': notPinned,
  'map-dma.dirty-bitmap': (call) => `size ${hex(mapSize(call))} in pages of ${hex(containerOf(call).pageBytes)}`,
  'unmap-dma.argsz': argsz,
  'unmap-dma.flags': (call) => unknownBitsText(call.struct.u32(4), UNMAP_GET_DIRTY_BITMAP | UNMAP_ALL | UNMAP_VADDR),
  'unmap-dma.flags-together': (call) => `flags ${unmapFlagsText(call.struct.u32(4))}`,
  'unmap-dma.bitmap-argsz': argsz,
  'unmap-dma.bitmap-size': bitmap,
  'unmap-dma.vaddr-mediated': mediated,
  'unmap-dma.iova-aligned': (call) => unevenText({ iova: rangeIova(call) }, containerOf(call).pageBytes),
  'unmap-dma.all-range': (call) => fieldsText({ iova: rangeIova(call), size: rangeSize(call) }),
  'unmap-dma.size': (call) =>
    rangeSize(call) === 0
      ? `iova ${hex(rangeIova(call))}, size 0`
      : unevenText({ size: rangeSize(call) }, containerOf(call).pageBytes),
  'unmap-dma.overflow': (call) => fieldsText({ iova: rangeIova(call), size: rangeSize(call) }),
  'unmap-dma.not-tracking': notTracking,
  'unmap-dma.cuts-first': (call) => cut(call),
  'unmap-dma.cuts-last': (call) => cut(call),
  'unmap-dma.bitmap-fault': bitmapFault,
  'unmap-dma.vaddr-twice': vaddrTwice,
  'unmap-dma.nothing': nothingThere,
  'unmap-dma.inside': cut,
  'unmap-dma.more': moreThanAsked,
  'dirty-pages.v1': (call) => `SET_IOMMU chose ${containerOf(call).backend}`,
  'dirty-pages.argsz': argsz,
  'dirty-pages.flags': (call) => `flags ${hex(call.struct.u32(4))}`,
  'dirty-pages.start-huge': startHuge,
  'dirty-pages.off': () => NOT_TRACKING,
  'dirty-pages.range-argsz': argsz,
  'dirty-pages.size-zero': (call) => `iova ${hex(rangeIova(call))}`,
  'dirty-pages.overflow': (call) => fieldsText({ iova: rangeIova(call), size: rangeSize(call) }),
  'dirty-pages.bitmap-size': bitmap,
  'dirty-pages.page-size': (call) =>
    `pgsize ${hex(call.struct.u64(24))}, the smallest page is ${hex(containerOf(call).pageBytes)}`,
  'dirty-pages.aligned': (call) =>
    unevenText({ iova: rangeIova(call), size: rangeSize(call) }, containerOf(call).pageBytes),
  'dirty-pages.bitmap-fault': bitmapFault,
  'dirty-pages.cuts': (call) => cut(call),
};

const mapIova = (call: Call): U64 => call.struct.u64(16);
const mapSize = (call: Call): U64 => call.struct.u64(24);
const rangeIova = (call: Call): U64 => call.struct.u64(8);
const rangeSize = (call: Call): U64 => call.struct.u64(16);

function argsz(call: Call): string {
  return `argsz ${call.struct.u32(0)}`;
}

function mapFlagsText(flags: number): string {
  return bitNames(flags, ['READ', 'WRITE', 'VADDR']);
}

function unmapFlagsText(flags: number): string {
  return bitNames(flags, ['GET_DIRTY_BITMAP', 'ALL', 'VADDR']);
}

function bitNames(flags: number, names: readonly string[]): string {
  return names.filter((_, bit) => flags & (1 << bit)).join('|') || '0';
}

/** `mapping 0x1000-0x1fff of event 12`. */
export function mappingText(mapping: DmaMapping): string {
  return `mapping ${rangeText(mapping.start, mapping.last)} of event ${mapping.since}`;
}

function noBackend(call: Call): Told {
  const { groups, id } = containerOf(call);
  const text =
    groups.length === 0
      ? 'the container has no group: SET_CONTAINER comes first, then SET_IOMMU'
      : `the container has ${groupsText(call, groups)}, and SET_IOMMU was not called since the first one joined`;
  return { text, about: { kind: 'backend', container: id } };
}

function groupsText(call: Call, groups: readonly number[]): string {
  return listText(groups.map((id) => call.tx.world.groups.get(id)?.path || `group ${id}`));
}

function overlap(call: Call): string | Told {
  const { id, mappings } = containerOf(call);
  const [iova, last] = [mapIova(call), lastOf(mapIova(call), mapSize(call))];
  const hit = last === undefined ? undefined : firstOverlap(mappings, iova, last);
  if (hit === undefined || last === undefined) return '';
  const { start, last: end, since } = hit;
  const isSame = start === iova && end === last;
  return {
    text: `${rangeText(iova, last)} ${isSame ? 'is' : 'overlaps'} ${mappingText(hit)}`,
    about: { kind: 'iova', table: containerTable(id), start, last: end, since },
  };
}

/** So many mappings stand for all: a program that meets the limit may meet it very often. */
const SAMPLED = 64;

function entryLimit(call: Call): string {
  const { mappings, entryLimit: limit } = containerOf(call);
  let bytes = 0n;
  let count = 0;
  for (const mapping of mappings.values()) {
    bytes += BigInt(lengthOf(mapping.start, mapping.last));
    if (++count === SAMPLED) break;
  }
  const mean = count === 0 ? 0n : bytes / BigInt(count);
  return (
    `${mappings.size} mappings, the limit is ${limit}; ` +
    `${count === mappings.size ? 'they' : `the first ${count}`} hold ${hex(bytes)} bytes, ${hex(mean)} each on average: ` +
    'neighbours can be mapped as one'
  );
}

function vaddrMismatch(call: Call): string {
  const [iova, last] = [mapIova(call), lastOf(mapIova(call), mapSize(call))];
  const hit = last === undefined ? undefined : firstOverlap(containerOf(call).mappings, iova, last);
  if (hit === undefined || last === undefined) return '';
  if (hit.start !== iova || hit.last !== last)
    return `${rangeText(iova, last)} is not the whole of ${mappingText(hit)}`;
  return `${mappingText(hit)} has its user address: no UNMAP with VADDR took it`;
}

/** What of the range no device can be given, and who says so. */
function outsideRanges(call: Call): string {
  const container = containerOf(call);
  const [iova, last] = [mapIova(call), lastOf(mapIova(call), mapSize(call))];
  if (last === undefined) return '';
  const mine = rangeText(iova, last);
  if (container.ranges === null)
    return `${mine} touches ${rangeText(MSI_WINDOW.start, MSI_WINDOW.last)}, where x86 devices send their interrupts (MSI)`;
  return `${mine} ${leaving(container, iova, last)}; valid are ${rangesText(container.ranges)}${toldBy(call, container)}`;
}

/** How a range leaves the valid ones: over the end of the aperture, or into a hole. */
function leaving(container: VfioContainer, iova: U64, last: U64): string {
  const ranges = container.ranges ?? [];
  const top = ranges.at(-1)?.last ?? 0;
  if (last > top) return `ends beyond the aperture: it needs ${bitsOf(last)} bits, the IOMMU has ${bitsOf(top)}`;
  for (let i = 0; i < ranges.length; i++) {
    const from = i === 0 ? 0 : BigInt(ranges[i - 1]?.last ?? 0) + 1n;
    const next = ranges[i]?.start ?? 0;
    if (iova < next && last >= from) return `touches ${rangeText(from, BigInt(next) - 1n)}, which is reserved`;
  }
  return '';
}

function toldBy(call: Call, container: VfioContainer): string {
  const groups = physicalGroups(call.tx, container);
  const fact = call.tx.world.facts.get(iommuKey(groups, 'iova_ranges'));
  const of = ` for ${groupsText(call, groups)}`;
  return fact === undefined ? of : `${of}, as GET_INFO of event ${fact.since} told`;
}

function vaddrNone(call: Call): Told {
  const [start, last] = [mapIova(call), lastOf(mapIova(call), mapSize(call))];
  const about =
    last === undefined
      ? undefined
      : ({ kind: 'iova', table: containerTable(containerOf(call).id), start, last, since: -1 } as const);
  return { text: `${spanText(start, mapSize(call))} is not mapped`, about };
}

function notPinned(call: Call): string | Told {
  const vaddr = call.struct.u64(8);
  const { space } = call.process;
  const write = (call.struct.u32(4) & MAP_WRITE) !== 0;
  const told = unpinnable(call.tx, space, vaddr, mapSize(call), { write, longterm: true, pfnmapOk: true });
  if (told !== undefined) return told;
  const last = lastOf(vaddr, mapSize(call));
  const asleep = last === undefined ? undefined : sleepingDevice(call, space, vaddr, last);
  if (asleep === undefined) return '';
  const device = call.tx.world.devices.get(asleep.device);
  const why = device?.asleep
    ? 'which is in D3'
    : device?.lowPower
      ? 'which was let go into low power'
      : 'whose command register has memory decoding off';
  return `${hex(asleep.at)}: a BAR of ${asleep.device}, ${why}`;
}

function mediated(call: Call): string {
  const groups = containerOf(call).groups.filter((id) => call.tx.world.groups.get(id)?.emulated);
  return groupsText(call, groups);
}

function bitmap(call: Call): string {
  const { struct } = call;
  const fields = { pgsize: struct.u64(24), size: struct.u64(32), data: struct.u64(40) };
  return `a bitmap of ${fieldsText(fields)} for ${hex(rangeSize(call))} bytes`;
}

function bitmapFault(call: Call): string | Told {
  const { struct } = call;
  const request = { write: true, longterm: false, pfnmapOk: true };
  return unpinnable(call.tx, call.process.space, struct.u64(40), struct.u64(32), request) ?? '';
}

const NOT_TRACKING = 'no DIRTY_PAGES with START is in force';

function startHuge(call: Call): string {
  let longest: DmaMapping | undefined;
  for (const mapping of containerOf(call).mappings.values())
    if (longest === undefined || sub(mapping.last, mapping.start) > sub(longest.last, longest.start)) longest = mapping;
  return longest === undefined ? '' : mappingText(longest);
}

function notTracking(call: Call): string {
  const { dirtyTracking, pageBytes } = containerOf(call);
  if (!dirtyTracking) return NOT_TRACKING;
  return `pgsize ${hex(call.struct.u64(24))}, the smallest page is ${hex(pageBytes)}`;
}

function nothingThere(call: Call): Told {
  const { id, mappings } = containerOf(call);
  const [start, last] = [rangeIova(call), lastOf(rangeIova(call), rangeSize(call))];
  const near = [mappings.floor(start), mappings.higher(start)].filter((each) => each !== undefined).map(mappingText);
  const text = `${spanText(start, rangeSize(call))} is not mapped; ${
    near.length === 0
      ? 'the container has no mapping'
      : `the nearest ${near.length > 1 ? 'are' : 'is'} ${near.join(' and ')}`
  }`;
  return {
    text,
    about: last === undefined ? undefined : { kind: 'iova', table: containerTable(id), start, last, since: -1 },
  };
}

function moreThanAsked(call: Call): string {
  const size = call.outs.find(({ field }) => field === 'size')?.bytes.u64(0) ?? 0;
  return `of ${spanText(rangeIova(call), rangeSize(call))}, ${hex(rangeSize(call))} bytes, ${hex(size)} bytes went`;
}

/** The mapping that an end of the range cuts. */
function cut(call: Call): string {
  const { mappings } = containerOf(call);
  const [iova, last] = [rangeIova(call), lastOf(rangeIova(call), rangeSize(call))];
  if (last === undefined) return '';
  const first = rangeAt(mappings, iova);
  const hit = first !== undefined && first.start !== iova ? first : rangeAt(mappings, last);
  return hit === undefined
    ? ''
    : `${rangeText(iova, last)} cuts ${mappingText(hit)}, which goes as a whole or not at all`;
}

function vaddrTwice(call: Call): string {
  const all = (call.struct.u32(4) & UNMAP_ALL) !== 0;
  const last = all ? U64_MAX : lastOf(rangeIova(call), rangeSize(call));
  if (last === undefined) return '';
  for (const mapping of containerOf(call).mappings.values())
    if (mapping.vaddrInvalid && mapping.last >= rangeIova(call) && mapping.start <= last)
      return `${mappingText(mapping)} lost its user address before`;
  return '';
}
