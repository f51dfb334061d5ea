import { createReadStream } from 'node:fs';
import { open, stat } from 'node:fs/promises';
import { type Diagnostic, type ErrorCode, InputError } from '../core/errors.js';
import type { EventBatch, RecordingInfo } from '../core/event.js';
import { DETECT_BYTES, type Detected, detect } from './detect.js';
import { type Input, inputFrom, inputOf } from './input/chunks.js';
import { KernelEventRecording } from './kernel-events/importer.js';
import { paysToReadAhead, type ReadAhead, type ReadFile } from './readahead/policy.js';
import type { Recording } from './recording.js';
import { openStrace } from './strace/open.js';
import { openTape } from './tape/reader.js';
import { fileStorage, memoryStorage, readable } from './tape/storage.js';

/** A tape is read at any place; one that comes gzipped or through a pipe must fit into memory. */
const MAX_STREAMED_TAPE_BYTES = 256 << 20;

export interface OpenOptions {
  /** `auto` by default. Only text in regular files can be read ahead; anything else is read here in any case. */
  readonly readAhead?: ReadAhead;
}

/**
 * Opens a recording of any supported format, plain or gzipped: a path, `-` for standard input, or several paths
 * of strace files that are one recording (`strace -ff`). The format is told by the content.
 *
 * Throws `InputError` for what gives nothing usable: IOT201 unreadable, IOT202 unknown, IOT203 empty (also at the end of
 * reading, when no line gave an event), IOT204 and IOT207 for tapes, IOT205 damaged gzip (while reading, after the
 * events before the damage), IOT206 a format that is known but cannot be replayed.
 */
export async function openRecording(
  paths: string | readonly string[],
  { readAhead = 'auto' }: OpenOptions = {},
): Promise<Recording> {
  const names = typeof paths === 'string' ? [paths] : paths;
  const [first] = names;
  if (first === undefined) throw refusal('IOT301', '', 'no recording named');
  if (names.length === 1) return openOne(await peek(first), readAhead);
  const peeked: Peeked[] = [];
  for (const name of names) peeked.push(await peek(name));
  for (const { input, detected } of peeked) {
    // A thread that did nothing leaves an empty file.
    if (detected.format === 'strace' || detected.format === 'empty') continue;
    refuseUnsupported(input.name, detected);
    throw refusal('IOT301', input.name, 'only files of strace -ff make one recording');
  }
  if (peeked.every(({ detected }) => detected.format === 'empty')) throw refusal('IOT203', first, '');
  return new CheckedRecording(await openText('strace', peeked, readAhead), first);
}

async function openOne(peeked: Peeked, readAhead: ReadAhead): Promise<Recording> {
  const { input, detected, file } = peeked;
  const { name } = input;
  const plainFile = file !== undefined && !file.isGzipped;
  if (detected.format === 'tape') {
    const tape = await openTape(plainFile ? fileStorage(name) : memoryStorage(name, await allBytes(input)));
    if (tape.chunks.length === 0) throw refusal('IOT203', name, 'the tape holds no whole chunk');
    return tape;
  }
  if (detected.format === 'strace' || detected.format === 'kernel-events')
    return new CheckedRecording(await openText(detected.format, [peeked], readAhead), name);
  refuseUnsupported(name, detected);
  throw refusal('IOT203', name, '');
}

/** Files of one recording in a format of lines. Small ones do not even load what reading ahead needs. */
async function openText(
  format: 'strace' | 'kernel-events',
  peeked: readonly Peeked[],
  readAhead: ReadAhead,
): Promise<Recording> {
  const inputs = peeked.map(({ input }) => input);
  const files = peeked.flatMap(({ file }) => file ?? []);
  const possible = files.length === peeked.length && readAhead !== 'never';
  if (possible && (readAhead === 'always' || paysToReadAhead(files))) {
    const { ReadAheadRecording } = await import('./readahead/recording.js');
    return new ReadAheadRecording(
      format,
      inputs.map(({ name }) => name),
    );
  }
  const [first] = inputs;
  if (format === 'strace' || first === undefined) return openStrace(inputs);
  return new KernelEventRecording(first.chunks(), first.name);
}

function refuseUnsupported(name: string, detected: Detected): void {
  if (detected.format === 'foreign') throw refusal('IOT206', name, `${detected.name}, ${detected.advice}`);
  if (detected.format === 'binary') throw refusal('IOT202', name, 'binary data');
  if (detected.format === 'unknown') throw refusal('IOT202', name, '');
}

function refusal(code: ErrorCode, file: string, message: string): InputError {
  return new InputError({ code, file, line: 0, column: 0, message });
}

async function allBytes(input: Input): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of input.chunks()) {
    bytes += chunk.length;
    if (bytes > MAX_STREAMED_TAPE_BYTES)
      throw refusal('IOT206', input.name, `a tape of more than ${MAX_STREAMED_TAPE_BYTES} bytes that is no plain file`);
    parts.push(chunk.slice());
  }
  return Buffer.concat(parts);
}

// ---- looking at the beginning ------------------------------------------------------------------------------

