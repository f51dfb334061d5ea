import { fc } from '../../core/property.js';
import * as assert from 'uvu/assert';
import { suite } from '../../core/testing.js';
import { type U64, U64_MAX } from '../../core/u64.js';
import { ev } from '../testing.js';
import { IOPT_RULES } from './iopt.js';
import { MAP_RULES } from './map.js';
import { MAP_FILE_RULES } from './map-file.js';
import { PAGES_RULES } from './pages.js';
import { UNMAP_RULES } from './unmap.js';
import { type Answer, allSeen, Bench, decidedBy, struct } from './testing.js';

const test = suite('iommufd map');
const seen = new Set<string>();
const said = new Map<string, string>();
const BUFFER = 0x1000_0000;
const APERTURE = 0x100_0000;
const HUGE = 0xffff_ffff_ffff_f000n;

function bench(): { b: Bench; ioas: number } {
  const b = new Bench();
  b.open();
  b.mmap(BUFFER, 0x40_0000);
  return { b, ioas: b.ioasAlloc() };
}

function keep(b: Bench): void {
  for (const id of b.seen) seen.add(id);
  for (const [rule, words] of b.said) said.set(rule, words);
}

test('MAP: the order of the checks', () => {
  const { b, ioas } = bench();
  const rows: [string, string, Answer][] = [
    ['EOPNOTSUPP', 'map.flags', b.map(9, BUFFER, U64_MAX, 0, 8)],
    ['EOVERFLOW', 'map.overflow', b.map(9, BUFFER, U64_MAX, 0, 0)],
    ['EOVERFLOW', 'map.overflow', b.map(9, BUFFER, 4096, U64_MAX)],
    ['EINVAL', 'map.no-access', b.map(9, BUFFER, 4096, 0, 0)],
    ['ENOENT', 'map.ioas', b.map(9, HUGE, HUGE)],
    ['EOVERFLOW', 'map.memory-overflow', b.map(ioas, HUGE, 4096)],
    ['EINVAL', 'map.memory-length', b.map(ioas, BUFFER, 0)],
    ['EINVAL', 'map.memory-length', b.map(ioas, 0, 0xffff_ffff_ffff_fffen)],
    ['EOVERFLOW', 'iova.choose-overflow', b.map(ioas, 0, 0x8000_0000_0000_0000n)],
    ['EOVERFLOW', 'iova.overflow', b.map(ioas, BUFFER, 8192, HUGE)],
    ['', 'map.ok', b.map(ioas, BUFFER, 8192, 0x4000)],
    ['EEXIST', 'iova.exists', b.map(ioas, BUFFER, 4096, 0x5fff)],
  ];
  for (const [errno, rule, answer] of rows) decidedBy(answer, errno, rule);
  keep(b);
});

test('MAP into an IOAS with a domain', () => {
  const { b, ioas } = bench();
  b.mockDomain(ioas);
  b.mmap(0x2000_0000, 4096, { prot: 1 });
  const rows: [string, string, Answer][] = [
    ['EINVAL', 'iova.length', b.map(ioas, BUFFER, 4097, APERTURE)],
    ['EINVAL', 'iova.aligned', b.map(ioas, BUFFER, 4096, APERTURE + 1)],
    ['EINVAL', 'iova.reserved', b.map(ioas, BUFFER, 4096, APERTURE - 4096)],
    ['EINVAL', 'iova.reserved', b.map(ioas, BUFFER, 8192, 0x7fff_f000)],
    ['EINVAL', 'map.page-offset', b.map(ioas, BUFFER + 64, 4096, APERTURE)],
    ['EINVAL', 'iova.choose-alignment', b.map(ioas, BUFFER + 64, 4096)],
    ['EFAULT', 'pages.fault', b.map(ioas, 0x3000_0000, 4096, APERTURE)],
    ['EFAULT', 'pages.fault', b.map(ioas, BUFFER + 0x40_0000 - 4096, 8192, APERTURE)],
    ['EFAULT', 'pages.fault', b.map(ioas, 0x2000_0000, 4096, APERTURE)],
    ['', 'map.ok', b.map(ioas, 0x2000_0000, 4096, APERTURE, 4)],
    ['ENOSPC', 'iova.no-space', b.map(ioas, 0, 0x7f00_0000)],
  ];
  for (const [errno, rule, answer] of rows) decidedBy(answer, errno, rule);
  keep(b);
});

