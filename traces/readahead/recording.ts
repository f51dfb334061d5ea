import { Worker } from 'node:worker_threads';
import { type Diagnostic, InputError } from '../../core/errors.js';
import type { EventBatch, RecordingInfo } from '../../core/event.js';
import type { Recording } from '../recording.js';
import { BatchDecoder } from './decoder.js';
import type { Assignment, Message, Progress } from './messages.js';

/**
 * Batches under way, parsed or waiting for the one who replays: enough that neither thread waits for an uneven
 * stretch of the other, and about 5 MiB.
 */
const CREDIT = 8;
const SCRIPT = new URL('worker.js', import.meta.url);

/**
 * A recording that another thread reads, gunzips and parses, ahead of whoever takes the events: with two cores
 * parsing then costs (nearly) no time. It gives the very events, diagnostics and errors that the importers give here,
 * and batches come with what the recording said of itself when they were made.
 *
 * The thread is a bare worker and none of a pool: pools hand out tasks and their one result each, this is a
 * single stream, whose order and back-pressure are the point, and it ends with its reader. It starts with the
 * first batch asked for. While no batch is waited for it does not keep the process alive, so a reader
 * that just walks away leaves nothing that hangs.
 *
 * What a thread dies of (a bug of ours, too little memory) is thrown here, after the batches that it had sent.
 */
export class ReadAheadRecording implements Recording {
  readonly info: RecordingInfo;
  readonly #assignment: Assignment;
  readonly #script: URL;
  readonly #diagnostics: Diagnostic[] = [];
  #startNs = 0n;
  #kernel = '';
  #skippedLines = 0;

  /** `script`: another reading thread, for tests. */
  constructor(format: Assignment['format'], paths: readonly string[], script: URL = SCRIPT) {
    this.#assignment = { format, paths, credit: CREDIT };
    this.#script = script;
    const startNs = (): bigint => this.#startNs;
    const kernel = (): string => this.#kernel;
    this.info = {
      format,
      files: paths,
      get startNs() {
        return startNs();
      },
      get kernel() {
        return kernel();
      },
    };
  }

  get diagnostics(): readonly Diagnostic[] {
    return this.#diagnostics;
  }

  get skippedLines(): number {
    return this.#skippedLines;
  }

  async *batches(): AsyncGenerator<EventBatch, void> {
    const thread = new ReadingThread(this.#script, this.#assignment);
    const decoder = new BatchDecoder();
    try {
      for (;;) {
        const message = await thread.next();
        this.#take(message.progress);
        if (message.batch !== null) yield* decoder.decode(message.batch);
        else if (message.failure !== null) throw new InputError(message.failure);
        else return;
      }
    } finally {
      await thread.end();
    }
  }

  #take({ startNs, kernel, skippedLines, keptDiagnostics, diagnostics }: Progress): void {
    this.#startNs = startNs;
    this.#kernel = kernel;
    this.#skippedLines = skippedLines;
    this.#diagnostics.length = keptDiagnostics;
    for (const diagnostic of diagnostics) this.#diagnostics.push(Object.freeze(diagnostic));
  }
}

/** The worker and what came from it. */
class ReadingThread {
  readonly #worker: Worker;
  readonly #waiting: Message[] = [];
  #death: Error | undefined;
  #wake: () => void = () => undefined;

  constructor(script: URL, assignment: Assignment) {
    const worker = new Worker(script, { workerData: assignment, name: 'iotape read-ahead' });
    this.#worker = worker;
    worker.unref();
    worker.on('message', (message: Message) => {
      this.#waiting.push(message);
      this.#wake();
    });
    // The end comes behind all that the thread had sent, its error may not.
    let failure: unknown;
    worker.on('error', (error) => {
      failure = error;
    });
    worker.on('exit', (status) => {
      this.#death = failure instanceof Error ? failure : new Error(`the reading thread ended with status ${status}`);
      this.#wake();
    });
  }

  /** The next message, in order; call it again only when it has come. */
  async next(): Promise<Message> {
    while (this.#waiting.length === 0) {
      if (this.#death !== undefined) throw this.#death;
      await this.#event();
    }
    const message = this.#waiting.shift() as Message;
    if (message.batch !== null) this.#worker.postMessage(1, []);
    return message;
  }

  async end(): Promise<void> {
    await this.#worker.terminate();
  }

  async #event(): Promise<void> {
    this.#worker.ref();
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
    });
    this.#worker.unref();
  }
}
