import { firstOverlap, type Interval } from '../../core/interval.js';
import { OrderedMap } from '../../core/ordered-map.js';
import {
  add,
  addOverflows,
  alignUp,
  hex,
  lastOf,
  low32,
  max,
  min,
  modPow2,
  or,
  sub,
  type U64,
  U64_MAX,
} from '../../core/u64.js';
import { SURELY_TRANSLATED } from '../devices/pc-iommu.js';
import type { Tx } from '../tx.js';
import { ioasByKey, patchIoas } from './context.js';
import { gapsAround, giveGap, lowestGap, takeGap } from './gaps.js';
import { Checks, notKnown, type Refusal, type Rule, refusal } from './rules.js';
import type { Area, Ioas, Reserved } from './state.js';
import { unknownSinceText } from '../answer.js';

/**
 * The IOVA space of an IOAS (drivers/iommu/iommufd/io_pagetable.c): three sets of ranges.
 *
 * - `areas` never overlap each other nor a reserved range. One area is one MAP (or a slice of a COPY).
 * - `reserved` belongs to what imposes it: a domain's aperture, a device's MSI window, a self-test. Ranges of
 *   different owners may overlap; `blocked` is their union, which is all that a lookup needs.
 * - `allowed` is what user space claims: it can never become reserved, and the kernel chooses IOVAs in it only.
 *
 * `alignment` is the greatest of the smallest page size of every domain and the alignment of every access.
 * Everything here costs O(log n) and the ranges touched, except what walks all areas in the kernel as well (a domain
 * added, an alignment raised).
 */
export const PAGE = 4096;
const HUGE_PAGE = 0x20_0000;

export const IOPT_RULES: readonly Rule[] = [
  { id: 'iova.length', errno: 'EINVAL', text: 'the length is 0 or no multiple of the IOAS alignment' },
  {
    id: 'iova.choose-overflow',
    errno: 'EOVERFLOW',
    text: 'a length of half the address space or more has no free place',
  },
  { id: 'iova.choose-alignment', errno: 'EINVAL', text: 'the address is less aligned than the IOAS asks for' },
  { id: 'iova.no-space', errno: 'ENOSPC', text: 'no free range of that length and alignment' },
  { id: 'iova.aligned', errno: 'EINVAL', text: 'the fixed IOVA is no multiple of the IOAS alignment' },
  { id: 'iova.overflow', errno: 'EOVERFLOW', text: 'IOVA and length pass 2^64' },
  { id: 'iova.reserved', errno: 'EINVAL', text: 'a reserved range is touched' },
  { id: 'iova.exists', errno: 'EEXIST', text: 'an area is there already' },
  {
    id: 'reserve.in-use',
    errno: 'EADDRINUSE',
    text: 'an area or an allowed range is where a range would become reserved',
  },
  { id: 'alignment.in-use', errno: 'EADDRINUSE', text: 'an area does not keep to an alignment that would be imposed' },
];

const CHOOSE_OVERFLOW = refusal('EOVERFLOW', 'iova.choose-overflow');
const CHOOSE_ALIGNMENT = refusal('EINVAL', 'iova.choose-alignment');
const NO_SPACE = refusal('ENOSPC', 'iova.no-space');
const UNALIGNED = refusal('EINVAL', 'iova.aligned');
const OVERFLOW = refusal('EOVERFLOW', 'iova.overflow');
const RESERVED = refusal('EINVAL', 'iova.reserved');
const EXISTS = refusal('EEXIST', 'iova.exists');
const RESERVE_IN_USE = refusal('EADDRINUSE', 'reserve.in-use');
const ALIGNMENT_IN_USE = refusal('EADDRINUSE', 'alignment.in-use');

export function isRefusal(value: Refusal | U64 | undefined): value is Refusal {
  return typeof value === 'object';
}

