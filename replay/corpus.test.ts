import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import * as assert from 'uvu/assert';
import { hashCanonical } from '../core/canonical.js';
import type { Event } from '../core/event.js';
import { suite } from '../core/testing.js';
import { invariants } from '../reducers/invariants/index.js';
import type { World } from '../reducers/world.js';
import { openRecording } from '../traces/open.js';
import type { Recording } from '../traces/recording.js';
import { writeTape } from '../traces/tape/writer.js';
import { iotape } from './cli/testing.js';
import { COLUMNS, countsOf, measured, readTable, writeTable } from './corpus-table.js';
import { Engine } from './engine.js';
import { replay } from './report.js';

const test = suite('corpus');
const CORPUS = fileURLToPath(new URL('../../traces/corpus/', import.meta.url));
const INDEX = readFileSync(join(CORPUS, 'INDEX.md'), 'utf8');
const EXPECTED = readTable(INDEX);
const FILES = readdirSync(CORPUS, { recursive: true, withFileTypes: true })
  .filter((entry) => entry.isFile() && entry.name !== 'INDEX.md')
  .map((entry) => join(entry.parentPath, entry.name).slice(CORPUS.length))
  .sort();
const scratch = mkdtempSync(join(tmpdir(), 'iotape-corpus-'));
test.after(() => rmSync(scratch, { recursive: true, force: true }));

interface Ending {
  readonly stateHash: string;
  readonly calls: object;
  readonly findings: number;
  readonly divergences: number;
}

function endingOf(engine: Engine): Ending {
  for (const { error } of engine.bugs) throw error;
  return {
    stateHash: hashCanonical(engine.world),
    calls: { ...engine.tally.all },
    findings: engine.findingCount,
    divergences: engine.divergenceCount,
  };
}

async function eventsOf(recording: Recording): Promise<Event[]> {
  const events: Event[] = [];
  for await (const batch of recording.batches()) events.push(...batch);
  return events;
}

/** Replays from a snapshot (the empty world), looking at the world after each `batch` events. */
function replayed(events: readonly Event[], batch: number, world?: World): Engine {
  const engine = new Engine(world === undefined ? { invariants } : { invariants, world });
  for (let at = 0; at < events.length; at += batch) {
    engine.feed(events.slice(at, at + batch));
    assert.ok(Object.isFrozen(engine.world));
  }
  return engine;
}

test('the index and the folder name the same recordings', () => {
  assert.ok(FILES.length > 10, 'the folder was not found');
  assert.equal([...EXPECTED.keys()].sort(), FILES);
});

for (const file of FILES) {
  const path = join(CORPUS, file);

  test(`${file}: the verdicts that the index states`, async () => {
    assert.equal(await measured(path), EXPECTED.get(file));
  });

  test(`${file}: batches of 1 and of 4,096, text and tape give one state and the same verdicts`, async () => {
    const events = await eventsOf(await openRecording(path));
    const whole = endingOf(replayed(events, 4096));
    assert.equal(endingOf(replayed(events, 1)), whole);
    const tape = join(scratch, 'copy.tape');
    await writeTape(tape, await openRecording(path), { chunkEvents: 100 });
    const copied = await eventsOf(await openRecording(tape));
    assert.equal(endingOf(replayed(copied, 4096)), whole, 'from its tape');
    assert.equal(endingOf(replayed(copied, 1)), whole, 'from its tape, one by one');
  });

  test(`${file}: no snapshot is touched by what follows, and a replay may begin at each`, async () => {
    const events = await eventsOf(await openRecording(path));
    const end = hashCanonical(replayed(events, 4096).world);
    const step = Math.ceil(events.length / 7);
    const engine = new Engine({ invariants });
    const kept = [{ at: 0, world: engine.world, hash: hashCanonical(engine.world) }];
    for (let at = 0; at < events.length; at += step) {
      engine.feed(events.slice(at, at + step));
      kept.push({ at: at + step, world: engine.world, hash: hashCanonical(engine.world) });
    }
    for (const { at, world, hash } of kept) {
      assert.is(hashCanonical(replayed(events.slice(at), 4096, world).world), end, `from event ${at}`);
      assert.is(hashCanonical(world), hash, `the snapshot before event ${at}`);
    }
  });
}

test('another process with another locale finds the same', async () => {
  const ran = iotape(['check', '--json', ...FILES], '', CORPUS);
  assert.is(ran.stderr, '');
  const reports = ran.stdout.trim().split('\n');
  assert.is(reports.length, FILES.length);
  for (const [index, file] of FILES.entries()) {
    const { trace, calls, stateHash } = JSON.parse(reports[index] as string) as Record<string, unknown>;
    const here = await replay(await openRecording(join(CORPUS, file)), { invariants });
    assert.equal({ trace, calls, stateHash }, { trace: file, calls: here.calls, stateHash: here.stateHash });
  }
});

// ---- the table itself --------------------------------------------------------------------------------------

const ZERO = countsOf({
  events: 0,
  skippedLines: 0,
  calls: { total: 0, match: 0, diverge: 0, learned: 0, unknown: 0 },
  findingCount: 0,
});

test('a table is written as it is read', () => {
  assert.is(writeTable(INDEX, EXPECTED), INDEX);
  const text = '# x\n\n| File | What |\n|---|---|\n| `a.gz` | one |\n| `b.gz` | two |\n\nend\n';
  const counts = new Map([
    ['a.gz', { ...ZERO, events: 5 }],
    ['b.gz', { ...ZERO, match: 1234 }],
  ]);
  const written = writeTable(text, counts);
  assert.equal(readTable(written), counts);
  assert.match(written, /^# x\n\n\| File +\| What \| events \|/);
  assert.match(written, /\n\nend\n$/);
});

test('a row without all numbers, or a second one, is refused', () => {
  assert.throws(
    () => readTable('| File | What |\n|---|---|\n| `a.gz` | one |\n'),
    /a\.gz has no number in column events/,
  );
  const head = `| File | ${COLUMNS.join(' | ')} |`;
  const row = `| \`a.gz\` | ${COLUMNS.map(() => '1').join(' | ')} |`;
  assert.is(readTable(`${head}\n${row}`).size, 1);
  assert.throws(() => readTable(`${head}\n${row}\n${row}`), /two rows/);
});
