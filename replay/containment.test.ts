import { spawnSync } from 'node:child_process';
import * as assert from 'uvu/assert';
import { hashCanonical } from '../core/canonical.js';
import { InputError } from '../core/errors.js';
import type { Event } from '../core/event.js';
import type { Invariant } from '../core/invariant.js';
import { suite } from '../core/testing.js';
import type { Call } from '../reducers/call.js';
import { families } from '../reducers/families.js';
import type { Families, FileFamily } from '../reducers/family.js';
import { ev, numbered } from '../reducers/testing.js';
import type { World } from '../reducers/world.js';
import { corpus, MAIN } from './cli/testing.js';
import { diagnosticOf } from './containment.js';
import { Engine } from './engine.js';

const test = suite('containment');
const GET_API_VERSION = 0x3b64;
const IOAS_ALLOC = 0x3b81;
const MIRROR = '/dev/hmm_dmirror0';

/** A process with a container, an iommufd and a mirror, all of which it asks something twice. */
function session(): Event[] {
  const ask = (fd: number, request: number, line: number): Event => ev('ioctl', { fd, request, line });
  return numbered([
    ev('exec'),
    ev('open', { path: '/dev/vfio/vfio', flags: 2, ret: 3 }),
    ev('open', { path: '/dev/iommu', flags: 2, ret: 4 }),
    ev('open', { path: MIRROR, flags: 2, ret: 5 }),
    ask(3, GET_API_VERSION, 10),
    ask(5, 0x4828, 11),
    ask(3, GET_API_VERSION, 12),
    ask(4, IOAS_ALLOC, 13),
    ask(5, 0x4828, 14),
    ev('mmap', { addr: 0x10000, flags: 0x32, ret: 0x10000 }),
    ev('close', { fd: 3, line: 16 }),
    ev('close', { fd: 4, line: 17 }),
  ]);
}

function broken(kind: 'vfio-container' | 'iommufd', spoilt: Partial<FileFamily>): Families {
  return { ...families, [kind]: { ...families[kind], ...spoilt } };
}

function boom(): never {
  throw new Error('boom');
}

/** Throws from the second call on, in the middle of a change and after a prediction. */
function failsLater(): Partial<FileFamily> {
  let calls = 0;
  return {
    ioctl(call: Call) {
      call.succeed('test.ok');
      if (++calls < 2) return;
      call.tx.world.containers.delete(1);
      boom();
    },
  };
}

test('a part that throws ends there; what was said before stands, the rest goes on', () => {
  const events = session();
  const engine = new Engine({ families: broken('vfio-container', failsLater()) });
  engine.feed(events);
  assert.is(engine.eventCount, events.length);
  assert.equal(engine.tally.byCall['VFIO_GET_API_VERSION'], { total: 2, match: 1, diverge: 0, learned: 0, unknown: 1 });
  assert.equal(engine.tally.byCall['IOMMU_IOAS_ALLOC'], { total: 1, match: 0, diverge: 0, learned: 0, unknown: 1 });
  const reason = 'a bug in iotape at event 6 ended the model of VFIO and iommufd (IOT401)';
  assert.equal(
    new Set(engine.unknowns.groups.filter(({ kinds }) => !kinds.includes('dmirror')).map((g) => g.because)),
    new Set([reason]),
  );
  assert.equal([...engine.world.stoppedParts], [['VFIO and iommufd', 6]]);
  assert.is(engine.bugCount, 1);
  // Files and memory are followed as before, and fds may have been made that nobody knows.
  const table = engine.world.fdTables.first();
  assert.equal([table?.complete, table?.fds.has(3), engine.world.spaces.first()?.vmas.size], [false, false, 1]);
});

test('it is told with the line of the recording and the place in our code', () => {
  const engine = new Engine({ families: broken('vfio-container', failsLater()) });
  engine.feed(session());
  const [bug] = engine.bugs;
  assert.ok(bug !== undefined);
  const { code, file, line, message } = diagnosticOf(bug, ['run.strace']);
  assert.equal([code, file, line], ['IOT401', 'run.strace', 12]);
  assert.match(message, /^VFIO and iommufd, event 6: boom at containment\.test\.[jt]s:\d+$/);
});

test('however events are cut, all ways end alike', () => {
  const ends = [1, 3, 100].map((batch) => {
    const engine = new Engine({ families: broken('vfio-container', failsLater()) });
    const events = session();
    for (let at = 0; at < events.length; at += batch) {
      engine.feed(events.slice(at, at + batch));
      assert.ok(engine.world.files.isFrozen);
    }
    return `${hashCanonical(engine.world)} ${JSON.stringify(engine.tally.all)}`;
  });
  assert.is(new Set(ends).size, 1);
});

test('a replay that begins behind it goes on without the part', () => {
  const events = session();
  const first = new Engine({ families: broken('vfio-container', failsLater()) });
  first.feed(events.slice(0, 7));
  const second = new Engine({ world: first.world });
  second.feed(events.slice(7));
  assert.is(second.bugCount, 0);
  assert.equal(second.tally.byCall['IOMMU_IOAS_ALLOC'], { total: 1, match: 0, diverge: 0, learned: 0, unknown: 1 });
});

const PLACES: readonly [what: string, spoilt: Partial<FileFamily>, bugs: number][] = [
  ['an open', { open: boom }, 1],
  ['a release', { release: boom }, 1],
  ['words about a call', { explain: boom }, 2],
];

