import type { Call } from '../call.js';
import type { Event } from '../../core/event.js';
import { type Interval, rangeAt } from '../../core/interval.js';
import { add, lastOf, min, modPow2, type U64 } from '../../core/u64.js';
import type { OpenFile } from '../files/state.js';
import type { Tx } from '../tx.js';
import { Asked } from './asked.js';
import {
  addUsers,
  contextOf,
  dropObject,
  ioasByKey,
  ioasOfObject,
  nextObjectId,
  patchContext,
  patchIoas,
  patchObject,
  putObject,
  takeId,
  typedObject,
} from './context.js';
import { recalculateAlignment } from './domain.js';
import { holdForAccess, letForAccess, pageSpan, refusePages } from './held-pages.js';
import { PAGE, replaceArea } from './iopt.js';
import { byteAt, lookUpPage, touchSlice } from './pages.js';
import { Checks, notKnown, type Refusal, type Rule, refusal } from './rules.js';
import type { AccessItem, AccessObject, Area, Ioas } from './state.js';
import { releaseContextIfDone } from './teardown.js';
import { unknownSinceText } from '../answer.js';

/**
 * In-kernel users of an IOAS (`struct iommufd_access`, drivers/iommu/iommufd/device.c): mediated devices, HW queues
 * and the self-tests read, write or pin its memory through areas, without a domain.
 *
 * An access is attached to one IOAS at a time, keeps it alive and imposes its alignment on it. Pages that it pinned
 * are items; each counts in every area that it touches. Before an area goes, each access is asked to let
 * go of what it has there; a HW queue's access is not asked, its areas are locked.
 */
export const ACCESS_RULES: readonly Rule[] = [
  { id: 'access.length', errno: 'EINVAL', text: 'the length is 0' },
  { id: 'access.overflow', errno: 'EOVERFLOW', text: 'IOVA and length pass 2^64' },
  { id: 'access.detached', errno: 'ENOENT', text: 'the access is attached to no IOAS' },
  { id: 'access.aligned', errno: 'EINVAL', text: 'areas that meet inside a page cannot be pinned' },
  { id: 'access.rights', errno: 'EPERM', text: 'an area may not be read, or written, by devices' },
  { id: 'access.memory-rights', errno: 'EPERM', text: 'the memory was mapped read-only' },
  { id: 'access.dma-buf', errno: 'EINVAL', text: 'an area shows a dma-buf, which the CPU does not touch' },
  { id: 'access.gap', errno: 'ENOENT', text: 'areas do not cover the range' },
];

const NO_LENGTH = refusal('EINVAL', 'access.length');
const OVERFLOW = refusal('EOVERFLOW', 'access.overflow');
const DETACHED = refusal('ENOENT', 'access.detached');
const UNALIGNED = refusal('EINVAL', 'access.aligned');
const NO_RIGHTS = refusal('EPERM', 'access.rights');
const MEMORY_RIGHTS = refusal('EPERM', 'access.memory-rights');
const DMA_BUF = refusal('EINVAL', 'access.dma-buf');
const GAP = refusal('ENOENT', 'access.gap');

/** Makes an access that is attached to nothing. One that user space drives keeps the context alive. */
export function makeAccess(
  tx: Tx,
  contextId: number,
  alignment: number,
  internal: boolean,
  seq: number,
  id: number = nextObjectId(tx, contextId),
): AccessObject {
  takeId(tx, contextId, id);
  const access: AccessObject = {
    type: 'access',
    id,
    users: 1,
    since: seq,
    ioas: 0,
    alignment,
    internal,
    nextItem: 0,
    items: Object.freeze([]),
  };
  putObject(tx, contextId, access);
  if (!internal) patchContext(tx, contextId, { holders: contextOf(tx, contextId).holders + 1 });
  return access;
}

/** Moves an access to another IOAS, by object id, or to none with 0 (`iommufd_access_change_ioas`). */
export function changeAccessIoas(tx: Tx, contextId: number, accessId: number, ioasId: number): Refusal | undefined {
  const access = typedObject(tx, contextId, accessId, 'access') as AccessObject;
  if (access.ioas === ioasId) return undefined;
  if (ioasId !== 0) {
    const ioas = ioasOfObject(tx, contextId, ioasId);
    patchIoas(tx, ioas.id, { accesses: Object.freeze([...ioas.accesses, accessId]) });
    const refused = recalculateAlignment(tx, ioas.id);
    if (refused !== undefined) {
      patchIoas(tx, ioas.id, { accesses: ioas.accesses });
      return refused;
    }
    addUsers(tx, contextId, ioasId, 1);
  }
  if (access.ioas !== 0) {
    const old = ioasOfObject(tx, contextId, access.ioas);
    dropItems(tx, contextId, access, 0, 0xffff_ffff_ffff_fffen);
    patchIoas(tx, old.id, { accesses: Object.freeze(old.accesses.filter((id) => id !== accessId)) });
    recalculateAlignment(tx, old.id);
    addUsers(tx, contextId, access.ioas, -1);
  }
  patchObject(tx, contextId, typedObject(tx, contextId, accessId, 'access') as AccessObject, { ioas: ioasId });
  return undefined;
}

