import * as assert from 'uvu/assert';
import type { Event } from '../../core/event.js';
import { suite } from '../../core/testing.js';
import type { Families } from '../family.js';
import { Tx } from '../tx.js';
import { emptyWorld, type World } from '../world.js';
import { ev, hashOf, numbered, replay } from '../testing.js';
import { fileOfFd, predictNewFd } from './fds.js';
import { processOf } from './processes.js';

const test = suite('files/reduce');

const EXEC = ev('exec');
const opens = (path: string, ret: number, more: object = {}): Event => ev('open', { path, ret, ...more });
const O_CLOEXEC = 0x8_0000;

/** fd numbers of a process, in order, each with the path behind it. */
function fdsOf(world: World, pid = 1): [number, string][] {
  const table = world.fdTables.get(world.processes.get(pid)?.fdTable ?? 0);
  return [...(table?.fds.values() ?? [])].map((entry) => [entry.fd, world.files.get(entry.file)?.path ?? '?']);
}

/** A family that notes what happened to its files, in order. */
function noting(log: string[]): Families {
  const family = {
    open: (_tx: Tx, file: import('./state.js').OpenFile) => {
      log.push(`open ${file.path}${file.complete ? '' : ' (unknown past)'}`);
      return { ...file, object: 7 };
    },
    release: (_tx: Tx, file: import('./state.js').OpenFile, event: Event) => {
      log.push(`release ${file.path} at ${event.seq} object ${file.object}`);
    },
  };
  return { iommufd: family, 'vfio-container': family, 'vfio-device': family };
}

const INHERITED: [number, string][] = [
  [0, ''],
  [1, ''],
  [2, ''],
];

