import { OrderedMap } from '../../core/ordered-map.js';
import type { U64 } from '../../core/u64.js';
import type { Call } from '../call.js';
import { ORDER_UNKNOWN } from '../compare.js';
import { underWayElsewhere } from '../in-flight.js';
import type { Tx } from '../tx.js';
import type { BoundDevice, Ioas, IoasObject, IommufdContext, IommuObject, ObjectType } from './state.js';
import { unknownSinceText } from '../answer.js';

/**
 * The object table of a context (drivers/iommu/iommufd/main.c).
 *
 * Ids come from an xarray with XA_FLAGS_ALLOC1: the lowest free one from 1 on, so a destroyed id is given out
 * again. An id is taken before an object is built and handed back when building fails, so a failing call
 * burns none; but a call that builds two objects sees the first one's id as taken while it chooses the second.
 * A vDEVICE that dies with its device leaves a tombstone: its id is never given out again.
 *
 * Where the past of a context is unknown, an id that no event showed may exist: lookups then answer `unknown`,
 * and an IOAS that a successful call proves is adopted.
 */

/** The kernel gives out ids below 2^31; a recording that shows one near that end is not followed. */
const MAX_ID = 0x3fff_ffff;
/** Ids in use between those that calls under way may have taken; beyond so many nobody looks. */
const MAX_SKIPPED = 256;

/** A context for a newly opened file; `unknownSince` is -1 when the recording saw the open. */
export function newContext(tx: Tx, unknownSince: number): IommufdContext {
  const context: IommufdContext = Object.freeze({
    id: tx.nextId('iommufd'),
    unknownSince,
    accountMm: false,
    vfioIoas: 0,
    noIommu: false,
    holders: 0,
    closed: false,
    nextObjectId: 1,
    freeIds: OrderedMap.numeric<number, true>().freeze(),
    objects: OrderedMap.numeric<number, IommuObject>().freeze(),
    attachments: OrderedMap.textual<string, never>().freeze(),
    mmaps: OrderedMap.numeric<number, never>().freeze(),
  });
  tx.world.iommufds.set(context.id, context);
  return context;
}

export function contextOf(tx: Tx, id: number): IommufdContext {
  const context = tx.world.iommufds.get(id);
  if (context === undefined) throw new Error(`iommufd context ${id} does not exist`);
  return context;
}

export function objectOf(tx: Tx, contextId: number, id: number): IommuObject | undefined {
  return tx.world.iommufds.get(contextId)?.objects.get(id);
}

/** The object, if it exists and has the type. */
export function typedObject<T extends ObjectType>(
  tx: Tx,
  contextId: number,
  id: number,
  type: T,
): Extract<IommuObject, { type: T }> | undefined {
  const object = objectOf(tx, contextId, id);
  return object?.type === type ? (object as Extract<IommuObject, { type: T }>) : undefined;
}

/** The id that the next allocation gets. */
export function nextObjectId(tx: Tx, contextId: number): number {
  const context = contextOf(tx, contextId);
  return context.freeIds.firstKey() ?? context.nextObjectId;
}

/** Whether an id can be given out: no object has it, and none that is being made. */
export function isFreeId(tx: Tx, contextId: number, id: number): boolean {
  const { nextObjectId: next, freeIds } = contextOf(tx, contextId);
  return id >= next || freeIds.has(id);
}

/** Takes an id out of the pool: the next one, or the one that a recording shows. */
export function takeId(tx: Tx, contextId: number, id: number): void {
  const context = contextOf(tx, contextId);
  if (id < context.nextObjectId) {
    tx.openTable(tx.world.iommufds, contextId, 'freeIds').delete(id);
    return;
  }
  if (id > context.nextObjectId && id - context.nextObjectId <= 4096) {
    const free = tx.openTable(tx.world.iommufds, contextId, 'freeIds');
    for (let skipped = context.nextObjectId; skipped < id; skipped++) free.set(skipped, true);
  }
  patchContext(tx, contextId, { nextObjectId: id + 1 });
}

/** Hands an id back. What is free above all that are taken is not listed, so that equal states are equal. */
export function giveId(tx: Tx, contextId: number, id: number): void {
  const free = tx.openTable(tx.world.iommufds, contextId, 'freeIds');
  let next = contextOf(tx, contextId).nextObjectId;
  if (id !== next - 1) {
    free.set(id, true);
    return;
  }
  for (next = id; free.delete(next - 1); ) next--;
  patchContext(tx, contextId, { nextObjectId: next });
}

export function patchContext(tx: Tx, contextId: number, patch: Partial<IommufdContext>): void {
  tx.world.iommufds.set(contextId, Object.freeze({ ...contextOf(tx, contextId), ...patch }));
}

/** Adds a finished object under its id, which {@link takeId} took. */
export function putObject(tx: Tx, contextId: number, object: IommuObject): void {
  tx.openTable(tx.world.iommufds, contextId, 'objects').set(object.id, Object.freeze(object));
}

/** Replaces fields of an object that exists. */
export function patchObject<T extends IommuObject>(tx: Tx, contextId: number, object: T, patch: Partial<T>): T {
  const changed = Object.freeze({ ...object, ...patch }) as unknown as T;
  tx.openTable(tx.world.iommufds, contextId, 'objects').set(object.id, changed);
  return changed;
}