test('a domain narrows an IOAS only where nothing is in the way', () => {
  const { b, ioas } = bench();
  b.map(ioas, BUFFER, 4096, 0x4000);
  decidedBy(b.mockDomain(ioas).answer, 'EADDRINUSE', 'reserve.in-use');
  b.unmap(ioas, 0x4000, 4096);
  b.map(ioas, BUFFER + 100, 64, APERTURE);
  decidedBy(b.mockDomain(ioas).answer, 'EADDRINUSE', 'alignment.in-use');
  b.unmap(ioas, APERTURE, 64);
  b.map(ioas, 0x3000_0000, 4096, APERTURE);
  decidedBy(b.mockDomain(ioas).answer, 'EFAULT', 'pages.fault');
  b.mmap(0x3000_0000, 4096);
  decidedBy(b.mockDomain(ioas).answer, '', 'mock-domain.ok');
  keep(b);
});

test('the chosen IOVA keeps offset and alignment of the memory, page 0 is never chosen', () => {
  const { b, ioas } = bench();
  const chosen = (address: U64, length: U64): U64 => b.map(ioas, address, length).u64(32);
  assert.is(chosen(BUFFER, 4096), 0x1000);
  assert.is(chosen(BUFFER + 0x234, 0x100), 0x2234);
  assert.is(chosen(BUFFER, 0x20_0000), 0x20_0000);
  assert.is(chosen(BUFFER + 0x1000, 0x20_0000), 0x40_0000);
  assert.is(chosen(0, 0x3000), 0x4000);
  b.unmap(ioas, 0x1000, 0x1000);
  assert.is(chosen(BUFFER + 0x3000, 0x1000), 0x1000);
});

function mapFile(b: Bench, ioas: number, fd: number, start: U64, length: U64, flags = 6): Answer {
  return b.ioctl(3, 0x3b8f, struct(40, [4, flags], [8, ioas], [12, fd], [16, start, 8], [24, length, 8]));
}

test('MAP_FILE', () => {
  const { b, ioas } = bench();
  b.event(ev('open', { call: 'memfd_create', path: 'x', ret: 5, retPath: '/memfd:x (deleted)' }));
  b.event(ev('other', { call: 'ftruncate', text: '5</memfd:x>(deleted), 8192' }));
  b.event(ev('open', { path: '/dev/iommu', ret: 6, retPath: '/dev/iommu' }));
  const dmabuf = b.test(22, 0, [16, 4096], [20, 0]).ret as number;
  const rows: [string, string, Answer][] = [
    ['EOPNOTSUPP', 'map.flags', mapFile(b, ioas, 5, 0, 4096, 16)],
    ['EINVAL', 'map-file.length', mapFile(b, ioas, 99, 0, 0)],
    ['EOVERFLOW', 'map-file.overflow', mapFile(b, ioas, 99, HUGE, 8192)],
    ['EBADF', 'map-file.fd', mapFile(b, ioas, 99, 0, 4096)],
    ['EINVAL', 'map-file.dma-buf-size', mapFile(b, ioas, dmabuf, 0, 8192)],
    ['', 'map.ok', mapFile(b, ioas, dmabuf, 0, 4096)],
    ['', 'map.ok', mapFile(b, ioas, 5, 8192, 8192)],
  ];
  for (const [errno, rule, answer] of rows) decidedBy(answer, errno, rule);
  b.test(23, 0, [16, dmabuf], [20, 1]);
  decidedBy(mapFile(b, ioas, dmabuf, 0, 4096), 'ENODEV', 'map-file.dma-buf-revoked');
  b.unmap(ioas, 0, U64_MAX);
  b.mockDomain(ioas);
  decidedBy(mapFile(b, ioas, 5, 4096, 8192), 'EINVAL', 'pages.file-size');
  decidedBy(mapFile(b, ioas, 6, 0, 4096), 'EINVAL', 'pages.file-kind');
  for (const path of ['/dev/null', '/dev/null<char 1:3>', 'pipe:[123]', 'anon_inode:inotify', '/proc/1/maps']) {
    b.event(ev('open', { path, ret: 7, retPath: path }));
    decidedBy(mapFile(b, ioas, 7, 0, 4096), 'EINVAL', 'pages.file-kind');
  }
  for (const path of ['/tmp/x', 'x', '/dev/sock:[1]']) {
    b.event(ev('open', { path, ret: 7, retPath: path }));
    assert.match(mapFile(b, ioas, 7, 0, 4096).unknown, /whether the file is a memory file/);
  }
  decidedBy(mapFile(b, ioas, 5, 4096, 4096), '', 'map.ok');
  keep(b);
});

