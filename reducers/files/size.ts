import type { IoEvent, OtherEvent } from '../../core/event.js';
import type { Interval } from '../../core/interval.js';
import { add, alignDown, alignUp, max, parseU64, sub, type U64, U64_MAX } from '../../core/u64.js';
import type { Families } from '../family.js';
import type { Tx } from '../tx.js';
import { fileOfFd, processOf } from './fds.js';
import type { OpenFile } from './state.js';
import { PAGE_BYTES } from '../memory/flags.js';

/**
 * How long a memory file is, as far as the recording tells: nothing after memfd_create, then what ftruncate
 * and fallocate make of it. A page beyond the end cannot be pinned (mm/shmem.c, SIGBUS). Writing may make a file
 * longer: after a write at an unknown position its size is unknown.
 *
 * These calls reach us as plain text (`other`), the way strace prints arguments: `3</memfd:x>, 4096`.
 */
const ARGUMENTS = /^(-?\d+)(?:<.*>(?:\([a-z]+\))?)?, (.*)$/;
const FALLOC_FL_KEEP_SIZE = /KEEP_SIZE|PUNCH_HOLE/;

export function followSize(tx: Tx, event: IoEvent | OtherEvent, families: Families): void {
  if (event.ret === null || event.ret === -1) return;
  if (event.kind === 'io') {
    if (event.call.includes('write')) written(tx, event, families);
  } else if (event.call === 'ftruncate' || event.call === 'ftruncate64' || event.call === 'fallocate') {
    resized(tx, event, families);
  }
}

function written(tx: Tx, event: IoEvent, families: Families): void {
  const file = fileOfFd(tx, processOf(tx, event), event.fd, event.path, event, families);
  if (file === undefined || file.sizeBytes === null || event.ret === null || event.ret === -1) return;
  const size = event.offset === null ? null : max(file.sizeBytes, add(event.offset, event.ret));
  tx.world.files.set(file.id, Object.freeze({ ...file, sizeBytes: size }));
}

function resized(tx: Tx, event: OtherEvent, families: Families): void {
  const parts = ARGUMENTS.exec(event.text);
  if (parts === null) return;
  const file = resizedFile(tx, event, families);
  if (file === undefined) return;
  const sizeBytes = newSize(event.call, file.sizeBytes, (parts[2] ?? '').split(', '));
  tx.world.files.set(file.id, Object.freeze({ ...file, sizeBytes }));
}

/** The file that ftruncate or fallocate is about. */
export function resizedFile(tx: Tx, event: OtherEvent, families: Families): OpenFile | undefined {
  const fd = ARGUMENTS.exec(event.text)?.[1];
  if (fd === undefined) return undefined;
  return fileOfFd(tx, processOf(tx, event), Number(fd), annotationOf(event.text), event, families);
}

/**
 * What a call takes out of a memory file, as offsets: what ftruncate cuts off, with the copies that were made of it, or whole pages
 * that fallocate punches out. Undefined where it takes nothing, or does not say what.
 */
export function takenPart({ call, text }: OtherEvent): (Interval & { readonly evenCopies: boolean }) | undefined {
  const [, , rest = ''] = ARGUMENTS.exec(text) ?? [];
  const [first = '', offset = '', length = ''] = rest.split(', ');
  if (call !== 'fallocate') {
    const size = parseU64(first);
    return size === undefined ? undefined : { start: alignUp(size, PAGE_BYTES), last: U64_MAX, evenCopies: true };
  }
  const from = parseU64(offset);
  const count = parseU64(length);
  if (!first.includes('PUNCH_HOLE') || from === undefined || count === undefined) return undefined;
  const start = alignUp(from, PAGE_BYTES);
  const end = alignDown(add(from, count), PAGE_BYTES);
  return end > start ? { start, last: sub(end, 1), evenCopies: false } : undefined;
}

function newSize(call: string, before: U64 | null, rest: readonly string[]): U64 | null {
  if (call !== 'fallocate') return parseU64(rest[0] ?? '') ?? null;
  const [mode = '', offset = '', length = ''] = rest;
  const from = parseU64(offset);
  const count = parseU64(length);
  if (FALLOC_FL_KEEP_SIZE.test(mode)) return before;
  if (from === undefined || count === undefined || before === null) return null;
  return max(before, add(from, count));
}

/** The text between `<` and `>` after the fd, as event.path of other calls has it. */
function annotationOf(text: string): string {
  const open = text.indexOf('<');
  const close = text.lastIndexOf('>');
  if (open < 0 || close < open || text.indexOf(',') < open) return '';
  return text.slice(open + 1, close);
}