/** Takes the object out of the table; its id is free again unless a tombstone stays. */
export function dropObject(tx: Tx, contextId: number, id: number, tombstone = false): void {
  tx.openTable(tx.world.iommufds, contextId, 'objects').delete(id);
  if (!tombstone) giveId(tx, contextId, id);
}

/** Adds to the count of users of an object; nothing when it is gone. */
export function addUsers(tx: Tx, contextId: number, id: number, count: number): void {
  const object = objectOf(tx, contextId, id);
  if (object !== undefined) patchObject(tx, contextId, object, { users: object.users + count });
}

/** Whether ids are taken (`xa_empty`): by objects, or by tombstones of vDEVICEs. */
export function hasTakenIds(context: IommufdContext): boolean {
  return context.objects.size > 0 || context.nextObjectId - 1 > context.freeIds.size;
}

/** From now on objects may exist that the recording does not show. */
export function markContextUnknown(tx: Tx, contextId: number, seq: number): void {
  if (contextOf(tx, contextId).unknownSince < 0) patchContext(tx, contextId, { unknownSince: seq });
}

// ---- lookups that answer for a missing object ---------------------------------------------------------------

/** Why a call is unknown that depends on objects which the recording may not show. */
export function objectsUnknown(since: number): string {
  return unknownSinceText('objects', since);
}

/** Predicts for an id that no object has (or one of another type): ENOENT, or unknown where the past is. */
export function missing(call: Call, contextId: number, rule: string, errno = 'ENOENT'): boolean {
  const since = contextOf(call.tx, contextId).unknownSince;
  if (since < 0) return call.fail(errno, rule);
  call.unknown(objectsUnknown(since));
  return true;
}

/** Whether it may be another object that has this id: that of an access is never shown, and counts on no object being missed. */
export function isIdGuessed(tx: Tx, contextId: number, object: IommuObject): boolean {
  return object.type === 'access' && contextOf(tx, contextId).unknownSince >= 0;
}

/** The object of a type, or undefined after a prediction was made. */
export function lookup<T extends ObjectType>(
  call: Call,
  id: number,
  type: T,
  rule: string,
): Extract<IommuObject, { type: T }> | undefined {
  const found = typedObject(call.tx, call.file.object, id, type);
  if (found === undefined) missing(call, call.file.object, rule);
  else if (isGone(found)) call.unknown(GONE);
  return found;
}

const GONE = 'the mock device was destroyed while PASIDs were attached: the kernel reads memory that it freed';

function isGone(object: IommuObject): boolean {
  return object.type === 'device' && object.mock?.gone === true;
}

/**
 * The IOAS behind an object id, or undefined after a prediction was made. An IOAS that must exist because the
 * recording shows success is adopted, with areas unknown, for the events that follow.
 */
export function lookupIoas(call: Call, id: number, rule: string, contextId = call.file.object): Ioas | undefined {
  const object = typedObject(call.tx, contextId, id, 'ioas');
  if (object !== undefined) return call.tx.world.ioases.get(object.ioas);
  const other = objectOf(call.tx, contextId, id);
  if (other !== undefined && !isIdGuessed(call.tx, contextId, other)) {
    call.fail('ENOENT', rule);
    return undefined;
  }
  missing(call, contextId, rule);
  if (other === undefined && call.recordedRet !== -1 && call.recordedRet !== null && id > 0 && id <= MAX_ID)
    addIoas(call.tx, contextId, id, call.event.seq, call.event.seq);
  return undefined;
}

/** Makes an IOAS under an id that it takes. `unknownSince` is -1 when nothing can be mapped in it. */
export function addIoas(tx: Tx, contextId: number, id: number, seq: number, unknownSince = -1): Ioas {
  takeId(tx, contextId, id);
  const ioas: Ioas = Object.freeze({
    id: tx.nextId('ioas'),
    context: contextId,
    objectId: id,
    areas: tx.adopt(OrderedMap.numeric<number, never>()),
    reserved: OrderedMap.numeric<number, never>().freeze(),
    blocked: OrderedMap.numeric<number, never>().freeze(),
    allowed: OrderedMap.numeric<number, never>().freeze(),
    hwpts: Object.freeze([]),
    accesses: Object.freeze([]),
    alignment: 1,
    noLargePages: false,
    unknownSince,
    unknownHardware: Object.freeze([]),
  });
  tx.world.ioases.set(ioas.id, ioas);
  const object: IoasObject = { type: 'ioas', id, users: 0, since: seq, ioas: ioas.id };
  putObject(tx, contextId, object);
  return ioas;
}

export function patchIoas(tx: Tx, ioasKey: number, patch: Partial<Ioas>): Ioas {
  const changed = Object.freeze({ ...ioasByKey(tx, ioasKey), ...patch });
  tx.world.ioases.set(ioasKey, changed);
  return changed;
}

export function ioasByKey(tx: Tx, ioasKey: number): Ioas {
  const ioas = tx.world.ioases.get(ioasKey);
  if (ioas === undefined) throw new Error(`IOAS ${ioasKey} does not exist`);
  return ioas;
}

