import * as assert from 'uvu/assert';
import { suite } from '../../../core/testing.js';
import { ev } from '../../testing.js';
import { type Answer, type FieldAt, infoAnswer, Lab, MDEV, MEMORY, mapStruct, struct } from '../testing.js';
import {
  DEVICE_SET_IRQS,
  IOMMU_DIRTY_PAGES,
  IOMMU_GET_INFO,
  IOMMU_MAP_DMA,
  IOMMU_UNMAP_DMA,
  MAP_VADDR,
  UNMAP_ALL,
  UNMAP_VADDR,
} from '../uapi.js';

const test = suite('type1 explanations');

function map(lab: Lab, errno: string, iova: number | bigint, size: number | bigint, ...fields: FieldAt[]): string {
  return said(lab.ioctl(3, IOMMU_MAP_DMA, { in: mapStruct(iova, size, fields), errno }));
}

function unmap(lab: Lab, errno: string, iova: number | bigint, size: number | bigint, ...fields: FieldAt[]): string {
  return said(lab.ioctl(3, IOMMU_UNMAP_DMA, { in: struct(24, [8, iova, 8], [16, size, 8], ...fields), errno }));
}

function said(answer: Answer): string {
  assert.is(answer.verdict, 'match', answer.explanation);
  return answer.looked;
}

function told(lab: Lab, free: number): Lab {
  lab.good(lab.ioctl(3, IOMMU_GET_INFO, { in: struct(120), out: infoAnswer(free) }));
  return lab;
}

test('MAP: the mapping in the way, with the event that made it', () => {
  const lab = new Lab().container();
  lab.good(lab.map(0x4000, 0x2000));
  assert.is(map(lab, 'EEXIST', 0x5000, 0x8000), '0x5000-0xcfff overlaps mapping 0x4000-0x5fff of event 7');
  assert.is(map(lab, 'EEXIST', 0x4000, 0x2000), '0x4000-0x5fff is mapping 0x4000-0x5fff of event 7');
  lab.good(lab.unmap(0x4000, 0x2000));
  assert.is(map(lab, 'ENOENT', 0x4000, 0x2000, [4, MAP_VADDR]), '0x4000-0x5fff is not mapped');
});

test('MAP: what of the range no device can reach, and who said so', () => {
  const lab = new Lab().container();
  const msi = '0xfee00000-0xfeefffff, where x86 devices send their interrupts (MSI)';
  assert.is(map(lab, 'EINVAL', 0xfedf_f000, 0x2000), `0xfedff000-0xfee00fff touches ${msi}`);
  told(lab, 100);
  const ranges = 'valid are 0x0-0xfedfffff, 0xfef00000-0x7fffffffff for /dev/vfio/7, as GET_INFO of event 8 told';
  assert.is(
    map(lab, 'EINVAL', 0xfedf_f000, 0x2000),
    `0xfedff000-0xfee00fff touches 0xfee00000-0xfeefffff, which is reserved; ${ranges}`,
  );
  assert.is(
    map(lab, 'EINVAL', 2 ** 39 - 4096, 0x2000),
    `0x7ffffff000-0x8000000fff ends beyond the aperture: it needs 40 bits, the IOMMU has 39; ${ranges}`,
  );
});

test('MAP: the limit of entries', () => {
  const lab = told(new Lab().container(), 2);
  lab.good(lab.map(0, 0x1000));
  lab.good(lab.map(0x1000, 0x3000));
  assert.is(
    map(lab, 'ENOSPC', 0x8000, 0x1000),
    '2 mappings, the limit is 2; they hold 0x4000 bytes, 0x2000 each on average: neighbours can be mapped as one',
  );
  const many = told(new Lab().container(), 70);
  for (let i = 0; i < 70; i++) many.good(many.map(i * 0x10000, i < 64 ? 0x1000 : 0x10000));
  assert.match(
    map(many, 'ENOSPC', 0x80_0000, 0x1000),
    /^70 mappings, the limit is 70; the first 64 hold 0x40000 bytes/,
  );
});

test('MAP: the page that cannot be pinned', () => {
  const lab = new Lab().container();
  lab.feed(ev('munmap', { addr: MEMORY + 0x4000, lengthBytes: 0x1000 }));
  lab.feed(ev('mprotect', { addr: MEMORY + 0x1000, lengthBytes: 0x1000, prot: 1 }));
  assert.match(
    map(lab, 'EFAULT', 0, 0x3000),
    /^0x7f0000001000 of user memory 0x7f0000000000-0x7f0000002fff: the memory is not writable \(0x7f0000001000-0x7f0000001fff of event \d+\)$/,
  );
  assert.is(
    map(lab, 'EFAULT', 0, 0x5000, [4, 1]),
    '0x7f0000004000 of user memory 0x7f0000000000-0x7f0000004fff: nothing is mapped there',
  );
});

