import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import * as assert from 'uvu/assert';
import { Bytes } from '../core/bytes.js';
import type { Event } from '../core/event.js';
import { SEED } from '../core/property.js';
import { suite } from '../core/testing.js';
import type { Call } from '../reducers/call.js';
import { families } from '../reducers/families.js';
import type { Families } from '../reducers/family.js';
import { addUsers, nextObjectId, takeId } from '../reducers/iommufd/context.js';
import { insertArea } from '../reducers/iommufd/iopt.js';
import { pinAdd } from '../reducers/memory/pins.js';
import type { World } from '../reducers/world.js';
import { openRecording } from '../traces/open.js';
import { placesOf, usesIommufd } from './failure-places.js';
import { FailureSweep } from './failure-sweep.js';
import { startWorld } from './start.js';

const test = suite('failure sweep');
const CORPUS = fileURLToPath(new URL('../../traces/corpus/', import.meta.url));

/** `all`: every place of the bundled recordings; a folder: every place of the recordings in it; '': a selection. */
const WHAT = process.env['IOTAPE_SWEEP'] ?? '';
/** So many places are tried where there is no more time. */
const SELECTED = 40;
const PROBLEMS_SHOWN = 10;

interface Opened {
  readonly name: string;
  readonly events: readonly Event[];
  readonly start: World;
}

async function opened(path: string): Promise<Opened> {
  const recording = await openRecording(path);
  const events: Event[] = [];
  for await (const batch of recording.batches()) events.push(...batch);
  return { name: path, events, start: startWorld(recording) };
}

async function* recordings(folder: string): AsyncGenerator<Opened> {
  const names = statSync(folder).isDirectory() ? (readdirSync(folder, { recursive: true }) as string[]).sort() : [''];
  for (const name of names) {
    if (!/\.(strace|jsonl)(\.gz)?$/.test(join(folder, name))) continue;
    const each = await opened(join(folder, name));
    if (usesIommufd(each.events)) yield each;
  }
}

test('wherever an allocation fails, the state is as the kernel leaves it and holds together from then on', async () => {
  const all: Opened[] = [];
  for await (const each of recordings(WHAT === '' || WHAT === 'all' ? CORPUS : WHAT)) all.push(each);
  assert.ok(all.length > 0);
  const total = all.reduce((sum, { events }) => sum + placesOf(events).length, 0);
  // Spread evenly over all recordings; the seed says where the first one is.
  const stride = WHAT === '' ? Math.ceil(total / SELECTED) : 1;
  const sweep = new FailureSweep(families);
  const problems: string[] = [];
  let number = SEED % stride;
  for (const { name, events, start } of all) {
    for (const problem of sweep.run(events, start, () => number++ % stride === 0)) problems.push(`${name}: ${problem}`);
  }
  console.log(`${sweep.runs} of ${total} places in ${all.length} recordings, ${sweep.steps} events; FC_SEED=${SEED}`);
  assert.is(problems.length, 0, problems.slice(0, PROBLEMS_SHOWN).join('\n'));
  assert.ok(sweep.runs >= Math.min(total, SELECTED / 2));
});

// ---- broken reducers that it must see -------------------------------------------------------------------------

/** The real families, but for what `spoil` does to the state after a call of iommufd that failed. */
function spoilt(spoil: (call: Call, contextId: number) => void): Families {
  const family = families.iommufd;
  const ioctl = (call: Call): void => {
    family?.ioctl?.(call);
    call.endTrial();
    if (call.event.ret === -1 && call.tx.world.iommufds.has(call.file.object)) spoil(call, call.file.object);
  };
  return { ...families, iommufd: { ...family, ioctl } };
}

/** An area that nobody mapped, in the first IOAS, after the call that had no memory. */
function leaveArea(call: Call): void {
  if (call.event.errno !== 'ENOMEM') return;
  const ioas = call.tx.world.ioases.first();
  const area = ioas?.areas.first();
  if (ioas === undefined || area === undefined) return;
  insertArea(call.tx, ioas.id, Object.freeze({ ...area, start: 0x7000_0000, last: 0x7000_0fff }));
}

function leavePin(call: Call): void {
  const { space } = call.process;
  pinAdd(call.tx, space, { start: 0x10_0000, last: 0x10_0fff, owner: 'ioas:1', key: 0x7000, since: call.event.seq });
}

const MUTATIONS: readonly [what: string, report: RegExp, spoil: (call: Call, contextId: number) => void][] = [
  [
    'an id is not given back',
    /iommufds is not as before/,
    (call, id) => takeId(call.tx, id, nextObjectId(call.tx, id)),
  ],
  ['a user is counted that is none', /has \d+ users and \d+ refer/, (call, id) => addUsers(call.tx, id, 1, 1)],
  ['an area is left', /ioases is not as before/, leaveArea],
  ['pages stay pinned', /is pinned by ioas:1/, leavePin],
  [
    'a fact is learned from it',
    /facts is not as before/,
    (call) => call.tx.world.facts.set('x', Object.freeze({ value: Bytes.EMPTY, since: 0 })),
  ],
  [
    'the error is denied',
    /the verdict is diverge/,
    (call) => {
      call.faultArmed = false;
    },
  ],
];

for (const [what, report, spoil] of MUTATIONS) {
  test(`seen: ${what}`, async () => {
    const name = 'iommufd/iommufd_ioas.mock_domain.area_auto_iova.strace.gz';
    const { events, start } = await opened(join(CORPUS, name));
    const few = (_: unknown, number: number): boolean => number % 40 === 0;
    assert.equal([...new FailureSweep(families).run(events, start, few)], []);
    const problems = [...new FailureSweep(spoilt(spoil)).run(events, start, few)];
    assert.ok(
      problems.some((problem) => report.test(problem)),
      `not seen; ${problems.slice(0, 3).join('; ')}`,
    );
  });
}
