import { readdirSync, readFileSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gunzipSync, gzipSync } from 'node:zlib';
import { fc } from '../core/property.js';
import * as assert from 'uvu/assert';
import { suite } from '../core/testing.js';
import { openRecording } from '../traces/open.js';
import { writeTape } from '../traces/tape/writer.js';
import { CLEAN, iotape, Workspace } from './cli/testing.js';
import { mutated, mutation } from './mutations.js';
import { endings, wholeCheck } from './whole-check.js';

const test = suite('robustness');
const space = new Workspace();
test.after(() => space.remove());

const CORPUS = fileURLToPath(new URL('../../traces/corpus/', import.meta.url));
const TEXTS = (readdirSync(CORPUS, { recursive: true }) as string[])
  .filter((name) => name.endsWith('.gz'))
  .sort()
  .map((name) => ({
    name: name.includes('.jsonl') ? 'mutated.jsonl' : 'mutated.strace',
    lines: gunzipSync(readFileSync(join(CORPUS, name)))
      .toString('latin1')
      .split('\n'),
  }));

/** Each run is checked in full; on a slow machine there are fewer of them, never a failure for slowness. */
const LIMITS = { interruptAfterTimeLimit: 15_000 };

/** A piece of a recording: its first lines, where files are opened, and some further on. */
const piece = fc.tuple(fc.nat(TEXTS.length - 1), fc.double({ min: 0, max: 1, noNaN: true })).map(([index, where]) => {
  const { name, lines } = TEXTS[index] as (typeof TEXTS)[number];
  const from = 200 + Math.floor(where * Math.max(0, lines.length - 800));
  return { name, text: [...lines.slice(0, 200), ...lines.slice(from, from + 600)].join('\n') };
});

test('captures with changed structs, results, numbers and lines: a report, and the same one however it is cut', async () => {
  const property = fc.asyncProperty(
    piece,
    fc.array(mutation, { minLength: 1, maxLength: 40 }),
    async ({ name, text }, mutations) => {
      const path = space.write(name, Buffer.from(mutated(text, mutations), 'latin1'));
      const { report } = await wholeCheck(path);
      const ways = await endings(path, join(space.path, 'mutated.tape'));
      assert.is(new Set(ways).size, report === undefined ? 0 : 1, 'as read, singly and from a tape');
    },
  );
  await fc.assert(property, { ...LIMITS, numRuns: 150 });
});

const byteChange = fc.tuple(fc.nat(), fc.nat(255));

function withBytes(bytes: Uint8Array, changes: readonly (readonly [number, number])[], keptOf: number): Uint8Array {
  const copy = bytes.slice(0, Math.ceil(bytes.length * keptOf));
  for (const [at, value] of changes) copy[at % copy.length] = value;
  return copy;
}

test('any byte changed, cut anywhere: text, gzip and tape', async () => {
  const sources = ['vfio/migration-states-mtty.strace.gz', 'fuzz/hmm-fuzz-9.jsonl.gz'].map((name) =>
    join(CORPUS, name),
  );
  const forms: [string, Uint8Array][] = [];
  for (const source of sources) {
    const packed = readFileSync(source);
    forms.push(['bytes.txt', gunzipSync(packed).subarray(0, 150_000)], ['bytes.gz', packed]);
    const tape = join(space.path, 'whole.tape');
    await writeTape(tape, await openRecording(source), { chunkEvents: 50 });
    forms.push(['bytes.tape', readFileSync(tape)], ['bytes.tape.gz', gzipSync(readFileSync(tape))]);
  }
  const kept = fc.oneof(fc.constant(1), fc.double({ min: 0.001, max: 1, noNaN: true }));
  const property = fc.asyncProperty(
    fc.constantFrom(...forms),
    fc.array(byteChange, { maxLength: 20 }),
    kept,
    async ([name, bytes], changes, keptOf) => {
      await wholeCheck(space.write(name, Buffer.from(withBytes(bytes, changes, keptOf))));
    },
  );
  await fc.assert(property, { ...LIMITS, numRuns: 150 });
});

