import { type FileHandle, open } from 'node:fs/promises';
import type { Readable } from 'node:stream';
import { createGunzip } from 'node:zlib';
import { InputError } from '../../core/errors.js';

/**
 * The bytes of an input as a stream of chunks: a file, standard input, or either of them gzipped.
 *
 * Nothing is read before the first chunk is asked for, and never more than a few chunks are in memory. A chunk is
 * only good until the next one is asked for: plain files are read into the same two buffers over
 * and over, which saves an allocation of a mebibyte per mebibyte. Whether something is gzipped is told by its first
 * bytes (RFC 1952), not by its name.
 */
export interface Input {
  /** As it shall stand in diagnostics; `-` for standard input. */
  readonly name: string;
  /** May be called once. Throws `InputError` (IOT201 unreadable, IOT205 damaged gzip after what came before). */
  readonly chunks: () => AsyncIterable<Uint8Array>;
  /** Comes as it is recorded: what is known is handed on at once and not collected first. */
  readonly live?: boolean;
}

const CHUNK_BYTES = 1 << 20;
const GZIP_MAGIC = [0x1f, 0x8b] as const;

/** Opens a path, or standard input for `-`. */
export function inputOf(path: string): Input {
  if (path === '-') return { name: path, chunks: () => gunzipped(path, streamChunks(path, process.stdin)) };
  return { name: path, chunks: () => fileChunks(path) };
}

/** An input from chunks that are already at hand (a peeked stream, a test). */
export function inputFrom(name: string, chunks: Iterable<Uint8Array> | AsyncIterable<Uint8Array>): Input {
  return { name, chunks: () => gunzipped(name, chunks) };
}

/**
 * Undoes gzip if the first two bytes are gzip's, else hands the chunks on. Several members in a row
 * (`cat a.gz b.gz`) are read as one, as gzip(1) does. A damaged or cut stream first gives all bytes that could be
 * decompressed and then throws IOT205.
 */
export async function* gunzipped(
  name: string,
  chunks: Iterable<Uint8Array> | AsyncIterable<Uint8Array>,
): AsyncIterable<Uint8Array> {
  const iterator = Symbol.asyncIterator in chunks ? chunks[Symbol.asyncIterator]() : chunks[Symbol.iterator]();
  let first = await iterator.next();
  while (!first.done && first.value.length === 0) first = await iterator.next();
  if (first.done) return;
  let head = first.value;
  if (head.length === 1 && head[0] === GZIP_MAGIC[0]) {
    const kept = head.slice();
    const second = await iterator.next();
    head = second.done ? kept : Buffer.concat([kept, second.value]);
  }
  const rest = continued(head, iterator);
  if (head[0] === GZIP_MAGIC[0] && head[1] === GZIP_MAGIC[1]) yield* inflated(name, rest);
  else yield* rest;
}

async function* continued(
  head: Uint8Array,
  iterator: Iterator<Uint8Array> | AsyncIterator<Uint8Array>,
): AsyncIterable<Uint8Array> {
  yield head;
  for (;;) {
    const next = await iterator.next();
    if (next.done) return;
    yield next.value;
  }
}

async function* inflated(name: string, chunks: AsyncIterable<Uint8Array>): AsyncIterable<Uint8Array> {
  const gunzip = createGunzip({ chunkSize: 256 * 1024 });
  let sourceError: unknown;
  const feeding = feed(chunks, gunzip).catch((error: unknown) => {
    sourceError = error;
    gunzip.destroy();
  });
  try {
    for await (const chunk of gunzip) yield chunk as Uint8Array;
  } catch (error) {
    throw sourceError ?? damaged(name, error);
  } finally {
    gunzip.destroy();
  }
  await feeding;
  if (sourceError !== undefined) throw sourceError;
}

/** Writes copies: zlib works on a chunk in another thread, while the reader already refills its buffer. */
async function feed(chunks: AsyncIterable<Uint8Array>, gunzip: ReturnType<typeof createGunzip>): Promise<void> {
  for await (const chunk of chunks) {
    if (gunzip.destroyed) return;
    if (!gunzip.write(chunk.slice())) await drained(gunzip);
  }
  gunzip.end();
}

function drained(gunzip: ReturnType<typeof createGunzip>): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      gunzip.off('drain', done);
      gunzip.off('close', done);
      resolve();
    };
    gunzip.on('drain', done);
    gunzip.on('close', done);
  });
}

async function* fileChunks(path: string): AsyncIterable<Uint8Array> {
  let file: FileHandle;
  try {
    file = await open(path, 'r');
  } catch (error) {
    throw unreadable(path, error);
  }
  try {
    const regular = (await file.stat()).isFile();
    if (regular && !(await startsLikeGzip(file))) yield* blocks(file);
    // A pipe must not be opened twice, and zlib takes copies anyway: the stream reads ahead by itself.
    else yield* gunzipped(path, file.createReadStream({ highWaterMark: 256 * 1024, ...(regular ? { start: 0 } : {}) }));
  } catch (error) {
    throw error instanceof InputError ? error : unreadable(path, error);
  } finally {
    await file.close();
  }
}

async function startsLikeGzip(file: FileHandle): Promise<boolean> {
  const head = Buffer.alloc(2);
  const { bytesRead } = await file.read(head, 0, 2, 0);
  return bytesRead === 2 && head[0] === GZIP_MAGIC[0] && head[1] === GZIP_MAGIC[1];
}

/** Reads one block ahead, so that the disk (or the other core) works while the caller parses. */
async function* blocks(file: FileHandle): AsyncIterable<Uint8Array> {
  let current: Uint8Array = Buffer.allocUnsafeSlow(CHUNK_BYTES);
  let other: Uint8Array = Buffer.allocUnsafeSlow(CHUNK_BYTES);
  let at = 0;
  let reading = readAt(file, current, at);
  try {
    for (;;) {
      const { bytesRead } = await reading;
      if (bytesRead === 0) return;
      at += bytesRead;
      [current, other] = [other, current];
      reading = readAt(file, current, at);
      yield other.subarray(0, bytesRead);
    }
  } finally {
    // A caller that stops early must not find the file closed under a read.
    await Promise.allSettled([reading]);
  }
}

function readAt(file: FileHandle, buffer: Uint8Array, at: number): Promise<{ readonly bytesRead: number }> {
  const reading = file.read(buffer, 0, buffer.length, at);
  // Its failure is looked at when the block is asked for, which may be a while later.
  reading.catch(() => undefined);
  return reading;
}

async function* streamChunks(name: string, stream: Readable): AsyncIterable<Uint8Array> {
  try {
    for await (const chunk of stream) yield chunk as Uint8Array;
  } catch (error) {
    throw unreadable(name, error);
  }
}

function unreadable(file: string, error: unknown): InputError {
  const message = error instanceof Error ? error.message : String(error);
  return new InputError({ code: 'IOT201', file, line: 0, column: 0, message });
}

function damaged(file: string, error: unknown): InputError {
  const message = error instanceof Error ? error.message : String(error);
  return new InputError({ code: 'IOT205', file, line: 0, column: 0, message });
}
