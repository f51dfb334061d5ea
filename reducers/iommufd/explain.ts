import { firstOverlap, type Interval, overlaps, rangeAt } from '../../core/interval.js';
import { add, hex, lastOf, modPow2, sub, type U64, U64_MAX } from '../../core/u64.js';
import type { Call } from '../call.js';
import {
  bitsOf,
  type Explanations,
  fieldsText,
  fieldText,
  ioasTable,
  listText,
  rangeText,
  spanText,
  unevenText,
  unknownBitsText,
  type Subject,
  type Told,
} from '../explain.js';
import { attachShortageText } from './asked.js';
import { PAGES_MEMLOCK } from './charges.js';
import { typedObject } from './context.js';
import { smallestPage } from './domain.js';
import { beyondFile, cannotFill, cannotPin, fileText, readOnlySource } from './explain-memory.js';
import { CALL_EXPLANATIONS } from './explain-calls.js';
import { areaText, destroyBusyText, ioasOf, objectText } from './explain-objects.js';
import { longestFree, PAGE } from './iopt.js';
import { tableKey } from './limits.js';
import { type DmaRequest, dmaRequest } from './request.js';
import type { Area, Ioas, IommufdContext } from './state.js';

/**
 * Why MAP, MAP_FILE, COPY, UNMAP and their VFIO forms fail on /dev/iommu: the particulars of each rule of map.ts, map-file.ts,
 * iopt.ts, pages.ts and compat.ts. A call that fails leaves the IOAS as it was (an UNMAP may have taken areas
 * before the one that stopped it), so the state is asked as it is.
 */
export const IOMMUFD_EXPLANATIONS: Explanations = {
  ...CALL_EXPLANATIONS,
  'common.size': (call) => fieldText(call, 0, 'size'),
  'common.tail': (call) => fieldText(call, 0, 'size'),
  'common.fault': (call) => `the argument is ${hex(call.arg)}`,
  'compat.no-ioas': noCompatIoas,
  'compat.number': (call) => `${call.name} on ${call.file.path}`,
  'compat-map.argsz': (call) => compatHead(call, 32, 3, 'READ and WRITE'),
  'compat-unmap.argsz': (call) => compatHead(call, 24, 2, 'ALL'),
  'compat-unmap.all': withRequest(({ iova, length }) => fieldsText({ iova, size: length })),
  'compat-unmap.cut-alignment': cut,
  'compat-unmap.cut-access': cut,
  'compat-unmap.cut-dma-buf': cut,
  'destroy.object': (call) => objectText(call, 'id', call.struct.u32(4)),
  'destroy.busy': destroyBusyText,
  'map.flags': (call) =>
    (call.struct.u32(4) & ~7) !== 0
      ? unknownBitsText(call.struct.u32(4), 7)
      : `the reserved field is ${hex(call.struct.u32(12))}`,
  'map.overflow': withRequest(({ iova, length }) => fieldsText({ iova, length })),
  'map.no-access': (call) => `flags ${hex(call.struct.u32(4))}`,
  'map.ioas': noIoas,
  'map.memory-overflow': withRequest(({ address, length }) => fieldsText({ address, length })),
  'map.memory-length': withRequest(({ length }) => `length ${hex(length)}`),
  'map.write': readOnlySource,
  'map.page-offset': withRequest(({ address, from }, call, ioas) =>
    unevenText({ address: modPow2(from ?? address, PAGE) }, ioas?.alignment ?? 1, alignedBy(call, ioas)),
  ),
  'map-file.length': withRequest(({ address, length }) => fieldsText({ start: address, length })),
  'map-file.overflow': withRequest(({ address, length }) => fieldsText({ start: address, length })),
  'map-file.fd': (call) => `fd ${call.struct.s32(12)}`,
  'map-file.dma-buf-size': beyondFile,
  'map-file.dma-buf-revoked': (call) => fileText(call, call.struct.s32(12)),
  'copy.source': (call) => objectText(call, 'src_ioas_id', call.struct.u32(12)),
  'copy.length': withRequest(({ from }) => `src_iova ${hex(from ?? 0)}`),
  'copy.source-overflow': withRequest(({ from, length }) => fieldsText({ src_iova: from ?? 0, length })),
  'copy.source-gap': sourceGap,
  'iova.length': withRequest(({ length }, call, ioas) =>
    length === 0 ? 'length 0' : unevenText({ length }, ioas?.alignment ?? 1, alignedBy(call, ioas)),
  ),
  'iova.choose-overflow': withRequest(({ length }) => `length ${hex(length)}`),
  'iova.choose-alignment': withRequest(({ address }, call, ioas) =>
    unevenText({ address }, ioas?.alignment ?? 1, alignedBy(call, ioas)),
  ),
  'iova.no-space': noSpace,
  'iova.aligned': withRequest(({ iova }, call, ioas) =>
    unevenText({ iova }, ioas?.alignment ?? 1, alignedBy(call, ioas)),
  ),
  'iova.overflow': withRequest(({ iova, length }) => fieldsText({ iova, length })),
  'iova.reserved': reserved,
  'iova.exists': exists,
  [PAGES_MEMLOCK]: attachShortage,
  'hwpt-alloc.ok': attachShortage,
  'mock-domain.ok': attachShortage,
  'mock-replace.ok': attachShortage,
  'pages.fault': (call) => cannotPin(call) ?? cannotFill(call) ?? '',
  'pages.file-kind': withRequest(({ fd }, call) => fileText(call, fd)),
  'pages.file-size': beyondFile,
  'pages.rights': withRequest(({ iova, length }) => `${spanText(iova, length)} is neither readable nor writable`),
  'unmap.ioas': noIoas,
  'unmap.overflow': withRequest(({ iova, length }) => fieldsText({ iova, length })),
  'unmap.length': withRequest(({ iova }) => `iova ${hex(iova)}`),
  'unmap.locked': inTheWay((area) => `${areaText(area)} holds the memory of a HW queue`),
  'unmap.part': inTheWay(
    (area, { iova, length }) => `${spanText(iova, length)} cuts ${areaText(area)}, which goes as a whole or not at all`,
  ),
  'unmap.none': nothingThere,
  'compat-unmap.nothing': nothingThere,
};

