import * as assert from 'uvu/assert';
import fc from 'fast-check';
import { OrderedMap } from '../../core/ordered-map.js';
import { suite } from '../../core/testing.js';
import type { U64 } from '../../core/u64.js';
import type { DataRun } from '../memory/pagetable.js';
import { copyHeld, hold, holdBytes, heldIn, UNKNOWN_DATA } from './contents.js';
import { PAGE } from './testing.js';

const test = suite('hmm/contents');

function empty(): OrderedMap<U64, DataRun> {
  return OrderedMap.numeric<U64, DataRun>();
}

/** What each of the first `count` pages holds. */
function pagesOf(data: OrderedMap<U64, DataRun>, count: number): number[] {
  return Array.from({ length: count }, (_, page) => heldIn(data, page * PAGE, page * PAGE + PAGE - 1)[0]?.upto ?? NaN);
}

function holdPages(data: OrderedMap<U64, DataRun>, page: number, count: number, upto: number): void {
  hold(data, page * PAGE, (page + count) * PAGE - 1, upto);
}

test('memory holds zeros until something is written, and again when it is new', () => {
  const data = empty();
  assert.equal(heldIn(data, 0, 9 * PAGE - 1), [{ start: 0, last: 9 * PAGE - 1, upto: 0 }]);
  holdPages(data, 1, 2, 5);
  holdPages(data, 4, 1, UNKNOWN_DATA);
  assert.equal(pagesOf(data, 6), [0, 5, 5, 0, UNKNOWN_DATA, 0]);
  holdPages(data, 2, 3, 0);
  assert.equal(pagesOf(data, 6), [0, 5, 0, 0, 0, 0]);
  assert.is(data.size, 1);
});

test('neighbours that hold data up to the same byte are one run', () => {
  const data = empty();
  for (let page = 0; page < 100; page++) holdPages(data, page, 1, 7);
  assert.is(data.size, 1);
});

test('what is copied by whole pages is known, what is not only where it is zeros to zeros', () => {
  const data = empty();
  holdPages(data, 1, 1, 5);
  const copied = (target: number): number[] => {
    const to = empty();
    holdPages(to, 4, 1, 9);
    copyHeld(heldIn(data, 0, 3 * PAGE - 1), 0, to, target);
    return pagesOf(to, 6);
  };
  assert.equal(copied(2 * PAGE), [0, 0, 0, 5, 0, 0]);
  assert.equal(copied(PAGE + 8), [0, -1, -1, -1, -1, 0], 'a copy that begins inside of a page');
  const clean = empty();
  copyHeld(heldIn(empty(), 0, 3 * PAGE - 1), 0, clean, 8);
  assert.is(clean.size, 0);
});

test('bytes that the kernel writes', () => {
  const rows: readonly [name: string, before: number, at: number, bytes: readonly number[], after: number][] = [
    ['data to zeros', 0, 8, [1, 2, 0], 10],
    ['zeros to zeros', 0, 8, [0, 0], 0],
    ['data behind what is there', 4, 8, [1], 9],
    ['zeros behind what is there', 4, 8, [0, 0], 4],
    ['data in front of the last byte', 100, 8, [1], 100],
    ['zeros over the last byte, and data may be left in front', 9, 8, [0, 0], UNKNOWN_DATA],
    ['zeros over all of it', 2, 0, [0, 0], 0],
    ['data over the last byte', 9, 8, [3, 0], 9],
    ['to a page that is not known', UNKNOWN_DATA, 8, [1], UNKNOWN_DATA],
  ];
  for (const [name, before, at, bytes, after] of rows) {
    const data = empty();
    holdPages(data, 0, 1, before);
    holdBytes(data, at, Uint8Array.from(bytes));
    assert.is(pagesOf(data, 1)[0], after, name);
  }
  const whole = empty();
  holdPages(whole, 0, 1, UNKNOWN_DATA);
  holdBytes(whole, 0, new Uint8Array(PAGE));
  assert.is(pagesOf(whole, 1)[0], 0, 'all of a page that was not known');
});

test('bytes over several pages', () => {
  const data = empty();
  const bytes = new Uint8Array(2 * PAGE);
  bytes[0] = 1;
  bytes[PAGE] = 1;
  holdBytes(data, PAGE - 4, bytes);
  assert.equal(pagesOf(data, 4), [PAGE - 3, PAGE - 3, 0, 0]);
});

test('what is said of a page is never less than what it holds', () => {
  const write = fc.record({
    at: fc.integer({ min: 0, max: 4 * PAGE - 1 }),
    bytes: fc.array(fc.constantFrom(0, 0, 0, 7), { minLength: 1, maxLength: 24 }),
    times: fc.constantFrom(1, 1, 200),
  });
  fc.assert(
    fc.property(fc.array(write, { maxLength: 12 }), (writes) => {
      const memory = new Uint8Array(8 * PAGE);
      const data = empty();
      for (const { at, bytes, times } of writes) {
        const all = Uint8Array.from(Array.from({ length: times }, () => bytes).flat());
        memory.set(all, at);
        holdBytes(data, at, all);
      }
      for (const [page, upto] of pagesOf(data, 8).entries()) {
        const held = memory.subarray(page * PAGE, page * PAGE + PAGE).findLastIndex((byte) => byte !== 0) + 1;
        if (upto !== UNKNOWN_DATA) assert.is(upto, held);
      }
    }),
  );
});
