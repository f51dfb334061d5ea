import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import * as assert from 'uvu/assert';
import { suite } from '../core/testing.js';
import { openRecording } from '../traces/open.js';
import { Engine } from './engine.js';

const test = suite('pairs');
const FOLDER = fileURLToPath(new URL('../../traces/corpus/hmm/', import.meta.url));
const FILES = readdirSync(FOLDER);

/** The bundled tests that were recorded twice: their system calls alone, and with the kernel's own events. */
const PAIRS = FILES.filter((file) => file.endsWith('.strace.gz'))
  .map((file) => file.slice(0, -'.strace.gz'.length))
  .filter((name) => FILES.includes(`${name}.jsonl.gz`));

/** The verdicts in order of the calls; which call it is stands in front. */
async function verdictsOf(file: string): Promise<readonly string[]> {
  const verdicts: string[] = [];
  const engine = new Engine({ onCall: (verdict, call) => verdicts.push(`${call.name}: ${verdict}`) });
  for await (const batch of (await openRecording(join(FOLDER, file))).batches()) engine.feed(batch);
  return verdicts;
}

for (const name of PAIRS) {
  test(`${name}: every call gets the same verdict, whichever way it was recorded`, async () => {
    const calls = await verdictsOf(`${name}.strace.gz`);
    const events = await verdictsOf(`${name}.jsonl.gz`);
    assert.ok(calls.length > 0);
    assert.equal(calls, events);
  });
}

test('there are pairs of both kinds of devices', () => {
  for (const kind of ['private', 'coherent']) assert.ok(PAIRS.some((name) => name.includes(kind)));
});
