import { firstOverlap, type Interval, overlapping, type RangeMap, rangeAt } from '../../core/interval.js';
import { OrderedMap } from '../../core/ordered-map.js';
import { add, alignDown, alignUp, max, min, sub, type U64, U64_MAX } from '../../core/u64.js';
import { MAP_SHARED, PAGE_BYTES } from '../memory/flags.js';
import { fileKey } from '../memory/identity.js';
import {
  type AnonRun,
  clearRuns,
  type DataRun,
  type PageTable,
  type PteRun,
  pageTableOf,
} from '../memory/pagetable.js';
import { backingOf } from '../memory/substance.js';
import { type AddressSpace, VMA_GUARD, VMA_HUGETLB, VMA_PFNMAP, type Vma } from '../memory/state.js';
import type { Tx } from '../tx.js';
import { mergedVma } from './merged.js';
import { dropEntries } from './mirror-table.js';
import type { Invalidation, Mirror, MirrorPte } from './state.js';

/** mmu_notifier_event of include/linux/mmu_notifier.h. */
export const NOTIFY_UNMAP = 0;
export const NOTIFY_CLEAR = 1;
export const NOTIFY_PROTECTION_VMA = 2;
export const NOTIFY_PROTECTION_PAGE = 3;
const NOTIFY_SOFT_DIRTY = 4;
export const NOTIFY_RELEASE = 5;
export const NOTIFY_MIGRATE = 6;
export const NOTIFY_EXCLUSIVE = 7;

const NO_PAGES: RangeMap<Interval> = OrderedMap.numeric<U64, Interval>().freeze();

/** Whether an invalidation takes rights of entries away, and leaves what they mean. */
export function takesRights(type: number): boolean {
  return type === NOTIFY_PROTECTION_VMA || type === NOTIFY_PROTECTION_PAGE || type === NOTIFY_SOFT_DIRTY;
}

/** A mirror while the machine works on it. */
export interface WorkMirror {
  readonly id: number;
  readonly device: number;
  readonly complete: boolean;
  ptes: RangeMap<MirrorPte>;
  failAlloc: boolean;
  invalidations: number;
  ignored: number;
  recent: readonly Invalidation[];
}

/** `fresh`: it has no chunk, the first allocation chooses. */
export type CoherentPages = 'small' | 'large' | 'fresh';

/**
 * One address space with its CPU page table and its mirrors, open for change: what faults, migrations and
 * invalidations work on.
 *
 * {@link Machine.copy} makes a second one for a trial in O(1); {@link Machine.store} puts one back into the
 * transaction. Invalidations are derived here where a recording holds system calls only; where it holds the kernel's
 * own, `derives` is false and nothing is invalidated twice.
 */
export class Machine {
  readonly space: AddressSpace;
  readonly seq: number;
  readonly derives: boolean;
  readonly mirrors: WorkMirror[] = [];
  runs: RangeMap<PteRun>;
  devices: number;
  /** What the fault at work exchanges, where the recording holds its invalidation. */
  exchanged: Interval | undefined;
  /** Which size the free pages of the coherent device at work have; see migrate.ts. */
  coherentPages: CoherentPages = 'small';
  /** Whether that made a difference. */
  askedPages = false;
  /** The coherent device that gave a huge page, or -1. */
  madeHuge = -1;
  /** Shared or huge pages were moved by mremap. */
  strayed: boolean;
  #data: RangeMap<DataRun>;
  #anon: RangeMap<AnonRun>;
  #tables: RangeMap<Interval>;
  readonly #table: PageTable;
  readonly #tx: Tx;
  #kin: readonly Machine[] | undefined;
  /** Page caches that were looked at, by key. */
  #caches = new Map<string, RangeMap<Interval>>();

  private constructor(tx: Tx, space: AddressSpace, table: PageTable, seq: number) {
    this.#tx = tx;
    this.space = space;
    this.seq = seq;
    this.#table = table;
    this.derives = table.knowledge !== 'events';
    this.runs = table.runs;
    this.#data = table.data;
    this.#anon = table.anon;
    this.#tables = table.tables;
    this.devices = table.devices;
    this.strayed = table.strayed;
  }

