import * as assert from 'uvu/assert';
import { suite } from '../../core/testing.js';
import { type Answer, Lab, MEMORY, mapStruct, PCI_DEVICE, struct, text } from './testing.js';
import {
  CHECK_EXTENSION,
  GROUP_GET_DEVICE_FD,
  GROUP_SET_CONTAINER,
  GROUP_UNSET_CONTAINER,
  IOMMU_GET_INFO,
  IOMMU_MAP_DMA,
  IOMMU_UNMAP_DMA,
  SET_IOMMU,
} from './uapi.js';

const test = suite('vfio iommufd container');

const IOAS_ALLOC = 0x3b81;
const VFIO_IOAS = 0x3b88;
const NOT_SHOWN = /whether iommufd provides/;

function opened(): Lab {
  const lab = new Lab();
  lab.open('/dev/vfio/vfio', 3);
  return lab;
}

const needsGroup = (lab: Lab, fd = 3): Answer =>
  lab.ioctl(fd, IOMMU_MAP_DMA, { in: mapStruct(0, 4096), errno: 'ENODEV' });

test('an error that no container gives shows it, and is predicted from then on', () => {
  const lab = opened();
  lab.open('/dev/vfio/vfio', 4);
  const first = needsGroup(lab);
  assert.is(first.verdict, 'unknown');
  assert.match(first.unknown, NOT_SHOWN);
  lab.open('/dev/vfio/vfio', 5);
  for (const fd of [3, 4, 5]) assert.is(needsGroup(lab, fd).rule, 'compat.no-ioas');
  assert.is(lab.ioctl(4, SET_IOMMU, { arg: 3, errno: 'ENODEV' }).verdict, 'match');
  assert.equal([lab.world.containers.size, lab.world.iommufds.size], [0, 3]);
  // Pages are charged as type1 charges them.
  for (const { accountMm } of lab.world.iommufds.values()) assert.is(accountMm, true);
  for (const fd of [3, 4, 5]) lab.close(fd);
  assert.is(lab.world.iommufds.size, 0);
});

test('what tells it, and what does not', () => {
  const rows: readonly [shows: boolean, what: string, run: (lab: Lab) => Answer][] = [
    [true, 'a command', (l) => l.ioctl(3, IOAS_ALLOC, { in: struct(12), out: struct(12, [8, 1]) })],
    [true, 'a command that fails', (l) => l.ioctl(3, 0x3b80, { in: struct(8, [4, 9]), errno: 'ENOENT' })],
    [true, 'a number nobody has', (l) => l.ioctl(3, 0x3b7f, { errno: 'ENOTTY' })],
    [false, 'a container has no backend', (l) => l.ioctl(3, IOAS_ALLOC, { in: struct(12), errno: 'EINVAL' })],
    [false, 'the same', (l) => l.ioctl(3, IOMMU_MAP_DMA, { in: mapStruct(0, 4096), errno: 'EINVAL' })],
    [false, 'both have type1', (l) => l.ioctl(3, CHECK_EXTENSION, { arg: 3, ret: 1 })],
  ];
  for (const [shows, what, run] of rows) {
    const lab = opened();
    const answer = run(lab);
    assert.is.not(answer.verdict, 'diverge', what);
    assert.is(lab.world.iommufds.size, shows ? 1 : 0, what);
  }
});

/** GET_INFO of an IOAS without a domain. */
const compatInfo = (): ReturnType<typeof struct> =>
  struct(
    72,
    [4, 3],
    [8, 0xffff_ffff_ffff_f000n, 8],
    [16, 24],
    [24, 0x1_0003],
    [28, 40],
    [32, 0xffff_ffff],
    [40, 0x1_0001],
    [48, 1],
    [64, 0xffff_ffff_ffff_ffffn, 8],
  );

