import { execFileSync } from 'node:child_process';
import { closeSync, existsSync, mkdtempSync, openSync, rmSync, statSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import type { Measurement } from './child.js';
import { churn, type ChurnOptions } from './generate.js';
import { invalidationCalls, invalidationEvents } from './generate-hmm.js';

/**
 * The benchmark: `npm run bench` (some minutes), `npm run bench -- --full` (with 1M calls, half an hour),
 * `npm run bench -- --only bounds` for one part of it.
 * Absolute times depend on the machine and what else it does; the ratios in one run are the message.
 */
const { values } = parseArgs({
  options: {
    full: { type: 'boolean', default: false },
    only: { type: 'string' },
    repeat: { type: 'string', default: '3' },
  },
});
const folder = mkdtempSync(join(tmpdir(), 'iotape-bench-'));
const child = fileURLToPath(new URL('child.js', import.meta.url));

function capture(options: ChurnOptions): string {
  return written(`${options.kind}-${options.calls}-${options.live}-${options.areaBytes ?? ''}.strace`, () =>
    churn(options),
  );
}

function invalidations(form: 'strace' | 'jsonl', count: number, ranges: number): string {
  const options = { invalidations: count, ranges, seed: 1 };
  const text = form === 'strace' ? invalidationCalls : invalidationEvents;
  return written(`hmm-${count}-${ranges}.${form}`, () => text(options));
}

/** The path of a generated file, which is made once. */
function written(name: string, text: () => Iterable<string>): string {
  const path = join(folder, name);
  if (existsSync(path)) return path;
  const fd = openSync(path, 'w');
  for (const chunk of text()) writeSync(fd, chunk);
  closeSync(fd);
  return path;
}

/** The fastest of some runs: what the machine can do when nothing else is in the way. On one thread unless `always`. */
function run(stage: string, path: string, readAhead = 'never', repeat = Number(values.repeat)): Measurement {
  let best: Measurement | undefined;
  for (let i = 0; i < repeat; i++) {
    const one = JSON.parse(
      execFileSync(process.execPath, [child, stage, path, readAhead], { encoding: 'utf8' }),
    ) as Measurement;
    if (best === undefined || one.ms < best.ms) best = one;
  }
  return best as Measurement;
}

function usEach(m: Measurement): number {
  return (m.ms * 1000) / m.items;
}

function row(name: string, m: Measurement, against?: Measurement): void {
  const ratio = against === undefined ? '' : `${(m.ms / against.ms).toFixed(2)}x`;
  const mib = (m.maxRssBytes / (1 << 20)).toFixed(0);
  console.log(
    `${name.padEnd(44)} ${usEach(m).toFixed(2).padStart(8)} us/event ${mib.padStart(6)} MiB ${ratio.padStart(8)}`,
  );
}

function stages(): void {
  const path = capture({ kind: 'type1', calls: 100_000, live: 10_000, seed: 1 });
  console.log(
    `\nstages, type1, 100k calls, 10k live (${(statSync(path).size / 1e6).toFixed(0)} MB); ratio against (b)`,
  );
  const regex = run('regex', path);
  row('parse', run('parse', path), regex);
  row('reduce with verdicts and invariants', run('reduce', path), regex);
  row('check (all of it)', run('check', path), regex);
  row('check, another thread reading ahead', run('check', path, 'always'), regex);
  row('(b) line by line, regular expressions', regex, regex);
  const small = capture({ kind: 'type1', calls: 10_000, live: 1_000, seed: 1 });
  console.log('\nreduce against (a), 10k calls, 1k live; ratio against reduce');
  const reduce = run('reduce', small);
  row('reduce', reduce, reduce);
  row('(a) one immer produce per event, plain Maps', run('immer', small), reduce);
}

function growth(): void {
  console.log('\ngrowth with length, type1, 10k live; ratio against 100k');
  const hundred = run('check', capture({ kind: 'type1', calls: 100_000, live: 10_000, seed: 1 }));
  row('check 10k calls', run('check', capture({ kind: 'type1', calls: 10_000, live: 10_000, seed: 1 })), hundred);
  row('check 100k calls', hundred, hundred);
  if (values.full) {
    const path = capture({ kind: 'type1', calls: 1_000_000, live: 10_000, seed: 1 });
    const million = run('check', path);
    row('check 1M calls', million, hundred);
    row('check 1M calls, read ahead', run('check', path, 'always'), million);
    row('(b) 1M calls', run('regex', path), million);
  }
}

/**
 * What may grow, and how much: an event costs no more in a long recording than in a short one (1M events at most 12 times what 100k
 * take), and with 100,000 live entries at most twice what it costs with 1,000. Of a mapping's size it costs nothing. Held against
 * CPU time, which says the same on a machine that does other things beside.
 */
const LENGTH_BOUND = 1.2;
const LIVE_BOUND = 2;

function bound(name: string, m: Measurement, against: Measurement, limit: number): void {
  const cpuUsEach = ({ cpuMs, items }: Measurement): number => (cpuMs * 1000) / items;
  const ratio = cpuUsEach(m) / cpuUsEach(against);
  const verdict = ratio <= limit ? 'holds' : 'BROKEN';
  const each = `${cpuUsEach(m).toFixed(2)} us/event against ${cpuUsEach(against).toFixed(2)}`;
  console.log(`${name.padEnd(60)} ${each}: ${ratio.toFixed(2)}x, at most ${limit}x ${verdict}`);
}

interface Workload {
  readonly name: string;
  readonly make: (calls: number, live: number) => string;
}

const WORKLOADS: readonly Workload[] = [
  { name: 'iommufd MAP and UNMAP', make: (calls, live) => capture({ kind: 'iommufd', calls, live, seed: 1 }) },
  { name: 'type1 MAP and UNMAP', make: (calls, live) => capture({ kind: 'type1', calls, live, seed: 1 }) },
  { name: 'invalidations of 1 TiB by calls', make: (calls, live) => invalidations('strace', calls, live) },
  { name: 'invalidations of 1 TiB by kernel events', make: (calls, live) => invalidations('jsonl', calls, live) },
];

function bounds(): void {
  const many = values.full ? 1_000_000 : 300_000;
  console.log(
    `\nbounds of a whole check: ${many / 1000}k calls or invalidations against a tenth, 100k live against 1k`,
  );
  for (const { name, make } of WORKLOADS) {
    const measured = (calls: number, live: number): Measurement => {
      const path = make(calls, live);
      const measurement = run('check', path);
      rmSync(path);
      return measurement;
    };
    bound(`${name}: length`, measured(many, 10_000), measured(many / 10, 10_000), LENGTH_BOUND);
    bound(`${name}: live`, measured(many, 100_000), measured(many, 1_000), LIVE_BOUND);
  }
  const area = (areaBytes: number): string => capture({ kind: 'iommufd', calls: 30_000, live: 1, seed: 1, areaBytes });
  bound('iommufd MAP of 1 TiB: against 4 KiB', run('check', area(2 ** 40)), run('check', area(4096)), LENGTH_BOUND);
}

try {
  for (const [name, part] of Object.entries({ stages, growth, bounds })) if ((values.only ?? name) === name) part();
} finally {
  rmSync(folder, { recursive: true, force: true });
}
