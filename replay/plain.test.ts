import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gunzipSync } from 'node:zlib';
import * as assert from 'uvu/assert';
import { suite } from '../core/testing.js';
import { invariants } from '../reducers/invariants/index.js';
import { openRecording } from '../traces/open.js';
import { replay } from './report.js';

/**
 * The bundled recordings as plain strace would have made them: without a statement of what the ioctls pass. Little can be
 * judged then, and nothing may be judged wrong: what is not known must not be taken for something that is not there.
 */
const test = suite('plain strace');
const CORPUS = fileURLToPath(new URL('../../traces/corpus/', import.meta.url));
const FILES = readdirSync(CORPUS, { recursive: true, withFileTypes: true })
  .filter((entry) => entry.isFile() && entry.name.endsWith('.strace.gz'))
  .map((entry) => join(entry.parentPath, entry.name).slice(CORPUS.length))
  .sort();
const scratch = mkdtempSync(join(tmpdir(), 'iotape-plain-'));
test.after(() => rmSync(scratch, { recursive: true, force: true }));

for (const file of FILES)
  test(`${file}: what is not recorded is not contradicted, and says what would settle it`, async () => {
    const lines = gunzipSync(readFileSync(join(CORPUS, file)))
      .toString('latin1')
      .split('\n');
    const plain = join(scratch, 'plain.strace');
    writeFileSync(plain, lines.filter((line) => !line.includes('pwrite64(-1, ')).join('\n'), 'latin1');
    const report = await replay(await openRecording(plain), { invariants });
    assert.equal(
      report.divergences.map(({ line, call, rule }) => `${line} ${call} ${rule}`),
      [],
    );
    const unknown = report.unknowns.reduce((sum, { count }) => sum + count, 0);
    assert.is(unknown, report.calls.unknown);
    for (const { call, because, known, record } of report.unknowns) {
      // Whose device it is no recording of the calls alone can tell.
      if (because !== 'the driver of the device is not known') assert.is.not(record.length, 0, `${call} ${because}`);
      assert.is.not(known.length, 0, call);
    }
  });
