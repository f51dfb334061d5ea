import * as assert from 'uvu/assert';
import { suite } from '../../../core/testing.js';
import { ev } from '../../testing.js';
import { PAYLOAD_RULES } from '../payload.js';
import { checkRows, type FieldAt, infoAnswer, Lab, MEMORY, mapStruct, type Row, struct } from '../testing.js';
import { IOMMU_DIRTY_PAGES, IOMMU_GET_INFO, IOMMU_MAP_DMA, IOMMU_UNMAP_DMA, MAP_VADDR, UNMAP_VADDR } from '../uapi.js';
import { MAP_RULES as R } from './map.js';

const test = suite('type1 map');

const TOP = 0xffff_ffff_ffff_f000n;

function map(lab: Lab, errno: string, iova: number | bigint, size: number | bigint, ...fields: FieldAt[]) {
  return lab.ioctl(3, IOMMU_MAP_DMA, { in: mapStruct(iova, size, fields), errno });
}

function onFresh(errno: string, rule: Row['rule'], iova: number | bigint, size: number | bigint, ...f: FieldAt[]): Row {
  return { rule, errno, run: (lab, e) => map(lab.container(), e, iova, size, ...f) };
}

const rows: readonly Row[] = [
  onFresh('EINVAL', R.argsz, 0, 4096, [0, 31]),
  onFresh('EINVAL', R.flags, 0, 4096, [4, 8 | 3]),
  onFresh('EINVAL', R.sizeZero, TOP, 0),
  onFresh('EOVERFLOW', R.iovaOverflow, TOP, 8192),
  onFresh('EOVERFLOW', R.vaddrOverflow, 0, 8192, [8, TOP, 8]),
  onFresh('EINVAL', R.access, 0, 4096, [4, 0]),
  onFresh('EINVAL', R.access, 0, 4096, [4, MAP_VADDR | 1]),
  onFresh('EINVAL', R.aligned, 512, 4096),
  onFresh('EINVAL', R.aligned, 0, 100),
  onFresh('EINVAL', R.aligned, 0, 4096, [8, MEMORY + 1, 8]),
  onFresh('ENOENT', R.vaddrMissing, 0, 4096, [4, MAP_VADDR]),
  {
    rule: R.vaddrMismatch,
    errno: 'EINVAL',
    run(lab, errno) {
      lab.container().good(lab.map(0, 8192));
      return map(lab, errno, 0, 8192, [4, MAP_VADDR]);
    },
  },
  {
    rule: R.overlap,
    errno: 'EEXIST',
    run(lab, errno) {
      lab.container().good(lab.map(0x2000, 0x2000));
      return map(lab, errno, 0x3000, 0x4000);
    },
  },
  {
    rule: R.limit,
    errno: 'ENOSPC',
    run(lab, errno) {
      lab.container();
      // GET_INFO says that two more entries fit, so the limit is two.
      lab.good(lab.ioctl(3, IOMMU_GET_INFO, { in: struct(120), out: infoAnswer(2) }));
      lab.good(lab.map(0, 4096));
      lab.good(lab.map(4096, 4096));
      return map(lab, errno, 0x2000, 4096);
    },
  },
  onFresh('EINVAL', R.range, 0xfee0_0000, 0x1000),
  onFresh('EINVAL', R.range, 0xfedf_f000, 0x2000),
  onFresh('EFAULT', R.pin, 0, 0x1000, [8, 0x5000, 8]),
  {
    rule: R.pin,
    errno: 'EFAULT',
    run(lab, errno) {
      lab.feed(ev('munmap', { addr: MEMORY + 0x4000, lengthBytes: 0x1000 }));
      lab.container().good(lab.map(0, 0x4000));
      return map(lab, errno, 0x10_0000, 0x5000);
    },
  },
  {
    rule: R.pin,
    errno: 'EFAULT',
    run(lab, errno) {
      lab.feed(ev('mprotect', { addr: MEMORY + 0x1000, lengthBytes: 0x1000, prot: 1 }));
      lab.container().good(lab.map(0, 0x2000, [[4, 1]]));
      return map(lab, errno, 0x10_0000, 0x2000);
    },
  },
  {
    rule: R.bitmap,
    errno: 'EINVAL',
    run(lab, errno) {
      lab.device('83b8f4f2-509f-382f-3c1e-e6bfe0fa1001');
      lab.good(lab.ioctl(3, IOMMU_DIRTY_PAGES, { in: struct(8, [4, 1]) }));
      return map(lab, errno, 0, 1n << 43n);
    },
  },
];

// Those of RLIMIT_MEMLOCK have a test file of their own.
const { memlock: _, vaddrMemlock: __, ...OTHER_RULES } = R;

test('each rejection has its errno, in the kernel order', () => checkRows(OTHER_RULES, rows));

test('a wrong errno in the recording is a divergence, and the mapping is taken over when it says success', () => {
  const lab = new Lab().device();
  lab.good(lab.map(0, 0x1000));
  assert.is(map(lab, 'EINVAL', 0, 0x1000).verdict, 'diverge');
  const beyond = lab.map(0xfee0_0000, 0x1000);
  assert.is(beyond.verdict, 'diverge');
  lab.good(lab.unmap(0xfee0_0000, 0x1000));
});