test('COPY', () => {
  const { b, ioas } = bench();
  const other = b.ioasAlloc();
  b.map(ioas, BUFFER, 0x4000, 0x10000, 4);
  b.map(ioas, BUFFER + 0x4000, 0x4000, 0x14000, 6);
  const rows: [string, string, Answer][] = [
    ['EOPNOTSUPP', 'map.flags', b.copy(9, 0x10000, 9, 4096, 0, 8)],
    ['EOVERFLOW', 'map.overflow', b.copy(9, U64_MAX, 9, 4096, 0)],
    ['EINVAL', 'map.no-access', b.copy(9, 0x10000, 9, 4096, 0, 0)],
    ['ENOENT', 'copy.source', b.copy(9, 0x10000, 9, 0)],
    ['EINVAL', 'copy.length', b.copy(ioas, 0x10000, 9, 0)],
    ['EOVERFLOW', 'copy.source-overflow', b.copy(ioas, HUGE, 9, 8192)],
    ['ENOENT', 'copy.source-gap', b.copy(ioas, 0x17000, 9, 0x2000)],
    ['ENOENT', 'copy.source-gap', b.copy(ioas, 0xf000, 9, 0x1000)],
    ['ENOENT', 'map.ioas', b.copy(ioas, 0x10000, 9, 0x1000)],
    ['EPERM', 'map.write', b.copy(ioas, 0x10000, other, 0x1000)],
    ['', 'copy.ok', b.copy(ioas, 0x13000, other, 0x2000, 0x8000, 4)],
  ];
  for (const [errno, rule, answer] of rows) decidedBy(answer, errno, rule);
  decidedBy(b.unmap(other, 0x8000, 0x1000), '', 'unmap.ok');
  decidedBy(b.unmap(other, 0x9000, 0x1000), '', 'unmap.ok');
  keep(b);
});

test('COPY from the n-th area, on kernels with the self-tests', () => {
  const { b, ioas } = bench();
  const SYZ = 0x1_0000;
  b.map(ioas, BUFFER, 0x1000, 0x10000);
  b.map(ioas, BUFFER + 0x4000, 0x2000, 0x20000);
  const from = (nth: number, offset: number) => nth + offset * 2 ** 32;
  assert.is.not(b.copy(ioas, from(1, 0x1000), ioas, 0x1000, 0x30000, SYZ | 6).unknown, '');
  decidedBy(b.test(1, ioas, [16, 0x90000, 8], [24, 0x1000, 8]), '', 'test-reserve.ok');
  const copied = b.copy(ioas, from(1, 0x1000), ioas, 0x1000, 0x40000, SYZ | 6);
  decidedBy(copied, '', 'copy.ok');
  assert.equal([copied.u32(4), copied.u64(32)], [7, 0x21000]);
  decidedBy(b.copy(ioas, from(0, 0x1000), ioas, 0x1000, 0x50000, SYZ | 6), 'ENOENT', 'copy.source-gap');
  decidedBy(b.copy(ioas, from(9, 0x10000), ioas, 0x1000, 0x50000, SYZ | 6), 'ENOENT', 'copy.source-gap');
  decidedBy(b.copy(9, from(0, 0), ioas, 0x1000, 0x50000, SYZ | 6), 'ENOENT', 'copy.source');
  decidedBy(b.copy(ioas, from(0, 0), ioas, 0x1000, 0x50000, SYZ | 8), 'EOPNOTSUPP', 'map.flags');
  keep(b);
});