/** Whether a fixed range may be mapped (`iopt_check_iova`); undefined when it may. `length` is not 0. */
export function checkIova(ioas: Ioas, iova: U64, length: U64): Refusal | undefined {
  if (modPow2(iova, ioas.alignment) !== 0) return UNALIGNED;
  const last = lastOf(iova, length);
  const checks = new Checks();
  if (last === undefined) {
    // The alignment that devices need comes first, and not all devices may be known.
    if (ioas.unknownSince >= 0 && modPow2(iova, PAGE) !== 0) checks.add(mappingsUnknown(ioas, UNALIGNED.errno));
    return checks.add(OVERFLOW);
  }
  if (firstOverlap(ioas.blocked, iova, last) !== undefined) return RESERVED;
  checks.add(hardwareUnknown(ioas, last, RESERVED.errno));
  if (firstOverlap(ioas.areas, iova, last) !== undefined) return checks.add(EXISTS);
  if (ioas.unknownSince >= 0) checks.add(mappingsUnknown(ioas, EXISTS.errno));
  return checks.doubt;
}

function mappingsUnknown(ioas: Ioas, mayBe = ''): Refusal {
  return notKnown(unknownSinceText('mappings', ioas.unknownSince), mayBe);
}

/** Says that hardware limits this IOAS in a way that no event has told yet, so that nobody knows of this address. */
export function hardwareUnknown(ioas: Ioas, last: U64, mayBe: string): Refusal | undefined {
  if (ioas.unknownHardware.length === 0 || last <= SURELY_TRANSLATED) return undefined;
  return notKnown(
    `IOVA ${hex(last)} needs more than 39 bits, and no IOVA_RANGES shows what ${ioas.unknownHardware[0]} reserves`,
    mayBe,
  );
}

/** {@link hardwareUnknown} for all that is mapped or allowed, which new hardware must not reserve. */
export function areasInDoubt(ioas: Ioas): Refusal | undefined {
  if (ioas.unknownSince >= 0) return mappingsUnknown(ioas, RESERVE_IN_USE.errno);
  for (const ranges of [ioas.areas, ioas.allowed]) {
    const highest = ranges.get(ranges.lastKey() ?? 0)?.last ?? 0;
    const inDoubt = hardwareUnknown(ioas, highest, RESERVE_IN_USE.errno);
    if (inDoubt !== undefined) return inDoubt;
  }
  return undefined;
}

function roundUpPow2(value: number): number {
  let power = 1;
  while (power < value) power *= 2;
  return power;
}

/** The alignment that a chosen IOVA gets: what address and length have in common, at most a huge page. */
function chosenAlignment(address: U64, length: U64): number {
  const byLength = length >= HUGE_PAGE ? HUGE_PAGE : roundUpPow2(low32(length));
  if (address === 0) return byLength;
  const low = modPow2(address, HUGE_PAGE);
  const byAddress = low === 0 ? HUGE_PAGE : low & -low;
  return Math.min(byLength, byAddress);
}

/** Where in `start..last` a range of `length` fits first, or undefined (`__alloc_iova_check_range`). */
function fitIn(start: U64, last: U64, length: U64, alignment: number, pageOffset: number): U64 | undefined {
  if (addOverflows(start, alignment - 1)) return undefined;
  const up = alignUp(start, alignment);
  const aligned = pageOffset === 0 ? up : or(up, pageOffset);
  if (aligned >= last || sub(last, aligned) < sub(length, 1)) return undefined;
  return aligned;
}

/**
 * The IOVA that the kernel chooses: the lowest that fits (`iopt_alloc_iova`). Never page 0, never the last page.
 * `address` is the first byte of the memory: its offset in the page is kept, and its alignment as far as it helps
 * huge pages.
 */
export function chooseIova(tx: Tx, ioas: Ioas, address: U64, length: U64): U64 | Refusal {
  if (length === 0 || length >= 0x7fff_ffff_ffff_ffffn) return CHOOSE_OVERFLOW;
  const alignment = chosenAlignment(address, length);
  if (alignment < ioas.alignment) return CHOOSE_ALIGNMENT;
  if (ioas.unknownSince >= 0) return mappingsUnknown(ioas);
  const pageOffset = modPow2(address, PAGE);
  for (const span of choiceSpans(ioas)) {
    const from = fitIn(span.start, span.last, length, alignment, pageOffset);
    if (from === undefined) continue;
    const found = firstFit(tx, ioas, from, span.last, length, alignment, pageOffset);
    if (found !== undefined) return hardwareUnknown(ioas, add(found, sub(length, 1)), NO_SPACE.errno) ?? found;
  }
  return NO_SPACE;
}