test('a rejected map names what it met', () => {
  const lab = new Lab().container();
  lab.good(lab.map(0x4000, 0x2000));
  assert.match(map(lab, 'EEXIST', 0x5000, 0x8000).looked, /mapping 0x4000-0x5fff of event 7/);
  assert.match(map(lab, 'EINVAL', 0xfee0_0000, 0x1000).looked, /0xfee00000/);
});

test('an IOVA that not every IOMMU has is unknown until the ranges are', () => {
  const lab = new Lab().container();
  assert.match(lab.map(1n << 40n, 0x1000).unknown, /no GET_INFO shows/);
  lab.good(lab.map(2 ** 39 - 4096, 0x1000));
});

test('a mapping can end at 2^64 in a container without IOMMU, and be unmapped', () => {
  const lab = new Lab().device('83b8f4f2-509f-382f-3c1e-e6bfe0fa1001');
  lab.good(lab.map(TOP, 0x1000));
  lab.good(lab.unmap(TOP, 0x1000));
});

test('mediated devices alone pin nothing, so any address goes', () => {
  const lab = new Lab().device('83b8f4f2-509f-382f-3c1e-e6bfe0fa1001');
  lab.good(lab.map(0, 0x1000, [[8, 0x1234_5000, 8]]));
});

test('the address of a mapping is taken away and given back', () => {
  const lab = new Lab().container();
  lab.good(lab.map(0, 0x2000));
  const takeAway = struct(24, [4, UNMAP_VADDR], [16, 0x2000, 8]);
  lab.good(lab.ioctl(3, IOMMU_UNMAP_DMA, { in: takeAway }));
  assert.is(lab.world.containers.get(1)?.vaddrInvalid, 1);
  lab.good(lab.ioctl(3, IOMMU_UNMAP_DMA, { in: takeAway, errno: 'EINVAL' }));
  lab.good(map(lab, 'EINVAL', 0, 0x1000, [4, MAP_VADDR]));
  lab.good(map(lab, '', 0, 0x2000, [4, MAP_VADDR], [8, MEMORY + 0x10_0000, 8]));
  assert.is(lab.world.containers.get(1)?.vaddrInvalid, 0);
  assert.is(lab.world.containers.get(1)?.mappings.get(0)?.vaddr, MEMORY + 0x10_0000);
});

test('without a payload the call is unknown, and so is what depends on it', () => {
  const lab = new Lab().container();
  assert.is(lab.ioctl(3, IOMMU_MAP_DMA).unknown, 'payload not recorded');
  assert.match(lab.map(0, 0x1000).unknown, /mappings of the container unknown since event 7/);
  assert.is(map(lab, 'EEXIST', 0, 0x1000).verdict, 'match');
  const fault = lab.ioctl(3, IOMMU_MAP_DMA, { arg: 0, errno: 'EFAULT' });
  assert.is(fault.verdict, 'match');
  assert.is(fault.rule, PAYLOAD_RULES.copyIn.id);
});

test('an ENOMEM of the run is learned', () => {
  const lab = new Lab().container();
  lab.good(lab.map(0, 0x3000));
  const answer = map(lab, 'ENOMEM', 0x10_0000, 0x1000);
  assert.is(answer.verdict, 'learned');
  lab.good(lab.unmap(0x10_0000, 0x1000, 0));
});

test('before a device is named, a mapping that no IOMMU would take shows that the devices are mediated', () => {
  const shows = [[[8, 0x1000, 8]], [[16, 0xfee0_0000, 8]]] as const;
  for (const fields of shows) {
    const lab = new Lab().container();
    assert.is(lab.map(0, 0x1000, fields).verdict, 'learned');
    assert.ok(lab.world.groups.get(7)?.emulated);
    assert.is(lab.map(0x10_0000, 0x1000, [[8, 0x1000, 8]]).verdict, 'match');
  }
  assert.is(new Lab().device().map(0, 0x1000, [[8, 0x1000, 8]]).verdict, 'diverge');
});

test('of addresses above 39 bits an answer tells for all of their width, for the same groups', () => {
  const refused = new Lab().device();
  assert.match(map(refused, 'EINVAL', 2 ** 40, 0x1000).unknown, /more than 39 bits/);
  assert.is(map(refused, 'EINVAL', 2 ** 40 + 0x10_0000, 0x1000).rule, R.range.id);
  assert.match(map(refused, 'EINVAL', 2 ** 39, 0x1000).unknown, /more than 39 bits/, 'fewer bits');
  assert.is(map(refused, 'EINVAL', 2 ** 39 + 0x10_0000, 0x1000).rule, R.range.id);
  const taken = new Lab().device();
  assert.is(map(taken, '', 2 ** 46, 0x1000).verdict, 'learned');
  assert.is(map(taken, '', 2 ** 45, 0x1000).verdict, 'match');
  assert.is(map(taken, 'EFAULT', 2 ** 47, 0x1000, [8, 0x1000, 8]).verdict, 'match', 'checked before the memory');
  assert.match(map(taken, 'EINVAL', 2 ** 48, 0x1000).unknown, /more than 39 bits/);
});
