import { type Draft, produce } from 'immer';
import type { Key, OrderedMap } from '../core/ordered-map.js';
import { WORLD_TABLES, type World } from './world.js';

type TableFields<R> = { [F in keyof R]: R[F] extends OrderedMap<infer _K, infer _V> ? F : never }[keyof R];

/**
 * One private draft over a batch of events.
 *
 * `tx.world` has the same tables as the snapshot it began from, open for writing; the snapshot itself is
 * never touched. Inside, the first write to a nested table clones it once per batch ({@link openTable}),
 * later writes happen in place, so a batch of 4,096 map operations costs one clone and not 4,096.
 * {@link commit} freezes all of it into the next snapshot and the draft must not be used after.
 */
export class Tx {
  readonly world: World;
  #opened: OrderedMap<Key, unknown>[] = [];
  #records: object[] = [];
  /** Counters that moved in this transaction; ids are given out on hot paths, so they reach the table at the end. */
  readonly #counters = new Map<string, number>();
  /** Files that memory was mapped by until now. */
  readonly #letGo: number[] = [];
  #letGoBefore = 0;

  constructor(from: World) {
    this.world = {} as World;
    this.#openAll(from);
  }

  #openAll(from: World): void {
    const draft = this.world as unknown as Record<string, unknown>;
    for (const name of WORLD_TABLES) draft[name] = from[name].edit();
  }

  /** The next id of a kind of object, from 1; part of the state, so that replays agree. */
  nextId(kind: string): number {
    const id = this.lastId(kind) + 1;
    this.#counters.set(kind, id);
    return id;
  }

  /** The id of a kind that was given out last, 0 when none was. The table of counters does not know it yet. */
  lastId(kind: string): number {
    return this.#counters.get(kind) ?? this.world.counters.get(kind) ?? 0;
  }

  /**
   * Changes one record by an immer recipe. The recipe must not touch nested tables except by
   * assigning a whole table; those are opened by {@link openTable}. No-op when there is no such record.
   */
  update<K extends Key, R extends object>(table: OrderedMap<K, R>, key: K, recipe: (draft: Draft<R>) => void): void {
    const record = table.get(key);
    if (record !== undefined) table.set(key, produce(record, recipe));
  }

  /**
   * A nested table, open for writing. The first time in a batch it is cloned in O(1) and stored back into its
   * record; afterwards it is the same object until {@link commit}.
   */
  openTable<K extends Key, R extends object, F extends TableFields<R>>(
    table: OrderedMap<K, R>,
    key: K,
    field: F,
  ): R[F] {
    const record = table.get(key);
    if (record === undefined) throw new Error(`openTable: no record ${String(key)}`);
    const nested = record[field] as unknown as OrderedMap<Key, unknown>;
    if (!nested.isFrozen) return record[field];
    const open = this.adopt(nested.edit());
    table.set(key, Object.freeze({ ...record, [field]: open }));
    return open as unknown as R[F];
  }

  /** Registers a new open table that a record now holds, so that {@link commit} freezes it. */
  adopt<K extends Key, V>(table: OrderedMap<K, V>): OrderedMap<K, V> {
    this.#opened.push(table as unknown as OrderedMap<Key, unknown>);
    return table;
  }

  /**
   * A copy of a record, open for writing until {@link commit}: for the few that nearly every event changes. Its holder
   * puts it into its table.
   */
  openRecord<R extends object>(record: R): { -readonly [F in keyof R]: R[F] } {
    const open = { ...record };
    this.#records.push(open);
    return open;
  }

  /** The reference of some mapped memory to its file ends with the event. */
  letGo(file: number): void {
    this.#letGo.push(file);
  }

  /** One of the files that were let go of. */
  takeLetGo(): number | undefined {
    return this.#letGo.pop();
  }

  /**
   * A snapshot in the middle, which {@link rollBack} goes back to. Tables that were taken out of `world` before are
   * frozen by it. Costs what a commit costs.
   */
  savepoint(): World {
    const before = this.commit();
    this.#letGoBefore = this.#letGo.length;
    this.#opened = [];
    this.#records = [];
    this.#counters.clear();
    this.#openAll(before);
    return before;
  }

  /** Drops all changes since a savepoint of this transaction. */
  rollBack(to: World): void {
    this.#letGo.length = this.#letGoBefore;
    this.#opened = [];
    this.#records = [];
    this.#counters.clear();
    this.#openAll(to);
  }

  /** Freezes the draft into the next snapshot. */
  commit(): World {
    for (const [kind, id] of this.#counters) this.world.counters.set(kind, id);
    for (const table of this.#opened) table.freeze();
    for (const record of this.#records) Object.freeze(record);
    for (const name of WORLD_TABLES) this.world[name].freeze();
    return Object.freeze({ ...this.world });
  }
}
