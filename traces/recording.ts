import type { Diagnostic } from '../core/errors.js';
import type { EventBatch, RecordingInfo } from '../core/event.js';

/**
 * A recording of any format, as every importer hands it over and everything behind it takes it.
 *
 * It is read once and streams: `batches()` may be called once, and memory does not grow with the length
 * of the recording. Importers take the bytes as `AsyncIterable<Uint8Array>` (one per file, already
 * gunzipped), so a peeked stdin, a file and a decompressed stream look the same to them.
 */
export interface Recording {
  /**
   * `format` and `files` are right from the beginning, `startNs` and `kernel` once the first batch
   * (or the end, where there is none) has come: they stand in the recording's own lines.
   */
  readonly info: RecordingInfo;
  /**
   * The events in tape order, at most 4,096 at once, no batch empty. Throws `InputError` only. A recording that can
   * seek (a tape) begins at `fromSeq`; any other reads from its beginning all the same.
   */
  batches(fromSeq?: number): AsyncIterable<EventBatch>;
  /** What was wrong with the input, as far as it was read; grows while batches come. */
  readonly diagnostics: readonly Diagnostic[];
  /** Lines (or events of a damaged tape) that gave no event though they should have. */
  readonly skippedLines: number;
}
