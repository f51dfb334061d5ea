import { createHash } from 'node:crypto';
import { fc } from './property.js';
import * as assert from 'uvu/assert';
import { Bytes } from './bytes.js';
import { encodeCanonical, hashCanonical } from './canonical.js';
import { OrderedMap } from './ordered-map.js';
import { suite } from './testing.js';

const test = suite('canonical');

/** A value beside a spelling of it that two values share only when they are the same. */
interface Spelled {
  readonly value: unknown;
  readonly text: string;
}

const number = fc.oneof(
  fc.integer({ min: -3, max: 3 }),
  fc.constantFrom(0.5, NaN, Infinity, -Infinity, 2 ** 53 - 1, 2 ** 53, 2 ** 32, -(2 ** 53)),
  fc.bigInt(-3n, 3n),
  fc.constantFrom(2n ** 53n, 2n ** 63n, 2n ** 64n - 1n, 2n ** 64n, -(2n ** 63n), -(2n ** 64n)),
);
const leaf: fc.Arbitrary<Spelled> = fc.oneof(
  number.map((value) => ({ value, text: `${typeof value} ${value}` })),
  fc.constantFrom(null, undefined, true, false).map((value) => ({ value, text: String(value) })),
  fc
    .oneof(fc.string({ unit: 'binary', maxLength: 3 }), fc.constantFrom('\ud800', '\udfff', '\ufffd', '1'))
    .map((value) => ({ value, text: JSON.stringify(value) })),
  fc.uint8Array({ maxLength: 3 }).map((value) => ({ value: new Bytes(value), text: `bytes ${value.join()}` })),
);
const name = fc.constantFrom('a', 'b', 'ab', '', '0', '\ud800');

const { tree } = fc.letrec<{ tree: Spelled }>((tie) => ({
  tree: fc.oneof(
    { depthSize: 'small', withCrossShrink: true },
    leaf,
    fc
      .array(tie('tree'), { maxLength: 3 })
      .map((items) => ({ value: items.map((item) => item.value), text: `[${items.map((item) => item.text)}]` })),
    fc.dictionary(name, tie('tree'), { maxKeys: 3 }).map((record) => spelledRecord(record)),
    fc
      .uniqueArray(fc.tuple(fc.nat(3), tie('tree')), { selector: ([key]) => key, maxLength: 3 })
      .map((pairs) => spelledMap(pairs)),
  ),
}));

function spelledRecord(record: Record<string, Spelled>): Spelled {
  const entries = Object.entries(record);
  const kept = entries
    .filter(([, item]) => item.value !== undefined)
    .map(([k, item]) => [JSON.stringify(k), item.text]);
  return {
    value: Object.fromEntries(entries.map(([k, item]) => [k, item.value])),
    text: `{${kept.map((pair) => pair.join(': ')).toSorted()}}`,
  };
}

function spelledMap(pairs: [number, Spelled][]): Spelled {
  const map = OrderedMap.numeric<number, unknown>();
  for (const [k, item] of pairs) map.set(k, item.value);
  return { value: map, text: `map ${pairs.map(([k, item]) => `${k} => ${item.text}`).toSorted()}` };
}

test('values share their bytes exactly when they are the same', () => {
  fc.assert(
    fc.property(fc.array(tree, { minLength: 2, maxLength: 12 }), (values) => {
      const textOf = new Map<string, string>();
      const bytesOf = new Map<string, string>();
      for (const { value, text } of values) {
        const bytes = encodeCanonical(value).toString('hex');
        assert.is(textOf.get(bytes) ?? text, text, 'different values, same bytes');
        assert.is(bytesOf.get(text) ?? bytes, bytes, 'same value, different bytes');
        textOf.set(bytes, text);
        bytesOf.set(text, bytes);
      }
    }),
    { numRuns: 1000 },
  );
});

test('the order in which fields were written does not matter', () => {
  fc.assert(
    fc.property(fc.uniqueArray(fc.string(), { maxLength: 8 }), fc.func(fc.nat()), (names, rank) => {
      const build = (order: readonly string[]): object =>
        Object.fromEntries(order.map((field) => [field, field.length]));
      const shuffled = names.toSorted((a, b) => rank(a) - rank(b));
      assert.equal(encodeCanonical(build(shuffled)), encodeCanonical(build(names)));
    }),
  );
});

/** Pairs that a careless encoding confuses. */
for (const [what, a, b] of [
  ['a number and its text', 1, '1'],
  ['a number and a bigint of that value', 1, 1n],
  ['2^53 and the bigint', 2 ** 53, 2n ** 53n],
  ['2^64 - 1 and -1', 2n ** 64n - 1n, -1n],
  ['2^64 and 0', 2n ** 64n, 0n],
  ['null and undefined', [null], [undefined]],
  ['an empty array and an empty object', [], {}],
  ['an empty map and an empty array', OrderedMap.numeric(), []],
  ['nesting', [[1], 2], [[1, 2]]],
  ['split strings', ['ab', 'c'], ['a', 'bc']],
  ['bytes and their text', new Bytes(Uint8Array.of(0x61)), 'a'],
  ['two lone surrogates', '\ud800', '\ud801'],
  ['the UTF-16 of a lone surrogate and a text of the same bytes', '\ud841\u0080', 'A\u0600\0'],
  ['a lone surrogate and its replacement', '\ud800', '\ufffd'],
] as [string, unknown, unknown][]) {
  test(`kept apart: ${what}`, () => assert.is.not(hashCanonical(a), hashCanonical(b)));
}

