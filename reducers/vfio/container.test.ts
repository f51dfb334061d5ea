import * as assert from 'uvu/assert';
import { Bytes } from '../../core/bytes.js';
import { suite } from '../../core/testing.js';
import { CONTAINER_RULES as R } from './container.js';
import { checkRows, infoAnswer, Lab, MDEV, mapStruct, type Row, struct } from './testing.js';
import { INFO_RULES } from './type1/info.js';
import {
  CHECK_EXTENSION,
  GET_API_VERSION,
  GROUP_SET_CONTAINER,
  GROUP_UNSET_CONTAINER,
  IOMMU_GET_INFO,
  IOMMU_MAP_DMA,
  SET_IOMMU,
} from './uapi.js';

const test = suite('vfio container');

const set = (lab: Lab, value: number, errno: string) => lab.ioctl(3, SET_IOMMU, { arg: value, errno });
const UNKNOWN_COMMAND = 0x3b77;
const SPAPR_REGISTER_MEMORY = 0x3b75;

const rows: readonly Row[] = [
  {
    rule: R.setNoGroup,
    errno: 'EINVAL',
    run(lab, errno) {
      lab.open('/dev/vfio/vfio', 3);
      return set(lab, 3, errno);
    },
  },
  { rule: R.setTwice, errno: 'EINVAL', run: (l, e) => set(l.container(), 3, e) },
  { rule: R.setNotABackend, errno: 'EINVAL', run: (l, e) => set(l.container(null), 9, e) },
  { rule: R.setNoBackend, errno: 'ENODEV', run: (l, e) => set(l.container(null), 0, e) },
  { rule: R.setNoBackend, errno: 'ENODEV', run: (l, e) => set(l.container(null), 2, e) },
  { rule: R.setNoBackend, errno: 'ENODEV', run: (l, e) => set(l.container(null), 8, e) },
  { rule: R.setNoBackend, errno: 'ENODEV', run: (l, e) => set(l.container(null), 10, e) },
  {
    rule: R.spaprBusy,
    errno: 'EBUSY',
    run(lab, errno) {
      lab.container(null).open('/dev/vfio/8', 5);
      lab.good(lab.ioctl(5, GROUP_SET_CONTAINER, { in: struct(4, [0, 3]) }));
      lab.good(lab.ioctl(3, CHECK_EXTENSION, { arg: 7, ret: 1 }));
      return set(lab, 2, errno);
    },
  },
  { rule: R.noBackend, errno: 'EINVAL', run: (l, e) => l.container(null).ioctl(3, IOMMU_MAP_DMA, { errno: e }) },
  { rule: R.noBackend, errno: 'EINVAL', run: (l, e) => l.container(null).ioctl(3, UNKNOWN_COMMAND, { errno: e }) },
  { rule: R.notType1, errno: 'ENOTTY', run: (l, e) => l.container().ioctl(3, UNKNOWN_COMMAND, { errno: e }) },
];

test('each rejection has its errno, in the kernel order', () => checkRows(R, rows));

test('GET_INFO needs 16 bytes', () => {
  const run: Row['run'] = (lab, errno) => lab.container().ioctl(3, IOMMU_GET_INFO, { in: struct(15), errno });
  checkRows(INFO_RULES, [{ rule: INFO_RULES.argsz, errno: 'EINVAL', run }]);
});

/** Answers before a backend is set, with type1, and with type1 and a mediated device only. */
const EXTENSIONS: readonly (readonly [value: number, none: number, type1: number, mediated: number])[] = [
  [0, 0, 0, 0],
  [1, 1, 1, 1],
  [2, 0, 0, 0],
  [3, 1, 1, 1],
  [5, 0, 0, 0],
  [6, 0, 0, 0],
  [7, 0, 0, 0],
  [9, 1, 1, 1],
  [10, 0, 1, 0],
  [11, 0, 0, 0],
  [12, 0, 0, 0],
];

test('CHECK_EXTENSION answers for every value', () => {
  for (const [value, none, type1, mediated] of EXTENSIONS) {
    const ask = (lab: Lab, ret: number) => lab.ioctl(3, CHECK_EXTENSION, { arg: value, ret });
    assert.is(ask(new Lab().container(null), none).verdict, 'match', `${value} without backend`);
    assert.is(ask(new Lab().container(), type1).verdict, 'match', `${value} with type1`);
    assert.is(ask(new Lab().device(MDEV), mediated).verdict, 'match', `${value} with a mediated device`);
  }
});

test('an older kernel has nesting, and calls an overflow EINVAL', () => {
  const lab = new Lab('6.12').container(6);
  lab.good(lab.ioctl(3, CHECK_EXTENSION, { arg: 6, ret: 1 }));
  const over = mapStruct(0xffff_ffff_ffff_f000n, 0x2000);
  const answer = lab.ioctl(3, IOMMU_MAP_DMA, { in: over, errno: 'EINVAL' });
  assert.is(answer.rule, 'map-dma.iova-overflow');
  lab.good(answer);
});

test('extensions of the machine are learned once', () => {
  for (const value of [4, 8]) {
    const lab = value === 4 ? new Lab().container() : new Lab();
    if (value === 8) lab.open('/dev/vfio/vfio', 3);
    assert.is(lab.ioctl(3, CHECK_EXTENSION, { arg: value, ret: 1 }).verdict, 'learned');
    assert.is(lab.ioctl(3, CHECK_EXTENSION, { arg: value, ret: 1 }).verdict, 'match');
    assert.is(lab.ioctl(3, CHECK_EXTENSION, { arg: value, ret: 0 }).verdict, 'diverge');
  }
});

