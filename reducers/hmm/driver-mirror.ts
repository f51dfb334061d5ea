import {
  type InvalidateEvent,
  MIRROR_ATOMIC,
  MIRROR_WRITE,
  type MirrorEndEvent,
  type MirrorEvent,
  type MirrorInvalidateEvent,
  type MirrorMapEvent,
  type MirrorUnmapEvent,
} from '../../core/event.js';
import { overlapping, put, type RangeMap, rangeAt, trimmed } from '../../core/interval.js';
import { OrderedMap } from '../../core/ordered-map.js';
import { max, min, type U64 } from '../../core/u64.js';
import { MAP_SHARED } from '../memory/flags.js';
import { surelyEmpty } from '../memory/lookup.js';
import { newPte, type Pte, type PteRun, pieces, setRun } from '../memory/pagetable.js';
import type { AddressSpace } from '../memory/state.js';
import type { Tx } from '../tx.js';
import { takesRights } from './machine.js';
import { dropEntries } from './mirror-table.js';
import {
  beginningOf,
  clearedSince,
  type DriverMirror,
  type DriverPte,
  inMotion,
  type NotifiedMm,
  noteCallback,
  notifiedOf,
  type Told,
} from './notified.js';
import { cover, type Place, uncover } from './places.js';
import type { MirrorAccess } from './state.js';
import { isPrivateAnonymous } from './touch.js';

/**
 * The device page tables of any driver, from what a recorder saw the driver do.
 *
 * Nothing is worked out: entries come by `mirror_map` and go by `mirror_unmap`, and the invariants compare them with the
 * invalidations and with the CPU's page table. What the driver maps teaches in turn what the CPU's page table holds, for
 * the driver has just read it there; pages that were there before the recording began are known from nothing else.
 */

export function followMirror(tx: Tx, event: MirrorEvent): void {
  switch (event.kind) {
    case 'mirrorMap':
      map(tx, event);
      return;
    case 'mirrorUnmap': {
      const mirror = mirrorOf(tx, event.mm, event.mirror);
      if (mirror === undefined) return;
      dropEntries(openMirror(tx, event.mm, mirror.id, 'ptes'), event.start, event.last);
      dropPlaces(tx, event.mm, event.start, event.last, mirror.id);
      noteTold(tx, event, null);
      return;
    }
    case 'mirrorInvalidate':
      putMirror(tx, event.mm, mirrorOf(tx, event.mm, event.mirror) ?? newMirror(tx, event.mirror));
      noteTold(tx, event, event.notifierSeq);
      return;
    case 'mirrorEnd':
      end(tx, event);
  }
}

export function accessOf(flags: number): MirrorAccess {
  if ((flags & MIRROR_ATOMIC) !== 0) return 'atomic';
  return (flags & MIRROR_WRITE) !== 0 ? 'write' : 'read';
}

function end(tx: Tx, { mm, mirror: id }: MirrorEndEvent): void {
  const mirror = mirrorOf(tx, mm, id);
  if (mirror === undefined) return;
  for (const { start, last } of mirror.ptes.values()) dropPlaces(tx, mm, start, last, id);
  tx.openTable(tx.world.notified, mm, 'mirrors').delete(id);
}

function mirrorOf(tx: Tx, mm: U64, id: U64): DriverMirror | undefined {
  return tx.world.notified.get(mm)?.mirrors.get(id);
}

function newMirror(tx: Tx, id: U64): DriverMirror {
  const ptes = tx.adopt(OrderedMap.numeric<U64, DriverPte>());
  const told = tx.adopt(OrderedMap.numeric<U64, Told>());
  return Object.freeze({ id, driver: '', owner: 0, ptes, told });
}

function putMirror(tx: Tx, mm: U64, mirror: DriverMirror): void {
  const record = notifiedOf(tx, mm);
  if (record.places === null && record.mirrors.size > 0 && !record.mirrors.has(mirror.id)) indexPlaces(tx, record);
  const mirrors = tx.openTable(tx.world.notified, mm, 'mirrors');
  if (mirrors.get(mirror.id) !== mirror) mirrors.set(mirror.id, mirror);
}

/** The index of places, open for writing; undefined while one mirror needs none. */
function openPlaces(tx: Tx, mm: U64): RangeMap<Place> | undefined {
  const record = tx.world.notified.get(mm);
  if (record?.places?.isFrozen !== true) return record?.places ?? undefined;
  const places = tx.adopt(record.places.edit());
  tx.world.notified.set(mm, Object.freeze({ ...record, places }));
  return places;
}

function dropPlaces(tx: Tx, mm: U64, start: U64, last: U64, id: U64): void {
  const places = openPlaces(tx, mm);
  if (places !== undefined) uncover(places, start, last, id);
}

/** With a second mirror, it has to be known which of them have entries where. */
function indexPlaces(tx: Tx, record: NotifiedMm): void {
  const places = tx.adopt(OrderedMap.numeric<U64, Place>());
  for (const { id, ptes } of record.mirrors.values())
    for (const { start, last } of ptes.values()) cover(places, start, last, id);
  tx.world.notified.set(record.mm, Object.freeze({ ...record, places }));
}

/** A table of a known mirror, open for writing. */
function openMirror<F extends 'ptes' | 'told'>(tx: Tx, mm: U64, id: U64, field: F): DriverMirror[F] {
  return tx.openTable(tx.openTable(tx.world.notified, mm, 'mirrors'), id, field);
}

