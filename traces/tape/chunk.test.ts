import { fc } from '../../core/property.js';
import { Packr } from 'msgpackr';
import * as assert from 'uvu/assert';
import { Bytes } from '../../core/bytes.js';
import { hashCanonical } from '../../core/canonical.js';
import { EVENT_FIELDS, EVENT_KINDS, type Event, type IoctlEvent } from '../../core/event.js';
import { suite } from '../../core/testing.js';
import { ChunkDamage, decodeChunk, MAX_CHUNK_VALUES } from './chunk-decoder.js';
import { ChunkEncoder } from './chunk-encoder.js';
import { eventLists, fixedHash, oneOfEachKind } from './events.arbitrary.js';
import { isPlainMsgpack } from './guard.js';
import { LAYOUTS, SCHEMA_VERSION, UPCASTERS, upcast } from './schema.js';

const test = suite('tape chunks');
const packr = new Packr({ useRecords: false });

function encode(events: readonly Event[]): Buffer {
  const encoder = new ChunkEncoder();
  for (const event of events) encoder.add(event);
  return encoder.finish();
}

const CALL: IoctlEvent = {
  kind: 'ioctl',
  seq: 0,
  tsNs: 5,
  pid: 1,
  tid: 1,
  file: 0,
  line: 1,
  enteredAt: 0,
  ret: -1,
  errno: 'EINVAL',
  injected: false,
  fd: 3,
  path: '/dev/iommu',
  request: 0x3b85,
  arg: 0x7ffc_0000_1000,
  memIn: [{ addr: 0xffff_ffff_ffff_f000n, bytes: Bytes.fromHex('0102') }],
  memOut: [],
};

test('law: what is decoded is what was encoded, for every kind', () => {
  const law = (events: readonly Event[]) => {
    const back = decodeChunk(encode(events));
    assert.is(back.length, events.length);
    for (let i = 0; i < events.length; i++) {
      assert.equal(Object.keys(back[i] as Event).sort(), Object.keys(events[i] as Event).sort());
      assert.is(hashCanonical(back[i]), hashCanonical(events[i]));
    }
  };
  fc.assert(fc.property(oneOfEachKind, law), { numRuns: 100 });
  fc.assert(fc.property(eventLists(60), law), { numRuns: 100 });
});

test('64-bit values keep their canonical form', () => {
  const [back] = decodeChunk(encode([{ ...CALL, ret: 0x20_0000_0000_0000n, arg: Number.MAX_SAFE_INTEGER }]));
  const call = back as IoctlEvent;
  assert.is(call.ret, 0x20_0000_0000_0000n);
  assert.is(call.arg, Number.MAX_SAFE_INTEGER);
  assert.is(call.memIn[0]?.addr, 0xffff_ffff_ffff_f000n);
  assert.is(call.memIn[0]?.bytes.toHex(), '0102');
});

test('an encoder is empty after it gave its chunk', () => {
  const encoder = new ChunkEncoder();
  encoder.add(CALL);
  const first = encoder.finish();
  assert.is(encoder.count, 0);
  encoder.add(CALL);
  assert.is(encoder.finish().toString('hex'), first.toString('hex'));
});

test('an event that breaks the contract is not written', () => {
  for (const bad of [
    { fd: 2 ** 40 },
    { fd: 0.5 },
    { tsNs: -1 },
    { tsNs: 0.5 },
    { line: Number.NaN },
    { enteredAt: 1 },
    { arg: -1 },
    { arg: 5n },
    { arg: 1n << 64n },
    { arg: 2 ** 60 },
  ])
    assert.throws(() => encode([{ ...CALL, ...bad }]), /tape/);
});

/** A chunk of one ioctl with one field of its tuple replaced. */
function withField(name: string, value: unknown): Buffer {
  const [strings, blob, tuples] = packr.unpack(encode([CALL])) as [string[], Buffer, unknown[][]];
  const tuple = tuples[0] as unknown[];
  tuple[name === 'kind' ? 0 : EVENT_FIELDS.ioctl.indexOf(name as 'fd') + 1] = value;
  return packr.pack([strings, blob, tuples]);
}

