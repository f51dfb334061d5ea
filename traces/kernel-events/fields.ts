import { Bytes } from '../../core/bytes.js';
import { errnoName, MAX_ERRNO } from '../../core/errno.js';
import type { ErrorCode } from '../../core/errors.js';
import { fromBig, parseU64, sub, type U64 } from '../../core/u64.js';

/** What can be wrong with a line that gives no event. */
export type LineCode = Extract<ErrorCode, 'IOT102' | 'IOT103' | 'IOT104' | 'IOT105' | 'IOT110'>;

/** Why a line gives no event. */
export interface Problem {
  readonly code: LineCode;
  readonly message: string;
  /** From 1; 0 where the whole line is meant. */
  readonly column: number;
}

/** A result as the kernel returns it: a value, or -1 with the error's name. */
export interface Result {
  readonly ret: U64 | -1 | null;
  readonly errno: string;
}

/** The size field of an ioctl number has 14 bits: no struct is larger. What a recorder adds behind is dropped. */
const MAX_MEM_BYTES = 1 << 14;
const LOWEST_ERROR: U64 = fromBig(-BigInt(MAX_ERRNO));

/**
 * Typed reading of one JSON object. The first thing wrong is kept in {@link problem} and the getters go on with
 * harmless values, so that a line is read straight through and judged once at its end.
 * Numbers come as JSON integers or as text in hex; text keeps all 64 bits.
 */
export class Fields {
  #object: { readonly [name: string]: unknown } = {};
  #text = '';
  problem: Problem | undefined;

  begin(object: { readonly [name: string]: unknown }, text: string): void {
    this.#object = object;
    this.#text = text;
    this.problem = undefined;
  }

  fail(name: string, message: string, code: LineCode = 'IOT110'): void {
    this.problem ??= { code, message: `"${name}" ${message}`, column: this.#text.indexOf(`"${name}"`) + 1 };
  }

  has(name: string): boolean {
    const value = this.#object[name];
    return value !== undefined && value !== null;
  }

  string(name: string): string {
    const value = this.#object[name];
    if (typeof value === 'string') return value;
    this.fail(name, value === undefined ? 'is missing' : 'must be text');
    return '';
  }

  u64(name: string): U64 {
    return this.#u64(name, this.#object[name]);
  }

  /** A 32-bit field: `-2^31` to `2^32 - 1`, for the recorder prints ints and unsigned ints alike. */
  int32(name: string): number {
    return this.#int32(name, this.#object[name]);
  }

  args(count: number): readonly unknown[] {
    const value = this.#object['args'];
    if (Array.isArray(value) && value.length >= count) return value;
    this.fail('args', `must be an array of ${count} numbers`);
    return [];
  }

  /** One of {@link args}; past its end too, where `args` has already complained. */
  argU64(args: readonly unknown[], at: number): U64 {
    return args.length === 0 ? 0 : this.#u64('args', args[at]);
  }

  argInt32(args: readonly unknown[], at: number): number {
    return args.length === 0 ? 0 : this.#int32('args', args[at]);
  }

  /** Bytes in hex; undefined where the recorder could not read the memory and left it out. */
  bytes(name: string): Bytes | undefined {
    if (!this.has(name)) return undefined;
    const text = this.string(name);
    const bytes = Buffer.from(text, 'hex');
    if (bytes.length * 2 !== text.length) this.fail(name, 'must be pairs of hex digits');
    if (bytes.length === 0) return undefined;
    return bytes.length <= MAX_MEM_BYTES
      ? new Bytes(bytes)
      : new Bytes(new Uint8Array(bytes.subarray(0, MAX_MEM_BYTES)));
  }

  /** `ret`: -4095 to -1 is an error, also as the 64-bit text that it makes. */
  result(): Result {
    const value = this.u64('ret');
    if (value < LOWEST_ERROR) return { ret: value, errno: '' };
    return { ret: -1, errno: errnoName(Number(sub(0, value))) };
  }

  #u64(name: string, value: unknown): U64 {
    if (typeof value === 'number') {
      if (Number.isSafeInteger(value)) return value >= 0 ? value : fromBig(BigInt(value));
      this.fail(name, 'must be an integer that fits; give large ones as text in hex', 'IOT105');
      return 0;
    }
    if (typeof value !== 'string') {
      this.fail(name, value === undefined ? 'is missing' : 'must be a number or text in hex');
      return 0;
    }
    // Up to 13 hex digits are exact in a double; this is the way of nearly all addresses.
    if (value.length <= 15 && value.charCodeAt(1) === 0x78) {
      const small = Number(value);
      if (small >= 0) return small;
    }
    const parsed = parseU64(value);
    if (parsed === undefined) this.fail(name, 'must be a number of at most 64 bits', 'IOT105');
    return parsed ?? 0;
  }

  #int32(name: string, value: unknown): number {
    if (typeof value === 'number' && value >= -0x8000_0000 && value <= 0xffff_ffff && Number.isInteger(value))
      return value;
    const wide = this.#u64(name, value);
    if (wide <= 0xffff_ffff) return Number(wide);
    if (wide >= 0xffff_ffff_8000_0000n) return -Number(sub(0, wide));
    this.fail(name, 'must fit 32 bits', 'IOT105');
    return 0;
  }
}
