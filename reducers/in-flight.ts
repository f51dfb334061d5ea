import type { EnterEvent, Event, IoctlEvent } from '../core/event.js';
import { type Interval, overlaps } from '../core/interval.js';
import { alignUp, lastOf, mul, sub, type U64, U64_MAX } from '../core/u64.js';
import { knownProcessOf } from './files/processes.js';
import type { OpenFile } from './files/state.js';
import type { Mirror } from './hmm/state.js';
import { lastOfMapping, lastOfPages, MAP_FIXED, PAGE_BYTES } from './memory/flags.js';
import type { PageTable } from './memory/pagetable.js';
import type { AddressSpace } from './memory/state.js';
import type { Tx } from './tx.js';
import type { World } from './world.js';

/**
 * Calls that have begun and not ended, where the recording shows their beginning.
 *
 * What the kernel answers to a device's ioctl may depend on memory that another thread changes meanwhile, and the
 * tape holds only when each of them began and ended. So the states that the ioctl may have seen are kept: the
 * memory as it was before each change that became known while it was under way, and the changes that were under way
 * themselves when it ended. Which of the states it saw, the recorded answer tells.
 */
export interface Flight {
  readonly tid: number;
  /** The address space that it changes, or that the device works on. */
  readonly space: number;
  /** What it changes in the space, where it is a memory call that changes anything. */
  readonly change: Coming | undefined;
  /** Of an ioctl: what others changed since it began, oldest first. Undefined for memory calls. */
  readonly past: readonly Past[] | undefined;
  /** An ioctl of a mirror. */
  readonly onMirror: boolean;
  /** The open file that an ioctl is made on, 0 for memory calls. */
  readonly file: number;
  /** Another ioctl on the same iommufd or container has ended since it began. */
  readonly beside: boolean;
}

/** A change that may or may not have happened yet. */
export interface Coming extends Interval {
  readonly call: string;
  readonly prot: number;
  readonly advice: number;
}

/** A change, and the space as it was before it. The tables are frozen. */
export interface Past extends Interval {
  readonly seq: number;
  /** The change was an ioctl of another thread. */
  readonly byDevice: boolean;
  readonly space: AddressSpace;
  readonly pages: PageTable | undefined;
  readonly mirrors: readonly Mirror[];
}

/** More calls under way at once than any program has; those beyond are not followed. */
const FLIGHTS_MAX = 256;
/** Changes that one ioctl may overlap. */
const PAST_MAX = 16;
const NO_PAST: readonly Past[] = Object.freeze([]);

export function enterCall(tx: Tx, event: EnterEvent): void {
  const { world } = tx;
  const process = knownProcessOf(world, event);
  if (process === undefined || world.inFlight.size >= FLIGHTS_MAX) return;
  const { tid } = event;
  if (event.call !== 'ioctl') {
    const change = comingOf(event, world.spaces.get(process.space));
    const { space } = process;
    if (change !== undefined)
      world.inFlight.set(
        tid,
        Object.freeze({ tid, space, change, past: undefined, onMirror: false, file: 0, beside: false }),
      );
    return;
  }
  const id = world.fdTables.get(process.fdTable)?.fds.get(event.fd)?.file ?? 0;
  const file = world.files.get(id);
  const mirror = file?.kind === 'dmirror' ? world.mirrors.get(file.object) : undefined;
  if (mirror === undefined && !pinsMemory(file)) return;
  const space = mirror?.space ?? process.space;
  const onMirror = mirror !== undefined;
  world.inFlight.set(
    tid,
    Object.freeze({ tid, space, change: undefined, past: NO_PAST, onMirror, file: id, beside: false }),
  );
}

/**
 * Whether an ioctl on an iommufd or container that ends now ran beside another one on it: which of them the kernel took
 * first is not recorded. The others are told that this one has ended.
 */
