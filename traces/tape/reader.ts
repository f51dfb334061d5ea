import { promisify } from 'node:util';
import { brotliDecompress, crc32 } from 'node:zlib';
import { type Diagnostic, InputError } from '../../core/errors.js';
import type { EventBatch, RecordingInfo } from '../../core/event.js';
import { DiagnosticLog } from '../diagnostic-log.js';
import type { Recording } from '../recording.js';
import { ChunkDamage, decodeChunk } from './chunk-decoder.js';
import {
  FOOTER_BYTES,
  MAGIC,
  PREAMBLE_BYTES,
  parseFooter,
  parsePreamble,
  parseRecordHeader,
  RECORD_HEADER_BYTES,
  type RecordType,
} from './frame.js';
import { footerOffset, scanChunks } from './index-scan.js';
import { type ChunkEntry, headFromJson, type TapeHead, type TapeTail, tailFromJson } from './meta.js';
import { SCHEMA_VERSION } from './schema.js';
import { fileStorage, type OpenStorage, type Storage } from './storage.js';

const decompress = promisify(brotliDecompress);

/**
 * A tape, open for reading.
 *
 * It is a {@link Recording} that may be read more than once and from any event: opening reads the head and the index
 * (or, where the index is missing, the headers of the chunks), reading takes one chunk at a time and has the
 * next one decompressed meanwhile. No file stays open between readings.
 */
export class Tape implements Recording {
  readonly info: RecordingInfo;
  /** Name and version of the program that wrote it, and the schema it wrote. */
  readonly writer: string;
  readonly schema: number;
  /** Format of the recording that was imported: `strace`, `kernel-events`. */
  readonly importedFrom: string;
  /** All chunks in order of their events. */
  readonly chunks: readonly ChunkEntry[];
  readonly #storage: Storage;
  readonly #imported: readonly Diagnostic[];
  readonly #log: DiagnosticLog;
  readonly #damaged = new Set<number>();
  #skipped: number;

  /** Made by {@link openTape}. */
  constructor(storage: Storage, schema: number, head: TapeHead, tail: TapeTail, log: DiagnosticLog) {
    this.info = { ...head.info, format: 'tape' };
    this.importedFrom = head.info.format;
    this.writer = head.writer;
    this.schema = schema;
    this.chunks = tail.chunks;
    this.#storage = storage;
    this.#imported = tail.diagnostics;
    this.#skipped = tail.skippedLines;
    this.#log = log;
  }

  /** What the import reported, then what is wrong with the tape itself. */
  get diagnostics(): readonly Diagnostic[] {
    return [...this.#imported, ...this.#log.list];
  }

  /** Lines that the import skipped, and events of damaged chunks, as far as they were met. */
  get skippedLines(): number {
    return this.#skipped;
  }

  /** Number of events, those of damaged chunks included. */
  get events(): number {
    return this.chunks.reduce((sum, chunk) => sum + chunk.count, 0);
  }

  /** The events from `fromSeq` on. A damaged chunk is left out and named (IOT121): `seq` then has a gap. */
  async *batches(fromSeq = 0): AsyncGenerator<EventBatch> {
    const first = this.#chunkOf(fromSeq);
    if (first >= this.chunks.length) return;
    const storage = await this.#storage.open();
    let next: Promise<EventBatch | undefined> = this.#chunk(storage, first);
    try {
      for (let at = first; at < this.chunks.length; at++) {
        const batch = await next;
        if (at + 1 < this.chunks.length) next = this.#chunk(storage, at + 1);
        // Nobody may wait for it when the reader stops here; its failure is then nobody's.
        next.catch(() => {});
        if (batch === undefined) continue;
        const wanted = at === first && fromSeq > 0 ? batch.filter((event) => event.seq >= fromSeq) : batch;
        if (wanted.length > 0) yield wanted;
      }
    } finally {
      await next.catch(() => {});
      await storage.close();
    }
  }

  /** Index of the first chunk that holds an event of at least `seq`. */
  #chunkOf(seq: number): number {
    let low = 0;
    let high = this.chunks.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      const { firstSeq, count } = this.chunks[middle] as ChunkEntry;
      if (firstSeq + count <= seq) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  async #chunk(storage: OpenStorage, index: number): Promise<EventBatch | undefined> {
    const entry = this.chunks[index] as ChunkEntry;
    try {
      const raw = await readRecord(storage, entry.offset, 'C', entry);
      const events = decodeChunk(raw, this.schema);
      if (events.length !== entry.count || events[0]?.seq !== entry.firstSeq)
        throw new ChunkDamage('not the events that the index names');
      return events;
    } catch (error) {
      if (!(error instanceof ChunkDamage)) throw error;
      if (!this.#damaged.has(index)) {
        this.#damaged.add(index);
        this.#skipped += entry.count;
        const events = `events ${entry.firstSeq} to ${entry.firstSeq + entry.count - 1}`;
        this.#log.add('IOT121', `${events} at byte ${entry.offset}: ${error.message}`, this.#storage.name);
      }
      return undefined;
    }
  }
}

