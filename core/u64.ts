/**
 * Exact unsigned 64-bit values at the cost of plain numbers.
 *
 * A `U64` is a JavaScript number up to `Number.MAX_SAFE_INTEGER` and a bigint above it, never the
 * other way round. That form is canonical, so `===` is equality, and the language's own `<` compares
 * mixed pairs exactly. Ordinary addresses stay unboxed doubles on the hot path; values such as an
 * IOVA of 0xffff_ffff_ffff_f000 stay exact. TypeScript refuses `+` on this type, so every sum goes
 * through the functions below, which say what happens at 2^64.
 */
export type U64 = number | bigint;

export const U64_MAX: U64 = 0xffff_ffff_ffff_ffffn;
const SAFE_MAX = Number.MAX_SAFE_INTEGER;
const TWO_64 = 1n << 64n;

/** Brings any bigint into canonical form, modulo 2^64. */
export function fromBig(value: bigint): U64 {
  const wrapped = BigInt.asUintN(64, value);
  return wrapped <= 0x1f_ffff_ffff_ffffn ? Number(wrapped) : wrapped;
}

/** Joins two unsigned 32-bit halves. */
export function fromHalves(low: number, high: number): U64 {
  return high < 0x20_0000 ? high * 0x1_0000_0000 + low : (BigInt(high) << 32n) | BigInt(low);
}

/** The low 32 bits, unsigned. */
export function low32(value: U64): number {
  return typeof value === 'number' ? value % 0x1_0000_0000 : Number(value & 0xffff_ffffn);
}

/** The high 32 bits, unsigned. */
export function high32(value: U64): number {
  return typeof value === 'number' ? Math.floor(value / 0x1_0000_0000) : Number(value >> 32n);
}

/** `a + b` modulo 2^64, as the kernel's `u64` addition; see {@link addOverflows}. */
export function add(a: U64, b: U64): U64 {
  if (typeof a === 'number' && typeof b === 'number') {
    const sum = a + b;
    if (sum <= SAFE_MAX) return sum;
  }
  return fromBig(BigInt(a) + BigInt(b));
}

/** Whether `a + b` passes 2^64 - 1 (the kernel's `check_add_overflow`). */
export function addOverflows(a: U64, b: U64): boolean {
  if (typeof a === 'number' && typeof b === 'number') return false;
  return BigInt(a) + BigInt(b) >= TWO_64;
}

/** `a - b` modulo 2^64. */
export function sub(a: U64, b: U64): U64 {
  if (typeof a === 'number' && typeof b === 'number' && a >= b) return a - b;
  return fromBig(BigInt(a) - BigInt(b));
}

/** `a * b` modulo 2^64. */
export function mul(a: U64, b: U64): U64 {
  if (typeof a === 'number' && typeof b === 'number') {
    const product = a * b;
    if (product <= SAFE_MAX) return product;
  }
  return fromBig(BigInt(a) * BigInt(b));
}

/** Remainder by a power of two of at most 2^32, e.g. the offset in a page. */
export function modPow2(value: U64, power: number): number {
  return typeof value === 'number' ? value % power : Number(value & BigInt(power - 1));
}

/** Integer quotient. */
export function div(a: U64, b: U64): U64 {
  if (typeof a === 'number' && typeof b === 'number') return Math.floor(a / b);
  return fromBig(BigInt(a) / BigInt(b));
}

/** Remainder by any divisor. */
export function mod(a: U64, b: U64): U64 {
  if (typeof a === 'number' && typeof b === 'number') return a % b;
  return fromBig(BigInt(a) % BigInt(b));
}

/** Rounds down to a multiple of `power` (a power of two of at most 2^32). */
export function alignDown(value: U64, power: number): U64 {
  return sub(value, modPow2(value, power));
}

/** Rounds up to a multiple of `power`, modulo 2^64 as the kernel's `ALIGN` does. */
export function alignUp(value: U64, power: number): U64 {
  const rest = modPow2(value, power);
  return rest === 0 ? value : add(value, power - rest);
}

/** Bitwise and. */
export function and(a: U64, b: U64): U64 {
  if (typeof a === 'number' && typeof b === 'number' && a <= 0x7fff_ffff && b <= 0x7fff_ffff) return a & b;
  return fromBig(BigInt(a) & BigInt(b));
}

/** Bitwise or. */
export function or(a: U64, b: U64): U64 {
  if (typeof a === 'number' && typeof b === 'number' && a <= 0x7fff_ffff && b <= 0x7fff_ffff) return a | b;
  return fromBig(BigInt(a) | BigInt(b));
}

export function min(a: U64, b: U64): U64 {
  return a < b ? a : b;
}

export function max(a: U64, b: U64): U64 {
  return a > b ? a : b;
}

/** The last address of `length` bytes from `start`, or undefined when the range is empty or passes 2^64. */
export function lastOf(start: U64, length: U64): U64 | undefined {
  if (typeof start === 'number' && typeof length === 'number') {
    const last = start + (length - 1); // in this order every value up to 2^53 is exact
    if (length > 0 && last <= SAFE_MAX) return last;
  }
  if (length === 0) return undefined;
  const last = BigInt(start) + BigInt(length) - 1n;
  return last >= TWO_64 ? undefined : fromBig(last);
}

/** How many bytes `start..last` holds, modulo 2^64 (the whole space gives 0, as in the kernel). */
export function lengthOf(start: U64, last: U64): U64 {
  return add(sub(last, start), 1);
}

/** Total order for maps and sorting; exact for mixed pairs. */
export function compareU64(a: U64, b: U64): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** `0x…` as the kernel and strace print it. */
export function hex(value: U64): string {
  return `0x${value.toString(16)}`;
}

/**
 * Reads `0x…` or decimal text, with an optional minus sign (two's complement, as a C `u64` would hold it).
 * Gives undefined for anything else and for values of more than 64 bits.
 */
export function parseU64(text: string): U64 | undefined {
  const match = /^(-?)(0[xX][0-9a-fA-F]{1,16}|[0-9]{1,20})$/.exec(text);
  if (!match) return undefined;
  const magnitude = BigInt(match[2] as string);
  if (magnitude >= TWO_64) return undefined;
  return fromBig(match[1] ? -magnitude : magnitude);
}
