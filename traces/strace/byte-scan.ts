import { requestOfStraceName } from '../../core/uapi/strace-name.js';
import { canonical } from './call-text.js';
import { Interner } from './intern.js';
import type { Symbols } from './symbols.js';
import { innerPath, readFlags } from './values.js';

/**
 * Values on bytes, for the fast reader. Every function takes where to begin and gives where to go on, or -1 for
 * whatever is not in the usual form; what was read stands in a field. Lines end with a newline, and no value
 * contains a control character, so nothing here runs over the end of a buffer.
 */
export class ByteScan {
  /** The last number read. Exact: wider ones are refused. */
  value = 0;
  /** The last fd, and what `-y` said of it. */
  fd = 0;
  path = '';
  /** The last result. */
  ret = 0;
  errno = '';
  readonly #paths = new Interner((text) => innerPath(text, 0));
  readonly #errnos = new Interner(canonical, 1024);
  readonly #requests = new Interner((text) => requestOfStraceName(text) ?? -1, 4096);

  decimal(b: Uint8Array, from: number): number {
    let p = from;
    let value = 0;
    let digit = (b[p] as number) - 48;
    while (digit >= 0 && digit <= 9) {
      value = value * 10 + digit;
      digit = (b[++p] as number) - 48;
    }
    if (p === from || p - from > 15) return -1;
    this.value = value;
    return p;
  }

  hex(b: Uint8Array, from: number): number {
    if (b[from] !== ZERO || b[from + 1] !== 120) return -1;
    let p = from + 2;
    let value = 0;
    let digit = HEX[b[p] as number] as number;
    while (digit >= 0) {
      value = value * 16 + digit;
      digit = HEX[b[++p] as number] as number;
    }
    if (p === from + 2 || p - from > 15) return -1;
    this.value = value;
    return p;
  }

  /** `0x…`, a decimal number, or `NULL`. */
  word(b: Uint8Array, from: number): number {
    const c = b[from];
    if (c === ZERO && b[from + 1] === 120) return this.hex(b, from);
    if (c !== 78) return this.decimal(b, from);
    if (b[from + 1] !== 85 || b[from + 2] !== 76 || b[from + 3] !== 76) return -1;
    this.value = 0;
    return from + 4;
  }

  /** `, ` */
  comma(b: Uint8Array, from: number): number {
    return from >= 0 && b[from] === COMMA && b[from + 1] === SPACE ? from + 2 : -1;
  }

  /** `3`, `-1`, `3</path<char 1:3>>`, `5</memfd:x>(deleted)`. */
  fdArgument(b: Uint8Array, from: number): number {
    const negative = b[from] === MINUS;
    let p = this.decimal(b, negative ? from + 1 : from);
    if (p < 0 || this.value > 0x7fff_ffff) return -1;
    this.fd = negative ? -this.value : this.value;
    this.path = '';
    if (b[p] !== LESS) return p;
    const end = afterAngle(b, p);
    if (end < 0) return -1;
    this.path = this.#paths.get(b, p, end);
    p = end;
    if (b[p] !== OPEN) return p;
    return b[p + 1] === 100 && b[p + 8] === CLOSE ? p + 9 : -1;
  }

  /** The second argument of ioctl; refused where its number is unknown. */
  request(b: Uint8Array, from: number): number {
    let p = from;
    let depth = 0;
    for (; ; p++) {
      const c = b[p] as number;
      if (c === COMMA && depth === 0) break;
      if (c === OPEN) depth++;
      else if (c === CLOSE && --depth < 0) break;
      else if (c !== COMMA && c !== CLOSE && WORDS[c] !== 1) return -1;
    }
    this.value = this.#requests.get(b, from, p);
    return this.value < 0 ? -1 : p;
  }

  /** A word of flags up to the next comma or parenthesis. */
  flags(b: Uint8Array, from: number, known: Interner<number>): number {
    let p = from;
    while (WORDS[b[p] as number] === 1) p++;
    if (b[p] !== COMMA && b[p] !== CLOSE) return -1;
    this.value = known.get(b, from, p);
    return this.value < 0 ? -1 : p;
  }

