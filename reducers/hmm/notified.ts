import type { Event, InvalidateEvent } from '../../core/event.js';
import { firstOverlap, type Interval, type RangeMap, rangeAt } from '../../core/interval.js';
import { OrderedMap } from '../../core/ordered-map.js';
import { hex, type U64 } from '../../core/u64.js';
import { knownProcessOf } from '../files/processes.js';
import type { Tx } from '../tx.js';
import type { World } from '../world.js';
import { mirrorsIn, type Place } from './places.js';
import type { MirrorAccess } from './state.js';

/**
 * What kernel events tell of one mm: the invalidations that are under way, and the page tables of devices that
 * mirror it. It is known by the kernel's address of the mm, which faults may tie to a process, or nothing does.
 */
export interface NotifiedMm {
  readonly mm: U64;
  /** Oldest first: those that have not ended, and of each thread the last that has, until the thread goes on. */
  readonly invalidations: readonly MmInvalidation[];
  readonly mirrors: OrderedMap<U64, DriverMirror>;
  /** Where they have entries; null as long as there was never more than one. */
  readonly places: RangeMap<Place> | null;
}

export interface MmInvalidation extends Interval {
  /** `seq` of its start. */
  readonly seq: number;
  readonly tid: number;
  readonly type: number;
  readonly owner: U64;
  /** Without MMU_NOTIFIER_RANGE_BLOCKABLE a callback may refuse it, and then it has no end. */
  readonly blockable: boolean;
  readonly ended: boolean;
  /** Mirrors whose callbacks showed without a number. */
  readonly told: readonly U64[];
}

/** The page table of one device, as its driver reports it by `mirror_map` and `mirror_unmap`. */
export interface DriverMirror {
  /** The kernel's address of what the driver keeps for it. */
  readonly id: U64;
  readonly driver: string;
  /** Owner of the device-private memory that the driver takes for its own, or 0. */
  readonly owner: U64;
  readonly ptes: RangeMap<DriverPte>;
  /** What the driver's callback was told last of each range. */
  readonly told: RangeMap<Told>;
}

export interface DriverPte extends Interval {
  readonly access: MirrorAccess;
  /** Owner of the device-private memory that it leads to, or 0. */
  readonly memory: U64;
  /** `seq` of the event that made it. */
  readonly since: number;
}

export interface Told extends Interval {
  /** The lowest number that a later update may carry, where it was recorded. */
  readonly number: U64 | null;
  /** `seq` of the start of the invalidation, or -1. */
  readonly invalidation: number;
  /** `seq` of the last callback at which entries of the page table went, and not their rights alone; -1 for none. */
  readonly cleared: number;
  readonly since: number;
}

const NOBODY: readonly U64[] = Object.freeze([]);

/** The mirrors of an mm that have entries in a range. */
export function driversIn(world: World, mm: U64 | null, start: U64, last: U64): readonly DriverMirror[] {
  const record = mm === null ? undefined : world.notified.get(mm);
  if (record === undefined) return NO_DRIVERS;
  const { mirrors, places } = record;
  if (places !== null) return mirrorsIn(places, start, last).flatMap((id) => mirrors.get(id) ?? []);
  const only = mirrors.first();
  return only === undefined || firstOverlap(only.ptes, start, last) === undefined ? NO_DRIVERS : [only];
}

const NO_DRIVERS: readonly DriverMirror[] = Object.freeze([]);

/** A mirror in words. */
export function mirrorTitle({ driver, id }: Pick<DriverMirror, 'driver' | 'id'>): string {
  return `${driver === '' ? 'mirror' : driver} ${hex(id)}`;
}

/** How many invalidations of one mm are followed at once; more are no kernel's. */
const KEPT_MAX = 256;
const BLOCKABLE = 1;
/** VM_FAULT_RETRY: the fault comes again. */
const FAULT_RETRY = 0x400;

export function notifiedOf(tx: Tx, mm: U64): NotifiedMm {
  const known = tx.world.notified.get(mm);
  if (known !== undefined) return known;
  const mirrors = tx.adopt(OrderedMap.numeric<U64, DriverMirror>());
  const made: NotifiedMm = Object.freeze({ mm, invalidations: Object.freeze([]), mirrors, places: null });
  tx.world.notified.set(mm, made);
  return made;
}

