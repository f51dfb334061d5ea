import { Unpackr } from 'msgpackr';
import { Bytes } from '../../core/bytes.js';
import type { Event, EventBatch, MemNote } from '../../core/event.js';
import type { U64 } from '../../core/u64.js';
import { isPlainMsgpack } from './guard.js';
import { CODEC, type Codec, isBoxed, LAYOUTS, SCHEMA_VERSION, upcast } from './schema.js';

/** More values than any writer puts into one chunk; the reader's bound on what a chunk may build. */
export const MAX_CHUNK_VALUES = 1 << 20;
const MAX_DEPTH = 4;

const unpackr = new Unpackr({ useRecords: false, int64AsType: 'bigint' });

/** Thrown while decoding and caught by the reader: this chunk holds something that no writer writes. */
export class ChunkDamage extends Error {}

/** The events of a chunk's bytes, every field checked. Throws {@link ChunkDamage}. */
export function decodeChunk(raw: Uint8Array, schema: number = SCHEMA_VERSION): EventBatch {
  if (!isPlainMsgpack(raw, MAX_CHUNK_VALUES, MAX_DEPTH)) throw new ChunkDamage('not the encoding of a chunk');
  const parts: unknown = unpackr.unpack(raw);
  if (!Array.isArray(parts) || parts.length !== 3) throw new ChunkDamage('not a chunk');
  const [strings, blob, tuples] = parts as unknown[];
  if (!isStrings(strings) || !(blob instanceof Uint8Array) || !Array.isArray(tuples))
    throw new ChunkDamage('not a chunk');
  const decoder = new ChunkDecoder(strings, blob);
  const events: Event[] = [];
  for (const tuple of tuples as unknown[]) {
    if (!Array.isArray(tuple)) throw new ChunkDamage('an event is no tuple');
    events.push(decoder.event(schema === SCHEMA_VERSION ? tuple : upcast(tuple, schema)));
  }
  return events;
}

function isStrings(value: unknown): value is readonly string[] {
  return Array.isArray(value) && value.every((item) => typeof item === 'string');
}

class ChunkDecoder {
  readonly #strings: readonly string[];
  readonly #blob: Uint8Array;
  #blobAt = 0;
  #seq = 0;
  #tsNs = 0;
  #line = 0;
  #kind = '';

  constructor(strings: readonly string[], blob: Uint8Array) {
    this.#strings = strings;
    this.#blob = blob;
  }

  event(tuple: readonly unknown[]): Event {
    const layout = LAYOUTS[typeof tuple[0] === 'number' ? tuple[0] : -1];
    if (layout === undefined) throw new ChunkDamage('an event of an unknown kind');
    const { names, codecs } = layout;
    this.#kind = layout.kind;
    if (tuple.length !== names.length + 1) this.#damage('has the wrong number of fields');
    const event: Record<string, unknown> = { ...layout.blank };
    for (let i = 0; i < codecs.length; i++) event[names[i] as string] = this.#decode(codecs[i] as Codec, tuple[i + 1]);
    return event as unknown as Event;
  }

  #damage(what: string): never {
    throw new ChunkDamage(`${this.#kind} event ${what}`);
  }

  #decode(codec: Codec, value: unknown): unknown {
    switch (codec) {
      case CODEC.seq:
        this.#seq = this.#count(this.#integer(value) + this.#seq);
        return this.#seq;
      case CODEC.tsNs:
        this.#tsNs = this.#count(this.#integer(value) + this.#tsNs);
        return this.#tsNs;
      case CODEC.line:
        this.#line = this.#count(this.#integer(value) + this.#line);
        return this.#line;
      case CODEC.enteredAt:
        return this.#count(this.#seq - this.#count(this.#integer(value)));
      case CODEC.int32:
        return this.#int32(value);
      case CODEC.index:
        return this.#count(this.#integer(value));
      case CODEC.u64:
        return this.#u64(value);
      case CODEC.u64OrNull:
        return value === null ? null : this.#u64(value);
      case CODEC.ret:
        return value === null || value === -1 ? value : this.#u64(value);
      case CODEC.string:
        return this.#string(value);
      case CODEC.bool:
        return typeof value === 'boolean' ? value : this.#damage('has no boolean where one belongs');
      case CODEC.bytes:
        return this.#bytes(value);
      case CODEC.notes:
        return this.#notes(this.#array(value));
      case CODEC.int32s:
        return this.#array(value).map((item) => this.#int32(item));
      case CODEC.strings:
        return this.#array(value).map((item) => this.#string(item));
    }
  }

  #integer(value: unknown): number {
    if (typeof value === 'number' && Number.isSafeInteger(value)) return value;
    return this.#damage('has no integer where one belongs');
  }

  #count(value: number): number {
    return value >= 0 && value <= Number.MAX_SAFE_INTEGER ? value : this.#damage('has a number out of range');
  }

  #int32(value: unknown): number {
    const integer = this.#integer(value);
    return integer >= -0x8000_0000 && integer <= 0xffff_ffff ? integer : this.#damage('has a number out of range');
  }

  /** Only canonical values pass: a bigint that fits a number would be equal to nothing. */
  #u64(value: unknown): U64 {
    if (typeof value === 'number') return this.#count(this.#integer(value));
    if (typeof value === 'bigint' && isBoxed(value)) return value;
    return this.#damage('has no 64-bit value where one belongs');
  }

  #string(value: unknown): string {
    return this.#strings[this.#integer(value)] ?? this.#damage('names a text that is not there');
  }

  #bytes(value: unknown): Bytes {
    const length = this.#count(this.#integer(value));
    const from = this.#blobAt;
    if (from + length > this.#blob.length) this.#damage('names bytes that are not there');
    this.#blobAt = from + length;
    return length === 0 ? Bytes.EMPTY : new Bytes(this.#blob, from, length);
  }

  #array(value: unknown): readonly unknown[] {
    return Array.isArray(value) ? value : this.#damage('has no list where one belongs');
  }

  #notes(flat: readonly unknown[]): readonly MemNote[] {
    if (flat.length === 0) return NO_NOTES;
    if (flat.length % 2 !== 0) this.#damage('has half a memory note');
    const notes: MemNote[] = [];
    for (let i = 0; i < flat.length; i += 2) notes.push({ addr: this.#u64(flat[i]), bytes: this.#bytes(flat[i + 1]) });
    return notes;
  }
}

const NO_NOTES: readonly MemNote[] = Object.freeze([]);
