import { fc } from '../../core/property.js';
import * as assert from 'uvu/assert';
import { Bytes } from '../../core/bytes.js';
import { suite } from '../../core/testing.js';
import { hashOf } from '../testing.js';
import { ARG, DATA, Lab, MDEV, PCI_DEVICE, text } from './testing.js';

const test = suite('vfio hostile');

/** Values that sit on the edges of sizes, pages and address spaces. */
const edge = fc.oneof(
  fc.constantFrom(0, 1, 7, 8, 20, 24, 32, 48, 4096, 8192, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, DATA),
  fc.integer({ min: 0, max: 0xffff_ffff }),
);
/** Mostly with a right argsz and flags that mean something, so that the checks behind are reached. */
const flags = fc.oneof(
  fc.integer({ min: 0, max: 63 }),
  fc.integer({ min: 0, max: 15 }).map((n) => n | 0x2_0000),
  edge,
);
const payload = fc.tuple(fc.boolean(), flags, fc.array(edge, { maxLength: 14 })).map(([sized, flag, rest]) => {
  const words = [sized ? rest.length * 4 + 8 : (rest[0] ?? 0), flag, ...rest];
  const buffer = new Uint8Array(words.length * 4);
  const view = new DataView(buffer.buffer);
  words.forEach((word, i) => view.setUint32(i * 4, word, true));
  return new Bytes(buffer);
});
const step = fc.record({
  fd: fc.integer({ min: 3, max: 7 }),
  number: fc.integer({ min: 0x62, max: 0x7b }),
  arg: fc.constantFrom(0, 1, 3, ARG, ARG, ARG, ARG, 0xffff_ffff_ffff_f000n),
  input: payload,
  output: payload,
  errno: fc.constantFrom('', '', 'EINVAL', 'ENOTTY', 'EEXIST', 'EBUSY'),
  ret: fc.constantFrom(0, 0, 1, 6, 2 ** 40),
  data: payload,
});

test('no call, whatever it holds and answers, makes a reducer throw; the fold depends on nothing else', () => {
  fc.assert(
    fc.property(fc.constantFrom(PCI_DEVICE, MDEV), fc.array(step, { maxLength: 30 }), (name, steps) => {
      const play = (): string => {
        const lab = new Lab().device(name);
        lab.open('/dev/iommu', 6);
        lab.open('/dev/vfio/devices/vfio0', 7);
        for (const { fd, number, arg, input, output, errno, ret, data } of steps) {
          lab.ioctl(fd, 0x3b00 | number, { arg, in: input, out: output, errno, ret, data: { in: data } });
          lab.io(fd, number % 2 === 0 ? 'write' : 'read', input.length, data, { errno, ret });
        }
        return hashOf(lab.world);
      };
      assert.is(play(), play());
    }),
    { numRuns: Number(process.env['RUNS'] ?? 300) },
  );
});

test('names and paths of any kind', () => {
  fc.assert(
    fc.property(fc.string({ maxLength: 80 }), fc.string({ maxLength: 20 }), (name, path) => {
      const lab = new Lab().container();
      lab.ioctl(4, 0x3b6a, { in: text(name), ret: 5 });
      lab.ioctl(5, 0x3b6b, { in: text(name) });
      lab.foundOpen(9, `/dev/vfio/${path}`);
      lab.foundOpen(10, `/dev/vfio/devices/${path}`);
      for (const fd of [9, 10]) lab.ioctl(fd, 0x3b67, { in: text(name) });
      for (const fd of [9, 10, 5, 4, 3]) lab.close(fd);
    }),
    { numRuns: Number(process.env['RUNS'] ?? 300) },
  );
});
