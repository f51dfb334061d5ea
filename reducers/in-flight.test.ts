import * as assert from 'uvu/assert';
import type { Event } from '../core/event.js';
import { suite } from '../core/testing.js';
import { Reducer } from './dispatch.js';
import { families } from './families.js';
import { probePin } from './memory/pin.js';
import { ev } from './testing.js';
import { Tx } from './tx.js';
import { emptyWorld } from './world.js';

const test = suite('in-flight');

const A = 0x7f00_0000_0000;
const PAGE = 4096;
const OTHER = { tid: 2, pid: 1 };
const MAP = { tid: 1, call: 'ioctl', fd: 3, request: 0x3b71 };
const SECOND = { addr: A + PAGE, lengthBytes: PAGE };

/** Two threads, four pages of memory at A, a type1 container as fd 3, and what the events do to them. */
function after(...events: readonly Event[]): Tx {
  const tx = new Tx(emptyWorld());
  const reducer = new Reducer(families);
  const begin = [
    ev('exec'),
    ev('brk', { ret: 0x5555_0000_0000 }),
    ev('mmap', { lengthBytes: 4 * PAGE, ret: A }),
    ev('open', { path: '/dev/vfio/vfio', ret: 3 }),
    ev('fork', { flags: 0x5_0f00, ret: OTHER.tid }),
  ];
  for (const [seq, event] of [...begin, ...events].entries())
    reducer.reduce(tx, 'enteredAt' in event ? { ...event, seq, enteredAt: seq } : { ...event, seq });
  return tx;
}

function pinned(tx: Tx, write = true): string {
  const { space } = tx.world.processes.get(1) ?? { space: 0 };
  return probePin(tx, space, A, A + 2 * PAGE - 1, { write, longterm: true, pfnmapOk: false }).kind;
}

test('memory that another thread takes away while a call pins it: the recording does not tell who was first', () => {
  const rows: readonly [name: string, events: readonly Event[], kind: string][] = [
    ['nothing happens', [ev('enter', MAP)], 'ok'],
    ['unmapped meanwhile', [ev('enter', MAP), ev('munmap', { ...OTHER, ...SECOND })], 'unknown'],
    ['unmapped before', [ev('munmap', { ...OTHER, ...SECOND }), ev('enter', MAP)], 'fault'],
    ['elsewhere', [ev('enter', MAP), ev('munmap', { ...OTHER, addr: A + 2 * PAGE })], 'ok'],
    ['being unmapped', [ev('enter', { ...OTHER, call: 'munmap', ...SECOND })], 'unknown'],
    ['being moved', [ev('enter', { ...OTHER, call: 'mremap', ...SECOND })], 'unknown'],
    ['being made read-only', [ev('enter', { ...OTHER, call: 'mprotect', ...SECOND, prot: 1 })], 'unknown'],
    ['being advised', [ev('enter', { ...OTHER, call: 'madvise', ...SECOND, advice: 4 })], 'ok'],
    [
      'a mapping without a place',
      [ev('enter', { ...OTHER, call: 'mmap', lengthBytes: PAGE, prot: 3, flags: 0x22 })],
      'ok',
    ],
    ['that call failed', [ev('enter', MAP), ev('munmap', { ...OTHER, ...SECOND, ret: -1, errno: 'EINVAL' })], 'ok'],
    [
      'its thread goes on',
      [ev('enter', { ...OTHER, call: 'munmap', ...SECOND }), ev('other', { ...OTHER, call: 'getpid' })],
      'ok',
    ],
    [
      'a signal is no end',
      [ev('enter', { ...OTHER, call: 'munmap', ...SECOND }), { ...ev('signal'), ...OTHER, text: 'x' }],
      'unknown',
    ],
    [
      'its thread ends',
      [ev('enter', { ...OTHER, call: 'munmap', ...SECOND }), ev('exit', { ...OTHER, call: 'exit' })],
      'ok',
    ],
    ['another process', [ev('enter', { tid: 77, call: 'munmap', ...SECOND })], 'ok'],
  ];
  for (const [name, events, kind] of rows) assert.is(pinned(after(...events)), kind, name);
});

test('a right that is being given', () => {
  const taken = ev('mprotect', { addr: A, lengthBytes: 2 * PAGE, prot: 1 });
  const giving = ev('enter', { ...OTHER, call: 'mprotect', addr: A, lengthBytes: 2 * PAGE, prot: 3 });
  assert.is(pinned(after(taken, giving)), 'unknown');
  assert.is(pinned(after(taken, giving), false), 'ok');
});

test('the heap shrinks', () => {
  const heap = 0x5555_0000_0000;
  const grown = ev('brk', { addr: heap + 4 * PAGE, ret: heap + 4 * PAGE });
  const tx = after(grown, ev('enter', { ...OTHER, call: 'brk', addr: heap + PAGE }));
  const { space } = tx.world.processes.get(1) ?? { space: 0 };
  const request = { write: true, longterm: true, pfnmapOk: false };
  assert.is(probePin(tx, space, heap, heap + PAGE - 1, request).kind, 'ok');
  assert.is(probePin(tx, space, heap + PAGE, heap + 2 * PAGE - 1, request).kind, 'unknown');
});