interface Peeked {
  /** Gives the whole input, what was looked at included. */
  readonly input: Input;
  readonly detected: Detected;
  /** What kind of regular file it is; undefined for a pipe. */
  readonly file: ReadFile | undefined;
}

/** A regular file is opened again for reading; of a pipe the first bytes are kept and handed out first. */
async function peek(path: string): Promise<Peeked> {
  if (path === '-') return peekStream(inputOf(path));
  const sizeBytes = await regularSize(path);
  if (sizeBytes === undefined) return peekStream(inputFrom(path, pipeChunks(path)));
  const file = await readHead(path);
  const { head, failure } = await beginning(inputFrom(path, [file.head]).chunks());
  if (head.length === 0 && failure !== undefined) throw failure;
  const detected = detect(head, file.whole && head.length < DETECT_BYTES);
  return { input: inputOf(path), detected, file: { sizeBytes, isGzipped: !head.equals(file.head) } };
}

/** Undefined for a pipe. Without opening it: a FIFO that is opened and closed again breaks its writer. */
async function regularSize(path: string): Promise<number | undefined> {
  const found = await readable(path, () => stat(path));
  if (found.isDirectory()) throw refusal('IOT201', path, 'it is a directory');
  return found.isFile() ? found.size : undefined;
}

async function* pipeChunks(path: string): AsyncGenerator<Uint8Array> {
  const stream = createReadStream(path)[Symbol.asyncIterator]();
  try {
    for (;;) {
      const step = await readable(path, () => stream.next());
      if (step.done) return;
      yield step.value as Uint8Array;
    }
  } finally {
    await stream.return?.();
  }
}

/** The first bytes of a regular file as they stand there. */
async function readHead(path: string): Promise<{ head: Buffer; whole: boolean }> {
  const file = await readable(path, () => open(path, 'r'));
  try {
    const read = () => file.read(Buffer.alloc(DETECT_BYTES), 0, DETECT_BYTES, 0);
    const { buffer, bytesRead } = await readable(path, read);
    return { head: buffer.subarray(0, bytesRead), whole: bytesRead < DETECT_BYTES };
  } finally {
    await file.close();
  }
}

async function peekStream(stream: Input): Promise<Peeked> {
  const chunks = stream.chunks()[Symbol.asyncIterator]();
  const begun = { [Symbol.asyncIterator]: () => ({ next: () => chunks.next() }) };
  const { head, ended, failure } = await beginning(begun, isRecognised);
  if (head.length === 0 && failure !== undefined) throw failure;
  const rest = async function* (): AsyncGenerator<Uint8Array> {
    try {
      yield head;
      if (failure !== undefined) throw failure;
      for (let step = await chunks.next(); !step.done; step = await chunks.next()) yield step.value;
    } finally {
      await chunks.return?.();
    }
  };
  return { input: { name: stream.name, chunks: rest, live: true }, detected: detect(head, ended), file: undefined };
}

interface Beginning {
  readonly head: Buffer;
  /** Nothing follows. */
  readonly ended: boolean;
  readonly failure: InputError | undefined;
}

/** A live recording comes slowly, and its reader wants to see what it does: the first lines that tell are enough. */
function isRecognised(head: Uint8Array): boolean {
  const { format } = detect(head, false);
  return format === 'strace' || format === 'kernel-events' || format === 'tape';
}

/** {@link DETECT_BYTES} of the chunks, fewer where they end or fail before, or where these are `enough`. */
async function beginning(
  chunks: AsyncIterable<Uint8Array>,
  enough: (head: Uint8Array) => boolean = () => false,
): Promise<Beginning> {
  const parts: Uint8Array[] = [];
  let bytes = 0;
  try {
    for await (const chunk of chunks) {
      parts.push(chunk.slice());
      bytes += chunk.length;
      if (bytes >= DETECT_BYTES || enough(Buffer.concat(parts)))
        return { head: Buffer.concat(parts), ended: false, failure: undefined };
    }
    return { head: Buffer.concat(parts), ended: true, failure: undefined };
  } catch (error) {
    if (!(error instanceof InputError)) throw error;
    return { head: Buffer.concat(parts), ended: true, failure: error };
  }
}

// ---- the recording -----------------------------------------------------------------------------------------

/** Says at the end when no line at all was an event. */
class CheckedRecording implements Recording {
  readonly #inner: Recording;
  readonly #name: string;

  constructor(inner: Recording, name: string) {
    this.#inner = inner;
    this.#name = name;
  }

  get info(): RecordingInfo {
    return this.#inner.info;
  }

  get diagnostics(): readonly Diagnostic[] {
    return this.#inner.diagnostics;
  }

  get skippedLines(): number {
    return this.#inner.skippedLines;
  }

  async *batches(): AsyncGenerator<EventBatch> {
    let empty = true;
    for await (const batch of this.#inner.batches()) {
      empty = false;
      yield batch;
    }
    if (empty) throw refusal('IOT203', this.#name, `${this.skippedLines} lines skipped`);
  }
}
