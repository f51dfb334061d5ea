import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import * as assert from 'uvu/assert';
import { suite } from '../../core/testing.js';
import { CLEAN, corpus, interrupted, iotape, Workspace, WRONG_VERSION } from './testing.js';

const test = suite('iotape check');
const space = new Workspace();
test.after(() => space.remove());
const clean = space.write('clean.strace', CLEAN);
const wrong = space.write('wrong.strace', WRONG_VERSION);

const PAGE = `wrong.strace  strace, 8 events, 1 line skipped
  2 device calls: 1 match, 1 diverge

  command               calls  match  learned  unknown  diverge
  VFIO_GET_API_VERSION      2      1        .        .        1

input
  wrong.strace:5
      IOT101 line not understood: this is no strace line; the text is no strace line; it is skipped

DIVERGES  VFIO_GET_API_VERSION  wrong.strace:4  event 3
  call       ioctl(3, VFIO_GET_API_VERSION) = 7
  predicted  0
  recorded   7
  rule       container.api-version

1 divergence
`;

test('the page of a divergence, to the letter', () => {
  const ran = iotape(['check', 'wrong.strace'], '', space.path);
  assert.is(ran.stdout, PAGE);
  assert.is(ran.stderr, '');
  assert.is(ran.status, 1);
});

test('a clean trace is three lines and status 0', () => {
  const ran = iotape(['check', 'clean.strace'], '', space.path);
  assert.is(ran.stdout, 'clean.strace  strace, 7 events\n  1 device call: 1 match\n\nnothing found\n');
  assert.is(ran.status, 0);
});

test('--json: one object, the last line of stdout, nothing else', () => {
  const ran = iotape(['check', '--json', 'wrong.strace'], '', space.path);
  assert.is(ran.status, 1);
  assert.is(ran.stderr, '');
  assert.is(ran.stdout.trim().split('\n').length, 1);
  const report = JSON.parse(ran.stdout);
  assert.match(report.stateHash, /^[0-9a-f]{64}$/);
  assert.equal(
    { ...report, stateHash: '' },
    {
      trace: 'wrong.strace',
      format: 'strace',
      events: 8,
      skippedLines: 1,
      calls: { total: 2, match: 1, diverge: 1, learned: 0, unknown: 0 },
      byCall: { VFIO_GET_API_VERSION: { total: 2, match: 1, diverge: 1, learned: 0, unknown: 0 } },
      divergences: [
        {
          seq: 3,
          line: 4,
          call: 'VFIO_GET_API_VERSION',
          predicted: { ret: 0 },
          recorded: { ret: 7 },
          rule: 'container.api-version',
          reason: '',
        },
      ],
      findings: [],
      diagnostics: [{ code: 'IOT101', line: 5, message: 'this is no strace line' }],
      stateHash: '',
      failures: [],
      unknowns: [],
      withoutEffect: [],
    },
  );
});

test('standard input, plain and gzipped, says the same as the file', () => {
  for (const input of [WRONG_VERSION, gzipSync(WRONG_VERSION)]) {
    const page = iotape(['check', '-'], input);
    assert.is(page.stdout, PAGE.replaceAll('wrong.strace', '-'));
    assert.is(page.status, 1);
    const json = JSON.parse(iotape(['check', '--json', '-'], input).stdout);
    assert.is(json.trace, '-');
    assert.is(json.calls.diverge, 1);
  }
});

test('several traces: each has its report, the worst status counts, an unusable one stops no other', () => {
  const missing = join(space.path, 'missing.strace');
  const both = iotape(['check', '--json', clean, wrong]);
  assert.is(both.status, 1);
  assert.equal(
    both.stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line).calls.diverge),
    [0, 1],
  );
  const three = iotape(['check', clean, missing, wrong]);
  assert.is(three.status, 2);
  assert.match(three.stderr, /^\S+missing\.strace: IOT201 cannot read the file: .*\n$/);
  assert.match(three.stdout, /nothing found\n\n.*wrong\.strace {2}strace/);
  const json = iotape(['check', '--json', missing]);
  assert.is(json.status, 2);
  assert.is(json.stdout, '');
  assert.match(json.stderr, /IOT201/);
});

test('input that gives nothing is refused with a code', () => {
  const directory = join(space.path, 'directory');
  mkdirSync(directory);
  for (const [path, code] of [
    [space.write('empty', ''), 'IOT203'],
    [space.write('binary', Buffer.from([0, 1, 2, 3, 250, 251, 0, 0])), 'IOT202'],
    [space.write('prose', 'It was a dark and stormy night.\nThe rain fell.\n'), 'IOT202'],
    [directory, 'IOT201'],
  ] as const) {
    const ran = iotape(['check', path]);
    assert.is(ran.status, 2, path);
    assert.is(ran.stdout, '', path);
    assert.match(ran.stderr, new RegExp(`${code} `), path);
  }
});

test('several files of one recording', () => {
  const files = WRONG_VERSION.split('\n')
    .slice(0, 4)
    .map((line) => line.replace(/^100 /, ''));
  const first = space.write('ff.100', `${files.slice(0, 2).join('\n')}\n`);
  const second = space.write('ff.101', `${files.slice(2).join('\n')}\n`);
  const ran = iotape(['check', '--together', '--json', first, second]);
  const report = JSON.parse(ran.stdout);
  assert.is(report.trace, `${first} ${second}`);
  assert.is(report.events, 4);
  assert.is(report.divergences.at(-1)?.file, second);
});

