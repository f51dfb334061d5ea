import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { InputError } from '../core/errors.js';
import { suite } from '../core/testing.js';
import { ev } from '../reducers/testing.js';
import { emptyWorld } from '../reducers/world.js';
import { loadInvariants } from './user-invariants.js';

const test = suite('invariants of the user');
const directory = mkdtempSync(join(tmpdir(), 'iotape-test-'));
test.after(() => rmSync(directory, { recursive: true }));

let count = 0;

function write(code: string, suffix = 'mjs'): string {
  const path = join(directory, `module-${count++}.${suffix}`);
  writeFileSync(path, code);
  return path;
}

async function refusal(run: () => unknown): Promise<string> {
  try {
    await run();
  } catch (error) {
    if (error instanceof InputError && error.diagnostic.code === 'IOT303') return error.diagnostic.message;
    throw error;
  }
  return 'accepted';
}

const GOOD = `{ name: 'n', why: 'w', kinds: ['close'], check: (b, e) => [{ message: 'fd ' + e.fd }] }`;

test('one, several, by default or by name', async () => {
  for (const code of [
    `export default ${GOOD}`,
    `export default [${GOOD}, ${GOOD}]`,
    `export const invariants = [${GOOD}];`,
  ]) {
    const [first] = await loadInvariants(write(code));
    assert.is(first?.name, 'n', code);
  }
});

test('a finding gets its place and name from the event', async () => {
  const [invariant] = await loadInvariants(write(`export default ${GOOD}`));
  const event = ev('close', { fd: 8, line: 17 });
  assert.equal(invariant?.check(emptyWorld(), event, emptyWorld()), [
    {
      invariant: 'n',
      severity: 'violation',
      seq: 0,
      file: 0,
      line: 17,
      message: 'fd 8',
      causes: [],
      advice: '',
    },
  ]);
});

test('what is no invariant is refused with the reason', async () => {
  for (const [code, expected] of [
    ['export const x = 1;', /neither/],
    ['export default [];', /neither/],
    ['export default 7;', /no object/],
    [`export default { why: '', kinds: ['close'], check() {} };`, /`name`/],
    [`export default { name: 'n', kinds: ['close'], check() {} };`, /`why`/],
    [`export default { name: 'n', why: '', kinds: [], check() {} };`, /`kinds`/],
    [`export default { name: 'n', why: '', kinds: ['frob'], check() {} };`, /frob/],
    [`export default { name: 'n', why: '', kinds: ['close'] };`, /`check`/],
    [`export default { name: 'n', why: '', kinds: ['close'], check() {}, concerns: 1 };`, /`concerns`/],
    ['export default {', /./],
    ['throw new Error("at once");', /at once/],
  ] as const)
    assert.match(await refusal(() => loadInvariants(write(code))), expected, code);
  assert.match(await refusal(() => loadInvariants(join(directory, 'missing.mjs'))), /missing/);
});

test('what it throws or gives at an event is refused, too', async () => {
  for (const [check, expected] of [
    ['() => { throw new Error("boom") }', /n threw at event 0: boom/],
    ['() => { throw null }', /n threw at event 0: null/],
    ['() => undefined', /array/],
    ['() => [{}]', /message/],
    ['() => [null]', /message/],
    ["() => [{ message: 'm', severity: 'bad' }]", /severity/],
    ["() => [{ message: 'm', causes: [-1] }]", /causes/],
  ] as const) {
    const path = write(`export default { name: 'n', why: '', kinds: ['close'], check: ${check} };`);
    const [invariant] = await loadInvariants(path);
    assert.match(await refusal(() => invariant?.check(emptyWorld(), ev('close'), emptyWorld())), expected, check);
  }
});

test('TypeScript is loaded where Node can, else the message says what to do', async () => {
  const path = write(`export default ${GOOD} as object;`, 'mts');
  const said = await refusal(() => loadInvariants(path));
  assert.match(said, /accepted|Node .* does not load TypeScript/);
});
