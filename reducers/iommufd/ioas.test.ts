import * as assert from 'uvu/assert';
import { suite } from '../../core/testing.js';
import { U64_MAX } from '../../core/u64.js';
import { DESTROY_RULES } from './destroy.js';
import { COMMON_RULES } from './index.js';
import { IOAS_RULES } from './ioas.js';
import { ev } from '../testing.js';
import { OPTION_RULES } from './option.js';
import { ARG, allSeen, Bench, decidedBy, type Field, note, struct } from './testing.js';

const test = suite('iommufd ioas');
const seen = new Set<string>();

function bench(): Bench {
  const made = new Bench();
  made.open();
  made.mmap(0x6000_0000, 0x1000);
  return made;
}

function keep(b: Bench): void {
  for (const id of b.seen) seen.add(id);
}

test('common checks come in the order of the kernel, before any of the command', () => {
  const b = bench();
  const rows: [number, Uint8Array | null, number, string, string][] = [
    [0x3b80, null, 0, 'EFAULT', 'common.fault'],
    [0x3b95, struct(8), ARG, 'ENOTTY', 'common.number'],
    [0x3c80, struct(8), ARG, 'ENOTTY', 'common.number'],
    [0x4008_3b80, struct(8), ARG, 'ENOTTY', 'common.number'],
    [0x3b7f, null, 0, 'ENOTTY', 'compat.number'],
    [0x3bff, null, 0, 'ENOTTY', 'compat.number'],
    [0x3b81, struct(12, [0, 11]), ARG, 'EINVAL', 'common.size'],
    [0x3b81, struct(16, [12, 1]), ARG, 'E2BIG', 'common.tail'],
    [0x3ba0, struct(67, [4, 99]), ARG, 'EINVAL', 'common.size'],
    [0x3ba0, struct(68, [4, 99]), ARG, 'EOPNOTSUPP', 'test.op'],
    [0x3b81, struct(12, [4, 1]), ARG, 'EOPNOTSUPP', 'ioas-alloc.flags'],
    [0x3b81, struct(16), ARG, '', 'ioas-alloc.ok'],
  ];
  for (const [request, bytes, arg, errno, rule] of rows) decidedBy(b.ioctl(3, request, bytes, { arg }), errno, rule);
  keep(b);
});

test('a struct of an older size has zeroes where it ends', () => {
  const b = bench();
  const ioas = b.ioasAlloc();
  const { device } = b.mockDomain(ioas);
  const short = struct(24, [8, device], [12, ioas]);
  const answer = b.ioctl(3, 0x3b89, short);
  decidedBy(answer, '', 'hwpt-alloc.ok');
  assert.is(answer.u32(16), 5);
});

test('a missing payload makes unknown what its command may have changed', () => {
  const b = bench();
  const ioas = b.ioasAlloc();
  b.map(ioas, 0x6000_0000, 4096, 0x5000);
  const lost = b.ioctl(3, 0x3b84, null);
  assert.is(lost.unknown, 'payload not recorded');
  assert.is(lost.verdict, 'unknown');
  decidedBy(b.map(ioas, 0x6000_0000, 4096, 0x5000), 'EEXIST', 'iova.exists');
  b.ioctl(3, 0x3b86, null, { recorded: { ret: -1, errno: 'ENOENT' } });
  decidedBy(b.map(ioas, 0x6000_0000, 4096, 0x5000), 'EEXIST', 'iova.exists');
  b.ioctl(3, 0x3b86, null);
  assert.match(b.map(ioas, 0x6000_0000, 4096, 0x5000).unknown, /mappings unknown since event/);
  decidedBy(b.destroy(9), 'ENOENT', 'destroy.object');
  b.ioctl(3, 0x3b80, null);
  for (const id of [9, ioas]) assert.match(b.destroy(id).unknown, /objects unknown since event/);
  decidedBy(b.ioctl(3, 0x3b85, null, { arg: 0x7000_0000 }), 'EFAULT', 'common.fault');
});

test('a struct that is longer than a recording shows: an answer tells that the rest was zero', () => {
  const b = bench();
  const long = struct(4096, [0, 5000]);
  assert.is(b.ioctl(3, 0x3b81, long).rule, 'ioas-alloc.ok');
  const refused = b.ioctl(3, 0x3b81, long, { recorded: { ret: -1, errno: 'E2BIG' } });
  assert.equal([refused.verdict, refused.unknown], ['unknown', 'payload not recorded']);
  decidedBy(b.ioctl(3, 0x3b81, struct(4096, [0, 5000], [4095, 1, 1])), 'E2BIG', 'common.tail');
  decidedBy(b.ioctl(3, 0x3b81, struct(12, [0, 0x20000]), { arg: 0x7fff_fff4 }), 'EFAULT', 'common.fault');
  b.ioctl(3, 0x3b81, struct(4096, [0, 5000], [4, 1]));
  decidedBy(b.ioctl(3, 0x3b81, struct(4096, [0, 5000], [4, 1])), 'EOPNOTSUPP', 'ioas-alloc.flags');
});

