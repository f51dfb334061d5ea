import { hashCanonical } from '../core/canonical.js';
import type { Event } from '../core/event.js';
import { Reducer } from '../reducers/dispatch.js';
import type { Families } from '../reducers/family.js';
import { breaches } from '../reducers/iommufd/consistency.js';
import { Tx } from '../reducers/tx.js';
import type { World } from '../reducers/world.js';
import { failed, leavesChange, type Place, placesOf } from './failure-places.js';

/**
 * The failure sweep, for tests: a recording is replayed again and again, each time with one more place where an allocation
 * can fail failing. Right after it the state must be the one before the call, but for what the kernel itself leaves
 * changed, and the failure a fact of the run. The rest of the recording follows, in which that call had succeeded: whatever it
 * claims, the model must hold together after each of its events.
 */
export class FailureSweep {
  readonly #reducer: Reducer;
  /** Replays and events so far. */
  runs = 0;
  steps = 0;

  constructor(families: Families) {
    this.#reducer = new Reducer(families);
  }

  /** What goes wrong where the places that `wanted` chooses fail; each as a sentence. Nothing is right. */
  *run(events: readonly Event[], start: World, wanted: (place: Place, number: number) => boolean): Generator<string> {
    const chosen = placesOf(events).filter(wanted);
    let world = start;
    let at = 0;
    for (const place of chosen) {
      for (; at < place.index; at++) world = this.#after(world, events[at] as Event).world;
      this.runs++;
      yield* this.#fail(world, events, place);
    }
  }

  *#fail(before: World, events: readonly Event[], { index, errno }: Place): Generator<string> {
    const event = events[index] as Event;
    const armed = armedFor(before, event);
    const failure = this.#after(armed, failed(event, errno));
    const name = event.kind === 'ioctl' ? this.#reducer.call.name : event.kind;
    const what = `line ${event.line}: ${name} fails with ${errno}`;
    if (failure.verdict === 'diverge') yield `${what}: the verdict is diverge`;
    if (event.kind === 'ioctl' && !leavesChange(event, errno))
      for (const table of differing(armed, failure.world)) yield `${what}: ${table} is not as before`;
    for (const breach of breaches(failure.world, armed)) yield `${what}: ${breach}`;
    yield* this.#rest(failure.world, events, index + 1, what);
  }

  *#rest(from: World, events: readonly Event[], index: number, what: string): Generator<string> {
    let world = from;
    let contradicted = false;
    for (const event of events.slice(index)) {
      const { world: after, verdict } = this.#after(world, event);
      contradicted ||= verdict === 'diverge';
      for (const breach of breaches(after, world, contradicted)) yield `${what}: then at line ${event.line}: ${breach}`;
      world = after;
      this.steps++;
    }
  }

  #after(world: World, event: Event): { world: World; verdict: string | undefined } {
    const tx = new Tx(world);
    const verdict = this.#reducer.reduce(tx, event);
    return { world: tx.commit(), verdict };
  }
}

/** The same state, in which the kernel was told to make the thread of a call fail. */
function armedFor(world: World, event: Event): World {
  const tx = new Tx(world);
  tx.world.armedFaults.set(event.tid, 1);
  return tx.commit();
}

/** What a call that failed leaves as it was. Counters are our own, and who is armed is what the failure ends. */
const TABLES = [
  ...(['iommufds', 'ioases', 'sharedPages', 'dmaBufs', 'containers', 'groups', 'devices', 'migrations'] as const),
  ...(['files', 'fdTables', 'spaces', 'facts'] as const),
];

function differing(before: World, after: World): string[] {
  return TABLES.filter(
    (table) => before[table].root !== after[table].root && hashCanonical(before[table]) !== hashCanonical(after[table]),
  );
}
