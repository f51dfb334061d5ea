// npm run readme: runs the commands of README.md that are marked to be run, and holds each to its exit status.
//
// A block is marked by a comment on the line before its fence, which says the status when it is not 0:
//   <!-- run -->           <!-- run exit=1 -->
// The block is one bash script, run from the project's folder with no input, that stops at its first failing command.
import { setup } from './setup.mjs';
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ROOT } from './files.mjs';

const TIMEOUT_MS = 120_000;
const BLOCK = /^<!-- run(?: exit=(\d+))? -->\n+```sh\n([\s\S]*?)^```$/gm;
const MARK = /^<!-- run\b/gm;

/** The marked blocks: the script, the status it must end with, and its line. Throws on a mark without a block. */
export function markedBlocks(text) {
  const blocks = [...text.matchAll(BLOCK)].map((match) => ({
    script: match[2],
    exit: Number(match[1] ?? 0),
    line: text.slice(0, match.index).split('\n').length,
  }));
  const marks = text.match(MARK)?.length ?? 0;
  if (marks !== blocks.length) throw new Error(`${marks} marks, but ${blocks.length} well-formed sh blocks after them`);
  return blocks;
}

/** Runs one block in `folder`; undefined when it ended as it must, else a sentence. */
export function runBlock({ script, exit }, folder) {
  const run = spawnSync('bash', ['-euo', 'pipefail', '-c', script], {
    cwd: folder,
    encoding: 'utf8',
    input: '',
    timeout: TIMEOUT_MS,
    maxBuffer: 1 << 28,
  });
  if (run.status === exit) return undefined;
  const end = run.status === null ? `ended by ${run.signal ?? run.error?.message}` : `exit status ${run.status}`;
  return `${end}, expected ${exit}\n${run.stdout}${run.stderr}`.trim();
}

if (process.argv[1] && resolve(process.argv[1]) === fileURLToPath(import.meta.url)) {
  setup();
  const blocks = markedBlocks(readFileSync(join(ROOT, 'README.md'), 'utf8'));
  let failed = blocks.length === 0 ? 1 : 0;
  if (failed > 0) console.log('FAIL README.md: no block is marked to be run');
  for (const block of blocks) {
    const problem = runBlock(block, ROOT);
    if (problem !== undefined) failed++;
    console.log(`${problem === undefined ? 'ok  ' : 'FAIL'} README.md:${block.line} ${block.script.trim()}`);
    if (problem !== undefined) console.log(problem);
  }
  process.exitCode = failed > 0 ? 1 : 0;
}