function map(tx: Tx, event: MirrorMapEvent): void {
  const { mm, start, last, memory, seq } = event;
  const known = mirrorOf(tx, mm, event.mirror) ?? newMirror(tx, event.mirror);
  const driver = event.driver === '' ? known.driver : event.driver;
  const owner = event.owner === 0 ? known.owner : event.owner;
  const same = driver === known.driver && owner === known.owner;
  putMirror(tx, mm, same ? known : Object.freeze({ ...known, driver, owner }));
  const pte: DriverPte = Object.freeze({ start, last, access: accessOf(event.flags), memory, since: seq });
  put(openMirror(tx, mm, known.id, 'ptes'), pte, trimmed, equal);
  const places = openPlaces(tx, mm);
  if (places !== undefined) cover(places, start, last, known.id);
  teach(tx, mm, known, pte);
}

function equal(a: DriverPte, b: DriverPte): boolean {
  return a.access === b.access && a.memory === b.memory && a.since === b.since;
}

// ---- what the callback was told ----------------------------------------------------------------------------

/** More ranges than this are forgotten all at once: what is forgotten can hide a finding, and makes none up. */
const TOLD_MAX = 1 << 17;

/**
 * The callback of the driver runs in the thread that invalidates: an unmap there shows that it was called, too, where the
 * recorder does not tell of callbacks.
 */
function noteTold(tx: Tx, event: MirrorInvalidateEvent | MirrorUnmapEvent, number: U64 | null): void {
  const list = tx.world.notified.get(event.mm)?.invalidations ?? [];
  const within = list.findLast(
    (i) => !i.ended && i.tid === event.tid && i.start <= event.last && i.last >= event.start,
  );
  if (within === undefined && number === null) return;
  const start = within === undefined ? event.start : max(event.start, within.start);
  const last = within === undefined ? event.last : min(event.last, within.last);
  const told = openMirror(tx, event.mm, event.mirror, 'told');
  const invalidation = within?.seq ?? -1;
  if (event.kind === 'mirrorUnmap' && rangeAt(told, start)?.invalidation === invalidation) return;
  if (told.size >= TOLD_MAX) dropEntries(told, 0, 0xffff_ffff_ffff_ffffn);
  const since = event.seq;
  const clears = within !== undefined && !takesRights(within.type);
  const before = clears ? [] : overlapping(told, start, last).filter(({ cleared }) => cleared >= 0);
  const entry = { number, invalidation, cleared: clears ? since : -1, since };
  put(told, Object.freeze({ start, last, ...entry }), trimmed, () => false);
  for (const was of before) {
    const part = { start: max(was.start, start), last: min(was.last, last) };
    put(told, Object.freeze({ ...part, ...entry, cleared: was.cleared }), trimmed, () => false);
  }
  if (number === null && within !== undefined) noteCallback(tx, event.mm, within, event.mirror);
}

/** An invalidation ends: where it was told without a number, nothing is left to compare with. */
export function settleTold(tx: Tx, event: InvalidateEvent): void {
  const record = tx.world.notified.get(event.mm);
  const begun = record === undefined ? undefined : beginningOf(record.invalidations, event);
  if (record === undefined || begun === undefined) return;
  for (const id of begun.told) {
    const mirror = record.mirrors.get(id);
    if (mirror === undefined) continue;
    const done = overlapping(mirror.told, begun.start, begun.last).filter(
      (t) => t.invalidation === begun.seq && t.number === null,
    );
    const open = openMirror(tx, event.mm, id, 'told');
    for (const { start } of done) open.delete(start);
  }
}

// ---- what entries teach of the CPU's page table ------------------------------------------------------------

/** The CPU's page table comes to be known: what its mirrors hold is there. */
export function teachAll(tx: Tx, mm: U64): void {
  for (const mirror of tx.world.notified.get(mm)?.mirrors.values() ?? [])
    for (const pte of mirror.ptes.values()) teach(tx, mm, mirror, pte);
}

function teach(tx: Tx, mm: U64, mirror: DriverMirror, entry: DriverPte): void {
  const space = tx.world.spaces.get(tx.world.mms.get(mm) ?? 0);
  if (space === undefined || !tx.world.pageTables.has(space.id)) return;
  const runs = tx.openTable(tx.world.pageTables, space.id, 'runs');
  for (const { start, last, pte } of pieces(runs, entry.start, entry.last)) {
    const learned = learnedFrom(tx, mm, mirror, space, entry, start, pte);
    if (learned !== undefined) setRun(runs, start, last, learned);
  }
}

/** What an entry tells of the CPU's at an address beyond what is known; undefined when nothing, or when it contradicts. */
function learnedFrom(
  tx: Tx,
  mm: U64,
  mirror: DriverMirror,
  space: AddressSpace,
  { access, since }: DriverPte,
  at: U64,
  pte: PteRun | undefined,
): Pte | undefined {
  const vma = rangeAt(space.vmas, at);
  if (vma === undefined && surelyEmpty(space, at)) return undefined;
  const write = access !== 'read';
  if (access === 'atomic') return newPte('exclusive', since, { write });
  if (pte === undefined)
    return newPte(vma !== undefined && isPrivateAnonymous(vma) ? 'anon' : 'file', since, { write });
  if (!write || pte.write) return undefined;
  if (!mustCopy(pte, vma !== undefined && (vma.flags & MAP_SHARED) !== 0)) return { ...pte, write };
  const exchanged = inMotion(tx.world, mm, at, pte.since) || clearedSince(mirror, at, pte.since);
  return exchanged ? newPte('anon', since, { write }) : undefined;
}

/** Whether a write must put another page in the place of the one that the entry means. */
export function mustCopy(pte: Pte, shared: boolean): boolean {
  return !pte.write && (pte.kind === 'zero' || pte.cow || (pte.kind === 'file' && !shared));
}