  /**
   * The machine of a living space; undefined when the space is gone. It works on the tables of the transaction in
   * place, so that many calls in one transaction cost one opening; a trial is made on a {@link copy}.
   */
  static of(tx: Tx, spaceId: number, seq: number): Machine | undefined {
    const space = tx.world.spaces.get(spaceId);
    if (space === undefined) return undefined;
    pageTableOf(tx, spaceId, 'nothing');
    const runs = tx.openTable(tx.world.pageTables, spaceId, 'runs');
    const machine = new Machine(tx, space, tx.world.pageTables.get(spaceId) as PageTable, seq);
    machine.runs = runs;
    const concerned: Mirror[] = [];
    for (const mirror of tx.world.mirrors.values()) if (mirror.space === spaceId) concerned.push(mirror);
    for (const mirror of concerned) {
      machine.mirrors.push(workMirror(mirror, tx.openTable(tx.world.mirrors, mirror.id, 'ptes')));
    }
    return machine;
  }

  /** A machine of a state that is over: for trials only, never stored. */
  static past(tx: Tx, space: AddressSpace, pages: PageTable, mirrors: readonly Mirror[], seq: number): Machine {
    const machine = new Machine(tx, space, pages, seq);
    machine.runs = pages.runs.edit();
    machine.#data = pages.data.freeze();
    machine.#anon = pages.anon.freeze();
    machine.#tables = pages.tables.freeze();
    for (const mirror of mirrors) machine.mirrors.push(workMirror(mirror, mirror.ptes.edit()));
    return machine;
  }

  /**
   * The spaces that may share pages with this one since a fork, as machines that are copied and stored with it. Loaded when
   * somebody asks; O(number of living relatives), as the kernel's walk over who maps a page.
   */
  kin(): readonly Machine[] {
    this.#kin ??= this.#loadKin();
    return this.#kin;
  }

