import { type Interval, overlapping } from '../../core/interval.js';
import { add, alignDown, max, min, sub, type U64, U64_MAX } from '../../core/u64.js';
import { HUGE_BYTES, hugePart, newPte, type Pte, type PteRun, pieceAt, pieces, setRun } from '../memory/pagetable.js';
import { heldIn } from './contents.js';
import { type Machine, NOTIFY_CLEAR } from './machine.js';

/**
 * Pages that several address spaces map since a fork, and pages that are parts of huge ones.
 *
 * The kernel finds who maps a page by its reverse map (mm/rmap.c). Here an entry says which page it means by `page` and
 * `moved`: the same page is at the same home address (address less `moved`) in every space. Relatives are looked at where
 * a page was ever shared (`cow`), never else.
 */

/** Entries of a relative that mean the same pages. */
export interface Sharer extends Interval {
  readonly machine: Machine;
  readonly pte: PteRun;
  /** The same pages at the addresses of the one who asks. */
  readonly ours: Interval;
}

function isAnonymous(pte: Pte): boolean {
  return pte.kind !== 'zero' && pte.kind !== 'file';
}

/** Who else maps pages of `start..last`, where `pte` is our entry for them. */
export function sharersOf(machine: Machine, pte: Pte, start: U64, last: U64): Sharer[] {
  if (!pte.cow || !isAnonymous(pte)) return [];
  const home = sub(start, pte.moved);
  const homeLast = sub(last, pte.moved);
  const found: Sharer[] = [];
  for (const kin of machine.kin()) {
    const near = kin.strayed ? [...kin.runs.values()] : overlapping(kin.runs, home, homeLast);
    for (const run of near) {
      if (run.page !== pte.page || !isAnonymous(run)) continue;
      const from = max(sub(run.start, run.moved), home);
      const to = min(sub(run.last, run.moved), homeLast);
      if (from > to) continue;
      const ours = { start: add(from, pte.moved), last: add(to, pte.moved) };
      found.push({ machine: kin, pte: run, start: add(from, run.moved), last: add(to, run.moved), ours });
    }
  }
  return found;
}

/** A part of a range that somebody else maps, or nobody. */
export interface SharedPart extends Interval {
  readonly shared: boolean;
}

/** A range of one entry cut into what somebody shares and what nobody does, in order; huge pages count as a whole. */
export function partsOf(machine: Machine, pte: Pte, { start, last }: Interval): SharedPart[] {
  const whole = (part: Interval): Interval => (pte.large ? pageAround(pte, part) : part);
  const around = whole({ start, last });
  const ours = sharersOf(machine, pte, around.start, around.last).map((sharer) => whole(sharer.ours));
  ours.sort((a, b) => (a.start < b.start ? -1 : a.start > b.start ? 1 : 0));
  const parts: SharedPart[] = [];
  let at = start;
  for (const part of ours) {
    const to = min(part.last, last);
    if (to < at) continue;
    const from = max(part.start, at);
    if (from > at) parts.push({ start: at, last: sub(from, 1), shared: false });
    parts.push({ start: from, last: to, shared: true });
    if (to >= last) return parts;
    at = add(to, 1);
  }
  parts.push({ start: at, last, shared: false });
  return parts;
}

// ---- huge pages ------------------------------------------------------------------------------------------

/** The huge pages that hold a range. */
function pageAround(pte: Pte, { start, last }: Interval): Interval {
  const from = blockAround(sub(start, pte.moved)).start;
  const to = blockAround(sub(last, pte.moved)).last;
  return { start: add(from, pte.moved), last: add(to, pte.moved) };
}

/** The block of 2 MiB around an address. */
export function blockAround(address: U64): Interval {
  const start = alignDown(address, HUGE_BYTES);
  return { start, last: add(start, HUGE_BYTES - 1) };
}

/** The block around an address, where one entry maps all of it. */
export function hugeBlock(pte: PteRun, address: U64): Interval | undefined {
  const block = blockAround(address);
  const part = hugePart(pte, block.start, block.last);
  return part?.start === block.start && part.last === block.last ? block : undefined;
}

/**
 * One entry for a block gives way to one for each page (`__split_huge_pmd`); mirrors are told of the whole block. The huge
 * page stays one.
 */
export function splitEntry(machine: Machine, address: U64): void {
  for (const { pte } of pieces(machine.runs, address, address)) {
    const block = pte === undefined ? undefined : hugeBlock(pte, address);
    if (pte !== undefined && block !== undefined) splitPart(machine, pte, block);
  }
}