function putInvalidations(tx: Tx, record: NotifiedMm, invalidations: readonly MmInvalidation[]): void {
  if (invalidations.length === 0 && record.mirrors.size === 0) tx.world.notified.delete(record.mm);
  else tx.world.notified.set(record.mm, Object.freeze({ ...record, invalidations: Object.freeze(invalidations) }));
}

/** An invalidation begins or ends. */
export function noteInvalidation(tx: Tx, event: InvalidateEvent): void {
  if (event.kind === 'invalidateStart') {
    const { start, last, type, seq, tid, owner } = event;
    const blockable = (event.flags & BLOCKABLE) !== 0;
    const begun = Object.freeze({ start, last, type, seq, tid, owner, blockable, ended: false, told: NOBODY });
    const record = notifiedOf(tx, event.mm);
    // A thread that begins another one was refused those that may be.
    const going = record.invalidations.filter((i) => i.blockable || i.ended || i.tid !== tid);
    putInvalidations(tx, record, [...going.slice(1 - KEPT_MAX), begun]);
    return;
  }
  const record = tx.world.notified.get(event.mm);
  const begun = record === undefined ? undefined : beginningOf(record.invalidations, event);
  if (record === undefined || begun === undefined) return;
  const going = record.invalidations.filter((i) => i !== begun && !(i.ended && i.tid === event.tid));
  putInvalidations(tx, record, [...going, Object.freeze({ ...begun, ended: true })]);
}

/** A driver was told of an invalidation that is under way, and nothing says with which number. */
export function noteCallback(tx: Tx, mm: U64, begun: MmInvalidation, mirror: U64): void {
  const record = tx.world.notified.get(mm);
  if (record === undefined || begun.told.includes(mirror) || begun.told.length >= KEPT_MAX) return;
  const noted = Object.freeze({ ...begun, told: Object.freeze([...begun.told, mirror]) });
  putInvalidations(
    tx,
    record,
    record.invalidations.map((i) => (i === begun ? noted : i)),
  );
}

/** The invalidation that an end belongs to: the last of its thread with the same range and type. */
export function beginningOf(list: readonly MmInvalidation[], end: InvalidateEvent): MmInvalidation | undefined {
  const { start, last, type, tid } = end;
  return list.findLast((i) => !i.ended && i.tid === tid && i.start === start && i.last === last && i.type === type);
}

/** Those that have begun and not ended. */
export function openInvalidations(world: World, mm: U64 | null): readonly MmInvalidation[] {
  const list = mm === null ? undefined : world.notified.get(mm)?.invalidations;
  return list === undefined ? NONE : list.filter((i) => !i.ended);
}

const NONE: readonly MmInvalidation[] = Object.freeze([]);

/** The last invalidation that this thread ended before it showed anything else, where it holds the address. */
export function invalidatedJustNow(world: World, mm: U64, tid: number, address: U64): MmInvalidation | undefined {
  const list = world.notified.get(mm)?.invalidations ?? NONE;
  return list.findLast((i) => i.ended && i.tid === tid && i.start <= address && i.last >= address);
}

/** Whether the page table's entry at an address went since `seq`, as the driver was told: what came then may not be recorded. */
export function clearedSince(mirror: DriverMirror | undefined, address: U64, seq: number): boolean {
  const told = mirror === undefined ? undefined : rangeAt(mirror.told, address);
  return told !== undefined && told.cleared > seq;
}

/** Whether a thread has invalidated the address since `seq` for something that it has not shown yet. */
export function inMotion(world: World, mm: U64, address: U64, seq: number): boolean {
  const list = world.notified.get(mm)?.invalidations ?? NONE;
  return list.some((i) => i.seq > seq && i.start <= address && i.last >= address);
}

/** After an event that shows its thread outside of an invalidation: what it invalidated is done. */
export function threadWentOn(tx: Tx, event: Event): void {
  if (event.kind === 'fault' && (event.ret & FAULT_RETRY) !== 0) return;
  const mm = event.kind === 'fault' ? event.mm : tx.world.pageTables.get(spaceOf(tx.world, event))?.mm;
  const record = mm === undefined || mm === null ? undefined : tx.world.notified.get(mm);
  if (record === undefined) return;
  const going = record.invalidations.filter((i) => !(i.ended && i.tid === event.tid));
  if (going.length < record.invalidations.length) putInvalidations(tx, record, going);
}

function spaceOf(world: World, event: Event): number {
  return knownProcessOf(world, event)?.space ?? 0;
}
