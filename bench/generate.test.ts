import * as assert from 'uvu/assert';
import { suite } from '../core/testing.js';
import { invariants } from '../reducers/invariants/index.js';
import { Engine } from '../replay/engine.js';
import { inputFrom } from '../traces/input/chunks.js';
import { KernelEventRecording } from '../traces/kernel-events/importer.js';
import { openStrace } from '../traces/strace/open.js';
import { churn } from './generate.js';
import { invalidationCalls, invalidationEvents } from './generate-hmm.js';

const test = suite('bench/generate');

async function verdicts(text: Iterable<string>): Promise<Engine> {
  const bytes = Buffer.from([...text].join(''));
  const engine = new Engine();
  for await (const batch of openStrace([inputFrom('generated', [bytes])]).batches()) engine.feed(batch);
  return engine;
}

const rows = [
  ['type1', churn({ kind: 'type1', calls: 600, live: 50, seed: 7 }), 602, 1],
  ['type1, more than 65535 entries', churn({ kind: 'type1', calls: 70_000, live: 66_000, seed: 7 }), 70_002, 1],
  ['iommufd', churn({ kind: 'iommufd', calls: 600, live: 50, seed: 7 }), 601],
  ['iommufd, 1 TiB each', churn({ kind: 'iommufd', calls: 60, live: 1, seed: 7, areaBytes: 2 ** 40 }), 61],
  ['hmm', invalidationCalls({ invalidations: 600, ranges: 50, seed: 7 }), 650],
] as const;
for (const [name, text, calls, learned = 0] of rows) {
  test(`${name}: what is measured is right work: every call matches`, async () => {
    const { tally, findingCount } = await verdicts(text);
    const match = calls;
    assert.equal(tally.all, { total: calls + learned, match, diverge: 0, learned, unknown: 0 });
    assert.is(findingCount, 0);
  });
}

async function* chunks(text: string): AsyncGenerator<Uint8Array> {
  yield Buffer.from(text);
}

test("events: what a driver does about the kernel's invalidations is right", async () => {
  const text = [...invalidationEvents({ invalidations: 90, ranges: 5, seed: 7 })].join('');
  const source = new KernelEventRecording(chunks(text), 'generated');
  const engine = new Engine({ invariants });
  for await (const batch of source.batches()) engine.feed(batch);
  assert.is(engine.eventCount, 2 + 5 + 90 * 5);
  assert.is(engine.findingCount, 0);
  assert.is([...engine.world.notified.values()][0]?.mirrors.first()?.ptes.size, 5);
});

test('a seed gives the same text again', () => {
  const make = (seed: number): string => [...churn({ kind: 'type1', calls: 50, live: 9, seed })].join('');
  assert.is(make(3), make(3));
  assert.is.not(make(3), make(4));
});
