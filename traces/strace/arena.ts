import { Bytes } from '../../core/bytes.js';

/**
 * Payload bytes of many events in few buffers: a writer appends, then takes a view of what it appended.
 * A buffer that is full is let go, and lives as long as views into it do.
 */
export class Arena {
  static readonly #blockBytes = 256 * 1024;
  /** Where to write: `bytes[at++] = value`, after {@link reserve}. */
  bytes: Uint8Array = new Uint8Array(Arena.#blockBytes);
  at = 0;

  /** Makes sure that `count` bytes can be written from {@link at} on; a block can move only here. */
  reserve(count: number): void {
    if (this.at + count <= this.bytes.length) return;
    this.bytes = new Uint8Array(Math.max(Arena.#blockBytes, count));
    this.at = 0;
  }

  /** The bytes from `from` up to where writing stands. */
  take(from: number): Bytes {
    return this.at === from ? Bytes.EMPTY : new Bytes(this.bytes, from, this.at - from);
  }
}
