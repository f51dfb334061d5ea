import * as assert from 'uvu/assert';
import { suite } from '../../core/testing.js';
import { ev, numbered } from '../../reducers/testing.js';
import type { JudgedEvent } from '../judged.js';
import type { Report } from '../report.js';
import { reportJson } from './report-json.js';
import { reportText } from './report.js';
import { PLAIN, styleFor } from './style.js';

const test = suite('reports');

const EVENTS = numbered([
  ev('mmap', { line: 10, lengthBytes: 0x2000, ret: 0x7f0000000000 }),
  ev('munmap', { line: 12, addr: 0x7f0000000000, lengthBytes: 0x1000 }),
  ev('close', { line: 14, fd: 3 }),
]);
const seen: ReadonlyMap<number, JudgedEvent> = new Map(
  EVENTS.map((event) => [event.seq, { event, judged: undefined }]),
);

const CLEAN: Report = {
  trace: 'run.strace',
  info: { format: 'strace', files: ['run.strace'], startNs: 0n, kernel: '' },
  events: 1234,
  skippedLines: 0,
  calls: { total: 2, match: 1, diverge: 0, learned: 1, unknown: 0 },
  byCall: { VFIO_GET_API_VERSION: { total: 2, match: 1, diverge: 0, learned: 1, unknown: 0 } },
  unknownReasons: [],
  failures: [],
  divergences: [],
  divergenceCount: 0,
  findings: [],
  findingCount: 0,
  diagnostics: [],
  stateHash: 'abcd',
  interrupted: false,
};

const BAD: Report = {
  ...CLEAN,
  skippedLines: 2,
  calls: { total: 5, match: 2, diverge: 1, learned: 1, unknown: 1 },
  byCall: {
    ...CLEAN.byCall,
    VFIO_IOMMU_MAP_DMA: { total: 3, match: 1, diverge: 1, learned: 0, unknown: 1 },
  },
  unknownReasons: [['payload not recorded', 1]],
  divergences: [
    {
      seq: 2,
      file: 0,
      line: 14,
      call: 'VFIO_IOMMU_MAP_DMA',
      event: EVENTS[2] as (typeof EVENTS)[number],
      predicted: { ret: -1, errno: 'EEXIST' },
      recorded: { ret: 0, iova: '00' },
      rule: 'map-dma.overlap',
      reason: 'mapping 0x1000-0x1fff of event 0',
    },
  ],
  divergenceCount: 1,
  findings: [
    {
      invariant: 'memory-pinned',
      severity: 'hazard',
      seq: 1,
      file: 0,
      line: 12,
      message: 'memory went away',
      causes: [0],
      advice: 'unmap it before',
    },
  ],
  findingCount: 1,
  diagnostics: [
    { code: 'IOT101', file: 'run.strace', line: 3, column: 1, message: 'x' },
    { code: 'IOT101', file: 'run.strace', line: 5, column: 1, message: 'y' },
  ],
};

test('a clean trace is three lines', () => {
  assert.is(
    reportText(CLEAN, { shown: 20, events: new Map() }, PLAIN),
    'run.strace  strace, 1,234 events\n  2 device calls: 1 match, 1 learned\n\nnothing found\n',
  );
  const none = { ...CLEAN, calls: { ...CLEAN.calls, total: 0 } };
  assert.match(reportText(none, { shown: 20, events: new Map() }, PLAIN), /no call of a VFIO, iommufd or HMM file/);
});

test('everything there is to say, in order', () => {
  assert.is(
    reportText(BAD, { shown: 20, events: seen }, PLAIN),
    `run.strace  strace, 1,234 events, 2 lines skipped
  5 device calls: 2 match, 1 learned, 1 unknown, 1 diverge

  command             calls  match  learned  unknown  diverge
  VFIO_IOMMU_MAP_DMA      3      1        .        1        1
  and 1 command with nothing but match and learned

unknown, because
  1  payload not recorded

input
  run.strace:3
      IOT101 line not understood: x (and 1 more); the text is no strace line; it is skipped

DIVERGES  VFIO_IOMMU_MAP_DMA  run.strace:14  event 2
  call       close(3) = 0
  predicted  -1 EEXIST
  recorded   0, iova = 00
  rule       map-dma.overlap: the range touches a mapping
  state      mapping 0x1000-0x1fff of event 0

HAZARD  memory-pinned  run.strace:12  event 1
  memory went away
  run.strace:10  event 0
      mmap(NULL, 0x2000, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS) = 0x7f0000000000
  run.strace:12  event 1
      munmap(0x7f0000000000, 0x1000) = 0
  advice     unmap it before

1 divergence, 1 finding
`,
  );
});

test('--max, an interruption and long stories', () => {
  const text = reportText({ ...BAD, interrupted: true }, { shown: 0, events: new Map() }, PLAIN);
  assert.match(text, /and 1 more divergence: --max shows them/);
  assert.match(text, /and 1 more finding: --max shows them/);
  assert.match(text, /interrupted: .*\n1 divergence, 1 finding\n$/);
  const [finding] = BAD.findings;
  const long = {
    ...BAD,
    findings: finding === undefined ? [] : [{ ...finding, seq: 40, causes: [...Array(40).keys()] }],
  };
  const story = reportText(long, { shown: 1, events: new Map() }, PLAIN);
  assert.match(story, /event 4\n {2}… 35 more\n {2}event 40\n/);
});

test('a recording cannot drive the terminal, and colour needs a terminal', () => {
  const hostile = { ...BAD, trace: '\u001b]0;x\u0007' };
  const plain = reportText(hostile, { shown: 9, events: seen }, PLAIN);
  assert.is(plain.split('').filter((c) => c < ' ' && c !== '\n').length, 0);
  const tty = styleFor({ isTTY: true, columns: 100 }, {});
  assert.ok(reportText(BAD, { shown: 9, events: seen }, tty).includes('\u001b['));
});

test('JSON: the documented object, in its order', () => {
  const json = reportJson(BAD);
  assert.equal(Object.keys(json), [
    'trace',
    'format',
    'events',
    'skippedLines',
    'calls',
    'byCall',
    'divergences',
    'findings',
    'diagnostics',
    'stateHash',
  ]);
  assert.is(
    JSON.stringify(json.divergences[0]),
    '{"seq":2,"line":14,"call":"VFIO_IOMMU_MAP_DMA","predicted":{"ret":-1,"errno":"EEXIST"},' +
      '"recorded":{"ret":0,"iova":"00"},"rule":"map-dma.overlap","reason":"mapping 0x1000-0x1fff of event 0"}',
  );
  assert.is(
    JSON.stringify(json.findings[0]),
    '{"invariant":"memory-pinned","severity":"hazard","seq":1,"line":12,"message":"memory went away","causes":[0],' +
      '"advice":"unmap it before"}',
  );
  assert.equal(json.diagnostics[1], { code: 'IOT101', line: 5, message: 'y' });
});

test('JSON: fields that come only when there is something to say', () => {
  const more = reportJson({ ...BAD, interrupted: true, divergenceCount: 20_000 });
  assert.is(more.interrupted, true);
  assert.equal(more.truncated, { divergences: 20_000, findings: 1 });
  const several = reportJson({ ...BAD, info: { ...BAD.info, files: ['a.1', 'a.2'] } });
  assert.is(several.divergences[0]?.file, 'a.1');
  assert.is(several.findings[0]?.file, 'a.1');
});
