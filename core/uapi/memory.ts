import { Bytes } from '../bytes.js';
import type { MemNote } from '../event.js';
import { add, compareU64, sub, U64_MAX, type U64 } from '../u64.js';

interface Segment {
  readonly addr: U64;
  readonly bytes: Bytes;
}

/**
 * What a recording says of a process's memory at one moment: notes joined into segments that neither touch nor overlap,
 * so that one search finds what lies at an address, however many notes there are. Of notes that contradict each other
 * the first one counts.
 */
export class Memory {
  /** In the order of their addresses. */
  readonly segments: readonly Segment[];

  constructor(notes: readonly MemNote[]) {
    this.segments = notes.length > 1 ? join(notes) : notes.map(clip).filter((n) => n.bytes.length > 0);
  }

  /** How many bytes are known from `addr` on without a gap. */
  knownFrom(addr: U64): number {
    const segment = this.#find(addr);
    return segment === undefined ? 0 : segment.bytes.length - distance(segment.addr, addr);
  }

  /** `count` bytes at `addr`, or undefined where not all of them are known. */
  read(addr: U64, count: number): Bytes | undefined {
    if (count === 0) return Bytes.EMPTY;
    const segment = this.#find(addr);
    if (segment === undefined) return undefined;
    const at = distance(segment.addr, addr);
    return segment.bytes.has(at, count) ? segment.bytes.slice(at, count) : undefined;
  }

  #find(addr: U64): Segment | undefined {
    let low = 0;
    let high = this.segments.length - 1;
    while (low <= high) {
      const middle = (low + high) >> 1;
      const segment = this.segments[middle] as Segment;
      if (addr < segment.addr) high = middle - 1;
      else if (sub(addr, segment.addr) >= segment.bytes.length) low = middle + 1;
      else return segment;
    }
    return undefined;
  }
}

/** Only called for addresses within or right behind a segment, so the difference is small. */
function distance(from: U64, to: U64): number {
  return Number(sub(to, from));
}

/** Memory ends at 2^64: a note that would go on from 0 is cut there. */
function clip(note: MemNote): Segment {
  const room = sub(U64_MAX, note.addr);
  if (note.bytes.length === 0 || room >= note.bytes.length - 1) return note;
  return { addr: note.addr, bytes: note.bytes.slice(0, Number(room) + 1) };
}

function join(notes: readonly MemNote[]): readonly Segment[] {
  const ordered = notes
    .map((note, index) => ({ ...clip(note), index }))
    .filter((note) => note.bytes.length > 0)
    .sort((a, b) => compareU64(a.addr, b.addr) || a.index - b.index);
  const segments: Segment[] = [];
  for (let i = 0; i < ordered.length; ) {
    const first = ordered[i] as (typeof ordered)[number];
    let lengthBytes = first.bytes.length;
    let next = i + 1;
    for (; next < ordered.length; next++) {
      const note = ordered[next] as (typeof ordered)[number];
      if (sub(note.addr, first.addr) > lengthBytes) break;
      lengthBytes = Math.max(lengthBytes, distance(first.addr, note.addr) + note.bytes.length);
    }
    const group = ordered.slice(i, next);
    segments.push(group.length === 1 ? first : { addr: first.addr, bytes: paint(group, first.addr, lengthBytes) });
    i = next;
  }
  return segments;
}

/** Later notes first, so that the first one stands on top. */
function paint(group: readonly (Segment & { index: number })[], base: U64, lengthBytes: number): Bytes {
  const target = new Uint8Array(lengthBytes);
  for (const note of [...group].sort((a, b) => b.index - a.index)) {
    note.bytes.copyTo(target, distance(base, note.addr));
  }
  return new Bytes(target);
}

/** Where something `offset` bytes behind `addr` lies. */
export function behind(addr: U64, offset: number): U64 {
  return offset === 0 ? addr : add(addr, offset);
}
