import { fc } from './property.js';
import * as assert from 'uvu/assert';
import { hashCanonical } from './canonical.js';
import { OrderedMap } from './ordered-map.js';
import { suite } from './testing.js';
import { compareU64, fromBig, type U64 } from './u64.js';

const test = suite('ordered-map');

/** Few enough keys to collide often, some of them around the change from number to bigint. */
const key = fc.oneof(
  fc.nat(200),
  fc.integer({ min: -100, max: 100 }).map((delta): U64 => fromBig((1n << 53n) + BigInt(delta))),
  fc.nat(50).map((delta): U64 => fromBig((1n << 64n) - 1n - BigInt(delta))),
);

type Edit =
  | { op: 'set' | 'delete' | 'insert' | 'deleteIf'; key: U64 }
  | { op: 'deleteRange'; key: U64; to: U64 }
  | { op: 'snapshot' };

const edit: fc.Arbitrary<Edit> = fc.oneof(
  { weight: 20, arbitrary: key.map((k): Edit => ({ op: 'set', key: k })) },
  { weight: 8, arbitrary: key.map((k): Edit => ({ op: 'delete', key: k })) },
  { weight: 8, arbitrary: key.map((k): Edit => ({ op: 'insert', key: k })) },
  { weight: 8, arbitrary: key.map((k): Edit => ({ op: 'deleteIf', key: k })) },
  {
    weight: 1,
    arbitrary: fc.tuple(key, key).map(([a, b]): Edit => {
      return { op: 'deleteRange', key: a < b ? a : b, to: a < b ? b : a };
    }),
  },
  { weight: 2, arbitrary: fc.constant<Edit>({ op: 'snapshot' }) },
);

function isOdd(value: number): boolean {
  return value % 2 === 1;
}

/** The model: pairs in a plain array, sorted when asked. */
class Model {
  readonly pairs = new Map<U64, number>();

  sorted(): [U64, number][] {
    return [...this.pairs].toSorted(([a], [b]) => compareU64(a, b));
  }

  apply(change: Edit, value: number): void {
    if (change.op === 'set') this.pairs.set(change.key, value);
    if (change.op === 'insert' && !this.pairs.has(change.key)) this.pairs.set(change.key, value);
    if (change.op === 'delete') this.pairs.delete(change.key);
    if (change.op === 'deleteIf' && isOdd(this.pairs.get(change.key) ?? 0)) this.pairs.delete(change.key);
    if (change.op === 'deleteRange')
      for (const k of [...this.pairs.keys()]) if (k >= change.key && k <= change.to) this.pairs.delete(k);
  }
}

function applyTo(map: OrderedMap<U64, number>, change: Edit, value: number): void {
  const before = change.op === 'snapshot' ? undefined : map.get(change.key);
  if (change.op === 'set') map.set(change.key, value);
  if (change.op === 'insert') assert.is(map.insert(change.key, value), before === undefined);
  if (change.op === 'delete') map.delete(change.key);
  if (change.op === 'deleteIf') assert.is(map.deleteIf(change.key, isOdd), before !== undefined && isOdd(before));
  if (change.op === 'deleteRange') map.deleteRange(change.key, change.to);
}

function fromPairs(pairs: readonly (readonly [U64, number])[]): OrderedMap<U64, number> {
  const map = OrderedMap.numeric<U64, number>();
  for (const [k, value] of pairs) map.set(k, value);
  return map;
}

test('a snapshot never changes, whatever is edited after it', () => {
  fc.assert(
    fc.property(fc.array(edit, { minLength: 50, maxLength: 400, size: 'max' }), (edits) => {
      const model = new Model();
      let map = OrderedMap.numeric<U64, number>();
      const snapshots: [OrderedMap<U64, number>, [U64, number][]][] = [];
      edits.forEach((change, i) => {
        if (change.op === 'snapshot') {
          snapshots.push([map.freeze(), model.sorted()]);
          const next = map.edit();
          assert.is.not(next, map);
          assert.not(next.isFrozen);
          map = next;
        }
        applyTo(map, change, i);
        model.apply(change, i);
      });
      snapshots.push([map.freeze(), model.sorted()]);
      for (const [snapshot, pairs] of snapshots) {
        assert.is(snapshot.size, pairs.length);
        assert.equal([...snapshot], pairs);
      }
    }),
    { numRuns: 100 },
  );
});

test('two branches of one snapshot do not see each other', () => {
  fc.assert(
    fc.property(fc.array(edit), fc.array(edit), fc.array(edit), (trunk, left, right) => {
      const start = OrderedMap.numeric<U64, number>();
      for (const change of trunk) applyTo(start, change, 0);
      start.freeze();
      const models = [left, right].map((edits) => {
        const model = new Model();
        for (const [k, value] of start) model.pairs.set(k, value);
        return edits.reduce((m, change, i) => (m.apply(change, i), m), model);
      });
      const [a, b] = [start.edit(), start.edit()];
      const longest = Math.max(left.length, right.length);
      for (let i = 0; i < longest; i++) {
        if (left[i]) applyTo(a, left[i] as Edit, i);
        if (right[i]) applyTo(b, right[i] as Edit, i);
      }
      assert.equal([...a], models[0]?.sorted());
      assert.equal([...b], models[1]?.sorted());
    }),
    { numRuns: 100 },
  );
});

