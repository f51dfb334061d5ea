import * as assert from 'uvu/assert';
import { suite } from '../core/testing.js';
import { Engine } from '../replay/engine.js';
import { inputFrom } from '../traces/input/chunks.js';
import { openStrace } from '../traces/strace/open.js';
import { churn } from './generate.js';
import { hmmChurn } from './generate-hmm.js';

const test = suite('bench/generate');

async function verdicts(text: Iterable<string>): Promise<Engine> {
  const bytes = Buffer.from([...text].join(''));
  const engine = new Engine();
  for await (const batch of openStrace([inputFrom('generated', [bytes])]).batches()) engine.feed(batch);
  return engine;
}

const rows = [
  ['type1', churn({ kind: 'type1', calls: 600, live: 50, seed: 7 }), 602],
  ['iommufd', churn({ kind: 'iommufd', calls: 600, live: 50, seed: 7 }), 601],
  ['hmm', hmmChurn({ calls: 600, ranges: 50, seed: 7 }), 600],
] as const;
for (const [name, text, calls] of rows) {
  test(`${name}: what is measured is right work: every call matches`, async () => {
    const { tally, findingCount } = await verdicts(text);
    assert.equal(tally.all, { total: calls, match: calls, diverge: 0, learned: 0, unknown: 0 });
    assert.is(findingCount, 0);
  });
}

test('a seed gives the same text again', () => {
  const make = (seed: number): string => [...churn({ kind: 'type1', calls: 50, live: 9, seed })].join('');
  assert.is(make(3), make(3));
  assert.is.not(make(3), make(4));
});
