import * as assert from 'uvu/assert';
import { suite } from '../../core/testing.js';
import { ACCESS_TEST_RULES } from '../devices/mock-access.js';
import { CHECK_RULES } from '../devices/mock-check.js';
import { DMABUF_RULES } from '../devices/mock-dmabuf.js';
import { TEST_RULES } from '../devices/mock-test.js';
import { ev } from '../testing.js';
import { Tx } from '../tx.js';
import { ACCESS_RULES } from './access.js';
import { attachDevice, bindDevice } from './attach.js';
import { type Answer, allSeen, Bench, decidedBy, type Field, struct } from './testing.js';

const test = suite('iommufd access');
const seen = new Set<string>();
const BUFFER = 0x1000_0000;
const APERTURE = 0x100_0000;
const NEEDS_PIN = 1;
const WRITE = 1;
const HUGE = 0xffff_ffff_ffff_f000n;

function bench(): { b: Bench; ioas: number } {
  const b = new Bench();
  b.open();
  b.mmap(BUFFER, 0x10000);
  return { b, ioas: b.ioasAlloc() };
}

function keep(b: Bench): void {
  for (const id of b.seen) seen.add(id);
}

function create(b: Bench, ioas: number, flags = 0): Answer {
  return b.test(5, ioas, [20, flags]);
}

function pages(
  b: Bench,
  fd: number,
  iova: number | bigint,
  length: number | bigint,
  flags = 0,
  ...more: Field[]
): Answer {
  return b.test(7, fd, [16, flags], [24, iova, 8], [32, length, 8], ...more);
}

function rw(b: Bench, fd: number, iova: number | bigint, length: number | bigint, flags = 0, buffer = BUFFER): Answer {
  return b.test(8, fd, [16, iova, 8], [24, length, 8], [32, buffer, 8], [40, flags]);
}

test('an access raises the alignment of its IOAS and uses it', () => {
  const { b, ioas } = bench();
  decidedBy(create(b, ioas, 2), 'EOPNOTSUPP', 'create-access.flags');
  decidedBy(create(b, 99), 'ENOENT', 'create-access.ioas');
  b.map(ioas, BUFFER + 64, 64, 0x40);
  decidedBy(create(b, ioas, NEEDS_PIN), 'EADDRINUSE', 'alignment.in-use');
  b.unmap(ioas, 0x40, 64);
  const made = create(b, ioas, NEEDS_PIN);
  decidedBy(made, '', 'create-access.ok');
  assert.is(made.u32(16), 4);
  decidedBy(b.map(ioas, BUFFER + 64, 64, 0x40), 'EINVAL', 'iova.length');
  decidedBy(b.destroy(ioas), 'EBUSY', 'destroy.busy');
  b.close(4);
  decidedBy(b.map(ioas, BUFFER + 64, 64, 0x40), '', 'map.ok');
  decidedBy(b.destroy(ioas), '', 'destroy.ok');
  keep(b);
});