const tables: readonly [string, readonly Event[], readonly [number, string][]][] = [
  ['execve begins with three fds', [EXEC], INHERITED],
  ['open, close', [EXEC, opens('a', 3), opens('b', 4), ev('close', { fd: 3 })], [...INHERITED, [4, 'b']]],
  ['a failed open', [EXEC, ev('open', { path: 'a', ret: -1, errno: 'ENOENT' })], INHERITED],
  ['an unfinished open', [EXEC, ev('open', { path: 'a', ret: null })], INHERITED],
  [
    'close that fails with EIO still closes',
    [EXEC, opens('a', 3), ev('close', { fd: 3, ret: -1, errno: 'EIO' })],
    INHERITED,
  ],
  [
    'close EBADF does not',
    [EXEC, opens('a', 3), ev('close', { fd: 3, ret: -1, errno: 'EBADF' })],
    [...INHERITED, [3, 'a']],
  ],
  ['dup', [EXEC, opens('a', 3), ev('dup', { fd: 3, ret: 4 })], [...INHERITED, [3, 'a'], [4, 'a']]],
  [
    'dup2 over an open fd',
    [EXEC, opens('a', 3), opens('b', 4), ev('dup', { fd: 3, newFd: 4, ret: 4 })],
    [...INHERITED, [3, 'a'], [4, 'a']],
  ],
  ['dup2 onto itself', [EXEC, opens('a', 3), ev('dup', { fd: 3, newFd: 3, ret: 3 })], [...INHERITED, [3, 'a']]],
  [
    'F_DUPFD',
    [EXEC, opens('a', 3), ev('fcntl', { fd: 3, cmd: 0, arg: 9, ret: 9 })],
    [...INHERITED, [3, 'a'], [9, 'a']],
  ],
  [
    'pipe2',
    [EXEC, ev('newFds', { fds: [3, 4], paths: ['pipe:[1]', 'pipe:[1]'] })],
    [...INHERITED, [3, 'pipe:[1]'], [4, 'pipe:[1]']],
  ],
  [
    'close_range',
    [EXEC, opens('a', 3), opens('b', 4), opens('c', 5), ev('closeRange', { firstFd: 4, lastFd: -1 })],
    [...INHERITED, [3, 'a']],
  ],
  [
    'close_range up to the last number',
    [EXEC, opens('a', 3), ev('closeRange', { firstFd: 1, lastFd: 0xffff_ffff })],
    [[0, '']],
  ],
  ['exec closes O_CLOEXEC', [EXEC, opens('a', 3, { flags: O_CLOEXEC }), opens('b', 4), EXEC], [...INHERITED, [4, 'b']]],
  [
    'exec closes F_DUPFD_CLOEXEC',
    [EXEC, opens('a', 3), ev('fcntl', { fd: 3, cmd: 1030, ret: 5 }), EXEC],
    [...INHERITED, [3, 'a']],
  ],
  ['exec closes F_SETFD', [EXEC, opens('a', 3), ev('fcntl', { fd: 3, cmd: 2, arg: 1 }), EXEC], INHERITED],
  [
    'exec closes dup3 with O_CLOEXEC',
    [EXEC, opens('a', 3), ev('dup', { fd: 3, newFd: 5, flags: O_CLOEXEC, ret: 5 }), EXEC],
    [...INHERITED, [3, 'a']],
  ],
  [
    'exec closes close_range with CLOEXEC',
    [EXEC, opens('a', 3), ev('closeRange', { firstFd: 3, lastFd: 9, flags: 4 }), EXEC],
    INHERITED,
  ],
  [
    'a failed exec closes nothing',
    [EXEC, opens('a', 3, { flags: O_CLOEXEC }), ev('exec', { ret: -1, errno: 'ENOENT' })],
    [...INHERITED, [3, 'a']],
  ],
  [
    'a fork is a copy',
    [EXEC, opens('a', 3), ev('fork', { ret: 2 }), ev('close', { fd: 3, tid: 2 })],
    [...INHERITED, [3, 'a']],
  ],
  [
    'CLONE_FILES shares',
    [EXEC, opens('a', 3), ev('fork', { ret: 2, flags: 0x400 }), ev('close', { fd: 3, tid: 2 })],
    INHERITED,
  ],
  [
    'a thread shares',
    [EXEC, opens('a', 3), ev('fork', { ret: 2, flags: 0x1_0f00 }), ev('close', { fd: 3, tid: 2 })],
    INHERITED,
  ],
  [
    'close_range with UNSHARE',
    [
      EXEC,
      opens('a', 3),
      ev('fork', { ret: 2, flags: 0x400 }),
      ev('closeRange', { firstFd: 3, lastFd: 3, flags: 2, tid: 2 }),
    ],
    [...INHERITED, [3, 'a']],
  ],
  [
    'exec unshares',
    [EXEC, opens('a', 3, { flags: O_CLOEXEC }), ev('fork', { ret: 2, flags: 0x400 }), ev('exec', { tid: 2 })],
    [...INHERITED, [3, 'a']],
  ],
  [
    'a pidfd takes the lowest number',
    [EXEC, ev('fork', { ret: 2, flags: 0x1000 }), opens('a', 4)],
    [...INHERITED, [3, ''], [4, 'a']],
  ],
  [
    'a file that was sent is the one that is received, though the sender has closed its own fd',
    [
      EXEC,
      opens('a', 3),
      opens('b', 4),
      ev('newFds', { call: 'sendmsg', fds: [3, 4], paths: ['a', 'b'], ret: 1 }),
      ev('close', { fd: 3 }),
      ev('close', { fd: 4 }),
      ev('newFds', { call: 'recvmsg', fds: [5, 6], paths: ['b', ''], ret: 1, cloexec: true }),
    ],
    [...INHERITED, [5, 'b'], [6, 'a']],
  ],
  [
    'a message that was not sent carries nothing',
    [
      EXEC,
      opens('a', 3),
      ev('newFds', { call: 'sendmsg', fds: [3], paths: ['a'], ret: -1, errno: 'EAGAIN' }),
      ev('close', { fd: 3 }),
      ev('newFds', { call: 'recvmsg', fds: [5], paths: ['a'], ret: 1 }),
    ],
    [...INHERITED, [5, 'a']],
  ],
  [
    'a negative fd of recvmsg',
    [EXEC, ev('newFds', { fds: [-1, 3], paths: ['', 'x'], call: 'recvmsg' })],
    [...INHERITED, [3, 'x']],
  ],
];
for (const [name, events, expected] of tables) {
  test(name, () => {
    const world = replay(events);
    assert.equal(fdsOf(world), expected);
    assert.is(hashOf(replay(events, {}, emptyWorld(), 1)), hashOf(world), 'batches of 1 and of all');
    const refs = new Map<number, number>();
    for (const table of world.fdTables.values()) {
      for (const entry of table.fds.values()) refs.set(entry.file, (refs.get(entry.file) ?? 0) + 1);
    }
    for (const file of world.files.values()) assert.is(file.fdRefs, refs.get(file.id), `references to file ${file.id}`);
    assert.is(world.files.size, refs.size, 'no file without a reference');
  });
}

