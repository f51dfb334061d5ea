import * as assert from 'uvu/assert';
import { suite } from '../../core/testing.js';
import type { U64 } from '../../core/u64.js';
import { ev } from '../testing.js';
import { breaches } from './consistency.js';
import { type Answer, Bench, decidedBy, struct } from './testing.js';

/** Memory that is mapped by a file keeps it open, whatever file it is and whatever becomes of the fd. */
const test = suite('iommufd MAP_FILE keeps its file');

const NO_IOAS = 77;
const APERTURE = 0x100_0000;
/** Files of a bench that opened no context. */
const STANDARD_FDS = 3;

function bench(): Bench {
  const b = new Bench();
  b.open();
  return b;
}

function mapFile(b: Bench, ioas: number, fd: number, iova: U64, ctx = 3): boolean {
  const bytes = struct(40, [4, 7], [8, ioas], [12, fd], [24, 4096, 8], [32, iova, 8]);
  return b.ioctl(ctx, 0x3b8f, bytes).ret === 0;
}

/** The id that the next object of a context gets. */
function nextId(b: Bench, ctx = 3): number {
  const id = b.ioasAlloc(ctx);
  b.destroy(id, ctx);
  return id;
}

function areSound(b: Bench): void {
  assert.equal(breaches(b.world), []);
}

test('the object behind a closed fd stays until its last area goes', () => {
  const b = bench();
  const ioas = b.ioasAlloc();
  const fd = b.test(5, b.ioasAlloc(), [20, 1]).u32(16);
  const after = nextId(b);
  assert.ok(mapFile(b, ioas, fd, 0x10000));
  assert.ok(mapFile(b, ioas, fd, 0x20000));
  b.copy(ioas, 0x10000, ioas, 4096, 0x30000);
  b.close(fd);
  assert.is(nextId(b), after);
  areSound(b);
  b.unmap(ioas, 0x10000, 4096);
  b.unmap(ioas, 0x20000, 4096);
  assert.is(nextId(b), after, 'a copy shows it still');
  b.unmap(ioas, 0x30000, 4096);
  assert.is(nextId(b), after - 1, 'the access is gone');
  areSound(b);
});

test('destroying the IOAS lets the file go, and an fd that is left keeps it', () => {
  const b = bench();
  for (const closed of [true, false]) {
    const ioas = b.ioasAlloc();
    const fd = b.test(5, b.ioasAlloc(), [20, 1]).u32(16);
    mapFile(b, ioas, fd, 0x10000);
    if (closed) b.close(fd);
    b.destroy(ioas);
    assert.is(b.world.files.size, STANDARD_FDS + (closed ? 1 : 2));
    areSound(b);
  }
});

test('contexts that map each other go one after the other, without end of depth', () => {
  const b = bench();
  const count = 1000;
  let inner = 3;
  for (let fd = 4; fd < 4 + count; fd++) {
    b.open(fd);
    assert.ok(mapFile(b, b.ioasAlloc(fd), inner, 0x10000, fd));
    b.close(inner);
    inner = fd;
  }
  assert.is(b.world.iommufds.size, count + 1);
  b.close(inner);
  assert.is(b.world.iommufds.size, 0);
  assert.is(b.world.files.size, STANDARD_FDS);
  areSound(b);
});

test('a context that maps its own file is never closed', () => {
  const b = bench();
  assert.ok(mapFile(b, b.ioasAlloc(), 3, 0x10000));
  b.close(3);
  assert.is(b.world.iommufds.size, 1);
  areSound(b);
});

test('a map that fails holds nothing', () => {
  const b = bench();
  b.event(ev('open', { path: '/dev/zero', ret: 5, retPath: '/dev/zero' }));
  assert.not.ok(mapFile(b, NO_IOAS, 5, 0x10000));
  const ioas = b.ioasAlloc();
  assert.ok(mapFile(b, ioas, 5, 0x10000));
  assert.not.ok(mapFile(b, ioas, 5, 0x10000));
  b.close(5);
  b.unmap(ioas, 0x10000, 4096);
  assert.is(b.world.files.size, STANDARD_FDS + 1);
  areSound(b);
});

test('a file of which too little is recorded may be what a domain does not take', () => {
  const b = bench();
  b.event(ev('open', { path: '/tmp/x', ret: 5, retPath: '/tmp/x' }));
  b.event(ev('open', { path: '/dev/shm/x', ret: 6, retPath: '/dev/shm/x' }));
  for (const [fd, reason] of [
    [5, /memory file/],
    [6, /size of the file/],
  ] as const) {
    const ioas = b.ioasAlloc();
    mapFile(b, ioas, fd, APERTURE);
    b.map(ioas, 0x7000_0000, 4096, APERTURE + 0x10000);
    const refusedWith = (errno: string): Answer =>
      b.ioctl(3, 0x3ba0, struct(72, [4, 2], [8, ioas]), { recorded: { ret: -1, errno } });
    decidedBy(refusedWith('EFAULT'), 'EFAULT', 'pages.fault');
    assert.match(refusedWith('EINVAL').unknown, reason);
    b.unmap(ioas, APERTURE + 0x10000, 4096);
    assert.match(b.test(2, ioas).unknown, reason);
  }
});

test.run();
