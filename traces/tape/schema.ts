import { EVENT_FIELDS, EVENT_KINDS, type EventKind } from '../../core/event.js';

/**
 * What the numbers in a tape's tuples mean, and how tapes of older schemas are read.
 *
 * A tuple is `[index of the kind in EVENT_KINDS, field, field, …]` in the order of EVENT_FIELDS. How a field is
 * written follows from its name, with a few exceptions by kind. The schema version counts the forms of tuples
 * that were ever released; when a kind gains a field, the version rises by one and {@link UPCASTERS} gains the
 * function that makes a new tuple out of an old one. A new kind raises the version, too, so that an older program says that it
 * is one, and leaves the tuples of the others as they are.
 */
export const SCHEMA_VERSION = 4;

/** Makes a tuple of version n + 1 out of one of version n. Pure; may give the same array back. */
export type Upcaster = (tuple: readonly unknown[]) => readonly unknown[];

/** The entry at `n - 1` leads from version n to n + 1. */
export const UPCASTERS: readonly Upcaster[] = [
  // Versions 2 to 4 have more kinds.
  (tuple) => tuple,
  (tuple) => tuple,
  (tuple) => tuple,
];

/** Lifts a tuple of schema `from` to the newest one. */
export function upcast(tuple: readonly unknown[], from: number, table = UPCASTERS): readonly unknown[] {
  let lifted = tuple;
  for (let version = from; version <= table.length; version++) lifted = (table[version - 1] as Upcaster)(lifted);
  return lifted;
}

/** How a field is written. */
export const CODEC = {
  /** Difference to the event before it. */
  seq: 0,
  tsNs: 1,
  line: 2,
  /** Distance back from `seq`. */
  enteredAt: 3,
  /** Any value of 32 bits, signed or not. */
  int32: 4,
  /** An index from 0. */
  index: 5,
  u64: 6,
  u64OrNull: 7,
  /** A U64, -1 or null. */
  ret: 8,
  /** Index into the chunk's strings. */
  string: 9,
  bool: 10,
  /** Length; the bytes stand in the chunk's blob, one field after the other. */
  bytes: 11,
  /** Flat array of address and length, with the bytes in the blob. */
  notes: 12,
  int32s: 13,
  strings: 14,
} as const;

export type Codec = (typeof CODEC)[keyof typeof CODEC];

const INT32_FIELDS = [
  ...['pid', 'tid', 'fd', 'request', 'flags', 'firstFd', 'lastFd', 'newFd', 'cmd', 'prot', 'advice'],
  ...['status', 'targetPid', 'resource', 'type'],
];
const U64_FIELDS = [
  ...['arg', 'addr', 'offset', 'lengthBytes', 'oldLengthBytes', 'newLengthBytes', 'newAddr'],
  ...['mm', 'start', 'last', 'owner', 'mirror', 'memory'],
];
const U64_OR_NULL_FIELDS = [
  ...['newSoft', 'newHard', 'oldSoft', 'oldHard'],
  ...['notifierSeq', 'realUid', 'effectiveUid', 'savedUid', 'effectiveCaps', 'permittedCaps'],
];
const STRING_FIELDS = ['errno', 'path', 'call', 'retPath', 'text', 'driver'];

const BY_NAME = new Map<string, Codec>([
  ['seq', CODEC.seq],
  ['tsNs', CODEC.tsNs],
  ['line', CODEC.line],
  ['enteredAt', CODEC.enteredAt],
  ['file', CODEC.index],
  ['ret', CODEC.ret],
  ['injected', CODEC.bool],
  ['cloexec', CODEC.bool],
  ['data', CODEC.bytes],
  ['memIn', CODEC.notes],
  ['memOut', CODEC.notes],
  ['fds', CODEC.int32s],
  ['paths', CODEC.strings],
  ...INT32_FIELDS.map((name): [string, Codec] => [name, CODEC.int32]),
  ...U64_FIELDS.map((name): [string, Codec] => [name, CODEC.u64]),
  ...U64_OR_NULL_FIELDS.map((name): [string, Codec] => [name, CODEC.u64OrNull]),
  ...STRING_FIELDS.map((name): [string, Codec] => [name, CODEC.string]),
]);

const EXCEPTIONS = new Map<string, Codec>([
  ['io.offset', CODEC.u64OrNull],
  ['io.addr', CODEC.u64OrNull],
  ['fork.flags', CODEC.u64],
  ['fault.ret', CODEC.int32],
]);

/** The layout of one kind's tuple, without the kind in front. */
export interface Layout {
  readonly kind: EventKind;
  readonly names: readonly string[];
  readonly codecs: readonly Codec[];
  /** An event of the kind with all fields in place, so that those made from it share one shape. */
  readonly blank: { readonly [name: string]: unknown };
}

function layoutOf(kind: EventKind): Layout {
  const names = EVENT_FIELDS[kind].map(String);
  const codecs = names.map((name) => {
    const codec = EXCEPTIONS.get(`${kind}.${name}`) ?? BY_NAME.get(name);
    if (codec === undefined) throw new Error(`tape: the field ${kind}.${name} has no codec`);
    return codec;
  });
  return { kind, names, codecs, blank: { kind, ...Object.fromEntries(names.map((name) => [name, 0])) } };
}

/** By index in EVENT_KINDS. */
export const LAYOUTS: readonly Layout[] = EVENT_KINDS.map(layoutOf);

export const KIND_INDEX: ReadonlyMap<string, number> = new Map(EVENT_KINDS.map((kind, index) => [kind, index]));

/** Whether a bigint is one that only a bigint can hold: the canonical form of core/u64.ts. */
export function isBoxed(value: bigint): boolean {
  return value > 0x1f_ffff_ffff_ffffn && value < 1n << 64n;
}
