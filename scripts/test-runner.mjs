// Runs test files, each in a process of its own, and holds every one to what it declared.
//
// uvu has no runner that can be relied on (it exits 0 when it ran nothing), so a file has to say through
// core/testing.ts which tests it declared and what became of each; silence is a failure.
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { listFiles } from './files.mjs';
import { sourceOf } from './setup.mjs';

const MAX_OUTPUT_BYTES = 1 << 20;

/**
 * The test files under `root`: compiled ones (`dist/.../x.test.js` of `x.test.ts`) and those of the scripts.
 * `problems` names sources that were not built and built files without a source, which would hide or fake tests.
 */
export function findTests(root) {
  const built = listFiles(root, 'dist').filter((path) => path.endsWith('.test.js'));
  const sources = listFiles(root).filter((path) => path.endsWith('.test.ts'));
  const files = built.filter((path) => existsSync(join(root, sourceOf(path))));
  const stale = built.filter((path) => !files.includes(path));
  const missing = sources.filter((path) => !files.some((file) => sourceOf(file) === path));
  return {
    files: [...files, ...listFiles(root, 'scripts').filter((path) => path.endsWith('.test.mjs'))],
    problems: [
      ...stale.map((path) => ({ file: path, problem: 'its source is gone; run npm run build' })),
      ...missing.map((path) => ({ file: path, problem: 'it is not built; run npm run build' })),
    ],
  };
}

/** What a file's process left behind, as counts and sentences. */
function judge({ report, code, signal, timedOut, timeoutMs }) {
  const problems = [];
  const counts = { passed: 0, failed: 0, skipped: 0 };
  if (timedOut) problems.push(`still running after ${timeoutMs / 1000} s; killed`);
  else if (report === undefined) {
    const end = signal ? `killed by ${signal}` : `exit status ${code}`;
    problems.push(`${end}, and no word of which tests ran: it crashed, or uses no suite() of core/testing.ts`);
  } else {
    Object.assign(counts, { passed: report.passed, failed: report.failed, skipped: report.skipped });
    for (const name of report.unfinished) problems.push(`never finished: ${name}`);
    if (report.registered === 0) problems.push('no test in it');
    const explained = report.failed > 0 || report.unfinished.length > 0;
    if (code !== 0 && !explained) problems.push(`exit status ${code ?? signal} although every test passed`);
  }
  counts.failed += problems.length;
  return { ...counts, problems };
}

function readReport(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined; // nothing was told, or the process died while it told
  }
}

/** Runs one file. Resolves to its counts, its problems, its output and its time. */
export function runFile(root, file, timeoutMs) {
  return new Promise((resolve) => {
    const began = process.hrtime.bigint();
    // A group of its own, so that what the test started ends with it.
    const child = spawn(process.execPath, ['--enable-source-maps', join(root, file)], {
      cwd: root,
      detached: true,
      env: { ...process.env, IOTAPE_TEST_FD: '3' },
      stdio: ['ignore', 'pipe', 'pipe', 'pipe'],
    });
    let output = '';
    let told = '';
    let timedOut = false;
    const keep = (chunk) => {
      if (output.length < MAX_OUTPUT_BYTES) output += chunk;
    };
    child.stdout.setEncoding('utf8').on('data', keep);
    child.stderr.setEncoding('utf8').on('data', keep);
    child.stdio[3].setEncoding('utf8').on('data', (chunk) => (told += chunk));
    const endGroup = () => {
      try {
        process.kill(-child.pid, 'SIGKILL');
      } catch (error) {
        if (error.code !== 'ESRCH') throw error; // all of it has ended
      }
    };
    const interrupted = () => {
      endGroup();
      process.exit(130);
    };
    process.once('SIGINT', interrupted);
    const timer = setTimeout(() => {
      timedOut = true;
      endGroup();
    }, timeoutMs);
    child.on('exit', endGroup);
    child.on('close', (code, signal) => {
      clearTimeout(timer);
      process.off('SIGINT', interrupted);
      const seconds = Number(process.hrtime.bigint() - began) / 1e9;
      resolve({ file, output, seconds, ...judge({ report: readReport(told), code, signal, timedOut, timeoutMs }) });
    });
  });
}

/** Runs all files, `jobs` at a time, and calls `onResult` as each ends. */
export async function runFiles(root, files, { timeoutMs, jobs, onResult }) {
  const queue = [...files];
  const results = [];
  const worker = async () => {
    for (let file = queue.shift(); file !== undefined; file = queue.shift()) {
      const result = await runFile(root, file, timeoutMs);
      results.push(result);
      onResult(result);
    }
  };
  await Promise.all(Array.from({ length: jobs }, worker));
  return results;
}
