import * as assert from 'uvu/assert';
import { suite } from '../core/testing.js';
import type { Event } from '../core/event.js';
import { ev, numbered } from '../reducers/testing.js';
import { MEMORY, mapStruct, struct } from '../reducers/vfio/testing.js';
import {
  GROUP_SET_CONTAINER,
  GROUP_UNSET_CONTAINER,
  IOMMU_MAP_DMA,
  IOMMU_UNMAP_DMA,
  SET_IOMMU,
} from '../reducers/vfio/uapi.js';
import { histories } from './look-back.js';
import { replay } from './report.js';
import { memoryRecording } from './testing.js';

const test = suite('history of failures');
const ARG = 0x10_0000;

const open = (path: string, ret: number): Event => ev('open', { path, flags: 2, ret, retPath: path });

function ioctl(
  fd: number,
  request: number,
  bytes: ReturnType<typeof struct> | undefined,
  errno = '',
  arg = ARG,
): Event {
  const notes = bytes === undefined ? [] : [{ addr: arg, bytes }];
  const ret = errno === '' ? 0 : -1;
  return ev('ioctl', { fd, request, arg, memIn: notes, memOut: notes, ret, errno });
}

const PROCESS: readonly Event[] = [
  ev('exec'),
  ev('brk', { ret: 0x5555_0000_0000 }),
  ev('mmap', { lengthBytes: 64 << 20, ret: MEMORY }),
];

const CONTAINER: readonly Event[] = [
  ...PROCESS,
  open('/dev/vfio/vfio', 3),
  open('/dev/vfio/7', 4),
  ioctl(4, GROUP_SET_CONTAINER, struct(4, [0, 3])),
  ev('ioctl', { fd: 3, request: SET_IOMMU, arg: 3 }),
];

const MAP = 0x3b85;
const UNMAP = 0x3b86;
const DESTROY = 0x3b80;
const ioasMap = (iova: number, length: number): ReturnType<typeof struct> =>
  struct(40, [4, 7], [8, 1], [16, MEMORY, 8], [24, length, 8], [32, iova, 8]);
const ioasUnmap = (iova: number, length: number): ReturnType<typeof struct> =>
  struct(24, [4, 1], [8, iova, 8], [16, length, 8]);

const IOMMUFD: readonly Event[] = [
  ...PROCESS,
  open('/dev/iommu', 3),
  ev('ioctl', {
    fd: 3,
    request: 0x3b81,
    arg: ARG,
    memIn: [{ addr: ARG, bytes: struct(12) }],
    memOut: [{ addr: ARG, bytes: struct(12, [8, 1]) }],
  }),
];

/** The history of the last call of a recording, which fails. */
async function told(events: readonly Event[]): Promise<string> {
  const all = numbered(events);
  const report = await replay(memoryRecording(all));
  assert.equal(report.divergences, []);
  const failure = report.failures.at(-1);
  assert.is(failure?.seq, all.length - 1);
  const texts = await histories(report.failures, async () => memoryRecording(all));
  return texts.get(all.length - 1) ?? '';
}

test('who unmapped the memory that cannot be pinned', async () => {
  const gone = ev('munmap', { addr: MEMORY + 0x1000, lengthBytes: 0x1000 });
  const map = ioctl(3, IOMMU_MAP_DMA, mapStruct(0, 0x4000), 'EFAULT');
  assert.is(await told([...CONTAINER, gone, map]), 'event 7 unmapped it');
  const rights = ev('mprotect', { addr: MEMORY, lengthBytes: 0x2000, prot: 1 });
  assert.is(await told([...CONTAINER, rights, map]), 'event 7 changed its rights');
  const elsewhere = ev('munmap', { addr: MEMORY + 0x2000, lengthBytes: 0x1000 });
  assert.is(await told([...CONTAINER, gone, elsewhere, map]), 'event 7 unmapped it');
  const again = ev('mmap', { addr: MEMORY + 0x1000, lengthBytes: 0x1000, prot: 0, flags: 0x32, ret: MEMORY + 0x1000 });
  assert.is(await told([...CONTAINER, gone, again, map]), '');
});

