import { availableParallelism } from 'node:os';

/** Whether another thread reads and parses: where that is faster, never, or wherever it is possible. */
export type ReadAhead = 'auto' | 'never' | 'always';

/** A regular file that is read. */
export interface ReadFile {
  readonly sizeBytes: number;
  readonly isGzipped: boolean;
}

/** Half of this is parsed in about the time that a thread needs to start and to get its code compiled (measured). */
const WORTH_A_THREAD_BYTES = 32 << 20;
/** Recordings are very much alike from line to line. */
const USUAL_GZIP_RATIO = 8;

/** Whether it pays to start a thread for the text in these files. */
export function paysToReadAhead(files: readonly ReadFile[], cores: number = availableParallelism()): boolean {
  if (cores < 2) return false;
  let textBytes = 0;
  for (const { sizeBytes, isGzipped } of files) textBytes += isGzipped ? sizeBytes * USUAL_GZIP_RATIO : sizeBytes;
  return textBytes >= WORTH_A_THREAD_BYTES;
}