test('ids are the lowest free ones', () => {
  const b = bench();
  assert.equal([b.ioasAlloc(), b.ioasAlloc(), b.ioasAlloc()], [1, 2, 3]);
  decidedBy(b.destroy(2), '', 'destroy.ok');
  decidedBy(b.destroy(2), 'ENOENT', 'destroy.object');
  assert.equal([b.ioasAlloc(), b.ioasAlloc()], [2, 4]);
  const { hwpt, device } = b.mockDomain(1);
  decidedBy(b.destroy(hwpt), 'EBUSY', 'destroy.busy');
  decidedBy(b.destroy(device), 'EBUSY', 'destroy.busy');
  decidedBy(b.destroy(1), 'EBUSY', 'destroy.busy');
  keep(b);
});

test('an id that the recording contradicts is taken over, so that one wrong id is one finding', () => {
  const b = bench();
  const memOut = [note(ARG, struct(12, [8, 7]))];
  assert.is(b.ioctl(3, 0x3b81, struct(12), { memOut }).verdict, 'diverge');
  decidedBy(b.map(7, 0x1000_0000, 4096), '', 'map.ok');
  assert.is(b.ioasAlloc(), 1);
});

function ranges(b: Bench, ioas: number, count: number, ...more: Field[]) {
  return b.ioctl(3, 0x3b84, struct(32, [4, ioas], [8, count], [16, 0x6000_0000, 8], ...more));
}

test('IOVA_RANGES', () => {
  const b = bench();
  const ioas = b.ioasAlloc();
  decidedBy(ranges(b, ioas, 4, [12, 1]), 'EOPNOTSUPP', 'iova-ranges.reserved');
  decidedBy(ranges(b, 9, 4), 'ENOENT', 'iova-ranges.ioas');
  for (const pointer of [0, 0x1000, 0xffff_ffff_ffff_f000n]) {
    decidedBy(ranges(b, ioas, 4, [16, pointer, 8]), 'EFAULT', 'iova-ranges.fault');
    decidedBy(ranges(b, ioas, 0, [16, pointer, 8]), 'EMSGSIZE', 'iova-ranges.size');
  }
  const whole = ranges(b, ioas, 4);
  decidedBy(whole, '', 'iova-ranges.ok');
  assert.equal([whole.u32(8), whole.u64(24)], [1, 1]);
  assert.equal([whole.at(0x6000_0000)?.u64(0), whole.at(0x6000_0000)?.u64(8)], [0, U64_MAX]);
  b.test(1, ioas, [16, 0x1000, 8], [24, 0x1000, 8]);
  const short = ranges(b, ioas, 1);
  decidedBy(short, 'EMSGSIZE', 'iova-ranges.size');
  assert.is(short.u32(8), 2);
  assert.is(short.at(0x6000_0000)?.length, 16);
  keep(b);
});

test('reserved ranges that meet or overlap tell one hole less', () => {
  const b = bench();
  const ioas = b.ioasAlloc();
  for (const [start, length] of [
    [0x5000, 0x1000],
    [0x3000, 0x1000],
    [0x4000, 0x1000],
    [0x3800, 0x2000],
    [0, 0x1000],
  ] as const)
    decidedBy(b.test(1, ioas, [16, start, 8], [24, length, 8]), '', 'test-reserve.ok');
  const told = ranges(b, ioas, 4);
  assert.is(told.u32(8), 2);
  const bytes = told.at(0x6000_0000);
  assert.equal(
    [0, 8, 16, 24].map((at) => bytes?.u64(at)),
    [0x1000, 0x2fff, 0x6000, U64_MAX],
  );
});

function allow(b: Bench, ioas: number, list: readonly [number, number][], ...more: Field[]) {
  const bytes = struct(
    Math.max(8, list.length * 16),
    ...list.flatMap<Field>(([start, last], i) => [
      [i * 16, start, 8],
      [i * 16 + 8, last, 8],
    ]),
  );
  return b.ioctl(3, 0x3b82, struct(24, [4, ioas], [8, list.length], [16, 0x6000_0000, 8], ...more), {
    mem: [note(0x6000_0000, bytes)],
  });
}

test('ALLOW_IOVAS', () => {
  const b = bench();
  const ioas = b.ioasAlloc();
  b.test(1, ioas, [16, 0x10000, 8], [24, 0x1000, 8]);
  const rows: [string, string, readonly [number, number][], Field[]][] = [
    ['EOPNOTSUPP', 'allow-iovas.reserved', [[0, 1]], [[12, 1]]],
    ['ENOENT', 'allow-iovas.ioas', [[0, 1]], [[4, 9]]],
    ['EFAULT', 'allow-iovas.fault', [[0, 1]], [[16, 0, 8]]],
    ['EINVAL', 'allow-iovas.order', [[5, 5]], []],
    [
      'EINVAL',
      'allow-iovas.overlap',
      [
        [0, 0xfff],
        [0xfff, 0x2000],
      ],
      [],
    ],
    ['EADDRINUSE', 'allow-iovas.in-use', [[0x10fff, 0x20000]], []],
    ['', 'allow-iovas.ok', [[0x2000, 0x3fff]], []],
  ];
  for (const [errno, rule, list, more] of rows) decidedBy(allow(b, ioas, list, ...more), errno, rule);
  assert.is(b.map(ioas, 0, 4096).u64(32), 0x2000);
  decidedBy(b.test(1, ioas, [16, 0x3000, 8], [24, 1, 8]), 'EADDRINUSE', 'reserve.in-use');
  decidedBy(allow(b, ioas, []), '', 'allow-iovas.ok');
  assert.is(b.map(ioas, 0, 4096).u64(32), 0x1000);
  keep(b);
});

