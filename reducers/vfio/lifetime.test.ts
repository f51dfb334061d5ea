import { fc } from '../../core/property.js';
import * as assert from 'uvu/assert';
import { Bytes } from '../../core/bytes.js';
import { suite } from '../../core/testing.js';
import { hashOf } from '../testing.js';
import { type FieldAt, Lab, MDEV, MEMORY, PCI_DEVICE, struct, text } from './testing.js';

/**
 * Contexts, their objects, devices and groups are owned by files that may be closed in any order, and recorded answers
 * may contradict what the model holds. Whatever is left over must never be followed to something that is gone.
 */
const test = suite('vfio lifetime');

/** Each path has its own fds, so that most calls meet the file that they are meant for. */
const FILES: readonly (readonly [fd: number, path: string])[] = [
  [3, '/dev/iommu'],
  [4, '/dev/vfio/devices/vfio0'],
  [5, '/dev/vfio/devices/vfio1'],
  [6, '/dev/iommu'],
  [7, '/dev/vfio/7'],
  [8, '/dev/vfio/devices/vfio0'],
];
const file = fc.constantFrom(...FILES);
const fd = fc.integer({ min: 3, max: 9 });
const id = fc.oneof(
  { weight: 6, arbitrary: fc.integer({ min: 1, max: 4 }) },
  { weight: 3, arbitrary: fc.nat(9) },
  { weight: 1, arbitrary: fc.constantFrom(0xffff_ffff, 63) },
);
const pasid = fc.constantFrom(0, 0, 0, 1, 2, 1024);

/** A call: its number and the struct that it gets, from three small numbers. */
type Form = (a: number, b: number, c: number) => readonly [request: number, payload: Bytes];

const mockOp = (op: number, object: number, ...fields: FieldAt[]): ReturnType<Form> => [
  0x3ba0,
  struct(72, [4, op], [8, object], ...fields),
];

const FORMS: readonly Form[] = [
  // The files of VFIO.
  () => [0x3b76, struct(16, [8, 3])],
  () => [0x3b76, struct(16, [8, 3])],
  (a) => [0x3b76, struct(16, [8, a])],
  (a, _, c) => [0x3b77, struct(16, [4, c === 0 ? 0 : 1], [8, a], [12, c])],
  (a) => [0x3b77, struct(12, [8, a])],
  (_, __, c) => [0x3b78, struct(12, [4, c === 0 ? 0 : 1], [8, c])],
  () => [0x3b78, struct(8)],
  (a) => [0x3b68, struct(4, [0, a])],
  () => [0x3b69, struct(4)],
  (a) => [0x3b6a, text(a % 3 === 0 ? MDEV : PCI_DEVICE)],
  // Objects of a context.
  (a) => [0x3b80, struct(8, [4, a])],
  (a) => [0x3b80, struct(8, [4, a])],
  () => [0x3b81, struct(12)],
  (a) => [0x3b85, struct(40, [4, 7], [8, a], [16, MEMORY, 8], [24, 0x4000, 8], [32, 0x100_0000, 8])],
  (a) => [0x3b86, struct(24, [4, a], [8, 0, 8], [16, 0xffff_ffff_ffff_ffffn, 8])],
  (a, b) => [0x3b83, struct(40, [4, 6], [8, a], [12, b], [16, 0x1000, 8], [32, 0x100_0000, 8])],
  (a, b) => [0x3b88, struct(12, [4, a], [8, b % 3])],
  (a, b, c) => [0x3b89, struct(48, [4, c], [8, a], [12, b])],
  (a, b) => [0x3b89, struct(48, [4, 8], [8, a], [12, b], [40, b])],
  () => [0x3b8e, struct(16)],
  (a, b) => [0x3b90, struct(40, [8, 0xdeadbeef], [12, a], [16, b])],
  (a, b) => [0x3b91, struct(24, [4, a], [8, b], [16, b, 8])],
  // Mock devices and accesses.
  (a) => mockOp(2, a),
  (a) => mockOp(2, a),
  (a, _, c) => mockOp(12, a, [28, c]),
  (a, b) => mockOp(10, a, [16, b]),
  (a, b) => mockOp(5, a, [16, b & 1]),
  (a, b) => mockOp(11, a, [16, b]),
  (a) => mockOp(7, a, [16, 1], [24, 0x100_0000, 8], [32, 0x1000, 8], [40, MEMORY, 8]),
  (a, b) => mockOp(6, a, [16, b]),
  (a, b, c) => mockOp(18, a, [16, c], [20, b]),
  (a, b, c) => mockOp(19, a, [16, c], [20, b]),
  (a, _, c) => mockOp(20, a, [16, c]),
  (a, b, c) => mockOp(21, a, [16, c], [20, b]),
];

