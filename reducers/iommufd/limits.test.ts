import * as assert from 'uvu/assert';
import { suite } from '../../core/testing.js';
import { type U64, U64_MAX } from '../../core/u64.js';
import { Tx } from '../tx.js';
import { attachDevice, bindDevice, detachDevice, unbindDevice } from './attach.js';
import { type Answer, ARG, Bench, decidedBy, type Field, note, struct } from './testing.js';

/** What real hardware reserves in an IOAS: learned from answers, apart for domains and devices. */
const test = suite('iommufd limits');
const DATA = 0x6000_0000;

function bench(): { b: Bench; ioas: number } {
  const b = new Bench();
  b.open();
  b.mmap(DATA, 0x1000);
  b.mmap(0x1000_0000, 0x10_0000);
  return { b, ioas: b.ioasAlloc() };
}

const RANGES_39_BITS: readonly (readonly [U64, U64])[] = [
  [0, 0xfedf_ffff],
  [0xfef0_0000, 0x7f_ffff_ffff],
];

/** An IOVA_RANGES with room for some ranges, and what the recording shows. */
function askRanges(b: Bench, pt: number, room: number, told = RANGES_39_BITS): Answer {
  const fields = told.flatMap(([start, last], i): Field[] => [
    [i * 16, start, 8],
    [i * 16 + 8, last, 8],
  ]);
  const array = struct(told.length * 16, [0, 0], ...fields);
  return b.ioctl(3, 0x3b84, struct(32, [4, pt], [8, room], [16, DATA, 8]), {
    memOut: [note(ARG, struct(32, [4, pt], [8, told.length], [16, DATA, 8], [24, 4096, 8])), note(DATA, array)],
  });
}

function bindReal(b: Bench, key: string): number {
  const tx = new Tx(b.world);
  const device = bindDevice(tx, 1, key, 0);
  b.world = tx.commit();
  return device;
}

function attachReal(b: Bench, device: number, pt: number): void {
  const tx = new Tx(b.world);
  attachDevice(tx, 1, device, pt, 0);
  b.world = tx.commit();
}

test('limits of real devices are those of every PC until an answer tells them, and then hold for the device', () => {
  const { b, ioas } = bench();
  attachReal(b, bindReal(b, 'one'), ioas);
  decidedBy(b.map(ioas, 0x1000_0000, 4096, 0x4000), '', 'map.ok');
  decidedBy(b.map(ioas, 0x1000_0000, 4096, 0xfee0_0000), 'EINVAL', 'iova.reserved');
  assert.is(askRanges(b, ioas, 0).verdict, 'learned');
  assert.is(askRanges(b, ioas, 2).verdict, 'learned');
  assert.is(askRanges(b, ioas, 2).verdict, 'match');
  decidedBy(b.map(ioas, 0x1000_0000, 4096, 0xfee0_0000), 'EINVAL', 'iova.reserved');
  decidedBy(b.map(ioas, 0x1000_0000, 4096, 0x80_0000_0000), 'EINVAL', 'iova.reserved');
  const two = bindReal(b, 'two');
  attachReal(b, two, ioas);
  decidedBy(b.map(ioas, 0x1000_0000, 4096, 0x8000), '', 'map.ok');
  assert.is(askRanges(b, ioas, 16).verdict, 'learned');
  const tx = new Tx(b.world);
  unbindDevice(tx, 1, two);
  b.world = tx.commit();
  const other = b.ioasAlloc();
  attachReal(b, bindReal(b, 'two'), other);
  decidedBy(b.map(other, 0x1000_0000, 4096, 0xfee0_0000), 'EINVAL', 'iova.reserved');
});

test('what lies above 39 bits is unknown until then', () => {
  const { b, ioas } = bench();
  attachReal(b, bindReal(b, 'nic'), ioas);
  assert.match(b.map(ioas, 0x1000_0000, 4096, 2 ** 39).unknown, /more than 39 bits/);
  const allow = struct(16, [0, 2 ** 39, 8], [8, 2 ** 39 + 0xfff, 8]);
  const ask = struct(24, [4, ioas], [8, 1], [16, DATA, 8]);
  assert.match(b.ioctl(3, 0x3b82, ask, { mem: [note(DATA, allow)] }).unknown, /more than 39 bits/);
});

test('hardware that nobody told of may have refused what fails later in any case', () => {
  const { b, ioas } = bench();
  b.map(ioas, 0x1000_0000, 4096, 2 ** 39);
  b.map(ioas, 0x7000_0000, 4096, 2 ** 40);
  const device = bindReal(b, 'nic');
  const attach = (errno: string): Answer =>
    b.ioctl(3, 0x3b89, struct(48, [8, device], [12, ioas]), { recorded: { ret: errno === '' ? 0 : -1, errno } });
  decidedBy(attach('EFAULT'), 'EFAULT', 'pages.fault');
  assert.is(attach('EFAULT').verdict, 'match');
  assert.match(attach('EADDRINUSE').unknown, /more than 39 bits/);
  assert.is(attach('EINVAL').verdict, 'diverge');
  assert.is(attach('').verdict, 'diverge');
});

test('a domain alone tells its aperture, and nothing of what its device reserves', () => {
  const { b, ioas } = bench();
  const device = bindReal(b, 'nic');
  const made = b.ioctl(3, 0x3b89, struct(48, [8, device], [12, ioas]));
  assert.is(askRanges(b, ioas, 16, [[0, 0x7f_ffff_ffff]]).verdict, 'learned');
  assert.is(askRanges(b, ioas, 16, [[0, 0x7f_ffff_ffff]]).verdict, 'match');
  decidedBy(b.map(ioas, 0x1000_0000, 4096, 0x80_0000_0000), 'EINVAL', 'iova.reserved');
  attachReal(b, device, made.u32(16));
  assert.is(askRanges(b, ioas, 0).verdict, 'learned');
  assert.is(askRanges(b, ioas, 2).verdict, 'learned');
  assert.is(askRanges(b, ioas, 2).verdict, 'match');
  const tx = new Tx(b.world);
  detachDevice(tx, 1, device);
  b.world = tx.commit();
  assert.is(askRanges(b, ioas, 1, [[0, 0x7f_ffff_ffff]]).verdict, 'match');
  decidedBy(b.map(ioas, 0x1000_0000, 4096, 0xfee0_0000), '', 'map.ok');
});

test('an answer that leaves free what is known to be reserved diverges', () => {
  const { b, ioas } = bench();
  const device = bindReal(b, 'nic');
  const made = b.ioctl(3, 0x3b89, struct(48, [8, device], [12, ioas]));
  assert.is(askRanges(b, ioas, 16, [[0, 0x7f_ffff_ffff]]).verdict, 'learned');
  attachReal(b, device, made.u32(16));
  assert.is(askRanges(b, ioas, 16, [[0, U64_MAX]]).verdict, 'diverge');
  decidedBy(b.map(ioas, 0x1000_0000, 4096, 0xfee0_0000), 'EINVAL', 'iova.reserved');
});
