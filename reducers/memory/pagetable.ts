import { carve, firstOverlap, type Interval, overlapping, type RangeMap, trimmed } from '../../core/interval.js';
import { OrderedMap } from '../../core/ordered-map.js';
import { add, alignDown, alignUp, max, min, sub, type U64 } from '../../core/u64.js';
import type { Tx } from '../tx.js';

/**
 * The CPU page table of an address space, as runs of equal entries.
 *
 * A table exists only for spaces in which somebody asks about pages: a device mirrors the space, its process
 * populates memory by advice, or the recording holds its page faults. An address without a run has no entry
 * (`pte_none`). All other reducers know VMAs only.
 */

/**
 * What an entry is:
 * - `zero`: the shared page of zeros, read-only;
 * - `anon`: an anonymous page in system memory;
 * - `file`: a page of a file, of shmem or of a driver;
 * - `private`: device-private memory: a swap-like entry that no CPU access gets through (`device` owns it);
 * - `coherent`: an anonymous page in device memory that the CPU can reach (`device` owns it);
 * - `exclusive`: an anonymous page that was taken from the CPU for atomic access by a device.
 */
export type PteKind = 'zero' | 'anon' | 'file' | 'private' | 'coherent' | 'exclusive';

/** What every entry of a run has in common. */
export interface Pte {
  readonly kind: PteKind;
  /** Writable; of an exclusive entry: what it becomes when it is given back does not depend on this. */
  readonly write: boolean;
  /** Was shared by a fork and not written to since: the first write copies, unless nobody else is left to share it. */
  readonly cow: boolean;
  /** Whole blocks of 2 MiB inside the run are mapped by one entry; what is left at its ends is not. */
  readonly huge: boolean;
  /** The pages are parts of huge ones, by blocks of 2 MiB, whether one entry maps them or many. */
  readonly large: boolean;
  /** Minor of the device whose memory it is, or -1. */
  readonly device: number;
  /** Id of the mirror that moved it there (it handles the CPU's faults), or 0. */
  readonly mirror: number;
  /** `seq` of the event that put these pages here; a change of rights alone leaves it. */
  readonly since: number;
  /**
   * Which anonymous pages they are: `seq` of the event that filled them, and how far they moved from the address that
   * they had then (modulo 2^64). They keep both while they go from one memory to another, and in the spaces that share
   * them.
   */
  readonly page: number;
  readonly moved: U64;
}

/** An entry for a new page, read-only and small unless `fields` say otherwise. */
export function newPte(kind: PteKind, since: number, fields: Partial<Pte> = {}): Pte {
  const small = { write: false, cow: false, huge: false, large: false, device: -1, mirror: 0 };
  return { kind, ...small, since, page: since, moved: 0, ...fields };
}

export interface PteRun extends Interval, Pte {}

/**
 * How far the table can be trusted.
 * - `events`: the recording holds page faults and invalidations, they are the truth;
 * - `calls`: the process touches memory by MADV_POPULATE_* and lets the kernel tell, so calls determine everything;
 * - `nothing`: every page that the CPU may reach may have been touched since it was last seen.
 */
export type Knowledge = 'events' | 'calls' | 'nothing';

/** A call that changed what is mapped. */
export interface Change extends Interval {
  readonly seq: number;
  readonly tid: number;
  /** The recording shows it where it begins: its invalidations come before the next event of its thread. */
  readonly open: boolean;
}

/** The pages of a file that are in memory, as far as faults have shown. */
export interface PageCache {
  readonly key: string;
  /** By offset in the file. */
  readonly pages: RangeMap<Interval>;
}

/** Address spaces that a fork made of each other, as long as they live. */
export interface Kinship {
  readonly id: number;
  /** Ids of the spaces, as keys and values. */
  readonly members: OrderedMap<number, number>;
}

/** Pages that hold something other than zeros; see hmm/contents.ts. */
export interface DataRun extends Interval {
  /** One more than the index of the last byte of each page that is not 0; -1 where that is not known. */
  readonly upto: number;
}

