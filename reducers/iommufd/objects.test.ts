import { fc } from '../../core/property.js';
import * as assert from 'uvu/assert';
import { suite } from '../../core/testing.js';
import { ev } from '../testing.js';
import type { World } from '../world.js';
import type { IommufdContext, IommuObject } from './state.js';
import { ARG, Bench, type CallOptions, type Field, note, struct } from './testing.js';

const test = suite('iommufd objects');
const BUFFER = 0x1000_0000;
const APERTURE = 0x100_0000;
const DATA = 0x6000_0000;
const SELFTEST = 0xdeadbeef;

type Add = (id: number, count?: number) => void;

/** Adds, for each reference that an object holds, one user to what it refers to. */
function countOwn(context: IommufdContext, object: IommuObject, add: Add): void {
  const { id } = object;
  switch (object.type) {
    case 'hwpt-paging':
      add(object.ioas);
      add(object.fault);
      break;
    case 'hwpt-nested':
      add(object.viommu !== 0 ? object.viommu : object.parent);
      add(object.fault);
      break;
    case 'device':
      add(id);
      for (const attachment of context.attachments.values()) if (attachment.devices.includes(id)) add(id);
      break;
    case 'access':
      add(id);
      add(object.ioas);
      break;
    case 'viommu':
      add(object.hwpt);
      break;
    case 'vdevice':
      add(object.viommu);
      break;
    case 'hw-queue':
      add(object.viommu);
      add(object.previous);
      break;
    case 'veventq':
      add(object.viommu);
      add(id);
      break;
    case 'fault':
      add(id);
      break;
    default:
  }
}

/** How many users each object has, counted from who refers to it; event queues' files are all open. */
function usersByReference(context: IommufdContext): Map<number, number> {
  const users = new Map<number, number>();
  const add: Add = (id, count = 1) => {
    if (id !== 0) users.set(id, (users.get(id) ?? 0) + count);
  };
  for (const object of context.objects.values()) countOwn(context, object, add);
  for (const attachment of context.attachments.values()) add(attachment.hwpt, attachment.devices.length);
  return users;
}

/** What must hold after every call. */
function checkInvariants(world: World): void {
  for (const context of world.iommufds.values()) {
    const counted = usersByReference(context);
    for (const object of context.objects.values()) {
      assert.is(object.users, counted.get(object.id) ?? 0, `users of ${object.type} ${object.id}`);
      assert.not(context.freeIds.has(object.id), `id ${object.id} is free and taken`);
      assert.ok(object.id < context.nextObjectId);
    }
    for (const id of counted.keys()) assert.ok(context.objects.has(id), `object ${id} is referred to and gone`);
  }
  for (const ioas of world.ioases.values()) {
    const context = world.iommufds.get(ioas.context);
    const hwpts = [...(context?.objects.values() ?? [])].filter(
      (object) => object.type === 'hwpt-paging' && object.ioas === ioas.objectId,
    );
    const byNumber = (a: number, b: number): number => a - b;
    assert.equal([...ioas.hwpts].sort(byNumber), hwpts.map((object) => object.id).sort(byNumber));
    let last: number | bigint = -1;
    for (const area of ioas.areas.values()) {
      assert.ok(area.start > last && area.last >= area.start, 'areas overlap');
      last = area.last;
      for (const range of ioas.blocked.values())
        assert.ok(area.last < range.start || area.start > range.last, 'an area is where a range is reserved');
      assert.is(area.pin !== 0, ioas.hwpts.length > 0 && area.pages.kind === 'user', 'pins follow domains');
    }
  }
}

/** The calls of the random and failing runs: kind, then two numbers that pick ids, places and flags. */
type Step = readonly [kind: string, a: number, b: number];

