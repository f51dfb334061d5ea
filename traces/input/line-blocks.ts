/**
 * Cuts a stream of chunks into blocks of whole lines.
 *
 * A parser that works on bytes wants to run through a chunk without asking at every step whether the line ends
 * inside it. So each block handed over ends with a newline, and lines that lie across chunks are put
 * together in a side buffer: only those bytes are copied. A line longer than the limit is handed over
 * cut, and the rest of it is skipped, so that a file without newlines costs no memory.
 */
export interface BlockSink {
  /**
   * `buffer[from..to)` is one or more whole lines, the last byte a newline. The bytes are only good during
   * the call. `state` says what is special about the (then single) line of the block.
   */
  block(buffer: Uint8Array, from: number, to: number, state: BlockState): void;
}

/** `cut`: only the beginning of a too long line. `open`: the last line of the input, which had no newline. */
export type BlockState = 'whole' | 'cut' | 'open';

export const MAX_LINE_BYTES = 1 << 20;
const NEWLINE = 10;

export class LineBlocks {
  readonly #sink: BlockSink;
  readonly #max: number;
  #kept: Uint8Array = new Uint8Array(4096);
  #keptBytes = 0;
  /** Inside the rest of a line that was already handed over cut. */
  #skipping = false;

  constructor(sink: BlockSink, maxLineBytes: number = MAX_LINE_BYTES) {
    this.#sink = sink;
    this.#max = maxLineBytes;
  }

  push(chunk: Uint8Array): void {
    let from = 0;
    if (this.#skipping || this.#keptBytes > 0) {
      const newline = chunk.indexOf(NEWLINE);
      if (newline < 0) return this.#keep(chunk, 0, chunk.length);
      this.#keep(chunk, 0, newline);
      this.#finish('whole');
      from = newline + 1;
    }
    const to = chunk.lastIndexOf(NEWLINE) + 1;
    if (to > from) this.#sink.block(chunk, from, to, 'whole');
    this.#keep(chunk, Math.max(from, to), chunk.length);
  }

  /** Hands over what stands after the last newline. */
  end(): void {
    if (this.#keptBytes > 0 || this.#skipping) this.#finish('open');
  }

  #keep(chunk: Uint8Array, from: number, to: number): void {
    if (this.#skipping || from >= to) return;
    const room = this.#max - this.#keptBytes;
    const count = Math.min(to - from, room);
    this.#reserve(this.#keptBytes + count + 1);
    this.#kept.set(chunk.subarray(from, from + count), this.#keptBytes);
    this.#keptBytes += count;
    if (count < to - from) {
      this.#hand('cut');
      this.#skipping = true;
    }
  }

  /** The end of the kept line was reached. */
  #finish(state: BlockState): void {
    if (this.#skipping) this.#skipping = false;
    else this.#hand(state);
  }

  #hand(state: BlockState): void {
    const bytes = this.#keptBytes;
    this.#reserve(bytes + 1);
    this.#kept[bytes] = NEWLINE;
    this.#keptBytes = 0;
    this.#sink.block(this.#kept, 0, bytes + 1, state);
  }

  #reserve(bytes: number): void {
    if (this.#kept.length >= bytes) return;
    const larger = new Uint8Array(Math.max(bytes, this.#kept.length * 2));
    larger.set(this.#kept.subarray(0, this.#keptBytes));
    this.#kept = larger;
  }
}
