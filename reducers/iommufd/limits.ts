import { Bytes, putU64 } from '../../core/bytes.js';
import { firstOverlap, type Interval } from '../../core/interval.js';
import { add, sub, type U64, U64_MAX } from '../../core/u64.js';
import { MSI_WINDOW } from '../devices/pc-iommu.js';
import type { Tx } from '../tx.js';
import { iommuKey } from '../vfio/facts.js';
import { ioasByKey, patchIoas, patchObject, typedObject } from './context.js';
import { reserveIova, unreserve } from './iopt.js';
import type { Refusal } from './rules.js';
import type { DomainTraits, Ioas } from './state.js';

/**
 * What the hardware takes from the IOVA space of an IOAS.
 *
 * Two owners reserve ranges: a domain all that lies outside its aperture, and a device, attached as a whole, what its
 * bus or IOMMU needs (the window for MSI, regions of the firmware). An attach of a PASID reserves nothing for the
 * device. Of the kernel's mock IOMMU all of this is known; of a real one only what IOVA_RANGES or VFIO's GET_INFO
 * told. An answer holds what is left of all owners together: of those that had not told, the domains take its two
 * ends, and each device takes the holes between, as if they all stood behind one IOMMU. Each is then a fact of the
 * device.
 *
 * Until then an owner is listed in `Ioas.unknownHardware`, and what all x86-64 machines have in common stands for it:
 * the window of the local APICs is reserved by each device, and 39 bits are in every aperture.
 */

const domainOwner = (hwptId: number | ''): string => `hwpt:${hwptId}`;
const deviceOwner = (key: string): string => `device:${key}`;
const apertureFact = (key: string): string => `iommu/${key}/aperture`;
const reservedFact = (key: string): string => `iommu/${key}/reserved`;

// ---- what was told ------------------------------------------------------------------------------------------

/** Key of the facts about one kind of page table of a device's IOMMU. */
export function tableKey(domain: { readonly owner: string; readonly table: string }): string {
  return domain.table === '' ? domain.owner : `${domain.owner} ${domain.table}`;
}

/** The aperture of domains that are made for a device; undefined when never told. */
export function toldAperture(tx: Tx, key: string): Interval | undefined {
  const told = rangesFact(tx, apertureFact(key)) ?? toldToContainer(tx, key);
  return told === undefined ? undefined : spanOf(told);
}

function toldReserved(tx: Tx, key: string): readonly Interval[] | undefined {
  const told = rangesFact(tx, reservedFact(key));
  if (told !== undefined) return told;
  const left = toldToContainer(tx, key);
  return left === undefined ? undefined : holesOf(left);
}

/** Page sizes of domains that are made for a device, 0 when never told. */
export function toldPageSizes(tx: Tx, key: string): U64 {
  const group = tx.world.devices.get(key)?.group ?? 0;
  const names = [`iommu/${key}/pgsizes`, iommuKey([group], 'pgsizes')];
  for (const name of names) {
    const told = tx.world.facts.get(name)?.value;
    if (told instanceof Bytes) return told.u64(0);
  }
  return 0;
}

/** What GET_INFO told of a container that had the device's group alone. */
function toldToContainer(tx: Tx, key: string): readonly Interval[] | undefined {
  const group = tx.world.devices.get(key)?.group ?? 0;
  return group === 0 ? undefined : rangesFact(tx, iommuKey([group], 'iova_ranges'));
}

function rangesFact(tx: Tx, name: string): readonly Interval[] | undefined {
  const value = tx.world.facts.get(name)?.value;
  return value instanceof Bytes ? rangesFrom(value) : undefined;
}

/** Reads an array of `{start, last}` pairs. */
export function rangesFrom(bytes: Bytes): Interval[] {
  const ranges: Interval[] = [];
  for (let at = 0; at + 16 <= bytes.length; at += 16) ranges.push({ start: bytes.u64(at), last: bytes.u64(at + 8) });
  return ranges;
}

function bytesOf(ranges: readonly Interval[]): Bytes {
  const bytes = new Uint8Array(ranges.length * 16);
  ranges.forEach((range, index) => {
    putU64(bytes, index * 16, range.start);
    putU64(bytes, index * 16 + 8, range.last);
  });
  return new Bytes(bytes);
}

