import type { IoEvent, OtherEvent } from '../../core/event.js';
import { add, max, parseU64, type U64 } from '../../core/u64.js';
import type { Families } from '../family.js';
import type { Tx } from '../tx.js';
import { fileOfFd, processOf } from './fds.js';

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
  const fd = Number(parts[1]);
  const file = fileOfFd(tx, processOf(tx, event), fd, annotationOf(event.text), event, families);
  if (file === undefined) return;
  const sizeBytes = newSize(event.call, file.sizeBytes, (parts[2] ?? '').split(', '));
  tx.world.files.set(file.id, Object.freeze({ ...file, sizeBytes }));
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
