import { CODES, type Diagnostic } from '../../core/errors.js';
import { BATCH_EVENTS, type RecordingInfo } from '../../core/event.js';
import { FOOTER_BYTES, RECORD_HEADER_BYTES } from './frame.js';

/**
 * The two JSON records of a tape, checked field by field when they are read: what the recording says of
 * itself (head), and the index of chunks with what the import reported (tail).
 */
export interface TapeHead {
  /** Name and version of the program that wrote it. */
  readonly writer: string;
  readonly info: RecordingInfo;
}

/** Where a chunk stands and which events it holds. */
export interface ChunkEntry {
  readonly offset: number;
  readonly firstSeq: number;
  readonly count: number;
}

export interface TapeTail {
  readonly chunks: readonly ChunkEntry[];
  readonly skippedLines: number;
  readonly diagnostics: readonly Diagnostic[];
}

type Json = { readonly [name: string]: unknown };

export function headToJson(head: TapeHead): string {
  const { format, files, startNs, kernel } = head.info;
  return JSON.stringify({ writer: head.writer, format, files, startNs: `${startNs}`, kernel });
}

/** Undefined where the text is no head. */
export function headFromJson(text: string): TapeHead | undefined {
  const json = parseObject(text);
  if (json === undefined) return undefined;
  const { writer, format, files, startNs, kernel } = json;
  if (typeof writer !== 'string' || typeof format !== 'string' || typeof kernel !== 'string') return undefined;
  if (!Array.isArray(files) || !files.every((file) => typeof file === 'string')) return undefined;
  if (typeof startNs !== 'string' || !/^-?[0-9]{1,30}$/.test(startNs)) return undefined;
  return { writer, info: { format, files, startNs: BigInt(startNs), kernel } };
}

export function tailToJson(tail: TapeTail): string {
  return JSON.stringify({
    chunks: tail.chunks.map(({ offset, firstSeq, count }) => [offset, firstSeq, count]),
    skippedLines: tail.skippedLines,
    diagnostics: tail.diagnostics,
  });
}

/** Undefined where the text is no tail, or one that cannot be true of a file of `fileBytes`. */
export function tailFromJson(text: string, fileBytes: number): TapeTail | undefined {
  const json = parseObject(text);
  if (json === undefined || !Array.isArray(json['chunks']) || !Array.isArray(json['diagnostics'])) return undefined;
  const chunks: ChunkEntry[] = [];
  let lowestOffset = 0;
  let lowestSeq = 0;
  for (const item of json['chunks'] as unknown[]) {
    if (!Array.isArray(item)) return undefined;
    const [offset, firstSeq, count] = item as unknown[];
    if (!isCount(offset) || !isCount(firstSeq) || !isCount(count)) return undefined;
    if (offset < lowestOffset || firstSeq < lowestSeq || count < 1 || count > BATCH_EVENTS) return undefined;
    lowestOffset = offset + RECORD_HEADER_BYTES;
    lowestSeq = firstSeq + count;
    chunks.push({ offset, firstSeq, count });
  }
  if (lowestOffset > fileBytes - FOOTER_BYTES || !isCount(json['skippedLines'])) return undefined;
  const diagnostics = (json['diagnostics'] as unknown[]).filter(isDiagnostic);
  return { chunks, skippedLines: json['skippedLines'], diagnostics };
}

function parseObject(text: string): Json | undefined {
  try {
    const json: unknown = JSON.parse(text);
    return typeof json === 'object' && json !== null && !Array.isArray(json) ? (json as Json) : undefined;
  } catch {
    return undefined;
  }
}

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}

function isDiagnostic(value: unknown): value is Diagnostic {
  if (typeof value !== 'object' || value === null) return false;
  const { code, message, file, line, column } = value as { readonly [name: string]: unknown };
  if (typeof code !== 'string' || !Object.hasOwn(CODES, code)) return false;
  return typeof message === 'string' && typeof file === 'string' && isCount(line) && isCount(column);
}