export function endsBeside(tx: Tx, tid: number, file: OpenFile): boolean {
  if (!pinsMemory(file)) return false;
  const { inFlight, files } = tx.world;
  let beside = inFlight.get(tid)?.beside ?? false;
  for (const flight of [...inFlight.values()]) {
    const other = flight.tid === tid ? undefined : files.get(flight.file);
    if (other?.kind !== file.kind || other.object !== file.object) continue;
    beside = true;
    if (!flight.beside) inFlight.set(flight.tid, Object.freeze({ ...flight, beside: true }));
  }
  return beside;
}

/** How many ioctls of other threads are under way on files that `isOne` chooses. */
export function underWayElsewhere(tx: Tx, tid: number, isOne: (file: OpenFile) => boolean): number {
  let count = 0;
  for (const flight of tx.world.inFlight.values()) {
    const file = flight.tid === tid ? undefined : tx.world.files.get(flight.file);
    if (file !== undefined && isOne(file)) count++;
  }
  return count;
}

function pinsMemory(file: OpenFile | undefined): boolean {
  return file?.kind === 'vfio-container' || file?.kind === 'iommufd';
}

function comingOf(event: EnterEvent, space: AddressSpace | undefined): Coming | undefined {
  const { call, addr, lengthBytes, prot, flags, advice } = event;
  let start = addr;
  let last: U64 | undefined;
  if (call === 'brk') {
    const end = space?.heapEnd ?? null;
    if (end === null || addr === 0 || addr >= end) return undefined;
    start = alignUp(addr, PAGE_BYTES);
    last = start < end ? sub(alignUp(end, PAGE_BYTES), 1) : undefined;
  } else if (call === 'mmap') last = flags & MAP_FIXED ? lastOfMapping(addr, lengthBytes, flags) : undefined;
  else last = lastOfPages(addr, lengthBytes);
  return last === undefined ? undefined : Object.freeze({ call, start, last, prot, advice });
}

/** The thread's call is over, or the thread is. Faults and signals come in the middle of calls. */
export function leaveCall(tx: Tx, event: Event): void {
  switch (event.kind) {
    case 'enter':
    case 'fault':
    case 'invalidateStart':
    case 'invalidateEnd':
    case 'signal':
      return;
    default:
      if (tx.world.inFlight.has(event.tid)) tx.world.inFlight.delete(event.tid);
  }
}

/** Looks at an event before it takes effect: ioctls of other threads keep what it is about to change. */
export function keepBefore(tx: Tx, event: Event): void {
  const change = changeOf(event);
  const process = change === undefined ? undefined : knownProcessOf(tx.world, event);
  if (change !== undefined && process !== undefined) keepPast(tx, process.space, event.tid, event.seq, change, false);
}

/** The same for an ioctl of a mirror, over what it works on. */
export function keepBeforeIoctl(tx: Tx, event: IoctlEvent, mirror: Mirror): void {
  const struct = event.memIn.find(({ addr }) => addr === event.arg)?.bytes;
  const onRange = struct?.has(0, 24) === true && (event.request & 0xff) < FIRST_ON_DEVICE;
  const start = onRange ? struct.u64(0) : 0;
  const last = onRange ? lastOf(start, mul(struct.u64(16), PAGE_BYTES)) : U64_MAX;
  if (last !== undefined) keepPast(tx, mirror.space, event.tid, event.seq, { start, last }, true);
}

/** HMM_DMIRROR_RELEASE: from there on, commands are about the device and not about a range. */
const FIRST_ON_DEVICE = 7;
/** What fork and the end of a process change: everything. */
const ALL: Interval = Object.freeze({ start: 0, last: U64_MAX });