/** What of argsz and flags iommufd does not take from a caller of VFIO's container calls: it knows fewer flags than type1. */
function compatHead(call: Call, needs: number, known: number, names: string): string {
  if (!call.struct.has(4, 4) || call.struct.u32(0) < needs)
    return `${fieldText(call, 0, 'argsz')}; ${hex(needs)} are needed`;
  return `${unknownBitsText(call.struct.u32(4), known)}: iommufd takes ${names} only`;
}

/** Where the commands that bring a domain into an IOAS name it. */
const PT_ID_AT: Readonly<Record<string, readonly number[]>> = {
  IOMMU_HWPT_ALLOC: [12],
  IOMMU_TEST_CMD: [8, 16, 20],
};

/** A command that pins all memory of an IOAS, and had too little; those that map say it themselves. */
function attachShortage(call: Call): string {
  if (call.recordedErrno !== 'ENOMEM') return '';
  for (const at of PT_ID_AT[call.name] ?? []) {
    const ioas = call.struct.has(at, 4) ? attachShortageText(call.tx, call.file.object, call.struct.u32(at)) : '';
    if (ioas !== '') return ioas;
  }
  return '';
}

function withRequest(
  words: (request: DmaRequest, call: Call, ioas: Ioas | undefined) => string,
): (call: Call) => string {
  return (call) => {
    const request = dmaRequest(call);
    return request === undefined ? '' : words(request, call, ioasOf(call, request.ioas));
  };
}

function contextOfCall(call: Call): IommufdContext | undefined {
  return call.tx.world.iommufds.get(call.file.object);
}

function noIoas(call: Call): string | Told {
  const request = dmaRequest(call);
  const field = call.name === 'IOMMU_IOAS_COPY' ? 'dst_ioas_id' : 'ioas_id';
  return request === undefined ? '' : objectText(call, field, request.ioas);
}

