import * as assert from 'uvu/assert';
import { hashCanonical } from '../../core/canonical.js';
import { suite } from '../../core/testing.js';
import { ev } from '../testing.js';
import type { World } from '../world.js';
import { breaches } from './consistency.js';
import { type Answer, Bench, type CallOptions, type Field, note, struct } from './testing.js';

const test = suite('iommufd failed calls');
const BUFFER = 0x1000_0000;
const APERTURE = 0x100_0000;
const DATA = 0x6000_0000;
const PASID = 8;
const FAULT = 4;
const NO_MEMORY = { recorded: { ret: -1, errno: 'ENOMEM' } } as const;

/** All that the calls of iommufd change, apart from counters of our own. */
function hashOf(world: World): string {
  const { iommufds, ioases, dmaBufs, fdTables, files, spaces } = world;
  return hashCanonical({ iommufds, ioases, dmaBufs, fdTables, files, spaces });
}

/** One call that has no memory: the state is as before, and so is the answer when it is asked again. */
function failsCleanly(b: Bench, what: string, run: (options?: CallOptions) => Answer): Answer {
  const before = hashOf(b.world);
  assert.is(run(NO_MEMORY).verdict, 'learned', what);
  assert.is(hashOf(b.world), before, what);
  assert.equal(breaches(b.world), [], what);
  const again = run();
  assert.is(again.verdict, 'match', what);
  assert.is.not(hashOf(b.world), before, `${what} changes something`);
  return again;
}

function testCall(b: Bench, op: number, id: number, ...fields: Field[]): (options?: CallOptions) => Answer {
  return (options) => b.ioctl(3, 0x3ba0, struct(72, [4, op], [8, id], ...fields), options);
}

interface Setup {
  readonly b: Bench;
  readonly ioas: number;
  readonly standing: number;
  readonly device: number;
}

function setup(flags = 0): Setup {
  const b = new Bench();
  b.open();
  b.mmap(BUFFER, 0x10000);
  const ioas = b.ioasAlloc();
  return { b, ioas, ...b.mockDomain(ioas, flags) };
}

test('a replace keeps page requests that wait, and the domain that has them', () => {
  const { b, ioas, standing, device } = setup();
  const queue = b.ioctl(3, 0x3b8e, struct(16)).u32(8);
  const hwpt = b.hwptAlloc(device, ioas, FAULT, [40, queue]).u32(16);
  testCall(b, 10, standing, [16, hwpt])();
  testCall(b, 15, 0, [16, device], [32, 0x1234, 8])();
  failsCleanly(b, 'replace', testCall(b, 10, standing, [16, ioas]));
});

test('a replace for the PASID that fails every second time', () => {
  const { b, ioas, standing, device } = setup(4);
  const [first, second] = [1, 2].map(() => b.hwptAlloc(device, ioas, PASID).u32(16)) as [number, number];
  testCall(b, 10, standing, [16, first])();
  failsCleanly(b, 'attach', testCall(b, 18, standing, [16, 1024], [20, first]));
  // The attach made the next one fail, by rule; after it the kernel fails the one after the next.
  assert.is(testCall(b, 19, standing, [16, 1024], [20, second])().rule, 'mock-attach.pasid-1024');
  failsCleanly(b, 'replace', testCall(b, 19, standing, [16, 1024], [20, second]));
});

test('an access keeps the pages that it pinned where it cannot move', () => {
  const { b, ioas } = setup();
  const other = b.ioasAlloc();
  b.map(ioas, BUFFER, 0x2000, APERTURE);
  const fd = failsCleanly(b, 'create', testCall(b, 5, ioas, [20, 1])).u32(16);
  failsCleanly(b, 'pin', testCall(b, 7, fd, [24, APERTURE, 8], [32, 0x1000, 8]));
  failsCleanly(b, 'move', testCall(b, 11, fd, [16, other]));
});

test('VFIO: an unmap that has no memory to cut an area', () => {
  const { b, ioas } = setup();
  b.ioctl(3, 0x3b88, struct(12, [4, ioas], [8, 1, 2]));
  b.ioctl(3, 0x3b66, null, { arg: 1 });
  b.map(ioas, BUFFER, 0x4000, APERTURE);
  const unmap = struct(24, [8, APERTURE + 0x1000, 8], [16, 0x1000, 8]);
  failsCleanly(b, 'unmap', (options) => b.ioctl(3, 0x3b72, unmap, options));
});

test('an event that there is no memory for is counted as lost', () => {
  const { b, ioas, standing, device } = setup();
  const parent = b.hwptAlloc(device, ioas, 1).u32(16);
  const mem = [note(DATA, struct(8, [0, 5]))];
  const viommu = b.ioctl(3, 0x3b90, struct(40, [8, 0xdeadbeef], [12, device], [16, parent])).u32(20);
  b.ioctl(3, 0x3b91, struct(24, [4, viommu], [8, device], [16, 9, 8]));
  const data: Field[] = [
    [24, 0xdead],
    [28, 8],
    [32, DATA, 8],
  ];
  const hwpt = b.ioctl(3, 0x3b89, struct(48, [8, device], [12, viommu], ...data), { mem }).u32(16);
  testCall(b, 10, standing, [16, hwpt])();
  const queue = b.ioctl(3, 0x3b93, struct(32, [8, viommu], [12, 0xbeefbeef], [16, 2])).u32(20);
  const trigger = testCall(b, 17, 0, [16, device]);
  const waiting = (): unknown => {
    const object = b.world.iommufds.first()?.objects.get(queue);
    return object?.type === 'veventq' && [...object.deliver.values()].map((event) => [event.lost, event.sequence]);
  };
  trigger();
  trigger(NO_MEMORY);
  assert.equal(waiting(), [
    [false, 0],
    [true, 1],
  ]);
  // The next one takes the place of the header that says so.
  trigger();
  assert.equal(waiting(), [
    [false, 0],
    [false, 2],
  ]);
  assert.equal(breaches(b.world), []);
});