function spanOf(ranges: readonly Interval[]): Interval {
  return Object.freeze({ start: ranges[0]?.start ?? 0, last: ranges[ranges.length - 1]?.last ?? U64_MAX });
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

// ---- owners -------------------------------------------------------------------------------------------------

/** Reserves what lies outside a domain's aperture. */
export function reserveOutside(tx: Tx, ioasKey: number, hwptId: number, traits: DomainTraits): Refusal | undefined {
  const owner = domainOwner(hwptId);
  if (traits.aperture === null) {
    addPending(tx, ioasKey, owner);
    return undefined;
  }
  const { start, last } = traits.aperture;
  let refused: Refusal | undefined;
  if (start !== 0) refused = reserveIova(tx, ioasKey, 0, sub(start, 1), owner);
  if (refused === undefined && last !== U64_MAX) refused = reserveIova(tx, ioasKey, add(last, 1), U64_MAX, owner);
  return refused;
}

export function unreserveOutside(tx: Tx, ioasKey: number, hwptId: number): void {
  unreserve(tx, ioasKey, domainOwner(hwptId));
  dropPending(tx, ioasKey, domainOwner(hwptId));
}

/** Reserves what a device's bus or IOMMU takes (`iopt_table_enforce_dev_resv_regions`). Mock devices take nothing. */
export function reserveForDevice(tx: Tx, ioasKey: number, deviceKey: string, mock: boolean): Refusal | undefined {
  if (mock) return undefined;
  const owner = deviceOwner(deviceKey);
  const told = toldReserved(tx, deviceKey);
  for (const range of told ?? [MSI_WINDOW]) {
    const refused = reserveIova(tx, ioasKey, range.start, range.last, owner);
    if (refused !== undefined) {
      unreserve(tx, ioasKey, owner);
      return refused;
    }
  }
  if (told === undefined) addPending(tx, ioasKey, owner);
  return undefined;
}

export function unreserveForDevice(tx: Tx, ioasKey: number, deviceKey: string): void {
  unreserve(tx, ioasKey, deviceOwner(deviceKey));
  dropPending(tx, ioasKey, deviceOwner(deviceKey));
}

function addPending(tx: Tx, ioasKey: number, owner: string): void {
  const { unknownHardware } = ioasByKey(tx, ioasKey);
  patchIoas(tx, ioasKey, { unknownHardware: Object.freeze([...unknownHardware, owner]) });
}

function dropPending(tx: Tx, ioasKey: number, owner: string): void {
  const { unknownHardware } = ioasByKey(tx, ioasKey);
  if (unknownHardware.includes(owner))
    patchIoas(tx, ioasKey, { unknownHardware: Object.freeze(unknownHardware.filter((one) => one !== owner)) });
}

/** Names who has not told what it takes, the same for the same hardware. */
export function pendingText(tx: Tx, ioas: Ioas): string {
  return namesOf(tx, ioas, ioas.unknownHardware);
}

/** Key of the fact how many ranges the hardware of an IOAS leaves, which an answer tells that has no room for them. */
export function rangeCountKey(tx: Tx, ioas: Ioas): string {
  const owners = [...ioas.unknownHardware, ...[...ioas.reserved.values()].map(({ owner }) => owner)];
  return `iommu/${namesOf(tx, ioas, owners)}/range_count`;
}

/** `0000:00:10.0` for a device with its domain, `aperture of 0000:00:10.0` for a domain alone. */
function namesOf(tx: Tx, ioas: Ioas, owners: readonly string[]): string {
  const devices = new Set(devicesOf(owners));
  const domains = new Set(domainsOf(tx, ioas, owners).map(({ owner }) => owner));
  const names = [...devices, ...[...domains].filter((key) => !devices.has(key)).map((key) => `aperture of ${key}`)];
  return names.sort().join(' and ');
}

function devicesOf(owners: readonly string[]): string[] {
  const prefix = deviceOwner('');
  return owners.filter((one) => one.startsWith(prefix)).map((one) => one.slice(prefix.length));
}

function domainsOf(tx: Tx, ioas: Ioas, owners: readonly string[]): { hwptId: number; owner: string }[] {
  const prefix = domainOwner('');
  const found: { hwptId: number; owner: string }[] = [];
  for (const one of owners) {
    if (!one.startsWith(prefix)) continue;
    const hwptId = Number(one.slice(prefix.length));
    const hwpt = typedObject(tx, ioas.context, hwptId, 'hwpt-paging');
    if (hwpt !== undefined) found.push({ hwptId, owner: tableKey(hwpt.domain) });
  }
  return found;
}

// ---- learning -----------------------------------------------------------------------------------------------

/**
 * Takes over what a recorded answer tells of an IOAS whose limits were not known; true when it was learned. What it
 * leaves free must not be reserved already, and what it takes must have an owner.
 */
export function learnRanges(tx: Tx, ioasKey: number, ranges: readonly Interval[], seq: number): boolean {
  const pending = ioasByKey(tx, ioasKey);
  if (pending.unknownHardware.length === 0 || ranges.length === 0) return false;
  const devices = devicesOf(pending.unknownHardware);
  const domains = domainsOf(tx, pending, pending.unknownHardware);
  // What stood for the answer gives way to it.
  for (const key of devices) unreserve(tx, ioasKey, deviceOwner(key));
  const ioas = ioasByKey(tx, ioasKey);
  const whole = knownSpan(ioas);
  const span = spanOf(ranges);
  const holes = holesOf(ranges);
  const fits =
    ranges.every((range) => firstOverlap(ioas.blocked, range.start, range.last) === undefined) &&
    (devices.length > 0 || holes.every((hole) => isBlocked(ioas, hole)));
  if (!fits) {
    for (const key of devices) reserveIova(tx, ioasKey, MSI_WINDOW.start, MSI_WINDOW.last, deviceOwner(key));
    return false;
  }
  const ends = domains.length > 0 ? [] : endsOf(whole, span);
  const keep = (name: string, value: readonly Interval[]): void => {
    tx.world.facts.set(name, Object.freeze({ value: bytesOf(value), since: seq }));
  };
  for (const { owner } of domains) keep(apertureFact(owner), [span]);
  for (const key of devices) keep(reservedFact(key), [...holes, ...ends]);
  for (const id of [...tx.world.ioases.keys()]) settle(tx, id);
  return true;
}

/** The free space between what is reserved at both ends. */
function knownSpan(ioas: Ioas): Interval {
  const first = ioas.blocked.get(0);
  const lastKey = ioas.blocked.lastKey();
  const last = lastKey === undefined ? undefined : ioas.blocked.get(lastKey);
  return {
    start: first === undefined || first.last === U64_MAX ? 0 : add(first.last, 1),
    last: last === undefined || last.last !== U64_MAX || last.start === 0 ? U64_MAX : sub(last.start, 1),
  };
}

function endsOf(whole: Interval, span: Interval): Interval[] {
  const ends: Interval[] = [];
  if (span.start > whole.start) ends.push({ start: whole.start, last: sub(span.start, 1) });
  if (span.last < whole.last) ends.push({ start: add(span.last, 1), last: whole.last });
  return ends;
}

function isBlocked(ioas: Ioas, hole: Interval): boolean {
  const found = firstOverlap(ioas.blocked, hole.start, hole.last);
  return found !== undefined && found.start <= hole.start && found.last >= hole.last;
}

/** Gives the owners of an IOAS that were waiting for a fact what it says. */
function settle(tx: Tx, ioasKey: number): void {
  const ioas = ioasByKey(tx, ioasKey);
  if (ioas.unknownHardware.length === 0) return;
  for (const { hwptId, owner } of domainsOf(tx, ioas, ioas.unknownHardware)) {
    const aperture = toldAperture(tx, owner);
    const hwpt = typedObject(tx, ioas.context, hwptId, 'hwpt-paging');
    if (aperture === undefined || hwpt === undefined) continue;
    const domain = Object.freeze({ ...hwpt.domain, aperture });
    patchObject(tx, ioas.context, hwpt, { domain });
    dropPending(tx, ioasKey, domainOwner(hwptId));
    reserveOutside(tx, ioasKey, hwptId, domain);
  }
  for (const key of devicesOf(ioas.unknownHardware)) {
    if (toldReserved(tx, key) === undefined) continue;
    unreserveForDevice(tx, ioasKey, key);
    reserveForDevice(tx, ioasKey, key, false);
  }
}
