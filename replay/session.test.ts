import * as assert from 'uvu/assert';
import { InputError } from '../core/errors.js';
import { suite } from '../core/testing.js';
import { ev, numbered } from '../reducers/testing.js';
import type { Update } from './fold.js';
import { replay } from './report.js';
import { startSession } from './session.js';
import { memoryRecording } from './testing.js';

const test = suite('session');
const EVENTS = numbered(Array.from({ length: 1000 }, (_, i) => ev('open', { path: `/${i}`, ret: i + 3 })));
const failure = new InputError({ code: 'IOT205', file: 'memory.strace', line: 0, column: 0, message: 'cut' });

test('all listeners share one replay, and the report is that of replay', async () => {
  const session = startSession(memoryRecording(EVENTS, { batchEvents: 100 }));
  const first: Update[] = [];
  const second: number[] = [];
  session.updates.subscribe((update) => first.push(update));
  session.updates.subscribe((update) => second.push(update.events));
  const report = await session.report;
  assert.equal(
    first.map(({ events }) => events),
    Array.from({ length: 10 }, (_, i) => (i + 1) * 100),
  );
  assert.equal(second.length, 10);
  assert.equal(report, await replay(memoryRecording(EVENTS)));
});

test('when the last listener leaves, the replay stops and says so', async () => {
  const session = startSession(memoryRecording(EVENTS, { batchEvents: 100 }));
  const subscription = session.updates.subscribe(({ events }) => {
    if (events >= 300) subscription.unsubscribe();
  });
  const report = await session.report;
  assert.is(report.interrupted, true);
  assert.is(report.events, 300);
});

test('a source that waits for ever is left by the signal', async () => {
  const stop = new AbortController();
  const session = startSession(memoryRecording(EVENTS, { hangs: true }), { signal: stop.signal });
  session.updates.subscribe(() => stop.abort());
  const report = await session.report;
  assert.is(report.interrupted, true);
  assert.is(report.events, 1000);
});

test('what breaks off is reported as far as it goes, with the reason', async () => {
  const report = await replay(memoryRecording(EVENTS, { failure }));
  assert.is(report.events, 1000);
  assert.is(report.interrupted, false);
  assert.equal(
    report.diagnostics.map(({ code }) => code),
    ['IOT205'],
  );
});

test('what gives no event at all throws: its own error, or IOT203', async () => {
  for (const [options, code] of [
    [{ failure }, 'IOT205'],
    [{}, 'IOT203'],
  ] as const) {
    const errors: unknown[] = [];
    const session = startSession(memoryRecording([], options));
    session.updates.subscribe({ error: (error) => errors.push(error) });
    await session.report.catch((error: unknown) => errors.push(error));
    assert.equal(
      errors.map((error) => error instanceof InputError && error.diagnostic.code),
      [code, code],
    );
  }
});
