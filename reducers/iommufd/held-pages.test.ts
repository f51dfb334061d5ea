import { fc } from '../../core/property.js';
import * as assert from 'uvu/assert';
import { suite } from '../../core/testing.js';
import { ev } from '../testing.js';
import { Tx } from '../tx.js';
import { emptyWorld } from '../world.js';
import { addSharer, dropSharer, heldRuns, holdForAccess, letForAccess, pinArea, unpinArea } from './held-pages.js';
import type { Area } from './state.js';
import { type Answer, Bench, decidedBy } from './testing.js';

const test = suite('iommufd held pages');
const BUFFER = 0x1000_0000;
const APERTURE = 0x100_0000;
const NEEDS_PIN = 1;
const WRITE = 1;
const SLOW = 4;

function bench(): { b: Bench; ioas: number } {
  const b = new Bench();
  b.open();
  b.mmap(BUFFER, 0x10000);
  return { b, ioas: b.ioasAlloc() };
}

const unmapMemory = (b: Bench, addr = BUFFER, lengthBytes = 0x10000): void =>
  b.event(ev('munmap', { addr, lengthBytes }));
const discard = (b: Bench, addr: number, lengthBytes = 4096, advice = 4): void =>
  b.event(ev('madvise', { addr, lengthBytes, advice }));
const access = (b: Bench, ioas: number): number => b.test(5, ioas, [20, NEEDS_PIN]).u32(16);
const pin = (b: Bench, fd: number, iova: number, length: number): Answer =>
  b.test(7, fd, [16, 0], [24, iova, 8], [32, length, 8]);
const letGo = (b: Bench, fd: number, item: number): Answer => b.test(6, fd, [16, item]);
const checkMap = (b: Bench, hwpt: number, iova: number, length: number, address: number): Answer =>
  b.test(3, hwpt, [16, iova, 8], [24, length, 8], [32, address, 8]);
const refs = (b: Bench, address: number, length: number, count: number): Answer =>
  b.test(4, 0, [16, length, 8], [24, address, 8], [32, count]);
const rw = (b: Bench, fd: number, iova: number, length: number, flags: number): Answer =>
  b.test(8, fd, [16, iova, 8], [24, length, 8], [32, 0x2000_0000, 8], [40, flags]);

test('COPY takes pages from where they are pinned, whatever became of the address', () => {
  const { b, ioas } = bench();
  b.map(ioas, BUFFER, 0x4000, APERTURE);
  const { hwpt } = b.mockDomain(ioas);
  const lazy = b.ioasAlloc();
  b.map(lazy, BUFFER, 0x4000, APERTURE);
  unmapMemory(b);
  decidedBy(b.copy(ioas, APERTURE, ioas, 0x4000, APERTURE + 0x10000), '', 'copy.ok');
  decidedBy(b.copy(ioas, APERTURE + 0x1000, ioas, 0x1000, APERTURE + 0x20000), '', 'copy.ok');
  decidedBy(b.copy(lazy, APERTURE, ioas, 0x4000, APERTURE + 0x30000), 'EFAULT', 'pages.fault');
  decidedBy(b.copy(lazy, APERTURE, lazy, 0x4000, APERTURE + 0x30000), '', 'copy.ok');
  // The copy holds them when the source is gone.
  decidedBy(b.unmap(ioas, APERTURE, 0x4000), '', 'unmap.ok');
  decidedBy(b.copy(ioas, APERTURE + 0x10000, ioas, 0x4000, APERTURE), '', 'copy.ok');
  for (const at of [0, 0x10000]) decidedBy(b.unmap(ioas, APERTURE + at, 0x4000), '', 'unmap.ok');
  // One page is held by the small copy still, the others by nobody.
  decidedBy(b.copy(ioas, APERTURE + 0x20000, ioas, 0x1000, APERTURE), '', 'copy.ok');
  decidedBy(checkMap(b, hwpt, APERTURE, 0x1000, BUFFER), 'EFAULT', 'check-map.fault');
});

test('a domain of another IOAS serves a copy, and a first domain what an access pinned', () => {
  const { b, ioas } = bench();
  const lazy = b.ioasAlloc();
  b.map(lazy, BUFFER, 0x2000, APERTURE);
  b.mockDomain(ioas);
  b.copy(lazy, APERTURE, ioas, 0x2000, APERTURE);
  unmapMemory(b, BUFFER, 0x2000);
  decidedBy(b.copy(lazy, APERTURE, ioas, 0x2000, APERTURE + 0x10000), '', 'copy.ok');
  decidedBy(b.mockDomain(lazy).answer, '', 'mock-domain.ok');
  const pinned = b.ioasAlloc();
  b.map(pinned, BUFFER + 0x2000, 0x2000, APERTURE);
  const fd = access(b, pinned);
  decidedBy(pin(b, fd, APERTURE, 0x1000), '', 'access-pages.ok');
  unmapMemory(b, BUFFER + 0x2000, 0x1000);
  decidedBy(pin(b, fd, APERTURE, 0x2000), '', 'access-pages.ok');
  unmapMemory(b, BUFFER + 0x3000, 0x1000);
  decidedBy(letGo(b, fd, 0), '', 'destroy-pages.ok');
  const { standing, answer } = b.mockDomain(pinned);
  decidedBy(answer, '', 'mock-domain.ok');
  decidedBy(letGo(b, fd, 1), '', 'destroy-pages.ok');
  decidedBy(pin(b, fd, APERTURE, 0x2000), '', 'access-pages.ok');
  decidedBy(letGo(b, fd, 2), '', 'destroy-pages.ok');
  decidedBy(b.destroy(standing), '', 'destroy.ok');
  decidedBy(pin(b, fd, APERTURE, 0x2000), 'EFAULT', 'pages.fault');
  decidedBy(b.mockDomain(pinned).answer, 'EFAULT', 'pages.fault');
});

