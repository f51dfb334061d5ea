import { readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import * as assert from 'uvu/assert';
import { InputError } from '../core/errors.js';
import { suite } from '../core/testing.js';
import { ev, numbered } from '../reducers/testing.js';
import type { Recording } from '../traces/recording.js';
import { TraceSource } from './source.js';
import { MemorySource, memoryRecording } from './testing.js';
import { verify } from './verify.js';

const test = suite('verify');
const CORPUS = fileURLToPath(new URL('../../traces/corpus/', import.meta.url));

const recordings = readdirSync(CORPUS, { recursive: true, encoding: 'utf8' })
  .filter((name) => /\.(?:strace|jsonl|tape)(?:\.gz)?$/.test(name))
  .sort();

for (const name of recordings) {
  test(`${name}: batches as read, batches of 1 and its tape end in the same state`, async () => {
    const { endings, agree } = await verify(new TraceSource(CORPUS + name, { rereadable: true }));
    assert.ok(agree, JSON.stringify(endings, undefined, 1));
    assert.is(endings.length, 3);
  });
}

test('a replay that does differ is seen', async () => {
  const events = numbered([ev('open', { path: '/a', ret: 3 }), ev('open', { path: '/b', ret: 4 })]);
  let opened = 0;
  const fickle = {
    name: 'fickle',
    open: async (): Promise<Recording> => memoryRecording(opened++ === 1 ? events.slice(0, 1) : events),
  };
  const { agree, endings } = await verify(fickle);
  assert.is(agree, false);
  assert.is(endings[0]?.stateHash, endings[2]?.stateHash);
  assert.is.not(endings[0]?.stateHash, endings[1]?.stateHash);
});

test('nothing to replay is IOT203', async () => {
  try {
    await verify(new MemorySource([]));
    assert.unreachable();
  } catch (error) {
    assert.is(error instanceof InputError && error.diagnostic.code, 'IOT203');
  }
});
