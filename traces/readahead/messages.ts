import type { Diagnostic } from '../../core/errors.js';
import type { EncodedBatch } from './batch.js';

/** What the reading thread shall read. */
export interface Assignment {
  readonly format: 'strace' | 'kernel-events';
  /** Regular files, plain or gzipped: several of `strace -ff`, or one. */
  readonly paths: readonly string[];
  /** How many batches may be under way; each number that comes to it then allows so many more. */
  readonly credit: number;
}

/** What the recording says of itself up to here; see traces/recording.ts. */
export interface Progress {
  readonly startNs: bigint;
  readonly kernel: string;
  readonly skippedLines: number;
  /** The list of diagnostics is now the first `keptDiagnostics` that were told before, and these. */
  readonly keptDiagnostics: number;
  readonly diagnostics: readonly Diagnostic[];
}

/** A batch, or the end: well (`failure` null), or as an `InputError` of this diagnostic. */
export type Message =
  | { readonly progress: Progress; readonly batch: EncodedBatch }
  | { readonly progress: Progress; readonly batch: null; readonly failure: Diagnostic | null };