function iovaSubject(ioas: Ioas, start: U64, last: U64, since = -1): Subject {
  return { kind: 'iova', table: ioasTable(ioas.id), start, last, since };
}

function noCompatIoas(call: Call): string {
  const ids = listText(
    [...(contextOfCall(call)?.objects.values() ?? [])].filter(({ type }) => type === 'ioas').map(({ id }) => `${id}`),
  );
  const has = ids === '' ? 'the context has no IOAS' : `the context has IOAS ${ids}, which VFIO_IOAS did not choose`;
  return `${has}, and no VFIO group has joined it`;
}

/** What asks for the alignment, where it is more than a byte. */
function alignedBy(call: Call, ioas: Ioas | undefined): string {
  if (ioas === undefined || ioas.alignment === 1) return '';
  const who: string[] = [];
  for (const id of ioas.hwpts) {
    const hwpt = typedObject(call.tx, ioas.context, id, 'hwpt-paging');
    if (hwpt !== undefined && smallestPage(hwpt.domain) === ioas.alignment)
      who.push(`HWPT ${id} of event ${hwpt.since}`);
  }
  for (const id of ioas.accesses) {
    const access = typedObject(call.tx, ioas.context, id, 'access');
    if (access?.alignment === ioas.alignment) who.push(`access ${id} of event ${access.since}`);
  }
  if (ioas.noLargePages) who.push('option HUGE_PAGES 0');
  return who.length === 0 ? '' : ` by ${listText(who, 2)}`;
}

// ---- what is in the way -------------------------------------------------------------------------------------

function reserved(call: Call): string {
  const request = dmaRequest(call);
  const ioas = request === undefined ? undefined : ioasOf(call, request.ioas);
  const last = request === undefined ? undefined : lastOf(request.iova, request.length);
  if (request === undefined || ioas === undefined || last === undefined) return '';
  const owners = new Map<string, string[]>();
  for (const range of ioas.reserved.values()) {
    if (!overlaps(range, request.iova, last)) continue;
    const text = rangeText(range.start, range.last);
    owners.set(text, [...(owners.get(text) ?? []), ownerText(call, ioas, range.owner)]);
  }
  const all = [...owners].map(([range, of]) => `${range} (${listText(of, 2)})`);
  return `${rangeText(request.iova, last)} touches ${listText(all, 3)}`;
}

/** Who reserved a range, by its owner's key (`Reserved.owner`). */
function ownerText(call: Call, ioas: Ioas, owner: string): string {
  const at = owner.indexOf(':');
  const [what, key] = [owner.slice(0, at), owner.slice(at + 1)];
  switch (what) {
    case 'hwpt': {
      const hwpt = typedObject(call.tx, ioas.context, Number(key), 'hwpt-paging');
      if (hwpt === undefined) return `outside the aperture of HWPT ${key}`;
      const { aperture } = hwpt.domain;
      const bits = aperture === null ? '' : ` of ${bitsOf(aperture.last)} bits`;
      return `outside the aperture${bits} of HWPT ${key} of event ${hwpt.since}${toldBy(call, `iommu/${tableKey(hwpt.domain)}/aperture`)}`;
    }
    case 'device':
      return `by device ${key}${toldBy(call, `iommu/${key}/reserved`) || ', for interrupts (MSI), as on all x86 machines'}`;
    default:
      return `by IOMMU_TEST_OP_ADD_RESERVED of event ${key}`;
  }
}

function toldBy(call: Call, key: string): string {
  const fact = call.tx.world.facts.get(key);
  return fact === undefined ? '' : `, as event ${fact.since} told`;
}

function exists(call: Call): string | Told {
  const request = dmaRequest(call);
  const ioas = request === undefined ? undefined : ioasOf(call, request.ioas);
  const last = request === undefined ? undefined : lastOf(request.iova, request.length);
  if (request === undefined || ioas === undefined || last === undefined) return '';
  const area = firstOverlap(ioas.areas, request.iova, last);
  if (area === undefined) return '';
  const isSame = area.start === request.iova && area.last === last;
  return {
    text: `${rangeText(request.iova, last)} ${isSame ? 'is' : 'overlaps'} ${areaText(area)}`,
    about: iovaSubject(ioas, area.start, area.last, area.since),
  };
}

