import { Bytes } from '../../../core/bytes.js';
import type { U64 } from '../../../core/u64.js';
import type { Call } from '../../call.js';
import type { DmaMapping } from '../state.js';
import { USER_PTR_MAX } from '../uapi.js';

/**
 * Dirty bitmaps of type1: one bit for each page of the smallest size, counted from the IOVA that was asked for.
 *
 * A container with a device behind a real IOMMU cannot know what was written, so every page of its mappings
 * is dirty. The kernel writes whole 64-bit words; where two mappings share one, it reads the word back first
 * and adds to it (`update_user_bitmap`). Only the part that the recording shows is computed.
 */

const SIZE_MAX = 1n << 28n;
const SHOWN_MAX = 1 << 16;
const PAGES_PER_WORD = 64n;

/** Checks a `struct vfio_bitmap` at `at` against a range of `size` bytes: user memory, and large enough. */
export function bitmapArgumentFits(struct: Bytes, at: number, size: U64): boolean {
  const pageBytes = BigInt(struct.u64(at));
  const bitmapBytes = BigInt(struct.u64(at + 8));
  const data = BigInt(struct.u64(at + 16));
  if (data + bitmapBytes > BigInt(USER_PTR_MAX)) return false;
  const pages = BigInt(size) / (pageBytes === 0n ? 1n : pageBytes & -pageBytes);
  if (pages === 0n || bitmapBytes === 0n || bitmapBytes > SIZE_MAX) return false;
  return bitmapBytes >= wordsFor(pages) * 8n;
}

function wordsFor(pages: bigint): bigint {
  return (pages + PAGES_PER_WORD - 1n) / PAGES_PER_WORD;
}

/** What one call writes into the caller's bitmap. */
export class DirtyReport {
  readonly #call: Call;
  readonly #data: U64;
  readonly #base: bigint;
  readonly #pageBytes: bigint;
  readonly #shown: Uint8Array;
  #known = true;

  /** `data`: address of the bitmap; `base`: IOVA of its first bit. */
  constructor(call: Call, data: U64, base: U64, pageBytes: number) {
    this.#call = call;
    this.#data = data;
    this.#base = BigInt(base);
    this.#pageBytes = BigInt(pageBytes);
    const before = call.memIn.find((note) => note.addr === data)?.bytes ?? Bytes.EMPTY;
    this.#shown = before.slice(0, Math.min(before.length, SHOWN_MAX)).toUint8Array();
  }

  /** Adds one mapping inside the range. */
  add(mapping: DmaMapping): void {
    if (!mapping.pinned) {
      // What a mediated driver pinned or wrote is its own affair and not in the recording.
      this.#known = false;
      return;
    }
    const firstBit = (BigInt(mapping.start) - this.#base) / this.#pageBytes;
    const bits = (BigInt(mapping.last) - BigInt(mapping.start) + 1n) / this.#pageBytes;
    const wordBit = (firstBit / PAGES_PER_WORD) * PAGES_PER_WORD;
    const shift = firstBit - wordBit;
    const endByte = (wordBit >> 3n) + wordsFor(bits + shift) * 8n;
    const stop = endByte < BigInt(this.#shown.length) ? Number(endByte) : this.#shown.length;
    const from = Number(wordBit >> 3n);
    for (let byte = from; byte < stop; byte++) {
      const kept = shift !== 0n && byte < from + 8 ? (this.#shown[byte] as number) : 0;
      this.#shown[byte] = kept | ones(byte * 8, Number(firstBit), Number(firstBit + bits));
    }
  }

  /** Makes the prediction of the bytes. */
  predict(): void {
    if (this.#shown.length === 0) return;
    if (this.#known) this.#call.outBytes(this.#data, new Bytes(this.#shown), 'bitmap');
    else this.#call.outUnknown(this.#data, this.#shown.length, 'pages that mediated devices made dirty');
  }
}

/** The byte whose first bit is `bit`, with the bits `first..end` (exclusive) set. */
function ones(bit: number, first: number, end: number): number {
  let byte = 0;
  for (let i = 0; i < 8; i++) if (bit + i >= first && bit + i < end) byte |= 1 << i;
  return byte;
}
