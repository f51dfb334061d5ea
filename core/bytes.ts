import { fromHalves, high32, low32, type U64 } from './u64.js';

const HEX = '0123456789abcdef';

/** Up to here a loop is faster than a call that makes a view. */
const FEW_BYTES = 128;

/**
 * An immutable run of bytes: what a recording says that memory holds.
 *
 * It is a view into a buffer that nobody writes to any more, so that an importer decodes a whole batch
 * of payloads into one buffer and each event costs one small object. The buffer is private, so no
 * reader can change it. All multi-byte reads are little endian, as on every machine whose recordings
 * carry payloads. Reads past the end throw `RangeError`: callers ask {@link length} first.
 */
export class Bytes {
  readonly #buffer: Uint8Array;
  readonly #offset: number;
  readonly length: number;
  static readonly EMPTY: Bytes = new Bytes(new Uint8Array(0), 0, 0);

  /** Takes the buffer over: the caller must not write to this part of it again. */
  constructor(buffer: Uint8Array, offset = 0, length: number = buffer.length - offset) {
    this.#buffer = buffer;
    this.#offset = offset;
    this.length = length;
  }

  /** Pairs of hex digits, as the caller has checked; other characters count as zero. */
  static fromHex(text: string): Bytes {
    const bytes = new Uint8Array(text.length >> 1);
    for (let i = 0; i < bytes.length; i++) bytes[i] = Number.parseInt(text.slice(i * 2, i * 2 + 2), 16);
    return new Bytes(bytes);
  }

  /** Whether `count` bytes from `at` are there. */
  has(at: number, count: number): boolean {
    return at >= 0 && count >= 0 && at + count <= this.length;
  }

  #check(at: number, count: number): number {
    if (!this.has(at, count)) throw new RangeError(`Bytes: ${count} bytes at ${at} of ${this.length}`);
    return this.#offset + at;
  }

  u8(at: number): number {
    return this.#buffer[this.#check(at, 1)] as number;
  }

  u16(at: number): number {
    const b = this.#buffer;
    const i = this.#check(at, 2);
    return (b[i] as number) | ((b[i + 1] as number) << 8);
  }

  u32(at: number): number {
    const b = this.#buffer;
    const i = this.#check(at, 4);
    return (
      ((b[i] as number) | ((b[i + 1] as number) << 8) | ((b[i + 2] as number) << 16) | ((b[i + 3] as number) << 24)) >>>
      0
    );
  }

  /** A signed 32-bit value, such as an fd in a struct. */
  s32(at: number): number {
    return this.u32(at) | 0;
  }

  u64(at: number): U64 {
    this.#check(at, 8);
    return fromHalves(this.u32(at), this.u32(at + 4));
  }

  slice(at: number, count: number = this.length - at): Bytes {
    return new Bytes(this.#buffer, this.#check(at, count), count);
  }

  /** The NUL-terminated string at `at`, or all that is there when no NUL follows. */
  cString(at = 0): string {
    let text = '';
    for (let i = at; i < this.length; i++) {
      const byte = this.u8(i);
      if (byte === 0) break;
      text += String.fromCharCode(byte);
    }
    return text;
  }

  equals(other: Bytes): boolean {
    return this.length === other.length && this.equalsAt(0, other, 0, this.length);
  }

  /** Whether `count` bytes at `at` equal those of `other` at `otherAt`; both ranges must exist. */
  equalsAt(at: number, other: Bytes, otherAt: number, count: number): boolean {
    const a = this.#buffer;
    const b = other.#buffer;
    let i = this.#check(at, count);
    let j = other.#check(otherAt, count);
    for (const end = i + count; i < end; i++, j++) if (a[i] !== b[j]) return false;
    return true;
  }

  isZero(at = 0, count: number = this.length - at): boolean {
    const from = this.#check(at, count);
    for (let i = from; i < from + count; i++) if (this.#buffer[i] !== 0) return false;
    return true;
  }

  toHex(): string {
    let text = '';
    for (let i = 0; i < this.length; i++) {
      const byte = this.u8(i);
      text += (HEX[byte >> 4] as string) + (HEX[byte & 15] as string);
    }
    return text;
  }

  /** A copy that the caller may write to. */
  toUint8Array(): Uint8Array {
    return this.#buffer.slice(this.#offset, this.#offset + this.length);
  }

  /** Copies into `target`; saves the allocation of {@link toUint8Array}. */
  copyTo(target: Uint8Array, targetAt: number): void {
    const b = this.#buffer;
    const from = this.#offset;
    const { length } = this;
    if (length > FEW_BYTES || targetAt + length > target.length) {
      target.set(b.subarray(from, from + length), targetAt);
      return;
    }
    for (let i = 0; i < length; i++) target[targetAt + i] = b[from + i] as number;
  }

  toJSON(): string {
    return this.toHex();
  }
}

/** Writes a little-endian 64-bit value. */
export function putU64(target: Uint8Array, at: number, value: U64): void {
  putU32(target, at, low32(value));
  putU32(target, at + 4, high32(value));
}

/** Writes a little-endian 32-bit value. */
export function putU32(target: Uint8Array, at: number, value: number): void {
  target[at] = value & 0xff;
  target[at + 1] = (value >>> 8) & 0xff;
  target[at + 2] = (value >>> 16) & 0xff;
  target[at + 3] = value >>> 24;
}
