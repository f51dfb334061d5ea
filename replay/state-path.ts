import { Bytes } from '../core/bytes.js';
import { OrderedMap } from '../core/ordered-map.js';
import { hex, type U64 } from '../core/u64.js';

/**
 * Paths into the state: `containers.1.areas`, `devices.0000:00:10.0.regions`, `spaces.1.vmas.0x7f0000000000`. A step
 * is a field of a record or a key of a table. Keys that are addresses are written in hex.
 */

/** What has no parts: numbers, texts, truth values, bytes, null. */
export function isScalar(value: unknown): boolean {
  return typeof value !== 'object' || value === null || value instanceof Bytes;
}

/** Whether a table's value is a range, so that its key is the range's start. */
export function isRange(value: unknown): value is { start: U64; last: U64 } {
  return typeof value === 'object' && value !== null && 'start' in value && 'last' in value;
}

/** Key of a table as text: addresses of range tables in hex, ids in decimal. */
export function keyText(key: U64 | string, value: unknown): string {
  if (typeof key === 'string') return key;
  return isRange(value) || typeof key === 'bigint' ? hex(key) : String(key);
}

export function joinPath(path: string, step: string): string {
  return path === '' ? step : `${path}.${step}`;
}

/** Where a path leads; `missing` is its beginning up to the step that does not exist, '' when all do. */
export interface Found {
  readonly value: unknown;
  readonly missing: string;
}

/**
 * Follows a path. A key may itself hold dots (device names do), so the longest key that fits is taken. Keys of
 * tables may be decimal or hex; an address inside a range finds the range.
 */
export function lookUp(root: unknown, path: string): Found {
  let value = root;
  let rest = path;
  while (rest !== '') {
    const step = child(value, rest);
    if (step === undefined) {
      const done = path.slice(0, path.length - rest.length);
      return { value: undefined, missing: done + (rest.split('.')[0] ?? '') };
    }
    value = step.value;
    rest = step.rest;
  }
  return { value, missing: '' };
}

function child(value: unknown, path: string): { value: unknown; rest: string } | undefined {
  const parts = path.split('.');
  for (let count = parts.length; count > 0; count--) {
    const item = itemAt(value, parts.slice(0, count).join('.'));
    if (item !== undefined) return { value: item, rest: parts.slice(count).join('.') };
  }
  return undefined;
}

function itemAt(value: unknown, key: string): unknown {
  if (value instanceof OrderedMap) return entryAt(value as OrderedMap<U64 | string, unknown>, key);
  if (Array.isArray(value)) return /^\d{1,9}$/.test(key) ? (value[Number(key)] as unknown) : undefined;
  if (isScalar(value)) return undefined;
  return Object.hasOwn(value as object, key) ? (value as Record<string, unknown>)[key] : undefined;
}

function entryAt(table: OrderedMap<U64 | string, unknown>, key: string): unknown {
  if (typeof table.firstKey() === 'string') return table.get(key);
  if (!/^(?:0x[0-9a-f]{1,16}|\d{1,20})$/i.test(key)) return undefined;
  const big = BigInt(key);
  const number: U64 = big <= Number.MAX_SAFE_INTEGER ? Number(big) : big;
  if (table.has(number)) return table.get(number);
  const below = table.floor(number);
  return isRange(below) && below.last >= number ? below : undefined;
}
