import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import type { Event, EventKind } from '../../core/event.js';
import { DiagnosticLog } from '../diagnostic-log.js';
import { StraceParser } from './parser.js';

/** What the tests of this folder share: running text through a parser, and finding the fixtures. */
export interface Parsed {
  readonly events: readonly Event[];
  readonly codes: readonly string[];
  readonly log: DiagnosticLog;
  readonly skippedLines: number;
  readonly parser: StraceParser;
}

export interface ParseOptions {
  readonly fast?: boolean;
  readonly chunkBytes?: number;
  readonly maxLineBytes?: number;
  readonly baseTid?: number;
}

export function parse(text: string | Uint8Array, options: ParseOptions = {}): Parsed {
  const bytes = typeof text === 'string' ? Buffer.from(text, 'latin1') : text;
  const log = new DiagnosticLog();
  const { chunkBytes = 65_536, ...rest } = options;
  const parser = new StraceParser({ log, fileName: 'test', ...rest });
  const events: Event[] = [];
  const takeAll = () => {
    for (let batch = parser.take(); batch.length > 0; batch = parser.take()) events.push(...batch);
  };
  for (let at = 0; at < bytes.length; at += chunkBytes) {
    // A copy that is spoilt afterwards: the parser must keep nothing of a chunk.
    const chunk = new Uint8Array(bytes.subarray(at, at + chunkBytes));
    parser.push(chunk);
    chunk.fill(0x5a);
    takeAll();
  }
  parser.end();
  takeAll();
  return { events, codes: log.list.map((d) => d.code), log, skippedLines: parser.skippedLines, parser };
}

/** The only event of a text, of the kind expected. */
export function only<K extends EventKind>(kind: K, text: string): Extract<Event, { kind: K }> {
  const { events, log } = parse(`${text}\n`);
  if (events.length !== 1 || events[0]?.kind !== kind) {
    throw new Error(`expected one ${kind}, got ${show(events)} ${JSON.stringify(log.list)}`);
  }
  return events[0] as Extract<Event, { kind: K }>;
}

/** Events as text that compares exactly, bigints included. */
export function show(events: readonly Event[]): string {
  return events.map((event) => JSON.stringify(event, exact)).join('\n');
}

function exact(_key: string, value: unknown): unknown {
  return typeof value === 'bigint' ? `${value}n` : value;
}

/** A recording in `fixtures`, gunzipped. Tests run from dist; fixtures stay in the source tree. */
export function fixture(name: string): Buffer {
  const here = new URL(`../../../traces/strace/fixtures/${name}`, import.meta.url);
  const bytes = readFileSync(here);
  return name.endsWith('.gz') ? gunzipSync(bytes) : bytes;
}

/** `pwrite64(-1, "\x20…", 4, 4096) = -1 EBADF (…)` */
export function statement(addr: number, bytes: readonly number[]): string {
  const shown = bytes.map((byte) => `\\x${byte.toString(16).padStart(2, '0')}`).join('');
  return `pwrite64(-1, "${shown}", ${bytes.length}, ${addr}) = -1 EBADF (Bad file descriptor)`;
}
