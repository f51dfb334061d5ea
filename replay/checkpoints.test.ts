import * as assert from 'uvu/assert';
import { hashCanonical } from '../core/canonical.js';
import type { Event } from '../core/event.js';
import { suite } from '../core/testing.js';
import { ev, numbered } from '../reducers/testing.js';
import { emptyWorld } from '../reducers/world.js';
import { Checkpoints } from './checkpoints.js';
import { Engine } from './engine.js';

const test = suite('checkpoints');

/** Each makes one file, so the state tells how many there were. */
function opens(count: number): Event[] {
  return numbered(Array.from({ length: count }, (_, i) => ev('open', { path: `/tmp/${i}`, ret: i + 3 })));
}

function fold(events: readonly Event[], batch: number): { checkpoints: Checkpoints; engine: Engine } {
  const checkpoints = new Checkpoints({ position: 0, world: emptyWorld() });
  const engine = new Engine();
  for (let at = 0; at < events.length; at += batch) checkpoints.feed(engine, events.slice(at, at + batch));
  return { checkpoints, engine };
}

test('short folds keep the state after every event', () => {
  const { checkpoints } = fold(opens(20), 7);
  assert.equal(
    checkpoints.kept.map((c) => c.position),
    Array.from({ length: 21 }, (_, i) => i),
  );
  for (const { position, world } of checkpoints.kept) assert.is(world.files.size, position);
});

test('long folds keep at most 256, evenly, whatever the batches', () => {
  for (const batch of [1, 100, 4096]) {
    const { checkpoints } = fold(opens(5000), batch);
    assert.ok(checkpoints.kept.length <= 256, `${checkpoints.kept.length} kept`);
    assert.ok(checkpoints.kept.length >= 128);
    const [, second] = checkpoints.kept;
    const stride = second?.position ?? 0;
    checkpoints.kept.forEach(({ position, world }, i) => {
      assert.is(position, i * stride);
      assert.is(world.files.size, position);
    });
  }
});

test('before gives the last one that is not behind the position', () => {
  const { checkpoints } = fold(opens(1000), 4096);
  const stride = checkpoints.kept[1]?.position ?? 0;
  for (const position of [0, 1, stride - 1, stride, stride + 1, 999, 1000])
    assert.is(checkpoints.before(position).position, Math.floor(position / stride) * stride);
});

test('a gap in seq leaves no checkpoint inside it and does not spoil the others', () => {
  const events = opens(3000).filter(({ seq }) => seq < 700 || seq >= 1900);
  const { checkpoints, engine } = fold(events, 512);
  assert.is(engine.eventCount, 1800);
  for (const { position, world } of checkpoints.kept)
    assert.is(world.files.size, events.filter(({ seq }) => seq < position).length);
  assert.ok(checkpoints.before(1500).position <= 700);
});

test('cutting for checkpoints does not change the end', () => {
  const events = opens(777);
  const whole = new Engine();
  whole.feed(events);
  assert.is(hashCanonical(fold(events, 50).engine.world), hashCanonical(whole.world));
});
