import { createHash } from 'node:crypto';
import { fc } from '../../core/property.js';
import { Bytes } from '../../core/bytes.js';
import type { Event, EventKind, MemNote } from '../../core/event.js';
import { fromBig } from '../../core/u64.js';

/** Random events of every kind, as the contract allows them, for the laws of the codec. Typed field by field. */

const u64 = fc.oneof(
  fc.nat(),
  fc.maxSafeNat(),
  fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }).map(fromBig),
  fc.constantFrom(
    0,
    0xffff_ffff,
    0x1_0000_0000,
    Number.MAX_SAFE_INTEGER,
    fromBig(1n << 53n),
    fromBig((1n << 64n) - 1n),
  ),
);
const u64OrNull = fc.option(u64);
const int32 = fc.oneof(fc.integer(), fc.integer({ min: 0, max: 0xffff_ffff }), fc.constantFrom(-1, 0, 0xffff_ffff));
const text = fc.oneof(fc.string(), fc.string({ unit: 'grapheme' }), fc.constantFrom('', '/dev/iommu', 'EINVAL'));
const bytes = fc.uint8Array({ maxLength: 64 }).map((array) => new Bytes(array));
const notes: fc.Arbitrary<readonly MemNote[]> = fc.array(fc.record({ addr: u64, bytes }), { maxLength: 3 });
const bool = fc.boolean();

const head = { tsNs: fc.maxSafeNat(), pid: int32, tid: int32, file: fc.nat(), line: fc.nat() };
/** `seq` and `enteredAt` are given by the place in the list, in {@link eventLists}. */
const place = { seq: fc.constant(0) };
const outcome = {
  enteredAt: fc.nat({ max: 50 }),
  ret: fc.oneof(u64, fc.constant(-1 as const), fc.constant(null)),
  errno: text,
  injected: bool,
};
const start = { ...place, ...head };
const call = { ...start, ...outcome };
const fdPath = { fd: int32, path: text };
const range = { addr: u64, lengthBytes: u64 };
const mirrored = { ...start, mirror: u64, mm: u64 };
const mirroredRange = { ...mirrored, start: u64, last: u64 };
const invalidation = { ...start, mm: u64, start: u64, last: u64, type: int32, flags: int32, owner: u64 };