/** Words about the first area that an UNMAP stops at. */
function inTheWay(words: (area: Area, request: DmaRequest) => string): (call: Call) => string {
  return withRequest((request, _call, ioas) => {
    const last = request.length === U64_MAX ? U64_MAX : lastOf(request.iova, request.length);
    const area = ioas === undefined || last === undefined ? undefined : firstStop(ioas, request.iova, last);
    return area === undefined ? '' : words(area, request);
  });
}

function firstStop(ioas: Ioas, start: U64, last: U64): Area | undefined {
  let at: U64 = start;
  for (;;) {
    const area = firstOverlap(ioas.areas, at, last);
    if (area === undefined || area.locks > 0 || area.start < at || area.last > last) return area;
    if (area.last >= last) return undefined;
    at = add(area.last, 1);
  }
}

function cut(call: Call): string {
  const request = dmaRequest(call);
  const ioas = request === undefined ? undefined : ioasOf(call, request.ioas);
  if (request === undefined || ioas === undefined) return '';
  const last = sub(add(request.iova, request.length), 1);
  const end = rangeAt(ioas.areas, last);
  const area = end !== undefined && end.last !== last ? end : rangeAt(ioas.areas, request.iova);
  return area === undefined ? '' : `${spanText(request.iova, request.length)} cuts ${areaText(area)}`;
}

/** The neighbours of a range that is not mapped: often a size or an offset is wrong. */
function nothingThere(call: Call): string | Told {
  const request = dmaRequest(call);
  const ioas = request === undefined ? undefined : ioasOf(call, request.ioas);
  const last = request === undefined ? undefined : lastOf(request.iova, request.length);
  if (request === undefined || ioas === undefined || last === undefined) return '';
  const range = rangeText(request.iova, last);
  return {
    text: `${range} is not mapped in IOAS ${request.ioas}; ${neighbours(ioas, request.iova)}`,
    about: iovaSubject(ioas, request.iova, last),
  };
}

function neighbours(ioas: Ioas, iova: U64): string {
  if (ioas.areas.size === 0) return 'the IOAS is empty';
  const below = ioas.areas.floor(iova);
  const above = ioas.areas.higher(iova);
  const near = [below, above].filter((area) => area !== undefined).map(areaText);
  return `the nearest ${near.length > 1 ? 'are' : 'is'} ${near.join(' and ')}`;
}

function sourceGap(call: Call): string | Told {
  const request = dmaRequest(call);
  const source = ioasOf(call, call.struct.u32(12));
  const from = request?.from;
  const last = request === undefined || from === undefined ? undefined : lastOf(from, request.length);
  if (source === undefined || from === undefined || last === undefined) return '';
  let at: U64 = from;
  for (let area = rangeAt(source.areas, at); area !== undefined && area.last < last; area = rangeAt(source.areas, at))
    at = add(area.last, 1);
  return {
    text: `${hex(at)} of ${rangeText(from, last)} is not mapped in IOAS ${source.objectId}; ${neighbours(source, at)}`,
    about: iovaSubject(source, at, at),
  };
}

function noSpace(call: Call): string {
  const request = dmaRequest(call);
  const ioas = request === undefined ? undefined : ioasOf(call, request.ioas);
  if (request === undefined || ioas === undefined) return '';
  const longest = longestFree(ioas);
  const free =
    longest === undefined ? 'nothing is free' : `the longest free range is ${rangeText(longest.start, longest.last)}`;
  const parts = [`length ${hex(request.length)}; ${free} of IOAS ${request.ioas}`];
  if (ioas.allowed.size > 0) parts.push(`allowed are ${rangesText(ioas.allowed.values())}`);
  if (ioas.blocked.size > 0) parts.push(`reserved are ${rangesText(ioas.blocked.values())}`);
  return parts.join('; ');
}

function rangesText(ranges: Iterable<Interval>): string {
  return listText(
    [...ranges].map(({ start, last }) => rangeText(start, last)),
    3,
  );
}
