import { BATCH_EVENTS, type EventBatch, type RecordingInfo } from '../../core/event.js';
import { DiagnosticLog } from '../diagnostic-log.js';
import type { Input } from '../input/chunks.js';
import type { Recording } from '../recording.js';
import { mergeFiles, type OpenFile } from './merge.js';
import { type ParserOptions, StraceParser } from './parser.js';

export interface StraceOptions {
  /** Most diagnostics that are listed; see {@link DiagnosticLog}. */
  readonly maxDiagnostics?: number;
}

/** One of the files that `strace -ff -o FILE` writes: FILE.PID, perhaps renamed and gzipped. */
const PER_THREAD = /\.([0-9]{1,9})(?:\.(?:strace|txt|log))?(?:\.gz)?$/;

/**
 * Reads strace text of any flags: one file, or several that are one recording (`-ff`).
 *
 * Several files are merged by the time of their lines where all of them have an absolute one, else read one after
 * the other. In a recording of several files a line without a thread number belongs to the thread that
 * the file's name ends with. Throws `InputError` only (unreadable, damaged gzip), and that after the events before it.
 */
export function openStrace(inputs: readonly Input[], options: StraceOptions = {}): Recording {
  const log = options.maxDiagnostics === undefined ? new DiagnosticLog() : new DiagnosticLog(options.maxDiagnostics);
  const files = inputs.map((input, index) => openFile(input, index, inputs.length > 1, log));
  const state = { startNs: 0n };
  return {
    info: new StraceInfo(inputs, state),
    batches: () => mergeFiles(files, state),
    get diagnostics() {
      return log.list;
    },
    get skippedLines() {
      return files.reduce((sum, file) => sum + file.parser.skippedLines, 0);
    },
  };
}

class StraceInfo implements RecordingInfo {
  readonly format = 'strace';
  readonly files: readonly string[];
  readonly kernel = '';
  readonly #state: { readonly startNs: bigint };

  constructor(inputs: readonly Input[], state: { readonly startNs: bigint }) {
    this.files = inputs.map((input) => input.name);
    this.#state = state;
  }

  get startNs(): bigint {
    return this.#state.startNs;
  }
}

function openFile(input: Input, file: number, several: boolean, log: DiagnosticLog): OpenFile {
  const suffix = several ? PER_THREAD.exec(input.name)?.[1] : undefined;
  const parserOptions: ParserOptions = {
    fileName: input.name,
    file,
    baseTid: suffix === undefined ? 0 : Number(suffix),
    log,
  };
  const parser = new StraceParser(parserOptions);
  const events = eventsOf(input, parser);
  return {
    parser,
    async next() {
      const step = await events.next();
      return step.done ? undefined : step.value;
    },
    async close() {
      await events.return(undefined);
    },
  };
}

/** A read error comes after the events that were read before it. */
async function* eventsOf(input: Input, parser: StraceParser): AsyncGenerator<EventBatch, undefined> {
  const atLeast = input.live === true ? 1 : BATCH_EVENTS;
  let failure: unknown;
  try {
    for await (const chunk of input.chunks()) {
      parser.push(chunk);
      yield* taken(parser, atLeast);
    }
  } catch (error) {
    failure = error;
  }
  parser.end();
  yield* taken(parser, 1);
  if (failure !== undefined) throw failure;
  return undefined;
}

/** Batches as long as at least so many events wait: full ones while reading, all that is left at the end. */
function* taken(parser: StraceParser, atLeast: number): Generator<EventBatch> {
  while (parser.waiting >= atLeast) {
    const batch = parser.take();
    if (batch.length === 0) return;
    yield batch;
  }
}