/**
 * A private mapping that ever got a page of its own, as far as it reached then (`vma->anon_vma`): fork copies its entries, and when it
 * is moved, the place that it has in the reverse map stays.
 */
export interface AnonRun extends Interval {
  /** How far it was moved since (modulo 2^64): its address less its `vm_pgoff`. */
  readonly moved: U64;
}

export interface PageTable {
  /** Id of the address space; the key too. */
  readonly space: number;
  readonly knowledge: Knowledge;
  readonly runs: RangeMap<PteRun>;
  readonly data: RangeMap<DataRun>;
  readonly anon: RangeMap<AnonRun>;
  /** Blocks of 2 MiB that have a page table of their own, whatever it holds; see hmm/tables.ts. */
  readonly tables: RangeMap<Interval>;
  /** Bits of the devices that may have memory here, so that freeing a device's memory need not look at all tables. */
  readonly devices: number;
  /** Which other spaces may share pages with it: id in `kinships`, 0 while it has neither parent nor child. */
  readonly family: number;
  /** Shared or huge pages were moved by mremap: they are not where relatives, or their other parts, are. */
  readonly strayed: boolean;
  /** `seq` of a device's command of which it is not known what it did to these pages; -1 for none. */
  readonly unseenSince: number;
  /** The kernel's address of the mm, by which kernel events name the space; null while unknown. */
  readonly mm: U64 | null;
  /** The last calls that changed what is mapped, oldest first: a device call that they overlap saw some of them. */
  readonly changes: readonly Change[];
}

export const HUGE_BYTES = 2 ** 21;

/** The table of a space; made with nothing in it when there is none yet. */
export function pageTableOf(tx: Tx, space: number, knowledge: Knowledge): PageTable {
  const known = tx.world.pageTables.get(space);
  if (known !== undefined) return known;
  const made: PageTable = Object.freeze({
    space,
    knowledge,
    runs: tx.adopt(OrderedMap.numeric<U64, PteRun>()),
    data: tx.adopt(OrderedMap.numeric<U64, DataRun>()),
    anon: tx.adopt(OrderedMap.numeric<U64, AnonRun>()),
    tables: tx.adopt(OrderedMap.numeric<U64, Interval>()),
    devices: 0,
    family: 0,
    strayed: false,
    unseenSince: -1,
    mm: null,
    changes: Object.freeze([]),
  });
  tx.world.pageTables.set(space, made);
  return made;
}

const CHANGES_KEPT = 8;

/** Remembers a call that changes what is mapped. */
export function noteChange(tx: Tx, space: number, change: Change): void {
  const table = tx.world.pageTables.get(space);
  if (table === undefined) return;
  const changes = Object.freeze([...table.changes.slice(1 - CHANGES_KEPT), Object.freeze(change)]);
  tx.world.pageTables.set(space, Object.freeze({ ...table, changes }));
}

/** The thread goes on: what it changed has been told to everybody, or never will be. */
export function settleChanges(tx: Tx, space: number, tid: number): void {
  const table = tx.world.pageTables.get(space);
  if (table === undefined || table.changes.length === 0) return;
  if (!table.changes.some((change) => change.open && change.tid === tid)) return;
  const settled = table.changes.map((c) => (c.open && c.tid === tid ? Object.freeze({ ...c, open: false }) : c));
  tx.world.pageTables.set(space, Object.freeze({ ...table, changes: Object.freeze(settled) }));
}

/** Whether another thread may have changed what is mapped in the range since `seq`. */
export function changedByOthers(table: PageTable, tid: number, seq: number, start: U64, last: U64): boolean {
  const { changes } = table;
  const oldest = changes[0];
  if (changes.length >= CHANGES_KEPT && oldest !== undefined && oldest.seq > seq) return true;
  return changes.some((c) => c.seq >= seq && c.tid !== tid && c.start <= last && c.last >= start);
}

const RANK: { readonly [K in Knowledge]: number } = { nothing: 0, calls: 1, events: 2 };

