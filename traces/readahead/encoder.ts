import { Bytes } from '../../core/bytes.js';
import type { Event, EventBatch, IoctlEvent, MemNote } from '../../core/event.js';
import { high32, low32, type U64 } from '../../core/u64.js';
import type { FastKind } from '../strace/fast-lines.js';
import { KIND_INDEX, LAYOUTS, type Layout } from '../tape/schema.js';
import { type EncodedBatch, ENTERED_BEFORE, HOT, INJECTED, NO_RET, VALUE, WIDE_RET } from './batch.js';

type HotEvent = Extract<Event, { kind: FastKind }>;

/** The most that a hot event writes beside its notes: head 8 and fields 6; time, entry, result and 3 U64 of 3 each. */
const HOT_INTS = 16;
const HOT_WIDES = 14;
const NOTE_WIDES = 3;

/** Text that is kept for the whole stream is bounded in number and length: hostile input has a new path in every line. */
const MAX_SHARED = 16_384;
const MAX_SHARED_CHARS = 256;

const KIND = {
  ioctl: kindIndex('ioctl'),
  mmap: kindIndex('mmap'),
  munmap: kindIndex('munmap'),
  mprotect: kindIndex('mprotect'),
  madvise: kindIndex('madvise'),
  close: kindIndex('close'),
} as const;

function kindIndex(kind: FastKind): number {
  return KIND_INDEX.get(kind) as number;
}

/** Writes the batches of one stream; {@link BatchDecoder} reads them in the same order. See batch.ts for the form. */
export class BatchEncoder {
  #ints = new Int32Array(1 << 16);
  #intAt = 0;
  #wides = new Float64Array(1 << 15);
  #wideAt = 0;
  #blob = new Uint8Array(1 << 18);
  #blobAt = 0;
  #seq = 0;
  readonly #indexes = new Map<string, number>();
  #shared: string[] = [];
  #own: string[] = [];
  #lastPath = '';
  #lastPathIndex = 0;

  constructor() {
    // Index 0 is the empty text: most calls have no errno.
    this.#text('');
  }