/** The IOAS record of an IOAS object id that must exist. */
export function ioasOfObject(tx: Tx, contextId: number, id: number): Ioas {
  const object = typedObject(tx, contextId, id, 'ioas');
  if (object === undefined) throw new Error(`object ${id} is no IOAS`);
  return ioasByKey(tx, object.ioas);
}

/** A bound device by its object id; it must exist. */
export function deviceOf(tx: Tx, contextId: number, id: number): BoundDevice {
  const device = typedObject(tx, contextId, id, 'device');
  if (device === undefined) throw new Error(`object ${id} is no device`);
  return device;
}

/**
 * Predicts the id that a call hands out at `offset` of its struct and takes it. What the recording shows is taken
 * instead where it differs, so that one wrong id stays one finding.
 */
export function handOutId(call: Call, offset: number, field: string): number {
  const contextId = call.file.object;
  const predicted = nextObjectId(call.tx, contextId);
  return handOut(call, predicted, offset, field);
}

/**
 * The id of an object that a call is about to make, which the struct will hold at `offset`: the next one, or where objects
 * are unknown, so that it cannot be told, the one that the recording shows.
 */
export function newObjectId(call: Call, offset: number): number {
  const contextId = call.file.object;
  const next = nextObjectId(call.tx, contextId);
  if (contextOf(call.tx, contextId).unknownSince < 0) {
    const chosen = afterOthers(call, next, offset, contextId);
    return call.raced !== 'no' && call.event.ret !== -1 ? racedId(call, chosen, offset, contextId) : chosen;
  }
  return shownId(call.tx, contextId, next, recorded32(call, offset), call.event.seq);
}

/** The id of an object, old or new, that the recording shows at `offset` where objects are unknown; undefined elsewhere. */
export function toldId(call: Call, offset: number, contextId = call.file.object): number | undefined {
  if (contextOf(call.tx, contextId).unknownSince < 0) return undefined;
  const id = recorded32(call, offset) ?? 0;
  return id === 0 || id > MAX_ID ? undefined : id;
}

/** What a call beside others got: others may have had the next ones for a moment, or given back one before it. */
function racedId(call: Call, chosen: number, offset: number, contextId: number): number {
  const shown = shownId(call.tx, contextId, chosen, recorded32(call, offset), call.event.seq);
  if (shown !== chosen) call.outUnknown(addr(call, offset), 4, ORDER_UNKNOWN);
  return shown;
}

/** The next id, or one after it: calls of other threads that have begun and not ended may have taken those before. */
function afterOthers(call: Call, next: number, offset: number, contextId: number): number {
  if (call.tx.world.inFlight.size === 0) return next;
  const told = recorded32(call, offset) ?? 0;
  const others = underWayElsewhere(
    call.tx,
    call.event.tid,
    (file) => file.kind === 'iommufd' && file.object === contextId,
  );
  if (told <= next || told > next + others + MAX_SKIPPED) return next;
  let taken = 0;
  for (let id = next; id < told; id++) if (isFreeId(call.tx, contextId, id)) taken++;
  return taken <= others && isFreeId(call.tx, contextId, told) ? told : next;
}

/** {@link handOutId} for an id that was chosen before. The caller puts the object and takes the id. */
export function handOut(call: Call, next: number, offset: number, field: string, contextId = call.file.object): number {
  const predicted = afterOthers(call, next, offset, contextId);
  const unknown = contextOf(call.tx, contextId).unknownSince;
  if (unknown >= 0) call.outUnknown(addr(call, offset), 4, objectsUnknown(unknown));
  else call.out32(offset, predicted, field);
  return shownId(call.tx, contextId, predicted, recorded32(call, offset), call.event.seq);
}

/**
 * The id that a new object takes: the one that the recording shows, if it can be. Where another object has it, that
 * one is gone in the kernel, and what refers to it is not known: the new one gets an id that is free here.
 */
export function shownId(
  tx: Tx,
  contextId: number,
  predicted: number,
  recorded: number | undefined,
  seq: number,
): number {
  if (recorded === undefined || recorded === 0 || recorded > MAX_ID || recorded === predicted) return predicted;
  if (isFreeId(tx, contextId, recorded)) return recorded;
  markContextUnknown(tx, contextId, seq);
  return predicted;
}

function addr(call: Call, offset: number): number | bigint {
  return typeof call.arg === 'number' ? call.arg + offset : BigInt(call.arg) + BigInt(offset);
}

/**
 * What the recording shows at `offset` of the struct after the call. Only after a prediction, or where there can be
 * none.
 */
export function recorded32(call: Call, offset: number): number | undefined {
  const note = call.memOut.find((candidate) => candidate.addr === call.arg);
  return note?.bytes.has(offset, 4) ? note.bytes.u32(offset) : undefined;
}

/** A 64-bit field of the struct that the kernel writes; what does not change is compared anyway. */
export function writeBack(call: Call, offset: number, value: U64, field: string): void {
  if (call.struct.u64(offset) !== value) call.out64(offset, value, field);
}
