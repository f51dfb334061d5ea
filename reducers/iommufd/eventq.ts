import { Bytes, putU32 } from '../../core/bytes.js';
import type { Event } from '../../core/event.js';
import { OrderedMap } from '../../core/ordered-map.js';
import type { Call } from '../call.js';
import { installFd, predictNewFd } from '../files/fds.js';
import type { FileKind, OpenFile } from '../files/state.js';
import type { Tx } from '../tx.js';
import { accessIds } from './access.js';
import {
  contextOf,
  handOut,
  lookup,
  nextObjectId,
  patchContext,
  patchObject,
  putObject,
  recorded32,
  takeId,
  typedObject,
} from './context.js';
import { withoutCookies } from './eventq-state.js';
import { forgetContext } from './forget.js';
import type { Rule } from './rules.js';
import type { FaultGroup, FaultQueue, Vevent, VeventQueue } from './state.js';
import { releaseContextIfDone } from './teardown.js';

/**
 * FAULT_QUEUE_ALLOC, VEVENTQ_ALLOC and the files that they make (drivers/iommu/iommufd/eventq.c).
 *
 * Each queue is an object and a file; the file uses the object and keeps the context alive. A reader of a fault queue
 * gets whole page requests, 40 bytes each, with a cookie from 1 on (the lowest that is free); a writer answers
 * cookies. A vIOMMU's queue numbers its events; when `depth` of them wait, one header at the end says that
 * some were lost.
 */
export const EVENTQ_RULES: readonly Rule[] = [
  { id: 'fault-alloc.flags', errno: 'EOPNOTSUPP', text: 'a flag is set' },
  { id: 'fault-alloc.ok', errno: '', text: 'a queue and its file are made' },
  { id: 'veventq-alloc.flags', errno: 'EOPNOTSUPP', text: 'a flag or the reserved field is set, or the type is 0' },
  { id: 'veventq-alloc.depth', errno: 'EINVAL', text: 'the depth is 0 or more than 2^19' },
  { id: 'veventq-alloc.viommu', errno: 'ENOENT', text: 'no vIOMMU has the id' },
  { id: 'veventq-alloc.taken', errno: 'EEXIST', text: 'the vIOMMU has a queue of the type' },
  { id: 'veventq-alloc.ok', errno: '', text: 'a queue and its file are made' },
  { id: 'fault-read.size', errno: 'ESPIPE', text: 'the count is no multiple of a page request' },
  { id: 'fault-read.room', errno: 'EINVAL', text: 'the first group does not fit' },
  { id: 'fault-read.ok', errno: '', text: 'page requests that fit are read' },
  { id: 'fault-write.size', errno: 'ESPIPE', text: 'the count is no multiple of an answer' },
  { id: 'fault-write.code', errno: 'EINVAL', text: 'the answer is neither success nor invalid' },
  { id: 'fault-write.cookie', errno: 'EINVAL', text: 'no request has the cookie' },
  { id: 'fault-write.ok', errno: '', text: 'requests are answered' },
  { id: 'vevent-read.size', errno: 'EINVAL', text: 'the count is shorter than a header' },
  { id: 'vevent-read.room', errno: 'EINVAL', text: 'the first event does not fit' },
  { id: 'vevent-read.ok', errno: '', text: 'events that fit are read' },
];

const O_RDWR = 2;
const MAX_DEPTH = 1 << 19;

/**
 * Predicts the new fd at `offset` and makes its file. Where nothing shows which fd it is, nobody will see what is done
 * with the file or when it is closed: then no object of the context is known any more.
 */
export function handOutFd(call: Call, offset: number, field: string, kind: FileKind, path: string, key: string): void {
  const predicted = predictNewFd(call.tx, call.process);
  if (predicted !== undefined) call.out32(offset, predicted, field);
  else {
    const at = typeof call.arg === 'number' ? call.arg + offset : BigInt(call.arg) + BigInt(offset);
    call.outUnknown(at, 4, 'fds were opened outside of the recording');
  }
  const fd = recorded32(call, offset) ?? predicted;
  if (fd === undefined || fd > 0x7fff_ffff) {
    forgetContext(call.tx, call.file.object, call.event.seq);
    return;
  }
  const made = { kind, path, objectKey: key, flags: O_RDWR, complete: true, cloexec: true };
  installFd(call.tx, call.process, fd, made, call.event, call.families);
}

function hold(tx: Tx, contextId: number, by: 1 | -1): void {
  patchContext(tx, contextId, { holders: contextOf(tx, contextId).holders + by });
}

