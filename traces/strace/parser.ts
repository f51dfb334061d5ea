import type { EventBatch } from '../../core/event.js';
import { DiagnosticLog } from '../diagnostic-log.js';
import { type BlockSink, type BlockState, LineBlocks } from '../input/line-blocks.js';
import { Context } from './context.js';
import { FastLines } from './fast-lines.js';
import { SlowLines } from './slow-lines.js';

export interface ParserOptions {
  /** Name for diagnostics. */
  readonly fileName?: string;
  /** Index of the file in the recording, for `event.file`. */
  readonly file?: number;
  /** Thread of lines that carry no number; of a file FILE.N it is N. */
  readonly baseTid?: number;
  readonly log?: DiagnosticLog;
  /** False reads every line by the slow, complete reader: for tests that both agree. */
  readonly fast?: boolean;
  /** Longest line kept; see {@link LineBlocks}. */
  readonly maxLineBytes?: number;
}

const NEWLINE = 10;

/**
 * Turns the bytes of one strace text into events: push chunks, take batches, and at the end `end()` and take the
 * rest. Synchronous and without any input of its own, so that it can run wherever the bytes are.
 */
export class StraceParser implements BlockSink {
  readonly #context: Context;
  readonly #blocks: LineBlocks;
  readonly #fast: FastLines | undefined;
  readonly #slow: SlowLines;
  #ended = false;

  constructor(options: ParserOptions = {}) {
    const log = options.log ?? new DiagnosticLog();
    this.#context = new Context(options.file ?? 0, options.fileName ?? '-', options.baseTid ?? 0, log);
    this.#blocks = new LineBlocks(this, options.maxLineBytes);
    this.#fast = options.fast === false ? undefined : new FastLines(this.#context);
    this.#slow = new SlowLines(this.#context);
  }

  /** The chunk may be reused by the caller afterwards. */
  push(chunk: Uint8Array): void {
    this.#blocks.push(chunk);
  }

  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#blocks.end();
    this.#slow.end();
  }

  /** At most 4,096 complete events in tape order; empty where none is ready. */
  take(): EventBatch {
    return this.#context.recorder.take(this.#ended);
  }

  /** How many events wait to be taken, complete or not: whether it is worth while to {@link take} some. */
  get waiting(): number {
    return this.#context.recorder.waiting;
  }

  get skippedLines(): number {
    return this.#context.skippedLines;
  }

  /** The clock of the text: its kind, and the time of its first line. */
  get clock(): { readonly kind: 'none' | 'epoch' | 'day' | 'relative'; readonly startNs: bigint } {
    return this.#context.clock;
  }

  block(buffer: Uint8Array, from: number, to: number, state: BlockState): void {
    const context = this.#context;
    const fast = state === 'whole' ? this.#fast : undefined;
    let at = context.line === 0 ? afterByteOrderMark(buffer, from, to) : from;
    while (at < to) {
      context.line++;
      let next = fast === undefined || this.#slow.inside ? -1 : fast.line(buffer, at);
      if (next < 0) {
        next = buffer.indexOf(NEWLINE, at) + 1;
        this.#slow.line(textOf(buffer, at, next - 1), state);
      }
      at = next;
    }
  }
}

/** Byte for byte: strace escapes all that is not ASCII, and what is not strace's must not be lost either. */
function textOf(buffer: Uint8Array, from: number, to: number): string {
  return Buffer.from(buffer.buffer, buffer.byteOffset + from, to - from).toString('latin1');
}

function afterByteOrderMark(buffer: Uint8Array, from: number, to: number): number {
  const marked = to - from >= 3 && buffer[from] === 0xef && buffer[from + 1] === 0xbb && buffer[from + 2] === 0xbf;
  return marked ? from + 3 : from;
}