function rarely<T>(value: fc.Arbitrary<T>): fc.Arbitrary<T | null> {
  return fc.oneof({ weight: 6, arbitrary: fc.constant(null) }, { weight: 1, arbitrary: value });
}

const call = fc.record({
  kind: fc.constant('call' as const),
  fd: rarely(fd),
  form: fc.constantFrom(...FORMS),
  words: fc.tuple(id, id, pasid),
  told: rarely(fc.tuple(fc.constantFrom(8, 12, 12, 12, 16, 20, 24), id)),
  /** The recorded answer; as predicted when null. */
  answer: rarely(fc.record({ errno: fc.constantFrom('', '', 'EBUSY', 'EINVAL'), ret: fc.constantFrom(0, 5, 8) })),
});
const step = fc.oneof(
  { weight: 12, arbitrary: call },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('open' as const), file }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('found' as const), file }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('close' as const), fd }) },
);

/** The fd that a request is for: containers, groups, devices (two of them), contexts. */
function fdFor(request: number, word: number): number {
  if (request >= 0x3b80 || request === 0x3b88) return word === 0 ? 6 : 3;
  if (request <= 0x3b6a) return 7;
  return word % 3 === 0 ? 5 : 4;
}

type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;

function play(steps: readonly Step[]): string {
  const lab = new Lab();
  for (const [number, path] of FILES.slice(0, 3)) lab.open(path, number);
  for (const one of steps) {
    if (one.kind === 'open') lab.open(one.file[1], one.file[0]);
    else if (one.kind === 'found') lab.foundOpen(...one.file);
    else if (one.kind === 'close') lab.close(one.fd);
    else {
      const [request, payload] = one.form(...one.words);
      const to = one.fd ?? fdFor(request, one.words[1]);
      const after = payload.toUint8Array().slice();
      if (one.told !== null && one.told[0] + 4 <= after.length)
        new DataView(after.buffer).setUint32(one.told[0], one.told[1], true);
      lab.ioctl(to, request, {
        in: payload,
        out: new Bytes(after),
        ...(one.answer ?? lab.predict(to, request, payload)),
      });
    }
  }
  for (let open = 3; open < 10; open++) lab.close(open);
  return hashOf(lab.world);
}

test('files of devices, groups and contexts may end in any order, whatever the answers say', () => {
  fc.assert(
    fc.property(fc.array(step, { minLength: 20, maxLength: 250 }), (steps) => {
      assert.is(play(steps), play(steps));
    }),
    { numRuns: Number(process.env['RUNS'] ?? 150) },
  );
});

test('an id that a recording hands out twice does not take the first object away', () => {
  const lab = new Lab();
  lab.open('/dev/iommu', 3);
  lab.open('/dev/vfio/devices/vfio0', 4);
  lab.setDriver('vfio0', 'pci');
  for (const told of [1, 2]) lab.good(lab.ioctl(3, 0x3b81, { in: struct(12), out: struct(12, [8, told]) }));
  lab.ioctl(4, 0x3b76, { in: struct(16, [8, 3]), out: struct(16, [8, 3], [12, 2]) });
  assert.is(lab.ioctl(4, 0x3b77, { in: struct(12, [8, 2]), out: struct(12, [8, 4]) }).rule, 'attach-pt.ok');
  assert.is(lab.ioctl(3, 0x3b80, { in: struct(8, [4, 2]), errno: 'EBUSY' }).rule, 'destroy.busy');
  lab.good(lab.ioctl(4, 0x3b78, { in: struct(8) }));
  lab.good(lab.ioctl(3, 0x3b80, { in: struct(8, [4, 2]) }));
  lab.close(4);
  lab.close(3);
});
