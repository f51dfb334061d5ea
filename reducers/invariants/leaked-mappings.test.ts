import * as assert from 'uvu/assert';
import type { Event } from '../../core/event.js';
import type { Finding } from '../../core/invariant.js';
import { OrderedMap } from '../../core/ordered-map.js';
import { suite } from '../../core/testing.js';
import type { Families } from '../family.js';
import { ev, numbered, replay } from '../testing.js';
import { Tx } from '../tx.js';
import type { World } from '../world.js';
import { leakedMappings } from './leaked-mappings.js';

const test = suite('invariants/leaked-mappings');

const SEQ = 20;

/** Families that do what matters here: a container goes with its file, an IOAS with its context. */
const FAMILIES: Families = {
  'vfio-container': {
    release: (tx, file) => {
      tx.world.containers.delete(file.object);
    },
  },
  iommufd: {
    release: (tx, file) => {
      const context = tx.world.iommufds.get(file.object);
      for (const object of context?.objects.values() ?? [])
        if (object.type === 'ioas') tx.world.ioases.delete(object.ioas);
      tx.world.iommufds.delete(file.object);
    },
  },
};

/** A process with a container on fd 3 and an iommufd on fd 4, each with `count` mappings. */
function opened(count: number, more: readonly Event[] = []): World {
  const events = [
    ev('exec'),
    ev('open', { path: '/dev/vfio/vfio', ret: 3 }),
    ev('open', { path: '/dev/iommu', ret: 4, flags: 0x8_0000 }),
    ...more,
  ];
  const tx = new Tx(replay(events));
  for (const file of [...tx.world.files.values()]) {
    if (file.path.startsWith('/dev/')) tx.world.files.set(file.id, Object.freeze({ ...file, object: 1 }));
  }
  const mappings = OrderedMap.numeric<number, { start: number; last: number; since: number }>();
  for (let index = 0; index < count; index++) {
    const start = index * 8192;
    mappings.set(start, Object.freeze({ start, last: start + 4095, since: 5 + index }));
  }
  mappings.freeze();
  const objects = OrderedMap.numeric()
    .set(9, Object.freeze({ type: 'ioas', id: 9, ioas: 2, users: 0, since: 4 }))
    .freeze();
  put(tx.world.containers, { id: 1, mappings });
  put(tx.world.ioases, { id: 2, areas: mappings });
  put(tx.world.iommufds, { id: 1, objects });
  return tx.commit();
}

/** Only the fields that the checker reads. */
function put<R extends { readonly id: number }>(table: OrderedMap<number, R>, record: object): void {
  const whole = Object.freeze(record) as R;
  table.set(whole.id, whole);
}

function findings(world: World, event: Event): readonly Finding[] {
  const [at] = numbered([event], SEQ) as [Event];
  const after = replay([event], FAMILIES, world, 1, SEQ);
  const found = leakedMappings.check(world, at, after);
  if (found.length > 0) assert.ok(leakedMappings.concerns?.(world, at), 'concerns() lets it through');
  return found;
}

const CONTAINER = 'container 1 went away with 2 DMA mappings in place, the first at IOVA 0x0-0xfff';
const IOAS = 'IOAS 9 of iommufd 1 went away with 2 DMA mappings in place, the first at IOVA 0x0-0xfff';

const rows: readonly [string, Event, readonly string[]][] = [
  ['close of the container', ev('close', { fd: 3 }), [CONTAINER]],
  ['close of the iommufd', ev('close', { fd: 4 }), [IOAS]],
  ['close of something else', ev('close', { fd: 0 }), []],
  ['close that failed', ev('close', { fd: 3, ret: -1, errno: 'EBADF' }), []],
  ['dup2 over it', ev('dup', { fd: 0, newFd: 3, ret: 3 }), [CONTAINER]],
  ['close_range', ev('closeRange', { firstFd: 3, lastFd: -1 }), [CONTAINER, IOAS]],
  ['exec closes what is close-on-exec', ev('exec'), [IOAS]],
  ['exit', ev('exit'), [CONTAINER, IOAS]],
  ['exit of a process that nobody knows', ev('exit', { tid: 77 }), []],
];
for (const [name, event, expected] of rows) {
  test(name, () => {
    const found = findings(opened(2), event);
    assert.equal(
      found.map((entry) => entry.message),
      expected,
    );
    for (const entry of found) assert.equal([entry.severity, entry.seq, entry.causes], ['leak', SEQ, [5, 6]]);
  });
}

test('quiet when everything was unmapped, and while another fd or process keeps the file', () => {
  assert.equal(findings(opened(0), ev('exit')), []);
  assert.equal(findings(opened(2, [ev('dup', { fd: 3, ret: 5 })]), ev('close', { fd: 3 })), []);
  assert.equal(findings(opened(2, [ev('fork', { ret: 2 })]), ev('exit')), []);
});

test('a file that only mapped memory keeps is out of reach, and its mappings with it', () => {
  const changed = (path: string, patch: object): World => {
    const tx = new Tx(opened(2, [ev('open', { path: '/dev/null', ret: 5 })]));
    const file = [...tx.world.files.values()].find((one) => one.path === path);
    if (file !== undefined) tx.world.files.set(file.id, Object.freeze({ ...file, ...patch }));
    return tx.commit();
  };
  const messages = (world: World, event: Event): string[] => findings(world, event).map(({ message }) => message);
  const kept = changed('/dev/iommu', { pageRefs: 1 });
  assert.equal(messages(kept, ev('close', { fd: 4 })), [IOAS]);
  const access = { kind: 'iommufd-access', objectKey: '1/7', pageRefs: 1 };
  assert.equal(messages(changed('/dev/null', access), ev('close', { fd: 5 })), [], 'the context has its fd still');
});

test('the events that made the mappings are listed up to a limit', () => {
  const [found] = findings(opened(1000), ev('close', { fd: 3 }));
  assert.is(found?.causes.length, 16);
  assert.ok(found?.message.includes('1000 DMA mappings'));
});
