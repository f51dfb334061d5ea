import { Bytes } from '../../../core/bytes.js';
import { add, fromBig, type U64 } from '../../../core/u64.js';
import type { Call } from '../../call.js';
import { probeBuffer } from '../../iommufd/user-buffer.js';
import type { Tx } from '../../tx.js';
import { hasDomain } from '../containers.js';
import type { DirtyBits, DmaMapping, VfioContainer } from '../state.js';
import { USER_PTR_MAX } from '../uapi.js';

/**
 * Dirty bitmaps of type1: one bit for each page of the smallest size, counted from the IOVA that was asked for.
 *
 * While a group with a real IOMMU is in the container nobody can know what was written, so every page that this IOMMU
 * maps is dirty (`num_non_pinned_groups`). Otherwise dirty is what drivers of mediated devices have pinned or
 * written; and once, when the last such group leaves while tracking is on, every page of every mapping
 * (`vfio_iommu_populate_bitmap_full`).
 *
 * A mapping has a bitmap of its own, from START or its MAP on, with a word more than its pages need
 * (`update_user_bitmap`). Where its first page is not the first of a word, the kernel shifts that bitmap in place, adds
 * the caller's first word to it, and copies whole words out. Afterwards it clears the bits of the pages, so what
 * was shifted beyond them stays, and shows in the next report. Only the part that the recording shows is computed.
 */

/** Why a call is unknown that depends on whether tracking is on. */
export const TRACKING_UNKNOWN =
  'whether dirty tracking is on is not in the recording: a DIRTY_PAGES before has no payload';

const SIZE_MAX = 1n << 28n;
const SHOWN_MAX = 1 << 16;
const PAGES_PER_WORD = 64n;
const BYTES_PER_WORD = 8n;

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

/** What one call writes into the caller's bitmap, mapping by mapping, lowest first. */
export class DirtyReport {
  readonly #call: Call;
  readonly #container: VfioContainer;
  readonly #data: U64;
  readonly #base: bigint;
  readonly #pageBytes: bigint;
  readonly #shown: Uint8Array;
  readonly #hasDomain: boolean;
  /** Nothing is pinned through the container but by its IOMMU, so that nothing else is dirty. */
  readonly #quiet: boolean;
  #unknown = '';

  /** `data`: address of the bitmap; `base`: IOVA of its first bit. */
  constructor(call: Call, container: VfioContainer, data: U64, base: U64) {
    this.#call = call;
    this.#container = container;
    this.#data = data;
    this.#base = BigInt(base);
    this.#pageBytes = BigInt(container.pageBytes);
    const before = call.memIn.find((note) => note.addr === data)?.bytes ?? Bytes.EMPTY;
    this.#shown = before.slice(0, Math.min(before.length, SHOWN_MAX)).toUint8Array();
    this.#hasDomain = hasDomain(call.tx, container);
    this.#quiet = isQuiet(call.tx, container);
  }

