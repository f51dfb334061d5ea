import { fc } from './property.js';
import * as assert from 'uvu/assert';
import { suite } from './testing.js';
import * as u64 from './u64.js';
import type { U64 } from './u64.js';

const MASK = (1n << 64n) - 1n;
const test = suite('u64');

/** 64-bit values, most of them within a few steps of the places where representations or signs change. */
const EDGES = [0n, 1n << 12n, 1n << 31n, 1n << 32n, 1n << 52n, 1n << 53n, 1n << 63n, 1n << 64n];
const nearEdge = fc
  .tuple(fc.constantFrom(...EDGES), fc.bigInt(-3n, 3n))
  .map(([edge, delta]) => BigInt.asUintN(64, edge + delta));
const big = fc.oneof({ weight: 3, arbitrary: nearEdge }, fc.bigInt(0n, MASK), fc.bigInt(0n, 1n << 20n));
const power = fc.integer({ min: 0, max: 32 }).map((bits) => 2 ** bits);

/** The reference: what the value would be by BigInt alone, in canonical form. */
function canonical(value: bigint): U64 {
  const wrapped = value & MASK;
  return wrapped <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(wrapped) : wrapped;
}

function pairs(check: (a: bigint, b: bigint) => void): void {
  fc.assert(fc.property(big, big, check), {
    numRuns: 2000,
    examples: EDGES.flatMap((a) => EDGES.map((b): [bigint, bigint] => [a & MASK, b & MASK])),
  });
}

function same(actual: unknown, expected: unknown, what: string): void {
  if (actual !== expected) assert.unreachable(`${what}: got ${String(actual)}, expected ${String(expected)}`);
}

test('arithmetic agrees with BigInt modulo 2^64, and every result is canonical', () => {
  pairs((a, b) => {
    const [x, y] = [canonical(a), canonical(b)];
    same(u64.add(x, y), canonical(a + b), `add(${a}, ${b})`);
    same(u64.sub(x, y), canonical(a - b), `sub(${a}, ${b})`);
    same(u64.mul(x, y), canonical(a * b), `mul(${a}, ${b})`);
    same(u64.and(x, y), canonical(a & b), `and(${a}, ${b})`);
    same(u64.or(x, y), canonical(a | b), `or(${a}, ${b})`);
    if (b !== 0n) {
      same(u64.div(x, y), canonical(a / b), `div(${a}, ${b})`);
      same(u64.mod(x, y), canonical(a % b), `mod(${a}, ${b})`);
    }
  });
});

test('order, equality and overflow agree with BigInt', () => {
  pairs((a, b) => {
    const [x, y] = [canonical(a), canonical(b)];
    same(u64.addOverflows(x, y), a + b > MASK, `addOverflows(${a}, ${b})`);
    same(u64.compareU64(x, y), a < b ? -1 : a > b ? 1 : 0, `compareU64(${a}, ${b})`);
    same(x === y, a === b, `${a} === ${b}`);
    same(x < y, a < b, `${a} < ${b}`);
    same(u64.min(x, y), canonical(a < b ? a : b), `min(${a}, ${b})`);
    same(u64.max(x, y), canonical(a > b ? a : b), `max(${a}, ${b})`);
  });
});

test('range ends agree with BigInt', () => {
  pairs((start, length) => {
    const [x, y] = [canonical(start), canonical(length)];
    const last = start + length - 1n;
    const expected = length === 0n || last > MASK ? undefined : canonical(last);
    same(u64.lastOf(x, y), expected, `lastOf(${start}, ${length})`);
    if (expected !== undefined) same(u64.lengthOf(x, expected), y, `lengthOf(${start}, ${last})`);
  });
});

test('alignment and remainders by powers of two agree with BigInt', () => {
  fc.assert(
    fc.property(big, power, (a, p) => {
      const x = canonical(a);
      const rest = a % BigInt(p);
      same(u64.modPow2(x, p), Number(rest), `modPow2(${a}, ${p})`);
      same(u64.alignDown(x, p), canonical(a - rest), `alignDown(${a}, ${p})`);
      same(u64.alignUp(x, p), canonical(rest === 0n ? a : a - rest + BigInt(p)), `alignUp(${a}, ${p})`);
    }),
    { numRuns: 2000 },
  );
});

test('halves join to the value they came from', () => {
  fc.assert(
    fc.property(big, (a) => {
      const x = canonical(a);
      same(u64.low32(x), Number(a & 0xffff_ffffn), `low32(${a})`);
      same(u64.high32(x), Number(a >> 32n), `high32(${a})`);
      same(u64.fromHalves(u64.low32(x), u64.high32(x)), x, `fromHalves of ${a}`);
      same(u64.fromBig(a), x, `fromBig(${a})`);
      same(u64.fromBig(a - (1n << 64n)), x, `fromBig(${a} - 2^64)`);
    }),
    { numRuns: 2000 },
  );
});

test('text is read back as it was printed, in hex and decimal', () => {
  fc.assert(
    fc.property(big, (a) => {
      const x = canonical(a);
      same(u64.parseU64(u64.hex(x)), x, u64.hex(x));
      same(u64.parseU64(String(x)), x, String(x));
      same(u64.parseU64(`-${a}`), canonical(-a), `-${a}`);
    }),
  );
});

for (const [text, expected] of [
  ['0', 0],
  ['-0', 0],
  ['0x0', 0],
  ['0XfF', 255],
  ['-1', 0xffff_ffff_ffff_ffffn],
  ['18446744073709551615', 0xffff_ffff_ffff_ffffn],
  ['18446744073709551616', undefined],
  ['0x10000000000000000', undefined],
  ['99999999999999999999', undefined],
  ['', undefined],
  ['-', undefined],
  ['0x', undefined],
  ['--1', undefined],
  [' 1', undefined],
  ['1 ', undefined],
  ['1\n', undefined],
  ['1e3', undefined],
  ['1_000', undefined],
  ['0b1', undefined],
  ['NULL', undefined],
  ['٣', undefined],
] as [string, U64 | undefined][]) {
  test(`parseU64(${JSON.stringify(text)})`, () => assert.is(u64.parseU64(text), expected));
}

test('hex prints as the kernel does: lower case, no leading zeros', () => {
  assert.is(u64.hex(0), '0x0');
  assert.is(u64.hex(0xfee0_0000), '0xfee00000');
  assert.is(u64.hex(u64.U64_MAX), '0xffffffffffffffff');
});

test('the whole space has length 0, as in the kernel', () => assert.is(u64.lengthOf(0, u64.U64_MAX), 0));
