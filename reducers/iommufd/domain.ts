import { fromBig, modPow2, type U64 } from '../../core/u64.js';
import type { Tx } from '../tx.js';
import { Asked } from './asked.js';
import { ioasByKey, patchIoas, typedObject } from './context.js';
import { NOT_HELD, pinArea, refusePages, unpinArea } from './held-pages.js';
import { DIRTY_TRACKING, driverOf, NEST_PARENT, tableOf } from './hardware.js';
import { areasInDoubt, checkAlignment, PAGE, replaceArea } from './iopt.js';
import { reserveOutside, tableKey, toldAperture, toldPageSizes, unreserveOutside } from './limits.js';
import { byteAt, refuseEntry } from './pages.js';
import { Checks, notKnown, type Refusal, type Rule, refusal } from './rules.js';
import type { BoundDevice, DomainTraits, Ioas } from './state.js';

/**
 * Domains of an IOAS: what a page table adds to its IOVA space while it is part of it.
 *
 * A domain narrows the space to its aperture (limits.ts), raises the alignment to its smallest page and, as the first
 * one, pins all areas.
 */
export const DOMAIN_RULES: readonly Rule[] = [
  { id: 'domain.page-size', errno: 'EINVAL', text: 'the smallest page of the domain is larger than the CPU page' },
  { id: 'domain.read-only', errno: 'EINVAL', text: 'the nest parent of VT-d takes no memory that is only read' },
];

const PAGE_SIZE_TOO_LARGE = refusal('EINVAL', 'domain.page-size');
const READ_ONLY = refusal('EINVAL', 'domain.read-only');
const READ_ONLY_IN_DOUBT = notKnown(
  'whether this nest parent takes read-only memory: the kind of IOMMU was not told',
  'EINVAL',
);

/** Smallest page of a domain in bytes; a real IOMMU that has not told has the CPU's page. */
export function smallestPage(traits: DomainTraits): number {
  if (traits.pgsizes === 0) return PAGE;
  let size = 1;
  while (size < PAGE * 2 && modPow2(traits.pgsizes, size * 2) === 0) size *= 2;
  return size;
}

/** What the domain of a real device is known to be, by the flags of HWPT_ALLOC that it is made with. */
export function realTraits(tx: Tx, device: BoundDevice, flags: number): DomainTraits {
  const table = tableOf(tx, device, flags);
  const key = tableKey({ owner: device.key, table });
  return Object.freeze({
    owner: device.key,
    pgsizes: toldPageSizes(tx, key),
    aperture: toldAperture(tx, key) ?? null,
    dirtyTracking: (flags & DIRTY_TRACKING) !== 0,
    table,
    takesReadOnly: (flags & NEST_PARENT) === 0 ? true : takesReadOnlyAsParent(tx, device),
  });
}

/** VT-d lets no parent of nested domains map memory that is only read, for an erratum's sake. */
function takesReadOnlyAsParent(tx: Tx, device: BoundDevice): boolean | null {
  const driver = driverOf(tx, device);
  return driver === 'unknown' ? null : driver !== 'intel';
}

/** Why a domain does not take an area with these rights. */
function refuseRights(traits: DomainTraits, prot: number): Refusal | undefined {
  const refused = refuseEntry(prot);
  if (refused !== undefined || (prot & 2) !== 0 || traits.takesReadOnly === true) return refused;
  return traits.takesReadOnly === false ? READ_ONLY : READ_ONLY_IN_DOUBT;
}

/** Why no area with these rights can be mapped in an IOAS that has domains. */
export function refuseAreaRights(tx: Tx, ioas: Ioas, prot: number): Refusal | undefined {
  if ((prot & 2) !== 0) return undefined;
  for (const id of ioas.hwpts) {
    const hwpt = typedObject(tx, ioas.context, id, 'hwpt-paging');
    const refused = hwpt === undefined ? undefined : refuseRights(hwpt.domain, prot);
    if (refused !== undefined) return refused;
  }
  return undefined;
}

/**
 * Adds a domain to an IOAS (`iopt_table_add_domain`); the caller keeps the list of HWPTs. A refusal that says `unknown`
 * leaves it added.
 */
export function addDomain(
  tx: Tx,
  ioasKey: number,
  hwptId: number,
  traits: DomainTraits,
  seq: number,
): Refusal | undefined {
  const ioas = ioasByKey(tx, ioasKey);
  const alignment = Math.max(smallestPage(traits), ioas.alignment);
  if (alignment > PAGE) return PAGE_SIZE_TOO_LARGE;
  if (alignment !== ioas.alignment) {
    const refused = checkAlignment(ioas, alignment);
    if (refused !== undefined) return refused;
  }
  const checks = new Checks();
  const reserved = reserveOutside(tx, ioasKey, hwptId, traits);
  if (reserved === undefined) checks.add(areasInDoubt(ioasByKey(tx, ioasKey)));
  const refused = checks.add(reserved ?? fill(tx, ioasByKey(tx, ioasKey), traits, seq));
  if (refused !== undefined) {
    unreserveOutside(tx, ioasKey, hwptId);
    return refused;
  }
  patchIoas(tx, ioasKey, { alignment });
  return checks.doubt;
}

/** The first domain makes the pages of all areas pinned; later ones take the page frames from it. */
function fill(tx: Tx, ioas: Ioas, traits: DomainTraits, seq: number): Refusal | undefined {
  if (ioas.hwpts.length > 0) return traits.takesReadOnly === true ? undefined : refuseAll(ioas, traits);
  const checks = new Checks();
  const asked = new Asked(tx);
  for (const area of ioas.areas.values()) {
    const last = byteAt(area, area.last);
    const refused =
      checks.add(refusePages(tx, area.pages, area, area.startByte, last)) ??
      checks.add(refuseRights(traits, area.prot)) ??
      checks.add(asked.add(area.pages, area, area.startByte, last));
    if (refused !== undefined) return refused;
  }
  for (const area of [...ioas.areas.values()]) replaceArea(tx, ioas.id, pinArea(tx, ioas.id, area, seq));
  return checks.doubt;
}

/** Why a further domain does not take the areas, whose pages are pinned already. */
function refuseAll(ioas: Ioas, traits: DomainTraits): Refusal | undefined {
  for (const area of ioas.areas.values()) {
    const refused = refuseRights(traits, area.prot);
    if (refused !== undefined) return refused;
  }
  return undefined;
}

/** The last domain is gone: no area is pinned by one any more. */
function unpinAll(tx: Tx, ioas: Ioas): void {
  for (const area of [...ioas.areas.values()]) {
    unpinArea(tx, area);
    replaceArea(tx, ioas.id, { ...area, pin: 0, pinnedSince: NOT_HELD });
  }
}

/** Takes a domain out of an IOAS (`iopt_table_remove_domain`), after it left the list of HWPTs. */
export function removeDomain(tx: Tx, ioasKey: number, hwptId: number): void {
  unreserveOutside(tx, ioasKey, hwptId);
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
