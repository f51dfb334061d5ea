import { Bytes, putU32, putU64 } from './bytes.js';
import type { U64 } from './u64.js';

const ARENA_BYTES = 4096;

/**
 * Makes the bytes of small values; typed arrays are too slow to make one for each. What was given is never written again, as
 * `Bytes` asks: a used-up piece is left to whoever still holds a part of it.
 */
export class Arena {
  #piece: Uint8Array = new Uint8Array(ARENA_BYTES);
  #at = 0;

  of32(value: number): Bytes {
    const at = this.#room(4);
    putU32(this.#piece, at, value);
    return new Bytes(this.#piece, at, 4);
  }

  of64(value: U64): Bytes {
    const at = this.#room(8);
    putU64(this.#piece, at, value);
    return new Bytes(this.#piece, at, 8);
  }

  #room(count: number): number {
    if (this.#at + count > this.#piece.length) {
      this.#piece = new Uint8Array(ARENA_BYTES);
      this.#at = 0;
    }
    this.#at += count;
    return this.#at - count;
  }
}