test('every field of a foreign tuple is checked', () => {
  decodeChunk(withField('fd', 4));
  const rows: [string, unknown][] = [
    ['kind', EVENT_KINDS.length],
    ['kind', -1],
    ['kind', 'ioctl'],
    ['kind', null],
    ['seq', -1],
    ['seq', 0.5],
    ['seq', '0'],
    ['tsNs', -1],
    ['tsNs', 2 ** 60],
    ['line', null],
    ['enteredAt', 1],
    ['enteredAt', -1],
    ['file', -1],
    ['fd', 2 ** 32],
    ['fd', -(2 ** 31) - 1],
    ['fd', null],
    ['fd', []],
    ['ret', -2],
    ['ret', 'x'],
    ['errno', 7],
    ['errno', 'EINVAL'],
    ['injected', 1],
    ['arg', -5],
    ['arg', 5n],
    ['arg', 2 ** 53],
    ['arg', null],
    ['memIn', 5],
    ['memIn', [1]],
    ['memIn', [1, 3]],
    ['memIn', [1, -1]],
    ['memIn', [1, 2, 3, 1]],
    ['memIn', [[], 1]],
  ];
  for (const [name, value] of rows) {
    let caught: unknown;
    try {
      decodeChunk(withField(name, value));
    } catch (error) {
      caught = error;
    }
    assert.instance(caught, ChunkDamage, `${name} ${String(value)}`);
  }
});

test('foreign MessagePack is refused before it is decoded', () => {
  const nested = Buffer.alloc(1 << 20, 0x91);
  const empties = Buffer.concat([Buffer.from([0xdd, 0, 0x7f, 0xff, 0xff]), Buffer.alloc(0x7fffff, 0x90)]);
  const rows: [string, Buffer][] = [
    ['a map', Buffer.from([0x80])],
    ['an extension', Buffer.from([0xd4, 0x72, 0x40])],
    ['a float 32', Buffer.from([0xca, 0, 0, 0, 0])],
    ['never used', Buffer.from([0xc1])],
    ['nothing', Buffer.alloc(0)],
    ['two values', Buffer.from([1, 2])],
    ['arrays without end', nested],
    ['too many values', empties],
    ['an array that promises too much', Buffer.from([0xdd, 0xff, 0xff, 0xff, 0xff, 0])],
    ['text that promises too much', Buffer.from([0xdb, 0xff, 0xff, 0xff, 0xff, 0])],
    ['half a number', Buffer.from([0xcb, 0, 0])],
    ['half an array', Buffer.from([0x92, 0])],
  ];
  for (const [what, bytes] of rows) {
    assert.is(isPlainMsgpack(bytes, MAX_CHUNK_VALUES, 4), false, what);
    assert.throws(
      () => decodeChunk(bytes),
      (error: unknown) => error instanceof ChunkDamage,
      what,
    );
  }
  assert.is(isPlainMsgpack(Buffer.from([0x90]), 1, 0), true);
});

test('random bytes never do more than damage', () => {
  const small = encode([CALL, { ...CALL, seq: 1 }]);
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.nat({ max: small.length - 1 }), fc.nat({ max: 255 })), { maxLength: 4 }),
      (changes) => {
        const bytes = Buffer.from(small);
        for (const [at, value] of changes) bytes[at] = value;
        try {
          for (const event of decodeChunk(bytes))
            assert.equal(Object.keys(event).length, EVENT_FIELDS[event.kind].length + 1);
        } catch (error) {
          assert.instance(error, ChunkDamage);
        }
      },
    ),
    { numRuns: 2000 },
  );
});

test('a schema stays what it is: a change of the contract needs a new version and an upcaster', () => {
  assert.is(UPCASTERS.length, SCHEMA_VERSION - 1);
  assert.is(FORMS.length, SCHEMA_VERSION);
  const form = LAYOUTS.map(({ kind, names, codecs }) => [kind, names, codecs]);
  for (const [kinds, hash] of FORMS) assert.is(fixedHash(form.slice(0, kinds)), hash);
  assert.is(form.length, FORMS.at(-1)?.[0]);
});

/** Of each version how many kinds it has, and the sha256 of their names, fields and codecs as first released. */
const FORMS = [
  [23, '095220ec31ccf5e10f53bbf31475a967866d6ae7dd85941d20bafd0e02590f24'],
  [25, '20e7b99abd3e346ed83a58f85984adc21524145879b8bb88ec34971647c9abfd'],
  [29, '9e4f45f1d2dc0c0853adf731733e3e169b33b244f6961ee0e1fcf88722f8a7ed'],
  [30, '28f2b6c6cf93afab3c930831a6b204c2e58c04470af0117331f904c5e1cb4af9'],
] as const;

test('upcasters are applied one after the other', () => {
  const table = [(tuple: readonly unknown[]) => [...tuple, 'two'], (tuple: readonly unknown[]) => [...tuple, 'three']];
  assert.equal(upcast([1], 1, table), [1, 'two', 'three']);
  assert.equal(upcast([1], 2, table), [1, 'three']);
  assert.equal(upcast([1], 3, table), [1]);
});
