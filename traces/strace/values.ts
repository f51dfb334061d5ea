import type { Bytes } from '../../core/bytes.js';
import { add, mul, or, parseU64, type U64 } from '../../core/u64.js';
import type { Arena } from './arena.js';
import type { Symbols } from './symbols.js';
import { copied } from './text.js';

/**
 * Single values as strace prints them, from text: the slow and complete readers. All give undefined for what
 * they do not understand, and `'range'` for a number of more than 64 bits.
 */
export type Reading<T> = T | 'range' | undefined;

const COMMENT = /\/\*.*?\*\//g;
const MAGNITUDE = /^-?(0[xX][0-9a-fA-F]+|[0-9]+)$/;

/** `NULL`, decimal, hex, negative (as two's complement), `8192*1024`, `~0`, with or without strace's comment behind it. */
export function readU64(text: string): Reading<U64> {
  const plain = (text.includes('/*') ? text.replace(COMMENT, '') : text).trim();
  if (plain === 'NULL') return 0;
  if (plain.includes('*')) return readProduct(plain);
  if (!MAGNITUDE.test(plain)) return undefined;
  // A leading zero is a C octal in modes and signal masks only, none of which are read as numbers here.
  return parseU64(plain) ?? parseU64(plain.replace(/^(-?0[xX]?)0+(?=[0-9a-fA-F])/, '$1')) ?? 'range';
}

function readProduct(text: string): Reading<U64> {
  let product: U64 = 1;
  for (const factor of text.split('*')) {
    const value = readU64(factor);
    if (value === undefined || value === 'range') return value;
    product = mul(product, value);
  }
  return product;
}

/**
 * A word of flags: `A|B|0x40`, `MAP_HUGETLB|30<<MAP_HUGE_SHIFT`, a bare number, or a number with its names in a comment. Names that
 * the table lacks add nothing, but a word of which nothing at all is known gives undefined.
 */
export function readFlags(text: string, table: Symbols): Reading<U64> {
  const plain = (text.includes('/*') ? text.replace(COMMENT, '') : text).trim();
  let word: U64 = 0;
  let known = false;
  for (const part of plain.split('|')) {
    const value = readFlag(part.trim(), table);
    if (value === 'range') return value;
    if (value === undefined) continue;
    known = true;
    word = or(word, value);
  }
  return known ? word : undefined;
}

function readFlag(part: string, table: Symbols): Reading<U64> {
  const named = table.get(part);
  if (named !== undefined) return named;
  const shift = /^([0-9a-fA-Fx]+)<<(\w+)$/.exec(part);
  if (shift === null) return readU64(part);
  const by = table.get(shift[2] as string) ?? readU64(shift[2] as string);
  const value = readU64(shift[1] as string);
  if (value === undefined || value === 'range' || typeof by !== 'number' || by > 63) return undefined;
  return mul(value, 2 ** by);
}

/** An fd with what `-y` says of it. */
export interface Fd {
  readonly fd: number;
  readonly path: string;
}

/** `3`, `0x3`, `-1`, `3</dev/vfio/vfio>`, `5</memfd:x>(deleted)`, `AT_FDCWD</tmp>`, also with a comment. */
export function readFd(text: string): Reading<Fd> {
  const angle = text.indexOf('<');
  const path = angle < 0 ? '' : innerPath(text, angle);
  const head = (angle < 0 ? text : text.slice(0, angle)).replace(COMMENT, '').trim();
  const number = head.split(' ', 1)[0] as string;
  if (number === 'AT_FDCWD') return { fd: -100, path };
  const value = readU64(number);
  if (value === undefined || value === 'range') return value;
  return { fd: toInt(value), path };
}

/** The kernel takes 32 bits of an fd argument, signed. */
export function toInt(value: U64): number {
  return typeof value === 'number' ? value | 0 : Number(BigInt.asIntN(32, value));
}