/** The same for every block of a range. */
export function splitEntries(machine: Machine, start: U64, last: U64): void {
  for (const { pte, start: from, last: to } of pieces(machine.runs, start, last)) {
    if (pte === undefined) continue;
    for (const part of entriesOf(pte, from, to)) if (part.huge) splitPart(machine, pte, part);
  }
}

function splitPart(machine: Machine, pte: PteRun, { start, last }: Interval): void {
  machine.invalidate(NOTIFY_CLEAR, start, last);
  setRun(machine.runs, start, last, { ...pte, huge: false });
}

/** A call that works on a part of a block that one entry maps cuts it first. */
export function splitEdges(machine: Machine, start: U64, last: U64): void {
  if (blockAround(start).start !== start) splitEntry(machine, start);
  if (blockAround(last).last !== last) splitEntry(machine, last);
}

/**
 * A mapping is cut where the range begins and where it ends (mm/huge_memory.c `split_huge_pmd_if_needed`): at a place
 * inside of a block that lies in the mapping as a whole, mirrors are told of the whole block, whatever maps it or nothing.
 * Where a mapping ends already, nothing is cut.
 */
export function cutMappings(machine: Machine, start: U64, last: U64): void {
  cutAt(machine, start);
  if (last !== U64_MAX) cutAt(machine, add(last, 1));
}

function cutAt(machine: Machine, place: U64): void {
  const block = blockAround(place);
  if (block.start === place) return;
  const vma = machine.vmaAt(place);
  if (vma === undefined || vma.start > block.start || vma.last < block.last || machine.isPartlyLocked(block)) return;
  machine.invalidate(NOTIFY_CLEAR, block.start, block.last);
  for (const { pte } of pieces(machine.runs, place, place))
    if (pte !== undefined && hugeBlock(pte, place) !== undefined)
      setRun(machine.runs, block.start, block.last, { ...pte, huge: false });
}

/** The entries for the huge page that `pte` means at an address, of this space and of its relatives. */
export function mappersOf(machine: Machine, pte: Pte, address: U64): Sharer[] {
  const home = blockAround(sub(address, pte.moved));
  const start = add(home.start, pte.moved);
  const last = add(home.last, pte.moved);
  // Parts that mremap has moved are elsewhere.
  const near = machine.strayed ? [...machine.runs.values()] : overlapping(machine.runs, start, last);
  const own = near.flatMap((run): Sharer[] => {
    if (run.page !== pte.page || !isAnonymous(run)) return [];
    const from = max(add(home.start, run.moved), run.start);
    const to = min(add(home.last, run.moved), run.last);
    return from > to ? [] : [{ machine, pte: run, start: from, last: to, ours: { start: from, last: to } }];
  });
  return [...own, ...sharersOf(machine, pte, start, last)];
}

/**
 * A huge page becomes small ones wherever it is mapped (`split_folio`): mirrors are told in each mapping that has a part of it, as
 * far as all of it would reach there.
 */
export function splitPage(machine: Machine, pte: Pte, address: U64): void {
  const mappers = mappersOf(machine, pte, address);
  const home = blockAround(sub(address, pte.moved));
  const told = new Map<Machine, Interval[]>();
  for (const mapper of mappers) {
    const before = told.get(mapper.machine) ?? [];
    if (before.some(({ start, last }) => start <= mapper.start && last >= mapper.start)) continue;
    told.set(mapper.machine, [...before, tellOf(mapper, home)]);
  }
  for (const mapper of mappers) {
    for (const { start, last, upto } of heldIn(mapper.machine.data, mapper.start, mapper.last))
      setRun(mapper.machine.runs, start, last, afterSplit(mapper, upto));
  }
}

/**
 * The entry for a page of a huge one that was split. What held zeros only gives way to the page of zeros, unless it is
 * out of the kernel's reach; exclusive access ends.
 */
function afterSplit({ machine, pte }: Sharer, upto: number): Pte {
  if (upto === 0 && machine.knowledge === 'calls' && pte.kind !== 'private') return newPte('zero', machine.seq);
  const small = { ...pte, huge: false, large: false };
  return pte.kind === 'exclusive' ? { ...small, kind: pte.device >= 0 ? 'coherent' : 'anon', write: false } : small;
}

/**
 * Advice for a part of a huge page splits the page, where nobody else maps it: FREE, COLD and PAGEOUT are for whole pages
 * (mm/madvise.c `madvise_free_pte_range`, `madvise_cold_or_pageout_pte_range`). A page that is all there within the range stays
 * one. Device memory that many entries map is left alone.
 */