test('what strace kept back never reached the kernel', () => {
  const { b, ioas } = setup();
  const before = hashOf(b.world);
  const bytes = note(0x7fff_0000, struct(12));
  b.event(ev('ioctl', { fd: 3, request: 0x3b81, memIn: [bytes], ret: -1, errno: 'EPERM', injected: true }));
  assert.is(hashOf(b.world), before);
  assert.is(b.ioasAlloc(), ioas + 4);
});

test('a read that got less than waits leaves the rest to the next one', () => {
  const { b, ioas, standing, device } = setup();
  const made = b.ioctl(3, 0x3b8e, struct(16));
  const hwpt = b.hwptAlloc(device, ioas, FAULT, [40, made.u32(8)]).u32(16);
  testCall(b, 10, standing, [16, hwpt])();
  for (let i = 0; i < 3; i++) testCall(b, 15, 0, [16, device])();
  const sizes = (): unknown => {
    const object = b.world.iommufds.first()?.objects.get(made.u32(8));
    return object?.type === 'fault' && [object.deliver.size, object.pending.size];
  };
  const fd = made.u32(12);
  b.event(ev('io', { call: 'read', fd, lengthBytes: 120, ret: 40 }));
  assert.equal(sizes(), [2, 1]);
  b.event(ev('io', { call: 'read', fd, lengthBytes: 120, ret: 80 }));
  assert.equal(sizes(), [0, 3]);
  const answers = new Uint8Array([...struct(8, [0, 1]), ...struct(8, [0, 2])]);
  b.event(ev('io', { call: 'write', fd, lengthBytes: 16, ret: 8, data: note(0, answers).bytes }));
  assert.equal(sizes(), [0, 2]);
  assert.equal(breaches(b.world), []);
});

// ---- faults that the kernel was told to inject ----------------------------------------------------------------

function arm(b: Bench): void {
  const data = note(0, new TextEncoder().encode('3')).bytes;
  b.event(ev('io', { call: 'pwrite64', fd: 9, path: '/proc/1/task/1/fail-nth', data, ret: 1, lengthBytes: 1 }));
}

function isArmed(b: Bench): boolean {
  return b.world.armedFaults.size > 0;
}

/** What the kernel wrote into the struct of a test operation. */
function told(...fields: Field[]): Pick<CallOptions, 'memOut'> {
  return { memOut: [note(0x7fff_0000, struct(72, ...fields))] };
}

test('a fault while the reserved ranges are looked at makes an automatic HWPT be passed over', () => {
  const { b, ioas } = setup();
  arm(b);
  const second = testCall(b, 2, ioas)(told([4, 2], [8, ioas], [16, 5], [20, 7], [24, 6]));
  assert.equal([second.verdict, second.u32(16), second.u32(20), second.u32(24)], ['learned', 5, 7, 6]);
  assert.not(isArmed(b), 'it hits once');
  assert.equal(b.world.ioases.first()?.hwpts, [4, 7]);
  assert.equal(breaches(b.world), []);
  // Without a fault the oldest one is taken.
  assert.equal(testCall(b, 2, ioas)().u32(20), 4);
});

test('so does a replace, which then goes on to the next automatic HWPT', () => {
  const { b, ioas } = setup();
  arm(b);
  testCall(b, 2, ioas)(told([4, 2], [8, ioas], [16, 5], [20, 7], [24, 6]));
  const other = b.ioasAlloc();
  const { standing } = b.mockDomain(other);
  arm(b);
  const moved = testCall(b, 10, standing, [16, ioas])(told([4, 10], [8, standing], [16, 7]));
  assert.equal([moved.verdict, moved.u32(16)], ['learned', 7]);
  assert.equal(breaches(b.world), []);
});

test('no fault explains an id that the kernel cannot have given', () => {
  const { b, ioas } = setup();
  const wrong = told([4, 2], [8, ioas], [16, 5], [20, 99], [24, 6]);
  assert.is(testCall(b, 2, ioas)(wrong).verdict, 'diverge', 'no thread is armed');
  arm(b);
  assert.is(testCall(b, 2, ioas)(wrong).verdict, 'diverge', 'and no fault gives this one');
  assert.equal(breaches(b.world, undefined, true), []);
});

test('a fault ends a call with an error that a fault can give, once', () => {
  const { b, ioas } = setup();
  for (const errno of ['ENOMEM', 'ENOENT', 'EFAULT', 'EINVAL']) {
    arm(b);
    const before = hashOf(b.world);
    const options = { recorded: { ret: -1, errno } } as const;
    assert.is(testCall(b, 2, ioas)(options).verdict, 'learned', errno);
    assert.is(hashOf(b.world), before);
    assert.not(isArmed(b));
  }
  for (const errno of ['EBUSY', 'EEXIST', 'EOPNOTSUPP', 'ENOSPC']) {
    arm(b);
    assert.is(testCall(b, 2, ioas)({ recorded: { ret: -1, errno } }).verdict, 'diverge', errno);
    assert.ok(isArmed(b));
  }
});
