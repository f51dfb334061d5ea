import { fc } from '../../core/property.js';
import * as assert from 'uvu/assert';
import { Bytes } from '../../core/bytes.js';
import { suite } from '../../core/testing.js';
import { Reducer } from '../dispatch.js';
import { ev } from '../testing.js';
import { Tx } from '../tx.js';
import { iommufdFamilies } from './index.js';
import { Bench } from './testing.js';

const test = suite('iommufd robust');

/** Every command with the size of its struct; 0 where the argument is a number. */
const COMMANDS: readonly (readonly [nr: number, sizeBytes: number])[] = [
  ...([
    [0x80, 8],
    [0x81, 12],
    [0x82, 24],
    [0x83, 40],
    [0x84, 32],
    [0x85, 40],
    [0x86, 24],
    [0x87, 24],
  ] as const),
  ...([
    [0x88, 12],
    [0x89, 48],
    [0x8a, 40],
    [0x8b, 16],
    [0x8c, 48],
    [0x8d, 32],
    [0x8e, 16],
    [0x8f, 40],
  ] as const),
  ...([
    [0x90, 40],
    [0x91, 24],
    [0x92, 8],
    [0x93, 32],
    [0x94, 40],
    [0xa0, 72],
    [0xa0, 72],
    [0xa0, 72],
  ] as const),
  ...([
    [0x64, 0],
    [0x65, 0],
    [0x66, 0],
    [0x70, 88],
    [0x71, 32],
    [0x72, 24],
    [0x95, 8],
  ] as const),
];

const word = fc.oneof(
  { weight: 6, arbitrary: fc.nat(9) },
  { weight: 1, arbitrary: fc.constantFrom(0x1000, 0x800, 0x100_0000, 0x1000_0000, 0x6000_0000, 0xdead, 0xdeadbeef) },
  { weight: 1, arbitrary: fc.constantFrom(0xbeefbeef, 0xffff_ffff, 0x8000_0000, 0x7fff_ffff, 0x3fff_ffff) },
);

const step = fc.record({
  command: fc.constantFrom(...COMMANDS),
  words: fc.array(word, { minLength: 22, maxLength: 22 }),
  size: fc.oneof({ weight: 9, arbitrary: fc.constant(-1) }, { weight: 1, arbitrary: fc.nat(100) }),
  told: fc.tuple(fc.nat(17), word),
  ret: fc.oneof(
    { weight: 4, arbitrary: fc.constant(0) },
    { weight: 2, arbitrary: fc.constant(-1) },
    { weight: 1, arbitrary: fc.nat(9) },
  ),
  errno: fc.constantFrom('EINVAL', 'ENOMEM', 'ENOENT', 'EBUSY'),
});

test('no bytes, no answers and no order of calls throw or hang', () => {
  const property = fc.property(fc.array(step, { minLength: 50, maxLength: 300 }), (steps) => {
    const b = new Bench();
    b.open();
    b.mmap(0x1000_0000, 0x10_0000);
    const reducer = new Reducer(iommufdFamilies);
    const tx = new Tx(b.world);
    const extra = { addr: 0x6000_0000, bytes: new Bytes(new Uint8Array(64).fill(1)) };
    steps.forEach(({ command: [nr, sizeBytes], words, size, told, ret, errno }, index) => {
      const bytes = new Uint8Array(sizeBytes);
      const view = new DataView(bytes.buffer);
      for (let at = 4; at + 4 <= sizeBytes; at += 4) view.setUint32(at, words[at / 4 - 1] as number, true);
      if (sizeBytes > 0) view.setUint32(0, size < 0 ? sizeBytes : size, true);
      const after = bytes.slice();
      if (told[0] * 4 + 4 <= sizeBytes) new DataView(after.buffer).setUint32(told[0] * 4, told[1], true);
      const arg = sizeBytes === 0 ? (words[0] as number) : 0x7fff_0000;
      const event = ev('ioctl', {
        fd: 3,
        path: '/dev/iommu',
        request: 0x3b00 | nr,
        arg,
        memIn: [{ addr: arg, bytes: new Bytes(bytes) }, extra],
        memOut: [{ addr: arg, bytes: new Bytes(after) }, extra],
        ret,
        errno: ret === -1 ? errno : '',
        seq: 100 + index,
      });
      assert.type(reducer.reduce(tx, event), 'string');
    });
    tx.commit();
  });
  fc.assert(property, { numRuns: 60 });
});
