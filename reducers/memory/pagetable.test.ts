import { fc } from '../../core/property.js';
import * as assert from 'uvu/assert';
import { OrderedMap } from '../../core/ordered-map.js';
import { suite } from '../../core/testing.js';
import type { U64 } from '../../core/u64.js';
import { clearRuns, hugePart, newPte, type Pte, type PteRun, pieces, setRun } from './pagetable.js';

const test = suite('memory/pagetable');

const PAGE = 4096;
const PAGES = 40;

function pte(since: number): Pte {
  return newPte('anon', since, { write: since % 2 === 0 });
}

interface Op {
  readonly set: boolean;
  readonly from: number;
  readonly count: number;
  readonly since: number;
}

const op: fc.Arbitrary<Op> = fc.record({
  set: fc.boolean(),
  from: fc.integer({ min: 0, max: PAGES - 1 }),
  count: fc.integer({ min: 1, max: 12 }),
  since: fc.integer({ min: 0, max: 3 }),
});

test('runs hold what a table of single pages holds, and equal neighbours are one run', () => {
  fc.assert(
    fc.property(fc.array(op, { maxLength: 60 }), (ops) => {
      const runs = OrderedMap.numeric<U64, PteRun>();
      const pages: (number | undefined)[] = [];
      for (const { set, from, count, since } of ops) {
        const last = (from + count) * PAGE - 1;
        if (set) setRun(runs, from * PAGE, last, pte(since));
        else clearRuns(runs, from * PAGE, last);
        for (let page = from; page < from + count; page++) pages[page] = set ? since : undefined;
      }
      let before: PteRun | undefined;
      for (const piece of pieces(runs, 0, (PAGES + 12) * PAGE - 1)) {
        for (let at = Number(piece.start); at < piece.last; at += PAGE) {
          assert.is(piece.pte?.since, pages[at / PAGE]);
          assert.is(
            piece.pte?.write,
            pages[at / PAGE] === undefined ? undefined : (pages[at / PAGE] as number) % 2 === 0,
          );
        }
      }
      for (const run of runs.values()) {
        const joined = before !== undefined && Number(before.last) + 1 === run.start && before.since === run.since;
        assert.not(joined, 'neighbours that differ in nothing');
        before = run;
      }
    }),
  );
});

test('huge runs are huge where blocks are whole, and cut blocks stay cut', () => {
  const runs = OrderedMap.numeric<U64, PteRun>();
  const huge = { ...pte(1), huge: true };
  const block = 2 ** 21;
  setRun(runs, 0, 3 * block - 1, huge);
  clearRuns(runs, block + PAGE, block + 2 * PAGE - 1);
  const [left, right] = [...runs.values()] as [PteRun, PteRun];
  assert.equal(hugePart(left, 0, 4 * block), { start: 0, last: block - 1 });
  assert.equal(hugePart(right, 0, 4 * block), { start: 2 * block, last: 3 * block - 1 });
  assert.is(hugePart(left, block, block + PAGE - 1), undefined);
  setRun(runs, block + PAGE, block + 2 * PAGE - 1, huge);
  assert.is(runs.size, 3, 'what is put into a cut block does not make it whole');
});

test('the top of the address space', () => {
  const runs = OrderedMap.numeric<U64, PteRun>();
  const top = 0xffff_ffff_ffff_f000n;
  setRun(runs, top, 0xffff_ffff_ffff_ffffn, pte(1));
  assert.is(pieces(runs, top, 0xffff_ffff_ffff_ffffn).length, 1);
  clearRuns(runs, 0, 0xffff_ffff_ffff_ffffn);
  assert.is(runs.size, 0);
});
