import type { Bytes } from '../bytes.js';
import type { MemNote } from '../event.js';
import { and, hex, low32, sub, type U64 } from '../u64.js';
import { decode } from './decode.js';
import type { DecodedBytes, DecodedCap, DecodedField, DecodedStruct, Value } from './decoded.js';
import { commandName, findCommand } from './lookup.js';
import type { Command, EnumSet, FlagSet, Rendering, Shape } from './types.js';

/**
 * One line of text for a call, e.g.
 * `IOMMU_IOAS_MAP {flags=FIXED_IOVA|WRITEABLE|READABLE, ioas_id=1, user_va=0x20080000, length=0x8000, iova=0x1ee000}`.
 *
 * Left out: the struct's own size where it is the usual one, reserved fields that are zero, fields that a short struct
 * does not have. `?` stands for what was not recorded. No text of the traced program reaches a terminal unescaped.
 */

const SHOWN_ITEMS = 8;
const SHOWN_BYTES = 16;

/**
 * @param kind kind of the file, as in the tables
 * @param arg third argument of the ioctl
 * @param notes memory before the call, or after it
 */
export function formatCall(kind: string, request: number, arg: U64, notes: readonly MemNote[]): string {
  const command = findCommand(kind, request);
  if (command === undefined) return `${commandName(kind, request)} ${hex(arg)}`;
  const text = formatArgument(command, arg, notes);
  return text === '' ? command.name : `${command.name} ${text}`;
}

function formatArgument(command: Command, arg: U64, notes: readonly MemNote[]): string {
  if (command.arg === 'none') return '';
  if (command.arg === 'int') return formatNumber(arg, command.argAs);
  const { value } = decode(command, arg, notes, SHOWN_ITEMS);
  if (value === undefined) return `${hex(arg)} {?}`;
  if (command.arg === 'string' && isBytes(value)) return quoted(value.bytes);
  return formatValue(value, undefined);
}

/** A number as the table wants it: decimal, hexadecimal, a name or names of bits. */
export function formatNumber(value: U64, as: Rendering): string {
  if (as === 'decimal') return value.toString();
  if (as === 'hex') return hex(value);
  return as.set === 'enum' ? enumText(value, as) : flagsText(value, as);
}

function enumText(value: U64, set: EnumSet): string {
  return set.values.find((v) => v.value === value)?.label ?? (value <= 0xffff ? value.toString() : hex(value));
}

function flagsText(value: U64, set: FlagSet): string {
  const parts: string[] = [];
  let rest = value;
  if (set.low !== undefined) {
    const low = low32(value) & set.lowMask;
    parts.push(enumText(low, set.low));
    rest = sub(rest, low);
  }
  for (const bit of set.values) {
    if (and(rest, bit.value) !== bit.value || bit.value === 0) continue;
    parts.push(bit.label);
    rest = sub(rest, bit.value);
  }
  if (rest !== 0) parts.push(hex(rest));
  return parts.length === 0 ? '0' : parts.join('|');
}

function formatValue(value: Value | undefined, shape: Shape | undefined): string {
  if (value === undefined) return '?';
  if (typeof value === 'number' || typeof value === 'bigint') {
    return formatNumber(value, shape?.shape === 'scalar' ? shape.as : 'decimal');
  }
  switch (value.kind) {
    case 'struct':
      return formatStruct(value);
    case 'bytes':
      return formatBytes(value);
    case 'choice': {
      const chosen = shape?.shape === 'choice' ? shape.cases.find((c) => c.name === value.name)?.shape : undefined;
      return formatValue(value.value, chosen);
    }
    case 'array': {
      const element = shape?.shape === 'array' ? shape.of : undefined;
      const items = value.items.slice(0, SHOWN_ITEMS).map((item) => formatValue(item, element));
      const left = sub(value.count, items.length);
      return `[${[...items, ...(left === 0 ? [] : [`+${left}`])].join(', ')}]`;
    }
  }
}

function formatStruct(decoded: DecodedStruct): string {
  const parts = decoded.fields.filter((f) => isShown(f, decoded.struct.sizeBytes)).map(formatField);
  if (decoded.caps.length > 0) parts.push(`caps=[${decoded.caps.slice(0, SHOWN_ITEMS).map(formatCap).join(', ')}]`);
  if (decoded.problem !== '') parts.push(`(${decoded.problem})`);
  return `{${parts.join(', ')}}`;
}

function isShown({ field, knowledge, value }: DecodedField, sizeBytes: number): boolean {
  if (knowledge === 'absent') return false;
  if (field.offset === 0 && (field.name === 'size' || field.name === 'argsz')) return value !== sizeBytes;
  if (field.direction !== 'reserved') return true;
  if (typeof value === 'object' && value.kind === 'array') return value.items.some((item) => item !== 0);
  return value !== undefined && value !== 0;
}

function formatField({ field, value, target }: DecodedField): string {
  const name = isChoice(value) ? value.name : field.name;
  const own = formatValue(value, field.shape);
  if (target === null || field.target === undefined) return `${name}=${own}`;
  const beyond = isChoice(target) ? target.name : '';
  return `${name}=${own}->${beyond}${formatValue(target, field.target.shape)}`;
}

function formatCap({ at, value, raw }: DecodedCap): string {
  const rest = raw === undefined ? '' : ` ${formatBytes(raw)}`;
  return `${hex(at)}: ${value.struct.name} ${formatStruct(value)}${rest}`;
}

function formatBytes({ bytes, count }: DecodedBytes): string {
  const shown = bytes.slice(0, Math.min(bytes.length, SHOWN_BYTES)).toHex();
  return count === bytes.length && bytes.length <= SHOWN_BYTES ? `"${shown}"` : `"${shown}..." (${count} bytes)`;
}

/** Text of the traced program between quotes: printable ASCII as it is, all else as `\xNN`. */
function quoted(bytes: Bytes): string {
  let text = '';
  for (let i = 0; i < bytes.length; i++) {
    const code = bytes.u8(i);
    const plain = code >= 0x20 && code < 0x7f && code !== 0x22 && code !== 0x5c;
    text += plain ? String.fromCharCode(code) : `\\x${code.toString(16).padStart(2, '0')}`;
  }
  return `"${text}"`;
}

function isBytes(value: Value): value is DecodedBytes {
  return typeof value === 'object' && value.kind === 'bytes';
}

function isChoice(value: Value | undefined | null): value is Extract<Value, { kind: 'choice' }> {
  return typeof value === 'object' && value !== null && value.kind === 'choice';
}