test('the API version is 0', () => {
  const lab = new Lab().container(null);
  assert.is(lab.ioctl(3, GET_API_VERSION).verdict, 'match');
  assert.is(lab.ioctl(3, GET_API_VERSION, { ret: 1 }).verdict, 'diverge');
});

test('GET_INFO: the hardware is learned, the free entries follow the mappings', () => {
  const lab = new Lab().container();
  const ask = (left: number) => lab.ioctl(3, IOMMU_GET_INFO, { in: struct(120), out: infoAnswer(left) });
  assert.is(ask(65535).verdict, 'learned');
  assert.is(ask(65535).verdict, 'match');
  lab.good(lab.map(0, 0x1000));
  assert.is(ask(65534).verdict, 'match');
  assert.is(ask(65535).verdict, 'diverge');
});

test('GET_INFO: with too little room only the size comes back', () => {
  const lab = new Lab().container();
  const small = struct(24, [4, 3], [0, 120], [8, 0x4020_1000, 8]);
  assert.is(lab.ioctl(3, IOMMU_GET_INFO, { in: struct(24), out: small }).verdict, 'learned');
  assert.is(lab.ioctl(3, IOMMU_GET_INFO, { in: struct(24), out: small }).verdict, 'match');
  assert.is(lab.ioctl(3, IOMMU_GET_INFO, { in: struct(24), out: struct(24, [4, 3]) }).verdict, 'diverge');
});

test('valid ranges that GET_INFO told decide from then on', () => {
  const lab = new Lab().container();
  lab.good(lab.ioctl(3, IOMMU_GET_INFO, { in: struct(120), out: infoAnswer(65535) }));
  lab.good(lab.ioctl(3, IOMMU_MAP_DMA, { in: struct(32, [4, 3], [16, 1n << 40n, 8], [24, 4096, 8]), errno: 'EINVAL' }));
});

test('groups that told their ranges one by one decide together', () => {
  const lab = new Lab().container();
  lab.good(lab.ioctl(3, IOMMU_GET_INFO, { in: struct(120), out: infoAnswer(65535) }));
  lab.open('/dev/vfio/8', 5);
  lab.open('/dev/vfio/vfio', 6);
  lab.good(lab.ioctl(5, GROUP_SET_CONTAINER, { in: struct(4, [0, 6]) }));
  lab.good(lab.ioctl(6, SET_IOMMU, { arg: 3 }));
  const wide = infoAnswer(65535).toUint8Array();
  wide.set([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0], 112);
  lab.good(lab.ioctl(6, IOMMU_GET_INFO, { in: struct(120), out: new Bytes(wide) }));
  const high = (fd: number, errno: string) => lab.ioctl(fd, IOMMU_MAP_DMA, { in: mapStruct(1n << 40n, 4096), errno });
  lab.good(high(6, ''));
  lab.good(lab.ioctl(5, GROUP_UNSET_CONTAINER));
  lab.good(lab.ioctl(5, GROUP_SET_CONTAINER, { in: struct(4, [0, 3]) }));
  lab.good(high(3, 'EINVAL'));
});

test('the last group takes the backend and every mapping with it', () => {
  const lab = new Lab().container();
  lab.good(lab.map(0, 0x1000));
  lab.good(lab.ioctl(4, GROUP_UNSET_CONTAINER));
  lab.good(lab.ioctl(3, IOMMU_MAP_DMA, { errno: 'EINVAL' }));
  lab.good(lab.ioctl(4, GROUP_SET_CONTAINER, { in: struct(4, [0, 3]) }));
  lab.good(lab.ioctl(3, SET_IOMMU, { arg: 3 }));
  lab.good(lab.map(0, 0x1000));
});

test('a container outlives its fd while a group is in it', () => {
  const lab = new Lab().container();
  lab.good(lab.map(0, 0x1000));
  lab.close(3);
  assert.is(lab.world.containers.size, 1);
  lab.close(4);
  assert.is(lab.world.containers.size, 0);
});

test('a container found open is unknown, and adopts what it is told', () => {
  const lab = new Lab();
  lab.foundOpen(3, '/dev/vfio/vfio');
  assert.match(lab.map(0, 0x1000).unknown, /open before the recording began/);
  lab.good(lab.ioctl(3, IOMMU_MAP_DMA, { in: struct(32, [4, 3], [24, 4096, 8]), errno: 'EEXIST' }));
  assert.match(lab.ioctl(3, SET_IOMMU, { arg: 7 }).unknown, /open before the recording began/);
  lab.good(lab.ioctl(3, IOMMU_MAP_DMA, { in: mapStruct(0, 0x1000), errno: 'EPERM' }));
});

test('a fragment from a POWER machine: SET_IOMMU 7 tells a container and its backend', () => {
  const lab = new Lab();
  lab.foundOpen(17, '');
  const first = lab.ioctl(17, SET_IOMMU, { arg: 7 });
  assert.match(first.unknown, /state of the container unknown since event/);
  assert.is(lab.ioctl(17, SPAPR_REGISTER_MEMORY).unknown, 'payload not recorded');
  const map = lab.ioctl(17, IOMMU_MAP_DMA, { in: mapStruct(0, 0x1000) });
  assert.match(map.unknown, /SPAPR_TCE_GET_INFO/);
});
