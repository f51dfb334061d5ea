// npm test [-- FILTER ...]: installs, builds and runs every test file, or those whose path holds a FILTER.
// FC_SEED=N seeds the random tests otherwise than usual, FC_SEED=random with a number that is printed.
// Options: --timeout SECONDS for one file (300), --jobs N (all cores), --root DIR (another tree, taken as built).
// The last line is `N passed, N failed`; the exit status is 1 when anything failed or nothing ran.
import { setup } from './setup.mjs';
import { availableParallelism } from 'node:os';
import { parseArgs } from 'node:util';
import { ROOT } from './files.mjs';
import { findTests, runFiles } from './test-runner.mjs';

const { values, positionals: filters } = parseArgs({
  allowPositionals: true,
  options: {
    timeout: { type: 'string', default: '300' },
    jobs: { type: 'string', default: String(availableParallelism()) },
    root: { type: 'string' },
  },
});

if (values.root === undefined) setup();
if (process.env.FC_SEED === 'random') {
  process.env.FC_SEED = String(Date.now() & 0x7fff_ffff);
  console.log(`FC_SEED=${process.env.FC_SEED}`);
}
const root = values.root ?? ROOT;
const chosen = (file) => filters.length === 0 || filters.some((filter) => file.includes(filter));
const found = findTests(root);
const files = found.files.filter(chosen);
const problems = found.problems.filter(({ file }) => chosen(file));

const results = await runFiles(root, files, {
  timeoutMs: Number(values.timeout) * 1000,
  jobs: Number(values.jobs),
  onResult({ file, passed, failed, skipped, seconds }) {
    const skips = skipped > 0 ? `, ${skipped} skipped` : '';
    const counts = `${passed} passed${failed > 0 ? `, ${failed} failed` : ''}${skips}`;
    console.log(`${failed > 0 ? 'FAIL' : 'ok  '} ${file.padEnd(48)} ${counts} (${seconds.toFixed(1)} s)`);
  },
});

for (const { file, output, problems: sentences } of results.filter(({ failed }) => failed > 0)) {
  console.log(`\n---- ${file}\n${output.trim()}`);
  for (const sentence of sentences) console.log(`FAIL ${file}: ${sentence}`);
}
for (const { file, problem } of problems) console.log(`FAIL ${file}: ${problem}`);
if (files.length === 0) console.log(`FAIL no test file${filters.length > 0 ? ` matches ${filters.join(' ')}` : ''}`);

const total = (field) => results.reduce((sum, result) => sum + result[field], 0);
const failed = total('failed') + problems.length + (files.length === 0 ? 1 : 0);
if (total('skipped') > 0) console.log(`${total('skipped')} skipped`);
console.log(`${total('passed')} passed, ${failed} failed`);
process.exitCode = failed > 0 ? 1 : 0;
