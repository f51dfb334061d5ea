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

/**
 * Splits bytes into lines of UTF-8 text, in groups so that nobody waits once per line. A line of more than
 * `maxBytes` is cut there and the rest of it dropped as it arrives: memory stays bounded whatever comes.
 */
export async function* textLines(source: AsyncIterable<Uint8Array>, maxBytes: number): AsyncGenerator<TextLine[]> {
  const rest = new LineRest(maxBytes);
  let line = 0;
  for await (const chunk of source) {
    const bytes = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
    const lines: TextLine[] = [];
    let from = 0;
    for (let at = bytes.indexOf(NEWLINE); at !== -1; at = bytes.indexOf(NEWLINE, from)) {
      lines.push(rest.finish(bytes.subarray(from, at), ++line, false));
      from = at + 1;
    }
    rest.keep(bytes.subarray(from));
    if (lines.length > 0) yield lines;
  }
  if (!rest.empty) yield [rest.finish(Buffer.alloc(0), ++line, true)];
}

/** The beginning of a line whose end has not arrived. */
class LineRest {
  readonly #max: number;
  #parts: Buffer[] = [];
  #bytes = 0;
  #tooLong = false;

  constructor(max: number) {
    this.#max = max;
  }

  get empty(): boolean {
    return this.#bytes === 0;
  }

  keep(part: Buffer): void {
    if (part.length === 0) return;
    const room = this.#max - this.#bytes;
    if (part.length > room) this.#tooLong = true;
    if (room <= 0) return;
    this.#parts.push(Buffer.from(part.subarray(0, room)));
    this.#bytes += Math.min(part.length, room);
  }

  finish(tail: Buffer, line: number, last: boolean): TextLine {
    if (this.#parts.length === 0 && tail.length <= this.#max)
      return { text: tail.toString('utf8'), line, last, tooLong: false };
    this.keep(tail);
    const made = { text: Buffer.concat(this.#parts).toString('utf8'), line, last, tooLong: this.#tooLong };
    this.#parts = [];
    this.#bytes = 0;
    this.#tooLong = false;
    return made;
  }
}
