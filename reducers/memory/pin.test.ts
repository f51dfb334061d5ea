import * as assert from 'uvu/assert';
import type { Event } from '../../core/event.js';
import { suite } from '../../core/testing.js';
import type { U64 } from '../../core/u64.js';
import { ev, replay } from '../testing.js';
import { Tx } from '../tx.js';
import { probePin } from './pin.js';

const test = suite('memory/pin');

const A = 0x7f00_0000_0000;
const HEAP = 0x5555_5560_0000;
const EXEC = ev('exec');
const START: readonly Event[] = [
  EXEC,
  ev('brk', { ret: HEAP }),
  ev('mmap', { lengthBytes: 8192, ret: A + 0x100_0000 }),
];
const MEMFD = [
  ev('open', { call: 'memfd_create', path: 'x', retPath: '/memfd:x (deleted)', ret: 3 }),
  ev('other', { call: 'ftruncate', text: '3</memfd:x>(deleted), 8192' }),
];
const open = (path: string): Event => ev('open', { path, flags: 2, ret: 3 });
const mmap = (prot: number, flags = 0x22, lengthBytes = 16384, fd = -1): Event =>
  ev('mmap', { prot, flags, lengthBytes, fd, ret: A });

interface Row {
  readonly name: string;
  readonly events: readonly Event[];
  readonly write?: boolean;
  readonly pfnmapOk?: boolean;
  readonly start?: U64;
  readonly last?: U64;
  /** `ok`, or kind and address. */
  readonly expected: 'ok' | readonly ['fault' | 'unknown', U64];
}

const DEVICE = open('/dev/vfio/devices/vfio0');

const rows: readonly Row[] = [
  { name: 'private anonymous, write', events: [mmap(3)], write: true, expected: 'ok' },
  { name: 'private anonymous, read', events: [mmap(3)], expected: 'ok' },
  { name: 'read-only, read', events: [mmap(1)], expected: 'ok' },
  { name: 'read-only, write', events: [mmap(1)], write: true, expected: ['fault', A] },
  { name: 'PROT_NONE', events: [mmap(0)], expected: ['fault', A] },
  { name: 'write-only, read by iommufd', events: [mmap(2)], expected: ['unknown', A] },
  { name: 'write-only, read by type1', events: [mmap(2)], pfnmapOk: true, expected: ['fault', A] },
  { name: 'nothing there', events: [], expected: ['fault', A] },
  { name: 'unmapped again', events: [mmap(3), ev('munmap', { addr: A, lengthBytes: 16384 })], expected: ['fault', A] },
  { name: 'a hole in the middle', events: [mmap(3), ev('munmap', { addr: A + 4096 })], expected: ['fault', A + 4096] },
  {
    name: 'read-only in the middle',
    events: [mmap(3), ev('mprotect', { addr: A + 8192, prot: 1 })],
    write: true,
    expected: ['fault', A + 8192],
  },
  { name: 'ends before the hole', events: [mmap(3), ev('munmap', { addr: A + 4096 })], last: A + 4095, expected: 'ok' },
  { name: 'starts inside a page', events: [mmap(3)], start: A + 5, last: A + 6, expected: 'ok' },
  { name: 'guard pages', events: [mmap(3), ev('madvise', { addr: A, advice: 102 })], expected: ['fault', A] },
  {
    name: 'guard pages removed',
    events: [mmap(3), ev('madvise', { addr: A, advice: 102 }), ev('madvise', { addr: A, advice: 103 })],
    expected: 'ok',
  },
  { name: 'the first page', events: [], start: 0, last: 4095, expected: ['fault', 0] },
  {
    name: 'above user space',
    events: [],
    start: 0x8000_0000_0000,
    last: 0x8000_0000_0fff,
    expected: ['fault', 0x8000_0000_0000],
  },
  {
    name: 'far above user space',
    events: [],
    start: 2n ** 63n,
    last: 2n ** 63n + 4095n,
    expected: ['fault', 2n ** 63n],
  },
  {
    name: 'the stack',
    events: [],
    start: 0x7ffd_0000_0000,
    last: 0x7ffd_0000_0fff,
    expected: ['unknown', 0x7ffd_0000_0000],
  },
  { name: 'the program', events: [], start: HEAP - 8192, last: HEAP - 4097, expected: ['unknown', HEAP - 8192] },
  {
    name: 'below the program',
    events: [],
    start: 0x1_0000_0000,
    last: 0x1_0000_0fff,
    expected: ['fault', 0x1_0000_0000],
  },
  { name: 'above the heap', events: [], start: HEAP, last: HEAP + 4095, expected: ['fault', HEAP] },
  {
    name: 'the heap',
    events: [ev('brk', { addr: HEAP + 4096, ret: HEAP + 4096 })],
    write: true,
    start: HEAP,
    last: HEAP + 4095,
    expected: 'ok',
  },
  {
    name: 'a page of the program that mprotect showed',
    events: [ev('mprotect', { addr: HEAP - 8192, prot: 1 })],
    start: HEAP - 8192,
    last: HEAP - 8000,
    expected: 'ok',
  },
  { name: 'memfd', events: [...MEMFD, mmap(3, 1, 8192, 3)], write: true, last: A + 8191, expected: 'ok' },
  { name: 'memfd beyond its end', events: [...MEMFD, mmap(3, 1, 16384, 3)], expected: ['fault', A + 8192] },
  {
    name: 'memfd, starting beyond its end',
    events: [...MEMFD, mmap(3, 1, 16384, 3)],
    start: A + 12288,
    expected: ['fault', A + 12288],
  },
  { name: 'memfd, up to its end', events: [...MEMFD, mmap(3, 1, 16384, 3)], last: A + 8191, expected: 'ok' },
  { name: 'BAR for iommufd', events: [DEVICE, mmap(3, 1, 16384, 3)], write: true, expected: ['fault', A] },
  { name: 'BAR for type1', events: [DEVICE, mmap(3, 1, 16384, 3)], write: true, pfnmapOk: true, expected: 'ok' },
  {
    name: 'read-only BAR for type1',
    events: [DEVICE, mmap(1, 1, 16384, 3)],
    write: true,
    pfnmapOk: true,
    expected: ['fault', A],
  },
  { name: 'private file mapping', events: [open('/tmp/f'), mmap(3, 2, 16384, 3)], write: true, expected: 'ok' },
  { name: 'shared file mapping, read', events: [open('/tmp/f'), mmap(3, 1, 16384, 3)], expected: 'ok' },
  {
    name: 'shared file mapping, write',
    events: [open('/tmp/f'), mmap(3, 1, 16384, 3)],
    write: true,
    expected: ['unknown', A],
  },
  {
    name: 'shared file in /dev/shm, write',
    events: [open('/dev/shm/f'), mmap(3, 1, 16384, 3)],
    write: true,
    expected: 'ok',
  },
  { name: 'a device that is not modelled', events: [open('/dev/mem'), mmap(3, 1, 16384, 3)], expected: ['unknown', A] },
  {
    name: 'huge pages are rounded up',
    events: [ev('mmap', { flags: 0x4_0022, lengthBytes: 4096, ret: A })],
    last: A + 0x1f_ffff,
    expected: 'ok',
  },
];