test('an access copies one page by its address and more from where they are pinned', () => {
  const { b, ioas } = bench();
  b.mmap(0x2000_0000, 0x4000);
  b.map(ioas, BUFFER, 0x4000, APERTURE);
  b.mockDomain(ioas);
  const fd = b.test(5, ioas, [20, 0]).u32(16);
  unmapMemory(b);
  decidedBy(rw(b, fd, APERTURE, 0x2000, 0), 'EFAULT', 'pages.fault');
  decidedBy(rw(b, fd, APERTURE, 0x2000, SLOW), '', 'access-rw.ok');
  decidedBy(rw(b, fd, APERTURE, 0x1000, SLOW), 'EFAULT', 'pages.fault');
  decidedBy(rw(b, fd, APERTURE + 0x800, 0x1000, SLOW | WRITE), '', 'access-rw.ok');
});

test('MD_CHECK_MAP compares with the memory that was pinned', () => {
  const { b, ioas } = bench();
  b.map(ioas, BUFFER, 0x8000, APERTURE);
  const { hwpt } = b.mockDomain(ioas);
  const check = (page: number, count = 1, at = 0): Answer =>
    checkMap(b, hwpt, APERTURE + at + page * 0x1000, count * 0x1000, BUFFER + page * 0x1000);
  decidedBy(check(0, 8), '', 'check-map.ok');
  discard(b, BUFFER + 0x1000);
  decidedBy(check(0), '', 'check-map.ok');
  decidedBy(check(0, 8), 'EINVAL', 'check-map.other');
  decidedBy(check(2, 6), '', 'check-map.ok');
  // A second loss in the same mapping; MADV_FREE leaves pinned pages alone.
  discard(b, BUFFER + 0x3000);
  discard(b, BUFFER + 0x5000, 4096, 8);
  decidedBy(check(3), 'EINVAL', 'check-map.other');
  decidedBy(check(5), '', 'check-map.ok');
  b.event(ev('munmap', { addr: BUFFER + 0x6000, lengthBytes: 0x1000 }));
  decidedBy(check(6), 'EFAULT', 'check-map.fault');
  b.mmap(BUFFER + 0x6000, 0x1000);
  decidedBy(check(6), 'EINVAL', 'check-map.other');
  // What is pinned from here on is the new memory; a copy of the old mapping shows the old.
  b.map(ioas, BUFFER, 0x8000, APERTURE + 0x10000);
  decidedBy(check(0, 8, 0x10000), '', 'check-map.ok');
  b.copy(ioas, APERTURE, ioas, 0x8000, APERTURE + 0x20000);
  decidedBy(check(1, 1, 0x20000), 'EINVAL', 'check-map.other');
  decidedBy(b.unmap(ioas, APERTURE, 0x8000), '', 'unmap.ok');
  decidedBy(check(1, 1, 0x20000), 'EINVAL', 'check-map.other');
  decidedBy(refs(b, BUFFER, 0x1000, 2), '', 'check-refs.ok');
  decidedBy(refs(b, BUFFER + 0x1000, 0x1000, 1), '', 'check-refs.ok');
  decidedBy(refs(b, BUFFER, 0x2000, 2), 'EIO', 'check-refs.count');
});

test('pages of a file stay the same behind another mapping of it; moved memory is not known', () => {
  const { b, ioas } = bench();
  b.event(ev('open', { call: 'memfd_create', path: 'x', ret: 9 }));
  b.event(ev('other', { call: 'ftruncate', text: '9, 65536' }));
  const shared = { fd: 9, flags: 1, path: '/memfd:x' };
  b.mmap(0x3000_0000, 0x4000, shared);
  b.map(ioas, 0x3000_0000, 0x4000, APERTURE);
  const { hwpt } = b.mockDomain(ioas);
  b.event(ev('munmap', { addr: 0x3000_0000, lengthBytes: 0x4000 }));
  b.mmap(0x3000_0000, 0x4000);
  b.mmap(0x3100_0000, 0x4000, { ...shared, offset: 0x1000 });
  decidedBy(checkMap(b, hwpt, APERTURE, 0x1000, 0x3000_0000), 'EINVAL', 'check-map.other');
  decidedBy(checkMap(b, hwpt, APERTURE + 0x1000, 0x3000, 0x3100_0000), '', 'check-map.ok');
  decidedBy(refs(b, 0x3100_0000, 0x3000, 1), '', 'check-refs.ok');
  b.map(ioas, BUFFER, 0x1000, APERTURE + 0x10000);
  b.event(ev('mremap', { addr: BUFFER, oldLengthBytes: 0x1000, newLengthBytes: 0x1000, flags: 3, ret: 0x5000_0000 }));
  assert.match(checkMap(b, hwpt, APERTURE + 0x10000, 0x1000, 0x5000_0000).unknown, /not recorded/);
});

