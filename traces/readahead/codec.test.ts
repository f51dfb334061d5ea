import { fc } from '../../core/property.js';
import * as assert from 'uvu/assert';
import { Bytes } from '../../core/bytes.js';
import { BATCH_EVENTS, type Event, type EventBatch, type IoctlEvent, type MmapEvent } from '../../core/event.js';
import { suite } from '../../core/testing.js';
import { openRecording } from '../open.js';
import { eventLists, oneOfEachKind } from '../tape/events.arbitrary.js';
import { BatchDecoder } from './decoder.js';
import { BatchEncoder } from './encoder.js';
import { exact, textRecordings } from './testing.js';

const test = suite('read-ahead: codec');

/** Sends the batches of one stream over, as a worker does. */
function sent(batches: readonly EventBatch[]): Event[] {
  const encoder = new BatchEncoder();
  const decoder = new BatchDecoder();
  return batches.flatMap((batch) => [...decoder.decode(structuredClone(encoder.encode(batch)))].flat());
}

function assertSame(batches: readonly EventBatch[]): void {
  assert.equal(sent(batches).map(exact), batches.flat().map(exact));
}

/** As two batches: what the stream shares and `seq` go on from one to the next. */
function cut(events: readonly Event[]): EventBatch[] {
  const half = events.length >> 1;
  return [events.slice(0, half), events.slice(half)];
}

const HEAD = { seq: 0, tsNs: 5, pid: 1, tid: 1, file: 0, line: 1 };
const OUTCOME = { enteredAt: 0, ret: 0, errno: '', injected: false };
const IOCTL = { fd: 3, path: '/dev/iommu', request: 0x3b85, arg: 0x7ffc_0000_1000, memIn: [], memOut: [] };
const MAPPING = { addr: 0, lengthBytes: 4096, prot: 3, flags: 0x22, fd: -1, path: '', offset: 0 };
/** Fields in the order of the contract, which the arbitrary does not keep. */
const CALL: IoctlEvent = { kind: 'ioctl', ...HEAD, ...OUTCOME, ...IOCTL };
const MMAP: MmapEvent = { kind: 'mmap', ...HEAD, ...OUTCOME, ...MAPPING };

/** An event's values whatever the order of its fields. */
function sorted(event: Event): string {
  return exact(Object.fromEntries(Object.entries(event).sort(([a], [b]) => (a < b ? -1 : 1))) as unknown as Event);
}

test('law: what is decoded is what was encoded, for every kind', () => {
  const law = (events: readonly Event[]) => {
    const back = sent(cut(events));
    assert.equal(back.map(sorted), events.map(sorted));
  };
  fc.assert(fc.property(oneOfEachKind, law), { numRuns: 100 });
  fc.assert(fc.property(eventLists(60), law), { numRuns: 200 });
});

test('the bundled recordings, fields in the same order', async () => {
  assert.ok(textRecordings.length > 15);
  for (const path of textRecordings) {
    const batches: EventBatch[] = [];
    for await (const batch of (await openRecording(path, { readAhead: 'never' })).batches()) batches.push(batch);
    assertSame(batches);
  }
});

const BIG = 0xffff_ffff_ffff_f000n;

test('values at the borders of what is written', () => {
  const calls: Partial<IoctlEvent>[] = [
    { ret: null },
    { ret: -1, errno: 'EINVAL' },
    { ret: 0x7fff_ffff },
    { ret: 0x8000_0000 },
    { ret: Number.MAX_SAFE_INTEGER },
    { ret: 0x20_0000_0000_0000n },
    { ret: BIG, enteredAt: 0 },
    { enteredAt: 2, injected: true, ret: null },
    { enteredAt: 0, injected: true, ret: BIG, errno: 'ENOMEM' },
    { arg: BIG, memIn: [{ addr: BIG, bytes: Bytes.fromHex('0102') }] },
    { arg: 0xffff_ffff_ffff_ffffn, memOut: [{ addr: 0, bytes: Bytes.EMPTY }] },
    { request: 0xffff_ffff },
    { request: 0x8000_0000 },
    { request: 2 ** 32 },
    { fd: -1 },
    { fd: 0x8000_0000 },
    { tid: 0xffff_ffff },
    { pid: 0xffff_ffff },
    { file: 2 ** 31 },
    { line: 2 ** 31 },
    { line: 2 ** 40 },
    { tsNs: Number.MAX_SAFE_INTEGER },
    { tsNs: 0 },
    { path: 'ü\ud800€', errno: 'ü' },
  ];
  const maps: Partial<MmapEvent>[] = [
    { addr: BIG, lengthBytes: BIG, offset: BIG, ret: BIG },
    { prot: -1, flags: -1 },
    { prot: 0xffff_ffff },
    { flags: 0x8000_0000 },
    { fd: 2 ** 31 },
  ];
  const events: Event[] = [
    ...calls.map((part) => ({ ...CALL, ...part })),
    ...maps.map((part) => ({ ...MMAP, ...part })),
  ];
  const placed = events.map((event, seq): Event => {
    const enteredAt = 'enteredAt' in event && event.enteredAt > 0 ? event.enteredAt : seq;
    return { ...event, seq, enteredAt } as Event;
  });
  assertSame([placed]);
  assertSame(placed.map((event) => [event]));
});

test('positions that do not begin at 0, or have gaps', () => {
  assertSame([
    [
      { ...CALL, seq: 7, enteredAt: 7 },
      { ...CALL, seq: 8, enteredAt: 7 },
    ],
    [
      { ...CALL, seq: 9, enteredAt: 9 },
      { ...MMAP, seq: 12, enteredAt: 10 },
    ],
    [{ ...MMAP, seq: 3, enteredAt: 3 }],
  ]);
});

test('more text than the stream shares, and long text', () => {
  const long = 'x'.repeat(5000);
  const batches: Event[][] = [];
  for (let seq = 0; seq < 5 * BATCH_EVENTS; seq++) {
    if (seq % BATCH_EVENTS === 0) batches.push([]);
    const path = seq % 7 === 0 ? long : seq % 3 === 0 ? '/dev/iommu' : `/tmp/${seq}`;
    (batches.at(-1) as Event[]).push({ ...CALL, seq, enteredAt: seq, path, errno: seq % 5 === 0 ? long : '' });
  }
  assertSame(batches);
});

test('many and large statements of memory', () => {
  const large = new Bytes(new Uint8Array(3 << 20).fill(7));
  const many = Array.from({ length: 70_000 }, (_, i) => ({
    addr: i % 2 === 0 ? i : BIG + BigInt(i % 4096),
    bytes: new Bytes(new Uint8Array([i & 255, i >> 8])),
  }));
  assertSame([
    [
      { ...CALL, memIn: many, memOut: [{ addr: 1, bytes: large }] },
      { ...CALL, seq: 1, enteredAt: 1, memIn: [{ addr: 1, bytes: large }], memOut: many },
    ],
  ]);
});

test('an event that no contract knows is refused', () => {
  const strange = { ...CALL, kind: 'signal', text: { nested: 1 } } as unknown as Event;
  assert.throws(() => new BatchEncoder().encode([strange]), TypeError);
});