/** Says that the recording turned out to tell more; it never gets worse. */
export function raiseKnowledge(tx: Tx, space: number, knowledge: Knowledge): void {
  const table = pageTableOf(tx, space, knowledge);
  if (RANK[table.knowledge] >= RANK[knowledge]) return;
  tx.world.pageTables.set(space, Object.freeze({ ...table, knowledge }));
}

/** Calls do not determine the table after all. What the recording holds of the kernel stays the truth. */
export function forgetKnowledge(tx: Tx, space: number): void {
  const table = tx.world.pageTables.get(space);
  if (table?.knowledge === 'calls') tx.world.pageTables.set(space, Object.freeze({ ...table, knowledge: 'nothing' }));
}

/** Takes the entries of a range away. Gives the runs that were touched, as they were. */
export function clearRuns(runs: RangeMap<PteRun>, start: U64, last: U64): readonly PteRun[] {
  return carve(runs, start, last, trimmed);
}

/** Puts equal entries into a range, in the place of whatever was there, and joins what is equal around it. */
export function setRun(runs: RangeMap<PteRun>, start: U64, last: U64, pte: Pte): void {
  carve(runs, start, last, trimmed);
  let from = start;
  let to = last;
  const left = runs.lower(start);
  if (left !== undefined && add(left.last, 1) === start && joins(left, pte, start)) from = left.start;
  const right = to === 0xffff_ffff_ffff_ffffn ? undefined : runs.get(add(last, 1));
  if (right !== undefined && joins(right, pte, right.start)) {
    to = right.last;
    runs.delete(right.start);
  }
  const { kind, write, cow, huge, large, device, mirror, since, page, moved } = pte;
  runs.set(
    from,
    Object.freeze({ start: from, last: to, kind, write, cow, huge, large, device, mirror, since, page, moved }),
  );
}

/** Huge runs are joined at whole blocks only: a cut block must stay cut. */
function joins(a: Pte, b: Pte, seam: U64): boolean {
  return (
    a.kind === b.kind &&
    a.write === b.write &&
    a.cow === b.cow &&
    a.huge === b.huge &&
    a.large === b.large &&
    a.device === b.device &&
    a.mirror === b.mirror &&
    a.since === b.since &&
    a.page === b.page &&
    a.moved === b.moved &&
    (!a.huge || alignDown(seam, HUGE_BYTES) === seam)
  );
}

/** A part of a range: entries that are equal, or (`pte` undefined) none. */
export interface Piece extends Interval {
  readonly pte: PteRun | undefined;
}

/** The range cut into pieces, in order and without gaps. A copy: the table may be written to afterwards. */
export function pieces(runs: RangeMap<PteRun>, start: U64, last: U64): Piece[] {
  const found: Piece[] = [];
  let at = start;
  for (const run of overlapping(runs, start, last)) {
    const from = max(run.start, start);
    const to = min(run.last, last);
    if (from > at) found.push({ start: at, last: sub(from, 1), pte: undefined });
    found.push({ start: from, last: to, pte: run });
    if (to >= last) return found;
    at = add(to, 1);
  }
  found.push({ start: at, last, pte: undefined });
  return found;
}

/** The first piece of a range: for walks that change entries as they go. */
export function pieceAt(runs: RangeMap<PteRun>, start: U64, last: U64): Piece {
  const run = firstOverlap(runs, start, last);
  if (run === undefined) return { start, last, pte: undefined };
  if (run.start > start) return { start, last: sub(run.start, 1), pte: undefined };
  return { start, last: min(run.last, last), pte: run };
}

/** The part of `start..last` that the run maps by huge entries, or undefined. */
export function hugePart(run: PteRun, start: U64, last: U64): Interval | undefined {
  if (!run.huge) return undefined;
  const from = alignUp(run.start, HUGE_BYTES);
  const end = alignDown(add(run.last, 1), HUGE_BYTES);
  if (end <= from) return undefined;
  const low = max(from, start);
  const high = min(sub(end, 1), last);
  return low <= high ? { start: low, last: high } : undefined;
}
