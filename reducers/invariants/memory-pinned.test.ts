import * as assert from 'uvu/assert';
import type { Event } from '../../core/event.js';
import type { Finding } from '../../core/invariant.js';
import { suite } from '../../core/testing.js';
import { pinAdd, pinRemove } from '../memory/pins.js';
import { ev, numbered, replay } from '../testing.js';
import { Tx } from '../tx.js';
import type { World } from '../world.js';
import { memoryPinned } from './memory-pinned.js';

const test = suite('invariants/memory-pinned');

const A = 0x7f00_0000_0000;
const SEQ = 10;

/** A process with 16 pages at A, of which the DMA mapping at IOVA 0x1000 (event 2) pins the second to fifth. */
function pinned(more: readonly Event[] = []): { world: World; id: number; space: number } {
  const tx = new Tx(replay([ev('exec'), ev('mmap', { lengthBytes: 65536, ret: A }), ...more]));
  const space = tx.world.processes.get(1)?.space ?? 0;
  const id = pinAdd(tx, space, { start: A + 0x1000, last: A + 0x4fff, owner: 'type1:3', key: 0x1000, since: 2 });
  return { world: tx.commit(), id, space };
}

function findings(world: World, event: Event): readonly Finding[] {
  const [at] = numbered([event], SEQ) as [Event];
  const after = replay([event], {}, world, 1, SEQ);
  const concerned = memoryPinned.concerns?.(world, at) ?? true;
  const found = memoryPinned.check(world, at, after);
  assert.is(concerned, found.length > 0, 'concerns() agrees with check()');
  return found;
}

const caught: readonly [string, Event, string][] = [
  [
    'munmap',
    ev('munmap', { addr: A, lengthBytes: 0x3000 }),
    `unmapped while DMA mappings still pin it: 0x7f0000001000-0x7f0000002fff of IOVA 0x1000 in type1:3`,
  ],
  [
    'mmap over it',
    ev('mmap', { addr: A, flags: 0x32, lengthBytes: 65536, ret: A }),
    'replaced by another mapping while DMA mappings still pin it: 0x7f0000001000-0x7f0000004fff',
  ],
  [
    'MADV_DONTNEED',
    ev('madvise', { addr: A + 0x4000, lengthBytes: 0x4000, advice: 4 }),
    'discarded while DMA mappings still pin it: 0x7f0000004000-0x7f0000004fff',
  ],
  ['MADV_FREE', ev('madvise', { addr: A, lengthBytes: 0x2000, advice: 8 }), 'discarded'],
  ['mremap away', ev('mremap', { addr: A, oldLengthBytes: 65536, newLengthBytes: 65536, ret: A + 0x10_0000 }), 'moved'],
  ['mremap that shrinks', ev('mremap', { addr: A, oldLengthBytes: 65536, newLengthBytes: 4096, ret: A }), 'unmapped'],
];
for (const [name, event, text] of caught) {
  test(`caught: ${name}`, () => {
    const [found, ...others] = findings(pinned().world, event);
    assert.equal(others, []);
    assert.ok(found?.message.includes(text), found?.message);
    assert.is(found?.severity, 'hazard');
    assert.is(found?.seq, SEQ);
    assert.equal(found?.causes, [2, SEQ]);
  });
}

const quiet: readonly [string, Event][] = [
  ['munmap beside it', ev('munmap', { addr: A + 0x5000 })],
  ['munmap that failed', ev('munmap', { addr: A, lengthBytes: 65536, ret: -1, errno: 'EINVAL' })],
  ['munmap without a result', ev('munmap', { addr: A, lengthBytes: 65536, ret: null })],
  ['munmap in another process', ev('munmap', { addr: A, lengthBytes: 65536, tid: 2 })],
  ['mprotect', ev('mprotect', { addr: A, lengthBytes: 65536 })],
  ['MADV_HUGEPAGE', ev('madvise', { addr: A, lengthBytes: 65536, advice: 14 })],
];
for (const [name, event] of quiet) {
  test(`quiet: ${name}`, () => {
    assert.equal(findings(pinned([ev('fork', { ret: 2 })]).world, event), []);
  });
}

test('quiet after the DMA mapping was removed, and quiet the second time', () => {
  const { world, id, space } = pinned();
  const munmap = ev('munmap', { addr: A, lengthBytes: 0x2000 });
  const tx = new Tx(world);
  pinRemove(tx, space, id, 2);
  assert.equal(findings(tx.commit(), munmap), []);
  const again = replay([munmap, ev('mmap', { addr: A, lengthBytes: 0x2000, ret: A })], {}, world, 1, 3);
  assert.equal(findings(again, munmap), []);
});

test('the heap shrinks under a mapping', () => {
  const heap = 0x5555_0000_0000;
  const tx = new Tx(
    replay([ev('exec'), ev('brk', { ret: heap }), ev('brk', { addr: heap + 65536, ret: heap + 65536 })]),
  );
  const space = tx.world.processes.get(1)?.space ?? 0;
  pinAdd(tx, space, { start: heap, last: heap + 65535, owner: 'ioas:1:2', key: 0, since: 2 });
  const [found] = findings(tx.commit(), ev('brk', { addr: heap + 4096, ret: heap + 4096 }));
  assert.ok(found?.message.includes('0x555500001000-0x55550000ffff of IOVA 0x0 in ioas:1:2'), found?.message);
});

test('many mappings of one buffer make one finding', () => {
  const tx = new Tx(pinned().world);
  for (let key = 0; key < 100; key++) {
    pinAdd(tx, tx.world.processes.get(1)?.space ?? 0, { start: A, last: A + 4095, owner: 'type1:3', key, since: 3 });
  }
  const found = findings(tx.commit(), ev('munmap', { addr: A, lengthBytes: 65536 }));
  assert.is(found.length, 1);
  assert.ok(found[0]?.message.endsWith('and at least 60 more'), found[0]?.message);
  assert.equal(found[0]?.causes.at(-1), SEQ);
});
