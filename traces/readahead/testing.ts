import { readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { Event } from '../../core/event.js';

/** All of an event, for comparing: its fields in their order, bigints apart from numbers, bytes in hex. */
export function exact(event: Event): string {
  return JSON.stringify(event, (_, item: unknown) => (typeof item === 'bigint' ? `${item}n` : item));
}

const CORPUS = fileURLToPath(new URL('../../../traces/corpus/', import.meta.url));

/** Paths of the bundled recordings that are text. */
export const textRecordings: readonly string[] = readdirSync(CORPUS, { recursive: true, encoding: 'utf8' })
  .filter((name) => /\.(?:strace|jsonl)(?:\.gz)?$/.test(name))
  .sort()
  .map((name) => CORPUS + name);
