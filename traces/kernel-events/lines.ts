import { type BlockSink, type BlockState, LineBlocks } from '../input/line-blocks.js';

const NEWLINE = 10;

/** One line of text with its number, from 1. */
export interface TextLine {
  readonly text: string;
  readonly line: number;
  /** No newline follows: the recording may have ended in the middle of it. */
  readonly last: boolean;
  /** It was longer than the reader keeps; `text` holds its beginning. */
  readonly tooLong: boolean;
}

/** Splits bytes into lines of UTF-8 text, those of a chunk at once. Memory is bounded by the chunk and one line. */
export async function* textLines(source: AsyncIterable<Uint8Array>): AsyncGenerator<readonly TextLine[]> {
  const collector = new LineCollector();
  const blocks = new LineBlocks(collector);
  for await (const chunk of source) {
    blocks.push(chunk);
    yield collector.take();
  }
  blocks.end();
  yield collector.take();
}

class LineCollector implements BlockSink {
  #lines: TextLine[] = [];
  #line = 0;

  take(): readonly TextLine[] {
    const lines = this.#lines;
    this.#lines = [];
    return lines;
  }

  block(buffer: Uint8Array, from: number, to: number, state: BlockState): void {
    const bytes = Buffer.from(buffer.buffer, buffer.byteOffset, buffer.byteLength);
    for (let at = from; at < to; ) {
      const newline = bytes.indexOf(NEWLINE, at);
      const text = bytes.toString('utf8', at, newline);
      this.#lines.push({ text, line: ++this.#line, last: state === 'open', tooLong: state === 'cut' });
      at = newline + 1;
    }
  }
}
