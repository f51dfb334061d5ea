import { fc } from '../../core/property.js';
import * as assert from 'uvu/assert';
import { suite } from '../../core/testing.js';
import { add, type U64, U64_MAX } from '../../core/u64.js';
import { type GapNode, type GapTree, gapsAround, giveGap, lowestGap, takeGap } from './gaps.js';

const test = suite('iommufd gaps');

function listOf(node: GapNode | null): [U64, U64][] {
  return node === null ? [] : [...listOf(node.left), [node.start, node.last], ...listOf(node.right)];
}

test('the gaps around areas at both ends of the space', () => {
  assert.equal(listOf(gapsAround([]).root), [[0, U64_MAX]]);
  const tree = gapsAround([
    { start: 0, last: 9 },
    { start: 20, last: U64_MAX },
  ]);
  assert.equal(listOf(tree.root), [[10, 19]]);
  assert.equal(listOf(gapsAround([{ start: 0, last: U64_MAX }]).root), []);
});

test('a used range gives its gap back joined with both neighbours', () => {
  const used = takeGap(gapsAround([]), 4096, 8191);
  assert.equal(listOf(used.root), [
    [0, 4095],
    [8192, U64_MAX],
  ]);
  assert.equal(listOf(giveGap(used, 4096, 8191).root), [[0, U64_MAX]]);
  assert.throws(() => takeGap(used, 4000, 5000));
});

test('any history of taking and giving equals a map of used units, and the shape depends on the gaps alone', () => {
  const units = 64;
  const step = fc.record({ at: fc.nat(units - 1), size: fc.integer({ min: 1, max: 6 }), from: fc.nat(units - 1) });
  const property = fc.property(fc.array(step, { maxLength: 80 }), (steps) => {
    const used = new Array<boolean>(units).fill(false);
    let tree: GapTree = gapsAround([{ start: units, last: U64_MAX }]);
    for (const { at, size, from } of steps) {
      const end = Math.min(at + size, units);
      const range = used.slice(at, end);
      if (range.every((unit) => !unit)) {
        tree = takeGap(tree, at, end - 1);
        used.fill(true, at, end);
      } else if (range.every((unit) => unit)) {
        tree = giveGap(tree, at, end - 1);
        used.fill(false, at, end);
      }
      const naive = naiveGaps(used);
      assert.equal(listOf(tree.root), naive);
      const wanted = naive.find(([start, last]) => last >= from && last - start >= size);
      const found = lowestGap(tree, from, size);
      assert.equal(found === undefined ? undefined : [found.start, found.last], wanted);
    }
    const rebuilt = gapsAround(usedRuns(used, units));
    assert.equal(rebuilt, tree);
  });
  fc.assert(property, { numRuns: 300 });
});

function naiveGaps(used: readonly boolean[]): [number, number][] {
  const gaps: [number, number][] = [];
  used.forEach((taken, at) => {
    const last = gaps[gaps.length - 1];
    if (taken) return;
    if (last !== undefined && last[1] === at - 1) last[1] = at;
    else gaps.push([at, at]);
  });
  return gaps;
}

function usedRuns(used: readonly boolean[], units: number): { start: U64; last: U64 }[] {
  const runs: { start: U64; last: U64 }[] = [];
  used.forEach((taken, at) => {
    const last = runs[runs.length - 1];
    if (!taken) return;
    if (last !== undefined && last.last === at - 1) last.last = at;
    else runs.push({ start: at, last: at });
  });
  const tail = runs[runs.length - 1];
  if (tail !== undefined && tail.last === units - 1) tail.last = U64_MAX;
  else runs.push({ start: units, last: U64_MAX });
  return runs;
}

test('100,000 gaps are searched and changed without a walk over them', () => {
  let tree = gapsAround(Array.from({ length: 100_000 }, (_, i) => ({ start: i * 8192, last: i * 8192 + 4095 })));
  const before = process.hrtime.bigint();
  for (let i = 0; i < 2000; i++) {
    assert.is(lowestGap(tree, 0, 8191)?.start, 99_999 * 8192 + 4096);
    tree = giveGap(tree, (50_000 + i * 4) * 8192, (50_000 + i * 4) * 8192 + 4095);
    assert.is(lowestGap(tree, 0, 8191)?.start, (50_000 + i * 4) * 8192 - 4096);
    tree = takeGap(tree, (50_000 + i * 4) * 8192, add((50_000 + i * 4) * 8192, 4095));
  }
  const perRound = Number(process.hrtime.bigint() - before) / 2000;
  assert.ok(perRound < 1_000_000, `${perRound} ns for two searches and two changes`);
});