/** Whether the kernel refused to attach an access for areas that were not seen, which are not aligned as it needs. */
export function refusedUnseen(call: Call, contextId: number, ioasId: number): boolean {
  const since = typedObject(call.tx, contextId, ioasId, 'ioas')
    ? ioasOfObject(call.tx, contextId, ioasId).unknownSince
    : -1;
  return since >= 0 && call.failedByFact('EADDRINUSE', unknownSinceText('mappings', since));
}

/** Ends an access: lets go of all pages, detaches, frees its id. */
export function destroyAccess(tx: Tx, contextId: number, accessId: number): void {
  const access = typedObject(tx, contextId, accessId, 'access');
  if (access === undefined) return;
  changeAccessIoas(tx, contextId, accessId, 0);
  dropObject(tx, contextId, accessId);
  if (access.internal) return;
  patchContext(tx, contextId, { holders: contextOf(tx, contextId).holders - 1 });
  releaseContextIfDone(tx, contextId);
}

/** The file of a self-test access is closed. */
export function releaseAccess(tx: Tx, file: OpenFile, _event: Event): void {
  const [contextId, accessId] = accessIds(file);
  if (tx.world.iommufds.has(contextId)) destroyAccess(tx, contextId, accessId);
}

/** Context and object id that an access's (or event queue's) file stands for. */
export function accessIds(file: OpenFile): [contextId: number, objectId: number] {
  const at = file.objectKey.indexOf('/');
  return at < 0 ? [0, 0] : [Number(file.objectKey.slice(0, at)), Number(file.objectKey.slice(at + 1))];
}

// ---- pinning ------------------------------------------------------------------------------------------------

interface Part {
  readonly area: Area;
  readonly start: U64;
  readonly last: U64;
}

/** The areas under a range and how much of each; undefined when they leave a gap. Unfinished parts are in `parts`. */
function cover(ioas: Ioas, iova: U64, last: U64, parts: Part[]): boolean {
  let at = iova;
  for (;;) {
    const area = rangeAt(ioas.areas, at);
    if (area === undefined) return false;
    parts.push({ area, start: at, last: min(last, area.last) });
    if (area.last >= last) return true;
    at = add(area.last, 1);
  }
}

function gap(ioas: Ioas): Refusal {
  return ioas.unknownSince < 0 ? GAP : notKnown(unknownSinceText('mappings', ioas.unknownSince), GAP.errno);
}

function rangeOf(access: AccessObject, iova: U64, length: U64): U64 | Refusal {
  if (length === 0) return NO_LENGTH;
  const last = lastOf(iova, length);
  if (last === undefined) return OVERFLOW;
  return access.ioas === 0 ? DETACHED : last;
}

/**
 * Goes through the areas of a range in order until one is refused; undefined when none is and they cover the range. The part
 * of the range in each area is what `refuse` decides on.
 */
function refuseRange(
  tx: Tx,
  contextId: number,
  access: AccessObject,
  iova: U64,
  length: U64,
  refuse: (part: Part, last: U64) => Refusal | undefined,
): Refusal | undefined {
  const last = rangeOf(access, iova, length);
  if (typeof last === 'object') return last;
  const ioas = ioasOfObject(tx, contextId, access.ioas);
  const parts: Part[] = [];
  const covered = cover(ioas, iova, last, parts);
  const checks = new Checks();
  for (const part of parts) {
    const refused = checks.add(refuse(part, last));
    if (refused !== undefined) return refused;
  }
  return (covered ? undefined : checks.add(gap(ioas))) ?? checks.doubt;
}

/** Whether an access may pin a range (`iommufd_access_pin_pages`); undefined when it may. */
export function refusePin(
  tx: Tx,
  contextId: number,
  access: AccessObject,
  iova: U64,
  length: U64,
  write: boolean,
): Refusal | undefined {
  const asked = new Asked(tx);
  return refuseRange(tx, contextId, access, iova, length, (part, last) => refusePart(tx, part, last, write, asked));
}

function refusePart(tx: Tx, part: Part, last: U64, write: boolean, asked: Asked): Refusal | undefined {
  const { area } = part;
  if (modPow2(byteAt(area, part.start), PAGE) !== 0) return UNALIGNED;
  if (area.last < last && modPow2(byteAt(area, area.last), PAGE) !== PAGE - 1) return UNALIGNED;
  if ((area.prot & (write ? 2 : 1)) === 0) return NO_RIGHTS;
  if (write && !area.pages.writable) return MEMORY_RIGHTS;
  if (area.pages.kind === 'dmabuf') return DMA_BUF;
  const first = byteAt(area, part.start);
  const end = byteAt(area, part.last);
  return refusePages(tx, area.pages, area, first, end) ?? asked.add(area.pages, area, first, end);
}

