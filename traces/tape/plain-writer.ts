import type { U64 } from '../../core/u64.js';

const LARGEST_VALUE_BYTES = 9;

/**
 * Appends MessagePack numbers, booleans, nil and array heads to one growing buffer.
 *
 * An event is a dozen small numbers; making an array of them for a general packer costs more than writing
 * them. Whole numbers above 32 bits are written as doubles and bigints as 64-bit integers, so that a
 * reader gets back the one that was written.
 */
export class PlainWriter {
  #bytes: Buffer;
  #view: DataView;
  #at = 0;

  constructor(capacity: number) {
    this.#bytes = Buffer.allocUnsafeSlow(capacity);
    this.#view = new DataView(this.#bytes.buffer);
  }

  /** How many bytes were written since the last {@link take}. */
  get length(): number {
    return this.#at;
  }

  /** The bytes so far, good until the next write; the writer begins anew. */
  take(): Buffer {
    const taken = this.#bytes.subarray(0, this.#at);
    this.#at = 0;
    return taken;
  }

  /** A whole number that a double holds exactly. */
  integer(value: number): void {
    if (this.#at + LARGEST_VALUE_BYTES > this.#bytes.length) this.#grow();
    const bytes = this.#bytes;
    if (value >= 0) {
      if (value < 0x80) {
        bytes[this.#at++] = value;
        return;
      }
      if (value < 0x100) {
        bytes[this.#at++] = 0xcc;
        bytes[this.#at++] = value;
        return;
      }
      if (value < 0x1_0000) return this.#big16(0xcd, value);
      if (value <= 0xffff_ffff) return this.#big32(0xce, value);
    } else {
      if (value >= -32) {
        bytes[this.#at++] = value;
        return;
      }
      if (value >= -0x8000_0000) return this.#big32(0xd2, value);
    }
    bytes[this.#at] = 0xcb;
    this.#view.setFloat64(this.#at + 1, value);
    this.#at += 9;
  }

  u64(value: U64): void {
    if (typeof value === 'number') return this.integer(value);
    if (this.#at + LARGEST_VALUE_BYTES > this.#bytes.length) this.#grow();
    this.#bytes[this.#at] = 0xcf;
    this.#view.setBigUint64(this.#at + 1, value);
    this.#at += 9;
  }

  nil(): void {
    this.#token(0xc0);
  }

  boolean(value: boolean): void {
    this.#token(value ? 0xc3 : 0xc2);
  }

  /** The head of an array; its `count` values follow. */
  array(count: number): void {
    if (count < 16) return this.#token(0x90 | count);
    if (this.#at + LARGEST_VALUE_BYTES > this.#bytes.length) this.#grow();
    if (count < 0x1_0000) this.#big16(0xdc, count);
    else this.#big32(0xdd, count);
  }

  #token(token: number): void {
    if (this.#at === this.#bytes.length) this.#grow();
    this.#bytes[this.#at++] = token;
  }

  #big16(token: number, value: number): void {
    const bytes = this.#bytes;
    bytes[this.#at++] = token;
    bytes[this.#at++] = value >>> 8;
    bytes[this.#at++] = value;
  }

  #big32(token: number, value: number): void {
    const bytes = this.#bytes;
    bytes[this.#at++] = token;
    bytes[this.#at++] = value >>> 24;
    bytes[this.#at++] = value >>> 16;
    bytes[this.#at++] = value >>> 8;
    bytes[this.#at++] = value;
  }

  #grow(): void {
    const larger = Buffer.allocUnsafeSlow(this.#bytes.length * 2);
    this.#bytes.copy(larger, 0, 0, this.#at);
    this.#bytes = larger;
    this.#view = new DataView(larger.buffer);
  }
}
