import { Bytes } from '../../core/bytes.js';
import type { U64 } from '../../core/u64.js';
import type { Arena } from './arena.js';
import type { CallText, Result } from './call-text.js';
import type { Symbols } from './symbols.js';
import {
  addReading,
  type Fd,
  type Reading,
  readFd,
  readFlags,
  readString,
  readText,
  readU64,
  toInt,
} from './values.js';

/**
 * Reads the arguments of one call. A value that is missing or cannot be read gives a harmless substitute
 * and leaves its `problem`, so that a reader of a call asks for all it needs and looks once at the end.
 */
export class Args {
  readonly name: string;
  readonly result: Result;
  readonly #raw: readonly string[];
  readonly #args: readonly string[];
  readonly #arena: Arena;
  problem: '' | 'missing' | 'range' = '';
  /** The argument that the problem is with, or -1. */
  problemAt = -1;

  constructor(call: CallText, result: Result, arena: Arena) {
    this.name = call.name;
    this.result = result;
    this.#raw = call.args;
    this.#args = call.args.map(withoutName);
    this.#arena = arena;
  }

  get count(): number {
    return this.#args.length;
  }

  /** The argument's text without the name that `-N` gives it. */
  text(index: number): string {
    return this.#args[index] ?? '';
  }

  /** The value of an argument that strace names by itself (`flags=` of clone), or of a member of a struct. */
  named(name: string): string | undefined {
    const pattern = new RegExp(`(?:^|[{ ])${name}=([^,}]*)`);
    for (const arg of this.#raw) {
      const found = pattern.exec(arg);
      if (found !== null) return (found[1] as string).trim();
    }
    return undefined;
  }

  /** All arguments as printed. */
  get allText(): string {
    return this.#raw.join(', ');
  }

  u64(index: number): U64 {
    return this.#value(index, readU64(this.text(index)), 0);
  }

  /** A 32-bit value; wider ones lose their upper half, as in the kernel. */
  u32(index: number): number {
    return toInt(this.u64(index)) >>> 0;
  }

  flags(index: number, table: Symbols): number {
    const word = this.#value(index, readFlags(this.text(index), table), 0);
    return typeof word === 'number' ? word : toInt(word) >>> 0;
  }

  /** Flags that may have more than 32 bits. */
  wideFlags(text: string, table: Symbols): U64 {
    return this.#value(0, readFlags(text, table), 0);
  }

  fd(index: number): Fd {
    return this.#value(index, readFd(this.text(index)), { fd: -1, path: '' });
  }

  /** A quoted path; '' for a pointer that strace could not follow. */
  path(index: number): string {
    return readText(this.text(index)) ?? '';
  }

  /** The bytes of a quoted buffer, or undefined where strace printed an address instead. */
  bytes(index: number): Bytes | undefined {
    const text = this.text(index);
    return text.startsWith('"') ? readString(text, 0, this.#arena)?.bytes : undefined;
  }

  /** The buffers of a vector (`[{iov_base="…", iov_len=5}, …]`) one after the other, and their sizes' sum. */
  vector(index: number): { data: Bytes; lengthBytes: U64 } {
    const text = this.text(index);
    const parts: Uint8Array[] = [];
    for (const at of text.matchAll(/iov_base="/g)) {
      const part = readString(text, at.index + 9, this.#arena);
      if (part !== undefined) parts.push(part.bytes.toUint8Array());
    }
    let sum: Reading<U64> = 0;
    for (const length of text.matchAll(/iov_len=(\w+)/g)) sum = addReading(sum, readU64(length[1] as string));
    return { data: new Bytes(Buffer.concat(parts)), lengthBytes: this.#value(index, sum, 0) };
  }

  #value<T>(index: number, reading: Reading<T>, substitute: T): T {
    if (reading !== undefined && reading !== 'range') return reading;
    if (this.problem === '') {
      this.problem = reading === 'range' ? 'range' : 'missing';
      this.problemAt = index;
    }
    return substitute;
  }
}

/** strace 6.16 and later with `-N`: `fd=3`, `argp=0x…`. Structs, strings and flags never begin so by themselves. */
function withoutName(arg: string): string {
  const named = /^[a-z_][a-z0-9_]*=(?!=)/.exec(arg);
  return named === null ? arg : arg.slice(named[0].length);
}
