import * as assert from 'uvu/assert';
import { suite } from '../../core/testing.js';
import { IOPT_RULES } from '../../reducers/iommufd/iopt.js';
import type { Rule } from '../../reducers/iommufd/rules.js';
import { ev, numbered } from '../../reducers/testing.js';
import { MAP_RULES } from '../../reducers/vfio/type1/map.js';
import type { JudgedEvent } from '../judged.js';
import { type LookBack, NO_LOOK_BACK } from '../look-back.js';
import type { Report } from '../report.js';
import type { UnknownGroup } from '../unknowns.js';
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

const SEEN: LookBack = { events: seen, histories: new Map(), places: new Map([[0, { file: 0, line: 10 }]]) };

const UNKNOWN: UnknownGroup = {
  call: 'VFIO_IOMMU_MAP_DMA',
  outcome: 'EEXIST',
  because: 'payload not recorded',
  count: 2,
  seq: 2,
  file: 0,
  line: 14,
  kinds: ['vfio-container', 'iommufd'],
  known: ['fd 3 is a VFIO container, opened by event 0'],
  missing: ['what is at 0x7ffd00001000: flags, vaddr, iova, size'],
  possible: [
    { kind: 'vfio-container', command: 'VFIO_IOMMU_MAP_DMA', rule: MAP_RULES.overlap },
    { kind: 'iommufd', command: 'VFIO_IOMMU_MAP_DMA', rule: IOPT_RULES[7] as Rule },
  ],
  record: ['structs'],
};

const CLEAN: Report = {
  trace: 'run.strace',
  info: { format: 'strace', files: ['run.strace'], startNs: 0n, kernel: '' },
  events: 1234,
  skippedLines: 0,
  mirrorChanges: 0,
  calls: { total: 2, match: 1, diverge: 0, learned: 1, unknown: 0 },
  byCall: { VFIO_GET_API_VERSION: { total: 2, match: 1, diverge: 0, learned: 1, unknown: 0 } },
  unknowns: [],
  failureGroups: [],
  failures: [],
  failureCount: 0,
  idleGroups: [],
  divergences: [],
  divergenceCount: 0,
  findings: [],
  findingCount: 0,
  diagnostics: [],
  bugCount: 0,
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
  unknowns: [UNKNOWN],
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
    reportText(CLEAN, { shown: 20, back: NO_LOOK_BACK }, PLAIN),
    'run.strace  strace, 1,234 events\n  2 device calls: 1 match, 1 learned\n\nnothing found\n',
  );
  const none = { ...CLEAN, calls: { ...CLEAN.calls, total: 0 } };
  assert.match(reportText(none, { shown: 20, back: NO_LOOK_BACK }, PLAIN), /no call of a VFIO, iommufd or HMM file/);
  const mirrors = reportText({ ...none, mirrorChanges: 7 }, { shown: 20, back: NO_LOOK_BACK }, PLAIN);
  assert.match(mirrors, /1,234 events\n {2}7 changes of the mirrors of drivers\n/);
});

test('everything there is to say, in order', () => {
  assert.is(
    reportText(BAD, { shown: 20, back: SEEN }, PLAIN),
    `run.strace  strace, 1,234 events, 2 lines skipped
  5 device calls: 2 match, 1 learned, 1 unknown, 1 diverge

  command             calls  match  learned  unknown  diverge
  VFIO_IOMMU_MAP_DMA      3      1        .        1        1
  and 1 command with nothing but match and learned

input
  run.strace:3
      IOT101 line not understood: x (and 1 more); the text is no strace line; it is skipped

DIVERGES  VFIO_IOMMU_MAP_DMA  run.strace:14  event 2
  call       close(3) = 0
  predicted  -1 EEXIST
  recorded   0, iova = 00
  rule       map-dma.overlap: the range touches a mapping
  state      mapping 0x1000-0x1fff of event 0 (line 10)

HAZARD  memory-pinned  run.strace:12  event 1
  memory went away
  run.strace:10  event 0
      mmap(NULL, 0x2000, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS) = 0x7f0000000000
  run.strace:12  event 1
      munmap(0x7f0000000000, 0x1000) = 0
  advice     unmap it before

UNKNOWN  VFIO_IOMMU_MAP_DMA  run.strace:14  event 2, and 1 more like it
  call       close(3) = 0
  because    payload not recorded
  known      fd 3 is a VFIO container, opened by event 0 (line 10)
  not known  what is at 0x7ffd00001000: flags, vaddr, iova, size
  possible   on a VFIO container:
             - the range touches a mapping (map-dma.overlap)
             on /dev/iommu:
             - an area is there already (iova.exists)

to settle it, record
  - the structs of the ioctls, which no strace prints: preload the library of docs/RECORDING.md,
    which states them in the stream
    strace -f -ttt -y -x -s 4096 -E LD_PRELOAD=$PWD/annotate.so -o run.strace PROGRAM...

1 divergence, 1 finding, 1 call unknown
`,
  );
});

test('--max, an interruption and long stories', () => {
  const text = reportText({ ...BAD, interrupted: true }, { shown: 0, back: NO_LOOK_BACK }, PLAIN);
  assert.match(text, /and 1 more divergence: --max shows them/);
  assert.match(text, /and 1 more finding: --max shows them/);
  assert.match(text, /interrupted: .*\n1 divergence, 1 finding, 1 call unknown\n$/);
  const [finding] = BAD.findings;
  const long = {
    ...BAD,
    findings: finding === undefined ? [] : [{ ...finding, seq: 40, causes: [...Array(40).keys()] }],
  };
  const story = reportText(long, { shown: 1, back: NO_LOOK_BACK }, PLAIN);
  assert.match(story, /event 4\n {2}… 35 more\n {2}event 40\n/);
});

test('a recording cannot drive the terminal, and colour needs a terminal', () => {
  const hostile = { ...BAD, trace: '\u001b]0;x\u0007' };
  const plain = reportText(hostile, { shown: 9, back: SEEN }, PLAIN);
  assert.is(plain.split('').filter((c) => c < ' ' && c !== '\n').length, 0);
  const tty = styleFor({ isTTY: true, columns: 100 }, {});
  assert.ok(reportText(BAD, { shown: 9, back: SEEN }, tty).includes('\u001b['));
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
    'failures',
    'unknowns',
    'withoutEffect',
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
  assert.is(
    JSON.stringify(json.unknowns[0]),
    '{"call":"VFIO_IOMMU_MAP_DMA","outcome":"EEXIST","count":2,"seq":2,"line":14,"because":"payload not recorded",' +
      '"kinds":["vfio-container","iommufd"],"known":["fd 3 is a VFIO container, opened by event 0"],' +
      '"missing":["what is at 0x7ffd00001000: flags, vaddr, iova, size"],' +
      '"possible":[{"kind":"vfio-container","rule":"map-dma.overlap","text":"the range touches a mapping"},' +
      '{"kind":"iommufd","rule":"iova.exists","text":"an area is there already"}],"record":["structs"]}',
  );
});

test('JSON: fields that come only when there is something to say', () => {
  const more = reportJson({ ...BAD, interrupted: true, divergenceCount: 20_000 });
  assert.is(more.interrupted, true);
  assert.equal(more.truncated, { divergences: 20_000, findings: 1, failures: 0 });
  const several = reportJson({ ...BAD, info: { ...BAD.info, files: ['a.1', 'a.2'] } });
  assert.is(several.divergences[0]?.file, 'a.1');
  assert.is(several.findings[0]?.file, 'a.1');
});
