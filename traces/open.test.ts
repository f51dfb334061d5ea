import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { gzipSync } from 'node:zlib';
import * as assert from 'uvu/assert';
import { hashCanonical } from '../core/canonical.js';
import { InputError } from '../core/errors.js';
import type { Event } from '../core/event.js';
import { suite } from '../core/testing.js';
import { openRecording } from './open.js';
import { Tape } from './tape/reader.js';
import { writeTape } from './tape/writer.js';

const test = suite('open');
const run = promisify(execFile);
const FIXTURE = new URL('../../traces/kernel-events/fixtures/anon-teardown.jsonl', import.meta.url).pathname;

let directory = '';
test.before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'iotape-open-'));
});
test.after(() => rm(directory, { recursive: true }));

async function file(name: string, content: string | Uint8Array): Promise<string> {
  const path = join(directory, name);
  await writeFile(path, content);
  return path;
}

interface Outcome {
  readonly format: string;
  readonly events: readonly Event[];
  /** The code that opening or reading ended with. */
  readonly code: string;
}

async function read(paths: string | readonly string[]): Promise<Outcome> {
  const events: Event[] = [];
  let format = '';
  try {
    const recording = await openRecording(paths);
    format = recording.info.format;
    for await (const batch of recording.batches()) events.push(...batch);
    return { format, events, code: '' };
  } catch (error) {
    assert.instance(error, InputError);
    return { format, events, code: (error as InputError).diagnostic.code };
  }
}

const STRACE = '7 openat(AT_FDCWD, "/dev/iommu", O_RDWR) = 3\n7 close(3) = 0\n';

test('every format, plain and gzipped, gives the same events', async () => {
  const lines = await readFile(FIXTURE);
  const tapePath = join(directory, 'x.tape');
  await writeTape(tapePath, await openRecording(FIXTURE));
  const rows: [string, string, Uint8Array][] = [
    ['kernel-events', 'k', lines],
    ['strace', 's', Buffer.from(STRACE)],
    ['tape', 't', await readFile(tapePath)],
  ];
  for (const [format, name, content] of rows) {
    const plain = await read(await file(name, content));
    const packed = await read(await file(`${name}.gz`, gzipSync(content)));
    assert.equal([plain.format, plain.code], [format, '']);
    assert.equal([packed.format, packed.code], [format, '']);
    assert.ok(plain.events.length > 1);
    assert.is(hashCanonical(packed.events), hashCanonical(plain.events));
  }
  assert.instance(await openRecording(tapePath), Tape);
  assert.is(hashCanonical((await read(tapePath)).events), hashCanonical((await read(FIXTURE)).events));
});

test('what gives nothing usable', async () => {
  const rows: [string, string | Uint8Array, string][] = [
    ['empty', '', 'IOT203'],
    ['blank', '\n \n', 'IOT203'],
    ['empty.gz', gzipSync(''), 'IOT203'],
    ['prose', 'Dear all,\n', 'IOT202'],
    ['binary', Buffer.from([0, 1, 2, 3]), 'IOT202'],
    ['dmesg', '[  637.161194] arm-smmu: fault\n', 'IOT206'],
    ['torn.tape', Buffer.from('\x89IOTA', 'latin1'), 'IOT207'],
    ['only-bad', '{"ts":5}\n', 'IOT203'],
    ['broken.gz', Buffer.concat([Buffer.from('1f8b0800', 'hex'), Buffer.alloc(40, 7)]), 'IOT205'],
  ];
  for (const [name, content, code] of rows) assert.is((await read(await file(name, content))).code, code, name);
  assert.is((await read(join(directory, 'none'))).code, 'IOT201');
  assert.is((await read(directory)).code, 'IOT201');
  assert.is((await read([])).code, 'IOT301');
});

test('damaged gzip: what came before is read, then IOT205', async () => {
  const lines = await readFile(FIXTURE);
  const whole = gzipSync(lines);
  const cut = await read(await file('cut.gz', whole.subarray(0, whole.length >> 1)));
  assert.is(cut.format, 'kernel-events');
  assert.is(cut.code, 'IOT205');
  const all = (await read(FIXTURE)).events;
  assert.ok(cut.events.length > 5 && cut.events.length < all.length);
  // The last event may be a call that only seems never to return, where the damage cut its end off.
  const sure = cut.events.filter((event) => !('ret' in event) || event.ret !== null);
  assert.is(hashCanonical(sure), hashCanonical(all.slice(0, sure.length)));
});

test('a gzip whose beginning alone is larger than what is looked at', async () => {
  let text = '';
  for (let i = 0; i < 120_000; i++)
    text += `${i % 7} write(${i}, "${((i * 2654435761) >>> 0).toString(36)}", ${i * 31}) = 0\n`;
  const packed = gzipSync(text);
  assert.ok(packed.length > 300_000);
  const { format, events, code } = await read(await file('large.gz', packed));
  assert.equal([format, events.length, code], ['strace', 120_000, '']);
});

test('several files of strace -ff are one recording', async () => {
  const one = await file('r.10', '1.000000 close(3) = 0\n1.000003 close(4) = 0\n');
  const two = await file('r.11', '1.000001 close(5) = 0\n');
  const none = await file('r.12', '');
  const { format, events } = await read([one, two, none]);
  assert.is(format, 'strace');
  assert.is(events.length, 3);
  assert.is((await read([one, FIXTURE])).code, 'IOT301');
  assert.is((await read([one, await file('r.13', 'prose')])).code, 'IOT202');
  assert.is((await read([none, none])).code, 'IOT203');
});

const COUNT_STDIN = `
  const { openRecording } = await import(process.argv[1]);
  const recording = await openRecording(process.argv[2]);
  let events = 0;
  for await (const batch of recording.batches()) events += batch.length;
  console.log(recording.info.format, events);
`;

test('standard input and pipes lose nothing of what was looked at', async () => {
  const open = new URL('./open.js', import.meta.url).href;
  const expected = `kernel-events ${(await read(FIXTURE)).events.length}\n`;
  const script = await file('count.mjs', COUNT_STDIN.replace('process.argv[1]', JSON.stringify(open)));
  const gz = await file('stdin.gz', gzipSync(await readFile(FIXTURE)));
  const node = process.execPath;
  const commands = [
    `'${node}' '${script}' - < '${FIXTURE}'`,
    `(head -c 1 '${FIXTURE}'; sleep 0.1; tail -c +2 '${FIXTURE}') | '${node}' '${script}' -`,
    `cat '${gz}' | '${node}' '${script}' -`,
    `mkfifo '${directory}/f' && (cat '${gz}' > '${directory}/f' & '${node}' '${script}' '${directory}/f')`,
  ];
  for (const command of commands) {
    const { stdout } = await run('/bin/sh', ['-c', command]);
    assert.is(stdout, expected, command);
  }
});
