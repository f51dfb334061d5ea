import { fc } from '../../core/property.js';
import * as assert from 'uvu/assert';
import { suite } from '../../core/testing.js';
import { add, type U64 } from '../../core/u64.js';
import { ev, hashOf, replay } from '../testing.js';
import { Tx } from '../tx.js';
import { pinAdd, pinRemove, pinsOver, type NewPin } from './pins.js';
import { newSpace } from './spaces.js';
import type { AddressSpace } from './state.js';
import { emptyWorld } from '../world.js';

const test = suite('memory/pins');

const PAGE = 4096;
type Step = { start: number; pages: number; remove: number | undefined };
const step: fc.Arbitrary<Step> = fc.record({
  start: fc.nat(200),
  pages: fc.oneof(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 1, max: 150 })),
  remove: fc.option(fc.nat(40), { nil: undefined }),
});

function pin(start: number, pages: number, base: U64): NewPin {
  const from = add(base, start * PAGE);
  return { start: add(from, 100), last: add(from, pages * PAGE - 1), owner: 'type1:1', key: start, since: 0 };
}

for (const base of [0, 0x7f00_0000_0000, 2n ** 55n]) {
  test(`the index finds exactly the pins over a range, base ${base}`, () => {
    fc.assert(
      fc.property(
        fc.array(step, { maxLength: 40 }),
        fc.nat(200),
        fc.integer({ min: 1, max: 40 }),
        (steps, at, count) => {
          const tx = new Tx(emptyWorld());
          const id = newSpace(tx, true).id;
          const live = new Map<number, NewPin>();
          const ids: number[] = [];
          for (const { start, pages, remove } of steps) {
            const made = pin(start, pages, base);
            const given = pinAdd(tx, id, made);
            assert.ok(given > 0);
            ids.push(given);
            live.set(given, made);
            if (remove !== undefined && ids[remove] !== undefined) {
              pinRemove(tx, id, ids[remove], 0);
              live.delete(ids[remove]);
            }
          }
          const space = tx.world.spaces.get(id) as AddressSpace;
          const first = add(base, at * PAGE);
          const last = add(first, count * PAGE - 1);
          const found = pinsOver(space, first, last, 1000).map((entry) => entry.id);
          const expected = [...live].filter(([, entry]) => entry.start <= last && entry.last >= first);
          assert.equal(
            found.sort((a, b) => a - b),
            expected.map(([entry]) => entry).sort((a, b) => a - b),
          );
          for (const entry of ids) pinRemove(tx, id, entry, 0);
          assert.is(tx.world.spaces.get(id)?.pins.size, 0);
        },
      ),
      { numRuns: 200 },
    );
  });
}

test('addresses that no process has are not indexed, nor those of a space that is gone', () => {
  const tx = new Tx(emptyWorld());
  const id = newSpace(tx, true).id;
  const at = { owner: 'ioas:1:2', key: 0, since: 0 };
  assert.is(pinAdd(tx, id, { start: 2n ** 56n - 4096n, last: 2n ** 56n, ...at }), 0);
  assert.is(pinAdd(tx, id, { start: 8192, last: 4096, ...at }), 0);
  assert.is(pinAdd(tx, id + 1, { start: 0, last: 4095, ...at }), 0);
  assert.ok(pinAdd(tx, id, { start: 0, last: 4095, ...at }) > 0, 'page 0 is a page like any other');
  assert.ok(pinAdd(tx, id, { start: 2n ** 56n - 4096n, last: 2n ** 56n - 1n, ...at }) > 0);
  assert.ok(pinAdd(tx, id, { start: 0, last: 2n ** 56n - 1n, ...at }) > 0);
  pinRemove(tx, id, 0, 0);
  pinRemove(tx, id, 99, 0);
  const space = tx.world.spaces.get(id) as AddressSpace;
  assert.is(pinsOver(space, 2n ** 56n - 1n, 2n ** 64n - 1n, 10).length, 2);
  assert.is(pinsOver(space, 2n ** 60n, 2n ** 64n - 1n, 10).length, 0);
});

test('one buffer mapped 60,000 times costs no more than as many buffers', () => {
  const tx = new Tx(emptyWorld());
  const id = newSpace(tx, true).id;
  const ids: number[] = [];
  for (let count = 0; count < 60_000; count++) ids.push(pinAdd(tx, id, pin(5, 16, 0)));
  const space = tx.world.spaces.get(id) as AddressSpace;
  assert.is(pinsOver(space, 0, 2 ** 40, 100).length, 100);
  assert.is(pinsOver(space, 5 * PAGE, 6 * PAGE, 1e6).length, 60_000);
  for (const entry of ids) pinRemove(tx, id, entry, 0);
  assert.is(tx.world.spaces.get(id)?.pins.size, 0);
});

