import { Packr } from 'msgpackr';
import { Bytes } from '../../core/bytes.js';
import type { Event, EventBatch, MemNote } from '../../core/event.js';
import type { U64 } from '../../core/u64.js';
import { isPlainMsgpack } from './guard.js';
import { CODEC, type Codec, KIND_INDEX, LAYOUTS, type Layout, SCHEMA_VERSION, upcast } from './schema.js';

/**
 * The inside of a chunk: MessagePack of `[strings, blob, tuples]`.
 *
 * Text stands once in `strings` and is named by its index; all memory of the chunk stands in one `blob`, in the order
 * in which the tuples name it, so that reading makes one small object per note and no buffer. Positions, times
 * and lines are differences to the event before (the first event's to 0), which makes them small and alike.
 */
export const MAX_CHUNK_VALUES = 1 << 20;
const MAX_DEPTH = 4;

const packr = new Packr({ useRecords: false, int64AsType: 'bigint', variableMapSize: true });

/** Thrown while decoding and caught by the reader: this chunk holds something that no writer writes. */
export class ChunkDamage extends Error {}

export class ChunkEncoder {
  #strings: string[] = [];
  #stringIndex = new Map<string, number>();
  #stringChars = 0;
  #bytes: Bytes[] = [];
  #blobBytes = 0;
  #tuples: unknown[][] = [];
  #values = 0;
  #firstSeq = 0;
  #seq = 0;
  #tsNs = 0;
  #line = 0;

  get count(): number {
    return this.#tuples.length;
  }

  get firstSeq(): number {
    return this.#firstSeq;
  }

  /** Roughly the bytes that {@link finish} gives, to end a chunk early when its events are large. */
  get weightBytes(): number {
    return this.#values * 4 + this.#stringChars * 2 + this.#blobBytes;
  }

  get values(): number {
    return this.#values;
  }

  add(event: Event): void {
    const kind = KIND_INDEX.get(event.kind) as number;
    const { names, codecs } = LAYOUTS[kind] as Layout;
    const fields = event as unknown as { readonly [name: string]: unknown };
    const tuple: unknown[] = [kind];
    if (this.#tuples.length === 0) this.#firstSeq = event.seq;
    for (let i = 0; i < codecs.length; i++)
      tuple.push(this.#encode(codecs[i] as Codec, fields[names[i] as string], event));
    this.#seq = event.seq;
    this.#tsNs = event.tsNs;
    this.#line = event.line;
    this.#values += tuple.length + 1;
    this.#tuples.push(tuple);
  }

  /** The bytes of the chunk; the encoder is then empty again. */
  finish(): Buffer {
    const blob = Buffer.allocUnsafe(this.#blobBytes);
    let at = 0;
    for (const bytes of this.#bytes) {
      bytes.copyTo(blob, at);
      at += bytes.length;
    }
    const packed = packr.pack([this.#strings, blob, this.#tuples]);
    this.#strings = [];
    this.#stringIndex = new Map();
    this.#bytes = [];
    this.#tuples = [];
    this.#stringChars = this.#blobBytes = this.#values = 0;
    this.#seq = this.#tsNs = this.#line = 0;
    return packed;
  }

  #encode(codec: Codec, value: unknown, event: Event): unknown {
    switch (codec) {
      case CODEC.seq:
        return (value as number) - this.#seq;
      case CODEC.tsNs:
        return (value as number) - this.#tsNs;
      case CODEC.line:
        return (value as number) - this.#line;
      case CODEC.enteredAt:
        return event.seq - (value as number);
      case CODEC.string:
        return this.#string(value as string);
      case CODEC.bytes:
        return this.#blob(value as Bytes);
      case CODEC.notes: {
        const flat: U64[] = [];
        for (const note of value as readonly MemNote[]) flat.push(note.addr, this.#blob(note.bytes));
        this.#values += flat.length;
        return flat;
      }
      case CODEC.strings: {
        const indexes = (value as readonly string[]).map((text) => this.#string(text));
        this.#values += indexes.length;
        return indexes;
      }
      case CODEC.int32s:
        this.#values += (value as readonly number[]).length;
        return (value as readonly number[]).map(checkedInt32);
      case CODEC.int32:
        return checkedInt32(value as number);
      case CODEC.u64:
        return checkedU64(value as U64);
      default:
        return value;
    }
  }

  #string(text: string): number {
    const known = this.#stringIndex.get(text);
    if (known !== undefined) return known;
    const index = this.#strings.length;
    this.#strings.push(text);
    this.#stringIndex.set(text, index);
    this.#stringChars += text.length;
    this.#values++;
    return index;
  }

  #blob(bytes: Bytes): number {
    this.#bytes.push(bytes);
    this.#blobBytes += bytes.length;
    return bytes.length;
  }
}

// An event that breaks the contract would make its chunk unreadable later: better to stop while it is written.

function checkedInt32(value: number): number {
  if (value >= -0x8000_0000 && value <= 0xffff_ffff && Number.isInteger(value)) return value;
  throw new RangeError(`tape: ${value} does not fit 32 bits`);
}

function checkedU64(value: U64): U64 {
  if (typeof value === 'number' ? Number.isSafeInteger(value) && value >= 0 : isLarge(value)) return value;
  throw new RangeError(`tape: ${value} is no canonical 64-bit value`);
}

/** Whether a bigint is one that only a bigint can hold. */
function isLarge(value: bigint): boolean {
  return value > 0x1f_ffff_ffff_ffffn && value < 1n << 64n;
}

/** The events of a chunk's bytes, every field checked. Throws {@link ChunkDamage}. */
export function decodeChunk(raw: Uint8Array, schema: number = SCHEMA_VERSION): EventBatch {
  if (!isPlainMsgpack(raw, MAX_CHUNK_VALUES, MAX_DEPTH)) throw new ChunkDamage('not the encoding of a chunk');
  const parts: unknown = packr.unpack(raw);
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
    if (typeof value === 'bigint' && isLarge(value)) return value;
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
