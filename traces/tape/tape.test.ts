import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fc } from '../../core/property.js';
import * as assert from 'uvu/assert';
import { Bytes } from '../../core/bytes.js';
import { hashCanonical } from '../../core/canonical.js';
import { type Diagnostic, InputError } from '../../core/errors.js';
import type { CloseEvent, Event, RecordingInfo } from '../../core/event.js';
import { suite } from '../../core/testing.js';
import { KernelEventRecording } from '../kernel-events/importer.js';
import { eventLists, fixedHash } from './events.arbitrary.js';
import { openTape, type Tape } from './reader.js';
import { SCHEMA_VERSION } from './schema.js';
import { memoryStorage } from './storage.js';
import { TapeWriter, writeTape } from './writer.js';

const test = suite('tape files');

const INFO: RecordingInfo = { format: 'strace', files: ['a.strace', 'b'], startNs: -5n, kernel: '7.2' };
const WARNING: Diagnostic = { code: 'IOT101', message: 'what', file: 'a.strace', line: 7, column: 3 };
const ABOUT = { diagnostics: [WARNING], skippedLines: 4 };

function closes(count: number): Event[] {
  return Array.from({ length: count }, (_, seq) => ({
    kind: 'close',
    seq,
    tsNs: seq * 10,
    pid: 1,
    tid: 1,
    file: 0,
    line: seq + 1,
    enteredAt: seq,
    ret: 0,
    errno: '',
    injected: false,
    fd: seq,
    path: '',
  }));
}

async function tapeBytes(events: readonly Event[], chunkEvents: number, finish = true): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  const sink = { write: async (bytes: Uint8Array) => parts.push(bytes.slice()), close: async () => {} };
  const tape = await TapeWriter.to(sink, INFO, { chunkEvents, writer: 'test 1' });
  await tape.write(events);
  if (finish) await tape.finish(ABOUT);
  else await tape.abort();
  return Buffer.concat(parts);
}

async function readAll(tape: Tape, fromSeq?: number): Promise<Event[]> {
  const events: Event[] = [];
  for await (const batch of tape.batches(fromSeq)) events.push(...batch);
  return events;
}

function codes(tape: Tape): string[] {
  return tape.diagnostics.map((d) => d.code);
}

test('law: a tape gives back what was written, from any event on', async () => {
  await fc.assert(
    fc.asyncProperty(
      eventLists(40),
      fc.integer({ min: 1, max: 12 }),
      fc.nat({ max: 45 }),
      async (events, size, from) => {
        const tape = await openTape(memoryStorage('t', await tapeBytes(events, size)));
        assert.is(hashCanonical(await readAll(tape)), hashCanonical(events));
        assert.is(hashCanonical(await readAll(tape, from)), hashCanonical(events.slice(from)));
        assert.is(tape.chunks.length, Math.ceil(events.length / size));
        assert.is(tape.events, events.length);
        assert.equal(codes(tape), ['IOT101']);
      },
    ),
    { numRuns: 60 },
  );
});

test('the recording says of itself what it said at the import', async () => {
  const tape = await openTape(memoryStorage('t', await tapeBytes(closes(3), 2)));
  assert.equal(tape.info, { ...INFO, format: 'tape' });
  assert.equal(
    [tape.importedFrom, tape.writer, tape.schema, tape.skippedLines],
    ['strace', 'test 1', SCHEMA_VERSION, 4],
  );
  assert.equal(tape.diagnostics, [WARNING]);
});

test('a tape cut at any byte gives every whole chunk before the cut, and says so', async () => {
  const whole = await tapeBytes(closes(12), 4);
  const { chunks } = await openTape(memoryStorage('t', whole));
  const ends = [...chunks.slice(1).map((chunk) => chunk.offset), Number.NaN];
  const torn = await tapeBytes(closes(12), 4, false);
  assert.ok(torn.length < whole.length);
  for (let length = 0; length < whole.length; length++) {
    const storage = memoryStorage('t', whole.subarray(0, length));
    if (length < (chunks[0]?.offset as number)) {
      await assertRefused(() => openTape(storage), ['IOT207']);
      continue;
    }
    const tape = await openTape(storage);
    const read = (await readAll(tape)).length;
    const full = ends.filter((end) => end <= length).length * 4;
    assert.ok(read >= full && read <= 12, `${read} events of ${length} bytes`);
    assert.is(read % 4, 0);
    const own = codes(tape).filter((code) => code !== WARNING.code);
    assert.ok(own.length === 1 && ['IOT120', 'IOT121'].includes(own[0] as string), own.join());
  }
});

test('one damaged byte, wherever it is, costs one chunk at most', async () => {
  const whole = await tapeBytes(closes(12), 4);
  const { chunks } = await openTape(memoryStorage('t', whole));
  const headEnd = chunks[0]?.offset as number;
  for (let at = 0; at < whole.length; at++) {
    for (const flip of [0x01, 0xff]) {
      const bytes = Buffer.from(whole);
      bytes[at] = (bytes[at] as number) ^ flip;
      if (at < headEnd) {
        // An older schema is as good as the newest to a tape that holds no newer kinds.
        const olderSchema = at === 8 && (bytes[at] as number) < SCHEMA_VERSION;
        if (at !== 10 && at !== 11 && !olderSchema)
          await assertRefused(() => openTape(memoryStorage('t', bytes)), ['IOT204', 'IOT207']);
        continue;
      }
      const tape = await openTape(memoryStorage('t', bytes));
      const seqs = (await readAll(tape)).map((event) => event.seq);
      const hit = chunks.findLastIndex((chunk) => chunk.offset <= at);
      const inTail = seqs.length === 12;
      if (!inTail)
        assert.equal(
          seqs,
          closes(12)
            .map((e) => e.seq)
            .filter((seq) => Math.floor(seq / 4) !== hit),
        );
      assert.ok(codes(tape).includes('IOT121'), `${at}: ${codes(tape).join()}`);
      if (!inTail) assert.is(tape.skippedLines, 8);
    }
  }
});

