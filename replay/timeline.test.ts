import * as assert from 'uvu/assert';
import { hashCanonical } from '../core/canonical.js';
import { InputError } from '../core/errors.js';
import { suite } from '../core/testing.js';
import { ev, numbered, replay } from '../reducers/testing.js';
import { MemorySource } from './testing.js';
import { stateAfter, Timeline } from './timeline.js';

const test = suite('timeline');

const EVENTS = numbered(
  Array.from({ length: 3000 }, (_, i) =>
    i % 3 === 0
      ? ev('open', { path: `/f${i}`, ret: i + 3 })
      : i % 3 === 1
        ? ev('mmap', { lengthBytes: 4096, ret: 0x7f00_0000_0000 + i * 0x2000 })
        : ev('other', { call: i === 2000 ? 'gettid' : 'getpid' }),
  ),
);

async function codeOf(run: Promise<unknown>): Promise<string> {
  try {
    await run;
  } catch (error) {
    if (error instanceof InputError) return error.diagnostic.code;
    throw error;
  }
  return 'nothing thrown';
}

test('every jump, in any order, shows the states of a plain fold', async () => {
  const timeline = await Timeline.build(new MemorySource(EVENTS), []);
  assert.is(timeline.events, 3000);
  for (const seq of [0, 2999, 1, 2, 1500, 1499, 1500, 1501, 700, 2998]) {
    const moment = await timeline.at(seq);
    assert.is(moment.event.seq, seq);
    assert.is(hashCanonical(moment.before), hashCanonical(replay(EVENTS.slice(0, seq))), `before ${seq}`);
    assert.is(hashCanonical(moment.after), hashCanonical(replay(EVENTS.slice(0, seq + 1))), `after ${seq}`);
  }
});

test('steps inside a window read nothing', async () => {
  const source = new MemorySource(EVENTS);
  const timeline = await Timeline.build(source, []);
  await timeline.at(1000);
  const opened = source.opened;
  for (let seq = 1001; seq < 1006; seq++) await timeline.at(seq);
  assert.ok(source.opened <= opened + 1);
});

test('find looks forward over windows', async () => {
  const timeline = await Timeline.build(new MemorySource(EVENTS), []);
  const gettid = (each: { event: { kind: string; call?: string } }): boolean => each.event.call === 'gettid';
  assert.is(await timeline.find(0, gettid), 2000);
  assert.is(await timeline.find(2000, gettid), 2000);
  assert.is(await timeline.find(2001, gettid), undefined);
});

test('an event that is not there is IOT304', async () => {
  const timeline = await Timeline.build(new MemorySource(EVENTS), []);
  for (const seq of [3000, -1, 1.5, 1e15, Number.NaN]) assert.is(await codeOf(timeline.at(seq)), 'IOT304', String(seq));
  assert.is(await codeOf(stateAfter(new MemorySource(EVENTS), 3000)), 'IOT304');
  assert.is(await codeOf(Timeline.build(new MemorySource([]), [])), 'IOT203');
});

test('stateAfter: one event, and the end', async () => {
  const source = new MemorySource(EVENTS, { batchEvents: 100 });
  const some = await stateAfter(source, 149);
  assert.is(some.seq, 149);
  assert.is(hashCanonical(some.world), hashCanonical(replay(EVENTS.slice(0, 150))));
  const end = await stateAfter(source, undefined);
  assert.is(end.seq, 2999);
  assert.is(hashCanonical(end.world), hashCanonical(replay(EVENTS)));
});
