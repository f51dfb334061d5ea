import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { suite } from '../../core/testing.js';
import { CLEAN, corpus, iotape, MAIN, Workspace, WRONG_VERSION } from './testing.js';

const test = suite('iotape show, state, step, import, verify, bisect');
const space = new Workspace();
test.after(() => space.remove());
const wrong = space.write('wrong.strace', WRONG_VERSION);
const qemu = corpus('qemu/legacy-e1000e.strace.gz');

test('show: one line for each event, filtered', () => {
  const lines = (...args: string[]): string[] =>
    iotape(['show', wrong, ...args])
      .stdout.trimEnd()
      .split('\n');
  assert.is(lines().length, 8);
  assert.equal(lines('--call', 'vfio_*'), [
    '      2  wrong.strace:3         0.000200  [100]  ioctl(3, VFIO_GET_API_VERSION) = 0  match container.api-version',
    '      3  wrong.strace:4         0.000300  [100]  ioctl(3, VFIO_GET_API_VERSION) = 7  diverge container.api-version',
  ]);
  assert.equal(
    lines('--from', '4', '--to', '6', '--json').map((line) => JSON.parse(line).text),
    [
      'mmap(NULL, 0x2000, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS) = 0x7f0000000000',
      'munmap(0x7f0000000000, 0x1000) = 0',
      'close(3</dev/vfio/vfio>) = 0',
    ],
  );
  assert.is(lines('--kind', 'munmap', '--kind', 'mmap').length, 2);
  assert.is(iotape(['show', wrong, '--kind', 'nope']).status, 2);
});

test('show: a reader that goes away ends it without a word', () => {
  const ran = spawnSync('sh', ['-c', `"$0" "$1" show "$2" | head -n 1`, process.execPath, MAIN, qemu], {
    encoding: 'utf8',
  });
  assert.is(ran.stdout.trim().split('\n').length, 1);
  assert.is(ran.stderr, '');
});

test('state: at an event, at the end, a part of it', () => {
  const at = (n: string, path: string): string => iotape(['state', wrong, '--at', n, '--path', path]).stdout;
  assert.is(
    at('4', 'spaces.1.vmas'),
    '0x7f0000000000-0x7f0000001fff: size 0x2000, prot 0x3, flags 0x22, file 0, offset 0x7f0000000000,\n    since 4, traits 0\n',
  );
  assert.match(at('5', 'spaces.1.vmas'), /^0x7f0000001000-0x7f0000001fff: size 0x1000/);
  const json = iotape(['state', wrong, '--at', '4', '--path', 'spaces.1.vmas.0x7f0000001234', '--json']);
  assert.is(JSON.parse(json.stdout).last, '0x7f0000001fff');
  assert.is(iotape(['state', '-', '--at', '4'], WRONG_VERSION).stdout, iotape(['state', wrong, '--at', '4']).stdout);
  assert.match(iotape(['state', wrong, '--path', 'nope.1']).stderr, /IOT301 .*there is no nope/);
  const beyond = iotape(['state', wrong, '--at', '8']);
  assert.is(beyond.status, 2);
  assert.match(beyond.stderr, /IOT304 .*event 8; the last one is 7/);
});

const SCRIPT = `next divergence
next divergence
prev
goto 5
diff
print spaces.1.vmas.0x7f0000001000.since
x files.size
x 1 +
c munmap

goto 99
what
quit
never reached
`;

test('step: a script of commands', () => {
  const ran = iotape(['step', 'wrong.strace'], SCRIPT, space.path);
  assert.is(ran.status, 0);
  assert.is(ran.stderr, '');
  const answers = new Map(ran.stdout.split(/^> /m).map((part) => [part.split('\n')[0], part.split('\n').slice(1)]));
  assert.match(
    ran.stdout,
    /^wrong\.strace {2}8 events, 1 divergence, 0 findings; help lists the commands\nevent 0 {2}wrong\.strace:1 {2}\[100\]\n {2}execve/,
  );
  assert.match(
    ran.stdout,
    /> next divergence\nevent 3 {2}wrong\.strace:4 {2}\[100\]\n {2}ioctl\(3, VFIO_GET_API_VERSION\) = 7\n {2}diverge container\.api-version\n {2}predicted {2}ret 0\n> next divergence\nno divergence behind event 3\n/,
  );
  assert.match(answers.get('prev')?.join('\n') ?? '', /^event 2 /);
  assert.match(
    answers.get('goto 5')?.join('\n') ?? '',
    /munmap\(0x7f0000000000, 0x1000\) = 0\n {2}- spaces\.1\.vmas\.0x7f0000000000: .*\n(?: +.*\n)* {2}\+ spaces\.1\.vmas\.0x7f0000001000: /,
  );
  assert.match(answers.get('print spaces.1.vmas.0x7f0000001000.since')?.[0] ?? '', /^4$/);
  assert.match(answers.get('x files.size')?.[0] ?? '', /^\d+$/);
  assert.match(answers.get('x 1 +')?.[0] ?? '', /IOT302/);
  assert.is(answers.get('c munmap')?.[0], 'no munmap behind event 5');
  assert.match(answers.get('goto 99')?.[0] ?? '', /IOT304/);
  assert.is(answers.get('what')?.[0], 'there is no command what; help lists them');
  assert.not.match(ran.stdout, /never reached/);
});

