import { Bytes, putU64 } from '../../core/bytes.js';
import { firstOverlap, type Interval } from '../../core/interval.js';
import { add, fromBig, modPow2, sub, type U64, U64_MAX } from '../../core/u64.js';
import type { Tx } from '../tx.js';
import { ioasByKey, patchIoas, patchObject, typedObject } from './context.js';
import { checkAlignment, hardwareUnknown, PAGE, replaceArea, reserveIova, unreserve } from './iopt.js';
import { byteAt, forgetPins, pinSlice, refuseEntry, rememberPins } from './pages.js';
import { type Refusal, type Rule, refusal } from './rules.js';
import type { DomainTraits, Ioas } from './state.js';

/**
 * Domains of an IOAS: what a page table adds to its IOVA space while it is part of it.
 *
 * A domain narrows the space to its aperture, raises the alignment to its smallest page and, as the first one, pins
 * all areas. Of the kernel's mock IOMMU all of this is known. Of a real one only what IOVA_RANGES or VFIO's
 * GET_INFO told: until then the IOAS remembers that its limits are unknown, and calls that
 * depend on them answer `unknown`; what was told once is kept as a fact of the device.
 */
export const DOMAIN_RULES: readonly Rule[] = [
  { id: 'domain.page-size', errno: 'EINVAL', text: 'the smallest page of the domain is larger than the CPU page' },
];

const PAGE_SIZE_TOO_LARGE = refusal('EINVAL', 'domain.page-size');

/** Smallest page of a domain in bytes; a real IOMMU that has not told has the CPU's page. */
export function smallestPage(traits: DomainTraits): number {
  if (traits.pgsizes === 0) return PAGE;
  let size = 1;
  while (size < PAGE * 2 && modPow2(traits.pgsizes, size * 2) === 0) size *= 2;
  return size;
}

const IOAS_FACT = 'ranges';

/** Usable ranges that a device's IOMMU leaves, as told before; undefined when never told. */
export function toldRanges(tx: Tx, deviceKey: string): Interval[] | undefined {
  const fact = tx.world.facts.get(`iommu/${deviceKey}/${IOAS_FACT}`);
  if (fact === undefined || !(fact.value instanceof Bytes)) return undefined;
  const ranges: Interval[] = [];
  for (let at = 0; at + 16 <= fact.value.length; at += 16)
    ranges.push({ start: fact.value.u64(at), last: fact.value.u64(at + 8) });
  return ranges;
}

/** What a real device's domain is known to be. */
export function realTraits(tx: Tx, deviceKey: string, dirtyTracking: boolean): DomainTraits {
  const ranges = toldRanges(tx, deviceKey);
  const pgsizes = tx.world.facts.get(`iommu/${deviceKey}/pgsizes`)?.value;
  const known = pgsizes instanceof Bytes ? pgsizes.u64(0) : 0;
  return Object.freeze({
    owner: deviceKey,
    pgsizes: known,
    aperture: ranges === undefined ? null : apertureOf(ranges),
    dirtyTracking,
  });
}

function apertureOf(ranges: readonly Interval[]): Interval {
  const first = ranges[0];
  const last = ranges[ranges.length - 1];
  return Object.freeze({ start: first?.start ?? 0, last: last?.last ?? U64_MAX });
}

function holesOf(ranges: readonly Interval[]): Interval[] {
  const holes: Interval[] = [];
  for (let i = 1; i < ranges.length; i++) {
    const before = ranges[i - 1] as Interval;
    const after = ranges[i] as Interval;
    holes.push({ start: add(before.last, 1), last: sub(after.start, 1) });
  }
  return holes;
}

/** Adds a domain to an IOAS (`iopt_table_add_domain`); the caller keeps the list of HWPTs. */
export function addDomain(tx: Tx, ioasKey: number, hwptId: number, traits: DomainTraits): Refusal | undefined {
  const ioas = ioasByKey(tx, ioasKey);
  const alignment = Math.max(smallestPage(traits), ioas.alignment);
  if (alignment > PAGE) return PAGE_SIZE_TOO_LARGE;
  if (alignment !== ioas.alignment) {
    const refused = checkAlignment(ioas, alignment);
    if (refused !== undefined) return refused;
  }
  const refused = reserveAperture(tx, ioasKey, hwptId, traits) ?? fillFirst(tx, ioasByKey(tx, ioasKey));
  if (refused !== undefined) {
    unreserve(tx, ioasKey, `hwpt:${hwptId}`);
    return refused;
  }
  patchIoas(tx, ioasKey, { alignment });
  return undefined;
}

