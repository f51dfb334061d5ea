import type { Diagnostic, InputError } from '../core/errors.js';
import type { Event, EventBatch } from '../core/event.js';
import type { Recording } from '../traces/recording.js';
import type { Reopenable } from './source.js';

/** Recordings out of memory, for tests. */

export interface MemoryOptions {
  readonly batchEvents?: number;
  /** Thrown behind the last event. */
  readonly failure?: InputError;
  /** After the events, waits for more that never come. */
  readonly hangs?: boolean;
  readonly diagnostics?: readonly Diagnostic[];
}

export function memoryRecording(events: readonly Event[], options: MemoryOptions = {}): Recording {
  const size = options.batchEvents ?? 4096;
  async function* batches(): AsyncGenerator<EventBatch, void> {
    for (let at = 0; at < events.length; at += size) yield events.slice(at, at + size);
    if (options.failure !== undefined) throw options.failure;
    if (options.hangs) await new Promise(() => undefined);
  }
  return {
    info: { format: 'strace', files: ['memory.strace'], startNs: 0n, kernel: '' },
    batches,
    diagnostics: options.diagnostics ?? [],
    skippedLines: 0,
  };
}

/** A source that counts how often it was opened. */
export class MemorySource implements Reopenable {
  readonly name = 'memory.strace';
  readonly #events: readonly Event[];
  readonly #options: MemoryOptions;
  opened = 0;

  constructor(events: readonly Event[], options: MemoryOptions = {}) {
    this.#events = events;
    this.#options = options;
  }

  async open(): Promise<Recording> {
    this.opened++;
    return memoryRecording(this.#events, this.#options);
  }
}