  /** Adds one mapping inside the range. Gives what its bitmap holds afterwards, or `fault`. */
  add(mapping: DmaMapping): DirtyBits | 'fault' {
    const firstBit = (BigInt(mapping.start) - this.#base) / this.#pageBytes;
    const bits = (BigInt(mapping.last) - BigInt(mapping.start) + 1n) / this.#pageBytes;
    const shift = firstBit % PAGES_PER_WORD;
    const words = wordsFor(bits + shift);
    const from = (firstBit / PAGES_PER_WORD) * BYTES_PER_WORD;
    if (this.#faults(from, words * BYTES_PER_WORD, shift !== 0n)) return 'fault';
    const held = this.#container.bitmaps.get(mapping.start);
    const pages = this.#pagesOf(mapping, held);
    const word = shift === 0n ? 0n : this.#shownWord(from, bits);
    if (pages === undefined || word === undefined || held?.tail === null) {
      this.#unknown ||= 'what the bitmap held before is not in the recording';
      return { whole: false, tail: null };
    }
    const tail = held === undefined || held.tail === '' ? 0n : BigInt(`0x${held.tail}`);
    this.#write(from, words, shift, bits, pages, tail, word);
    const after = tailAfter(bits, shift, words, pages, tail, word);
    return { whole: false, tail: after === 0n ? '' : after.toString(16) };
  }

  /** Whether all pages of a mapping are dirty or none; undefined where drivers of mediated devices say. */
  #pagesOf(mapping: DmaMapping, held: DirtyBits | undefined): boolean | undefined {
    if (mapping.pinned && this.#hasDomain) return true;
    if (held?.whole) return true;
    if (this.#quiet) return false;
    this.#unknown ||= 'which pages mediated devices have pinned or written is not in the recording';
    return undefined;
  }

  #faults(from: bigint, count: bigint, reads: boolean): boolean {
    const at = add(this.#data, fromBig(from));
    if (reads && probeBuffer(this.#call, at, Number(BYTES_PER_WORD), false) === 'fault') return true;
    return probeBuffer(this.#call, at, fromBig(count), true) === 'fault';
  }

  /** The caller's word, which the kernel adds; it may be any where none of its bits can be seen. */
  #shownWord(from: bigint, bits: bigint): bigint | undefined {
    const { buffer, byteOffset, length } = this.#shown;
    if (from + BYTES_PER_WORD <= BigInt(length))
      return new DataView(buffer, byteOffset).getBigUint64(Number(from), true);
    return from >= BigInt(length) && bits >= PAGES_PER_WORD ? 0n : undefined;
  }

  #write(from: bigint, words: bigint, shift: bigint, bits: bigint, pages: boolean, tail: bigint, word: bigint): void {
    const shown = BigInt(this.#shown.length);
    const end = from + words * BYTES_PER_WORD;
    const first = pages ? Number(shift) : 0;
    const past = pages ? Number(shift + bits) : 0;
    const stop = end < shown ? end : shown;
    for (let at = from; at < stop; at++) this.#shown[Number(at)] = ones(Number(at - from) * 8, first, past);
    this.#or(from, stop, 0n, word);
    this.#or(from, stop, shift + bits, tail);
  }

  /** Adds bits that begin at bit `offset` from byte `from`. */
  #or(from: bigint, stop: bigint, offset: bigint, value: bigint): void {
    let rest = value << (offset % 8n);
    for (let at = from + offset / 8n; rest !== 0n && at < stop; at++) {
      this.#shown[Number(at)] = (this.#shown[Number(at)] as number) | Number(rest & 0xffn);
      rest >>= 8n;
    }
  }

  /** Makes the prediction of the bytes. */
  predict(): void {
    if (this.#shown.length === 0) return;
    if (this.#unknown === '') this.#call.outBytes(this.#data, new Bytes(this.#shown), 'bitmap');
    else this.#call.outUnknown(this.#data, this.#shown.length, this.#unknown);
  }
}

/**
 * Whether no driver of a mediated device can have pinned or written pages through the container: the kernel's sample
 * drivers never do, and a device that was not opened cannot.
 */
function isQuiet(tx: Tx, container: VfioContainer): boolean {
  for (const device of tx.world.devices.values()) {
    if (!container.groups.includes(device.group)) continue;
    if (device.driver === 'mdev' || device.driver === 'unknown') return false;
  }
  return true;
}

/** The byte whose first bit is `bit`, with the bits `first..end` (exclusive) set. */
function ones(bit: number, first: number, end: number): number {
  let byte = 0;
  for (let i = 0; i < 8; i++) if (bit + i >= first && bit + i < end) byte |= 1 << i;
  return byte;
}

/** The bits beyond the pages after a report: those of the whole words that were shifted, the others as before. */
function tailAfter(bits: bigint, shift: bigint, words: bigint, pages: boolean, tail: bigint, word: bigint): bigint {
  if (shift === 0n) return tail;
  const kept = (tail >> (words * PAGES_PER_WORD - bits)) << (words * PAGES_PER_WORD - bits);
  let moved = tail << shift;
  if (pages) moved |= bits >= shift ? (1n << shift) - 1n : ((1n << bits) - 1n) << (shift - bits);
  if (bits < PAGES_PER_WORD) moved |= word >> bits;
  return kept | BigInt.asUintN(Number(words * PAGES_PER_WORD - bits), moved);
}
