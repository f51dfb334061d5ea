import { type RangeMap, rangeAt } from '../../core/interval.js';
import { add, alignDown, alignUp, sub, type U64, U64_MAX } from '../../core/u64.js';
import { clearRuns, PAGE_BYTES, type PageTable, type PteRun, pageTableOf } from '../memory/pagetable.js';
import type { AddressSpace, Vma } from '../memory/state.js';
import type { Tx } from '../tx.js';
import type { World } from '../world.js';
import { dropEntries } from './mirror-table.js';
import type { Invalidation, Mirror, MirrorPte } from './state.js';

/** mmu_notifier_event of include/linux/mmu_notifier.h. */
export const NOTIFY_UNMAP = 0;
export const NOTIFY_CLEAR = 1;
export const NOTIFY_PROTECTION_VMA = 2;
export const NOTIFY_PROTECTION_PAGE = 3;
export const NOTIFY_RELEASE = 5;
export const NOTIFY_MIGRATE = 6;
export const NOTIFY_EXCLUSIVE = 7;

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
  /** Which size the free pages of the coherent device at work have; see migrate.ts. */
  coherentPages: CoherentPages = 'small';
  /** Whether that made a difference. */
  askedPages = false;
  readonly #table: PageTable;
  readonly #files: World['files'];

  private constructor(space: AddressSpace, table: PageTable, seq: number, files: World['files']) {
    this.#files = files;
    this.space = space;
    this.seq = seq;
    this.#table = table;
    this.derives = table.knowledge !== 'events';
    this.runs = table.runs;
    this.devices = table.devices;
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
    const machine = new Machine(space, tx.world.pageTables.get(spaceId) as PageTable, seq, tx.world.files);
    machine.runs = runs;
    const concerned: Mirror[] = [];
    for (const mirror of tx.world.mirrors.values()) if (mirror.space === spaceId) concerned.push(mirror);
    for (const mirror of concerned) {
      machine.mirrors.push(workMirror(mirror, tx.openTable(tx.world.mirrors, mirror.id, 'ptes')));
    }
    return machine;
  }

  /** A machine of a state that is over: for trials only, never stored. */
  static past(
    space: AddressSpace,
    pages: PageTable,
    mirrors: readonly Mirror[],
    files: World['files'],
    seq: number,
  ): Machine {
    const machine = new Machine(space, pages, seq, files);
    machine.runs = pages.runs.edit();
    for (const mirror of mirrors) machine.mirrors.push(workMirror(mirror, mirror.ptes.edit()));
    return machine;
  }

  get knowledge(): PageTable['knowledge'] {
    return this.#table.knowledge;
  }

  /** An independent machine in the same state, or with other VMAs. */
  copy(space: AddressSpace = this.space): Machine {
    const other = new Machine(space, this.#table, this.seq, this.#files);
    const runs = this.runs.freeze();
    this.runs = runs.edit();
    other.runs = runs.edit();
    other.devices = this.devices;
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
    const { runs, devices } = this;
    const now = tx.world.pageTables.get(this.#table.space) ?? this.#table;
    if (runs !== now.runs) tx.adopt(runs);
    if (runs !== now.runs || devices !== now.devices)
      tx.world.pageTables.set(now.space, Object.freeze({ ...now, runs, devices }));
    for (const mirror of this.mirrors) storeMirror(tx, mirror);
  }

  mirror(id: number): WorkMirror | undefined {
    return this.mirrors.find((mirror) => mirror.id === id);
  }

  /** The last address of a file mapping behind which the file has pages, where its size is known: later pages fault. */
  fileLast(vma: Vma): U64 | undefined {
    const size = vma.file === 0 ? null : (this.#files.get(vma.file)?.sizeBytes ?? null);
    if (size === null) return undefined;
    const end = alignUp(size, PAGE_BYTES);
    return end > vma.offset ? sub(add(vma.start, sub(end, vma.offset)), 1) : sub(vma.start, 1);
  }

  vmaAt(address: U64): Vma | undefined {
    return rangeAt(this.space.vmas, address);
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