/** The text of a `<…>` that begins at `angle`, without the brackets and with its escapes undone. */
export function innerPath(text: string, angle: number): string {
  const end = closingAngle(text, angle);
  const inner = text.slice(angle + 1, end);
  return inner.includes('\\') ? unescapeText(inner) : copied(inner);
}

/** Where a `<…>` ends; the end of the text when it never does. A `->` inside does not end it. */
export function closingAngle(text: string, angle: number): number {
  let depth = 0;
  for (let i = angle; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if (c === 60) depth++;
    else if (c === 62 && text.charCodeAt(i - 1) !== 45 && --depth === 0) return i;
  }
  return text.length;
}

const ESCAPES: Readonly<Record<string, number>> = { n: 10, t: 9, r: 13, v: 11, f: 12, a: 7, b: 8, e: 27 };

/**
 * Reads a C string from its opening quote on and puts the bytes into the arena. Gives where the text goes on
 * after the closing quote, or undefined where the quote is never closed.
 */
export function readString(text: string, quote: number, arena: Arena): { bytes: Bytes; end: number } | undefined {
  arena.reserve(text.length - quote);
  const from = arena.at;
  let at = quote + 1;
  for (; at < text.length; at++) {
    const c = text.charCodeAt(at);
    if (c === 34) return { bytes: arena.take(from), end: at + 1 };
    if (c !== 92) {
      arena.bytes[arena.at++] = c;
      continue;
    }
    at = readEscape(text, at + 1, arena);
  }
  arena.at = from;
  return undefined;
}

/** One escape, from the character after the backslash; gives the position of its last character. */
function readEscape(text: string, at: number, arena: Arena): number {
  const c = text.charCodeAt(at);
  const hex = c === 120;
  const most = hex ? 2 : 3;
  let value = 0;
  let digits = 0;
  for (let i = hex ? at + 1 : at; digits < most; i++, digits++) {
    const digit = digitOf(text.charCodeAt(i));
    if (digit < 0 || (!hex && digit > 7)) break;
    value = value * (hex ? 16 : 8) + digit;
  }
  if (hex || digits > 0) {
    arena.bytes[arena.at++] = value;
    return at + digits - (hex ? 0 : 1);
  }
  arena.bytes[arena.at++] = ESCAPES[text[at] ?? ''] ?? c;
  return at;
}

function digitOf(c: number): number {
  if (c >= 48 && c <= 57) return c - 48;
  const letter = c | 32;
  return letter >= 97 && letter <= 102 ? letter - 87 : -1;
}

function unescapeText(text: string): string {
  const bytes: number[] = [];
  for (let i = 0; i < text.length; i++) {
    const match = text[i] === '\\' ? /^\\(x[0-9a-fA-F]{1,2}|[0-7]{1,3}|.)/.exec(text.slice(i, i + 5)) : null;
    if (match === null) {
      bytes.push(text.charCodeAt(i));
      continue;
    }
    const body = match[1] as string;
    if (/^x[0-9a-fA-F]/.test(body)) bytes.push(Number.parseInt(body.slice(1), 16));
    else if (/^[0-7]/.test(body)) bytes.push(Number.parseInt(body, 8) & 0xff);
    else bytes.push(ESCAPES[body] ?? body.charCodeAt(0));
    i += match[0].length - 1;
  }
  return Buffer.from(bytes).toString('utf8');
}

/** The text of a quoted path: escapes undone, read as UTF-8. A cut string (`"..."...`) gives what is there. */
export function readText(text: string): string | undefined {
  const quote = text.indexOf('"');
  if (quote < 0) return undefined;
  let end = quote + 1;
  while (end < text.length && text[end] !== '"') end += text[end] === '\\' ? 2 : 1;
  return unescapeText(text.slice(quote + 1, end));
}

/** Adds the sizes of buffers; `undefined` and `'range'` are contagious. */
export function addReading(a: Reading<U64>, b: Reading<U64>): Reading<U64> {
  if (a === undefined || a === 'range') return a;
  if (b === undefined || b === 'range') return b;
  return add(a, b);
}
