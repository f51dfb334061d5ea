import { type MessagePort, parentPort, workerData } from 'node:worker_threads';
import { type Diagnostic, InputError } from '../../core/errors.js';
import { inputOf } from '../input/chunks.js';
import { KernelEventRecording } from '../kernel-events/importer.js';
import type { Recording } from '../recording.js';
import { openStrace } from '../strace/open.js';
import { Credit } from './credit.js';
import { BatchEncoder } from './encoder.js';
import type { Assignment, Message, Progress } from './messages.js';

/**
 * The reading thread: reads and imports what it was assigned and sends it, as far ahead as it has credit. It is
 * ended from outside (recording.ts). What it throws is a bug, and comes out there.
 */
function opened({ format, paths }: Assignment): Recording {
  const inputs = paths.map(inputOf);
  const [first] = inputs;
  if (format === 'strace' || first === undefined) return openStrace(inputs);
  return new KernelEventRecording(first.chunks(), first.name);
}

/** What changed since it was last asked. */
class ProgressOf {
  readonly #recording: Recording;
  #sent: readonly Diagnostic[] = [];

  constructor(recording: Recording) {
    this.#recording = recording;
  }

  next(): Progress {
    const { info, skippedLines, diagnostics } = this.#recording;
    // A full list has an entry at its end that counts the rest, and is another one each time.
    let kept = this.#sent.length;
    while (kept > 0 && this.#sent[kept - 1] !== diagnostics[kept - 1]) kept--;
    const added = diagnostics.slice(kept);
    this.#sent = [...diagnostics];
    return { startNs: info.startNs, kernel: info.kernel, skippedLines, keptDiagnostics: kept, diagnostics: added };
  }
}

async function send(recording: Recording, port: MessagePort, credit: Credit): Promise<void> {
  const progress = new ProgressOf(recording);
  const encoder = new BatchEncoder();
  let failure: Diagnostic | null = null;
  try {
    for await (const events of recording.batches()) {
      const batch = encoder.encode(events);
      await credit.spend();
      const message: Message = { progress: progress.next(), batch };
      port.postMessage(message, []);
    }
  } catch (error) {
    if (!(error instanceof InputError)) throw error;
    failure = error.diagnostic;
  }
  const message: Message = { progress: progress.next(), batch: null, failure };
  port.postMessage(message, []);
}

const assignment = workerData as Assignment;
const port = parentPort;
if (port === null) throw new Error('read-ahead: this module runs in a worker thread only');
await send(opened(assignment), port, new Credit(port, assignment.credit));