for (const [what, spoilt, bugs] of PLACES) {
  test(`${what} that throws goes no further`, () => {
    const engine = new Engine({ families: broken('vfio-container', spoilt), onCall: (_, call) => call.told });
    engine.feed(session().slice(0, 6));
    const asked = ev('ioctl', { fd: 3, path: '/dev/vfio/vfio', request: 0x3b66, arg: 99, ret: -1, errno: 'EINVAL' });
    engine.feed([asked, ev('close', { fd: 3 })]);
    assert.is(engine.bugCount, bugs);
    assert.is(engine.eventCount, 8);
  });
}

test('a throw over what an answer shows of a file ends the part that the file belongs to, and no other', () => {
  const engine = new Engine({ families: broken('vfio-container', { reveals: boom }) });
  engine.feed(session());
  assert.equal([...engine.world.stoppedParts], [['VFIO and iommufd', 4]]);
  assert.is(engine.bugCount, 1);
  assert.is(engine.tally.byCall['VFIO_GET_API_VERSION']?.unknown, 2);
});

test('what a file is cannot be told by a family that throws', () => {
  const engine = new Engine({ families: { ...families, 'vfio-device': { ...families['vfio-device'], claims: boom } } });
  engine.feed(numbered([ev('exec'), ev('ioctl', { fd: 9, request: 0x3b70, arg: 0x1000, ret: 0 })]));
  assert.ok(engine.bugCount > 0);
  assert.is(engine.bugs[0]?.part, 'what a file is');
});

test('files and memory are under everything', () => {
  const evil = { ...ev('mmap', { ret: 0x10000 }), seq: 2 };
  Object.defineProperty(evil, 'lengthBytes', { get: boom });
  const engine = new Engine();
  const events = session();
  engine.feed([...events.slice(0, 2), evil, ...events.slice(2)]);
  assert.equal([...engine.world.stoppedParts.keys()], ['everything']);
  assert.is(engine.tally.all.unknown, engine.tally.all.total);
  assert.is(engine.eventCount, events.length + 1);
});

test("a checker that throws is asked no more, the others are; one of a user is the user's", () => {
  let asked = 0;
  const checker = (name: string, check: Invariant<World>['check']): Invariant<World> => ({
    name,
    why: '',
    kinds: ['mmap', 'close'],
    check,
  });
  const good = checker('good', () => {
    asked++;
    return [];
  });
  const engine = new Engine({ invariants: [checker('bad', boom), good] });
  engine.feed(session());
  assert.equal([engine.bugCount, engine.bugs[0]?.part, asked], [1, 'invariant bad', 3]);
  const lazy = { ...good, name: 'lazy', concerns: boom };
  const other = new Engine({ invariants: [lazy] });
  other.feed(session());
  assert.is(other.bugs[0]?.part, 'invariant lazy');

  const fault = new InputError({ code: 'IOT303', file: 'x.js', line: 0, column: 0, message: '' });
  const mine = new Engine({
    invariants: [
      checker('mine', () => {
        throw fault;
      }),
    ],
  });
  assert.throws(
    () => mine.feed(session()),
    (error: unknown) => error === fault,
  );
});

test('checkers do not look at what a part that stopped has left', () => {
  let asked = 0;
  const counts: Invariant<World> = {
    name: 'counts',
    why: '',
    kinds: ['close'],
    check: () => {
      asked++;
      return [];
    },
  };
  const engine = new Engine({ families: broken('vfio-container', failsLater()), invariants: [counts] });
  engine.feed(session());
  assert.is(asked, 0);
});

test('bugs beyond a number are counted and not kept', () => {
  const engine = new Engine({ families: broken('iommufd', { explain: boom }), onCall: (_, call) => call.told });
  const call = ev('ioctl', { fd: 4, path: '/dev/iommu', request: 0x3b01, ret: -1, errno: 'ENOTTY' });
  const calls = Array.from({ length: 300 }, () => call);
  engine.feed(numbered([ev('exec'), ev('open', { path: '/dev/iommu', flags: 2, ret: 4 }), ...calls]));
  assert.equal([engine.bugCount, engine.bugs.length], [300, 100]);
});

test('the command line: a report of what is known, and an exit status of its own', () => {
  const families = new URL('../reducers/families.js', import.meta.url).href;
  const spoil = `data:text/javascript,import{families}from${JSON.stringify(families)};let n=0;const f=families.iommufd,i=f.ioctl;f.ioctl=(c)=>{if(++n>20)throw new Error("boom");i(c)}`;
  const trace = corpus('iommufd/vfio_compat_mock_domain.Ver1v2.huge_map.strace.gz');
  const run = (...args: string[]) =>
    spawnSync(process.execPath, ['--import', spoil, MAIN, ...args, trace], { encoding: 'utf8' });
  const json = run('check', '--json');
  assert.is(json.status, 70, json.stderr);
  const report = JSON.parse(json.stdout);
  assert.equal([report.calls.total, report.calls.match, report.calls.unknown], [22, 20, 2]);
  assert.is(report.diagnostics.at(-1).code, 'IOT401');
  const text = run('check');
  assert.is(text.status, 70);
  assert.match(text.stdout, /IOT401 bug in iotape/);
  assert.is(run('show').status, 0, 'others go on as well');
  assert.is(run('verify').status, 70);
});
