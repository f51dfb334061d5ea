import { Bytes } from '../core/bytes.js';
import type { MemNote } from '../core/event.js';
import { lastOf, sub, type U64 } from '../core/u64.js';

/** What an answer of the kernel is made of: the values that a prediction has, and the bytes that a recording shows. */

/** A prediction of bytes that the kernel writes. */
export interface OutWrite {
  readonly addr: U64;
  readonly bytes: Bytes;
  readonly field: string;
  /** `predicted`: must be recorded so. `learned`: taken over now, as a new fact. `unknown`: not compared. */
  readonly how: 'predicted' | 'learned' | 'unknown';
}

/** One of several answers: an error, or '' for success, and the rule that gives it. */
export interface PossibleAnswer {
  readonly errno: string;
  readonly rule: string;
}

/** The bytes of the note that begins at `addr`, which is the first one as a rule; empty where none does. */
export function bytesFrom(notes: readonly MemNote[], addr: U64): Bytes {
  for (const note of notes) if (note.addr === addr) return note.bytes;
  return Bytes.EMPTY;
}

/** `count` bytes at `addr` out of one of the notes. */
export function find(notes: readonly MemNote[], addr: U64, count: number): Bytes | undefined {
  for (const note of notes) {
    if (addr < note.addr) continue;
    const noteLast = lastOf(note.addr, note.bytes.length);
    if (noteLast === undefined || addr > noteLast) continue;
    const at = sub(addr, note.addr);
    if (typeof at === 'number' && note.bytes.has(at, count)) return note.bytes.slice(at, count);
  }
  return undefined;
}

/** Why a call is unknown that depends on what event `seq` left open; compare.ts looks for how it ends. */
export function unknownSinceText(what: string, seq: number): string {
  return `${what} unknown since event ${seq}`;
}