/** The allowed ranges as the kernel walks them: neighbours joined, page 0 and the last page left out. */
function* choiceSpans(ioas: Ioas): Generator<Interval> {
  const lowest = PAGE;
  const highest = sub(U64_MAX, PAGE);
  if (ioas.allowed.size === 0) {
    yield { start: lowest, last: highest };
    return;
  }
  let run: { start: U64; last: U64 } | undefined;
  for (const range of ioas.allowed.values()) {
    if (run !== undefined && add(run.last, 1) === range.start) {
      run = { start: run.start, last: range.last };
      continue;
    }
    if (run !== undefined && run.last >= lowest) yield { start: max(run.start, lowest), last: min(run.last, highest) };
    run = { start: range.start, last: range.last };
    if (range.start > highest) return;
  }
  if (run !== undefined && run.last >= lowest && run.start <= highest)
    yield { start: max(run.start, lowest), last: min(run.last, highest) };
}

function firstFit(
  tx: Tx,
  ioas: Ioas,
  from: U64,
  to: U64,
  length: U64,
  alignment: number,
  pageOffset: number,
): U64 | undefined {
  let tree = tx.world.ioasGaps.get(ioas.id);
  if (tree === undefined) {
    tree = gapsAround(ioas.areas.values());
    tx.world.ioasGaps.set(ioas.id, tree);
  }
  const span = sub(length, 1);
  let at: U64 = from;
  for (;;) {
    const gap = lowestGap(tree, at, span);
    if (gap === undefined || gap.start > to) return undefined;
    const last = min(gap.last, to);
    const found = fitBetweenBlocked(ioas, max(gap.start, from), last, length, alignment, pageOffset);
    if (found !== undefined) return found;
    if (gap.last >= to) return undefined;
    at = add(gap.last, 1);
  }
}

function fitBetweenBlocked(
  ioas: Ioas,
  start: U64,
  last: U64,
  length: U64,
  alignment: number,
  pageOffset: number,
): U64 | undefined {
  let at = start;
  while (at <= last) {
    const blocked = firstOverlap(ioas.blocked, at, last);
    if (blocked === undefined) return fitIn(at, last, length, alignment, pageOffset);
    if (blocked.start > at) {
      const found = fitIn(at, sub(blocked.start, 1), length, alignment, pageOffset);
      if (found !== undefined) return found;
    }
    if (blocked.last >= last) return undefined;
    at = add(blocked.last, 1);
  }
  return undefined;
}

/** The longest range that MAP may choose in, alignment apart; a walk over all areas. */
export function longestFree(ioas: Ioas): Interval | undefined {
  let longest: Interval | undefined;
  const consider = (start: U64, last: U64): void => {
    if (longest === undefined || sub(last, start) > sub(longest.last, longest.start)) longest = { start, last };
  };
  for (const span of choiceSpans(ioas)) {
    for (let at: U64 = span.start; at <= span.last; ) {
      const area = firstOverlap(ioas.areas, at, span.last);
      const blocked = firstOverlap(ioas.blocked, at, span.last);
      const hit = area === undefined || (blocked !== undefined && blocked.start < area.start) ? blocked : area;
      if (hit === undefined || hit.start > at) consider(at, hit === undefined ? span.last : sub(hit.start, 1));
      if (hit === undefined || hit.last >= span.last) break;
      at = add(hit.last, 1);
    }
  }
  return longest;
}

/** Puts an area into its IOAS. The range must be free. */
export function insertArea(tx: Tx, ioasKey: number, area: Area): void {
  tx.openTable(tx.world.ioases, ioasKey, 'areas').set(area.start, area);
  const tree = tx.world.ioasGaps.get(ioasKey);
  if (tree !== undefined) tx.world.ioasGaps.set(ioasKey, takeGap(tree, area.start, area.last));
}

export function deleteArea(tx: Tx, ioasKey: number, area: Area): void {
  tx.openTable(tx.world.ioases, ioasKey, 'areas').delete(area.start);
  const tree = tx.world.ioasGaps.get(ioasKey);
  if (tree !== undefined) tx.world.ioasGaps.set(ioasKey, giveGap(tree, area.start, area.last));
}

