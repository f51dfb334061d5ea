import { createHash } from 'node:crypto';
import { Bytes } from './bytes.js';
import { OrderedMap } from './ordered-map.js';
import { high32, low32, U64_MAX, type U64 } from './u64.js';

/**
 * The canonical encoding: equal states give equal bytes, whatever way they were reached.
 * Object fields are written in order of their names, maps in order of their keys; `undefined` fields are
 * left out. Every value starts with a tag and carries its length, so no two values share an encoding. A table of more than
 * {@link INLINE_ENTRIES} entries stands there by the sha256 of its entries: tables that snapshots or processes share, such
 * as the address spaces of forks, are gone through once, however many hold them.
 */
export type Canonical =
  | undefined
  | null
  | boolean
  | U64
  | string
  | Bytes
  | readonly Canonical[]
  | { readonly [field: string]: unknown }
  | OrderedMap<never, unknown>;

const FLUSH_BYTES = 1 << 16;
const MAX_SAFE = BigInt(Number.MAX_SAFE_INTEGER);
const LONE_SURROGATE = /\p{Surrogate}/u;

const INLINE_ENTRIES = 16;

class Encoder {
  /** Of this encoding only: a second hash of a snapshot must find out whether somebody touched it. */
  readonly #digests = new Map<object, Buffer>();
  #buffer = Buffer.allocUnsafe(FLUSH_BYTES * 2);
  #at = 0;
  #sink: (chunk: Buffer) => void;

  constructor(sink: (chunk: Buffer) => void) {
    this.#sink = sink;
  }

  flush(): void {
    this.#sink(this.#buffer.subarray(0, this.#at));
    this.#at = 0;
  }

  #room(count: number): void {
    if (this.#at + count <= this.#buffer.length) return;
    this.flush();
    if (count > this.#buffer.length) this.#buffer = Buffer.allocUnsafe(count * 2);
  }

  #tag(tag: string, length?: number): void {
    this.#room(5);
    this.#buffer[this.#at++] = tag.charCodeAt(0);
    if (length !== undefined) this.#at = this.#buffer.writeUInt32LE(length, this.#at);
  }

  #text(tag: string, value: string): void {
    // UTF-8 has one replacement for all lone surrogates (a JSON recording may hold some), UTF-16 keeps them apart.
    const lone = LONE_SURROGATE.test(value);
    const encoding = lone ? 'utf16le' : 'utf8';
    const length = Buffer.byteLength(value, encoding);
    this.#tag(lone ? tag.toUpperCase() : tag, length);
    this.#room(length);
    this.#at += this.#buffer.write(value, this.#at, encoding);
  }

  #number(value: number): void {
    if (Number.isSafeInteger(value) && value >= 0) {
      this.#tag('u');
      this.#room(8);
      this.#at = this.#buffer.writeUInt32LE(low32(value), this.#at);
      this.#at = this.#buffer.writeUInt32LE(high32(value), this.#at);
    } else {
      this.#tag('d');
      this.#room(8);
      this.#buffer.writeDoubleLE(value, this.#at);
      // NaN has many bit patterns, and which one a machine makes is no part of the value.
      if (Number.isNaN(value)) this.#buffer.fill(0xff, this.#at, this.#at + 8);
      this.#at += 8;
    }
  }

  #bigint(value: bigint): void {
    if (value > MAX_SAFE && value <= U64_MAX) {
      this.#tag('U');
      this.#room(8);
      this.#at = this.#buffer.writeBigUInt64LE(value, this.#at);
    } else {
      this.#text('i', value.toString()); // no U64: negative, beyond 64 bits, or not in canonical form
    }
  }

  value(value: unknown): void {
    switch (typeof value) {
      case 'undefined':
        return this.#tag('_');
      case 'boolean':
        return this.#tag(value ? 't' : 'f');
      case 'number':
        return this.#number(value);
      case 'bigint':
        return this.#bigint(value);
      case 'string':
        return this.#text('s', value);
      case 'object':
        if (value === null) return this.#tag('0');
        return this.#object(value);
      default:
        throw new TypeError(`canonical: a ${typeof value} has no encoding`);
    }
  }

  #table(table: OrderedMap<U64 | string, unknown>): void {
    const isInline = table.size <= INLINE_ENTRIES;
    this.#tag(isInline ? 'm' : 'M', table.size);
    if (isInline) {
      this.#entries(table);
      return;
    }
    const known = table.isFrozen ? this.#digests.get(table.root) : undefined;
    const digest = known ?? this.#digest(table);
    if (table.isFrozen) this.#digests.set(table.root, digest);
    this.#room(digest.length);
    this.#at += digest.copy(this.#buffer, this.#at);
  }

  #entries(table: OrderedMap<U64 | string, unknown>): void {
    for (const [key, item] of table) {
      this.value(key);
      this.value(item);
    }
  }

  #digest(table: OrderedMap<U64 | string, unknown>): Buffer {
    this.flush();
    const outer = this.#sink;
    const hash = createHash('sha256');
    this.#sink = (chunk) => hash.update(chunk);
    this.#entries(table);
    this.flush();
    this.#sink = outer;
    return hash.digest();
  }

  #object(value: object): void {
    if (value instanceof Bytes) {
      this.#tag('b', value.length);
      this.#room(value.length);
      value.copyTo(this.#buffer, this.#at);
      this.#at += value.length;
    } else if (value instanceof OrderedMap) {
      this.#table(value);
    } else if (Array.isArray(value)) {
      this.#tag('a', value.length);
      for (const item of value) this.value(item);
    } else {
      const proto: unknown = Object.getPrototypeOf(value);
      if (proto !== Object.prototype && proto !== null)
        throw new TypeError('canonical: a class instance has no encoding');
      const record = value as Record<string, unknown>;
      const names = Object.keys(record)
        .filter((name) => record[name] !== undefined)
        .sort();
      this.#tag('o', names.length);
      for (const name of names) {
        this.#text('k', name);
        this.value(record[name]);
      }
    }
  }
}

/** The canonical bytes of a value. Throws `TypeError` on functions, symbols and unknown classes: our bug. */
export function encodeCanonical(value: unknown): Buffer {
  const chunks: Buffer[] = [];
  const encoder = new Encoder((chunk) => chunks.push(Buffer.from(chunk)));
  encoder.value(value);
  encoder.flush();
  return Buffer.concat(chunks);
}

/** sha256 of the canonical bytes, in hex; the state hash of a snapshot. */
export function hashCanonical(value: unknown): string {
  const hash = createHash('sha256');
  const encoder = new Encoder((chunk) => hash.update(chunk));
  encoder.value(value);
  encoder.flush();
  return hash.digest('hex');
}