  #loadKin(): readonly Machine[] {
    const { world } = this.#tx;
    const found: Machine[] = [];
    const ids = [...(world.kinships.get(this.#table.family)?.members.keys() ?? [])];
    for (const id of ids) {
      const space = id === this.space.id ? undefined : world.spaces.get(id);
      const pages = world.pageTables.get(id);
      if (space === undefined || pages === undefined) continue;
      pages.runs.freeze();
      const mirrors = [...world.mirrors.values()].filter((mirror) => mirror.space === id);
      for (const mirror of mirrors) mirror.ptes.freeze();
      found.push(Machine.past(this.#tx, space, pages, mirrors, this.seq));
    }
    return found;
  }

  get knowledge(): PageTable['knowledge'] {
    return this.#table.knowledge;
  }

  /** An independent machine in the same state, or with other VMAs. */
  copy(space: AddressSpace = this.space): Machine {
    const other = new Machine(this.#tx, space, this.#table, this.seq);
    const runs = this.runs.freeze();
    this.runs = runs.edit();
    other.runs = runs.edit();
    this.#data = this.#data.freeze();
    other.#data = this.#data;
    this.#anon = this.#anon.freeze();
    other.#anon = this.#anon;
    this.#tables = this.#tables.freeze();
    other.#tables = this.#tables;
    other.devices = this.devices;
    other.strayed = this.strayed;
    other.#kin = this.#kin?.map((kin) => kin.copy());
    for (const [key, pages] of this.#caches) other.#caches.set(key, pages.freeze());
    other.coherentPages = this.coherentPages;
    for (const mirror of this.mirrors) {
      const frozen = mirror.ptes.freeze();
      mirror.ptes = frozen.edit();
      other.mirrors.push({ ...mirror, ptes: frozen.edit() });
    }
    return other;
  }

  /** Makes this state the state of the transaction. The machine must not be used afterwards. */
  store(tx: Tx): void {
    const { runs, devices, strayed } = this;
    const now = tx.world.pageTables.get(this.#table.space) ?? this.#table;
    const data = this.#data;
    const anon = this.#anon;
    const tables = this.#tables;
    if (runs !== now.runs) tx.adopt(runs);
    if (data !== now.data) tx.adopt(data);
    if (anon !== now.anon) tx.adopt(anon);
    if (tables !== now.tables) tx.adopt(tables);
    const same = runs === now.runs && data === now.data && anon === now.anon && tables === now.tables;
    if (!same || devices !== now.devices || strayed !== now.strayed)
      tx.world.pageTables.set(now.space, Object.freeze({ ...now, runs, data, anon, tables, devices, strayed }));
    for (const mirror of this.mirrors) storeMirror(tx, mirror);
    for (const kin of this.#kin ?? []) kin.store(tx);
    for (const [key, pages] of this.#caches) {
      if (pages === tx.world.pageCaches.get(key)?.pages) continue;
      tx.world.pageCaches.set(key, Object.freeze({ key, pages: tx.adopt(pages) }));
    }
  }

  /** What its pages hold. */
  get data(): RangeMap<DataRun> {
    return this.#data;
  }

  /** The same, open: a copy of its own where others see the table. */
  dataToWrite(): RangeMap<DataRun> {
    this.#data = this.#data.edit();
    return this.#data;
  }

  /** Blocks that have a page table. */
  get tables(): RangeMap<Interval> {
    return this.#tables;
  }

  tablesToWrite(): RangeMap<Interval> {
    this.#tables = this.#tables.edit();
    return this.#tables;
  }

  /** Private mappings that ever got a page of their own. */
  get anon(): RangeMap<AnonRun> {
    return this.#anon;
  }

  anonToWrite(): RangeMap<AnonRun> {
    this.#anon = this.#anon.edit();
    return this.#anon;
  }

  /** The pages of a file that are in memory. */
  cache(key: string): RangeMap<Interval> {
    return this.#caches.get(key) ?? this.#tx.world.pageCaches.get(key)?.pages ?? NO_PAGES;
  }

  /** The same, open. Never the transaction's own table: what a trial reads in must not show. */
  cacheToWrite(key: string): RangeMap<Interval> {
    const open = (this.#caches.get(key) ?? this.cache(key).freeze()).edit();
    this.#caches.set(key, open);
    return open;
  }

  /** What the page cache knows the memory of a mapping by; '' where the memory is not of a file. */
  fileKey(vma: Vma): string {
    if (vma.traits & (VMA_HUGETLB | VMA_PFNMAP)) return '';
    if (vma.file === 0) return vma.flags & MAP_SHARED ? `shared:${vma.since}` : '';
    return this.#tx.world.files.get(vma.file)?.kind === 'dmirror' ? '' : fileKey(this.#tx, vma.file);
  }

  /** The first guard page of a range. */
  guardIn(start: U64, last: U64): U64 | undefined {
    const guard = overlapping(this.space.vmas, start, last).find(({ traits }) => traits & VMA_GUARD);
    return guard === undefined ? undefined : max(guard.start, start);
  }

  /** The parts of a range, all within a mapping, that are no guard pages. */
  unguarded(vma: Vma, part: Interval): readonly Interval[] {
    if ((vma.traits & VMA_GUARD) === 0) return [part];
    return overlapping(this.space.vmas, part.start, part.last)
      .filter(({ traits }) => (traits & VMA_GUARD) === 0)
      .map(({ start, last }) => ({ start: max(start, part.start), last: min(last, part.last) }));
  }

  /** Whether the memory at an address is locked, as far as calls tell. */
  isLocked(address: U64): boolean {
    const locked = this.#tx.world.spaceLocked.get(this.space.id)?.ranges;
    return locked !== undefined && locked.size > 0 && rangeAt(locked, address) !== undefined;
  }

  /** Whether a part of a range is locked, and another is not: they are mappings of their own. */
  isPartlyLocked({ start, last }: Interval): boolean {
    const locked = this.#tx.world.spaceLocked.get(this.space.id)?.ranges;
    if (locked === undefined || locked.size === 0) return false;
    const first = firstOverlap(locked, start, last);
    return first !== undefined && (first.start > start || first.last < last);
  }

  /** Whether the pages of a mapping are kept by memory alone, so that nobody wants to know of the first write. */
  isMemoryFile(vma: Vma): boolean {
    const file = this.#tx.world.files.get(vma.file);
    return vma.file === 0 || (file !== undefined && backingOf(file) === 'memory');
  }

  mirror(id: number): WorkMirror | undefined {
    return this.mirrors.find((mirror) => mirror.id === id);
  }

  /** The last address of a file mapping behind which the file has pages, where its size is known: later pages fault. */
  fileLast(vma: Vma): U64 | undefined {
    const size = vma.file === 0 ? null : (this.#tx.world.files.get(vma.file)?.sizeBytes ?? null);
    if (size === null) return undefined;
    const end = alignUp(size, PAGE_BYTES);
    return end > vma.offset ? sub(add(vma.start, sub(end, vma.offset)), 1) : sub(vma.start, 1);
  }

  vmaAt(address: U64): Vma | undefined {
    return mergedVma(this.space.vmas, this.#anon, address);
  }

  /** The VMAs that touch a range, in order. */
  *vmasIn(start: U64, last: U64): Generator<Vma> {
    for (let at = start; ; ) {
      const next = firstOverlap(this.space.vmas, at, last);
      const vma = next === undefined ? undefined : this.vmaAt(max(next.start, at));
      if (vma === undefined) return;
      yield vma;
      if (vma.last >= last) return;
      at = add(vma.last, 1);
    }
  }

  /** Takes page table entries away, without telling mirrors. */
  clear(start: U64, last: U64): void {
    clearRuns(this.runs, start, last);
  }

  /**
   * An invalidation that a call or a fault causes, where the recording does not hold it itself. `device` is the one
   * that migrates, or -1.
   */
  invalidate(type: number, start: U64, last: U64, device = -1): void {
    if (!this.derives) return;
    const invalidation = Object.freeze({ start, last, seq: this.seq, type, device, derived: true });
    for (const mirror of this.mirrors) actOn(mirror, invalidation);
  }
}

function workMirror(mirror: Mirror, ptes: RangeMap<MirrorPte>): WorkMirror {
  const { id, device, complete, failAlloc, invalidations, ignored, recent } = mirror;
  return { id, device, complete, failAlloc, invalidations, ignored, recent, ptes };
}

function storeMirror(tx: Tx, { id, ptes, failAlloc, invalidations, ignored, recent }: WorkMirror): void {
  const now = tx.world.mirrors.get(id);
  if (now === undefined) return;
  if (ptes !== now.ptes) tx.adopt(ptes);
  const counted = invalidations === now.invalidations && ignored === now.ignored;
  if (ptes === now.ptes && failAlloc === now.failAlloc && counted) return;
  tx.world.mirrors.set(id, Object.freeze({ ...now, failAlloc, invalidations, ignored, recent, ptes }));
}

/** The parts of a mirror that an invalidation changes. */
export interface Invalidated {
  readonly device: number;
  readonly ptes: RangeMap<MirrorPte>;
  invalidations: number;
  ignored: number;
  recent: readonly Invalidation[];
}

/**
 * What dmirror does about an invalidation: nothing when its own device migrates, since the migration brings the
 * mirror up to date by itself; else it drops its entries from the page of `start` to the page of the end, and that
 * page is one too many (`dmirror_do_update` takes an exclusive end for an inclusive one).
 */
export function actOn(mirror: Invalidated, invalidation: Invalidation): void {
  const { start, last, type, device } = invalidation;
  if (type === NOTIFY_MIGRATE && device >= 0 && device === mirror.device) {
    mirror.ignored++;
    return;
  }
  mirror.invalidations++;
  if (mirror.ptes.size === 0) return;
  if (dropEntries(mirror.ptes, start, endPageLast(last)).length > 0)
    mirror.recent = Object.freeze([...mirror.recent.slice(1 - RECENT_KEPT), invalidation]);
}

/** How many invalidations a mirror remembers, to tell what took an entry away. */
const RECENT_KEPT = 16;

/** Last address of the page that holds `last + 1`. */
function endPageLast(last: U64): U64 {
  return last === U64_MAX ? last : add(alignDown(add(last, 1), PAGE_BYTES), PAGE_BYTES - 1);
}
