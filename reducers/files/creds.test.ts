import * as assert from 'uvu/assert';
import type { Event } from '../../core/event.js';
import { suite } from '../../core/testing.js';
import { ev, replay } from '../testing.js';
import type { World } from '../world.js';
import { type Creds, isUnknownUser } from './creds.js';

const test = suite('files/creds');

const EXEC = ev('exec');
const IPC_LOCK = 1 << 14;
const SETUID = 1 << 7;
const SYS_RESOURCE = 1 << 24;
const NEWUSER = 0x1000_0000;

const told = (realUid: number, effectiveUid = realUid, savedUid = effectiveUid): Event =>
  ev('creds', { call: 'getresuid', realUid, effectiveUid, savedUid });
const caps = (effectiveCaps: number, more: object = {}): Event =>
  ev('creds', { call: 'capget', effectiveCaps, permittedCaps: effectiveCaps, ...more });
const setresuid = (realUid: number | null, effectiveUid: number | null, savedUid: number | null): Event =>
  ev('creds', { call: 'setresuid', realUid, effectiveUid, savedUid });
const setuid = (effectiveUid: number): Event => ev('creds', { call: 'setuid', effectiveUid });
const THREAD = ev('fork', { ret: 2, flags: 0x1_0f00 });

function credsOf(world: World, pid = 1): Creds {
  return (world.processes.get(pid) as { creds: Creds }).creds;
}

test('which events leave CAP_IPC_LOCK held, missing, unlikely or unknown', () => {
  const all = IPC_LOCK | SYS_RESOURCE;
  const securebits = (flags: number): Event => ev('creds', { call: 'prctl', flags });
  const rows: readonly [events: readonly Event[], ipcLock: Creds['ipcLock'], what: string][] = [
    [[], 'unknown', 'nothing told'],
    [[told(0)], 'unknown', 'root in a container may lack it'],
    [[told(1000)], 'unknown', 'its file may give it'],
    [[caps(IPC_LOCK)], 'yes', 'told'],
    [[caps(SYS_RESOURCE)], 'no', 'told'],
    [[caps(0, { targetPid: 1 })], 'no', 'told of itself by id'],
    [[caps(0, { targetPid: 9 })], 'unknown', 'told of another'],
    [[caps(IPC_LOCK, { ret: -1, errno: 'EPERM' })], 'unknown', 'failed'],
    [[ev('creds', { call: 'capget' })], 'unknown', 'the version was asked for'],
    [[THREAD, caps(0)], 'unlikely', 'told of one thread of several'],
    [[caps(all), ev('creds', { call: 'capset', effectiveCaps: 0, permittedCaps: all })], 'no', 'given up'],
    [[told(0), caps(all), setuid(1000)], 'no', 'root no more'],
    [[told(0), setresuid(1000, 1000, 1000)], 'no', 'root no more, whatever it had'],
    [[told(0), THREAD, setresuid(1000, 1000, 1000)], 'unlikely', 'one thread no more root'],
    [[setresuid(1000, 1000, 1000)], 'unlikely', 'whether it was root is not known'],
    [[caps(IPC_LOCK), setresuid(1000, 1000, 1000)], 'unknown', 'it may never have been root'],
    [[caps(IPC_LOCK | SETUID), setresuid(1000, 1000, 1000)], 'unlikely', 'who may take any id is root'],
    [[caps(IPC_LOCK | SETUID), EXEC, caps(IPC_LOCK), setuid(1000)], 'unknown', 'told anew'],
    [[told(0), setresuid(null, 1000, null), setresuid(null, 0, null)], 'unknown', 'permitted again'],
    [[told(0), caps(all), setresuid(null, 0, null)], 'yes', 'root still'],
    [[told(1000), caps(IPC_LOCK), setresuid(1000, 1000, 1000)], 'yes', 'never root'],
    [
      [told(0, 1000), caps(IPC_LOCK), setresuid(1000, 1000, 1000)],
      'unknown',
      'all three left root, maybe with KEEPCAPS',
    ],
    [[told(0), caps(all), securebits(4), setuid(1000)], 'unknown', 'ids mean nothing'],
    [[told(0), caps(all), EXEC], 'yes', 'root execs'],
    [[told(0), caps(0), EXEC], 'unknown', 'root may have it again'],
    [[told(1000), caps(IPC_LOCK), EXEC], 'unlikely', 'others lose it, but for files and ambient ones'],
    [[told(1000), caps(0), EXEC], 'unlikely', 'the file may give it'],
    [[caps(0), EXEC], 'unknown', 'root or not'],
    [[told(1000), EXEC, told(1000, 0)], 'unknown', 'the file gave root'],
    [[caps(all), ev('creds', { call: 'unshare', flags: NEWUSER })], 'no', 'a namespace of its own'],
    [[ev('creds', { call: 'unshare', flags: NEWUSER }), caps(all), setuid(0), EXEC], 'no', 'held in there only'],
    [[caps(all), ev('creds', { call: 'setns' })], 'unknown', 'some namespace'],
  ];
  for (const [events, ipcLock, what] of rows) {
    const creds = credsOf(replay([EXEC, ...events]));
    assert.is(creds.ipcLock, ipcLock, what);
    assert.is(creds.ipcLockSince >= 0, ipcLock !== 'unknown', what);
  }
});

