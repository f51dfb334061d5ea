import { type FileHandle, open } from 'node:fs/promises';
import { promisify } from 'node:util';
import { brotliCompress, constants } from 'node:zlib';
import { type Diagnostic, InputError } from '../../core/errors.js';
import { BATCH_EVENTS, type EventBatch, type RecordingInfo } from '../../core/event.js';
import type { Recording } from '../recording.js';
import { MAX_CHUNK_VALUES } from './chunk-decoder.js';
import { ChunkEncoder } from './chunk-encoder.js';
import { footer, MAX_RECORD_BYTES, preamble, type RecordHeader, recordHeader } from './frame.js';
import { type ChunkEntry, headToJson, tailToJson } from './meta.js';
import { SCHEMA_VERSION } from './schema.js';

/** Where a tape's bytes go; appended in order. */
export interface TapeSink {
  write(bytes: Uint8Array): Promise<unknown>;
  close(): Promise<void>;
}

export interface TapeOptions {
  /** Events per chunk, at most (and by default) 4,096. */
  readonly chunkEvents?: number;
  /** Name and version of the program, for the head. */
  readonly writer?: string;
}

export interface TapeSummary {
  readonly events: number;
  readonly chunks: number;
  readonly bytes: number;
}

const CHUNK_WEIGHT_BYTES = 4 << 20;
const CHUNK_VALUES = MAX_CHUNK_VALUES / 2;
/** Chunks that are compressed at the same time, in threads of their own. */
const CHUNKS_IN_FLIGHT = 3;

const compress = promisify(brotliCompress);
// Quality 4: measured as good as gzip's best and several times faster; the large window costs memory for nothing.
const BROTLI = { params: { [constants.BROTLI_PARAM_QUALITY]: 4, [constants.BROTLI_PARAM_LGWIN]: 20 } };

interface Sealed {
  readonly compressed: Promise<Buffer>;
  readonly rawBytes: number;
  readonly count: number;
  readonly firstSeq: number;
}

/**
 * Writes a tape as events come. Memory holds a few chunks, whatever the length of the recording.
 *
 *     const tape = await TapeWriter.create('x.tape', recording.info);
 *     for await (const batch of recording.batches()) await tape.write(batch);
 *     await tape.finish(recording);
 *
 * Until {@link finish} the file is a torn tape: readable, up to the last whole chunk.
 */
export class TapeWriter {
  readonly #sink: TapeSink;
  readonly #chunkEvents: number;
  readonly #encoder = new ChunkEncoder();
  readonly #chunks: ChunkEntry[] = [];
  readonly #sealed: Sealed[] = [];
  #offset = 0;
  #events = 0;

  private constructor(sink: TapeSink, options: TapeOptions) {
    this.#sink = sink;
    this.#chunkEvents = Math.min(options.chunkEvents ?? BATCH_EVENTS, BATCH_EVENTS);
  }

  /** Creates (or empties) a file. `info` must be final. Throws `InputError` IOT301 where that is not possible. */
  static async create(path: string, info: RecordingInfo, options: TapeOptions = {}): Promise<TapeWriter> {
    let file: FileHandle;
    try {
      file = await open(path, 'w');
    } catch (error) {
      const message = `cannot write: ${error instanceof Error ? error.message : String(error)}`;
      throw new InputError({ code: 'IOT301', file: path, line: 0, column: 0, message });
    }
    const sink = { write: (bytes: Uint8Array) => file.appendFile(bytes), close: () => file.close() };
    return TapeWriter.to(sink, info, options);
  }

  /** Writes to anything. */
  static async to(sink: TapeSink, info: RecordingInfo, options: TapeOptions = {}): Promise<TapeWriter> {
    const tape = new TapeWriter(sink, options);
    const head = Buffer.from(headToJson({ writer: options.writer ?? 'iotape', info }));
    await tape.#append(preamble(SCHEMA_VERSION));
    await tape.#record({ type: 'H', rawBytes: head.length, count: 0, firstSeq: 0 }, head);
    return tape;
  }

  /** Appends events, which must follow those before in `seq`. Waits while too much is on its way to the disk. */
  async write(batch: EventBatch): Promise<void> {
    for (const event of batch) {
      const encoder = this.#encoder;
      encoder.add(event);
      this.#events++;
      if (
        encoder.count < this.#chunkEvents &&
        encoder.weightBytes < CHUNK_WEIGHT_BYTES &&
        encoder.values < CHUNK_VALUES
      )
        continue;
      this.#seal();
      if (this.#sealed.length >= CHUNKS_IN_FLIGHT) await this.#store();
    }
  }

  /** Writes what is left, the index and what the import reported, and closes the file. */
  async finish(about: {
    readonly diagnostics: readonly Diagnostic[];
    readonly skippedLines: number;
  }): Promise<TapeSummary> {
    if (this.#encoder.count > 0) this.#seal();
    while (this.#sealed.length > 0) await this.#store();
    const { diagnostics, skippedLines } = about;
    const raw = Buffer.from(tailToJson({ chunks: this.#chunks, diagnostics, skippedLines }));
    const indexOffset = this.#offset;
    await this.#record({ type: 'T', rawBytes: raw.length, count: 0, firstSeq: 0 }, await compress(raw, BROTLI));
    await this.#append(footer(indexOffset));
    await this.#sink.close();
    return { events: this.#events, chunks: this.#chunks.length, bytes: this.#offset };
  }

  /** Closes the file and leaves a torn tape. */
  async abort(): Promise<void> {
    await Promise.allSettled(this.#sealed.map((sealed) => sealed.compressed));
    await this.#sink.close();
  }

  #seal(): void {
    const { count, firstSeq } = this.#encoder;
    const raw = this.#encoder.finish();
    if (raw.length > MAX_RECORD_BYTES) throw new RangeError(`tape: ${count} events of ${raw.length} bytes`);
    this.#sealed.push({ compressed: compress(raw, BROTLI), rawBytes: raw.length, count, firstSeq });
  }

  async #store(): Promise<void> {
    const { compressed, rawBytes, count, firstSeq } = this.#sealed.shift() as Sealed;
    const payload = await compressed;
    this.#chunks.push({ offset: this.#offset, firstSeq, count });
    await this.#record({ type: 'C', rawBytes, count, firstSeq }, payload);
  }

  async #record(header: Omit<RecordHeader, 'payloadCrc' | 'payloadBytes'>, payload: Uint8Array): Promise<void> {
    await this.#append(Buffer.concat([recordHeader(header, payload), payload]));
  }

  async #append(bytes: Uint8Array): Promise<void> {
    this.#offset += bytes.length;
    await this.#sink.write(bytes);
  }
}

/**
 * Writes a whole recording to a file. When reading stops in the middle (a damaged gzip, IOT205), the tape is
 * finished with what there was and the error is thrown on.
 */
export async function writeTape(path: string, recording: Recording, options: TapeOptions = {}): Promise<TapeSummary> {
  let tape: TapeWriter | undefined;
  let failure: unknown;
  try {
    for await (const batch of recording.batches()) {
      tape ??= await TapeWriter.create(path, recording.info, options);
      await tape.write(batch);
    }
  } catch (error) {
    if (!(error instanceof InputError) || tape === undefined) {
      await tape?.abort();
      throw error;
    }
    failure = error;
  }
  tape ??= await TapeWriter.create(path, recording.info, options);
  const summary = await tape.finish(recording);
  if (failure !== undefined) throw failure;
  return summary;
}
