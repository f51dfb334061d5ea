import SortedBTree from 'sorted-btree';
import { compareU64, type U64 } from './u64.js';

// The package is CommonJS, so its default import is the module object under nodenext
// (https://github.com/qwertie/btree-typescript/issues/36).
type Tree<K, V> = InstanceType<typeof SortedBTree.default<K, V>>;
const BTree = SortedBTree.default;

/** What a search gives is put here, so that it allocates nothing. */
const found: [never, never] = [undefined as never, undefined as never];
const FOUND = Object.freeze({ break: true });
const DELETE = Object.freeze({ delete: true });

/** What may be a key: compared by value, ordered without locale. */
export type Key = U64 | string;

function compareKeys(a: Key, b: Key): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/**
 * The persistent ordered map that holds every large table of the state: VMAs, IOVA areas, fds, objects.
 *
 * A map is either open (its owner, one transaction, edits it in place) or frozen (part of a snapshot;
 * writing to it is our own bug and throws). {@link edit} gives an open map that shares all nodes with
 * this one in O(1); the first write along each path copies the nodes of that path only. Order depends
 * on the keys alone, never on the history of insertions.
 *
 * Keys are `U64` or strings; one map holds one kind of key.
 */
export class OrderedMap<K extends Key, V> {
  #tree: Tree<K, V>;
  #frozen = false;

  private constructor(tree: Tree<K, V>) {
    this.#tree = tree;
  }

  /** An empty, open map with `U64` keys. */
  static numeric<K extends U64, V>(): OrderedMap<K, V> {
    return new OrderedMap<K, V>(new BTree<K, V>(undefined, compareU64));
  }

  /** An empty, open map with string keys. */
  static textual<K extends string, V>(): OrderedMap<K, V> {
    return new OrderedMap<K, V>(new BTree<K, V>(undefined, compareKeys));
  }

  get size(): number {
    return this.#tree.size;
  }

  get isFrozen(): boolean {
    return this.#frozen;
  }

  /**
   * What this map shares with its copies until one of them is written to. Two frozen maps with one root hold the same entries.
   */
  get root(): object {
    return Reflect.get(this.#tree, '_root') as object; // not part of the package's types
  }

  /** Ends the editing of this map for good; {@link edit} opens a copy. */
  freeze(): this {
    this.#frozen = true;
    return this;
  }

  /** This map where it is open, else an open copy that shares its nodes, in O(1). */
  edit(): OrderedMap<K, V> {
    return this.#frozen ? new OrderedMap<K, V>(this.#tree.clone()) : this;
  }

  get(key: K): V | undefined {
    return this.#tree.get(key);
  }

  has(key: K): boolean {
    return this.#tree.has(key);
  }

  set(key: K, value: V): this {
    if (this.#frozen) throw new Error('OrderedMap: write to a frozen snapshot');
    this.#tree.set(key, value);
    return this;
  }

  /** Enters what has a new key, in one search. False where the key is there: nothing changes then. */
  insert(key: K, value: V): boolean {
    if (this.#frozen) throw new Error('OrderedMap: write to a frozen snapshot');
    return this.#tree.set(key, value, false);
  }

  /** Whether the key was there. */
  delete(key: K): boolean {
    if (this.#frozen) throw new Error('OrderedMap: write to a frozen snapshot');
    return this.#tree.delete(key);
  }

  /** Removes what is at a key if `isWanted` says so of it, in one search; whether it did. */
  deleteIf(key: K, isWanted: (value: V) => boolean): boolean {
    if (this.#frozen) throw new Error('OrderedMap: write to a frozen snapshot');
    let deleted = false;
    this.#tree.editRange(key, key, true, (_key, value) => {
      deleted = isWanted(value);
      return deleted ? DELETE : undefined;
    });
    return deleted;
  }

  /** The value at the greatest key that is at most `key`. */
  floor(key: K): V | undefined {
    return this.#tree.getPairOrNextLower(key, found)?.[1];
  }

  /** The value at the greatest key below `key`. */
  lower(key: K): V | undefined {
    return this.#tree.nextLowerPair(key, found)?.[1];
  }

  /** The value at the least key that is at least `key`. */
  ceiling(key: K): V | undefined {
    return this.#tree.getPairOrNextHigher(key, found)?.[1];
  }

  /** The value at the least key above `key`. */
  higher(key: K): V | undefined {
    return this.#tree.nextHigherPair(key, found)?.[1];
  }

  firstKey(): K | undefined {
    return this.#tree.minKey();
  }

  lastKey(): K | undefined {
    return this.#tree.maxKey();
  }

  first(): V | undefined {
    const key = this.#tree.minKey();
    return key === undefined ? undefined : this.#tree.get(key);
  }

  last(): V | undefined {
    const key = this.#tree.maxKey();
    return key === undefined ? undefined : this.#tree.get(key);
  }

  /**
   * Calls `visit` for the keys `low..high` (both included) in order, until it returns false.
   * The map must not be written to meanwhile.
   */
  forRange(low: K, high: K, visit: (value: V, key: K) => boolean | undefined): void {
    this.#tree.forRange(low, high, true, (key, value) => (visit(value, key) === false ? { break: true } : undefined));
  }

  /** Whether a value is as asked. Allocates less than a walk over {@link values}. */
  some(isWanted: (value: V) => boolean): boolean {
    return this.#tree.forEachPair((_key, value) => (isWanted(value) ? FOUND : undefined)) === true;
  }

  /** Removes the keys `low..high` (both included); how many went. */
  deleteRange(low: K, high: K): number {
    if (this.#frozen) throw new Error('OrderedMap: write to a frozen snapshot');
    return this.#tree.deleteRange(low, high, true);
  }

  /** Removes everything. */
  clear(): void {
    if (this.#frozen) throw new Error('OrderedMap: write to a frozen snapshot');
    this.#tree.clear();
  }

  keys(): IterableIterator<K> {
    return this.#tree.keys();
  }

  values(): IterableIterator<V> {
    return this.#tree.values();
  }

  entries(): IterableIterator<[K, V]> {
    return this.#tree.entries();
  }

  [Symbol.iterator](): IterableIterator<[K, V]> {
    return this.#tree.entries();
  }

  /** For `console.log` and user expressions: an array of pairs. */
  toJSON(): [K, V][] {
    return this.#tree.toArray();
  }
}
