// The test runner's own test: every way in which a test file can fail without saying so.
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import * as assert from 'uvu/assert';
import { suite } from '../dist/core/testing.js';
import { ROOT } from './files.mjs';

const test = suite('test runner');
const url = (path) => JSON.stringify(pathToFileURL(join(ROOT, path)).href);
const HEAD = `import { suite } from ${url('dist/core/testing.js')};\n`;
const UVU_HEAD = `import { suite } from ${url('node_modules/uvu/dist/index.mjs')};\n`;

/** Runs the runner on a tree of the given compiled test files. */
function run(files, args = []) {
  const root = mkdtempSync(join(tmpdir(), 'iotape-runner-'));
  try {
    const put = (path, text) => {
      mkdirSync(dirname(join(root, path)), { recursive: true });
      writeFileSync(join(root, path), text);
    };
    put('package.json', '{"type":"module"}');
    for (const [name, text] of Object.entries(files)) {
      if (text !== null) put(`dist/${name}.test.js`, text);
      if (!name.startsWith('stale')) put(`${name}.test.ts`, '');
    }
    const command = [join(ROOT, 'scripts/test.mjs'), '--root', root, '--jobs', '1', ...args];
    const { status, stdout, stderr } = spawnSync(process.execPath, command, { encoding: 'utf8', stdio: 'pipe' });
    return { status, out: stdout, err: stderr, last: stdout.trimEnd().split('\n').at(-1) };
  } finally {
    rmSync(root, { recursive: true });
  }
}

const PASSING = `${HEAD}const test = suite('s'); test('one', () => {}); test('two', async () => {});`;

test('passing tests are counted over all files', () => {
  const { status, last, err } = run({ a: PASSING, 'deep/b': PASSING });
  assert.is(err, '');
  assert.is(last, '4 passed, 0 failed');
  assert.is(status, 0);
});

test('several suites of a file, a top-level await between them, all run', () => {
  const text = `${HEAD}const a = suite('a'); a('x', () => {});
    await new Promise((resolve) => setTimeout(resolve, 20));
    a('y', () => {}); suite('b')('z', () => {});`;
  assert.is(run({ a: text }).last, '3 passed, 0 failed');
});

test('a filter chooses files by their path', () => {
  const { status, out, last } = run({ a: PASSING, 'deep/b': `${HEAD}throw new Error('must not run');` }, ['a.test']);
  assert.is(last, '2 passed, 0 failed');
  assert.not.match(out, /deep/);
  assert.is(status, 0);
});

test('skipped tests are counted as such', () => {
  const { out, last } = run({ a: `${PASSING} test.skip('three', () => {});` });
  assert.match(out, /1 skipped/);
  assert.is(last, '2 passed, 0 failed');
});

/** Files that must fail, what is said about each, and the last line. */
for (const [what, text, said, last, args] of [
  ['a test that fails', `${PASSING} test('three', () => { throw new Error('boom'); });`, /boom/, '2 passed, 1 failed'],
  ['a test that throws no Error', `${PASSING} test('three', () => { throw 'boom'; });`, /boom/, '2 passed, 1 failed'],
  ['a file with no test', `${HEAD}suite('s');`, /no test in it/, '0 passed, 1 failed'],
  ['a file with no suite', `export {};`, /no word of which tests ran/, '0 passed, 1 failed'],
  ['a uvu suite that never runs', `${UVU_HEAD}suite('s')('x', () => {});`, /no word/, '0 passed, 1 failed'],
  [
    'a before hook that throws',
    `${PASSING} test.before(() => { throw new Error(); });`,
    /: s: one/,
    '0 passed, 2 failed',
  ],
  [
    'an after hook that throws',
    `${PASSING} test.after(() => { throw new Error('late'); });`,
    /late/,
    '2 passed, 1 failed',
  ],
  ['a test left out by only', `${PASSING} test.only('three', () => {});`, /: s: two/, '1 passed, 2 failed'],
  ['a test that never settles', `${PASSING} test('x', () => new Promise(() => {}));`, /: s: x/, '2 passed, 1 failed'],
  [
    'a top-level await that never settles',
    `${PASSING} await new Promise(() => {});`,
    /status 13/,
    '2 passed, 1 failed',
  ],
  ['an exit in the middle', `${PASSING} test('x', () => process.exit(0));`, /: s: x/, '2 passed, 1 failed'],
  ['a module that throws', `${PASSING} throw new Error('early');`, /early/, '0 passed, 2 failed'],
  ['a syntax error', `${PASSING} (`, /SyntaxError/, '0 passed, 1 failed'],
  ['a crash', `${PASSING} test('x', () => process.abort());`, /SIGABRT/, '0 passed, 1 failed'],
  ['a late rejection', `${PASSING} test('x', () => void Promise.reject(new Error('lost')));`, /lost/, undefined],
  [
    'a test that hangs',
    `${PASSING} test('x', () => { for (;;) {} });`,
    /still running after 1 s/,
    '0 passed, 1 failed',
    ['--timeout', '1'],
  ],
]) {
  test(`${what} fails the run`, () => {
    const result = run({ bad: text }, args);
    assert.match(result.out, said);
    assert.match(result.last, /^\d+ passed, [1-9]\d* failed$/);
    if (last !== undefined) assert.is(result.last, last);
    assert.is(result.status, 1);
  });
}

test('one failing file does not hide the others', () => {
  assert.is(run({ a: PASSING, b: `${HEAD}suite('s');`, c: PASSING }).last, '4 passed, 1 failed');
});

test('a compiled test without a source, and a source that was not compiled, fail the run', () => {
  const { status, out, last } = run({ a: PASSING, stale: PASSING, unbuilt: null });
  assert.match(out, /stale\.test\.js: its source is gone/);
  assert.match(out, /unbuilt\.test\.ts: it is not built/);
  assert.is(last, '2 passed, 2 failed');
  assert.is(status, 1);
});

test('nothing to run is a failure', () => {
  assert.is(run({}).last, '0 passed, 1 failed');
  assert.is(run({ a: PASSING }, ['nowhere']).last, '0 passed, 1 failed');
});
