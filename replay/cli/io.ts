import { once } from 'node:events';
import type { Readable, Writable } from 'node:stream';
import { type Diagnostic, InputError, formatDiagnostic } from '../../core/errors.js';
import { type Style, styleFor } from '../print/style.js';

/** Exit statuses: documented in README.md and relied on by scripts. */
export const EXIT = { nothingFound: 0, found: 1, unusable: 2, interrupted: 3 } as const;

/** Our own bug: the sysexits.h status for it, so that a script never takes it for a finding. */
export const EXIT_BUG = 70;

/** One stream that text goes to, with the look it takes. */
export class Output {
  readonly style: Style;
  readonly isTerminal: boolean;
  readonly #stream: Writable;
  readonly #stop: AbortController;

  constructor(stream: Writable & { isTTY?: boolean; columns?: number }, env: NodeJS.ProcessEnv, stop: AbortController) {
    this.#stream = stream;
    this.#stop = stop;
    this.style = styleFor(stream, env);
    this.isTerminal = stream.isTTY === true;
    // A reader that went away (`| head`) ends the work without a word; there is nobody to tell.
    stream.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code !== 'EPIPE') throw error;
      this.#stop.abort();
    });
  }

  /** Writes text; waits where the reader is slower than we are. */
  async write(text: string): Promise<void> {
    if (this.#stream.destroyed || this.#stream.write(text)) return;
    await Promise.race([once(this.#stream, 'drain'), once(this.#stream, 'close')]).catch(() => undefined);
  }

  async line(text: string): Promise<void> {
    await this.write(`${text}\n`);
  }

  /** Waits until all that was written has left the process. */
  async flush(): Promise<void> {
    if (this.#stream.destroyed) return;
    await new Promise<void>((resolve) => this.#stream.write('', () => resolve()));
  }
}

/** All that a verb needs of the world outside. */
export interface Io {
  readonly stdin: Readable & { isTTY?: boolean };
  readonly stdout: Output;
  readonly stderr: Output;
  /** Fires on SIGINT, SIGTERM and when the reader of our output goes away. */
  readonly signal: AbortSignal;
  /** Kernel release to replay on (`--kernel`); undefined for what the recording names, or the default. */
  kernel?: string | undefined;
}

/** Says what is wrong with an input, on stderr. */
export async function complain(io: Io, diagnostic: Diagnostic): Promise<void> {
  await io.stderr.line(formatDiagnostic(diagnostic));
}

/** Wrong use of the command line: exit status 2. */
export function wrongArgument(message: string): InputError {
  return new InputError({ code: 'IOT301', file: 'iotape', line: 0, column: 0, message });
}

/**
 * Runs `work` for each recording. One that cannot be used is complained of and the others still get their turn; the
 * status is the worst of all.
 */
export async function forEachRecording(
  recordings: readonly (readonly string[])[],
  io: Io,
  work: (paths: readonly string[]) => Promise<number>,
): Promise<number> {
  let worst: number = EXIT.nothingFound;
  for (const paths of recordings) {
    if (io.signal.aborted) return EXIT.interrupted;
    try {
      worst = Math.max(worst, await work(paths));
    } catch (error) {
      if (!(error instanceof InputError)) throw error;
      if (io.signal.aborted) return EXIT.interrupted;
      await complain(io, error.diagnostic);
      worst = Math.max(worst, EXIT.unusable);
    }
  }
  return worst;
}
