import { type Diagnostic, InputError } from '../core/errors.js';
import type { EventBatch, RecordingInfo } from '../core/event.js';
import type { Recording } from '../traces/recording.js';

/**
 * A recording that always ends well: where reading breaks off after some events (a gzip cut in the middle), it
 * just ends and the reason is its last diagnostic, since the events before it are worth a report. It also
 * ends when `signal` fires. `kernel`, where it is not empty, replaces the release that the recording names. A recording that gives not a single event still throws.
 */
export function tolerant(recording: Recording, signal?: AbortSignal, kernel = ''): Recording {
  return new TolerantRecording(recording, signal, kernel);
}

class TolerantRecording implements Recording {
  readonly #inner: Recording;
  readonly #signal: AbortSignal | undefined;
  readonly #kernel: string;
  #brokenBy: Diagnostic | undefined;

  constructor(inner: Recording, signal: AbortSignal | undefined, kernel: string) {
    this.#inner = inner;
    this.#kernel = kernel;
    this.#signal = signal;
  }

  get info(): RecordingInfo {
    const { info } = this.#inner;
    return this.#kernel === '' ? info : { ...info, startNs: info.startNs, kernel: this.#kernel };
  }

  get diagnostics(): readonly Diagnostic[] {
    const { diagnostics } = this.#inner;
    return this.#brokenBy === undefined ? diagnostics : [...diagnostics, this.#brokenBy];
  }

  get skippedLines(): number {
    return this.#inner.skippedLines;
  }

  async *batches(fromSeq = 0): AsyncGenerator<EventBatch, void> {
    let isEmpty = true;
    try {
      for await (const batch of untilAborted(this.#inner.batches(fromSeq), this.#signal)) {
        isEmpty = false;
        yield batch;
      }
    } catch (error) {
      if (!(error instanceof InputError) || isEmpty) throw error;
      this.#brokenBy = error.diagnostic;
    }
  }
}

/**
 * The items of `source` until it ends or `signal` fires. A source that then waits for input that never comes (a pipe)
 * is left where it stands: its iterator is told to return and not waited for.
 */
async function* untilAborted<T>(source: AsyncIterable<T>, signal: AbortSignal | undefined): AsyncGenerator<T, void> {
  if (signal === undefined) {
    yield* source;
    return;
  }
  const iterator = source[Symbol.asyncIterator]();
  let stopWaiting = (): void => undefined;
  const fire = (): void => stopWaiting();
  signal.addEventListener('abort', fire, { once: true });
  let ended = false;
  try {
    while (!signal.aborted) {
      // No Promise.race with one promise for the abort: that would keep every batch alive until the end.
      const next = await new Promise<IteratorResult<T, unknown>>((resolve, reject) => {
        stopWaiting = () => resolve({ done: true, value: undefined });
        iterator.next().then(resolve, reject);
      });
      ended = next.done === true;
      if (next.done) return;
      yield next.value;
    }
  } finally {
    signal.removeEventListener('abort', fire);
    const closing = ended ? undefined : iterator.return?.();
    if (signal.aborted) closing?.catch(() => undefined);
    else await closing;
  }
}