export function faultQueueAlloc(call: Call): void {
  if (call.struct.u32(4) !== 0 && call.fail('EOPNOTSUPP', 'fault-alloc.flags')) return;
  if (!call.succeed('fault-alloc.ok')) return;
  const contextId = call.file.object;
  const id = handOut(call, nextObjectId(call.tx, contextId), 8, 'out_fault_id');
  takeId(call.tx, contextId, id);
  putObject(call.tx, contextId, {
    type: 'fault',
    id,
    users: 1,
    since: call.event.seq,
    deliver: OrderedMap.numeric<number, FaultGroup>().freeze(),
    pending: OrderedMap.numeric<number, FaultGroup>().freeze(),
    freeCookies: OrderedMap.numeric<number, true>().freeze(),
    nextCookie: 1,
  });
  hold(call.tx, contextId, 1);
  handOutFd(call, 12, 'out_fault_fd', 'iommufd-fault', 'anon_inode:[iommufd-pgfault]', `${contextId}/${id}`);
}

export function veventqAlloc(call: Call): void {
  const s = call.struct;
  const { tx } = call;
  const contextId = call.file.object;
  const type = s.u32(12);
  if ((s.u32(4) !== 0 || s.u32(28) !== 0 || type === 0) && call.fail('EOPNOTSUPP', 'veventq-alloc.flags')) return;
  const depth = s.u32(16);
  if ((depth === 0 || depth > MAX_DEPTH) && call.fail('EINVAL', 'veventq-alloc.depth')) return;
  const viommu = lookup(call, s.u32(8), 'viommu', 'veventq-alloc.viommu');
  if (viommu === undefined) return;
  const taken = viommu.veventqs.some((id) => typedObject(tx, contextId, id, 'veventq')?.queueType === type);
  if (taken && call.fail('EEXIST', 'veventq-alloc.taken')) return;
  if (!call.succeed('veventq-alloc.ok')) return;
  const id = handOut(call, nextObjectId(tx, contextId), 20, 'out_veventq_id');
  takeId(tx, contextId, id);
  putObject(tx, contextId, {
    type: 'veventq',
    id,
    users: 1,
    since: call.event.seq,
    viommu: viommu.id,
    queueType: type,
    depth,
    sequence: 0,
    eventCount: 0,
    deliver: OrderedMap.numeric<number, Vevent>().freeze(),
  });
  patchObject(tx, contextId, viommu, {
    users: viommu.users + 1,
    veventqs: Object.freeze([...viommu.veventqs, id]),
  });
  hold(tx, contextId, 1);
  const path = 'anon_inode:[iommufd-viommu-event]';
  handOutFd(call, 24, 'out_veventq_fd', 'iommufd-veventq', path, `${contextId}/${id}`);
}

/** The file of a queue is closed: it no longer uses the object. */
export function releaseEventq(tx: Tx, file: OpenFile, _event: Event): void {
  const [contextId, id] = accessIds(file);
  const context = tx.world.iommufds.get(contextId);
  const queue = context?.objects.get(id);
  if (queue === undefined || (queue.type !== 'fault' && queue.type !== 'veventq')) return;
  patchObject(tx, contextId, queue, { users: queue.users - 1 });
  hold(tx, contextId, -1);
  releaseContextIfDone(tx, contextId);
}

// ---- page requests ------------------------------------------------------------------------------------------

const FAULT_BYTES = 40;
const FAULT_COOKIE = 36;
const RESPONSE_BYTES = 8;

export function faultIo(call: Call): void {
  const [contextId, id] = accessIds(call.file);
  const queue = typedObject(call.tx, contextId, id, 'fault');
  if (queue === undefined || call.event.kind !== 'io') {
    call.unknown('the fault queue was made outside of the recording');
    return;
  }
  const count = Number(call.event.lengthBytes);
  if (call.event.call.includes('read')) readFaults(call, contextId, queue, count);
  else writeAnswers(call, contextId, queue, count);
}

function readFaults(call: Call, contextId: number, queue: FaultQueue, count: number): void {
  if (count % FAULT_BYTES !== 0 && call.fail('ESPIPE', 'fault-read.size')) return;
  const fits = Math.min(Math.floor(count / FAULT_BYTES), queue.deliver.size);
  if (fits === 0 && queue.deliver.size > 0 && call.fail('EINVAL', 'fault-read.room')) return;
  if (!call.succeed('fault-read.ok', fits * FAULT_BYTES)) return;
  // Fewer where the recording shows so: memory for the cookie of the next one was lacking.
  const given = Math.min(fits, Math.floor(bytesDone(call) / FAULT_BYTES));
  const deliver = queue.deliver.edit();
  const pending = queue.pending.edit();
  const freeCookies = queue.freeCookies.edit();
  let { nextCookie } = queue;
  const told: FaultGroup[] = [];
  for (const [arrival, group] of queue.deliver) {
    if (told.length === given) break;
    const cookie = freeCookies.firstKey() ?? nextCookie++;
    freeCookies.delete(cookie);
    deliver.delete(arrival);
    const read = Object.freeze({ ...group, cookie });
    pending.set(cookie, read);
    told.push(read);
  }
  patchObject(call.tx, contextId, queue, {
    deliver: deliver.freeze(),
    pending: pending.freeze(),
    freeCookies: freeCookies.freeze(),
    nextCookie,
  });
  tellFaults(call, told);
}