/**
 * Opens a tape: a path, or bytes that are already in memory (see storage.ts). Throws `InputError`: IOT201 unreadable,
 * IOT204 written by a newer version, IOT207 no head.
 */
export async function openTape(source: string | Storage): Promise<Tape> {
  const storage = typeof source === 'string' ? fileStorage(source) : source;
  const opened = await storage.open();
  try {
    const schema = await readSchema(storage.name, opened);
    const { head, end } = await readHead(storage.name, opened);
    const log = new DiagnosticLog();
    const indexOffset = parseFooter(await opened.read(footerOffset(opened), FOOTER_BYTES));
    const indexed = indexOffset === undefined ? undefined : await readTail(opened, indexOffset);
    const tail = indexed ?? (await tailByScan(opened, end, indexOffset, storage.name, log));
    return new Tape(storage, schema, head, tail, log);
  } finally {
    await opened.close();
  }
}

async function readSchema(name: string, storage: OpenStorage): Promise<number> {
  const schema = parsePreamble(await storage.read(0, PREAMBLE_BYTES));
  if (schema === undefined || schema === 0) throw headDamaged(name, `the first ${MAGIC.length} bytes are not a tape's`);
  if (schema <= SCHEMA_VERSION) return schema;
  const message = `schema ${schema}; this program reads up to ${SCHEMA_VERSION}`;
  throw new InputError({ code: 'IOT204', file: name, line: 0, column: 0, message });
}

async function readHead(name: string, storage: OpenStorage): Promise<{ head: TapeHead; end: number }> {
  try {
    const raw = await readRecord(storage, PREAMBLE_BYTES, 'H');
    const head = headFromJson(Buffer.from(raw).toString('utf8'));
    if (head === undefined) throw new ChunkDamage('it lacks a field');
    return { head, end: PREAMBLE_BYTES + RECORD_HEADER_BYTES + raw.length };
  } catch (error) {
    throw error instanceof ChunkDamage ? headDamaged(name, error.message) : error;
  }
}

function headDamaged(file: string, message: string): InputError {
  return new InputError({ code: 'IOT207', file, line: 0, column: 0, message });
}

async function readTail(storage: OpenStorage, offset: number): Promise<TapeTail | undefined> {
  try {
    const raw = await readRecord(storage, offset, 'T');
    return tailFromJson(Buffer.from(raw).toString('utf8'), storage.bytes);
  } catch (error) {
    if (error instanceof ChunkDamage) return undefined;
    throw error;
  }
}

/** Without an index: the headers of the chunks tell where they are, and a diagnostic says what is missing. */
async function tailByScan(
  storage: OpenStorage,
  from: number,
  indexOffset: number | undefined,
  name: string,
  log: DiagnosticLog,
): Promise<TapeTail> {
  const scan = await scanChunks(storage, from);
  const tail = scan.tailOffset === undefined ? undefined : await readTail(storage, scan.tailOffset);
  if (tail !== undefined) {
    log.add('IOT121', 'the footer; the index was found without it', name);
    return tail;
  }
  for (const offset of scan.gaps) log.add('IOT121', `no whole chunk at byte ${offset}`, name);
  const damagedIndex = indexOffset ?? scan.tailOffset;
  if (damagedIndex !== undefined) log.add('IOT121', `the index at byte ${damagedIndex}; it was made anew`, name);
  else {
    const rest = scan.tornOffset === undefined ? 'no index follows' : `cut off after byte ${scan.tornOffset}`;
    log.add('IOT120', `${scan.chunks.length} chunks, ${rest}`, name);
  }
  return { chunks: scan.chunks, skippedLines: 0, diagnostics: [] };
}

/** The decompressed payload of a record of the wanted type. Throws {@link ChunkDamage} where anything is off. */
async function readRecord(
  storage: OpenStorage,
  offset: number,
  type: RecordType,
  expected?: ChunkEntry,
): Promise<Uint8Array> {
  const header = parseRecordHeader(await storage.read(offset, RECORD_HEADER_BYTES));
  if (header === undefined || header.type !== type) throw new ChunkDamage('its header is damaged');
  if (expected !== undefined && (header.firstSeq !== expected.firstSeq || header.count !== expected.count))
    throw new ChunkDamage('not the events that the index names');
  if (offset + RECORD_HEADER_BYTES + header.payloadBytes > storage.bytes) throw new ChunkDamage('cut off');
  const payload = await storage.read(offset + RECORD_HEADER_BYTES, header.payloadBytes);
  if (payload.length !== header.payloadBytes) throw new ChunkDamage('cut off');
  if (crc32(payload) !== header.payloadCrc) throw new ChunkDamage('the checksum does not hold');
  if (type === 'H') return payload;
  return inflate(payload, header.rawBytes);
}

async function inflate(payload: Uint8Array, rawBytes: number): Promise<Uint8Array> {
  let raw: Buffer;
  try {
    raw = await decompress(payload, { maxOutputLength: Math.max(1, rawBytes) });
  } catch (error) {
    throw new ChunkDamage(error instanceof Error ? error.message : String(error));
  }
  if (raw.length !== rawBytes) throw new ChunkDamage('its length is not the one promised');
  return raw;
}
