import { execFile } from 'node:child_process';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { promisify } from 'node:util';
import { gzipSync } from 'node:zlib';
import * as assert from 'uvu/assert';
import { InputError } from '../../core/errors.js';
import { BATCH_EVENTS } from '../../core/event.js';
import { suite } from '../../core/testing.js';
import { openRecording } from '../open.js';
import type { Recording } from '../recording.js';
import { ReadAheadRecording } from './recording.js';
import { exact, textRecordings } from './testing.js';

const test = suite('read-ahead');
const run = promisify(execFile);

let directory = '';
test.before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'iotape-readahead-'));
});
test.after(() => rm(directory, { recursive: true }));

async function file(name: string, content: string | Uint8Array): Promise<string> {
  const path = join(directory, name);
  await writeFile(path, content);
  return path;
}

/** What the recording says of itself now. */
function about({ info, skippedLines, diagnostics }: Recording): unknown {
  const { format, files, startNs, kernel } = info;
  return { format, files: [...files], startNs: `${startNs}`, kernel, skippedLines, diagnostics: [...diagnostics] };
}

/** All that a reader can see, but for where batches begin. */
async function seen(paths: string | readonly string[], readAhead: 'never' | 'always'): Promise<unknown[]> {
  const all: unknown[] = [];
  try {
    const recording = await openRecording(paths, { readAhead });
    const { format, files } = recording.info;
    all.push(format, [...files]);
    try {
      for await (const batch of recording.batches()) {
        assert.ok(batch.length > 0 && batch.length <= BATCH_EVENTS);
        for (const event of batch) all.push(exact(event));
      }
    } finally {
      all.push(about(recording));
    }
  } catch (error) {
    assert.instance(error, InputError);
    all.push((error as InputError).diagnostic, (error as InputError).message);
  }
  return all;
}

async function assertSame(paths: string | readonly string[]): Promise<unknown[]> {
  const here = await seen(paths, 'never');
  const ahead = await seen(paths, 'always');
  assert.equal(ahead, here, String(paths));
  return ahead;
}

/** Lines of which every third is rubbish: diagnostics more than are listed. */
function manyLines(count: number): string {
  let text = '';
  for (let i = 0; i < count; i++) text += i % 3 === 0 ? `1 rubbish ${i}\n` : `1 close(${i % 9}) = 0\n`;
  return text;
}

test('the bundled recordings: events, diagnostics and facts', async () => {
  for (const path of textRecordings) assert.ok((await assertSame(path)).length > 4, path);
});

test('many batches, and more diagnostics than are listed', async () => {
  const all = await assertSame(await file('many', manyLines(120_000)));
  assert.ok(all.length > 80_000);
  assert.match(JSON.stringify(all.at(-1)), /IOT109/);
});

test('what it says of itself grows with the batches', async () => {
  const recording = new ReadAheadRecording('strace', [await file('growing', manyLines(120_000))]);
  const skipped: number[] = [];
  for await (const _ of recording.batches()) skipped.push(recording.skippedLines);
  assert.ok((skipped[0] as number) > 0 && (skipped[0] as number) < 40_000);
  assert.equal(
    skipped,
    [...skipped].sort((a, b) => a - b),
  );
  assert.is(recording.skippedLines, 40_000);
});

test('several files of strace -ff', async () => {
  const one = await file('r.10', '1700000000.000000 close(3) = 0\n1700000000.000003 close(4) = 0\n');
  const two = await file('r.11.gz', gzipSync('1700000000.000001 close(5) = 0\n'));
  const none = await file('r.12', '');
  const all = await assertSame([one, two, none]);
  assert.match(JSON.stringify(all), /1700000000000000000/);
});

test('input that is unusable, or becomes so', async () => {
  await assertSame(await file('only-bad', '{"ts":5}\n{"ts":6}\n'));
  const whole = gzipSync(manyLines(50_000));
  const all = await assertSame(await file('cut.gz', whole.subarray(0, whole.length >> 1)));
  assert.ok(all.length > 5_000);
  assert.match(String(all.at(-1)), /IOT205/);
});

test('a file that goes away before it is read', async () => {
  const path = await file('gone', manyLines(10));
  const recording = await openRecording(path, { readAhead: 'always' });
  await rm(path);
  try {
    for await (const _ of recording.batches()) assert.unreachable();
    assert.unreachable();
  } catch (error) {
    assert.is(error instanceof InputError && error.diagnostic.code, 'IOT201');
  }
});

test('a reader that stops early leaves no open file', async () => {
  const path = await file('early', manyLines(120_000));
  const open = async (): Promise<number> => (await readdir('/proc/self/fd')).length;
  const atRest = async (): Promise<number> => {
    for await (const _ of new ReadAheadRecording('strace', [path]).batches()) break;
    return open();
  };
  const first = await atRest();
  for (let i = 0; i < 5; i++) await atRest();
  assert.ok((await atRest()) <= first);
});

const START = `
  const { ReadAheadRecording } = await import(${JSON.stringify(new URL('./recording.js', import.meta.url).href)});
  const batches = new ReadAheadRecording('strace', [process.argv[2]]).batches();
`;

test('the process ends by itself, however the reader stops', async () => {
  const path = await file('end', manyLines(200_000));
  const endings = {
    whole: 'let n = 0; for await (const b of batches) n += b.length; console.log(n === 133_333);',
    early: 'for await (const b of batches) break; console.log(true);',
    'walks away': 'await batches.next(); console.log(true);',
    throws: 'try { for await (const b of batches) throw 1; } catch { console.log(true); }',
    'never began': 'console.log(true);',
  };
  for (const [name, body] of Object.entries(endings)) {
    const script = await file('ending.mjs', START + body);
    const { stdout } = await run(process.execPath, [script, path], { timeout: 60_000 });
    assert.is(stdout, 'true\n', name);
  }
});

/** What reading ends with when this is what the thread does. */
async function deathOf(body: string): Promise<unknown> {
  const script = pathToFileURL(await file('thread.mjs', body));
  try {
    for await (const _ of new ReadAheadRecording('strace', ['x'], script).batches()) assert.unreachable();
    return undefined;
  } catch (error) {
    return error;
  }
}

test('a thread that dies is an error of ours, not a wait without end', async () => {
  const rows: [string, RegExp][] = [
    ['throw new TypeError("broken");', /TypeError: broken/],
    ['throw 5;', /reading thread ended with status 1/],
    ['process.exit(3);', /reading thread ended with status 3/],
    ['', /reading thread ended with status 0/],
    ['setTimeout(() => { null.x; }, 20);', /TypeError: Cannot read/],
    ['import "./none.js";', /Cannot find module/],
  ];
  for (const [body, expected] of rows) {
    const error = await deathOf(body);
    assert.instance(error, Error, body);
    assert.not.instance(error, InputError);
    assert.match(String(error), expected);
  }
});
