import { crc32 } from 'node:zlib';
import { Bytes, putU32, putU64 } from '../../core/bytes.js';

/**
 * The outside of a tape: what stands where in the file. All integers are little endian.
 *
 *     preamble   8 bytes magic, u16 schema version, u16 zero
 *     record     header, payload: the recording's own description (`H`, JSON)
 *     record …   header, payload: a chunk of events (`C`, brotli)
 *     record     header, payload: index of the chunks and what the import reported (`T`, brotli of JSON)
 *     footer     u64 offset of the index record, its crc32, 4 bytes marker
 *
 * A record's header has a checksum of its own, so that lengths are only believed when they are what was written, and
 * a marker that a reader can look for when a header is damaged. Records are only ever appended: a tape
 * whose writer was stopped lacks the index and perhaps part of the last chunk.
 */
export const MAGIC = Buffer.from('\x89IOTAPE\n', 'latin1');
export const PREAMBLE_BYTES = 12;
export const RECORD_HEADER_BYTES = 32;
export const FOOTER_BYTES = 16;
/** No record is larger, compressed or not: a length above this is damage. */
export const MAX_RECORD_BYTES = 64 << 20;
/** The same for the two JSON records; room for the index of 1.5 thousand million events. */
export const MAX_JSON_BYTES = 16 << 20;

/** A byte that no UTF-8 text holds, then text. */
export const RECORD_MARKER = Buffer.from([0xfe, 0x69, 0x6f]);
const FOOTER_MARKER = Buffer.from('iend', 'latin1');

export type RecordType = 'H' | 'C' | 'T';

export interface RecordHeader {
  readonly type: RecordType;
  readonly payloadBytes: number;
  /** Bytes of the payload after decompression. */
  readonly rawBytes: number;
  /** Events of a chunk, else 0. */
  readonly count: number;
  /** `seq` of a chunk's first event, else 0. */
  readonly firstSeq: number;
  readonly payloadCrc: number;
}

export function preamble(schema: number): Buffer {
  const bytes = Buffer.alloc(PREAMBLE_BYTES);
  MAGIC.copy(bytes);
  bytes.writeUInt16LE(schema, MAGIC.length);
  return bytes;
}

/** The schema version of a tape, or undefined where the bytes do not begin one. */
export function parsePreamble(bytes: Uint8Array): number | undefined {
  if (bytes.length < PREAMBLE_BYTES || !isTape(bytes)) return undefined;
  const view = new Bytes(bytes);
  return view.u16(MAGIC.length + 2) === 0 ? view.u16(MAGIC.length) : undefined;
}

/** Whether a file that begins so is a tape. */
export function isTape(bytes: Uint8Array): boolean {
  return MAGIC.equals(bytes.subarray(0, MAGIC.length));
}

export function recordHeader(header: Omit<RecordHeader, 'payloadCrc' | 'payloadBytes'>, payload: Uint8Array): Buffer {
  const bytes = Buffer.alloc(RECORD_HEADER_BYTES);
  RECORD_MARKER.copy(bytes);
  bytes[3] = header.type.charCodeAt(0);
  putU32(bytes, 4, payload.length);
  putU32(bytes, 8, header.rawBytes);
  putU32(bytes, 12, header.count);
  putU64(bytes, 16, header.firstSeq);
  putU32(bytes, 24, crc32(payload));
  putU32(bytes, 28, crc32(bytes.subarray(0, 28)));
  return bytes;
}

/** A header whose checksum holds and whose values a writer can have written; else undefined. */
export function parseRecordHeader(buffer: Uint8Array): RecordHeader | undefined {
  if (buffer.length < RECORD_HEADER_BYTES) return undefined;
  const bytes = new Bytes(buffer, 0, RECORD_HEADER_BYTES);
  if (bytes.u32(28) !== crc32(buffer.subarray(0, 28))) return undefined;
  const type = String.fromCharCode(bytes.u8(3));
  const firstSeq = bytes.u64(16);
  const payloadBytes = bytes.u32(4);
  const rawBytes = bytes.u32(8);
  if (!RECORD_MARKER.equals(buffer.subarray(0, 3)) || !isRecordType(type) || typeof firstSeq !== 'number')
    return undefined;
  if (payloadBytes > MAX_RECORD_BYTES || rawBytes > (type === 'C' ? MAX_RECORD_BYTES : MAX_JSON_BYTES))
    return undefined;
  return { type, payloadBytes, rawBytes, count: bytes.u32(12), firstSeq, payloadCrc: bytes.u32(24) };
}

function isRecordType(text: string): text is RecordType {
  return text === 'H' || text === 'C' || text === 'T';
}

export function footer(indexOffset: number): Buffer {
  const bytes = Buffer.alloc(FOOTER_BYTES);
  putU64(bytes, 0, indexOffset);
  putU32(bytes, 8, crc32(bytes.subarray(0, 8)));
  FOOTER_MARKER.copy(bytes, 12);
  return bytes;
}

/** Where the index record stands, or undefined where the tape has no (undamaged) footer. */
export function parseFooter(buffer: Uint8Array): number | undefined {
  if (buffer.length !== FOOTER_BYTES || !FOOTER_MARKER.equals(buffer.subarray(12))) return undefined;
  const bytes = new Bytes(buffer);
  const offset = bytes.u64(0);
  return bytes.u32(8) === crc32(buffer.subarray(0, 8)) && typeof offset === 'number' ? offset : undefined;
}
