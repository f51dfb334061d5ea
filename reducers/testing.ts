import { hashCanonical } from '../core/canonical.js';
import type { Event } from '../core/event.js';
import type { Families } from './family.js';
import { reduceFiles } from './files/reduce.js';
import { reduceMemory } from './memory/reduce.js';
import { Tx } from './tx.js';
import { emptyWorld, type World } from './world.js';

/** Events for tests: every field has a plain value, which the test overrides where it matters. */
type Kind = Event['kind'];
type Of<K extends Kind> = Extract<Event, { kind: K }>;

const HEAD = { seq: 0, tsNs: 0, pid: 0, tid: 1, file: 0, line: 0 };
const OUTCOME = { enteredAt: 0, ret: 0, errno: '', injected: false };

const PLAIN: { readonly [K in Kind]?: object } = {
  open: { call: 'openat', path: '', flags: 0, retPath: '' },
  close: { fd: -1, path: '' },
  closeRange: { firstFd: 0, lastFd: 0, flags: 0 },
  dup: { fd: -1, path: '', newFd: -1, flags: 0 },
  fcntl: { fd: -1, path: '', cmd: 0, arg: 0 },
  newFds: { call: 'pipe2', fds: [], paths: [], cloexec: false },
  mmap: { addr: 0, lengthBytes: 4096, prot: 3, flags: 0x22, fd: -1, path: '', offset: 0 },
  munmap: { addr: 0, lengthBytes: 4096 },
  mprotect: { addr: 0, lengthBytes: 4096, prot: 0 },
  mremap: { addr: 0, oldLengthBytes: 4096, newLengthBytes: 4096, flags: 1, newAddr: 0 },
  madvise: { addr: 0, lengthBytes: 4096, advice: 0 },
  brk: { addr: 0 },
  fork: { call: 'clone', flags: 0 },
  exec: { path: '/bin/true' },
  exit: { call: 'exit_group', status: 0 },
  prlimit: { targetPid: 0, resource: 8, newSoft: null, newHard: null, oldSoft: null, oldHard: null },
  io: { call: 'write', fd: -1, path: '', offset: null, lengthBytes: 0, data: null, addr: null },
  ioctl: { fd: -1, path: '', request: 0, arg: 0, memIn: [], memOut: [] },
  other: { call: 'getpid', text: '' },
  mlock: { call: 'mlock', addr: 0, lengthBytes: 4096, flags: 0 },
  creds: {
    call: 'getuid',
    targetPid: 0,
    realUid: null,
    effectiveUid: null,
    savedUid: null,
    effectiveCaps: null,
    permittedCaps: null,
    flags: 0,
  },
  mirrorMap: { mirror: 0, driver: '', mm: 0, start: 0, last: 0, flags: 1, owner: 0, memory: 0, notifierSeq: null },
  mirrorInvalidate: { mirror: 0, mm: 0, start: 0, last: 0, notifierSeq: null },
  enter: { call: 'munmap', fd: -1, path: '', request: 0, addr: 0, lengthBytes: 0, prot: 0, flags: 0, advice: 0 },
};

/** An event of a kind; `seq` is set by {@link replay}. A failure needs `ret: -1` and `errno`. */
export function ev<K extends Kind>(kind: K, fields: Partial<Of<K>> = {}): Of<K> {
  return Object.freeze({ ...HEAD, ...OUTCOME, ...PLAIN[kind], ...fields, kind }) as unknown as Of<K>;
}

/** Numbers the events from `firstSeq` on; `enteredAt` follows unless the event sets it. */
export function numbered(events: readonly Event[], firstSeq = 0): Event[] {
  return events.map((event, index) => {
    const seq = firstSeq + index;
    const entered = 'enteredAt' in event && event.enteredAt !== 0 ? event.enteredAt : seq;
    return Object.freeze({ ...event, seq, enteredAt: entered }) as Event;
  });
}

/** Folds events through the reducers of files and memory, `batch` events to a transaction. */
export function replay(
  events: readonly Event[],
  families: Families = {},
  from: World = emptyWorld(),
  batch = 4096,
  firstSeq = 0,
): World {
  const all = numbered(events, firstSeq);
  let world = from;
  for (let at = 0; at < all.length; at += batch) {
    const tx = new Tx(world);
    for (const event of all.slice(at, at + batch)) {
      if (!reduceFiles(tx, event, families)) reduceMemory(tx, event, families);
    }
    world = tx.commit();
  }
  return world;
}

export function hashOf(world: World): string {
  return hashCanonical(world);
}