test('who unmapped an IOVA, or why it never was mapped', async () => {
  const unmap = ioctl(3, UNMAP, ioasUnmap(0x4000, 0x1000), 'ENOENT');
  const start = [...IOMMUFD, ioctl(3, MAP, ioasMap(0x4000, 0x1000))];
  assert.is(await told([...start, ioctl(3, UNMAP, ioasUnmap(0x4000, 0x1000)), unmap]), 'event 6 unmapped it');
  assert.is(await told([...IOMMUFD, unmap]), 'no call of the recording mapped it before');
  const failing = ioctl(3, MAP, ioasMap(0x3001, 0), 'EINVAL');
  const overlap = ioctl(3, MAP, ioasMap(0x8000, 0x2000), 'EEXIST');
  const other = [...IOMMUFD, ioctl(3, MAP, ioasMap(0x9000, 0x1000)), failing, overlap];
  assert.is(
    await told([...other, ioctl(3, UNMAP, ioasUnmap(0x8000, 0x1000), 'ENOENT')]),
    'event 7 would have mapped it and failed with EEXIST',
  );
});

test('who should have unmapped what is still in the way', async () => {
  const start = [...IOMMUFD, ioctl(3, MAP, ioasMap(0x4000, 0x2000))];
  const again = ioctl(3, MAP, ioasMap(0x4000, 0x2000), 'EEXIST');
  assert.is(await told([...start, again]), '');
  const part = ioctl(3, UNMAP, ioasUnmap(0x4000, 0x1000), 'ENOENT');
  assert.is(await told([...start, part, again]), 'event 6 would have unmapped it and failed with ENOENT');
  assert.is(await told([...start, again, again]), '', 'another MAP that met it is no news');
  assert.is(await told([...start, part, again, again]), 'event 6 would have unmapped it and failed with ENOENT');
  const v1 = CONTAINER.map((event) =>
    event.kind === 'ioctl' && event.request === SET_IOMMU ? { ...event, arg: 1 } : event,
  );
  const unmapped = (size: number): ReturnType<typeof struct> => struct(24, [8, 0x1000, 8], [16, size, 8]);
  const notes = { memIn: [{ addr: ARG, bytes: unmapped(0x1000) }], memOut: [{ addr: ARG, bytes: unmapped(0) }] };
  const silent = ev('ioctl', { fd: 3, request: IOMMU_UNMAP_DMA, arg: ARG, ...notes });
  const map = (errno = ''): Event => ioctl(3, IOMMU_MAP_DMA, mapStruct(0, 0x2000), errno);
  assert.is(await told([...v1, map(), silent, map('EEXIST')]), 'event 8 would have unmapped it, and nothing went');
});

test('who destroyed an object, and who took the backend away', async () => {
  const gone = ioctl(3, DESTROY, struct(8, [4, 1]));
  const map = ioctl(3, MAP, ioasMap(0x4000, 0x1000), 'ENOENT');
  assert.is(await told([...IOMMUFD, gone, map]), 'event 5 destroyed it');
  const leave = ev('ioctl', { fd: 4, request: GROUP_UNSET_CONTAINER });
  assert.is(
    await told([...CONTAINER, leave, ioctl(3, IOMMU_MAP_DMA, mapStruct(0, 0x1000), 'EINVAL')]),
    'event 7 took the last group out of it, and with it the backend and all mappings',
  );
});

test('nothing is read again where nothing was asked', async () => {
  const report = await replay(memoryRecording(numbered(CONTAINER)));
  const open = (): Promise<never> => Promise.reject(new Error('it was opened'));
  assert.is((await histories(report.failures, open)).size, 0);
});