test('queries agree with a sorted array', () => {
  fc.assert(
    fc.property(fc.uniqueArray(key, { maxLength: 120 }), key, key, (keys, probe, other) => {
      const pairs = keys.map((k, i): [U64, number] => [k, i]);
      const map = fromPairs(pairs).freeze();
      const sorted = pairs.toSorted(([a], [b]) => compareU64(a, b));
      assert.is(map.get(probe), sorted.find(([k]) => k === probe)?.[1]);
      assert.is(map.has(probe), keys.includes(probe));
      assert.is(map.floor(probe), sorted.findLast(([k]) => k <= probe)?.[1]);
      assert.is(map.lower(probe), sorted.findLast(([k]) => k < probe)?.[1]);
      assert.is(map.ceiling(probe), sorted.find(([k]) => k >= probe)?.[1]);
      assert.is(map.higher(probe), sorted.find(([k]) => k > probe)?.[1]);
      assert.is(map.firstKey(), sorted[0]?.[0]);
      assert.is(map.lastKey(), sorted.at(-1)?.[0]);
      assert.is(map.first(), sorted[0]?.[1]);
      assert.is(map.last(), sorted.at(-1)?.[1]);
      const passed: number[] = [];
      const enough = (value: number): boolean => passed.push(value) > 50;
      assert.is(map.some(enough), sorted.length > 50);
      assert.equal(
        passed,
        sorted.slice(0, 51).map(([, value]) => value),
      );
      assert.equal(
        [...map.keys()],
        sorted.map(([k]) => k),
      );
      assert.equal(
        [...map.values()],
        sorted.map(([, value]) => value),
      );
      assert.equal(map.toJSON(), sorted);
      const [low, high] = probe < other ? [probe, other] : [other, probe];
      const inside = sorted.filter(([k]) => k >= low && k <= high);
      const visited: [U64, number][] = [];
      map.forRange(low, high, (value, k) => {
        visited.push([k, value]);
        return undefined;
      });
      assert.equal(visited, inside);
      const edited = map.edit();
      assert.is(edited.deleteRange(low, high), inside.length);
      assert.is(edited.size, sorted.length - inside.length);
      edited.clear();
      assert.equal([...edited], []);
      assert.equal([...map], sorted);
    }),
    { numRuns: 300 },
  );
});

test('equal content has an equal hash, whatever the way to it', () => {
  fc.assert(
    fc.property(fc.uniqueArray(key, { minLength: 2, maxLength: 150, size: 'max' }), fc.func(fc.nat()), (keys, rank) => {
      const pairs = keys.map((k): [U64, number] => [k, Number(BigInt(k) % 7n)]);
      const shuffled = pairs.toSorted(([a], [b]) => rank(a) - rank(b));
      const direct = fromPairs(pairs);
      // The long way: a snapshot in between, keys that come and go, values that change.
      const detour = fromPairs(shuffled.slice(0, keys.length >> 1))
        .freeze()
        .edit();
      for (let extra = 1000; extra < 1100; extra++) detour.set(extra, extra);
      for (const [k] of shuffled) detour.set(k, -1);
      for (const [k, value] of shuffled.toReversed()) detour.set(k, value);
      detour.deleteRange(1000, 1099);
      assert.is(hashCanonical(detour), hashCanonical(direct));
      const [first] = pairs as [[U64, number]];
      assert.is.not(hashCanonical(detour.set(first[0], 99)), hashCanonical(direct));
    }),
    { numRuns: 100 },
  );
});

test('a large map keeps its snapshots through many levels of nodes', () => {
  const map = OrderedMap.numeric<U64, number>();
  for (let i = 0; i < 50_000; i++) map.set(i, i);
  const before = hashCanonical(map.freeze());
  const edited = map.edit();
  assert.is(edited.deleteRange(100, 49_899), 49_800);
  for (let i = 0; i < 50_000; i += 3) edited.set(i, -i);
  assert.is(hashCanonical(map), before);
  assert.is(map.size, 50_000);
  assert.is(edited.get(3), -3);
  assert.is(map.get(3), 3);
});

test('forRange stops when the visitor says so', () => {
  const seen: U64[] = [];
  fromPairs([1, 2, 3, 4].map((k) => [k, k])).forRange(2, 4, (_value, k) => {
    seen.push(k);
    return k !== 3;
  });
  assert.equal(seen, [2, 3]);
});

test('a frozen map refuses every write, an open one is its own edit', () => {
  const map = fromPairs([[1, 1]]);
  assert.is(map.edit(), map);
  assert.is(map.freeze(), map);
  assert.ok(map.isFrozen);
  assert.throws(() => map.set(1, 2), /frozen/);
  assert.throws(() => map.delete(1), /frozen/);
  assert.throws(() => map.deleteRange(0, 9), /frozen/);
  assert.throws(() => map.insert(0, 9), /frozen/);
  assert.throws(() => map.clear(), /frozen/);
  assert.throws(() => map.deleteIf(0, isOdd), /frozen/);
  assert.is(map.get(1), 1);
});

test('text keys are ordered by code unit, not by locale', () => {
  const map = OrderedMap.textual<string, number>();
  for (const k of ['b', 'a', 'Z', 'ä', '10', '9', '']) map.set(k, 0);
  assert.equal([...map.keys()], ['', '10', '9', 'Z', 'a', 'b', 'ä']);
});

test('delete tells whether the key was there', () => {
  const map = fromPairs([[5, 5]]);
  assert.not(map.delete(4));
  assert.ok(map.delete(5));
  assert.not(map.delete(5));
  assert.is(map.first(), undefined);
  assert.is(map.last(), undefined);
});
