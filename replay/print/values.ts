import { Bytes } from '../../core/bytes.js';
import { OrderedMap } from '../../core/ordered-map.js';
import { hex, type U64 } from '../../core/u64.js';
import { keyText } from '../state-path.js';

/** Values of the state as text and as JSON. */

/**
 * Fields that hold addresses, offsets, lengths or masks: always in hex, so that two of them can be compared by
 * eye. Everything above 2^53 is, too.
 */
const HEX_FIELDS: ReadonlySet<string> = new Set([
  'start',
  'last',
  'addr',
  'iova',
  'vaddr',
  'offset',
  'flags',
  'prot',
  'mask',
  'pgsizes',
  'request',
  'heapStart',
  'heapEnd',
  'firstPlacedLast',
]);

function isHexField(name: string): boolean {
  return HEX_FIELDS.has(name) || /(?:Addr|Iova|Vaddr|Offset|Mask|Flags|Last|Pgsizes)$/.test(name);
}

/** A number, text, truth value or run of bytes that stands in field `name`. */
export function scalarText(value: unknown, name = ''): string {
  if (typeof value === 'bigint') return hex(value);
  if (typeof value === 'number') return isHexField(name) && value >= 0 ? hex(value) : String(value);
  if (typeof value === 'string') return JSON.stringify(value);
  if (value instanceof Bytes)
    return value.length > 32 ? `${value.slice(0, 32).toHex()}… (${value.length} bytes)` : value.toHex();
  return String(value);
}

/**
 * A value of the state for `JSON.stringify`: tables become objects in key order, addresses and what passes 2^53 become
 * `"0x…"`, bytes become hex text.
 */
export function toPlain(value: unknown, name = ''): unknown {
  if (typeof value === 'bigint') return hex(value);
  if (typeof value === 'number') return isHexField(name) && value >= 0 ? hex(value) : value;
  if (value instanceof Bytes) return value.toHex();
  if (value instanceof OrderedMap) {
    const entries = value as OrderedMap<U64 | string, unknown>;
    return Object.fromEntries([...entries].map(([key, item]) => [keyText(key, item), toPlain(item)]));
  }
  if (Array.isArray(value)) return value.map((item) => toPlain(item, name));
  if (typeof value === 'object' && value !== null)
    return Object.fromEntries(Object.entries(value).map(([field, item]) => [field, toPlain(item, field)]));
  return value;
}
