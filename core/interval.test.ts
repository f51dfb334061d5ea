import { fc } from './property.js';
import * as assert from 'uvu/assert';
import {
  carve,
  contains,
  firstGap,
  firstOverlap,
  type Interval,
  overlapping,
  overlaps,
  rangeAt,
  trimmed,
  unite,
} from './interval.js';
import { OrderedMap } from './ordered-map.js';
import { suite } from './testing.js';
import { add, fromBig, sub, type U64 } from './u64.js';

const test = suite('interval');

/** Model and map hold a window of this many addresses, which begins at each of BASES in turn. */
const WINDOW = 48;
const BASES: readonly U64[] = [0, 2 ** 32 - 20, 2 ** 53 - 24, fromBig((1n << 63n) - 24n), fromBig(-48n)];

/** Stands for a mapped file range: `offset` belongs to `start`, so a cut at the front must move it. */
interface Piece extends Interval {
  readonly id: number;
  readonly offset: number;
}

/** The naive model: what stands at each address, one by one. */
type Cell = { readonly id: number; readonly offset: number } | undefined;

function trim(piece: Piece, start: U64, last: U64): Piece {
  return { id: piece.id, start, last, offset: piece.offset + Number(sub(start, piece.start)) };
}

class Pair {
  readonly map = OrderedMap.numeric<U64, Piece>();
  readonly cells: Cell[] = Array.from({ length: WINDOW }, () => undefined);
  readonly base: U64;
  #nextId = 1;

  constructor(base: U64) {
    this.base = base;
  }

  address(index: number): U64 {
    return add(this.base, index);
  }

  /** The pieces that touch `from..to`, by walking the addresses. */
  touched(from: number, to: number): string[] {
    const found: string[] = [];
    for (let i = 0; i < WINDOW; ) {
      const first = this.cells[i];
      let last = i;
      while (first !== undefined && this.cells[last + 1]?.id === first.id && this.#joins(last)) last++;
      if (first !== undefined && i <= to && last >= from) found.push(this.text(first.id, i, last, first.offset));
      i = last + 1;
    }
    return found;
  }

  #joins(index: number): boolean {
    return this.cells[index + 1]?.offset === (this.cells[index]?.offset ?? 0) + 1;
  }

  text(id: number, from: number, to: number, offset: number): string {
    return `${id}: ${this.address(from)}..${this.address(to)} at ${offset}`;
  }

  apply(from: number, to: number, fill: boolean): void {
    const before = this.touched(from, to);
    const cut = carve(this.map, this.address(from), this.address(to), trim);
    assert.equal(cut.map(print), before, 'carve gives the ranges as they were');
    this.cells.fill(undefined, from, to + 1);
    if (!fill) return;
    const id = this.#nextId++;
    this.map.set(this.address(from), { id, start: this.address(from), last: this.address(to), offset: 100 * id });
    for (let i = from; i <= to; i++) this.cells[i] = { id, offset: 100 * id + i - from };
  }

  checkQuery(from: number, to: number): void {
    const [start, last] = [this.address(from), this.address(to)];
    const expected = this.touched(from, to);
    assert.equal(overlapping(this.map, start, last).map(print), expected);
    const first = firstOverlap(this.map, start, last);
    assert.is(first && print(first), expected[0]);
    const gap = this.cells.findIndex((cell, i) => i >= from && i <= to && cell === undefined);
    assert.is(firstGap(this.map, start, last), gap < 0 ? undefined : this.address(gap));
    const here = rangeAt(this.map, start);
    assert.is(here?.id, this.cells[from]?.id);
  }
}

function print(piece: Piece): string {
  return `${piece.id}: ${piece.start}..${piece.last} at ${piece.offset}`;
}

const span = fc
  .tuple(fc.nat(WINDOW - 1), fc.nat(WINDOW - 1))
  .map(([a, b]): [number, number] => [Math.min(a, b), Math.max(a, b)]);

for (const base of BASES) {
  test(`carving and queries agree with a table of single addresses, from ${base}`, () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(span, fc.boolean()), { maxLength: 25 }), fc.array(span), (edits, queries) => {
        const pair = new Pair(base);
        for (const [[from, to], fill] of edits) pair.apply(from, to, fill);
        for (const [from, to] of queries) pair.checkQuery(from, to);
        pair.checkQuery(0, WINDOW - 1);
        for (let i = 0; i < WINDOW; i++) pair.checkQuery(i, i);
      }),
      { numRuns: 150 },
    );
  });
}

test('overlap and containment of closed intervals', () => {
  const range = { start: 10, last: 19 };
  const rows: [start: U64, last: U64, overlap: boolean, inside: boolean][] = [
    [0, 9, false, false],
    [0, 10, true, false],
    [10, 10, true, true],
    [10, 19, true, true],
    [12, 15, true, true],
    [19, 20, true, false],
    [20, 30, false, false],
    [0, 2n ** 64n - 1n, true, false],
  ];
  for (const [start, last, overlap, inside] of rows) {
    assert.is(overlaps(range, start, last), overlap, `${start}..${last}`);
    assert.is(contains(range, start, last), inside, `${start}..${last}`);
  }
});

test('a range over the whole space can be cut in the middle and at both ends', () => {
  const top = 2n ** 64n - 1n;
  const map = OrderedMap.numeric<U64, Piece>();
  map.set(0, { id: 1, start: 0, last: top, offset: 0 });
  assert.is(firstGap(map, 0, top), undefined);
  carve(map, 0, 0, trim);
  carve(map, top, top, trim);
  carve(map, 100, 199, trim);
  assert.equal([...map.values()].map(print), ['1: 1..99 at 1', `1: 200..${top - 1n} at 200`]);
  assert.is(firstGap(map, 0, top), 0);
  assert.is(firstGap(map, 200, top), top);
  assert.is(firstOverlap(map, top, top), undefined);
});

test('queries cost by the ranges they touch, not by those that exist', () => {
  const map = OrderedMap.numeric<U64, Piece>();
  for (let i = 0; i < 100_000; i++) map.set(i * 2, { id: i, start: i * 2, last: i * 2, offset: 0 });
  let seen = 0;
  const counting = (piece: Piece, start: U64, last: U64): Piece => {
    seen++;
    return trim(piece, start, last);
  };
  assert.is(overlapping(map, 5000, 5008).length, 5);
  assert.is(carve(map, 5001, 5003, counting).length, 1);
  assert.is(seen, 0, 'a range that lies inside is not trimmed');
  assert.is(map.size, 99_999);
});

test('a set of addresses joins what touches, and cuts leave the rest as it is', () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.boolean(), fc.nat(40), fc.nat(7)), { maxLength: 40 }), (edits) => {
      const set = OrderedMap.numeric<U64, Interval>();
      const held = new Set<number>();
      for (const [adds, start, more] of edits) {
        if (adds) unite(set, start, start + more);
        else carve(set, start, start + more, trimmed);
        for (let at = start; at <= start + more; at++) {
          if (adds) held.add(at);
          else held.delete(at);
        }
      }
      const runs: Interval[] = [];
      for (const at of [...held].sort((a, b) => a - b)) {
        const before = runs.at(-1);
        if (before?.last === at - 1) runs.splice(-1, 1, { start: before.start, last: at });
        else runs.push({ start: at, last: at });
      }
      assert.equal([...set.values()], runs);
      for (const range of set.values()) assert.ok(Object.isFrozen(range));
    }),
  );
});
