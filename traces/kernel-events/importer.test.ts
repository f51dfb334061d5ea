import { readFileSync } from 'node:fs';
import * as assert from 'uvu/assert';
import { hashCanonical } from '../../core/canonical.js';
import { InputError } from '../../core/errors.js';
import type { Event, IoctlEvent } from '../../core/event.js';
import { suite } from '../../core/testing.js';
import { KernelEventRecording, WINDOW_RECORDS } from './importer.js';

const test = suite('kernel-event lines');
const HEAD = '"pid":7,"tid":7';

async function* chunks(text: string, size = text.length): AsyncGenerator<Uint8Array> {
  const bytes = Buffer.from(text);
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

async function read(text: string, size?: number): Promise<{ events: Event[]; recording: KernelEventRecording }> {
  const recording = new KernelEventRecording(chunks(text, size), 'r.jsonl');
  const events: Event[] = [];
  for await (const batch of recording.batches()) events.push(...batch);
  return { events, recording };
}

function codes(recording: KernelEventRecording): string[] {
  return recording.diagnostics.map((d) => `${d.code}:${d.line}:${d.column}`);
}

const ENTER = `{"ts":10,${HEAD},"ev":"enter","call":"ioctl","fd":4,"req":"0xc0284800","arg":"0x7fff483d0cb0","mem":"0102"}`;
const EXIT = `{"ts":30,${HEAD},"ev":"exit","call":"ioctl","ret":-14,"arg":"0x7fff483d0cb0","mem":"0103"}`;
const CLOSE = `{"ts":20,"pid":7,"tid":8,"ev":"call","call":"close","args":[3]}`;

test('the two halves of a call become one event', async () => {
  const { events, recording } = await read(`${ENTER}\n${CLOSE}\n${EXIT}\n`);
  assert.is(events.length, 2);
  const call = events[1] as IoctlEvent;
  const { memIn, memOut, ...rest } = call;
  assert.equal(rest, {
    kind: 'ioctl',
    seq: 1,
    tsNs: 20,
    pid: 7,
    tid: 7,
    file: 0,
    line: 1,
    enteredAt: 0,
    ret: -1,
    errno: 'EFAULT',
    injected: false,
    fd: 4,
    path: '',
    request: 0xc0284800,
    arg: 0x7fff483d0cb0,
  });
  assert.is(memIn[0]?.bytes.toHex(), '0102');
  assert.is(memOut[0]?.bytes.toHex(), '0103');
  assert.is(memOut[0]?.addr, 0x7fff483d0cb0);
  assert.is(recording.info.startNs, 10n, 'the clock of the first line');
  assert.equal(codes(recording), []);
});

test('a call that another thread overlaps shows where it began', async () => {
  const munmap = `{"ts":20,"pid":7,"tid":8,"ev":"call","call":"munmap","args":["0x1000","0x1000"]}`;
  const rows: [string, string[]][] = [
    [`${ENTER}\n${munmap}\n${munmap}\n${EXIT}`, ['enter 7', 'munmap 8', 'munmap 8', 'ioctl 7']],
    [`${ENTER}\n${CLOSE}\n${EXIT}`, ['close 8', 'ioctl 7']],
    [`${ENTER}\n${munmap.replace('"tid":8', '"tid":7')}\n${EXIT}`, ['munmap 7', 'ioctl 7']],
    [`${ENTER}\n${EXIT}\n${munmap}`.replace('"ts":20', '"ts":40'), ['ioctl 7', 'munmap 8']],
    [`${ENTER.replace('0xc0284800', '0x5401')}\n${munmap}\n${EXIT}`, ['munmap 8', 'ioctl 7']],
    [`${ENTER}\n{"ts":12,"pid":9,"tid":9,"ev":"exit_task"}\n${EXIT}`, ['enter 7', 'exit 9', 'ioctl 7']],
    [`${ENTER}\n{"ts":12,"pid":9,"tid":9,"ev":"fork","child":10}\n${EXIT}`, ['enter 7', 'fork 9', 'ioctl 7']],
  ];
  for (const [text, kinds] of rows) {
    const { events } = await read(`${text}\n`);
    assert.equal(
      events.map((event) => `${event.kind} ${event.tid}`),
      kinds,
      text,
    );
  }
  const { events } = await read(`${ENTER}\n${munmap}\n`);
  const [first] = events;
  assert.equal(first?.kind === 'enter' && [first.call, first.fd, first.request, first.line, first.seq], [
    'ioctl',
    4,
    0xc028_4800,
    1,
    0,
  ]);
});

test('every call and what it stands for', async () => {
  const rows: [string, object][] = [
    [
      '"ev":"call","call":"mmap","args":["0x0","0x2000",3,34,-1,"0x0"],"ret":"0x7f3042b44000"',
      { kind: 'mmap', addr: 0, lengthBytes: 0x2000, prot: 3, flags: 34, fd: -1, offset: 0, ret: 0x7f3042b44000 },
    ],
    [
      '"ev":"call","call":"mmap","args":["0x0","0x2000",3,34,-1,"0x0"],"ret":"0xfffffffffffffff4"',
      { kind: 'mmap', ret: -1, errno: 'ENOMEM' },
    ],
    [
      '"ev":"call","call":"munmap","args":["0xffffffffffffff00","0x100"]',
      { kind: 'munmap', addr: 0xffff_ffff_ffff_ff00n, lengthBytes: 0x100, ret: 0, errno: '' },
    ],
    ['"ev":"call","call":"munmap","args":["0x0","0x0"],"ret":-22', { kind: 'munmap', ret: -1, errno: 'EINVAL' }],
    [
      '"ev":"call","call":"mprotect","args":["0x1000","0x4000",1]',
      { kind: 'mprotect', prot: 1, lengthBytes: 0x4000, ret: null },
    ],
    ['"ev":"call","call":"madvise","args":["0x1000","0x4000",23]', { kind: 'madvise', advice: 23, ret: 0 }],
    [
      '"ev":"call","call":"mremap","args":["0x1000","0x1000","0x2000",3,"0x9000"],"ret":"0x9000"',
      { kind: 'mremap', oldLengthBytes: 0x1000, newLengthBytes: 0x2000, flags: 3, newAddr: 0x9000, ret: 0x9000 },
    ],
    ['"ev":"call","call":"openat","path":"/dev/x","ret":3', { kind: 'open', call: 'openat', path: '/dev/x', ret: 3 }],
    ['"ev":"call","call":"openat","path":"/x","ret":-2', { kind: 'open', ret: -1, errno: 'ENOENT' }],
    ['"ev":"call","call":"close","args":[-5]', { kind: 'close', fd: -5, ret: 0 }],
    ['"ev":"call","call":"getpid","args":[],"ret":7', { kind: 'other', call: 'getpid', ret: 7 }],
    ['"ev":"exit_task"', { kind: 'exit', call: 'exit', status: 0 }],
    [
      '"ev":"fault","mm":"0xffff88810006d780","addr":"0x560fee932094","flags":"0x215","ret":"0x404"',
      { kind: 'fault', mm: 0xffff88810006d780n, addr: 0x560fee932094, flags: 0x215, ret: 0x404 },
    ],
    [
      '"ev":"invalidate_start","mm":"0x1","start":"0x1000","end":"0x3000","type":6,"flags":"0x1","owner":"0x20000000000001"',
      { kind: 'invalidateStart', start: 0x1000, last: 0x2fff, type: 6, flags: 1, owner: 0x20_0000_0000_0001n },
    ],
    [
      '"ev":"invalidate_end","mm":"0x1","start":"0x0","end":"0xffffffffffffffff","type":0',
      { kind: 'invalidateEnd', start: 0, last: 0xffff_ffff_ffff_fffen, flags: 0, owner: 0 },
    ],
    [
      '"ev":"mirror_map","mirror":"0xa0","mm":"0x1","start":"0x1000","end":"0x3000","flags":3,"seq":"0x11","owner":"0xb","memory":"0xc","driver":"rxe"',
      { kind: 'mirrorMap', mirror: 0xa0, mm: 1, start: 0x1000, last: 0x2fff, flags: 3, notifierSeq: 17, owner: 11 },
    ],
    [
      '"ev":"mirror_map","mirror":"0xa0","mm":"0x1","start":"0x1000","end":"0x2000","flags":1',
      { kind: 'mirrorMap', flags: 1, notifierSeq: null, owner: 0, memory: 0, driver: '' },
    ],
    [
      '"ev":"mirror_unmap","mirror":"0xa0","mm":"0x1","start":"0x0","end":"0xffffffffffffffff"',
      { kind: 'mirrorUnmap', mirror: 0xa0, mm: 1, start: 0, last: 0xffff_ffff_ffff_fffen },
    ],
    [
      '"ev":"mirror_invalidate","mirror":"0xa0","mm":"0x1","start":"0x1000","end":"0x3000","seq":19',
      { kind: 'mirrorInvalidate', start: 0x1000, last: 0x2fff, notifierSeq: 19 },
    ],
    [
      '"ev":"mirror_invalidate","mirror":"0xa0","mm":"0x1","start":"0x1000","end":"0x3000"',
      { kind: 'mirrorInvalidate', notifierSeq: null },
    ],
    ['"ev":"mirror_end","mirror":"0xa0","mm":"0x1"', { kind: 'mirrorEnd', mirror: 0xa0, mm: 1 }],
  ];
  for (const [fields, expected] of rows) {
    const { events, recording } = await read(`{"ts":5,${HEAD},${fields}}\n`);
    assert.equal(codes(recording), [], fields);
    const event = events[0] as unknown as Record<string, unknown>;
    for (const [name, value] of Object.entries(expected)) assert.is(event[name], value, `${fields}: ${name}`);
  }
});

test('bad lines are named by line and column, skipped and counted', async () => {
  const rows: [string, string][] = [
    ['{"ts":5,', 'IOT110:2:9'],
    ['{"ts":5 "pid":7}', 'IOT110:2:9'],
    ['{"ts":x}', 'IOT110:2:7'],
    ['[1]', 'IOT110:2:1'],
    ['null', 'IOT110:2:1'],
    ['garbage \u0000\u0001', 'IOT110:2:1'],
    [`{"ts":5,${HEAD},"ev":"what"}`, 'IOT110:2:25'],
    [`{"ts":5,${HEAD}}`, 'IOT110:2:0'],
    [`{"ts":"x",${HEAD},"ev":"exit_task"}`, 'IOT105:2:2'],
    [`{"ts":-5,${HEAD},"ev":"exit_task"}`, 'IOT110:2:2'],
    [`{"ts":5,"pid":7,"tid":99999999999,"ev":"exit_task"}`, 'IOT105:2:17'],
    [`{"ts":5,${HEAD},"ev":"call","call":"munmap","args":["0x1"]}`, 'IOT110:2:53'],
    [`{"ts":5,${HEAD},"ev":"call","call":"munmap","args":["0x1ffffffffffffffff","0x1"]}`, 'IOT105:2:53'],
    [`{"ts":5,${HEAD},"ev":"call","call":"close","args":[{}]}`, 'IOT110:2:52'],
    [`{"ts":5,${HEAD},"ev":"exit","call":"ioctl","ret":0}`, 'IOT104:2:0'],
    [`{"ts":5,${HEAD},"ev":"fork","child":-2}`, 'IOT110:2:37'],
    [`{"ts":5,${HEAD},"ev":"enter","call":"ioctl","fd":1,"req":1,"arg":1,"mem":"0g"}`, 'IOT110:2:76'],
    [`{"ts":5,${HEAD},"ev":"invalidate_end","mm":1,"start":"0x2","end":"0x2","type":0}`, 'IOT110:2:68'],
    [`{"ts":5,${HEAD},"ev":"mirror_map","mirror":1,"mm":1,"start":"0x1001","end":"0x2000","flags":1}`, 'IOT110:2:61'],
    [`{"ts":5,${HEAD},"ev":"mirror_map","mirror":1,"mm":1,"start":"0x1000","end":"0x1fff","flags":1}`, 'IOT110:2:78'],
    [`{"ts":5,${HEAD},"ev":"mirror_map","mirror":1,"mm":1,"start":"0x1000","end":"0x2000","flags":8}`, 'IOT110:2:93'],
    [`{"ts":5,${HEAD},"ev":"mirror_map","mirror":1,"mm":1,"start":"0x1000","end":"0x2000"}`, 'IOT110:2:0'],
    [`{"ts":5,${HEAD},"ev":"mirror_unmap","mm":1,"start":"0x1000","end":"0x2000"}`, 'IOT110:2:0'],
    [`{"ts":5,${HEAD},"ev":"mirror_end","mirror":"0x10000000000000000","mm":1}`, 'IOT105:2:43'],
  ];
  for (const [line, code] of rows) {
    const { events, recording } = await read(`${CLOSE}\n${line}\n${CLOSE}\n`);
    assert.equal(codes(recording), [code], line);
    assert.is(recording.skippedLines, 1, line);
    assert.is(events.length, 2, line);
  }
});

test('a recording that ends inside a line', async () => {
  for (let cut = 2; cut < CLOSE.length; cut++) {
    const { events, recording } = await read(`${CLOSE}\n${CLOSE.slice(0, cut)}`);
    assert.is(events.length, 1);
    assert.equal(codes(recording), [`IOT102:2:${cut + 1}`]);
  }
  const whole = await read(`${CLOSE}\n${CLOSE}`);
  assert.is(whole.events.length, 2);
  assert.equal(codes(whole.recording), []);
});

test('calls that never return', async () => {
  const cut = await read(`${ENTER}\n${CLOSE}\n`);
  assert.equal(codes(cut.recording), ['IOT106:1:0']);
  const call = cut.events[1] as IoctlEvent;
  assert.equal([call.kind, call.ret, call.errno, call.enteredAt, call.seq], ['ioctl', null, '', 0, 1]);
  assert.is(cut.recording.skippedLines, 0);

  const killed = await read(`${ENTER}\n{"ts":11,${HEAD},"ev":"exit_task"}\n`);
  assert.equal(
    killed.events.map((event) => event.kind),
    ['ioctl', 'exit'],
  );

  const again = await read(`${ENTER}\n${ENTER}\n${EXIT}\n`);
  assert.equal(
    again.events.map((event) => (event as IoctlEvent).ret),
    [null, -1],
  );
});

test('events of several CPUs are put into order', async () => {
  const at = (ts: number, fd: number) => `{"ts":${ts},${HEAD},"ev":"call","call":"close","args":[${fd}]}\n`;
  const { events, recording } = await read(at(30, 1) + at(10, 2) + at(20, 3) + at(10, 4));
  assert.equal(
    events.map((event) => [(event as { fd: number }).fd, event.tsNs, event.seq]),
    [
      [2, 0, 0],
      [4, 0, 1],
      [3, 10, 2],
      [1, 20, 3],
    ],
  );
  assert.equal(codes(recording), []);
});

test('what is later than the window reaches keeps its order of arrival', async () => {
  let text = '';
  for (let i = 0; i <= WINDOW_RECORDS + 9; i++)
    text += `{"ts":${1000 + i},${HEAD},"ev":"call","call":"close","args":[1]}\n`;
  text += `{"ts":500,${HEAD},"ev":"call","call":"close","args":[2]}\n`;
  const { events, recording } = await read(text, 4096);
  assert.equal(codes(recording), [`IOT111:${WINDOW_RECORDS + 11}:2`]);
  const late = events.findIndex((event) => event.kind === 'close' && event.fd === 2);
  assert.is(late, 10);
  assert.is(events[late]?.tsNs, 0, 'never negative');
});

test('a clock of more than 53 bits stays exact', async () => {
  const at = (ts: string) => `{"ts":${ts},${HEAD},"ev":"exit_task"}\n`;
  const { events, recording } = await read(
    at('9007199254740995') + at('9007199254740993') + at('18446744073709551615'),
  );
  assert.equal(
    events.map((event) => event.tsNs),
    [0, 2],
  );
  assert.is(recording.info.startNs, 9007199254740993n);
  assert.equal(codes(recording), ['IOT105:3:0']);
});

test('threads, children and vfork', async () => {
  const fault = (tid: number, pid: number, mm: number) =>
    `{"ts":${tid},"pid":${pid},"tid":${tid},"ev":"fault","mm":${mm},"addr":"0x0","flags":0,"ret":0}\n`;
  const fork = (child: number) => `{"ts":${child},${HEAD},"ev":"fork","child":${child}}\n`;
  const text =
    fault(7, 7, 1) + fork(8) + fault(8, 7, 1) + fork(9) + fault(9, 9, 2) + fork(10) + fault(10, 10, 1) + fork(11);
  const { events } = await read(text);
  const forks = events.flatMap((event) => (event.kind === 'fork' ? [[event.ret, event.flags]] : []));
  assert.equal(forks, [
    [8, 0x50f00],
    [9, 0],
    [10, 0x4100],
    [11, 0],
  ]);
});

test('giant lines cost no memory', async () => {
  async function* giant(): AsyncGenerator<Uint8Array> {
    for (let i = 0; i < 64; i++) yield Buffer.alloc(1 << 20, 0x5b);
    yield Buffer.from(`\n${CLOSE}\n`);
  }
  const recording = new KernelEventRecording(giant(), 'r.jsonl');
  let count = 0;
  for await (const batch of recording.batches()) count += batch.length;
  assert.is(count, 1);
  assert.equal(codes(recording), ['IOT103:1:0']);
});

test('giant payloads neither fill memory nor a batch', async () => {
  const mem = '00'.repeat(400_000);
  async function* many(): AsyncGenerator<Uint8Array> {
    for (let i = 0; i < 6000; i++) yield Buffer.from(`{"ts":${i},${HEAD},"ev":"exit_task"}\n`);
    for (let i = 0; i < 60; i++)
      yield Buffer.from(
        `{"ts":${6000 + i},"pid":1,"tid":${i},"ev":"enter","call":"ioctl","fd":4,"req":1,"arg":1,"mem":"${mem}"}\n`,
      );
  }
  const recording = new KernelEventRecording(many(), 'r.jsonl');
  const sizes: number[] = [];
  let largest = 0;
  for await (const batch of recording.batches()) {
    sizes.push(batch.length);
    for (const event of batch)
      if (event.kind === 'ioctl') largest = Math.max(largest, event.memIn[0]?.bytes.length ?? 0);
  }
  assert.is(
    sizes.reduce((sum, size) => sum + size, 0),
    6060,
  );
  assert.ok(Math.max(...sizes) <= 4096);
  assert.is(largest, 16384);
});

test('damaged compressed data: what came before is given first', async () => {
  const failure = new InputError({ code: 'IOT205', file: 'r', line: 0, column: 0, message: '' });
  async function* damaged(): AsyncGenerator<Uint8Array> {
    yield Buffer.from(`${CLOSE}\n`);
    throw failure;
  }
  const recording = new KernelEventRecording(damaged(), 'r.jsonl');
  let count = 0;
  let caught: unknown;
  try {
    for await (const batch of recording.batches()) count += batch.length;
  } catch (error) {
    caught = error;
  }
  assert.is(count, 1);
  assert.is(caught, failure);
});

test('an excerpt of a real recording, in chunks of any size', async () => {
  const text = readFileSync(
    new URL('../../../traces/kernel-events/fixtures/anon-teardown.jsonl', import.meta.url),
    'utf8',
  );
  const { events, recording } = await read(text);
  const counts: Record<string, number> = {};
  for (const event of events) counts[event.kind] = (counts[event.kind] ?? 0) + 1;
  assert.equal(codes(recording), []);
  // Counted with grep; ioctl counts the exits.
  const expected = (pattern: RegExp) => text.split('\n').filter((line) => pattern.test(line)).length;
  assert.is(counts['ioctl'], expected(/"ev":"exit"/));
  assert.is(counts['fault'], expected(/"ev":"fault"/));
  assert.is(counts['mmap'], expected(/"call":"mmap"/));
  assert.is(counts['fork'], expected(/"ev":"fork"/));
  assert.ok(events.some((event) => event.kind === 'fork' && event.flags === 0x50f00));
  assert.ok(events.some((event) => event.kind === 'ioctl' && event.enteredAt < event.seq && event.errno === 'EFAULT'));
  for (const size of [1, 7, 1000]) {
    const same = await read(text, size);
    assert.is(hashCanonical(same.events), hashCanonical(events));
  }
});
