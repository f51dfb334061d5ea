import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Diagnostic, InputError } from '../core/errors.js';
import type { EventBatch, RecordingInfo } from '../core/event.js';
import { openRecording } from '../traces/open.js';
import type { Recording } from '../traces/recording.js';
import type { TapeWriter } from '../traces/tape/writer.js';
import { tolerant } from './tolerant.js';

/** A recording that can be read more than once. */
export interface Reopenable {
  /** The trace as the user named it. */
  readonly name: string;
  /** Opens it, from the beginning. Throws `InputError` when it gives nothing usable. */
  open(): Promise<Recording>;
}

export interface SourceOptions {
  /** Whether somebody will come back to the beginning. */
  readonly rereadable: boolean;
  /** Kernel release to replay on, instead of what the recording names. */
  readonly kernel?: string | undefined;
  /** Ends every reading. */
  readonly signal?: AbortSignal | undefined;
}

/**
 * A trace argument of the command line, or several files of `strace -ff` that are one recording: it can be opened
 * more than once.
 *
 * A file is simply opened again. Standard input comes once: where somebody will come back to it, its events are
 * written to a tape in a temporary directory while they are read the first time; later openings read that
 * tape, which keeps the original's line numbers. {@link close} removes it.
 */
export class TraceSource implements Reopenable {
  readonly name: string;
  readonly #paths: readonly string[];
  readonly #options: SourceOptions;
  #spool: Spool | undefined;

  /** `paths`: one file, `-` for standard input, or several files of one recording. */
  constructor(paths: string | readonly string[], options: SourceOptions) {
    this.#paths = typeof paths === 'string' ? [paths] : paths;
    this.name = this.#paths.join(' ');
    this.#options = options;
  }

  get isStdin(): boolean {
    return this.#paths.includes('-');
  }

  async open(): Promise<Recording> {
    return tolerant(await this.#openOnce(), this.#options.signal, this.#options.kernel);
  }

  async #openOnce(): Promise<Recording> {
    if (!this.isStdin || !this.#options.rereadable) return this.#opened();
    if (this.#spool !== undefined) return openRecording(await this.#spool.finished);
    const original = await this.#opened();
    this.#spool = new Spool(original, await mkdtemp(join(tmpdir(), 'iotape-')));
    return this.#spool;
  }

  /** Opening a pipe waits for its first bytes; the signal ends that, too. */
  async #opened(): Promise<Recording> {
    const opening = openRecording(this.#paths);
    const { signal } = this.#options;
    if (signal === undefined) return opening;
    let fire = (): void => undefined;
    const aborted = new Promise<never>((_resolve, reject) => {
      fire = () =>
        reject(new InputError({ code: 'IOT201', file: this.name, line: 0, column: 0, message: 'interrupted' }));
    });
    signal.addEventListener('abort', fire, { once: true });
    try {
      return await Promise.race([opening, aborted]);
    } finally {
      signal.removeEventListener('abort', fire);
    }
  }

  async close(): Promise<void> {
    await this.#spool?.remove();
  }
}

/** A recording that is copied to a tape while it is read. */
class Spool implements Recording {
  readonly #original: Recording;
  readonly #directory: string;
  /** Path of the tape, once reading has ended. */
  readonly finished: Promise<string>;
  #finish: (path: string) => void = () => undefined;

  constructor(original: Recording, directory: string) {
    this.#original = original;
    this.#directory = directory;
    this.finished = new Promise((resolve) => {
      this.#finish = resolve;
    });
  }

  get info(): RecordingInfo {
    return this.#original.info;
  }

  get diagnostics(): readonly Diagnostic[] {
    return this.#original.diagnostics;
  }

  get skippedLines(): number {
    return this.#original.skippedLines;
  }

  async *batches(): AsyncGenerator<EventBatch, void> {
    const { TapeWriter } = await import('../traces/tape/writer.js');
    const path = join(this.#directory, 'stdin.tape');
    let tape: TapeWriter | undefined;
    try {
      for await (const batch of this.#original.batches()) {
        // Only now is what the recording says of itself complete.
        tape ??= await TapeWriter.create(path, this.info);
        await tape.write(batch);
        yield batch;
      }
    } finally {
      await tape?.finish(this.#original);
      this.#finish(path);
    }
  }

  async remove(): Promise<void> {
    await rm(this.#directory, { recursive: true, force: true });
  }
}