test('a page table takes no memory without rights, which only VFIO maps', () => {
  const { b, ioas } = bench();
  b.ioctl(3, 0x3b88, struct(12, [4, ioas], [8, 1]));
  const map = () => b.ioctl(3, 0x3b71, struct(32, [8, BUFFER, 8], [16, APERTURE, 8], [24, 4096, 8]));
  decidedBy(map(), '', 'map.ok');
  decidedBy(b.mockDomain(ioas).answer, 'EINVAL', 'pages.rights');
  decidedBy(b.unmap(ioas, APERTURE, 4096), '', 'unmap.ok');
  decidedBy(b.mockDomain(ioas).answer, '', 'mock-domain.ok');
  decidedBy(map(), 'EINVAL', 'pages.rights');
  keep(b);
});

test('UNMAP', () => {
  const { b, ioas } = bench();
  for (const i of [0, 1, 2, 4]) b.map(ioas, BUFFER, 4096, 0x10000 + i * 4096);
  const rows: [string, string, U64, Answer][] = [
    ['ENOENT', 'unmap.ioas', 4096, b.unmap(9, 0, 4096)],
    ['EOVERFLOW', 'unmap.overflow', U64_MAX, b.unmap(ioas, 1, U64_MAX)],
    ['EINVAL', 'unmap.length', 0, b.unmap(ioas, 0, 0)],
    ['EOVERFLOW', 'unmap.overflow', 8192, b.unmap(ioas, HUGE, 8192)],
    ['ENOENT', 'unmap.none', 4096, b.unmap(ioas, 0x13000, 4096)],
    ['ENOENT', 'unmap.part', 2048, b.unmap(ioas, 0x10800, 2048)],
    ['', 'unmap.ok', 8192, b.unmap(ioas, 0xf000, 0x3000)],
  ];
  for (const [errno, rule, length, answer] of rows) {
    decidedBy(answer, errno, rule);
    assert.is(answer.u64(16), length);
  }
  keep(b);
  // Fails at the area that is only partly inside, and has unmapped the one below it.
  decidedBy(b.unmap(ioas, 0x12000, 0x2800), 'ENOENT', 'unmap.part');
  const all = b.unmap(ioas, 0, U64_MAX);
  decidedBy(all, '', 'unmap.all');
  assert.is(all.u64(16), 4096);
  decidedBy(b.unmap(ioas, 0, U64_MAX), '', 'unmap.all');
  keep(b);
});

test('an area of 1 TiB is one entry', () => {
  const { b, ioas } = bench();
  decidedBy(b.map(ioas, 0, 2 ** 40, 2 ** 40), '', 'map.ok');
  assert.is(b.world.ioases.first()?.areas.size, 1);
  assert.is(b.unmap(ioas, 2 ** 40, 2 ** 40).u64(16), 2 ** 40);
});

test('where areas are not known, what is known still decides', () => {
  const { b, ioas } = bench();
  const unseen = (request: number): void => {
    assert.is(b.ioctl(3, request, null, { recorded: { ret: 0, errno: '' } }).verdict, 'unknown');
  };
  b.map(ioas, BUFFER, 4096, 0x5000);
  unseen(0x3b85);
  decidedBy(b.map(ioas, BUFFER, 4096, 0x5000), 'EEXIST', 'iova.exists');
  decidedBy(b.map(ioas, BUFFER, 4096, 0x5000, 8), 'EOPNOTSUPP', 'map.flags');
  assert.match(b.map(ioas, BUFFER, 4096, 0x9000).unknown, /mappings unknown since/);
  decidedBy(b.map(ioas, BUFFER, 4096, 0x9000), 'EEXIST', 'iova.exists');
  decidedBy(b.unmap(ioas, 0x9000, 4096), '', 'unmap.ok');
  assert.match(b.unmap(ioas, 0x9000, 4096).unknown, /mappings unknown since/);
  decidedBy(b.map(ioas, BUFFER, 8192, 0xffff_ffff_ffff_f000n), 'EOVERFLOW', 'iova.overflow');
  unseen(0x3b86);
  assert.match(b.map(ioas, BUFFER, 4096, 0x5000).unknown, /mappings unknown since/);
  assert.match(b.unmap(ioas, 0x6000, 4096).unknown, /mappings unknown since/);
});