test('GET_INFO with room for all shows it; the groups stay where they are', () => {
  for (const backend of [1, 3]) {
    const lab = new Lab().container(backend);
    const info = lab.ioctl(3, IOMMU_GET_INFO, { in: struct(72, [0, 200]), out: compatInfo() });
    assert.is(info.verdict, 'learned', info.explanation);
    lab.good(lab.ioctl(3, VFIO_IOAS, { in: struct(12), out: struct(12, [4, 1]) }));
    const [ioas] = lab.world.ioases.values();
    assert.equal([ioas?.noLargePages, ioas?.unknownSince], [backend === 1, -1]);
    lab.good(lab.ioctl(4, GROUP_GET_DEVICE_FD, { in: text(PCI_DEVICE), ret: 5 }));
    lab.good(lab.ioctl(3, IOMMU_MAP_DMA, { in: mapStruct(0, 8192) }));
    // Other than a container, it lets a group go whose device is open.
    lab.good(lab.ioctl(4, GROUP_UNSET_CONTAINER));
  }
});

test('a container that says the same of a group of mediated devices is none', () => {
  const lab = new Lab().container();
  const native = struct(72, [4, 3], [8, 0xffff_ffff_ffff_f000n, 8], [16, 24], [24, 0x1_0002], [28, 56]);
  lab.ioctl(3, IOMMU_GET_INFO, { in: struct(72), out: native });
  lab.ioctl(3, IOMMU_GET_INFO, { in: struct(24), out: struct(24, [0, 72], [4, 3], [8, 0xffff_ffff_ffff_f000n, 8]) });
  assert.is(lab.world.containers.size, 1);
});

test('what was mapped before it was shown is not known', () => {
  const lab = new Lab().device();
  lab.good(lab.ioctl(3, IOMMU_MAP_DMA, { in: mapStruct(0, 8192) }));
  assert.is(lab.ioctl(3, CHECK_EXTENSION, { arg: 10, ret: 0 }).verdict, 'learned');
  assert.match(lab.ioctl(3, CHECK_EXTENSION, { arg: 4, ret: 0 }).unknown, /objects unknown/);
  assert.match(lab.unmap(0, 4096).unknown, /mappings unknown/);
  for (const space of lab.world.spaces.values()) assert.is(space.pins.size, 0);
  // Of a mediated device it tells nothing.
  const other = new Lab().container();
  other.ioctl(3, CHECK_EXTENSION, { arg: 10, ret: 0 });
  assert.is(other.world.containers.size, 1);
});

test('what stays after the last group left shows it', () => {
  const lab = new Lab().container(null);
  lab.good(lab.ioctl(4, GROUP_UNSET_CONTAINER));
  assert.is(lab.map(0x10_0000, 4096).verdict, 'learned');
  assert.is(lab.unmap(0x10_0000, 4096).verdict, 'match');
  const mapped = new Lab().container();
  mapped.good(mapped.map(0x10_0000, 4096));
  mapped.good(mapped.ioctl(4, GROUP_UNSET_CONTAINER));
  assert.match(mapped.unmap(0x10_0000, 4096).unknown, /mappings unknown/);
});

test('a group that joins later finds an iommufd', () => {
  const lab = opened();
  needsGroup(lab);
  lab.open('/dev/vfio/7', 4);
  const joined = lab.ioctl(4, GROUP_SET_CONTAINER, { in: struct(4, [0, 3]) });
  assert.is(joined.rule, 'set-container.iommufd');
  assert.is(lab.ioctl(3, SET_IOMMU, { arg: 3 }).verdict, 'match');
  assert.ok(lab.map(0x10_0000, 4096, [[8, MEMORY, 8]]).verdict === 'match');
});

test('a group that leaves while its device is open, and an UNMAP_DMA that finds nothing, show it', () => {
  const left = new Lab().device();
  assert.is(left.ioctl(4, GROUP_UNSET_CONTAINER).verdict, 'learned');
  assert.equal([left.world.containers.size, left.world.iommufds.size], [0, 1]);
  assert.is(left.ioctl(4, GROUP_UNSET_CONTAINER, { errno: 'EINVAL' }).verdict, 'match');
  const lab = new Lab().container();
  assert.match(
    lab.ioctl(3, IOMMU_UNMAP_DMA, { in: struct(24, [8, 0x10_0000, 8], [16, 4096, 8]), errno: 'ENOENT' }).unknown,
    NOT_SHOWN,
  );
  assert.is(lab.world.iommufds.size, 1);
});
