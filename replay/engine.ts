import type { Event, EventBatch, EventKind } from '../core/event.js';
import type { Finding, Invariant } from '../core/invariant.js';
import type { Call, Verdict } from '../reducers/call.js';
import { explain, type Explanation } from '../reducers/compare.js';
import { Reducer } from '../reducers/dispatch.js';
import type { Families } from '../reducers/family.js';
import { families } from '../reducers/families.js';
import { Tx } from '../reducers/tx.js';
import { emptyWorld, type World } from '../reducers/world.js';
import { type Bug, Containment } from './containment.js';
import { Failures } from './failures.js';
import { Tally } from './tally.js';
import { Unknowns } from './unknowns.js';

/**
 * The fold: events in, snapshots, verdicts and findings out.
 *
 * One transaction stays open until somebody looks: a caller that asks for {@link Engine.world}, or a checker that
 * wants a single event, which then gets true snapshots of before and after. A snapshot is cheap, and what
 * it costs comes later, when each node of each table is copied before its next change: a check without
 * checkpoints never pays that. The result does not depend on where the events were cut.
 */

/** A recorded answer that the model contradicts. */
export interface Divergence extends Explanation {
  readonly seq: number;
  readonly file: number;
  readonly line: number;
  readonly call: string;
  readonly event: Event;
}

export interface EngineOptions {
  readonly invariants?: readonly Invariant<World>[];
  /** What reduces the calls on files of each kind, by default all that has a model. */
  readonly families?: Families;
  /** Where to begin; the empty world by default. */
  readonly world?: World;
  /** Sees each call of a modelled interface right after its verdict; the call is reused afterwards. */
  readonly onCall?: (verdict: Verdict, call: Call) => void;
  /** Sees each read and write on a file of VFIO that is no counted call, and was predicted all the same. */
  readonly onIo?: (call: Call) => void;
}

/** Findings and divergences beyond this number are counted and not kept: a hostile tape must not fill the memory. */
export const KEPT_MAX = 10_000;

/** Successes of UNMAP that unmap nothing, or more than was asked. */
const IDLE_RULES: ReadonlySet<string> = new Set([
  'unmap-dma.nothing',
  'unmap-dma.inside',
  'unmap-dma.more',
  'compat-unmap.nothing',
]);

const NONE: readonly Invariant<World>[] = [];

export class Engine {
  readonly tally: Tally = new Tally();
  readonly failures: Failures = new Failures();
  /** Calls that succeeded and did something else than their caller may think. */
  readonly idle: Failures = new Failures();
  readonly unknowns: Unknowns = new Unknowns();
  readonly divergences: Divergence[] = [];
  readonly findings: Finding[] = [];
  divergenceCount = 0;
  findingCount = 0;
  eventCount = 0;
  /** Changes of the mirrors of drivers, which no verdict counts. */
  mirrorChangeCount = 0;

  #world: World;
  /** Open while there are events that {@link Engine.world} does not hold yet. */
  #tx: Tx | undefined;
  readonly #containment = new Containment();
  readonly #reducer: Reducer;
  readonly #watchers = new Map<EventKind, Invariant<World>[]>();
  readonly #onCall: EngineOptions['onCall'];
  readonly #onIo: EngineOptions['onIo'];

  constructor(options: EngineOptions = {}) {
    this.#world = options.world ?? emptyWorld();
    this.#reducer = new Reducer(this.#containment.around(options.families ?? families));
    this.#onCall = options.onCall;
    this.#onIo = options.onIo;
    for (const invariant of options.invariants ?? []) {
      for (const kind of invariant.kinds) {
        const list = this.#watchers.get(kind) ?? [];
        list.push(invariant);
        this.#watchers.set(kind, list);
      }
    }
  }

  /** The snapshot after the last event. */
  get world(): World {
    if (this.#tx !== undefined) {
      this.#world = this.#tx.commit();
      this.#tx = undefined;
    }
    return this.#world;
  }

  /** Reduces a run of events. */
  feed(batch: EventBatch): void {
    let tx = this.#tx ?? new Tx(this.#world);
    for (const event of batch) {
      const watchers = this.#watchers.get(event.kind);
      const concerned = watchers === undefined ? NONE : this.#concerned(watchers, tx.world, event);
      if (concerned.length === 0) {
        this.#reduce(tx, event);
        continue;
      }
      const before = tx.commit();
      tx = new Tx(before);
      this.#reduce(tx, event);
      const after = tx.commit();
      tx = new Tx(after);
      for (const invariant of concerned) this.#check(invariant, before, event, after);
    }
    this.#tx = tx;
    this.eventCount += batch.length;
  }

  /**
   * The checkers that have to look at this event: mostly none, and then nothing is allocated. None at all where a part of
   * the model has stopped: what they would find in it is no fault of the recording.
   */
  #concerned(watchers: readonly Invariant<World>[], before: World, event: Event): readonly Invariant<World>[] {
    let found: Invariant<World>[] | undefined;
    if (before.stoppedParts.size > 0) return NONE;
    for (const watcher of watchers) {
      if (watcher.concerns !== undefined && !this.#asks(watcher, before, event)) continue;
      found ??= [];
      found.push(watcher);
    }
    return found ?? NONE;
  }

  #asks(watcher: Invariant<World>, before: World, event: Event): boolean {
    try {
      return watcher.concerns?.(before, event) ?? true;
    } catch (error) {
      this.#drop(watcher, event, error);
      return false;
    }
  }

  #check(watcher: Invariant<World>, before: World, event: Event, after: World): void {
    try {
      if (after.stoppedParts.size === 0) this.#keep(watcher.check(before, event, after));
    } catch (error) {
      this.#drop(watcher, event, error);
    }
  }

  /** A checker that threw is not asked again. */
  #drop(watcher: Invariant<World>, event: Event, error: unknown): void {
    this.#containment.noted(event, error, `invariant ${watcher.name}`);
    for (const [kind, list] of this.#watchers) {
      const others = list.filter((each) => each !== watcher);
      this.#watchers.set(kind, others);
    }
  }

  /** What was our own fault, the first ones; {@link bugCount} counts all. */
  get bugs(): readonly Bug[] {
    return this.#containment.bugs;
  }

  get bugCount(): number {
    return this.#containment.bugCount;
  }

  #reduce(tx: Tx, event: Event): void {
    try {
      this.#judge(tx, event);
    } catch (error) {
      this.#containment.caught(tx, event, error);
    }
  }

  #judge(tx: Tx, event: Event): void {
    if (event.kind === 'mirrorMap' || event.kind === 'mirrorUnmap') this.mirrorChangeCount++;
    const verdict = this.#reducer.reduce(tx, event);
    const call = this.#reducer.call;
    if (verdict === undefined) {
      if (event.kind === 'io' && call.event === event) this.#onIo?.(call);
      return;
    }
    this.tally.add(call.name, verdict);
    if (verdict === 'diverge') this.#diverged(event, call);
    else if (verdict === 'unknown') this.unknowns.add(call);
    else if (call.event.ret === -1) this.failures.add(call, verdict);
    else if (IDLE_RULES.has(call.rule)) this.idle.add(call, verdict);
    this.#onCall?.(verdict, call);
  }

  #diverged(event: Event, call: Call): void {
    this.divergenceCount++;
    if (this.divergences.length >= KEPT_MAX) return;
    const { seq, file, line } = event;
    this.divergences.push({ seq, file, line, call: call.name, event, ...explain(call) });
  }

  #keep(found: readonly Finding[]): void {
    for (const finding of found) {
      this.findingCount++;
      if (this.findings.length < KEPT_MAX) this.findings.push(finding);
    }
  }
}