function changeOf(event: Event): Interval | undefined {
  switch (event.kind) {
    case 'fork':
    case 'exec':
      return event.ret === -1 || event.ret === null ? undefined : ALL;
    case 'exit':
      return ALL;
    case 'munmap':
    case 'mprotect':
    case 'madvise': {
      if (event.ret === -1 && event.errno !== 'ENOMEM') return undefined;
      return rangeFrom(event.addr, lastOfPages(event.addr, event.lengthBytes));
    }
    case 'mremap':
      return event.ret === -1 ? undefined : rangeFrom(event.addr, lastOfPages(event.addr, event.oldLengthBytes));
    case 'mmap':
      if (event.ret === -1 || event.ret === null) return undefined;
      return rangeFrom(event.ret, lastOfMapping(event.ret, event.lengthBytes, event.flags));
    case 'brk':
      return event.ret === -1 || event.ret === null ? undefined : rangeFrom(event.ret, U64_MAX);
    default:
      return undefined;
  }
}

function rangeFrom(start: U64, last: U64 | undefined): Interval | undefined {
  return last === undefined ? undefined : { start, last };
}

function keepPast(tx: Tx, spaceId: number, tid: number, seq: number, change: Interval, byDevice: boolean): void {
  let past: Past | undefined;
  for (const flight of [...tx.world.inFlight.values()]) {
    if (flight.space !== spaceId || flight.tid === tid || flight.past === undefined) continue;
    if (flight.past.length >= PAST_MAX) continue;
    past ??= pastOf(tx, spaceId, seq, change, byDevice);
    if (past === undefined) return;
    tx.world.inFlight.set(flight.tid, Object.freeze({ ...flight, past: Object.freeze([...flight.past, past]) }));
  }
}

/** Freezes what is kept: the tables are shared with the state, and a table that is written to next is a copy. */
function pastOf(tx: Tx, spaceId: number, seq: number, { start, last }: Interval, byDevice: boolean): Past | undefined {
  const space = tx.world.spaces.get(spaceId);
  if (space === undefined) return undefined;
  space.vmas.freeze();
  space.emptied.freeze();
  space.fileVmas.freeze();
  space.pins.freeze();
  const pages = tx.world.pageTables.get(spaceId);
  pages?.runs.freeze();
  pages?.data.freeze();
  const mirrors: Mirror[] = [];
  if (pages !== undefined) {
    for (const mirror of tx.world.mirrors.values()) if (mirror.space === spaceId) mirrors.push(mirror);
    for (const mirror of mirrors) mirror.ptes.freeze();
  }
  return Object.freeze({ seq, start, last, byDevice, space, pages, mirrors: Object.freeze(mirrors) });
}

/** What other threads do to the memory that an ioctl looks at, while it is under way. */
export interface Race {
  /** Changes that became known since it began, oldest first. */
  readonly past: readonly Past[];
  /** Changes that had not ended when it did. */
  readonly coming: readonly Coming[];
  /** Another ioctl on a mirror of the space was under way: what it is about shows only at its end. */
  readonly devices: boolean;
}

/** The race of a call that ends now, over a range; undefined where nothing of it is in the recording. */
export function raceOf(world: World, tid: number, space: number, range: Interval): Race | undefined {
  if (world.inFlight.size === 0) return undefined;
  const past = (world.inFlight.get(tid)?.past ?? NO_PAST).filter((p) => overlaps(p, range.start, range.last));
  const coming: Coming[] = [];
  let devices = past.some((p) => p.byDevice);
  for (const flight of world.inFlight.values()) {
    if (flight.space !== space || flight.tid === tid) continue;
    if (flight.onMirror) devices = true;
    if (flight.change !== undefined && overlaps(flight.change, range.start, range.last)) coming.push(flight.change);
  }
  return past.length === 0 && coming.length === 0 ? undefined : { past, coming, devices };
}

/** The same for whichever ioctl is under way in a space: a call that runs beside others is taken to race with all. */
export function changesAround(world: World, space: number, range: Interval): Pick<Race, 'past' | 'coming'> {
  const past: Past[] = [];
  const coming: Coming[] = [];
  for (const flight of world.inFlight.values()) {
    if (flight.space !== space) continue;
    for (const p of flight.past ?? NO_PAST) if (overlaps(p, range.start, range.last)) past.push(p);
    if (flight.change !== undefined && overlaps(flight.change, range.start, range.last)) coming.push(flight.change);
  }
  return { past, coming };
}