/** Replaces an area by one with the same range. */
export function replaceArea(tx: Tx, ioasKey: number, area: Area): void {
  tx.openTable(tx.world.ioases, ioasKey, 'areas').set(area.start, Object.freeze(area));
}

// ---- reserved ranges ----------------------------------------------------------------------------------------

/** Makes a range reserved for an owner (`iopt_reserve_iova`). */
export function reserveIova(tx: Tx, ioasKey: number, start: U64, last: U64, owner: string): Refusal | undefined {
  const ioas = ioasByKey(tx, ioasKey);
  if (firstOverlap(ioas.areas, start, last) !== undefined || firstOverlap(ioas.allowed, start, last) !== undefined)
    return RESERVE_IN_USE;
  const key = (ioas.reserved.lastKey() ?? 0) + 1;
  const range: Reserved = Object.freeze({ start, last, owner });
  tx.openTable(tx.world.ioases, ioasKey, 'reserved').set(key, range);
  block(tx.openTable(tx.world.ioases, ioasKey, 'blocked'), start, last);
  return undefined;
}

/** Joins a range into a set of disjoint ranges. */
function block(blocked: OrderedMap<U64, Interval>, start: U64, last: U64): void {
  let from = start;
  let to = last;
  const below = start === 0 ? undefined : blocked.floor(start);
  if (below !== undefined && (below.last >= start || add(below.last, 1) === start)) {
    from = min(from, below.start);
    to = max(to, below.last);
    blocked.delete(below.start);
  }
  for (let next = blocked.ceiling(from); next !== undefined; next = blocked.ceiling(from)) {
    if (next.start > to && add(to, 1) !== next.start) break;
    to = max(to, next.last);
    blocked.delete(next.start);
  }
  blocked.set(from, Object.freeze({ start: from, last: to }));
}

/** Ends all reservations of an owner. */
export function unreserve(tx: Tx, ioasKey: number, owner: string): void {
  const ioas = ioasByKey(tx, ioasKey);
  const gone: number[] = [];
  for (const [key, range] of ioas.reserved) if (range.owner === owner) gone.push(key);
  if (gone.length === 0) return;
  const reserved = tx.openTable(tx.world.ioases, ioasKey, 'reserved');
  for (const key of gone) reserved.delete(key);
  const blocked = tx.adopt(OrderedMap.numeric<U64, Interval>());
  for (const range of reserved.values()) block(blocked, range.start, range.last);
  patchIoas(tx, ioasKey, { blocked });
}

/** The ranges that are not reserved, lowest first: what IOVA_RANGES tells. */
export function* usableRanges(ioas: Ioas): Generator<Interval> {
  let from: U64 = 0;
  for (const range of ioas.blocked.values()) {
    if (range.start > from) yield { start: from, last: sub(range.start, 1) };
    if (range.last === U64_MAX) return;
    from = add(range.last, 1);
  }
  yield { start: from, last: U64_MAX };
}

// ---- alignment ----------------------------------------------------------------------------------------------

/** Whether all areas keep to an alignment (`iopt_check_iova_alignment`). */
export function checkAlignment(ioas: Ioas, alignment: number): Refusal | undefined {
  for (const area of ioas.areas.values()) {
    const length = sub(area.last, area.start);
    if (
      modPow2(area.start, alignment) !== 0 ||
      modPow2(add(length, 1), alignment) !== 0 ||
      modPow2(modPow2(area.startByte, PAGE), alignment) !== 0
    )
      return ALIGNMENT_IN_USE;
  }
  return undefined;
}

/**
 * The IOVA that the self-tests mean by the n-th area from the lowest and an offset, which may lead out of the area
 * (`iommufd_test_syz_conv_iova`); 0 where there is no such area.
 */
export function nthAreaIova(ioas: Ioas, nth: number, offset: number): U64 {
  if (nth >= ioas.areas.size) return 0;
  let left = nth;
  for (const area of ioas.areas.values()) if (left-- === 0) return add(area.start, offset);
  return 0;
}