test('CAP_SYS_RESOURCE is another bit', () => {
  assert.is(credsOf(replay([EXEC, caps(IPC_LOCK)])).sysResource, 'no');
  assert.is(credsOf(replay([EXEC, caps(SYS_RESOURCE)])).sysResource, 'yes');
});

test('what set*uid leaves of the three ids', () => {
  const rows: readonly [Event[], [number | null, number | null, number | null]][] = [
    [[], [null, null, null]],
    [[ev('creds', { call: 'geteuid', effectiveUid: 5 })], [null, 5, null]],
    [
      [told(0), setuid(7)],
      [7, 7, 7],
    ],
    [
      [told(1, 2, 3), setuid(1)],
      [1, 1, null],
    ],
    [
      [told(1, 2, 3), setuid(9)],
      [9, 9, 9],
    ],
    [[setuid(9)], [null, 9, null]],
    [
      [told(1, 2, 3), ev('creds', { call: 'setreuid', realUid: 2 })],
      [2, 2, 2],
    ],
    [
      [told(1, 2, 3), ev('creds', { call: 'setreuid', effectiveUid: 1 })],
      [1, 1, 3],
    ],
    [
      [told(1, 2, 3), ev('creds', { call: 'setreuid', effectiveUid: 3 })],
      [1, 3, 3],
    ],
    [[ev('creds', { call: 'setreuid', effectiveUid: 3 })], [null, 3, null]],
    [
      [told(1, 2, 3), setresuid(null, 4, null)],
      [1, 4, 3],
    ],
    [
      [told(1, 2, 3), EXEC],
      [1, 2, 2],
    ],
  ];
  for (const [events, expected] of rows) {
    const { realUid, effectiveUid, savedUid } = credsOf(replay([EXEC, ...events]));
    assert.equal([realUid, effectiveUid, savedUid], expected);
  }
});

test('a child is who its parent was; in a user namespace it has nothing outside', () => {
  const fork = (flags = 0): Event => ev('fork', { ret: 2, flags });
  const world = replay([
    EXEC,
    told(0),
    caps(IPC_LOCK),
    fork(),
    ev('creds', { call: 'setuid', effectiveUid: 7, tid: 2 }),
  ]);
  assert.equal([credsOf(world).ipcLock, credsOf(world).user], ['yes', 0]);
  assert.equal([credsOf(world, 2).ipcLock, credsOf(world, 2).user], ['no', 7]);
  const inside = credsOf(replay([EXEC, told(0), caps(IPC_LOCK), fork(NEWUSER)]), 2);
  assert.equal([inside.ipcLock, inside.realUid, inside.user], ['no', null, 0]);
});

test('a child that was seen before its fork keeps what its own calls told', () => {
  const early = [EXEC, told(0), ev('creds', { call: 'getuid', realUid: 7, tid: 2 })];
  const world = replay([...early, ev('fork', { ret: 2, enteredAt: 1 })]);
  assert.is(credsOf(world, 2).realUid, 7);
  const silent = replay([
    EXEC,
    told(0),
    ev('mmap', { tid: 2, ret: 0x7000_0000_0000 }),
    ev('fork', { ret: 2, enteredAt: 1 }),
  ]);
  assert.is(credsOf(silent, 2).realUid, 0);
});

test('a user has one account, before and after its id is told', () => {
  const unknown = credsOf(replay([EXEC])).user;
  assert.ok(isUnknownUser(unknown));
  const world = replay([EXEC, ev('fork', { ret: 2 }), told(1000)]);
  assert.is(credsOf(world).user, 1000);
  assert.is(world.userNames.get(unknown), 1000);
  assert.is(credsOf(world, 2).user, unknown);
  // Who changes its id is somebody else from then on.
  const changed = replay([EXEC, setuid(7), setresuid(8, 8, 8)]);
  assert.is(credsOf(changed).user, 8);
  assert.is(changed.userNames.size, 0);
});

test('RLIMIT_MEMLOCK is kept per process, inherited, and kept over execve', () => {
  const world = replay([
    EXEC,
    ev('prlimit', { oldSoft: 8192 }),
    ev('fork', { ret: 2 }),
    ev('prlimit', { newSoft: 65536, oldSoft: 8192 }),
    ev('prlimit', { targetPid: 2, newSoft: 4096, ret: -1, errno: 'EPERM' }),
    ev('prlimit', { targetPid: 77, newSoft: 4096 }),
    ev('prlimit', { resource: 7, newSoft: 1 }),
    ev('exec', { tid: 2 }),
  ]);
  assert.equal(world.processes.get(1)?.memlock, { bytes: 65536, since: 3 });
  assert.equal(world.processes.get(2)?.memlock, { bytes: 8192, since: 1 });
  assert.is(world.processes.size, 2);
});