function reserveAperture(tx: Tx, ioasKey: number, hwptId: number, traits: DomainTraits): Refusal | undefined {
  if (traits.aperture === null) return addUnknownHardware(tx, ioasKey, traits.owner);
  const owner = `hwpt:${hwptId}`;
  const { start, last } = traits.aperture;
  let refused: Refusal | undefined;
  if (start !== 0) refused = reserveIova(tx, ioasKey, 0, sub(start, 1), owner);
  if (refused === undefined && last !== U64_MAX) refused = reserveIova(tx, ioasKey, add(last, 1), U64_MAX, owner);
  return refused;
}

/** Limits that nobody told: fine for an empty IOAS, else nobody knows whether its areas fit. */
function addUnknownHardware(tx: Tx, ioasKey: number, key: string): Refusal | undefined {
  const ioas = ioasByKey(tx, ioasKey);
  patchIoas(tx, ioasKey, { unknownHardware: Object.freeze([...ioas.unknownHardware, key]) });
  return ioas.areas.size > 0 || ioas.allowed.size > 0 ? hardwareUnknown(ioasByKey(tx, ioasKey)) : undefined;
}

function dropUnknownHardware(tx: Tx, ioasKey: number, key: string): void {
  const list = ioasByKey(tx, ioasKey).unknownHardware;
  const at = list.indexOf(key);
  if (at >= 0) patchIoas(tx, ioasKey, { unknownHardware: Object.freeze(list.filter((_, index) => index !== at)) });
}

/** The first domain makes the pages of all areas pinned. */
function fillFirst(tx: Tx, ioas: Ioas): Refusal | undefined {
  if (ioas.hwpts.length > 0) return undefined;
  for (const area of ioas.areas.values()) {
    const refused = pinSlice(tx, area.pages, area.startByte, byteAt(area, area.last)) ?? refuseEntry(area.prot);
    if (refused !== undefined) return refused;
  }
  pinAll(tx, ioas);
  return undefined;
}

function pinAll(tx: Tx, ioas: Ioas): void {
  for (const area of [...ioas.areas.values()]) {
    const pin = rememberPins(tx, ioas.id, area);
    if (pin !== area.pin) replaceArea(tx, ioas.id, { ...area, pin });
  }
}

/** The last domain is gone: no area is pinned by one any more. */
function unpinAll(tx: Tx, ioas: Ioas): void {
  for (const area of [...ioas.areas.values()]) {
    if (area.pin === 0) continue;
    forgetPins(tx, area);
    replaceArea(tx, ioas.id, { ...area, pin: 0 });
  }
}

/** Takes a domain out of an IOAS (`iopt_table_remove_domain`), after it left the list of HWPTs. */
export function removeDomain(tx: Tx, ioasKey: number, hwptId: number, traits: DomainTraits): void {
  unreserve(tx, ioasKey, `hwpt:${hwptId}`);
  if (traits.aperture === null) dropUnknownHardware(tx, ioasKey, traits.owner);
  recalculateAlignment(tx, ioasKey);
  const ioas = ioasByKey(tx, ioasKey);
  if (ioas.hwpts.length === 0) unpinAll(tx, ioas);
}

/** Sets the alignment to what domains, accesses and page mode ask for (`iopt_calculate_iova_alignment`). */
export function recalculateAlignment(tx: Tx, ioasKey: number): Refusal | undefined {
  const ioas = ioasByKey(tx, ioasKey);
  let alignment = ioas.noLargePages ? PAGE : 1;
  for (const id of ioas.hwpts) {
    const hwpt = typedObject(tx, ioas.context, id, 'hwpt-paging');
    if (hwpt !== undefined) alignment = Math.max(alignment, smallestPage(hwpt.domain));
  }
  for (const id of ioas.accesses) {
    const access = typedObject(tx, ioas.context, id, 'access');
    if (access !== undefined) alignment = Math.max(alignment, access.alignment);
  }
  if (alignment > ioas.alignment) {
    const refused = checkAlignment(ioas, alignment);
    if (refused !== undefined) return refused;
  }
  if (alignment !== ioas.alignment) patchIoas(tx, ioasKey, { alignment });
  return undefined;
}