function run(b: Bench, [kind, x, y]: Step, options: CallOptions = {}): void {
  const at = APERTURE + x * 0x1000;
  const call = (request: number, size: number, ...fields: Field[]): void => {
    b.ioctl(3, request, struct(size, ...fields), { ...options, mem: [note(DATA, struct(24, [0, 5], [4, 0]))] });
  };
  switch (kind) {
    case 'ioas':
      return call(0x3b81, 12);
    case 'destroy':
      return call(0x3b80, 8, [4, x]);
    case 'mock':
      return call(0x3ba0, 72, [4, 12], [8, x], [28, y & 4]);
    case 'replace':
      return call(0x3ba0, 72, [4, 10], [8, x], [16, y]);
    case 'pasid':
      return call(0x3ba0, 72, [4, 18], [8, x], [16, 3], [20, y]);
    case 'undo-pasid':
      return call(0x3ba0, 72, [4, 20], [8, x], [16, 3]);
    case 'hwpt':
      return call(0x3b89, 48, [8, x], [12, y], [4, (x + y) & 9]);
    case 'nested':
      return call(0x3b89, 48, [8, x], [12, y], [24, 0xdead], [28, 8], [32, DATA, 8]);
    case 'fault-hwpt':
      return call(0x3b89, 48, [8, x], [12, 1], [4, 4], [40, y]);
    case 'fault':
      return call(0x3b8e, 16);
    case 'viommu':
      return call(0x3b90, 40, [8, SELFTEST], [12, x], [16, y], [24, 24 * (y & 1)], [32, DATA, 8]);
    case 'vdevice':
      return call(0x3b91, 24, [4, y], [8, x], [16, 7, 8]);
    case 'veventq':
      return call(0x3b93, 32, [8, x], [12, 1 + y], [16, 1]);
    case 'queue':
      return call(0x3b94, 40, [8, x], [12, SELFTEST], [16, y & 1], [24, at, 8], [32, 64, 8]);
    case 'access':
      return call(0x3ba0, 72, [4, 5], [8, x], [20, 1]);
    case 'map':
      return call(0x3b85, 40, [4, 7], [8, 1], [16, BUFFER, 8], [24, 0x1000 * (1 + (y & 1)), 8], [32, at, 8]);
    case 'choose':
      return call(0x3b85, 40, [4, 6], [8, y], [16, BUFFER, 8], [24, 0x1000, 8]);
    case 'copy':
      return call(0x3b83, 40, [4, 6], [8, y], [12, 1], [16, 0x1000, 8], [32, at, 8]);
    default:
      return call(0x3b86, 24, [4, 1], [8, at, 8], [16, 0x2000, 8]);
  }
}

const KINDS = [
  ...['ioas', 'destroy', 'mock', 'replace', 'pasid', 'undo-pasid', 'hwpt', 'nested', 'fault-hwpt', 'fault'],
  ...['viommu', 'vdevice', 'veventq', 'queue', 'access', 'map', 'choose', 'copy', 'unmap'],
];

function fresh(): Bench {
  const b = new Bench();
  b.open();
  b.mmap(BUFFER, 0x10000);
  return b;
}

test('after any calls users are counted, ids unique, areas apart and pinned as domains say', () => {
  const step = fc.tuple(fc.constantFrom(...KINDS), fc.integer({ min: 1, max: 12 }), fc.integer({ min: 1, max: 12 }));
  const property = fc.property(fc.array(step, { minLength: 10, maxLength: 60 }), (steps) => {
    const b = fresh();
    for (const first of [
      ['ioas', 0, 0],
      ['mock', 1, 4],
      ['hwpt', 3, 1],
    ] as const)
      run(b, first);
    for (const next of steps) {
      run(b, next);
      checkInvariants(b.world);
    }
  });
  fc.assert(property, { numRuns: 200 });
});

/** A run in which each kind of call succeeds at least once. */
const ALL_SUCCEED: readonly Step[] = [
  ['ioas', 0, 0], // 1
  ['map', 0, 1],
  ['mock', 1, 4], // 2, 3, 4
  ['access', 1, 0], // 5
  ['map', 4, 0],
  ['choose', 0, 1],
  ['copy', 4, 1],
  ['fault', 0, 0], // 6
  ['fault-hwpt', 3, 6], // 7
  ['hwpt', 3, 1], // 8: flags 0
  ['ioas', 0, 0], // 9
  ['replace', 2, 9], // automatic HWPT: 4 goes, 10 comes or 4 again
  ['replace', 2, 1],
  ['hwpt', 3, 1],
  ['unmap', 4, 0],
];