for (const [what, a, b] of [
  ['0 and -0', 0, -0],
  ['NaN however made', Number.NaN, Number('x')],
  ['an absent and an undefined field', { a: 1 }, { a: 1, b: undefined }],
  ['a frozen and an open map', OrderedMap.numeric().freeze(), OrderedMap.numeric()],
  ['an object without prototype', Object.assign(Object.create(null), { a: 1 }), { a: 1 }],
] as [string, unknown, unknown][]) {
  test(`the same: ${what}`, () => assert.is(hashCanonical(a), hashCanonical(b)));
}

/** A table of `size` entries, made in the order that `step` gives. */
function counted(size: number, step: number): OrderedMap<number, unknown> {
  const map = OrderedMap.numeric<number, unknown>();
  for (let i = 0; i < size; i++) map.set((i * step) % size, { number: (i * step) % size });
  return map;
}

test('tables of any size: equal ones are equal, shared or not, frozen or not; one entry makes them differ', () => {
  for (const size of [0, 1, 16, 17, 1000]) {
    const shared = counted(size, 1).freeze();
    const alone = [counted(size, 1), counted(size, 7).freeze(), counted(size, 1)];
    assert.is(hashCanonical([shared, shared, shared]), hashCanonical(alone), `${size}`);
    assert.is(hashCanonical([shared, shared.edit(), shared.edit().freeze()]), hashCanonical(alone), `${size}`);
    const other = shared.edit().set(size, { number: size });
    assert.is.not(hashCanonical([shared, other, shared]), hashCanonical(alone), `${size}`);
    other.delete(size);
    assert.is(hashCanonical([shared, other.freeze(), shared]), hashCanonical(alone), `${size}`);
  }
});

test('a table that many share is gone through once', () => {
  let reads = 0;
  const table = counted(100, 1).set(100, {
    get seen() {
      return ++reads;
    },
  });
  const forks = OrderedMap.numeric<number, unknown>();
  for (let i = 0; i < 50; i++) forks.set(i, { table: table.freeze().edit().freeze() });
  hashCanonical(forks);
  assert.is(reads, 2, 'its one field is looked at twice');
});

test('a table that was changed although it is frozen has another hash', () => {
  const entry = { number: 1 };
  const table = counted(100, 1).set(100, entry).freeze();
  const before = hashCanonical({ table });
  entry.number = 2;
  assert.is.not(hashCanonical({ table }), before);
});

test('a NaN of any bits is one value', () => {
  const odd = new Float64Array(new BigUint64Array([0xfff8_0000_0000_0001n]).buffer)[0];
  assert.is(hashCanonical(odd), hashCanonical(Number.NaN));
});

test('values larger than the buffer are encoded whole', () => {
  for (const length of [65_530, 131_065, 131_072, 131_080, 400_000]) {
    const text = 'x'.repeat(length);
    const bytes = encodeCanonical(['before', text, new Bytes(new Uint8Array(length).fill(7)), 'after']);
    const parts = ['before', text, new Bytes(new Uint8Array(length).fill(7)), 'after'].map(encodeCanonical);
    assert.ok(bytes.subarray(5).equals(Buffer.concat(parts)), `${length}`);
  }
});

test('the hash is the sha256 of the bytes', () => {
  const value = { a: Array.from({ length: 50_000 }, (_, i) => i), b: 'text', c: new Bytes(new Uint8Array(200_000)) };
  assert.is(hashCanonical(value), createHash('sha256').update(encodeCanonical(value)).digest('hex'));
});

/** The state hash is stored in tapes and reports, so it must not change by accident. */
test('the encoding is the published one', () => {
  const map = OrderedMap.numeric<number, unknown>().set(2, 'two').set(1, Bytes.fromHex('ff'));
  const value = { z: 1, a: [null, true, false, -1, 2n ** 64n - 1n], m: map };
  assert.is(
    encodeCanonical(value).toString('latin1'),
    [
      'o\x03\0\0\0',
      'k\x01\0\0\0a',
      'a\x05\0\0\0',
      '0tf',
      'd\0\0\0\0\0\0\xf0\xbf',
      'U\xff\xff\xff\xff\xff\xff\xff\xff',
      'k\x01\0\0\0m',
      'm\x02\0\0\0',
      'u\x01\0\0\0\0\0\0\0',
      'b\x01\0\0\0\xff',
      'u\x02\0\0\0\0\0\0\0',
      's\x03\0\0\0two',
      'k\x01\0\0\0z',
      'u\x01\0\0\0\0\0\0\0',
    ].join(''),
  );
});

test('what has no encoding is refused', () => {
  const refused: unknown[] = [() => 1, Symbol('s'), new Date(0), new Map(), new Set(), new Uint8Array(1), /x/];
  for (const value of refused) assert.throws(() => encodeCanonical([value]), /no encoding/);
});