test('MAP: uneven and unknown fields', () => {
  const lab = new Lab().container();
  assert.is(map(lab, 'EINVAL', 0x200, 0x1000), 'iova 0x200; multiples of 0x1000 are needed');
  assert.is(
    map(lab, 'EINVAL', 0, 100, [8, MEMORY + 1, 8]),
    'vaddr 0x7f0000000001, size 0x64; multiples of 0x1000 are needed',
  );
  assert.is(map(lab, 'EINVAL', 0, 0x1000, [4, 11]), 'flags 0xb, of which 0x8 is unknown');
  assert.is(map(lab, 'EINVAL', 0, 0x1000, [4, 5]), 'flags READ|VADDR');
  assert.is(map(lab, 'EINVAL', 0, 0x1000, [0, 31]), 'argsz 31');
});

test('MAP with VADDR: the mapping that does not fit', () => {
  const lab = new Lab().container();
  lab.good(lab.map(0, 0x2000));
  const address: FieldAt = [4, MAP_VADDR];
  assert.is(
    map(lab, 'EINVAL', 0, 0x2000, address),
    'mapping 0x0-0x1fff of event 7 has its user address: no UNMAP with VADDR took it',
  );
  assert.is(map(lab, 'EINVAL', 0, 0x1000, address), '0x0-0xfff is not the whole of mapping 0x0-0x1fff of event 7');
});

test('UNMAP: the mapping that would be cut', () => {
  const lab = new Lab().container();
  lab.good(lab.map(0x1000, 0x3000));
  const whole = 'cuts mapping 0x1000-0x3fff of event 7, which goes as a whole or not at all';
  assert.is(unmap(lab, 'EINVAL', 0x2000, 0x2000), `0x2000-0x3fff ${whole}`);
  assert.is(unmap(lab, 'EINVAL', 0, 0x2000), `0x0-0x1fff ${whole}`);
  assert.is(unmap(lab, 'EINVAL', 0, 0x1800), 'size 0x1800; multiples of 0x1000 are needed');
  assert.is(unmap(lab, 'EINVAL', 0x1000, 0), 'iova 0x1000, size 0');
});

test('UNMAP with VADDR: the mapping without an address, the group that forbids it', () => {
  const lab = new Lab().container();
  lab.good(lab.map(0x1000, 0x2000));
  const all: FieldAt = [4, UNMAP_ALL | UNMAP_VADDR];
  lab.good(lab.ioctl(3, IOMMU_UNMAP_DMA, { in: struct(24, all), out: struct(24, all, [16, 0x2000, 8]) }));
  assert.is(unmap(lab, 'EINVAL', 0, 0, all), 'mapping 0x1000-0x2fff of event 7 lost its user address before');
  assert.is(unmap(new Lab().device(MDEV), 'EBUSY', 0, 0x1000, [4, UNMAP_VADDR]), '/dev/vfio/7');
});

test('dirty tracking', () => {
  const lab = new Lab().container();
  const ask = struct(48, [4, 4], [16, 0x2000, 8], [24, 0x2000, 8], [32, 8, 8], [40, MEMORY, 8]);
  const get = (): string => said(lab.ioctl(3, IOMMU_DIRTY_PAGES, { in: ask, errno: 'EINVAL' }));
  assert.is(get(), 'pgsize 0x2000, the smallest page is 0x1000');
  const withBitmap = struct(48, [4, 1], [16, 0x1000, 8], [24, 4096, 8], [32, 8, 8], [40, MEMORY, 8]);
  assert.is(
    said(lab.ioctl(3, IOMMU_UNMAP_DMA, { in: withBitmap, errno: 'EINVAL' })),
    'no DIRTY_PAGES with START is in force',
  );
});

test('a container without a backend says what is missing', () => {
  const lab = new Lab();
  lab.open('/dev/vfio/vfio', 3);
  assert.is(map(lab, 'EINVAL', 0, 0x1000), 'the container has no group: SET_CONTAINER comes first, then SET_IOMMU');
  assert.is(
    map(new Lab().container(null), 'EINVAL', 0, 0x1000),
    'the container has /dev/vfio/7, and SET_IOMMU was not called since the first one joined',
  );
  assert.is(said(new Lab().container().ioctl(3, DEVICE_SET_IRQS, { errno: 'ENOTTY' })), 'the backend is type1v2');
});

test('a recording that contradicts the model is explained by the state before it', () => {
  const lab = new Lab().container();
  lab.good(lab.map(0x4000, 0x2000));
  const answer = lab.map(0x5000, 0x1000);
  assert.is(answer.verdict, 'diverge');
  assert.is(answer.looked, '0x5000-0x5fff overlaps mapping 0x4000-0x5fff of event 7');
});
