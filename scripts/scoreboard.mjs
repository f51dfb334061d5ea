// npm run scoreboard [-- FILE|FOLDER ...]: replays recordings (the bundled ones) and prints, for each, how many of its
// calls the model gets right. Exit status 0 whatever the score, 2 when iotape cannot replay.
import { setup } from './setup.mjs';
import { spawnSync } from 'node:child_process';
import { statSync } from 'node:fs';
import { join, relative } from 'node:path';
import { listFiles, ROOT } from './files.mjs';

const RECORDING = /\.(strace|jsonl|txt|tape)(\.gz)?$/;
const COLUMNS = ['events', 'calls', 'match', 'diverge', 'learned', 'unknown', 'findings'];

function recordingsIn(path) {
  if (!statSync(path).isDirectory()) return [path];
  return listFiles(path)
    .filter((name) => RECORDING.test(name))
    .map((name) => join(path, name));
}

function row(title, counts) {
  const match = counts.calls > 0 ? `${((100 * counts.match) / counts.calls).toFixed(2)}%` : '-';
  console.log([match.padStart(8), ...COLUMNS.map((name) => String(counts[name]).padStart(9)), ` ${title}`].join(''));
}

setup();
const given = process.argv.slice(2);
const roots = given.length > 0 ? given : [join(ROOT, 'traces/corpus')];
const total = Object.fromEntries(COLUMNS.map((name) => [name, 0]));
console.log(['score'.padStart(8), ...COLUMNS.map((name) => name.padStart(9)), ' recording'].join(''));
for (const path of roots.flatMap(recordingsIn)) {
  const command = [join(ROOT, 'dist/replay/main.js'), 'check', '--json', path];
  const run = spawnSync(process.execPath, command, { encoding: 'utf8', maxBuffer: 1 << 30 });
  const title = relative(process.cwd(), path);
  if (run.status !== 0 && run.status !== 1) {
    console.log(`   exit status ${run.status ?? run.signal}: ${title}: ${run.stderr.trim().split('\n').at(-1)}`);
    process.exitCode = 2;
    continue;
  }
  const report = JSON.parse(run.stdout);
  const { total: calls, ...verdicts } = report.calls;
  const counts = { events: report.events, findings: report.findings.length, calls, ...verdicts };
  for (const name of COLUMNS) total[name] += counts[name];
  row(title, counts);
}
row('all', total);
