import { pack } from 'msgpackr';
import type { Bytes } from '../../core/bytes.js';
import type { Event, MemNote } from '../../core/event.js';
import type { U64 } from '../../core/u64.js';
import { PlainWriter } from './plain-writer.js';
import { CODEC, type Codec, isBoxed, KIND_INDEX, LAYOUTS, type Layout } from './schema.js';

/**
 * The inside of a chunk: MessagePack of `[strings, blob, tuples]`.
 *
 * Text stands once in `strings` and is named by its index; all memory of the chunk stands in one `blob`, in the order
 * in which the tuples name it, so that reading makes one small object per note and no buffer. Positions, times
 * and lines are differences to the event before (the first event's to 0), which makes them small and alike.
 */
export class ChunkEncoder {
  readonly #tuples = new PlainWriter(1 << 18);
  #blob: Uint8Array = new Uint8Array(1 << 16);
  #blobBytes = 0;
  #strings: string[] = [];
  #stringIndex = new Map<string, number>();
  #stringChars = 0;
  #count = 0;
  #values = 0;
  #firstSeq = 0;
  #seq = 0;
  #tsNs = 0;
  #line = 0;

  get count(): number {
    return this.#count;
  }

  get firstSeq(): number {
    return this.#firstSeq;
  }

  /** Roughly the bytes that {@link finish} gives, to end a chunk early when its events are large. */
  get weightBytes(): number {
    return this.#tuples.length + this.#blobBytes + this.#stringChars * 2;
  }

  /** MessagePack values so far; see {@link MAX_CHUNK_VALUES}. */
  get values(): number {
    return this.#values;
  }

  /** Throws `RangeError` for an event that breaks the contract: it could not be read again. */
  add(event: Event): void {
    const kind = KIND_INDEX.get(event.kind) as number;
    const { names, codecs } = LAYOUTS[kind] as Layout;
    const fields = event as unknown as { readonly [name: string]: unknown };
    if (this.#count === 0) this.#firstSeq = event.seq;
    const tuples = this.#tuples;
    tuples.array(codecs.length + 1);
    tuples.integer(kind);
    for (let i = 0; i < codecs.length; i++) this.#encode(codecs[i] as Codec, fields[names[i] as string], event.seq);
    this.#values += codecs.length + 2;
    this.#count++;
  }

  /** The bytes of the chunk; the encoder is then empty again. */
  finish(): Buffer {
    const head = Buffer.from([0x90 | 3]);
    const strings = pack(this.#strings);
    const blobHead = Buffer.from([0xc6, 0, 0, 0, 0]);
    blobHead.writeUInt32BE(this.#blobBytes, 1);
    const tuplesHead = Buffer.from([0xdd, 0, 0, 0, 0]);
    tuplesHead.writeUInt32BE(this.#count, 1);
    const blob = this.#blob.subarray(0, this.#blobBytes);
    const chunk = Buffer.concat([head, strings, blobHead, blob, tuplesHead, this.#tuples.take()]);
    this.#strings = [];
    this.#stringIndex = new Map();
    this.#stringChars = this.#blobBytes = this.#values = this.#count = 0;
    this.#seq = this.#tsNs = this.#line = 0;
    return chunk;
  }

  #encode(codec: Codec, value: unknown, seq: number): void {
    const tuples = this.#tuples;
    switch (codec) {
      case CODEC.seq:
        tuples.integer(checkedCount(value as number) - this.#seq);
        this.#seq = value as number;
        return;
      case CODEC.tsNs:
        tuples.integer(checkedCount(value as number) - this.#tsNs);
        this.#tsNs = value as number;
        return;
      case CODEC.line:
        tuples.integer(checkedCount(value as number) - this.#line);
        this.#line = value as number;
        return;
      case CODEC.enteredAt:
        return tuples.integer(checkedCount(seq - (value as number)));
      case CODEC.index:
        return tuples.integer(checkedCount(value as number));
      case CODEC.int32:
        return tuples.integer(checkedInt32(value as number));
      case CODEC.u64:
        return tuples.u64(checkedU64(value as U64));
      case CODEC.u64OrNull:
        return value === null ? tuples.nil() : tuples.u64(checkedU64(value as U64));
      case CODEC.ret:
        if (value === null) return tuples.nil();
        return value === -1 ? tuples.integer(-1) : tuples.u64(checkedU64(value as U64));
      case CODEC.string:
        return tuples.integer(this.#string(value as string));
      case CODEC.bool:
        return tuples.boolean(value as boolean);
      case CODEC.bytes:
        return this.#bytes(value as Bytes);
      case CODEC.notes:
        return this.#notes(value as readonly MemNote[]);
      case CODEC.int32s:
        this.#list((value as readonly number[]).map(checkedInt32));
        return;
      case CODEC.strings:
        this.#list((value as readonly string[]).map((text) => this.#string(text)));
    }
  }

  #list(integers: readonly number[]): void {
    this.#tuples.array(integers.length);
    for (const integer of integers) this.#tuples.integer(integer);
    this.#values += integers.length;
  }

  #notes(notes: readonly MemNote[]): void {
    this.#tuples.array(notes.length * 2);
    for (const note of notes) {
      this.#tuples.u64(checkedU64(note.addr));
      this.#bytes(note.bytes);
    }
    this.#values += notes.length * 2;
  }

  #bytes(bytes: Bytes): void {
    const end = this.#blobBytes + bytes.length;
    if (end > this.#blob.length) {
      const larger = new Uint8Array(Math.max(end, this.#blob.length * 2));
      larger.set(this.#blob.subarray(0, this.#blobBytes));
      this.#blob = larger;
    }
    bytes.copyTo(this.#blob, this.#blobBytes);
    this.#blobBytes = end;
    this.#tuples.integer(bytes.length);
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
}

// An event that breaks the contract would make its chunk unreadable later: better to stop while it is written.

function checkedCount(value: number): number {
  if (value >= 0 && Number.isSafeInteger(value)) return value;
  throw new RangeError(`tape: ${value} is no position, time or line`);
}

function checkedInt32(value: number): number {
  if (value >= -0x8000_0000 && value <= 0xffff_ffff && Number.isInteger(value)) return value;
  throw new RangeError(`tape: ${value} does not fit 32 bits`);
}

function checkedU64(value: U64): U64 {
  if (typeof value === 'number' ? Number.isSafeInteger(value) && value >= 0 : isBoxed(value)) return value;
  throw new RangeError(`tape: ${value} is no canonical 64-bit value`);
}
