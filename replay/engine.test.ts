import * as assert from 'uvu/assert';
import { hashCanonical } from '../core/canonical.js';
import type { Event } from '../core/event.js';
import type { Finding, Invariant } from '../core/invariant.js';
import { suite } from '../core/testing.js';
import { ev, numbered } from '../reducers/testing.js';
import type { World } from '../reducers/world.js';
import { Engine, KEPT_MAX } from './engine.js';

const test = suite('engine');

const GET_API_VERSION = 0x3b64;
const CONTAINER = '/dev/vfio/vfio';

/** A process that opens a container, asks it `answers.length` times for its version, and maps memory in between. */
function session(answers: readonly number[]): Event[] {
  const asked = answers.flatMap((ret, i) => [
    ev('mmap', { addr: 0x10000 * (i + 1), flags: 0x32, ret: 0x10000 * (i + 1) }),
    ev('ioctl', { fd: 3, path: CONTAINER, request: GET_API_VERSION, ret, line: i }),
  ]);
  return numbered([ev('exec'), ev('open', { path: CONTAINER, flags: 2, ret: 3 }), ...asked, ev('close', { fd: 3 })]);
}

test('verdicts are counted and divergences explained', () => {
  const engine = new Engine();
  engine.feed(session([0, 5, 0]));
  assert.equal(engine.tally.all, { total: 3, match: 2, diverge: 1, learned: 0, unknown: 0 });
  const [divergence] = engine.divergences;
  assert.is(divergence?.call, 'VFIO_GET_API_VERSION');
  assert.is(divergence?.line, 1);
  assert.equal([divergence?.predicted, divergence?.recorded], [{ ret: 0 }, { ret: 5 }]);
});

test('how events are cut into batches, and who looks in between, makes no difference', () => {
  const events = session([0, 5, 0]);
  const whole = new Engine();
  whole.feed(events);
  const singly = new Engine();
  for (const event of events) {
    singly.feed([event]);
    assert.ok(singly.world.files.isFrozen);
  }
  assert.is(hashCanonical(singly.world), hashCanonical(whole.world));
  assert.equal(singly.tally.all, whole.tally.all);
});

test('a checker sees true snapshots around its event, only where it is concerned', () => {
  const looks: [number, number, number][] = [];
  const checker: Invariant<World> = {
    name: 'counts-vmas',
    why: 'a test',
    kinds: ['mmap'],
    concerns: (before) => vmas(before) > 0,
    check(before, event, after) {
      assert.ok(before.spaces.isFrozen && after.spaces.isFrozen);
      looks.push([event.seq, vmas(before), vmas(after)]);
      return [];
    },
  };
  const plain = new Engine();
  const engine = new Engine({ invariants: [checker] });
  for (const each of [plain, engine]) each.feed(session([0, 0, 0]));
  assert.equal(looks, [
    [4, 1, 2],
    [6, 2, 3],
  ]);
  assert.is(hashCanonical(engine.world), hashCanonical(plain.world));
});

function vmas(world: World): number {
  let count = 0;
  for (const space of world.spaces.values()) for (const vma of space.vmas.values()) if (vma.start < 0x100000) count++;
  return count;
}

test('what a hostile tape makes by the million is counted and not kept', () => {
  const chatty: Invariant<World> = {
    name: 'chatty',
    why: 'a test',
    kinds: ['ioctl'],
    check: (_before, { seq, file, line }): Finding[] => [
      { invariant: 'chatty', severity: 'hazard', seq, file, line, message: '', causes: [], advice: '' },
    ],
  };
  const engine = new Engine({ invariants: [chatty] });
  const [exec, open, , wrong] = session([7]) as [Event, Event, Event, Event];
  engine.feed([exec, open]);
  const count = KEPT_MAX + 50;
  engine.feed(Array.from({ length: count }, (_, i) => ({ ...wrong, seq: 2 + i })));
  assert.equal([engine.divergenceCount, engine.divergences.length], [count, KEPT_MAX]);
  assert.equal([engine.findingCount, engine.findings.length], [count, KEPT_MAX]);
});

test('a replay may begin at any snapshot', () => {
  const events = session([0, 5, 0]);
  const whole = new Engine();
  whole.feed(events);
  const first = new Engine();
  first.feed(events.slice(0, 5));
  const second = new Engine({ world: first.world });
  second.feed(events.slice(5));
  assert.is(hashCanonical(second.world), hashCanonical(whole.world));
});