/** What a context and its IOASes are, apart from our own counters. */
function essence(world: World): unknown {
  const context = world.iommufds.first();
  return [
    [...(context?.objects.values() ?? [])].map(({ id, type, users }) => [id, type, users]),
    [...(context?.attachments.values() ?? [])],
    [...world.ioases.values()].map((ioas) => [
      [...ioas.areas.values()].map(({ start, last, accesses }) => [start, last, accesses]),
      [...ioas.blocked.values()],
      ioas.hwpts,
      ioas.accesses,
      ioas.alignment,
    ]),
  ];
}

test('a call whose allocation fails leaves the state as it was', () => {
  const smooth = fresh();
  const bumpy = fresh();
  for (const step of ALL_SUCCEED) {
    const before = essence(bumpy.world);
    run(bumpy, step, { recorded: { ret: -1, errno: 'ENOMEM' } });
    assert.equal(essence(bumpy.world), before, `after a failed ${step[0]}`);
    run(bumpy, step);
    run(smooth, step);
    assert.equal(essence(bumpy.world), essence(smooth.world), `after ${step[0]}`);
    checkInvariants(bumpy.world);
  }
});

test('answers that contradict the model leave a state that holds together', () => {
  const step = fc.tuple(
    fc.constantFrom(...KINDS),
    fc.integer({ min: 0, max: 9 }),
    fc.integer({ min: 0, max: 9 }),
    fc.boolean(),
  );
  const property = fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
    const b = fresh();
    run(b, ['ioas', 0, 0]);
    for (const [kind, x, y, ok] of steps)
      run(b, [kind, x, y], { recorded: ok ? { ret: 0, errno: '' } : { ret: -1, errno: 'EIO' } });
    for (const ioas of b.world.ioases.values()) {
      let last: number | bigint = -1;
      for (const area of ioas.areas.values()) {
        assert.ok(area.start > last, 'areas overlap');
        last = area.last;
      }
    }
    b.close(3);
    assert.is(b.world.iommufds.size <= 1, true);
  });
  fc.assert(property, { numRuns: 200 });
});

test('while another thread makes an object, a new one has the next id or the one after', () => {
  const alloc = (b: Bench, told: number, tid = 1) =>
    b.ioctl(3, 0x3b81, struct(12), { tid, memOut: [note(ARG, struct(12, [8, told]))] }).verdict;
  const busy = (): Bench => {
    const b = new Bench();
    b.open();
    b.event(ev('fork', { ret: 2, flags: 0x1_0f00 }));
    b.event(ev('enter', { tid: 2, call: 'ioctl', fd: 3, request: 0x3b81 }));
    return b;
  };
  const b = busy();
  assert.is(alloc(b, 2), 'match');
  assert.is(alloc(b, 1, 2), 'match');
  assert.is(alloc(b, 4), 'diverge', 'nobody else is at it any more');
  assert.is(alloc(busy(), 1), 'match');
  assert.is(alloc(busy(), 3), 'unknown', 'a call may have more than one id for a moment');
});

test('what a call beside another one answers otherwise is unknown, and the state follows it', () => {
  const b = new Bench();
  b.open();
  const ioas = b.ioasAlloc();
  const { device } = b.mockDomain(ioas);
  b.event(ev('fork', { ret: 2, flags: 0x1_0f00 }));
  b.event(ev('enter', { tid: 2, call: 'ioctl', fd: 3, request: 0x3ba0 }));
  const fields: Field[] = [
    [8, device],
    [12, ioas],
  ];
  const made = b.ioctl(3, 0x3b89, struct(48, ...fields), { memOut: [note(ARG, struct(48, ...fields, [16, 9]))] });
  assert.is(made.verdict, 'unknown');
  // It took its object's id from the answer, and the other call knows that it did not run alone.
  const denied = b.ioctl(3, 0x3ba0, struct(72, [4, 12], [8, ioas]), {
    tid: 2,
    recorded: { ret: -1, errno: 'EADDRINUSE' },
  });
  assert.is(denied.verdict, 'unknown');
  assert.is(b.destroy(9).verdict, 'match');
  assert.is(b.ioctl(3, 0x3b81, struct(12), { recorded: { ret: -1, errno: 'EBUSY' } }).verdict, 'diverge');
});