  encode(batch: EventBatch): EncodedBatch {
    this.#intAt = this.#wideAt = this.#blobAt = 0;
    for (const event of batch) {
      if (!this.#isHot(event)) this.#plain(event);
      this.#seq = event.seq + 1;
    }
    const shared = this.#shared;
    const own = this.#own;
    this.#shared = [];
    this.#own = [];
    return {
      count: batch.length,
      ints: this.#ints.slice(0, this.#intAt),
      wides: this.#wides.slice(0, this.#wideAt),
      blob: this.#blob.slice(0, this.#blobAt),
      shared,
      own,
    };
  }

  // ---- events in fixed order -------------------------------------------------------------------------------

  /** Writes the event where its kind and its numbers are the usual ones; false where nothing was written. */
  #isHot(event: Event): boolean {
    switch (event.kind) {
      case 'ioctl':
        return this.#ioctl(event);
      case 'mmap':
        if (!(isInt(event.prot) && isInt(event.flags) && isInt(event.fd) && this.#range(event, KIND.mmap)))
          return false;
        this.#int(event.prot);
        this.#int(event.flags);
        this.#int(event.fd);
        this.#int(this.#path(event.path));
        this.#u64(event.offset);
        return true;
      case 'munmap':
        return this.#range(event, KIND.munmap);
      case 'mprotect':
        if (!(isInt(event.prot) && this.#range(event, KIND.mprotect))) return false;
        this.#int(event.prot);
        return true;
      case 'madvise':
        if (!(isInt(event.advice) && this.#range(event, KIND.madvise))) return false;
        this.#int(event.advice);
        return true;
      case 'close':
        if (!(isInt(event.fd) && this.#head(event, KIND.close))) return false;
        this.#int(event.fd);
        this.#int(this.#path(event.path));
        return true;
      default:
        return false;
    }
  }

  #ioctl(event: IoctlEvent): boolean {
    if (!isInt(event.fd) || event.request >>> 0 !== event.request || !this.#head(event, KIND.ioctl)) return false;
    this.#int(event.fd);
    this.#int(this.#path(event.path));
    this.#int(event.request | 0);
    this.#u64(event.arg);
    this.#notes(event.memIn);
    this.#notes(event.memOut);
    return true;
  }

  #range(event: Extract<HotEvent, { lengthBytes: U64 }>, kind: number): boolean {
    if (!this.#head(event, kind)) return false;
    this.#u64(event.addr);
    this.#u64(event.lengthBytes);
    return true;
  }

  /** What all calls have, after making room for the whole event but its notes. */
  #head(event: HotEvent, kind: number): boolean {
    const { seq, pid, tid, file, line, enteredAt, ret } = event;
    if (seq !== this.#seq || !isInt(pid) || !isInt(tid) || !isInt(file) || !isInt(line)) return false;
    this.#reserve(HOT_INTS, HOT_WIDES);
    const ints = this.#ints;
    let at = this.#intAt;
    let word = kind | HOT;
    if (event.injected) word |= INJECTED;
    this.#wides[this.#wideAt++] = event.tsNs;
    if (enteredAt !== seq) {
      word |= ENTERED_BEFORE;
      this.#wides[this.#wideAt++] = enteredAt;
    }
    const wordAt = at++;
    ints[at++] = pid;
    ints[at++] = tid;
    ints[at++] = file;
    ints[at++] = line;
    ints[at++] = event.errno === '' ? 0 : this.#text(event.errno);
    if (ret === null) word |= NO_RET;
    else if (typeof ret === 'number' && isInt(ret)) ints[at++] = ret;
    else {
      word |= WIDE_RET;
      this.#u64(ret);
    }
    ints[wordAt] = word;
    this.#intAt = at;
    return true;
  }

  #notes(notes: readonly MemNote[]): void {
    const count = notes.length;
    this.#reserve(HOT_INTS + count, HOT_WIDES + count * NOTE_WIDES);
    this.#int(count);
    for (let i = 0; i < count; i++) {
      const note = notes[i] as MemNote;
      this.#u64(note.addr);
      this.#bytes(note.bytes);
    }
  }

  // ---- any event -------------------------------------------------------------------------------------------

  #plain(event: Event): void {
    const kind = KIND_INDEX.get(event.kind) as number;
    const { names } = LAYOUTS[kind] as Layout;
    const fields = event as unknown as { readonly [name: string]: unknown };
    this.#reserve(1, 0);
    this.#int(kind);
    for (const name of names) this.#value(fields[name], name !== 'text');
  }

  /** `recurs`: such text comes again, and is worth a place among what the stream shares. */
  #value(value: unknown, recurs: boolean): void {
    this.#reserve(2, NOTE_WIDES);
    switch (typeof value) {
      case 'number':
        return this.#number(value);
      case 'string':
        this.#int(VALUE.text);
        return this.#int(recurs ? this.#text(value) : this.#ownText(value));
      case 'boolean':
        return this.#int(value ? VALUE.true : VALUE.false);
      case 'bigint':
        this.#int(VALUE.bigint);
        return this.#u64(value);
      default:
        return this.#object(value);
    }
  }

  #number(value: number): void {
    if (isInt(value)) {
      this.#int(VALUE.int);
      this.#int(value);
    } else {
      this.#int(VALUE.wide);
      this.#wides[this.#wideAt++] = value;
    }
  }

  #object(value: unknown): void {
    if (value === null) return this.#int(VALUE.null);
    if (value instanceof Bytes) {
      this.#int(VALUE.bytes);
      return this.#bytes(value);
    }
    if (Array.isArray(value)) {
      this.#int(VALUE.list);
      this.#int(value.length);
      for (const item of value as readonly unknown[]) this.#value(item, true);
      return;
    }
    const { addr, bytes } = value as MemNote;
    if (!(bytes instanceof Bytes)) throw new TypeError('read-ahead: an event holds what no event can hold');
    this.#int(VALUE.note);
    this.#value(addr, true);
    this.#value(bytes, true);
  }

  // ---- parts; room has been made by the caller -------------------------------------------------------------

  #int(value: number): void {
    this.#ints[this.#intAt++] = value;
  }

  #u64(value: U64): void {
    if (typeof value === 'number') this.#wides[this.#wideAt++] = value;
    else this.#boxed(value);
  }

  #boxed(value: bigint): void {
    this.#wides[this.#wideAt++] = Number.NaN;
    this.#wides[this.#wideAt++] = high32(value);
    this.#wides[this.#wideAt++] = low32(value);
  }

  #bytes(bytes: Bytes): void {
    const { length } = bytes;
    this.#int(length);
    if (length === 0) return;
    const end = this.#blobAt + length;
    if (end > this.#blob.length) this.#growBlob(end);
    bytes.copyTo(this.#blob, this.#blobAt);
    this.#blobAt = end;
  }

  /** Calls on one file often follow each other. */
  #path(path: string): number {
    if (path === this.#lastPath) return this.#lastPathIndex;
    const index = this.#text(path);
    // What is not shared has its index in this batch only.
    if (index >= 0) {
      this.#lastPath = path;
      this.#lastPathIndex = index;
    }
    return index;
  }

  #text(text: string): number {
    const known = this.#indexes.get(text);
    if (known !== undefined) return known;
    const index = this.#indexes.size;
    if (index >= MAX_SHARED || text.length > MAX_SHARED_CHARS) return this.#ownText(text);
    this.#indexes.set(text, index);
    this.#shared.push(text);
    return index;
  }

  #ownText(text: string): number {
    return -this.#own.push(text);
  }

  #reserve(ints: number, wides: number): void {
    if (this.#intAt + ints > this.#ints.length) {
      const larger = new Int32Array(Math.max(this.#intAt + ints, this.#ints.length * 2));
      larger.set(this.#ints);
      this.#ints = larger;
    }
    if (this.#wideAt + wides > this.#wides.length) {
      const larger = new Float64Array(Math.max(this.#wideAt + wides, this.#wides.length * 2));
      larger.set(this.#wides);
      this.#wides = larger;
    }
  }

  #growBlob(bytes: number): void {
    const larger = new Uint8Array(Math.max(bytes, this.#blob.length * 2));
    larger.set(this.#blob.subarray(0, this.#blobAt));
    this.#blob = larger;
  }
}

function isInt(value: number): boolean {
  return (value | 0) === value;
}
