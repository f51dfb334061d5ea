import { Bytes } from '../bytes.js';
import type { U64 } from '../u64.js';
import type { DecodedCall, DecodedField, DecodedStruct, Value } from './decoded.js';

/**
 * An argument as plain values, for people and tests to write and read: a struct is a record of its known fields, a
 * union a record with the one member, a pointer `{addr, target}`, a capability chain the list `caps` of records with
 * their place `at`. What is not known is left out.
 */
export type Plain = U64 | Bytes | readonly (Plain | undefined)[] | PlainRecord;

export interface PlainRecord {
  readonly [name: string]: Plain | undefined;
}

/** The known part of what decode() found; encode() makes the same bytes of it again. */
export function valuesOf(call: DecodedCall): Plain | undefined {
  return plain(call.value);
}

function plain(value: Value | undefined): Plain | undefined {
  if (value === undefined || typeof value === 'number' || typeof value === 'bigint') return value;
  switch (value.kind) {
    case 'struct':
      return record(value);
    case 'array':
      return value.items.map(plain);
    case 'bytes':
      return value.bytes;
    case 'choice': {
      const inner = plain(value.value);
      return inner === undefined ? undefined : { [value.name]: inner };
    }
  }
}

function record(decoded: DecodedStruct): PlainRecord {
  const out: Record<string, Plain> = {};
  for (const field of decoded.fields) {
    const value = fieldValue(field);
    if (value !== undefined) out[field.field.name] = value;
  }
  if (decoded.caps.length > 0) {
    out['caps'] = decoded.caps.map((cap) => {
      const fields = record(cap.value);
      return cap.raw === undefined ? { at: cap.at, ...fields } : { at: cap.at, ...fields, raw: cap.raw.bytes };
    });
  }
  return out;
}

function fieldValue({ field, value, target }: DecodedField): Plain | undefined {
  const own = plain(value);
  const beyond = target === null ? undefined : plain(target);
  return field.target !== undefined && own !== undefined && beyond !== undefined ? { addr: own, target: beyond } : own;
}

/** Whether a value is a record, not a list, bytes or a number. */
export function isRecord(value: Plain | undefined): value is PlainRecord {
  return typeof value === 'object' && !Array.isArray(value) && !(value instanceof Bytes);
}