for (const row of rows) {
  test(row.name, () => {
    const tx = new Tx(replay([...START, ...row.events]));
    const space = tx.world.processes.get(1)?.space ?? 0;
    const request = { write: row.write ?? false, longterm: true, pfnmapOk: row.pfnmapOk ?? false };
    const answer = probePin(tx, space, row.start ?? A, row.last ?? A + 16383, request);
    assert.equal(answer.kind === 'ok' ? 'ok' : [answer.kind, answer.at], row.expected);
  });
}

test('a space whose beginning was not recorded: only what a call emptied is surely empty', () => {
  const request = { write: true, longterm: true, pfnmapOk: true };
  const kindAt = (events: readonly Event[], at: U64): string => {
    const tx = new Tx(replay(events));
    return probePin(tx, tx.world.processes.get(1)?.space ?? 0, at, at, request).kind;
  };
  const unmap = ev('munmap', { addr: A, lengthBytes: 16384 });
  assert.is(kindAt([mmap(3)], A), 'ok');
  assert.is(kindAt([mmap(3)], A + 16384), 'unknown');
  assert.is(kindAt([unmap], A + 8192), 'fault');
  assert.is(kindAt([unmap, mmap(3)], A + 8192), 'ok');
  assert.is(kindAt([unmap, ev('mprotect', { addr: A + 4096, prot: 3 })], A + 4096), 'unknown');
  assert.is(kindAt([unmap, ev('mprotect', { addr: A + 4096, prot: 1 })], A + 4096), 'fault');
  assert.is(kindAt([unmap, ev('mprotect', { addr: A + 4096, prot: 1 })], A), 'fault');
});

test('a space that is gone', () => {
  const tx = new Tx(replay([EXEC]));
  assert.is(probePin(tx, 99, A, A, { write: false, longterm: true, pfnmapOk: false }).kind, 'fault');
});
