import { fc } from './property.js';
import * as assert from 'uvu/assert';
import { Bytes, putU32, putU64 } from './bytes.js';
import { suite } from './testing.js';
import { fromBig } from './u64.js';

const test = suite('bytes');

/** A run of bytes that is a view into the middle of a larger buffer, as importers make them. */
const view = fc
  .tuple(fc.uint8Array({ maxLength: 40 }), fc.nat(8), fc.nat(8))
  .map(([content, before, after]): [Uint8Array, Bytes] => {
    const buffer = new Uint8Array(before + content.length + after).fill(0xaa);
    buffer.set(content, before);
    return [content, new Bytes(buffer, before, content.length)];
  });

test('reads agree with a DataView on the same content', () => {
  fc.assert(
    fc.property(view, fc.nat(48), ([content, bytes], at) => {
      const data = new DataView(content.buffer, content.byteOffset, content.byteLength);
      const reads: [number, () => unknown, () => unknown][] = [
        [1, () => bytes.u8(at), () => data.getUint8(at)],
        [2, () => bytes.u16(at), () => data.getUint16(at, true)],
        [4, () => bytes.u32(at), () => data.getUint32(at, true)],
        [4, () => bytes.s32(at), () => data.getInt32(at, true)],
        [8, () => bytes.u64(at), () => fromBig(data.getBigUint64(at, true))],
      ];
      for (const [width, read, reference] of reads) {
        assert.is(bytes.has(at, width), at + width <= content.length);
        if (bytes.has(at, width)) assert.is(read(), reference());
        else assert.throws(read, (error: Error) => error instanceof RangeError);
      }
    }),
  );
});

test('slices, copies and hex hold the same content', () => {
  fc.assert(
    fc.property(view, fc.nat(50), fc.nat(50), ([content, bytes], at, count) => {
      assert.equal([...bytes.toUint8Array()], [...content]);
      assert.is(bytes.toHex(), Buffer.from(content).toString('hex'));
      assert.is(JSON.stringify({ bytes }), JSON.stringify({ bytes: bytes.toHex() }));
      assert.ok(Bytes.fromHex(bytes.toHex()).equals(bytes));
      const target = new Uint8Array(content.length + 2);
      bytes.copyTo(target, 1);
      assert.equal([...target], [0, ...content, 0]);
      if (at + count <= content.length) {
        assert.equal([...bytes.slice(at, count).toUint8Array()], [...content.subarray(at, at + count)]);
        assert.is(
          bytes.isZero(at, count),
          content.subarray(at, at + count).every((byte) => byte === 0),
        );
      } else assert.throws(() => bytes.slice(at, count), /Bytes: /);
    }),
  );
});

test('equality is that of the content', () => {
  fc.assert(
    fc.property(view, view, ([x, a], [y, b]) => {
      assert.is(a.equals(b), Buffer.from(x).equals(Buffer.from(y)));
      assert.ok(a.equals(new Bytes(Uint8Array.from(x))));
    }),
  );
  const a = Bytes.fromHex('0011223344');
  assert.ok(a.equalsAt(1, Bytes.fromHex('ff112233'), 1, 3));
  assert.not(a.equalsAt(1, Bytes.fromHex('ff112234'), 1, 3));
  assert.throws(() => a.equalsAt(3, a, 0, 3), /Bytes: /);
  assert.throws(() => a.equalsAt(0, a, 3, 3), /Bytes: /);
});

test('nothing can be read or cut outside, by a negative count either', () => {
  const bytes = Bytes.fromHex('01020304');
  const outside: [string, () => unknown][] = [
    ['u8(-1)', () => bytes.u8(-1)],
    ['u8(4)', () => bytes.u8(4)],
    ['u64(0)', () => bytes.u64(0)],
    ['slice(5)', () => bytes.slice(5)],
    ['slice(4, -1)', () => bytes.slice(4, -1)],
    ['slice(-1, 1)', () => bytes.slice(-1, 1)],
    ['isZero(5)', () => bytes.isZero(5)],
  ];
  for (const [what, read] of outside) assert.throws(read, /Bytes: /, what);
  assert.not(bytes.has(5, -1));
  assert.not(bytes.has(-1, 1));
  assert.is(bytes.slice(4).length, 0);
  assert.is(Bytes.EMPTY.length, 0);
  assert.ok(Bytes.EMPTY.isZero());
});

test('a copy is the reader’s own', () => {
  const bytes = Bytes.fromHex('0102');
  bytes.toUint8Array()[0] = 9;
  assert.is(bytes.u8(0), 1);
});

for (const [hex, at, expected] of [
  ['', 0, ''],
  ['00', 0, ''],
  ['6d656d00ff', 0, 'mem'],
  ['6d656d', 0, 'mem'],
  ['6d656d00ff00', 4, 'ÿ'],
  ['6d', 9, ''],
] as [string, number, string][]) {
  test(`cString of ${hex || 'nothing'} at ${at}`, () => assert.is(Bytes.fromHex(hex).cString(at), expected));
}

test('values written are read back, and no byte beside them changes', () => {
  fc.assert(
    fc.property(fc.bigInt(0n, (1n << 64n) - 1n), (value) => {
      const target = new Uint8Array(10).fill(0x55);
      putU64(target, 1, fromBig(value));
      assert.is(new Bytes(target).u64(1), fromBig(value));
      assert.equal([target[0], target[9]], [0x55, 0x55]);
      putU32(target, 2, Number(value & 0xffff_ffffn));
      assert.is(new Bytes(target).u32(2), Number(value & 0xffff_ffffn));
    }),
  );
});
