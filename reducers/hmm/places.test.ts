import { fc } from '../../core/property.js';
import * as assert from 'uvu/assert';
import { OrderedMap } from '../../core/ordered-map.js';
import { suite } from '../../core/testing.js';
import type { U64 } from '../../core/u64.js';
import { cover, mirrorsIn, type Place, uncover } from './places.js';

const test = suite('hmm/places');
const SPAN = 24;
const MIRRORS = 4;

const change = fc.record({
  covers: fc.boolean(),
  start: fc.nat(SPAN - 1),
  length: fc.integer({ min: 1, max: SPAN }),
  id: fc.integer({ min: 1, max: MIRRORS }),
});

test('the index says of each range what a set of each address says', () => {
  fc.assert(
    fc.property(fc.array(change, { maxLength: 40 }), (changes) => {
      const places = OrderedMap.numeric<U64, Place>();
      const cells = Array.from({ length: SPAN }, () => new Set<number>());
      for (const { covers, start, length, id } of changes) {
        const last = Math.min(SPAN, start + length) - 1;
        if (covers) cover(places, start, last, id);
        else uncover(places, start, last, id);
        for (const cell of cells.slice(start, last + 1)) {
          if (covers) cell.add(id);
          else cell.delete(id);
        }
      }
      for (let start = 0; start < SPAN; start++) {
        for (const last of [start, SPAN - 1]) {
          const expected = new Set(cells.slice(start, last + 1).flatMap((cell) => [...cell]));
          const numeric = (a: U64, b: U64): number => Number(a) - Number(b);
          assert.equal([...mirrorsIn(places, start, last)].sort(numeric), [...expected].sort(numeric));
        }
      }
      assert.ok([...places.values()].every(({ mirrors }) => mirrors.length > 0));
    }),
  );
});

test('the last address of all, and more mirrors than any machine has', () => {
  const places = OrderedMap.numeric<U64, Place>();
  const last = 0xffff_ffff_ffff_ffffn;
  cover(places, 0, last, 1);
  uncover(places, 0xffff_ffff_ffff_f000n, last, 1);
  assert.equal(mirrorsIn(places, last, last), []);
  for (let id = 2; id < 1000; id++) cover(places, 0, 0xfff, id);
  assert.is(mirrorsIn(places, 0, 0).length, 64);
});