test('step: the commands come from stdin, so the trace cannot', () => {
  const ran = iotape(['step', '-'], WRONG_VERSION);
  assert.is(ran.status, 2);
  assert.match(ran.stderr, /IOT301/);
});

test('import and verify: the tape says what the text said', () => {
  const tape = join(space.path, 'qemu.tape');
  const imported = iotape(['import', qemu, '-o', tape]);
  assert.is(imported.status, 0);
  assert.match(imported.stdout, /qemu\.tape: 1,901 events from .*, [\d,]+ bytes\n$/);
  const checked = (path: string): object => {
    const { trace: _trace, format: _format, ...rest } = JSON.parse(iotape(['check', '--json', path]).stdout);
    return rest;
  };
  assert.equal(checked(tape), checked(qemu));
  const verified = iotape(['verify', qemu, tape, wrong]);
  assert.is(verified.status, 0);
  const hashes = verified.stdout
    .trim()
    .split('\n')
    .map((line) => /^same {2}([0-9a-f]{64}) /.exec(line)?.[1]);
  assert.is(hashes.length, 3);
  assert.is(hashes[0], hashes[1]);
  assert.is.not(hashes[0], hashes[2]);
  const json = JSON.parse(iotape(['verify', '--json', '-'], readFileSync(qemu)).stdout);
  assert.is(json.agree, true);
  assert.is(json.endings[0].stateHash, hashes[0]);
});

test('import refuses a tape that cannot be written', () => {
  const ran = iotape(['import', wrong, '-o', join(space.path, 'no', 'such', 'directory.tape')]);
  assert.is(ran.status, 2);
  assert.match(ran.stderr, /IOT301/);
  assert.is(iotape(['import', wrong, '-o', '-']).status, 2);
  const before = readFileSync(wrong, 'utf8');
  assert.match(
    iotape(['import', wrong, '-o', join(space.path, '.', 'wrong.strace')]).stderr,
    /is the recording itself/,
  );
  assert.is(readFileSync(wrong, 'utf8'), before);
});

test('bisect: known answers, from a file and from a pipe', () => {
  const expr = 'facts.size >= 5';
  const learned = iotape(['bisect', qemu, '--expr', expr, '--json']);
  assert.is(learned.status, 1);
  const { seq, text, evaluations } = JSON.parse(learned.stdout);
  assert.match(text, /^ioctl\(9, VFIO_DEVICE_GET_INFO /);
  assert.ok(evaluations <= 17, `${evaluations} evaluations`);
  const factsAt = (at: number): number => {
    const ran = iotape(['state', qemu, '--at', String(at), '--json']);
    return Object.keys(JSON.parse(ran.stdout).facts).length;
  };
  assert.ok(factsAt(seq - 1) < 5 && factsAt(seq) >= 5, `event ${seq}`);
  const piped = iotape(['bisect', '-', '--expr', expr, '--json'], readFileSync(qemu));
  assert.is(JSON.parse(piped.stdout).seq, seq);
  const page = iotape(['bisect', 'wrong.strace', '--expr', 'spaces.size > 0'], '', space.path);
  assert.is(page.status, 0);
  assert.match(page.stdout, /does not hold after the last event \(7\)\. It may have held in between/);
});

test('bisect: by invariant', () => {
  const ran = iotape(['bisect', corpus('fuzz/vfio-fuzz-nvme-7.strace.gz'), '--invariant', 'memory-pinned']);
  assert.is(ran.status, 1);
  assert.match(ran.stdout, /invariant memory-pinned is broken first:\n {2}\S+:510 {2}event 209\n {6}madvise/);
  const clean = iotape(['bisect', '-', '--invariant', 'memory-pinned'], CLEAN);
  assert.is(clean.status, 0);
  assert.match(clean.stdout, /invariant memory-pinned holds all the way/);
});

test('bisect: what it cannot work with', () => {
  for (const [args, code] of [
    [['--expr', 'files.size >'], 'IOT302'],
    [['--expr', 'nope.size > 0'], 'IOT302'],
    [['--invariant', 'nope'], 'IOT301'],
    [['--invariant', 'memory-pinned', '--expr', '1'], 'IOT301'],
    [[], 'IOT301'],
  ] as const) {
    const ran = iotape(['bisect', wrong, ...args]);
    assert.is(ran.status, 2, args.join(' '));
    assert.match(ran.stderr, new RegExp(code), args.join(' '));
  }
});