  /** From the closing parenthesis to behind the newline: `)   = 0`, `) = -1 EINVAL (Invalid argument) <0.000012>`. */
  result(b: Uint8Array, from: number): number {
    if (from < 0 || b[from] !== CLOSE || b[from + 1] !== SPACE) return -1;
    let p = from + 2;
    while (b[p] === SPACE) p++;
    if (b[p] !== EQUALS || b[p + 1] !== SPACE) return -1;
    p += 2;
    if (b[p] === MINUS) return this.#failure(b, p);
    this.errno = '';
    p = b[p + 1] === 120 ? this.hex(b, p) : this.decimal(b, p);
    this.ret = this.value;
    return p < 0 ? -1 : endOfLine(b, p);
  }

  #failure(b: Uint8Array, from: number): number {
    if (b[from + 1] !== 49 || b[from + 2] !== SPACE || b[from + 3] !== 69) return -1;
    let p = from + 3;
    while (isErrnoLetter(b[p] as number)) p++;
    if (b[p] !== SPACE || b[p + 1] !== OPEN) return -1;
    this.errno = this.#errnos.get(b, from + 3, p);
    this.ret = -1;
    p += 2;
    while (WORDS[b[p] as number] !== 0) p++;
    return b[p] === CLOSE ? endOfLine(b, p + 1) : -1;
  }
}

function isErrnoLetter(c: number): boolean {
  return (c >= 65 && c <= 90) || (c >= ZERO && c <= 57) || c === 95;
}

/** Flags are interned per argument: the same letters may mean different bits elsewhere. */
export function flagInterner(table: Symbols): Interner<number> {
  return new Interner((text) => {
    const word = readFlags(text, table);
    return typeof word === 'number' ? word : -1;
  }, 4096);
}

/** The end of the line, perhaps behind the duration that `-T` appends. */
function endOfLine(b: Uint8Array, from: number): number {
  if (b[from] === NEWLINE) return from + 1;
  if (b[from] !== SPACE || b[from + 1] !== LESS) return -1;
  let p = from + 2;
  for (let c = b[p] as number; c !== GREATER; c = b[++p] as number) {
    if (c !== 46 && (c < ZERO || c > 57)) return -1;
  }
  return b[p + 1] === NEWLINE ? p + 2 : -1;
}

/** Behind the `>` that belongs to the `<` at `from`; `closingAngle` in values.ts does the same on text. */
function afterAngle(b: Uint8Array, from: number): number {
  let depth = 0;
  for (let p = from; ; p++) {
    const c = b[p] as number;
    if (c === LESS) depth++;
    else if (c === GREATER && b[p - 1] !== MINUS && --depth === 0) return p + 1;
    else if (c < SPACE) return -1;
  }
}

/** The value of each hexadecimal digit, -1 for other bytes. */
export const HEX: Int8Array = new Int8Array(256).fill(-1);
for (let i = 0; i < 16; i++) {
  HEX['0123456789abcdef'.charCodeAt(i)] = i;
  HEX['0123456789ABCDEF'.charCodeAt(i)] = i;
}

/** 1: what names of flags and requests consist of, `30<<MAP_HUGE_SHIFT` included. 2: also seen in texts of errors. */
const WORDS: Uint8Array = new Uint8Array(256);
for (const c of Buffer.from('ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_| <')) WORDS[c] = 1;
for (const c of Buffer.from("-./'")) WORDS[c] = 2;

const NEWLINE = 10;
export const SPACE = 32;
const QUOTE = 34;
const OPEN = 40;
const CLOSE = 41;
const COMMA = 44;
const MINUS = 45;
const ZERO = 48;
const LESS = 60;
const EQUALS = 61;
const GREATER = 62;
const BACKSLASH = 92;

/**
 * Decodes a string of nothing but `\xNN` (strace `-x` on binary data) up to its closing quote into `target`.
 * Gives where the quote stands, or -1 for any other form or too little room.
 */
export function decodeHexString(b: Uint8Array, from: number, target: Uint8Array, targetAt: number): number {
  let p = from;
  let at = targetAt;
  while (b[p] === BACKSLASH) {
    if (b[p + 1] !== 120 || at === target.length) return -1;
    const high = HEX[b[p + 2] as number] as number;
    const low = HEX[b[p + 3] as number] as number;
    if ((high | low) < 0) return -1;
    target[at++] = (high << 4) | low;
    p += 4;
  }
  return b[p] === QUOTE ? p : -1;
}

/** Whether `bytes` stand at `from`. */
export function startsWith(b: Uint8Array, from: number, bytes: Uint8Array): boolean {
  for (let i = 0; i < bytes.length; i++) if (b[from + i] !== bytes[i]) return false;
  return true;
}
