import { type FileHandle, open } from 'node:fs/promises';
import { InputError } from '../../core/errors.js';

/** Bytes that can be read at any place; what a tape is read from. */
export interface Storage {
  readonly name: string;
  open(): Promise<OpenStorage>;
}

export interface OpenStorage {
  readonly bytes: number;
  /** Fewer bytes where the storage ends. */
  read(offset: number, count: number): Promise<Buffer>;
  close(): Promise<void>;
}

/** A file. Opening and reading throw `InputError` IOT201. */
export function fileStorage(path: string): Storage {
  return { name: path, open: () => readable(path, () => openFile(path)) };
}

async function openFile(path: string): Promise<OpenStorage> {
  const file = await open(path, 'r');
  try {
    const { size } = await file.stat();
    return {
      bytes: size,
      read: (offset, count) => readable(path, () => readAt(file, offset, Math.max(0, Math.min(count, size - offset)))),
      close: () => file.close(),
    };
  } catch (error) {
    await file.close();
    throw error;
  }
}

async function readAt(file: FileHandle, offset: number, count: number): Promise<Buffer> {
  const buffer = Buffer.allocUnsafeSlow(count);
  let filled = 0;
  while (filled < count) {
    const { bytesRead } = await file.read(buffer, filled, count - filled, offset + filled);
    if (bytesRead === 0) break;
    filled += bytesRead;
  }
  return buffer.subarray(0, filled);
}

/** Runs what may fail for the file's sake; a failure is an `InputError` IOT201. */
export async function readable<T>(path: string, action: () => Promise<T>): Promise<T> {
  try {
    return await action();
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    throw new InputError({ code: 'IOT201', file: path, line: 0, column: 0, message });
  }
}

/** Bytes in memory: a tape that came through a pipe or was gzipped. */
export function memoryStorage(name: string, bytes: Uint8Array): Storage {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const opened: OpenStorage = {
    bytes: buffer.length,
    read: async (offset, count) => buffer.subarray(offset, offset + count),
    close: async () => {},
  };
  return { name, open: async () => opened };
}