test('whether memory is made of large pages is not known where it may be', () => {
  const { b, ioas } = bench();
  b.mmap(0x4000_0000, 0x40_0000);
  decidedBy(refs(b, BUFFER, 0x1000, 1), 'EIO', 'check-refs.count');
  assert.match(refs(b, 0x4000_0000, 0x1000, 1).unknown, /large/);
  decidedBy(refs(b, 0x4000_0000, 0x1000, 0), '', 'check-refs.ok');
  b.mmap(0x4800_0000, 0x20_0000, { flags: 0x40032 });
  decidedBy(refs(b, 0x4800_0000, 0x1000, 7), '', 'check-refs.ok');
  b.event(ev('madvise', { addr: 0x4000_0000, lengthBytes: 0x40_0000, advice: 15 }));
  decidedBy(refs(b, 0x4000_0000, 0x1000, 1), 'EIO', 'check-refs.count');
  decidedBy(b.map(ioas, BUFFER, 0x1000), '', 'map.ok');
});

/** Who holds which pages, counted page by page. */
class Naive {
  readonly domains: number[] = new Array<number>(16).fill(0);
  readonly accesses: number[] = new Array<number>(16).fill(0);
  readonly since: number[] = new Array<number>(16).fill(-1);

  change(who: number[], first: number, last: number, by: number, seq: number): void {
    for (let page = first; page <= last; page++) {
      const before = (this.domains[page] as number) + (this.accesses[page] as number);
      who[page] = (who[page] as number) + by;
      if (before === 0) this.since[page] = seq;
      if (before + by === 0) this.since[page] = -1;
    }
  }
}

test('holds count as page by page', () => {
  const step = fc.record({
    who: fc.boolean(),
    first: fc.nat(15),
    length: fc.integer({ min: 1, max: 8 }),
    drop: fc.nat(4),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
      const tx = new Tx(emptyWorld());
      const charge = { charged: 'user', surely: true, pid: 1, user: 7 } as const;
      const pages = {
        id: 1,
        kind: 'file',
        space: 0,
        base: 0,
        file: 1,
        pageCount: 16,
        writable: true,
        ...charge,
      } as const;
      const area = (first: number, last: number): Area => ({
        start: first * 4096,
        last: last * 4096 + 4095,
        pages,
        startByte: first * 4096,
        prot: 3,
        accesses: 0,
        locks: 0,
        pin: 0,
        pinnedSince: -1,
        since: 0,
      });
      const whole = area(0, 15);
      holdForAccess(tx, whole, 0, 0, 0);
      letForAccess(tx, whole, 0, 0);
      addSharer(tx, 1);
      const naive = new Naive();
      const live: { domain: Area | null; first: number; last: number }[] = [];
      for (const [index, { who, first, length, drop }] of steps.entries()) {
        const gone = drop === 0 ? live.splice(index % Math.max(1, live.length), 1)[0] : undefined;
        if (gone !== undefined) {
          if (gone.domain !== null) unpinArea(tx, gone.domain);
          else letForAccess(tx, whole, gone.first * 4096, gone.last * 4096);
          naive.change(gone.domain !== null ? naive.domains : naive.accesses, gone.first, gone.last, -1, index);
          continue;
        }
        const last = Math.min(15, first + length - 1);
        const domain = who ? pinArea(tx, 1, area(first, last), index) : null;
        if (domain === null) holdForAccess(tx, whole, first * 4096, last * 4096 + 4095, index);
        live.push({ domain, first, last });
        naive.change(who ? naive.domains : naive.accesses, first, last, 1, index);
      }
      const told = new Array<number>(16).fill(-1);
      for (const run of heldRuns(tx, whole, { start: 0, last: 15 }))
        for (let page = Number(run.start); page <= Number(run.last); page++) {
          told[page] = run.since;
          assert.equal([run.domains, run.accesses], [naive.domains[page], naive.accesses[page]]);
        }
      assert.equal(told, naive.since);
      assert.is(tx.world.userLocked.get(7)?.pages, told.filter((since) => since >= 0).length);
      dropSharer(tx, whole);
      dropSharer(tx, whole);
      assert.is(tx.world.sharedPages.size, 0);
      assert.is(tx.world.userLocked.get(7)?.pages, 0);
    }),
  );
});