const byKind: { readonly [K in EventKind]: fc.Arbitrary<Event & { readonly kind: K }> } = {
  ioctl: fc.record({
    kind: fc.constant('ioctl' as const),
    ...call,
    ...fdPath,
    request: int32,
    arg: u64,
    memIn: notes,
    memOut: notes,
  }),
  io: fc.record({
    kind: fc.constant('io' as const),
    ...call,
    call: text,
    ...fdPath,
    offset: u64OrNull,
    lengthBytes: u64,
    data: bytes,
    addr: u64OrNull,
  }),
  open: fc.record({ kind: fc.constant('open' as const), ...call, call: text, path: text, flags: int32, retPath: text }),
  close: fc.record({ kind: fc.constant('close' as const), ...call, ...fdPath }),
  closeRange: fc.record({
    kind: fc.constant('closeRange' as const),
    ...call,
    firstFd: int32,
    lastFd: int32,
    flags: int32,
  }),
  dup: fc.record({ kind: fc.constant('dup' as const), ...call, ...fdPath, newFd: int32, flags: int32 }),
  fcntl: fc.record({ kind: fc.constant('fcntl' as const), ...call, ...fdPath, cmd: int32, arg: u64 }),
  newFds: fc.record({
    kind: fc.constant('newFds' as const),
    ...call,
    call: text,
    fds: fc.array(int32),
    paths: fc.array(text),
    cloexec: bool,
  }),
  mmap: fc.record({
    kind: fc.constant('mmap' as const),
    ...call,
    ...range,
    prot: int32,
    flags: int32,
    ...fdPath,
    offset: u64,
  }),
  munmap: fc.record({ kind: fc.constant('munmap' as const), ...call, ...range }),
  mprotect: fc.record({ kind: fc.constant('mprotect' as const), ...call, ...range, prot: int32 }),
  mremap: fc.record({
    kind: fc.constant('mremap' as const),
    ...call,
    addr: u64,
    oldLengthBytes: u64,
    newLengthBytes: u64,
    flags: int32,
    newAddr: u64,
  }),
  madvise: fc.record({ kind: fc.constant('madvise' as const), ...call, ...range, advice: int32 }),
  brk: fc.record({ kind: fc.constant('brk' as const), ...call, addr: u64 }),
  fork: fc.record({ kind: fc.constant('fork' as const), ...call, call: text, flags: u64 }),
  exec: fc.record({ kind: fc.constant('exec' as const), ...call, path: text }),
  exit: fc.record({ kind: fc.constant('exit' as const), ...start, call: text, status: int32 }),
  prlimit: fc.record({
    kind: fc.constant('prlimit' as const),
    ...call,
    targetPid: int32,
    resource: int32,
    newSoft: u64OrNull,
    newHard: u64OrNull,
    oldSoft: u64OrNull,
    oldHard: u64OrNull,
  }),
  fault: fc.record({
    kind: fc.constant('fault' as const),
    ...start,
    mm: u64,
    addr: u64,
    flags: int32,
    ret: int32,
  }),
  invalidateStart: fc.record({ kind: fc.constant('invalidateStart' as const), ...invalidation }),
  invalidateEnd: fc.record({ kind: fc.constant('invalidateEnd' as const), ...invalidation }),
  signal: fc.record({ kind: fc.constant('signal' as const), ...start, text }),
  other: fc.record({ kind: fc.constant('other' as const), ...call, call: text, text }),
  mlock: fc.record({ kind: fc.constant('mlock' as const), ...call, call: text, ...range, flags: int32 }),
  creds: fc.record({
    kind: fc.constant('creds' as const),
    ...call,
    call: text,
    targetPid: int32,
    realUid: u64OrNull,
    effectiveUid: u64OrNull,
    savedUid: u64OrNull,
    effectiveCaps: u64OrNull,
    permittedCaps: u64OrNull,
    flags: int32,
  }),
  mirrorMap: fc.record({
    kind: fc.constant('mirrorMap' as const),
    ...mirroredRange,
    driver: text,
    flags: int32,
    owner: u64,
    memory: u64,
    notifierSeq: u64OrNull,
  }),
  mirrorUnmap: fc.record({ kind: fc.constant('mirrorUnmap' as const), ...mirroredRange }),
  mirrorInvalidate: fc.record({
    kind: fc.constant('mirrorInvalidate' as const),
    ...mirroredRange,
    notifierSeq: u64OrNull,
  }),
  mirrorEnd: fc.record({ kind: fc.constant('mirrorEnd' as const), ...mirrored }),
  enter: fc.record({
    kind: fc.constant('enter' as const),
    ...start,
    call: text,
    ...fdPath,
    request: int32,
    ...range,
    prot: int32,
    flags: int32,
    advice: int32,
  }),
};

/** One of every kind. */
export const oneOfEachKind: fc.Arbitrary<readonly Event[]> = fc.tuple(...Object.values(byKind)).map(placed);

/** Lists of events with `seq` from 0, and entries that lie before their ends. */
export function eventLists(maxLength: number): fc.Arbitrary<readonly Event[]> {
  return fc.array(fc.oneof(...Object.values(byKind)), { minLength: 1, maxLength }).map(placed);
}

function placed(events: readonly Event[]): readonly Event[] {
  return events.map((event, seq) =>
    'enteredAt' in event ? { ...event, seq, enteredAt: Math.max(0, seq - event.enteredAt) } : { ...event, seq },
  );
}

/** A hash that no change of the product moves: of the JSON, bigints as text with an `n`, bytes in hex. */
export function fixedHash(value: unknown): string {
  const json = JSON.stringify(value, (_, item: unknown) => (typeof item === 'bigint' ? `${item}n` : item));
  return createHash('sha256').update(json).digest('hex');
}
