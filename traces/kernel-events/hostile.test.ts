import { readFileSync } from 'node:fs';
import { fc } from '../../core/property.js';
import * as assert from 'uvu/assert';
import type { Event } from '../../core/event.js';
import { suite } from '../../core/testing.js';
import { decodeChunk } from '../tape/chunk-decoder.js';
import { ChunkEncoder } from '../tape/chunk-encoder.js';
import { KernelEventRecording } from './importer.js';

const test = suite('hostile kernel-event lines');
const MIRROR = '"pid":7,"tid":7,"mirror":"0xa0","mm":"0x1"';
const LINES = [
  `{"ts":1,${MIRROR},"ev":"mirror_map","start":"0x1000","end":"0x3000","flags":3,"seq":17,"owner":"0xb","memory":"0xb"}`,
  `{"ts":2,${MIRROR},"ev":"mirror_invalidate","start":"0x1000","end":"0x3000","seq":19}`,
  `{"ts":3,${MIRROR},"ev":"mirror_unmap","start":"0x1000","end":"0x3000"}`,
  `{"ts":4,${MIRROR},"ev":"mirror_end"}`,
  ...readFileSync(
    new URL('../../../traces/kernel-events/fixtures/anon-teardown.jsonl', import.meta.url),
    'latin1',
  ).split('\n'),
];

/** Reads, and checks what every reader behind relies on. The tape's encoder refuses events that break the contract. */
async function readSafely(text: string): Promise<readonly Event[]> {
  const source = async function* () {
    yield Buffer.from(text, 'latin1');
  };
  const recording = new KernelEventRecording(source(), 'r.jsonl');
  const events: Event[] = [];
  for await (const batch of recording.batches()) events.push(...batch);
  const encoder = new ChunkEncoder();
  for (const [seq, event] of events.entries()) {
    assert.is(event.seq, seq);
    encoder.add(event);
  }
  if (events.length > 0) assert.is(decodeChunk(encoder.finish()).length, events.length);
  assert.ok(recording.skippedLines <= text.split('\n').length);
  return events;
}

test('any value in any field', async () => {
  const names = [
    'ts',
    'pid',
    'tid',
    'ev',
    'call',
    'fd',
    'req',
    'arg',
    'mem',
    'ret',
    'args',
    'path',
    'child',
    'mm',
    'end',
    'start',
    'mirror',
    'seq',
    'flags',
    'driver',
  ];
  const odd = fc.oneof(
    fc.jsonValue({ maxDepth: 2 }),
    fc.double(),
    fc.maxSafeInteger(),
    fc.constantFrom('0x', '0xffffffffffffffff', '0x10000000000000000', '-1', '', null, -1, 1e308, 2 ** 53, '__proto__'),
    fc.constantFrom(
      'enter',
      'exit',
      'call',
      'fork',
      'fault',
      'exit_task',
      'invalidate_start',
      'mirror_map',
      'mirror_end',
      'ioctl',
      'mmap',
      'close',
    ),
  );
  const change = fc.record({ at: fc.nat(LINES.length - 2), name: fc.constantFrom(...names), value: odd });
  await fc.assert(
    fc.asyncProperty(fc.array(change, { minLength: 1, maxLength: 20 }), async (changes) => {
      const lines = [...LINES];
      for (const { at, name, value } of changes)
        lines[at] = JSON.stringify({ ...(JSON.parse(lines[at] as string) as object), [name]: value });
      await readSafely(lines.join('\n'));
    }),
    { numRuns: 300 },
  );
});

test('any bytes anywhere, cut anywhere', async () => {
  const whole = LINES.join('\n');
  const change = fc.tuple(
    fc.nat(whole.length - 1),
    fc.integer({ min: 0, max: 255 }).map((code) => String.fromCharCode(code)),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(change, { maxLength: 30 }), fc.nat(whole.length), async (changes, length) => {
      const bytes = whole.split('');
      for (const [at, byte] of changes) bytes[at] = byte;
      await readSafely(bytes.slice(0, length).join(''));
    }),
    { numRuns: 200 },
  );
});

test('lines in any order', async () => {
  const lines = LINES.filter((line) => line !== '');
  await fc.assert(
    fc.asyncProperty(fc.shuffledSubarray(lines), async (some) => {
      const events = await readSafely(some.join('\n'));
      const times = events.map((event) => event.tsNs);
      assert.equal(
        times,
        [...times].sort((a, b) => a - b),
        'the window holds all of them',
      );
    }),
    { numRuns: 100 },
  );
});
