import { BATCH_EVENTS } from '../../core/event.js';
import { FOOTER_BYTES, parseRecordHeader, RECORD_HEADER_BYTES, RECORD_MARKER, type RecordHeader } from './frame.js';
import type { ChunkEntry } from './meta.js';
import type { OpenStorage } from './storage.js';

/** What a tape without a usable index turned out to hold. */
export interface Scan {
  readonly chunks: readonly ChunkEntry[];
  /** Places where a header was damaged and the next record had to be searched. */
  readonly gaps: readonly number[];
  /** Where the index record stands, if there is one: only the footer was damaged then. */
  readonly tailOffset: number | undefined;
  /** Where bytes begin that are no whole record; undefined where there are none. */
  readonly tornOffset: number | undefined;
}

const WINDOW_BYTES = 1 << 16;

/** Goes from header to header; reads no payload. Costs one read per chunk. */
export async function scanChunks(storage: OpenStorage, from: number): Promise<Scan> {
  const chunks: ChunkEntry[] = [];
  const gaps: number[] = [];
  let tailOffset: number | undefined;
  let nextSeq = 0;
  let at = from;
  while (at < storage.bytes) {
    const header = parseRecordHeader(await storage.read(at, RECORD_HEADER_BYTES));
    if (header === undefined || !fits(storage, at, header) || (header.type === 'C' && header.firstSeq < nextSeq)) {
      const next = await findRecord(storage, at + 1);
      if (next === undefined) return { chunks, gaps, tailOffset, tornOffset: at };
      gaps.push(at);
      at = next;
      continue;
    }
    if (header.type === 'T') {
      tailOffset = at;
      break;
    }
    if (header.type === 'C') {
      chunks.push({ offset: at, firstSeq: header.firstSeq, count: header.count });
      nextSeq = header.firstSeq + header.count;
    }
    at += RECORD_HEADER_BYTES + header.payloadBytes;
  }
  return { chunks, gaps, tailOffset, tornOffset: undefined };
}

function fits(storage: OpenStorage, at: number, header: RecordHeader): boolean {
  if (header.type === 'C' && (header.count < 1 || header.count > BATCH_EVENTS)) return false;
  return at + RECORD_HEADER_BYTES + header.payloadBytes <= storage.bytes;
}

/** The next offset at which an undamaged, whole record stands. */
async function findRecord(storage: OpenStorage, from: number): Promise<number | undefined> {
  for (let at = from; at + RECORD_HEADER_BYTES <= storage.bytes; at += WINDOW_BYTES) {
    const window = await storage.read(at, WINDOW_BYTES + RECORD_HEADER_BYTES);
    for (
      let i = window.indexOf(RECORD_MARKER);
      i !== -1 && i < WINDOW_BYTES;
      i = window.indexOf(RECORD_MARKER, i + 1)
    ) {
      const header = parseRecordHeader(window.subarray(i, i + RECORD_HEADER_BYTES));
      if (header !== undefined && fits(storage, at + i, header)) return at + i;
    }
  }
  return undefined;
}

/** Where the footer begins in a whole tape. */
export function footerOffset(storage: OpenStorage): number {
  return Math.max(0, storage.bytes - FOOTER_BYTES);
}