// ---- input that gives nothing usable: exit status 2, a code, no stack trace -----------------------------------

const VERBS = [
  ['check'],
  ['check', '--json'],
  ['show'],
  ['state'],
  ['verify'],
  ['import', '-o', '/dev/null'],
  ['bisect', '--expr', 'false'],
];

/** Runs the verbs on the same input, which no one can use. */
function refused(title: string, code: string, path: string, input: string | Buffer = ''): void {
  test(`refused: ${title}`, () => {
    for (const verb of path === '-' ? VERBS.slice(0, 3) : VERBS) {
      const ran = iotape([...verb, path], input);
      const what = `${verb.join(' ')}: ${ran.stderr}${ran.stdout.slice(0, 300)}`;
      assert.is(ran.status, 2, what);
      assert.match(ran.stderr, new RegExp(`^[^\n]*: ${code} [^\n]*\n$`), what);
      assert.is(ran.stdout, '', what);
    }
  });
}

const NOISE = Buffer.from(Array.from({ length: 100_000 }, (_, i) => (i * 7919 + (i >> 3)) & 0xff));
const PACKED = gzipSync(CLEAN.repeat(50));
const endless = space.write('endless.txt', '');
truncateSync(endless, 50_000_000);

refused('a missing file', 'IOT201', join(space.path, 'missing'));
refused('a directory', 'IOT201', space.path);
refused('an empty file', 'IOT203', space.write('empty.strace', ''));
refused('an empty standard input', 'IOT203', '-');
refused('blank lines', 'IOT20[23]', space.write('blank.strace', '\n\n \n'));
refused('binary data', 'IOT202', space.write('noise.bin', NOISE));
refused('binary data on standard input', 'IOT202', '-', NOISE);
refused('50 MB of zero bytes', 'IOT202', endless);
refused('text that is no recording', 'IOT202', space.write('poem.txt', 'Shall I compare thee\nto a summer’s day?\n'));
refused('JSON that is no recording', 'IOT20[23]', space.write('other.jsonl', '{"a":1}\n'.repeat(100)));
refused(
  'gzip without a gzip inside',
  'IOT205',
  space.write('garbage.gz', Buffer.concat([PACKED.subarray(0, 10), NOISE])),
);
refused('gzip cut in its header', 'IOT20[235]', space.write('head.gz', PACKED.subarray(0, 9)));
refused('gzip of nothing', 'IOT203', space.write('nothing.gz', gzipSync('')));
refused('an empty tape', 'IOT20[37]', space.write('bare.tape', tapeBytes().subarray(0, 12)));
refused('a tape with a broken header', 'IOT207', space.write('broken.tape', tapeWith(20, 0xff)));

test('50 MB in one line is read, and so are the lines behind it', () => {
  const path = space.write('long.strace', `${CLEAN}${'x'.repeat(50_000_000)}\n${CLEAN}`);
  const report = JSON.parse(iotape(['check', '--json', path]).stdout);
  assert.is(report.diagnostics[0].code, 'IOT103');
  assert.is(report.events, 14);
});

test('a gzip that is cut gives what came before, and says so', () => {
  const path = space.write('cut.strace.gz', PACKED.subarray(0, PACKED.length - 30));
  const ran = iotape(['check', '--json', path]);
  const report = JSON.parse(ran.stdout);
  assert.ok(report.events > 0);
  assert.is(report.diagnostics.at(-1).code, 'IOT205');
});

/** A small tape as it stands in a file. */
function tapeBytes(): Buffer {
  const source = space.write('tape-source.strace', CLEAN);
  const path = join(space.path, 'small.tape');
  const ran = iotape(['import', source, '-o', path]);
  assert.is(ran.status, 0, ran.stderr);
  return readFileSync(path);
}

function tapeWith(offset: number, value: number): Buffer {
  const bytes = tapeBytes();
  bytes[offset] = value;
  return bytes;
}