test('ACCESS_PAGES', () => {
  const { b, ioas } = bench();
  b.mmap(0x2000_0000, 4096, { prot: 1 });
  b.map(ioas, BUFFER, 0x2000, APERTURE, 2);
  b.map(ioas, BUFFER + 0x2000, 0x1000, APERTURE + 0x2000);
  b.map(ioas, BUFFER + 0x3800, 0x800, APERTURE + 0x8000);
  b.map(ioas, BUFFER + 0x4800, 0x800, APERTURE + 0x8800);
  b.map(ioas, 0x3000_0000, 0x1000, APERTURE + 0x10000);
  b.map(ioas, 0x2000_0000, 0x1000, APERTURE + 0x20000, 4);
  const plain = create(b, ioas).u32(16);
  decidedBy(pages(b, plain, APERTURE, 4096), 'EOPNOTSUPP', 'access-pages.kind');
  b.close(plain);
  b.unmap(ioas, APERTURE + 0x8000, 0x1000);
  const fd = create(b, ioas, NEEDS_PIN).u32(16);
  const rows: [string, string, Answer][] = [
    ['ENOMEM', 'access-pages.size', pages(b, 99, 0, 0x100_0001, 2)],
    ['EOPNOTSUPP', 'access-pages.flags', pages(b, 99, 0, 1, 2)],
    ['EBADFD', 'access-fd', pages(b, 99, 0, 1)],
    ['EBADFD', 'access-fd', pages(b, 3, 0, 1)],
    ['EINVAL', 'access.length', pages(b, fd, 0, 0)],
    ['EOVERFLOW', 'access.overflow', pages(b, fd, HUGE, 8192)],
    ['EINVAL', 'access.aligned', pages(b, fd, APERTURE + 0x2010, 16)],
    ['EPERM', 'access.rights', pages(b, fd, APERTURE, 4096)],
    ['EPERM', 'access.rights', pages(b, fd, APERTURE + 0x20000, 4096, WRITE)],
    ['EFAULT', 'pages.fault', pages(b, fd, APERTURE + 0x10000, 4096)],
    ['ENOENT', 'access.gap', pages(b, fd, APERTURE + 0x2000, 8192)],
    ['EFAULT', 'access-pages.fault', pages(b, fd, APERTURE + 0x2000, 4096, 0, [40, 0x3000_0000, 8])],
    ['EBADE', 'access-pages.other', pages(b, fd, APERTURE + 0x2000, 4096, 0, [40, BUFFER, 8])],
    ['', 'access-pages.ok', pages(b, fd, APERTURE + 0x1000, 0x2000, WRITE, [40, BUFFER + 0x1000, 8])],
    // Whole pages are compared, so an address inside of one will do.
    ['', 'access-pages.ok', pages(b, fd, APERTURE + 0x2000, 16, 0, [40, BUFFER + 0x2008, 8])],
  ];
  for (const [errno, rule, answer] of rows) decidedBy(answer, errno, rule);
  assert.is(rows[14]?.[2].u32(20), 1);
  decidedBy(b.test(6, fd, [16, 9]), 'ENOENT', 'destroy-pages.item');
  decidedBy(b.test(6, fd, [16, 1]), '', 'destroy-pages.ok');
  const counted = () => [...(b.world.ioases.first()?.areas.values() ?? [])].slice(0, 2).map((area) => area.accesses);
  assert.equal(counted(), [1, 1]);
  // The area below is unmapped, and the pin that spans both goes.
  decidedBy(b.unmap(ioas, APERTURE, 0x2000), '', 'unmap.ok');
  assert.is(counted()[0], 0);
  keep(b);
});

test('ACCESS_RW', () => {
  const { b, ioas } = bench();
  b.map(ioas, BUFFER, 0x1000, APERTURE, 4);
  b.map(ioas, 0x3000_0000, 0x1000, APERTURE + 0x1000);
  b.mmap(0x2000_0000, 4096, { prot: 1 });
  const fd = create(b, ioas).u32(16);
  const rows: [string, string, Answer][] = [
    ['ENOMEM', 'access-rw.size', rw(b, 99, 0, 0x100_0001, 2)],
    ['EOPNOTSUPP', 'access-rw.flags', rw(b, 99, 0, 1, 2)],
    ['EBADFD', 'access-fd', rw(b, 99, 0, 1)],
    ['EFAULT', 'access-rw.fault', rw(b, fd, APERTURE, 8, WRITE, 0x3000_0000)],
    ['EINVAL', 'access.length', rw(b, fd, APERTURE, 0)],
    ['EPERM', 'access.rights', rw(b, fd, APERTURE, 8, WRITE)],
    ['EFAULT', 'pages.fault', rw(b, fd, APERTURE + 0x1000, 8)],
    ['ENOENT', 'access.gap', rw(b, fd, APERTURE + 0x2000, 8)],
    ['EFAULT', 'access-rw.fault', rw(b, fd, APERTURE, 8, 0, 0x2000_0000)],
    ['', 'access-rw.ok', rw(b, fd, APERTURE + 0xff8, 8)],
    ['', 'access-rw.ok', rw(b, fd, APERTURE + 0xff8, 8, 4)],
  ];
  for (const [errno, rule, answer] of rows) decidedBy(answer, errno, rule);
  keep(b);
});

