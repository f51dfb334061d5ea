import * as assert from 'uvu/assert';
import { InputError } from '../core/errors.js';
import type { Event } from '../core/event.js';
import type { Invariant } from '../core/invariant.js';
import { suite } from '../core/testing.js';
import { ev, numbered } from '../reducers/testing.js';
import type { World } from '../reducers/world.js';
import { bisectExpression, bisectInvariant } from './bisect.js';
import { Expression } from './expression.js';
import { MemorySource } from './testing.js';

const test = suite('bisect');

/** `count` events without effect, of which number `at` opens a file. */
function openAt(count: number, at: number): Event[] {
  return numbered(
    Array.from({ length: count }, (_, i) => (i === at ? ev('open', { path: '/x', ret: 3 }) : ev('other'))),
  );
}

const opened = new Expression('files.size > 0');

test('finds the event wherever it stands, in log2(n) evaluations', async () => {
  for (const [count, at] of [
    [1, 0],
    [2, 1],
    [255, 254],
    [256, 255],
    [257, 256],
    [257, 0],
    [5000, 0],
    [5000, 4095],
    [5000, 4096],
    [5000, 4999],
    [70_000, 34_567],
  ] as const) {
    const source = new MemorySource(openAt(count, at));
    const result = await bisectExpression(source, opened);
    const label = `${at} of ${count}`;
    assert.is(result.hit?.event.seq, at, label);
    assert.is(result.events, count, label);
    assert.ok(result.evaluations <= Math.log2(count) + 6, `${label}: ${result.evaluations} evaluations`);
    assert.ok(result.passes <= Math.ceil(Math.log(count + 1) / Math.log(128)) + 1, `${label}: ${result.passes} passes`);
    assert.is(source.opened, result.passes, label);
  }
});

test('a gap in the events does not mislead it', async () => {
  const events = openAt(3000, 2500).filter(({ seq }) => seq < 100 || seq >= 2500);
  assert.is((await bisectExpression(new MemorySource(events), opened)).hit?.event.seq, 2500);
  const after = openAt(3000, 2600).filter(({ seq }) => seq < 100 || seq >= 2500);
  assert.is((await bisectExpression(new MemorySource(after), opened)).hit?.event.seq, 2600);
});

test('says when it holds from the start, and when it does not hold at the end', async () => {
  const source = new MemorySource(openAt(10, 5));
  const always = await bisectExpression(source, new Expression('true'));
  assert.is(always.fromTheStart, true);
  assert.is(always.hit, undefined);
  const never = await bisectExpression(source, new Expression('files.size > 7'));
  assert.is(never.fromTheStart, false);
  assert.is(never.hit, undefined);
});

test('throwing before the end counts as not yet; at the end it is an error', async () => {
  const source = new MemorySource(openAt(400, 321));
  const late = await bisectExpression(source, new Expression('[...files.values()][0].path === "/x"'));
  assert.is(late.hit?.event.seq, 321);
  assert.ok(late.failures > 0);
  try {
    await bisectExpression(source, new Expression('files.get(99).path'));
    assert.unreachable();
  } catch (error) {
    assert.is(error instanceof InputError && error.diagnostic.code, 'IOT302');
  }
});

const opensFile: Invariant<World> = {
  name: 'no-files',
  why: 'for this test',
  kinds: ['open'],
  check: (_before, event) => [
    {
      invariant: 'no-files',
      severity: 'violation',
      seq: event.seq,
      file: 0,
      line: event.line,
      message: 'a file',
      causes: [event.seq - 1],
      advice: '',
    },
  ],
};

test('an invariant: the first finding with its causes', async () => {
  const result = await bisectInvariant(new MemorySource(openAt(9000, 5000)), opensFile);
  assert.is(result.hit?.event.seq, 5000);
  assert.is(result.finding?.message, 'a file');
  assert.equal(
    result.causes.map(({ event }) => event.seq),
    [4999],
  );
  const clean = await bisectInvariant(new MemorySource(openAt(10, -1)), opensFile);
  assert.is(clean.hit, undefined);
  assert.is(clean.events, 10);
});