const releases: readonly [string, readonly Event[], readonly string[]][] = [
  [
    'last close',
    [opens('/dev/iommu', 3), ev('close', { fd: 3 })],
    ['open /dev/iommu', 'release /dev/iommu at 2 object 7'],
  ],
  [
    'not while a dup is open',
    [opens('/dev/iommu', 3), ev('dup', { fd: 3, ret: 4 }), ev('close', { fd: 3 })],
    ['open /dev/iommu'],
  ],
  [
    'not while a child has it',
    [opens('/dev/iommu', 3), ev('fork', { ret: 2 }), ev('close', { fd: 3 })],
    ['open /dev/iommu'],
  ],
  [
    'when the child goes too',
    [opens('/dev/iommu', 3), ev('fork', { ret: 2 }), ev('close', { fd: 3 }), ev('exit', { tid: 2 })],
    ['open /dev/iommu', 'release /dev/iommu at 4 object 7'],
  ],
  [
    'dup2 over it',
    [opens('/dev/iommu', 3), ev('dup', { fd: 0, newFd: 3, ret: 3 })],
    ['open /dev/iommu', 'release /dev/iommu at 2 object 7'],
  ],
  [
    'not while it is mapped',
    [opens('/dev/iommu', 3), ev('mmap', { flags: 1, fd: 3, ret: 0x10000 }), ev('close', { fd: 3 })],
    ['open /dev/iommu'],
  ],
  [
    'with its last mapping',
    [
      opens('/dev/iommu', 3),
      ev('mmap', { flags: 1, fd: 3, lengthBytes: 8192, ret: 0x10000 }),
      ev('close', { fd: 3 }),
      ev('munmap', { addr: 0x10000 }),
      ev('munmap', { addr: 0x11000 }),
    ],
    ['open /dev/iommu', 'release /dev/iommu at 5 object 7'],
  ],
  [
    'a thread ends, the process goes on',
    [opens('/dev/iommu', 3), ev('fork', { ret: 2, flags: 0x1_0f00 }), ev('exit', { tid: 2, call: 'exit' })],
    ['open /dev/iommu'],
  ],
  [
    'the leader ends first, then the last thread',
    [
      opens('/dev/iommu', 3),
      ev('fork', { ret: 2, flags: 0x1_0f00 }),
      ev('exit', { call: 'exit' }),
      ev('exit', { tid: 2, call: 'exit' }),
    ],
    ['open /dev/iommu', 'release /dev/iommu at 4 object 7'],
  ],
  [
    'exit_group of any thread ends all',
    [opens('/dev/iommu', 3), ev('fork', { ret: 2, flags: 0x1_0f00 }), ev('exit', { tid: 2 }), ev('exit', {})],
    ['open /dev/iommu', 'release /dev/iommu at 3 object 7'],
  ],
  [
    'exec ends the other threads',
    [
      opens('/dev/iommu', 3),
      ev('fork', { ret: 2, flags: 0x1_0f00 }),
      ev('exec', { tid: 2 }),
      ev('exit', { call: 'exit' }),
    ],
    ['open /dev/iommu', 'release /dev/iommu at 4 object 7'],
  ],
  [
    'a fork over a process whose end was not recorded',
    [ev('fork', { ret: 2 }), opens('/dev/iommu', 3, { tid: 2 }), ev('fork', { ret: 2 })],
    ['open /dev/iommu', 'release /dev/iommu at 3 object 7'],
  ],
];
for (const [name, events, expected] of releases) {
  test(`release: ${name}`, () => {
    const log: string[] = [];
    replay([EXEC, ...events], noting(log));
    assert.equal(log, expected);
  });
}

test('an annotation tells what an unseen fd is, and wins over the table', () => {
  const log: string[] = [];
  const families = noting(log);
  const world = replay([EXEC, opens('/dev/iommu', 3)], families);
  const tx = new Tx(world);
  const look = (fd: number, path: string, more: object = {}): string | undefined => {
    const [event] = numbered([ev('ioctl', { fd, path, ...more })], 9) as [Event];
    return fileOfFd(tx, processOf(tx, event), fd, path, event, families)?.kind;
  };
  assert.is(look(3, ''), 'iommufd');
  assert.is(look(3, '/dev/iommu'), 'iommufd');
  assert.is(look(3, '/dev/iommu<char 10:127>'), 'iommufd');
  assert.is(look(0, '/dev/null<char 1:3>'), 'other');
  assert.is(tx.world.files.first()?.path, '/dev/null<char 1:3>', 'an inherited fd gets its name');
  assert.is(look(7, '', { ret: -1, errno: 'EBADF' }), undefined);
  assert.is(look(-1, '', { ret: -1, errno: 'EBADF' }), undefined);
  assert.is(look(-1, ''), undefined);
  const [at] = numbered([ev('ioctl', {})], 9) as [Event];
  assert.is(predictNewFd(tx, processOf(tx, at)), 4);
  assert.is(look(5, '/dev/vfio/vfio'), 'vfio-container');
  assert.is(predictNewFd(tx, processOf(tx, at)), undefined, 'an fd came out of nowhere');
  assert.is(look(3, 'anon_inode:[vfio-device]'), 'vfio-device');
  assert.is(look(8, '', { ret: -1, errno: 'ENOTTY' }), 'unknown');
  assert.is(look(8, '/dev/iommu'), 'iommufd');
  assert.equal(log, [
    'open /dev/iommu',
    'open /dev/vfio/vfio (unknown past)',
    'release /dev/iommu at 9 object 7',
    'open anon_inode:[vfio-device] (unknown past)',
    'open /dev/iommu (unknown past)',
  ]);
});