/** How many bytes the recording says that a successful read or write moved. */
function bytesDone(call: Call): number {
  return Number(call.recordedRet);
}

function tellFaults(call: Call, groups: readonly FaultGroup[]): void {
  if (call.event.kind !== 'io' || call.event.addr === null) return;
  const bytes = new Uint8Array(groups.length * FAULT_BYTES);
  groups.forEach((group, index) => {
    group.message.copyTo(bytes, index * FAULT_BYTES);
    putU32(bytes, index * FAULT_BYTES + FAULT_COOKIE, group.cookie);
  });
  if (bytes.length > 0) call.outBytes(call.event.addr, new Bytes(bytes), 'buf');
}

function writeAnswers(call: Call, contextId: number, queue: FaultQueue, count: number): void {
  if (count % RESPONSE_BYTES !== 0 && call.fail('ESPIPE', 'fault-write.size')) return;
  const answered = new Set<number>();
  let done = 0;
  let rule = '';
  for (; done < count; done += RESPONSE_BYTES) {
    if (!call.struct.has(done, RESPONSE_BYTES)) {
      call.unknown('the answers were not recorded');
      return;
    }
    const cookie = call.struct.u32(done);
    if (call.struct.u32(done + 4) > 1) rule = 'fault-write.code';
    else if (answered.has(cookie) || !queue.pending.has(cookie)) rule = 'fault-write.cookie';
    if (rule !== '') break;
    answered.add(cookie);
  }
  if (done === 0 && rule !== '') {
    call.fail('EINVAL', rule);
    return;
  }
  if (!call.succeed('fault-write.ok', done)) return;
  const taken = [...answered].slice(0, Math.floor(bytesDone(call) / RESPONSE_BYTES));
  patchObject(call.tx, contextId, queue, withoutCookies(queue, taken));
}

// ---- vIOMMU events ------------------------------------------------------------------------------------------

const HEADER_BYTES = 8;
const FLAG_LOST = 1;
/** Header and data of the largest event. */
const EVENT_MAX_BYTES = 64;

/**
 * Adds an event to a queue; a full one gets, or moves to its end, the header of lost events. So does one for whose event
 * there was no memory: `data` is then null.
 */
export function reportVevent(tx: Tx, contextId: number, queue: VeventQueue, data: Bytes | null): void {
  const lost = data === null || queue.eventCount === queue.depth;
  const event: Vevent = Object.freeze({ lost, sequence: queue.sequence, data: lost ? Bytes.EMPTY : data });
  const deliver = queue.deliver.edit();
  const end = deliver.lastKey() ?? 0;
  if (deliver.last()?.lost) deliver.delete(end);
  deliver.set(end + 1, event);
  patchObject(tx, contextId, queue, {
    deliver: deliver.freeze(),
    sequence: (queue.sequence + 1) & 0x7fff_ffff,
    eventCount: queue.eventCount + (lost ? 0 : 1),
  });
}

export function veventIo(call: Call): void {
  const [contextId, id] = accessIds(call.file);
  const queue = typedObject(call.tx, contextId, id, 'veventq');
  if (queue === undefined || call.event.kind !== 'io' || !call.event.call.includes('read')) {
    call.unknown('the event queue was made outside of the recording');
    return;
  }
  const room = Number(call.event.lengthBytes);
  if (room < HEADER_BYTES && call.fail('EINVAL', 'vevent-read.size')) return;
  const fits = takeEvents(queue, room);
  if (fits.bytes.length === 0 && queue.deliver.size > 0 && call.fail('EINVAL', 'vevent-read.room')) return;
  if (!call.succeed('vevent-read.ok', fits.bytes.length)) return;
  const taken = bytesDone(call) < fits.bytes.length ? takeEvents(queue, bytesDone(call)) : fits;
  patchObject(call.tx, contextId, queue, {
    deliver: taken.left.freeze(),
    eventCount: queue.eventCount - taken.events,
  });
  if (taken.bytes.length > 0 && call.event.addr !== null) call.outBytes(call.event.addr, taken.bytes, 'buf');
}

/** What a read with so much room gets, and what it leaves. */
function takeEvents(
  queue: VeventQueue,
  room: number,
): { bytes: Bytes; left: OrderedMap<number, Vevent>; events: number } {
  const bytes = new Uint8Array(Math.min(room, queue.deliver.size * EVENT_MAX_BYTES));
  const left = queue.deliver.edit();
  let done = 0;
  let events = 0;
  for (const [arrival, event] of queue.deliver) {
    const size = HEADER_BYTES + event.data.length;
    if (done + size > bytes.length) break;
    putU32(bytes, done, event.lost ? FLAG_LOST : 0);
    putU32(bytes, done + 4, event.sequence);
    event.data.copyTo(bytes, done + HEADER_BYTES);
    done += size;
    left.delete(arrival);
    if (!event.lost) events++;
  }
  return { bytes: new Bytes(bytes, 0, done), left, events };
}
