import type { Bytes } from '../../core/bytes.js';
import { add, mul } from '../../core/u64.js';
import type { Call } from '../call.js';
import { probeBuffer } from './user-buffer.js';

/** The caller's array of invalidation requests, as drivers read it, and what becomes of it. */
export interface Outcome {
  /** '' when all requests were done. */
  readonly errno: string;
  readonly rule: string;
  readonly done: number;
  /** Takes effect for the requests that were done. */
  readonly apply: () => void;
}

export function refused(errno: string, rule: string, done = 0, apply: () => void = () => {}): Outcome {
  return { errno, rule, done, apply };
}

export function allDone(count: number, apply: () => void = () => {}): Outcome {
  return { errno: '', rule: '', done: count, apply };
}

/** Bytes of one entry, at least as many as the driver's struct has; or how the call ends at it. */
export type Entry = { readonly bytes: Bytes } | { readonly end: Outcome | undefined };

/**
 * Entry `index` for a driver whose struct has `sizeBytes` and cannot be shorter (`iommu_copy_struct_from_user_array`).
 */
export function exactEntry(call: Call, index: number, sizeBytes: number, apply: () => void = () => {}): Entry {
  if (call.struct.u32(20) !== sizeBytes) return { end: refused('EINVAL', 'invalidate.entry-size', index, apply) };
  return entryBytes(call, index, sizeBytes, index, apply);
}

function entryBytes(call: Call, index: number, length: number, done: number, apply: () => void): Entry {
  const address = add(call.struct.u64(8), mul(index, length));
  const bytes = call.bytesAt(address, length);
  if (bytes !== undefined) return { bytes };
  if (probeBuffer(call, address, length, false) === 'fault')
    return { end: refused('EFAULT', 'invalidate.entry-fault', done, apply) };
  call.unknown('payload not recorded');
  return { end: undefined };
}

/** The largest block that kmalloc gives. */
const MAX_COPY_BYTES = 4 * 1024 * 1024;

/**
 * All entries, read before the first is done (`iommu_copy_struct_from_full_user_array`); or how the call ends. Longer ones
 * must end in zeroes, shorter ones are filled up with them.
 */
export function allEntries(
  call: Call,
  count: number,
  sizeBytes: number,
  dataType: number,
): Bytes[] | { readonly end: Outcome | undefined } {
  if (count * sizeBytes > MAX_COPY_BYTES) return { end: refused('ENOMEM', 'invalidate.memory') };
  if (call.struct.u32(16) !== dataType) return { end: refused('EINVAL', 'invalidate.data-type') };
  if (count === 0) return { end: refused('EINVAL', 'invalidate.empty') };
  const length = call.struct.u32(20);
  const entries: Bytes[] = [];
  for (let index = 0; index < count; index++) {
    const entry = entryBytes(call, index, length, 0, () => {});
    if ('end' in entry) return entry;
    if (length > sizeBytes && !entry.bytes.isZero(sizeBytes)) return { end: refused('E2BIG', 'invalidate.entry-tail') };
    entries.push(entry.bytes);
  }
  return entries;
}

/** A 32-bit field, 0 where the entry does not reach. */
export function word(entry: Bytes, at: number): number {
  if (entry.has(at, 4)) return entry.u32(at);
  let value = 0;
  for (let i = 0; i < 4 && entry.has(at + i, 1); i++) value += entry.u8(at + i) * 2 ** (8 * i);
  return value;
}
