import { fromBig, modPow2, type U64 } from '../../core/u64.js';
import type { Tx } from '../tx.js';
import { Asked } from './asked.js';
import { ioasByKey, patchIoas, typedObject } from './context.js';
import { NOT_HELD, pinArea, refusePages, unpinArea } from './held-pages.js';
import { areasInDoubt, checkAlignment, PAGE, replaceArea } from './iopt.js';
import { reserveOutside, toldAperture, toldPageSizes, unreserveOutside } from './limits.js';
import { byteAt, refuseEntry } from './pages.js';
import { type Refusal, type Rule, refusal } from './rules.js';
import type { DomainTraits, Ioas } from './state.js';

/**
 * Domains of an IOAS: what a page table adds to its IOVA space while it is part of it.
 *
 * A domain narrows the space to its aperture (limits.ts), raises the alignment to its smallest page and, as the first
 * one, pins all areas.
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

/** What a real device's domain is known to be. */
export function realTraits(tx: Tx, deviceKey: string, dirtyTracking: boolean): DomainTraits {
  return Object.freeze({
    owner: deviceKey,
    pgsizes: toldPageSizes(tx, deviceKey),
    aperture: toldAperture(tx, deviceKey) ?? null,
    dirtyTracking,
  });
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
  const refused = reserveOutside(tx, ioasKey, hwptId, traits) ?? fillFirst(tx, ioasByKey(tx, ioasKey), seq);
  if (refused !== undefined && refused.unknown === '') {
    unreserveOutside(tx, ioasKey, hwptId);
    return refused;
  }
  patchIoas(tx, ioasKey, { alignment });
  return refused ?? areasInDoubt(ioasByKey(tx, ioasKey));
}

/** The first domain makes the pages of all areas pinned; later ones take the page frames from it. */
function fillFirst(tx: Tx, ioas: Ioas, seq: number): Refusal | undefined {
  if (ioas.hwpts.length > 0) return undefined;
  let doubt: Refusal | undefined;
  const asked = new Asked(tx);
  for (const area of ioas.areas.values()) {
    const last = byteAt(area, area.last);
    const refused =
      refusePages(tx, area.pages, area, area.startByte, last) ??
      refuseEntry(area.prot) ??
      asked.add(area.pages, area, area.startByte, last);
    if (refused !== undefined && refused.unknown === '') return refused;
    doubt ??= refused;
  }
  for (const area of [...ioas.areas.values()]) replaceArea(tx, ioas.id, pinArea(tx, ioas.id, area, seq));
  return doubt;
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