test('the next fd is the lowest that is free', () => {
  const rows: readonly [readonly Event[], number | undefined][] = [
    [[EXEC], 3],
    [[EXEC, opens('a', 3), opens('b', 4), ev('close', { fd: 3 })], 3],
    [[EXEC, ev('close', { fd: 0 })], 0],
    [[opens('a', 3)], undefined],
    [[EXEC, ev('close', { fd: 17 })], undefined],
  ];
  for (const [events, expected] of rows) {
    const tx = new Tx(replay(events));
    assert.is(predictNewFd(tx, processOf(tx, ev('close', {}))), expected);
  }
});

test('a child that came before its fork gets what it should have had, and keeps what it made', () => {
  const log: string[] = [];
  const events = numbered([
    EXEC,
    opens('/dev/iommu', 3),
    ev('mmap', { ret: 0x7000_0000_0000 }),
    opens('b', 4, { tid: 2 }),
    ev('ioctl', { tid: 2 }),
    ev('mmap', { tid: 2, ret: 0x7000_0001_0000 }),
  ]);
  const fork = (flags: number): Event => ev('fork', { ret: 2, flags, enteredAt: 2 });
  const child = replay([...events, fork(0)], noting(log));
  assert.equal(fdsOf(child, 2), [...INHERITED, [3, '/dev/iommu'], [4, 'b']]);
  assert.equal(fdsOf(child, 1), [...INHERITED, [3, '/dev/iommu']]);
  assert.is(child.spaces.get(child.processes.get(2)?.space ?? 0)?.vmas.size, 2);
  assert.is(child.spaces.get(child.processes.get(1)?.space ?? 0)?.vmas.size, 1);
  const thread = replay([...events, fork(0x1_0f00)], noting(log));
  assert.is(thread.processes.size, 1);
  assert.equal(
    [...thread.threads],
    [
      [1, 1],
      [2, 1],
    ],
  );
  assert.equal(fdsOf(thread, 1), [...INHERITED, [3, '/dev/iommu'], [4, 'b']]);
  assert.is(thread.spaces.get(thread.processes.get(1)?.space ?? 0)?.vmas.size, 2);
  assert.is(thread.spaces.size + thread.fdTables.size, 2);
});

test('the size of a memory file', () => {
  const memfd = ev('open', { call: 'memfd_create', path: 'x', ret: 3 });
  const cut = (text: string, call = 'ftruncate'): Event => ev('other', { call, text });
  const rows: readonly [readonly Event[], number | bigint | null][] = [
    [[], 0],
    [[cut('3</memfd:x>(deleted), 8192')], 8192],
    [[cut('3, 8192')], 8192],
    [[cut('3, 0xfffffffffffff000')], 0xffff_ffff_ffff_f000n],
    [[cut('3, 8192'), cut('3, 0, 4096, 8192', 'fallocate')], 12288],
    [[cut('3, 8192'), cut('3, FALLOC_FL_KEEP_SIZE|FALLOC_FL_PUNCH_HOLE, 4096, 819200', 'fallocate')], 8192],
    [[cut('3, 8192'), ev('io', { call: 'pwrite64', fd: 3, offset: 8000, ret: 500 })], 8500],
    [[cut('3, 8192'), ev('io', { call: 'write', fd: 3, ret: 5 })], null],
    [[cut('3, 8192'), ev('io', { call: 'read', fd: 3, ret: 5 })], 8192],
    [[cut('3, nonsense')], null],
  ];
  for (const [events, expected] of rows) {
    const world = replay([EXEC, memfd, ...events]);
    assert.is([...world.files.values()].find((file) => file.kind === 'memfd')?.sizeBytes, expected);
  }
});