test('random calls keep areas apart and answer like a map of pages', () => {
  const pages = 32;
  const op = fc.record({
    kind: fc.constantFrom('map', 'choose', 'unmap', 'copy', 'reserve'),
    at: fc.nat(pages - 1),
    size: fc.integer({ min: 1, max: 5 }),
    to: fc.nat(pages - 1),
  });
  const property = fc.property(fc.array(op, { maxLength: 40 }), (ops) => {
    const { b, ioas } = bench();
    b.test(1, ioas, [16, pages * 4096, 8], [24, 2n ** 64n - BigInt(pages * 4096), 8]);
    const owner = new Array<number>(pages).fill(0);
    let next = 1;
    for (const { kind, at, size, to } of ops) {
      const range = owner.slice(at, at + size);
      const free = at + size <= pages && range.every((page) => page === 0);
      if (kind === 'map') {
        const answer = b.map(ioas, BUFFER, size * 4096, at * 4096);
        const expected = free ? '' : at + size > pages || range.includes(-1) ? 'EINVAL' : 'EEXIST';
        assert.is(answer.errno, expected);
        if (free) owner.fill(next++, at, at + size);
      } else if (kind === 'choose') {
        const answer = b.map(ioas, BUFFER + 4096, size * 4096);
        const found = owner.findIndex((_, i) => i > 0 && fits(owner, i, size));
        assert.is(answer.errno, found < 0 ? 'ENOSPC' : '');
        if (found >= 0) assert.is(answer.u64(32), found * 4096);
        if (found >= 0) owner.fill(next++, found, found + size);
      } else if (kind === 'unmap') {
        unmapBoth(b, ioas, owner, at, size);
      } else if (kind === 'copy') {
        const covered = at + size <= pages && range.every((page) => page > 0);
        const room = to + size <= pages && owner.slice(to, to + size).every((page) => page === 0);
        const answer = b.copy(ioas, at * 4096, ioas, size * 4096, to * 4096);
        if (!covered) assert.is(answer.rule, 'copy.source-gap');
        else assert.is(answer.errno === '', room);
        if (covered && room) copyOwners(owner, at, to, size, () => next++);
      } else if (free && size === 1) {
        decidedBy(b.test(1, ioas, [16, at * 4096, 8], [24, 4096, 8]), '', 'test-reserve.ok');
        owner[at] = -1;
      }
      const areas = [...(b.world.ioases.first()?.areas.values() ?? [])];
      areas.forEach((area, i) => assert.ok(i === 0 || (areas[i - 1]?.last ?? 0) < area.start, 'areas overlap'));
    }
  });
  fc.assert(property, { numRuns: 150 });
});

function fits(owner: readonly number[], at: number, size: number): boolean {
  return at + size <= owner.length && owner.slice(at, at + size).every((page) => page === 0);
}

function unmapBoth(b: Bench, ioas: number, owner: number[], at: number, size: number): void {
  const answer = b.unmap(ioas, at * 4096, size * 4096);
  let done = 0;
  let partial = false;
  for (let i = at; i < Math.min(at + size, owner.length); ) {
    const id = owner[i] as number;
    if (id <= 0) {
      i++;
      continue;
    }
    const first = owner.indexOf(id);
    const last = owner.lastIndexOf(id);
    if (first < at || last >= at + size) {
      partial = true;
      break;
    }
    owner.fill(0, first, last + 1);
    done += last - first + 1;
    i = last + 1;
  }
  assert.is(answer.rule, partial ? 'unmap.part' : done === 0 ? 'unmap.none' : 'unmap.ok');
  if (answer.errno === '') assert.is(answer.u64(16), done * 4096);
}

function copyOwners(owner: number[], at: number, to: number, size: number, fresh: () => number): void {
  const names = new Map<number, number>();
  const copied = owner.slice(at, at + size).map((id) => {
    const name = names.get(id) ?? fresh();
    names.set(id, name);
    return name;
  });
  copied.forEach((id, i) => {
    owner[to + i] = id;
  });
}

test('every rule that a caller can reach has a row', () => {
  seen.add('unmap.locked'); // hw-queue.test.ts
  allSeen(seen, [MAP_RULES, UNMAP_RULES, MAP_FILE_RULES, IOPT_RULES, PAGES_RULES]);
});

test('every rejection of a mapping says what it saw', () => {
  const rules = [MAP_RULES, MAP_FILE_RULES, IOPT_RULES, PAGES_RULES].flat().filter(({ id }) => said.has(id));

  assert.equal(
    rules.filter(({ id }) => said.get(id) === '').map(({ id }) => id),
    [],
  );
});