export function splitUncovered(machine: Machine, start: U64, last: U64): void {
  for (let at = start; ; ) {
    const { pte, last: end } = pieceAt(machine.runs, at, last);
    let done = end;
    if (pte?.large && (pte.kind === 'anon' || (pte.kind === 'coherent' && hugeBlock(pte, at) !== undefined))) {
      const page = pageAround(pte, { start: at, last: at });
      const whole = sub(pageAround(pte, { start: end, last: end }).start, 1);
      if (page.start === at && whole > at) done = whole;
      else {
        done = min(page.last, last);
        if (!isCovered(machine, pte, page, start, last)) splitUnshared(machine, pte, at);
      }
    }
    if (done >= last) return;
    at = add(done, 1);
  }
}

/** Whether a huge page is mapped as a whole, and inside of a range. */
function isCovered(machine: Machine, pte: Pte, page: Interval, start: U64, last: U64): boolean {
  if (page.start < start || page.last > last) return false;
  return pieces(machine.runs, page.start, page.last).every(
    (piece) => piece.pte?.kind === pte.kind && piece.pte.page === pte.page && piece.pte.moved === pte.moved,
  );
}

function splitUnshared(machine: Machine, pte: Pte, at: U64): void {
  if (mappersOf(machine, pte, at).every((mapper) => mapper.machine === machine)) splitPage(machine, pte, at);
}

/** The same for every huge page of a part that many entries map. */
export function splitPages(machine: Machine, pte: Pte, { start, last }: Interval): void {
  let at = start;
  for (;;) {
    splitPage(machine, pte, at);
    const next = add(add(blockAround(sub(at, pte.moved)).last, pte.moved), 1);
    if (next > last || next <= at) return;
    at = next;
  }
}

/** Tells where a mapping has a huge page, as far as the mapping reaches. */
function tellOf({ machine, pte, start }: Sharer, home: Interval): Interval {
  const vma = machine.vmaAt(start);
  const from = max(add(home.start, pte.moved), vma?.start ?? 0);
  const to = min(add(home.last, pte.moved), vma?.last ?? U64_MAX);
  machine.invalidate(NOTIFY_CLEAR, from, to);
  return { start: from, last: to };
}

// ---- moving pages ----------------------------------------------------------------------------------------

/** Entries of one size. */
export interface Part extends Interval {
  /** Each entry maps a block of 2 MiB, and the part is made of whole blocks. */
  readonly huge: boolean;
}

/** The entries behind a range of equal ones: a block that one entry maps is given whole. */
export function entriesOf(pte: PteRun, start: U64, last: U64): Part[] {
  const huge = hugePart(pte, start, last);
  if (huge === undefined) return [{ start, last, huge: false }];
  const parts: Part[] = [];
  const from = blockAround(huge.start).start;
  const to = blockAround(huge.last).last;
  if (from > start) parts.push({ start, last: sub(from, 1), huge: false });
  parts.push({ start: from, last: to, huge: true });
  if (to < last) parts.push({ start: add(to, 1), last, huge: false });
  return parts;
}

/**
 * Shared pages are taken from all who map them (`try_to_migrate`), and mirrors hear of it. The kernel goes through the
 * spaces, the older first, until nobody is left who maps the page: we, who have lost it already, hear of it too
 * where a younger one shares it.
 */
export function tellSharers(machine: Machine, pte: Pte, { start, last }: Interval): void {
  for (const sharer of sharersOf(machine, pte, start, last)) {
    if (sharer.machine.space.id > machine.space.id)
      machine.invalidate(NOTIFY_CLEAR, sharer.ours.start, sharer.ours.last);
    sharer.machine.invalidate(NOTIFY_CLEAR, sharer.start, sharer.last);
  }
}

/** Pages are somewhere else now, for all who map them; `large`: they are huge ones there, too. Rights stay. */
export function relocate(machine: Machine, pte: Pte, part: Interval, to: Partial<Pte>, large: boolean): void {
  const place = (of: Machine, entry: Pte, start: U64, last: U64): void => {
    setRun(of.runs, start, last, { ...entry, ...to, large, huge: entry.huge && large });
    if (to.device !== undefined && to.device >= 0) of.devices |= 1 << to.device;
  };
  for (const sharer of sharersOf(machine, pte, part.start, part.last))
    place(sharer.machine, sharer.pte, sharer.start, sharer.last);
  place(machine, pte, part.start, part.last);
}