test('a damaged chunk in a tape without an index is stepped over as well', async () => {
  const torn = await tapeBytes(closes(12), 4, false);
  const { chunks } = await openTape(memoryStorage('t', await tapeBytes(closes(12), 4)));
  const second = chunks[1]?.offset as number;
  for (const at of [second, second + 5, second + 17, second + 40]) {
    const bytes = Buffer.from(torn);
    bytes[at] = (bytes[at] as number) ^ 0x10;
    const tape = await openTape(memoryStorage('t', bytes));
    assert.equal(
      (await readAll(tape)).map((event) => event.seq),
      [0, 1, 2, 3],
    );
    assert.equal([...codes(tape)].sort(), ['IOT120', 'IOT121'].slice(0, codes(tape).length));
  }
});

test('random damage never does more than lose events', async () => {
  const whole = await tapeBytes(closes(12), 4);
  const change = fc.tuple(fc.nat({ max: whole.length - 1 }), fc.nat({ max: 255 }));
  await fc.assert(
    fc.asyncProperty(fc.array(change, { maxLength: 6 }), fc.nat({ max: whole.length }), async (changes, length) => {
      const bytes = Buffer.from(whole.subarray(0, length));
      for (const [at, value] of changes) if (at < length) bytes[at] = value;
      try {
        const seqs = (await readAll(await openTape(memoryStorage('t', bytes)))).map((event) => event.seq);
        assert.equal(
          seqs,
          [...new Set(seqs)].sort((a, b) => a - b),
        );
      } catch (error) {
        assert.instance(error, InputError);
      }
    }),
    { numRuns: 500 },
  );
});

test('a newer schema is refused', async () => {
  const bytes = await tapeBytes(closes(1), 4);
  bytes.writeUInt16LE(SCHEMA_VERSION + 1, 8);
  await assertRefused(() => openTape(memoryStorage('t', bytes)), ['IOT204']);
});

test('large events make small chunks', async () => {
  const bytes = new Bytes(new Uint8Array(1 << 20));
  const { fd: _fd, ...head } = closes(1)[0] as CloseEvent;
  const events = Array.from({ length: 12 }, (_, seq): Event => {
    const io = {
      kind: 'io',
      call: 'read',
      fd: 3,
      offset: null,
      lengthBytes: 1 << 20,
      data: bytes,
      addr: null,
    } as const;
    return { ...head, ...io, seq, enteredAt: seq };
  });
  const tape = await openTape(memoryStorage('t', await tapeBytes(events, 4096)));
  assert.is(tape.chunks.length, 3);
  assert.is(hashCanonical(await readAll(tape)), hashCanonical(events));
});

test('files: import, read, seek; what cannot be read or written', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'iotape-'));
  try {
    const path = join(directory, 'x.tape');
    const lines = await readFile(
      new URL('../../../traces/kernel-events/fixtures/anon-teardown.jsonl', import.meta.url),
    );
    const source = async function* () {
      yield lines;
      yield Buffer.from('{"ts":');
    };
    const summary = await writeTape(path, new KernelEventRecording(source(), 'k.jsonl'), { chunkEvents: 20 });
    const tape = await openTape(path);
    assert.is(tape.events, summary.events);
    assert.is(tape.chunks.length, summary.chunks);
    assert.is((await readFile(path)).length, summary.bytes);
    assert.equal(codes(tape), ['IOT102']);
    assert.is(tape.skippedLines, 1);
    assert.is(tape.info.startNs, 235948085307n);
    assert.is((await readAll(tape, 50))[0]?.seq, 50);
    for await (const _ of tape.batches()) break;
    const again = join(directory, 'y.tape');
    await writeTape(again, tape);
    assert.is(hashCanonical(await readAll(await openTape(again))), hashCanonical(await readAll(tape)));

    await writeFile(path, '');
    await assertRefused(() => openTape(path), ['IOT207']);
    await assertRefused(() => openTape(join(directory, 'none')), ['IOT201']);
    await assertRefused(() => openTape(directory), ['IOT201']);
    await assertRefused(() => writeTape(directory, tape), ['IOT301']);
  } finally {
    await rm(directory, { recursive: true });
  }
});

test('the tape of schema 1 stays readable', async () => {
  const tape = await openTape(new URL('../../../traces/tape/fixtures/schema-1.tape', import.meta.url).pathname);
  const events = await readAll(tape);
  assert.equal(
    [tape.schema, tape.importedFrom, tape.chunks.length, tape.diagnostics.length],
    [1, 'kernel-events', 2, 0],
  );
  assert.is(events.length, HASH_OF_SCHEMA_1.events);
  assert.is(fixedHash(events), HASH_OF_SCHEMA_1.sha256);
});

/** Of traces/tape/fixtures/schema-1.tape; never changes (an upcaster that adds a field adds a new row). */
const HASH_OF_SCHEMA_1 = { events: 102, sha256: '58df5245fbce91555e49847f0c513f636acd5e7a6abbaf55b6262181ebfb24c3' };

async function assertRefused(action: () => Promise<unknown>, expected: readonly string[]): Promise<void> {
  try {
    await action();
  } catch (error) {
    assert.instance(error, InputError);
    assert.ok(expected.includes((error as InputError).diagnostic.code), (error as InputError).message);
    return;
  }
  assert.unreachable(`not refused with ${expected.join()}`);
}
