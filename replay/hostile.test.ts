import { spawnSync } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, rmSync, statSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { suite } from '../core/testing.js';
import { MAIN } from './cli/testing.js';
import { HOSTILE } from './hostile-traces.js';
import type { ReportJson } from './print/report-json.js';

const test = suite('hostile recordings');
const scratch = mkdtempSync(join(tmpdir(), 'iotape-hostile-'));
test.after(() => rmSync(scratch, { recursive: true, force: true }));

/** Long enough for a slow machine with other work; what a hang would never keep. */
const HANG_MS = 240_000;
const MAX_RESIDENT_MIB = 1024;
const HEAP_MIB = 512;
/** The child's last words on stderr. */
const TELL_RESIDENT =
  'data:text/javascript,process.on("exit",()=>process.stderr.write("resident "+(process.resourceUsage().maxRSS>>10)))';

function write(pieces: Iterable<string>): string {
  const path = join(scratch, 'hostile.strace');
  const file = openSync(path, 'w');
  let waiting = '';
  for (const piece of pieces) {
    waiting += piece;
    if (waiting.length < 1 << 20) continue;
    writeSync(file, waiting, null, 'latin1');
    waiting = '';
  }
  writeSync(file, waiting, null, 'latin1');
  closeSync(file);
  return path;
}

/** Runs a verb in a process with little memory; gives its standard output. */
function bounded(args: readonly string[]): string {
  const node = [`--max-old-space-size=${HEAP_MIB}`, '--import', TELL_RESIDENT, MAIN, ...args];
  const ran = spawnSync(process.execPath, node, {
    encoding: 'utf8',
    maxBuffer: 1 << 29,
    timeout: HANG_MS,
    killSignal: 'SIGKILL',
    env: { PATH: process.env['PATH'] },
  });
  const what = `${args.join(' ')}\n${ran.stderr.slice(0, 2000)}`;
  assert.is(ran.signal, null, what);
  assert.ok(ran.status === 0 || ran.status === 1, `status ${ran.status}: ${what}`);
  const [, errors = '', resident] = /^([^]*?)resident (\d+)$/.exec(ran.stderr) ?? [];
  assert.is(errors, '', what);
  assert.ok(Number(resident) < MAX_RESIDENT_MIB, `${resident} MiB: ${what}`);
  return ran.stdout;
}

for (const [name, pieces] of Object.entries(HOSTILE)) {
  test(name, () => {
    const path = write(pieces());
    const report = JSON.parse(bounded(['check', '--json', path])) as ReportJson;
    assert.match(report.stateHash, /^[0-9a-f]{64}$/);
    const { total, match, diverge, learned, unknown } = report.calls;
    assert.is(match + diverge + learned + unknown, total);
    if (statSync(path).size > 3 << 20) return;
    for (const verb of [['check'], ['show'], ['show', '--json'], ['state'], ['verify']]) {
      assert.ok(bounded([...verb, path]).length > 0, verb.join(' '));
    }
  });
}
