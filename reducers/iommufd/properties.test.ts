import { fc } from '../../core/property.js';
import * as assert from 'uvu/assert';
import { hashCanonical } from '../../core/canonical.js';
import type { Event } from '../../core/event.js';
import { OrderedMap } from '../../core/ordered-map.js';
import { suite } from '../../core/testing.js';
import { Reducer } from '../dispatch.js';
import { Tx } from '../tx.js';
import { emptyWorld, type World } from '../world.js';
import { breaches } from './consistency.js';
import { iommufdFamilies } from './index.js';
import { ANY_ANSWER, PREDICTED, RandomUser, type Step, steps } from './random-calls.js';

const test = suite('iommufd properties');
const STEPS = 200;

/** Runs the steps and looks at the model after each. */
function holdTogether(all: readonly Step[], contradicted: boolean): void {
  const user = new RandomUser();
  for (const step of all) {
    const before = user.bench.world;
    user.run(step);
    const told = breaches(user.bench.world, before, contradicted);
    if (told.length > 0) throw new Error(`${step.kind}: ${told.join('; ')}`);
  }
}

test('whatever is called, by whom, in any order: the model holds together after each call', () => {
  const property = fc.property(steps(PREDICTED, STEPS), (all) => holdTogether(all, false));
  fc.assert(property, { numRuns: 80 });
});

test('whatever the recording claims, the model holds together', () => {
  const property = fc.property(steps(ANY_ANSWER, STEPS), (all) => holdTogether(all, true));
  fc.assert(property, { numRuns: 80 });
});

/** Replays events on a snapshot, so many to a transaction. */
function replay(events: readonly Event[], from: World, batch: number): World {
  const reducer = new Reducer(iommufdFamilies);
  let world = from;
  for (let at = 0; at < events.length; at += batch) {
    const tx = new Tx(world);
    for (const event of events.slice(at, at + batch)) reducer.reduce(tx, event);
    world = tx.commit();
  }
  return world;
}

/** What of a value could still be changed. */
function unfrozen(value: unknown, path: string, seen: Set<unknown>): string[] {
  if (typeof value !== 'object' || value === null || seen.has(value)) return [];
  seen.add(value);
  if (value instanceof OrderedMap) {
    const inner = [...value].flatMap(([key, each]) => unfrozen(each, `${path}/${String(key)}`, seen));
    return value.isFrozen ? inner : [path, ...inner];
  }
  // Bytes are immutable by their class.
  if (Object.getPrototypeOf(value) !== Object.prototype && !Array.isArray(value)) return [];
  const inner = Object.entries(value).flatMap(([name, each]) => unfrozen(each, `${path}.${name}`, seen));
  return Object.isFrozen(value) ? inner : [path, ...inner];
}

test('what could be changed is found', () => {
  const open = OrderedMap.numeric<number, object>().set(1, {});
  assert.equal(unfrozen(Object.freeze({ a: Object.freeze([{}]), open }), '', new Set()), ['.a.0', '.open', '.open/1']);
});

test('reducers are pure: the same events give the same state, however they are cut, and leave the one before as it was', () => {
  const property = fc.property(steps(ANY_ANSWER, 80), fc.nat(100), (all, where) => {
    const user = new RandomUser();
    for (const step of all) user.run(step);
    const { log, world } = user.bench;
    const half = Math.floor((log.length * where) / 100);
    const middle = replay(log.slice(0, half), emptyWorld(), 4096);
    const hash = hashCanonical(middle);
    const ends = [1, 7, 4096].map((batch) => hashCanonical(replay(log.slice(half), middle, batch)));
    assert.equal(new Set(ends), new Set([hashCanonical(world)]));
    assert.is(hashCanonical(middle), hash);
    assert.equal(unfrozen(world, '', new Set()), []);
  });
  fc.assert(property, { numRuns: 40 });
});
