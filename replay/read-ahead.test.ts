import * as assert from 'uvu/assert';
import { hashCanonical } from '../core/canonical.js';
import { suite } from '../core/testing.js';
import { invariants } from '../reducers/invariants/index.js';
import { openRecording } from '../traces/open.js';
import { textRecordings } from '../traces/readahead/testing.js';
import { Engine } from './engine.js';

const test = suite('replay of what another thread reads ahead');

async function ending(path: string, readAhead: 'never' | 'always'): Promise<unknown> {
  const engine = new Engine({ invariants });
  for await (const batch of (await openRecording(path, { readAhead })).batches()) engine.feed(batch);
  return { hash: hashCanonical(engine.world), tally: { ...engine.tally.all }, findings: engine.findings };
}

test('the bundled recordings end in the same state, with the same verdicts and findings', async () => {
  assert.ok(textRecordings.length > 15);
  for (const path of textRecordings) assert.equal(await ending(path, 'always'), await ending(path, 'never'), path);
});