test('a gzip that is cut is reported as far as it goes', () => {
  const lines = Array.from(
    { length: 3000 },
    (_, i) => `1 17000000${(i % 90) + 10}.000000 getpid() = ${(i * 7919) % 30000}\n`,
  );
  const whole = gzipSync(CLEAN + lines.join(''));
  const cut = space.write('cut.strace.gz', whole.subarray(0, Math.floor(whole.length / 2)));
  const ran = iotape(['check', '--json', cut]);
  assert.is(ran.status, 0);
  const report = JSON.parse(ran.stdout);
  assert.is(report.calls.match, 1);
  assert.ok(report.events > 7);
  assert.ok(report.diagnostics.some((d: { code: string }) => d.code === 'IOT205'));
});

test('a finding with the events that caused it', () => {
  const ran = iotape(['check', '--only', 'memory-pinned', corpus('fuzz/vfio-fuzz-nvme-7.strace.gz')]);
  assert.is(ran.status, 1);
  assert.match(
    ran.stdout,
    /HAZARD {2}memory-pinned {2}\S+:510 {2}event 209\n(?: {2}.*\n){2} {2}\S+:444 {2}event 184\n {6}ioctl\(3, VFIO_IOMMU_MAP_DMA \{.*\n(?: {6}.*\n)? {2}\S+:510 {2}event 209\n {6}madvise\(0x200c7000, 0x1000, MADV_DONTNEED\) = 0\n {2}advice/,
  );
});

const FD_CLOSED = `export default { name: 'fd-closed', why: 'for this test', kinds: ['close'],
  check: (before, event) => [{ severity: 'leak', message: 'closed ' + event.fd, causes: [event.seq - 1] }] };`;

test('where the kernel died in a call, no recording is asked for that has its answer', () => {
  const { stdout } = iotape(['check', corpus('fuzz/hmm-crash-13.strace.gz')]);
  assert.match(stdout, /because +the kernel dies in this call/);
  assert.not.match(stdout, /how the call ended|to settle it/);
});

test('invariants of the user, chosen ones, none', () => {
  const module = space.write('mine.mjs', FD_CLOSED);
  const mine = iotape(['check', '--json', '--invariants', module, clean]);
  assert.is(mine.status, 1);
  assert.equal(JSON.parse(mine.stdout).findings, [
    { invariant: 'fd-closed', severity: 'leak', seq: 5, line: 6, message: 'closed 3', causes: [4], advice: '' },
  ]);
  assert.is(iotape(['check', '--invariants', module, '--only', 'memory-pinned', clean]).status, 0);
  assert.is(iotape(['check', '--no-invariants', clean]).status, 0);
  const broken = space.write('broken.mjs', FD_CLOSED.replace('[{', 'null && [{'));
  const ran = iotape(['check', '--invariants', broken, clean]);
  assert.is(ran.status, 2);
  assert.match(ran.stderr, /IOT303 .*fd-closed must give an array/);
});

test('--max bounds what people see, not what machines get', () => {
  const ran = iotape(['check', '--max', '0', wrong]);
  assert.not.match(ran.stdout, /predicted/);
  assert.match(ran.stdout, /and 1 more divergence: --max shows them/);
  assert.is(JSON.parse(iotape(['check', '--json', '--max', '0', wrong]).stdout).divergences.length, 1);
});

test('wrong arguments: status 2, one line on stderr, nothing on stdout', () => {
  for (const args of [
    [],
    ['check'],
    ['frobnicate', clean],
    ['check', '--frobnicate', clean],
    ['check', '--max', 'x', clean],
    ['check', '--only', 'nope', clean],
    ['check', '--invariants', 'nope.mjs', clean],
  ]) {
    const ran = iotape(args);
    assert.is(ran.status, 2, args.join(' '));
    assert.is(ran.stdout, '', args.join(' '));
    assert.match(ran.stderr, /^\S+: IOT30[13] .*\n$/, args.join(' '));
  }
});

test('an interrupt prints what is known so far: status 3', async () => {
  const page = await interrupted(['check', '-'], WRONG_VERSION, ({ stdout }) => stdout.includes('DIVERGES'));
  assert.is(page.status, 3);
  assert.match(page.stdout, /DIVERGES {2}VFIO_GET_API_VERSION {2}-:4 {2}event 3\n.*VFIO_GET_API_VERSION\) = 7\n/);
  assert.match(page.stdout, /\ninterrupted: .*\n1 divergence\n$/);
  const json = await interrupted(['check', '--json', '-'], WRONG_VERSION, ({ stdout }) => stdout.includes('events'));
  assert.is(json.status, 3);
  assert.is(JSON.parse(json.stdout).interrupted, true);
  const silent = await interrupted(['check', '-', clean], '', ({ status }) => status === 3);
  assert.is(silent.status, 3);
});

test('help, version, completions', () => {
  const help = iotape(['--help']);
  assert.is(help.status, 0);
  for (const verb of ['check', 'show', 'state', 'step', 'import', 'verify', 'bisect', 'completion'])
    assert.match(help.stdout, new RegExp(`iotape ${verb}`));
  assert.match(iotape(['--version']).stdout, /^\d+\.\d+\.\d+\n$/);
  assert.match(iotape(['completion']).stdout, /iotape/);
  assert.match(iotape(['--get-yargs-completions', 'iotape', 'ver']).stdout, /^verify$/m);
});