test('accesses of the n-th area and of another context', () => {
  const { b, ioas } = bench();
  const SYZ = 0x1_0000;
  b.map(ioas, BUFFER + 0x1000, 0x1000, APERTURE + 0x4000);
  b.map(ioas, BUFFER, 0x1000, APERTURE, 4);
  const fd = create(b, ioas, NEEDS_PIN).u32(16);
  const nth = (area: number, offset: number) => area + offset * 2 ** 32;
  b.open(9);
  const rows: [string, string, Answer][] = [
    ['', 'access-rw.ok', rw(b, fd, nth(0, 0xff8), 8, SYZ)],
    ['', 'access-rw.ok', rw(b, fd, nth(1, 0), 8, SYZ | WRITE)],
    ['EPERM', 'access.rights', rw(b, fd, nth(0, 0), 8, SYZ | WRITE)],
    ['ENOENT', 'access.gap', rw(b, fd, nth(0, 0x1000), 8, SYZ)],
    ['ENOENT', 'access.gap', rw(b, fd, nth(2, APERTURE), 8, SYZ)],
    ['', 'access-pages.ok', pages(b, fd, nth(1, 0), 4096, SYZ, [40, BUFFER + 0x1000, 8])],
    [
      '',
      'access-rw.ok',
      b.ioctl(9, 0x3ba0, struct(72, [4, 8], [8, fd], [16, APERTURE, 8], [24, 8, 8], [32, BUFFER, 8])),
    ],
    ['ENOENT', 'access-replace.ioas', b.ioctl(9, 0x3ba0, struct(72, [4, 11], [8, fd], [16, 9]))],
    ['', 'access-replace.ok', b.ioctl(9, 0x3ba0, struct(68, [4, 11], [8, fd], [16, b.ioasAlloc()]))],
    ['', 'destroy.ok', b.destroy(ioas)],
  ];
  for (const [errno, rule, answer] of rows) decidedBy(answer, errno, rule);
  keep(b);
});

test('memory that was mapped read-only stays so in a copy', () => {
  const { b, ioas } = bench();
  b.event(ev('open', { call: 'memfd_create', path: 'x', ret: 5, retPath: '/memfd:x (deleted)' }));
  b.map(ioas, BUFFER, 0x1000, APERTURE, 4);
  const fd = create(b, ioas, NEEDS_PIN).u32(16);
  decidedBy(b.copy(ioas, APERTURE, ioas, 4096, APERTURE + 0x1000), 'EPERM', 'map.write');
  decidedBy(pages(b, fd, APERTURE, 4096, WRITE), 'EPERM', 'access.rights');
  keep(b);
});

test('ACCESS_REPLACE_IOAS', () => {
  const { b, ioas } = bench();
  const other = b.ioasAlloc();
  b.map(ioas, BUFFER, 0x1000, APERTURE);
  const fd = create(b, ioas, NEEDS_PIN).u32(16);
  pages(b, fd, APERTURE, 4096);
  decidedBy(b.test(11, 99, [16, other]), 'EBADFD', 'access-fd');
  decidedBy(b.test(11, fd, [16, 99]), 'ENOENT', 'access-replace.ioas');
  decidedBy(b.test(11, fd, [16, other]), '', 'access-replace.ok');
  assert.is(b.world.ioases.first()?.areas.first()?.accesses, 0);
  decidedBy(b.destroy(ioas), '', 'destroy.ok');
  decidedBy(b.destroy(other), 'EBUSY', 'destroy.busy');
  decidedBy(pages(b, fd, APERTURE, 4096), 'ENOENT', 'access.gap');
  keep(b);
});

test('dma-bufs', () => {
  const { b, ioas } = bench();
  decidedBy(b.test(22, 0, [16, 0]), 'EINVAL', 'dmabuf-get.length');
  decidedBy(b.test(22, 0, [16, 0x20_0001]), 'EINVAL', 'dmabuf-get.length');
  decidedBy(b.test(22, 0, [16, 1], [20, 4]), 'EINVAL', 'dmabuf-get.flags');
  const made = b.test(22, 0, [16, 1], [20, 2]);
  decidedBy(made, '', 'dmabuf-get.ok');
  const fd = made.ret as number;
  decidedBy(b.test(23, 0, [16, 99], [20, 1]), 'EBADF', 'dmabuf-revoke.fd');
  decidedBy(b.test(23, 0, [16, 3], [20, 1]), 'EINVAL', 'dmabuf-revoke.kind');
  b.event(ev('open', { path: '/dmabuf:', ret: 60 }));
  decidedBy(b.test(23, 0, [16, 60], [20, 1]), 'EOPNOTSUPP', 'dmabuf-revoke.driver');
  b.ioctl(3, 0x3b8f, struct(40, [4, 7], [8, ioas], [12, fd], [24, 4096, 8], [32, APERTURE, 8]));
  const access = create(b, ioas, NEEDS_PIN).u32(16);
  decidedBy(pages(b, access, APERTURE, 4096), 'EINVAL', 'access.dma-buf');
  decidedBy(b.test(23, 0, [16, fd], [20, 1]), '', 'dmabuf-revoke.ok');
  keep(b);
});