function vfioIoas(b: Bench, op: number, id = 0, reserved = 0) {
  return b.ioctl(3, 0x3b88, struct(12, [4, id], [8, op, 2], [10, reserved, 2]));
}

test('VFIO_IOAS', () => {
  const b = bench();
  const ioas = b.ioasAlloc();
  decidedBy(vfioIoas(b, 0, 0, 1), 'EOPNOTSUPP', 'vfio-ioas.reserved');
  decidedBy(vfioIoas(b, 3), 'EOPNOTSUPP', 'vfio-ioas.op');
  decidedBy(vfioIoas(b, 0), 'ENODEV', 'vfio-ioas.none');
  decidedBy(vfioIoas(b, 1, 9), 'ENOENT', 'vfio-ioas.ioas');
  decidedBy(vfioIoas(b, 1, ioas), '', 'vfio-ioas.ok');
  assert.is(vfioIoas(b, 0).u32(4), ioas);
  decidedBy(b.destroy(ioas), '', 'destroy.ok');
  decidedBy(vfioIoas(b, 0), 'ENODEV', 'vfio-ioas.none');
  vfioIoas(b, 1, b.ioasAlloc());
  decidedBy(vfioIoas(b, 2), '', 'vfio-ioas.ok');
  decidedBy(vfioIoas(b, 0), 'ENODEV', 'vfio-ioas.none');
  keep(b);
});

function option(b: Bench, id: number, op: number, object: number, value = 0, reserved = 0) {
  return b.ioctl(3, 0x3b87, struct(24, [4, id], [8, op, 2], [10, reserved, 2], [12, object], [16, value, 8]));
}

test('OPTION', () => {
  const b = bench();
  const SET = 0;
  const GET = 1;
  decidedBy(option(b, 0, SET, 0, 0, 1), 'EOPNOTSUPP', 'option.reserved');
  decidedBy(option(b, 2, GET, 0), 'EOPNOTSUPP', 'option.id');
  decidedBy(option(b, 0, GET, 1), 'EOPNOTSUPP', 'option.rlimit-object');
  decidedBy(option(b, 0, 2, 0), 'EOPNOTSUPP', 'option.op');
  decidedBy(option(b, 0, SET, 0, 2), 'EINVAL', 'option.rlimit-value');
  decidedBy(option(b, 0, SET, 0, 1), '', 'option.ok');
  assert.is(option(b, 0, GET, 0).u64(16), 1);
  const ioas = b.ioasAlloc();
  decidedBy(option(b, 0, SET, 0, 0), 'EBUSY', 'option.rlimit-busy');
  b.event(ev('creds', { call: 'capget', effectiveCaps: 0, permittedCaps: 0 }));
  decidedBy(option(b, 0, SET, 0, 0), 'EPERM', 'option.rlimit-capability');
  decidedBy(option(b, 0, GET, 0, 0), '', 'option.ok');
  decidedBy(option(b, 1, GET, 9), 'ENOENT', 'option.ioas');
  decidedBy(option(b, 1, 2, ioas), 'EOPNOTSUPP', 'option.op');
  decidedBy(option(b, 1, SET, ioas, 2), 'EINVAL', 'option.huge-value');
  assert.is(option(b, 1, GET, ioas).u64(16), 1);
  decidedBy(option(b, 1, SET, ioas, 0), '', 'option.ok');
  assert.is(option(b, 1, GET, ioas).u64(16), 0);
  decidedBy(b.map(ioas, 0x1000_0800, 2048, 0x2000), 'EINVAL', 'iova.length');
  decidedBy(option(b, 1, SET, ioas, 1), '', 'option.ok');
  decidedBy(b.map(ioas, 0x1000_0800, 2048, 0x2800), '', 'map.ok');
  decidedBy(option(b, 1, SET, ioas, 0), 'EADDRINUSE', 'alignment.in-use');
  b.unmap(ioas, 0, U64_MAX);
  b.mockDomain(ioas);
  b.mmap(0x1000_0000, 0x10000);
  decidedBy(b.map(ioas, 0x1000_0000, 4096, 0x100_0000), '', 'map.ok');
  decidedBy(option(b, 1, SET, ioas, 0), 'EINVAL', 'option.huge-in-use');
  keep(b);
});

test('every rule has a row', () => {
  allSeen(seen, [COMMON_RULES, IOAS_RULES, OPTION_RULES, DESTROY_RULES]);
});
