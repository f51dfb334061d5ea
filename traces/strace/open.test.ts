import { gzipSync } from 'node:zlib';
import * as assert from 'uvu/assert';
import { InputError } from '../../core/errors.js';
import type { Event } from '../../core/event.js';
import { suite } from '../../core/testing.js';
import { inputFrom } from '../input/chunks.js';
import { openStrace } from './open.js';
import { fixture, parse, show } from './testing.js';

const test = suite('strace recordings of several files');

const line = (text: string) => [Buffer.from(text)];

async function read(files: Readonly<Record<string, string>>) {
  const inputs = Object.entries(files).map(([name, text]) => inputFrom(name, line(text)));
  const recording = openStrace(inputs);
  const events: Event[] = [];
  for await (const batch of recording.batches()) {
    assert.ok(batch.length > 0);
    events.push(...batch);
  }
  return { recording, events };
}

const brief = (events: readonly Event[]) =>
  events.map((e) => `${e.seq} ${e.file}:${e.line} ${e.tid} ${e.tsNs} ${e.kind}`);

test('one file', async () => {
  const { recording, events } = await read({ 'x.strace': '7 1795226779.5 close(3) = 0\n7 1795226780.5 close(4) = 0' });
  assert.equal(brief(events), ['0 0:1 7 0 close', '1 0:2 7 1000000000 close']);
  assert.equal(
    [recording.info.format, recording.info.files, recording.info.startNs],
    ['strace', ['x.strace'], 1795226779500000000n],
  );
});

test('files with times are merged by them, threads are the names of the files', async () => {
  const { recording, events } = await read({
    'out.12': '100000000.5 close(3) = 0\n100000002.5 close(4) = 0\n',
    'out.13.gz': '100000000.25 close(5) = 0\n100000002.5 close(6) = 0\n100000002.75 close(7) = 0\n',
    'out.14': '',
  });
  assert.equal(brief(events), [
    '0 1:1 13 0 close',
    '1 0:1 12 250000000 close',
    '2 0:2 12 2250000000 close',
    '3 1:2 13 2250000000 close',
    '4 1:3 13 2500000000 close',
  ]);
  assert.equal(
    events.map((e) => (e as { enteredAt: number }).enteredAt),
    [0, 1, 2, 3, 4],
  );
  assert.is(recording.info.startNs, 100000000250000000n);
});

test('files without times come one after the other', async () => {
  const { events } = await read({ 'out.12': 'close(3) = 0\nclose(4) = 0\n', 'out.9.strace.gz': 'close(5) = 0\n' });
  assert.equal(brief(events), ['0 0:1 12 0 close', '1 0:2 12 0 close', '2 1:1 9 0 close']);
});

test('a recording split by thread and merged is the same recording', async () => {
  const text = fixture('hmm.hmm_device_private.anon_teardown.strace.gz').toString('latin1');
  const files: Record<string, string> = {};
  for (const one of text.split('\n')) {
    const found = /^([0-9]+) +(.*)$/.exec(one);
    if (found !== null) files[`o.${found[1]}`] = `${files[`o.${found[1]}`] ?? ''}${found[2]}\n`;
  }
  const { events } = await read(files);
  const content = (list: readonly Event[]) =>
    list
      .map((e) => `${e.tid} ${e.tsNs} ${e.kind} ${show([{ ...e, seq: 0, file: 0, line: 0, enteredAt: 0 } as Event])}`)
      .sort();
  assert.equal(content(events), content(parse(text).events));
});

test('diagnostics name file and line', async () => {
  const { recording } = await read({ a: 'close(3) = 0\nrubbish\n', b: 'rubbish\n' });
  assert.equal(
    recording.diagnostics.map((d) => `${d.file}:${d.line}:${d.column} ${d.code}`),
    ['a:2:1 IOT101', 'b:1:1 IOT101'],
  );
  assert.is(recording.skippedLines, 2);
});

test('a gzip that ends early gives what came before, then the error', async () => {
  const packed = gzipSync(Buffer.from('close(3) = 0\n'.repeat(50_000)));
  const recording = openStrace([inputFrom('x.gz', [packed.subarray(0, packed.length - 40)])]);
  let events = 0;
  let failure: unknown;
  try {
    for await (const batch of recording.batches()) events += batch.length;
  } catch (error) {
    failure = error;
  }
  assert.instance(failure, InputError);
  assert.is((failure as InputError).diagnostic.code, 'IOT205');
  assert.ok(events > 1000, String(events));
});
