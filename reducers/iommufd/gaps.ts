import type { Interval } from '../../core/interval.js';
import { add, high32, low32, sub, type U64, U64_MAX } from '../../core/u64.js';

/**
 * The free ranges of an IOVA space, for the kernel's first-fit choice of an IOVA.
 *
 * The kernel walks its two interval trees from the bottom. A walk over 100,000 live areas per call is what this
 * index avoids: a persistent treap of the gaps between areas, where each node knows the longest gap below
 * it, so that "the lowest gap of at least this length" costs O(log n). Its shape depends on the gaps alone
 * (the priority of a node is a hash of its start), never on the order of insertions.
 * It exists only for an IOAS that was asked to choose an IOVA; reserved ranges are not part of it, they
 * are few and the search cuts them out.
 */
export interface GapTree {
  readonly root: GapNode | null;
}

export interface GapNode extends Interval {
  readonly priority: number;
  /** Greatest `last - start` in this subtree. */
  readonly maxSpan: U64;
  readonly left: GapNode | null;
  readonly right: GapNode | null;
}

function priorityOf(start: U64): number {
  let h = (low32(start) ^ Math.imul(high32(start), 0x9e3779b1)) >>> 0;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

function node(start: U64, last: U64, priority: number, left: GapNode | null, right: GapNode | null): GapNode {
  let maxSpan = sub(last, start);
  if (left !== null && left.maxSpan > maxSpan) maxSpan = left.maxSpan;
  if (right !== null && right.maxSpan > maxSpan) maxSpan = right.maxSpan;
  return Object.freeze({ start, last, priority, maxSpan, left, right });
}

function withChildren(n: GapNode, left: GapNode | null, right: GapNode | null): GapNode {
  return node(n.start, n.last, n.priority, left, right);
}

function above(a: GapNode, b: GapNode): boolean {
  return a.priority > b.priority || (a.priority === b.priority && a.start < b.start);
}

function merge(left: GapNode | null, right: GapNode | null): GapNode | null {
  if (left === null) return right;
  if (right === null) return left;
  return above(left, right)
    ? withChildren(left, left.left, merge(left.right, right))
    : withChildren(right, merge(left, right.left), right.right);
}

/** Nodes below `start`, and the others. */
function split(n: GapNode | null, start: U64): [GapNode | null, GapNode | null] {
  if (n === null) return [null, null];
  if (n.start < start) {
    const [a, b] = split(n.right, start);
    return [withChildren(n, n.left, a), b];
  }
  const [a, b] = split(n.left, start);
  return [a, withChildren(n, b, n.right)];
}

function insert(root: GapNode | null, start: U64, last: U64): GapNode {
  const [a, b] = split(root, start);
  return merge(merge(a, node(start, last, priorityOf(start), null, null)), b) as GapNode;
}

function remove(n: GapNode | null, start: U64): GapNode | null {
  if (n === null) return null;
  if (n.start === start) return merge(n.left, n.right);
  return start < n.start
    ? withChildren(n, remove(n.left, start), n.right)
    : withChildren(n, n.left, remove(n.right, start));
}

/** The gap with the greatest start that is at most `address`. */
function floor(root: GapNode | null, address: U64): GapNode | undefined {
  let best: GapNode | undefined;
  for (let n = root; n !== null; ) {
    if (n.start <= address) {
      best = n;
      n = n.right;
    } else n = n.left;
  }
  return best;
}

function exact(root: GapNode | null, start: U64): GapNode | undefined {
  const found = floor(root, start);
  return found !== undefined && found.start === start ? found : undefined;
}

/** The gaps that disjoint, ordered areas leave in 0..2^64-1. */
export function gapsAround(areas: Iterable<Interval>): GapTree {
  let root: GapNode | null = null;
  let from: U64 | undefined = 0;
  for (const area of areas) {
    if (from !== undefined && area.start > from) root = insert(root, from, sub(area.start, 1));
    from = area.last === U64_MAX ? undefined : add(area.last, 1);
  }
  if (from !== undefined) root = insert(root, from, U64_MAX);
  return Object.freeze({ root });
}

/** `start..last`, which must lie in one gap, is used from now on. */
export function takeGap(tree: GapTree, start: U64, last: U64): GapTree {
  const gap = floor(tree.root, start);
  if (gap === undefined || gap.last < last) throw new Error('takeGap: the range is not free');
  let root = remove(tree.root, gap.start);
  if (gap.start < start) root = insert(root, gap.start, sub(start, 1));
  if (gap.last > last) root = insert(root, add(last, 1), gap.last);
  return Object.freeze({ root });
}

/** `start..last`, which must lie in no gap, is free from now on. */
export function giveGap(tree: GapTree, start: U64, last: U64): GapTree {
  let root = tree.root;
  let from = start;
  let to = last;
  const below = start === 0 ? undefined : floor(root, sub(start, 1));
  if (below !== undefined && add(below.last, 1) === start) {
    from = below.start;
    root = remove(root, below.start);
  }
  const next = last === U64_MAX ? undefined : exact(root, add(last, 1));
  if (next !== undefined) {
    to = next.last;
    root = remove(root, next.start);
  }
  return Object.freeze({ root: insert(root, from, to) });
}

/** The lowest gap that reaches `from` and has `last - start` of at least `minSpan`. */
export function lowestGap(tree: GapTree, from: U64, minSpan: U64): Interval | undefined {
  return search(tree.root, from, minSpan);
}

function search(n: GapNode | null, from: U64, minSpan: U64): GapNode | undefined {
  if (n === null || n.maxSpan < minSpan) return undefined;
  if (n.last >= from) {
    const left = search(n.left, from, minSpan);
    if (left !== undefined) return left;
    if (sub(n.last, n.start) >= minSpan) return n;
  }
  return search(n.right, from, minSpan);
}