test('an id that went to a newer pin is not taken back by the owner of the older one', () => {
  const tx = new Tx(emptyWorld());
  const id = newSpace(tx, true).id;
  const older = pinAdd(tx, id, { ...pin(5, 1, 0), since: 1 });
  pinRemove(tx, id, older, 1);
  const newer = pinAdd(tx, id, { ...pin(5, 1, 0), since: 2 });
  assert.is(newer, older);
  pinRemove(tx, id, older, 1);
  assert.is(pinsOver(tx.world.spaces.get(id) as AddressSpace, 0, 2 ** 40, 10).length, 1);
});

/** Which calls take pinned memory away: after each, the pin over 0x10000-0x13fff is gone or still there. */
const rows: readonly [string, ReturnType<typeof ev>, boolean][] = [
  ['munmap of all', ev('munmap', { addr: 0x10000, lengthBytes: 0x4000 }), true],
  ['munmap of its last page', ev('munmap', { addr: 0x13000, lengthBytes: 1 }), true],
  ['munmap beside it', ev('munmap', { addr: 0x14000, lengthBytes: 4096 }), false],
  ['munmap that failed', ev('munmap', { addr: 0x10000, ret: -1, errno: 'EINVAL' }), false],
  ['mmap over it', ev('mmap', { addr: 0x11000, flags: 0x32, ret: 0x11000 }), true],
  ['MADV_DONTNEED', ev('madvise', { addr: 0x11000, advice: 4 }), true],
  [
    'MADV_DONTNEED over a hole',
    ev('madvise', { addr: 0x11000, lengthBytes: 2 ** 30, advice: 4, ret: -1, errno: 'ENOMEM' }),
    true,
  ],
  ['MADV_DONTNEED that was refused', ev('madvise', { addr: 0x11000, advice: 4, ret: -1, errno: 'EINVAL' }), false],
  ['MADV_FREE', ev('madvise', { addr: 0x11000, advice: 8 }), true],
  ['MADV_HUGEPAGE', ev('madvise', { addr: 0x11000, advice: 14 }), false],
  ['mprotect', ev('mprotect', { addr: 0x10000, prot: 0 }), false],
  [
    'mremap away',
    ev('mremap', { addr: 0x10000, oldLengthBytes: 0x4000, newLengthBytes: 0x4000, flags: 1, ret: 0x90000 }),
    true,
  ],
  [
    'mremap that grows in place',
    ev('mremap', { addr: 0x10000, oldLengthBytes: 0x4000, newLengthBytes: 0x5000, ret: 0x10000 }),
    false,
  ],
  [
    'mremap that shrinks',
    ev('mremap', { addr: 0x10000, oldLengthBytes: 0x4000, newLengthBytes: 0x3000, ret: 0x10000 }),
    true,
  ],
  ['fork', ev('fork', { ret: 2 }), false],
];
for (const [name, event, gone] of rows) {
  test(`${gone ? 'drops' : 'keeps'} the pin: ${name}`, () => {
    const mapped = replay([ev('exec'), ev('mmap', { lengthBytes: 0x8000, ret: 0x10000 })]);
    const tx = new Tx(mapped);
    const id = tx.world.processes.get(1)?.space ?? 0;
    pinAdd(tx, id, { start: 0x10000, last: 0x13fff, owner: 'type1:1', key: 0, since: 2 });
    const before = tx.commit();
    const hash = hashOf(before);
    const after = replay([event], {}, before, 1, 3);
    assert.is(after.spaces.get(id)?.pins.size, gone ? 0 : 1);
    assert.is(hashOf(before), hash);
    const child = after.spaces.get(after.processes.get(2)?.space ?? 0);
    assert.is(child?.pins.size ?? 0, 0, 'a child has no pins');
  });
}

test('MADV_DONTNEED of shared memory keeps its pages, MADV_REMOVE does not', () => {
  for (const [advice, left] of [
    [4, 1],
    [9, 0],
  ] as const) {
    const tx = new Tx(replay([ev('exec'), ev('mmap', { flags: 0x21, ret: 0x10000 })]));
    const id = tx.world.processes.get(1)?.space ?? 0;
    pinAdd(tx, id, { start: 0x10000, last: 0x10fff, owner: 'type1:1', key: 0, since: 2 });
    const after = replay([ev('madvise', { addr: 0x10000, advice })], {}, tx.commit(), 1, 3);
    assert.is(after.spaces.get(id)?.pins.size, left);
  }
});