/** An access pins a range: it counts in every area that it touches, and holds the pages. */
export function pinRange(tx: Tx, ioasKey: number, range: Interval, lock: boolean, seq: number): void {
  for (const { area, start, last } of partsOf(tx, ioasKey, range)) {
    holdForAccess(tx, area, byteAt(area, start), byteAt(area, last), seq);
    replaceArea(tx, ioasKey, { ...area, accesses: area.accesses + 1, locks: area.locks + (lock ? 1 : 0) });
  }
}

/** Undoes {@link pinRange}. */
export function unpinRange(tx: Tx, ioasKey: number, range: Interval, lock: boolean): void {
  for (const { area, start, last } of partsOf(tx, ioasKey, range)) {
    letForAccess(tx, area, byteAt(area, start), byteAt(area, last));
    const locks = Math.max(0, area.locks - (lock ? 1 : 0));
    replaceArea(tx, ioasKey, { ...area, accesses: Math.max(0, area.accesses - 1), locks });
  }
}

function partsOf(tx: Tx, ioasKey: number, range: Interval): Part[] {
  const parts: Part[] = [];
  cover(ioasByKey(tx, ioasKey), range.start, range.last, parts);
  return parts;
}

/**
 * Keeps pinned pages as an item of a self-test access; gives the item's id. Where areas do not cover the range, which only a
 * recording that contradicts the model claims, the item holds what they do.
 */
export function addItem(tx: Tx, contextId: number, access: AccessObject, iova: U64, last: U64, seq: number): number {
  const id = access.nextItem;
  const key = typedObject(tx, contextId, access.ioas, 'ioas')?.ioas;
  const held = key === undefined ? undefined : partsOf(tx, key, { start: iova, last }).at(-1);
  const items = [...access.items];
  if (key !== undefined && held !== undefined) {
    const item: AccessItem = Object.freeze({ id, start: iova, last: held.last });
    pinRange(tx, key, item, false, seq);
    items.push(item);
  }
  patchObject(tx, contextId, access, { items: Object.freeze(items), nextItem: id + 1 });
  return id;
}

/** Lets go of one item; false when there is none of that id. */
export function dropItem(tx: Tx, contextId: number, access: AccessObject, id: number): boolean {
  const item = access.items.find((candidate) => candidate.id === id);
  if (item === undefined) return false;
  unpinRange(tx, ioasOfObject(tx, contextId, access.ioas).id, item, false);
  patchObject(tx, contextId, access, { items: Object.freeze(access.items.filter((other) => other !== item)) });
  return true;
}

function dropItems(tx: Tx, contextId: number, access: AccessObject, start: U64, last: U64): void {
  const gone = access.items.filter((item) => item.start <= last && item.last >= start);
  if (gone.length === 0) return;
  const ioasKey = ioasOfObject(tx, contextId, access.ioas).id;
  for (const item of gone) unpinRange(tx, ioasKey, item, access.internal);
  patchObject(tx, contextId, access, { items: Object.freeze(access.items.filter((item) => !gone.includes(item))) });
}

/** Asks all accesses of an IOAS to let go of a range (`iommufd_access_notify_unmap`); those that lock it only with `locked`. */
export function notifyUnmap(tx: Tx, ioasKey: number, start: U64, last: U64, locked: boolean): void {
  const { accesses, context } = ioasByKey(tx, ioasKey);
  for (const id of accesses) {
    const access = typedObject(tx, context, id, 'access');
    if (access !== undefined && (locked || !access.internal)) dropItems(tx, context, access, start, last);
  }
}

// ---- reading and writing ------------------------------------------------------------------------------------

/** Whether an access may copy to or from a range with the CPU (`iommufd_access_rw`); undefined when it may. */
export function refuseReadWrite(
  tx: Tx,
  contextId: number,
  access: AccessObject,
  iova: U64,
  length: U64,
  write: boolean,
  slow: boolean,
  currentSpace: number,
): Refusal | undefined {
  return refuseRange(tx, contextId, access, iova, length, ({ area, start, last: end }) => {
    if ((area.prot & (write ? 2 : 1)) === 0) return NO_RIGHTS;
    if (write && !area.pages.writable) return MEMORY_RIGHTS;
    if (area.pages.kind === 'dmabuf') return DMA_BUF;
    return refuseCopy(tx, area, byteAt(area, start), byteAt(area, end), write, slow, currentSpace);
  });
}

/**
 * Copying in one area (`iopt_pages_rw_access`). In the process whose memory it is, as that process would; from elsewhere
 * one page is looked up at its address, even if it is pinned. More than one, and pages of a file, are taken from
 * where they are pinned.
 */
function refuseCopy(
  tx: Tx,
  area: Area,
  firstByte: U64,
  lastByte: U64,
  write: boolean,
  slow: boolean,
  currentSpace: number,
): Refusal | undefined {
  const { pages } = area;
  if (pages.kind === 'user') {
    if (!slow && pages.space === currentSpace) return touchSlice(tx, pages, firstByte, lastByte, write);
    const { start, last } = pageSpan(firstByte, lastByte);
    if (start === last && tx.world.spaces.has(pages.space)) return lookUpPage(tx, pages, firstByte, write);
  }
  return refusePages(tx, pages, area, firstByte, lastByte);
}