// ---- reserved regions of devices ----------------------------------------------------------------------------

/** Reserves what a device's bus or IOMMU takes (`iopt_table_enforce_dev_resv_regions`). Mock devices take nothing. */
export function reserveForDevice(tx: Tx, ioasKey: number, deviceKey: string, mock: boolean): Refusal | undefined {
  if (mock) return undefined;
  const ranges = toldRanges(tx, deviceKey);
  if (ranges === undefined) return addUnknownHardware(tx, ioasKey, deviceKey);
  for (const hole of holesOf(ranges)) {
    const refused = reserveIova(tx, ioasKey, hole.start, hole.last, `device:${deviceKey}`);
    if (refused !== undefined) {
      unreserve(tx, ioasKey, `device:${deviceKey}`);
      return refused;
    }
  }
  return undefined;
}

export function unreserveForDevice(tx: Tx, ioasKey: number, deviceKey: string): void {
  unreserve(tx, ioasKey, `device:${deviceKey}`);
  dropUnknownHardware(tx, ioasKey, deviceKey);
}

/**
 * Takes over what a recorded answer tells of an IOAS whose limits were unknown; true when it was learned. An
 * answer holds what all devices and domains leave together, so it is kept for each of them that had not told: they
 * stand behind IOMMUs of one machine. It must not contradict what is reserved already.
 */
export function learnRanges(tx: Tx, ioasKey: number, ranges: readonly Interval[], seq: number): boolean {
  const ioas = ioasByKey(tx, ioasKey);
  const pending = ioas.unknownHardware;
  if (pending.length === 0 || ranges.length === 0) return false;
  if (ranges.some((range) => firstOverlap(ioas.blocked, range.start, range.last) !== undefined)) return false;
  const bytes = new Uint8Array(ranges.length * 16);
  ranges.forEach((range, index) => {
    putU64(bytes, index * 16, range.start);
    putU64(bytes, index * 16 + 8, range.last);
  });
  const fact = Object.freeze({ value: new Bytes(bytes), since: seq });
  for (const key of new Set(pending)) tx.world.facts.set(`iommu/${key}/${IOAS_FACT}`, fact);
  patchIoas(tx, ioasKey, { unknownHardware: Object.freeze([]) });
  const devices = [...pending];
  for (const id of ioas.hwpts) {
    const hwpt = typedObject(tx, ioas.context, id, 'hwpt-paging');
    if (hwpt === undefined || hwpt.domain.aperture !== null) continue;
    const domain = Object.freeze({ ...hwpt.domain, aperture: apertureOf(ranges) });
    patchObject(tx, ioas.context, hwpt, { domain });
    reserveAperture(tx, ioasKey, id, domain);
    devices.splice(devices.indexOf(domain.owner), 1);
  }
  for (const key of devices) reserveForDevice(tx, ioasKey, key, false);
  return true;
}

/** Reads an array of `{start, last}` pairs. */
export function rangesFrom(bytes: Bytes): Interval[] {
  const ranges: Interval[] = [];
  for (let at = 0; at + 16 <= bytes.length; at += 16) ranges.push({ start: bytes.u64(at), last: bytes.u64(at + 8) });
  return ranges;
}

/** The page sizes of all domains of an IOAS, as VFIO's GET_INFO tells them; undefined when one has not told. */
export function commonPageSizes(tx: Tx, ioas: Ioas): U64 | undefined {
  let sizes = (1n << 64n) - 1n;
  for (const id of ioas.hwpts) {
    const hwpt = typedObject(tx, ioas.context, id, 'hwpt-paging');
    if (hwpt === undefined) continue;
    if (hwpt.domain.pgsizes === 0) return undefined;
    sizes &= BigInt(hwpt.domain.pgsizes);
  }
  if ((sizes & 0xfffn) !== 0n) sizes = (sizes & ~0xfffn) | 0x1000n;
  const alignment = BigInt(ioas.alignment);
  const value = sizes > alignment ? sizes : alignment;
  return fromBig(value);
}