function checkMap(b: Bench, hwpt: number, iova: number | bigint, length: number | bigint, address: number): Answer {
  return b.test(3, hwpt, [16, iova, 8], [24, length, 8], [32, address, 8]);
}

test('MD_CHECK_MAP', () => {
  const { b, ioas } = bench();
  const { hwpt } = b.mockDomain(ioas);
  const other = b.ioasAlloc();
  b.map(ioas, BUFFER, 0x2000, APERTURE);
  const tx = new Tx(b.world);
  const attached = attachDevice(tx, 1, bindDevice(tx, 1, 'nic', 0), other, 0);
  b.world = tx.commit();
  const real = 'ptId' in attached ? attached.ptId : 0;
  const rows: [string, string, Answer][] = [
    ['ENOENT', 'check-map.hwpt', checkMap(b, 99, 0, 0, 0)],
    ['EINVAL', 'check-map.owner', checkMap(b, real, 0, 0, 0)],
    ['EINVAL', 'check-map.aligned', checkMap(b, hwpt, APERTURE, 1, BUFFER)],
    ['EFAULT', 'check-map.fault', checkMap(b, hwpt, APERTURE, 4096, 0x3000_0000)],
    ['EINVAL', 'check-map.other', checkMap(b, hwpt, APERTURE, 4096, BUFFER + 0x1000)],
    ['EINVAL', 'check-map.other', checkMap(b, hwpt, APERTURE + 0x2000, 4096, BUFFER)],
    ['', 'check-map.ok', checkMap(b, hwpt, APERTURE + 0x800, 0x1800, BUFFER + 0x800)],
    ['', 'check-map.ok', checkMap(b, hwpt, 0, 0, 0)],
  ];
  for (const [errno, rule, answer] of rows) decidedBy(answer, errno, rule);
  keep(b);
});

test('MD_CHECK_REFS counts page lists, not mappings', () => {
  const { b, ioas } = bench();
  const refs = (count: number, address = BUFFER, length = 0x2000): Answer =>
    b.test(4, 0, [16, length, 8], [24, address, 8], [32, count]);
  decidedBy(refs(0, BUFFER + 1), 'EINVAL', 'check-refs.aligned');
  decidedBy(refs(0, 0x3000_0000), 'EFAULT', 'check-refs.fault');
  b.map(ioas, BUFFER, 0x2000, APERTURE);
  decidedBy(refs(0), '', 'check-refs.ok');
  b.mockDomain(ioas);
  decidedBy(refs(1), '', 'check-refs.ok');
  b.copy(ioas, APERTURE, ioas, 0x2000, APERTURE + 0x10000);
  decidedBy(refs(1), '', 'check-refs.ok');
  b.map(ioas, BUFFER, 0x2000, APERTURE + 0x20000);
  decidedBy(refs(2), '', 'check-refs.ok');
  decidedBy(refs(3), 'EIO', 'check-refs.count');
  keep(b);
});

test('other operations', () => {
  const { b, ioas } = bench();
  const reserve = (id: number, start: number | bigint, length: number | bigint): Answer =>
    b.test(1, id, [16, start, 8], [24, length, 8]);
  decidedBy(b.test(24, 0), 'EOPNOTSUPP', 'test.op');
  decidedBy(reserve(99, 0, 0), 'EINVAL', 'test-reserve.length');
  decidedBy(reserve(99, HUGE, 8192), 'EOVERFLOW', 'test-reserve.overflow');
  decidedBy(reserve(99, 0, 1), 'ENOENT', 'test-reserve.ioas');
  decidedBy(reserve(ioas, 0, 1), '', 'test-reserve.ok');
  decidedBy(b.test(9, 0, [16, 11]), 'EINVAL', 'test-limit.small');
  decidedBy(b.test(9, 0, [16, 12]), '', 'test-limit.ok');
  keep(b);
});

test('every rule that a caller can reach has a row', () => {
  // A detached access cannot be had through the self-tests, and rights of areas never pass those of their memory.
  const unreachable = new Set(['access.detached', 'access-replace.detached', 'access.memory-rights']);
  const checks = CHECK_RULES.filter((rule) => /map|refs/.test(rule.id));
  const own = TEST_RULES.filter((rule) => /^test(\.op|-reserve|-limit)/.test(rule.id));
  const tables = [ACCESS_RULES, ACCESS_TEST_RULES, DMABUF_RULES, checks, own];
  allSeen(
    seen,
    tables.map((table) => table.filter((rule) => !unreachable.has(rule.id))),
  );
});
