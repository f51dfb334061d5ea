import * as assert from 'uvu/assert';
import { suite } from '../../../core/testing.js';
import type { U64 } from '../../../core/u64.js';
import { ev } from '../../testing.js';
import { type Answer, checkRows, type FieldAt, Lab, MEMORY, type Row, struct } from '../testing.js';
import {
  CHECK_EXTENSION,
  GROUP_SET_CONTAINER,
  IOMMU_DISABLE,
  IOMMU_EEH_PE_OP,
  IOMMU_ENABLE,
  IOMMU_GET_INFO,
  IOMMU_MAP_DMA,
  IOMMU_SPAPR_REGISTER_MEMORY,
  IOMMU_SPAPR_TCE_CREATE,
  IOMMU_SPAPR_TCE_REMOVE,
  IOMMU_SPAPR_UNREGISTER_MEMORY,
  IOMMU_UNMAP_DMA,
  SET_IOMMU,
} from '../uapi.js';
import { SPAPR_MEMORY_RULES as M } from './memory.js';
import { SPAPR_RULES as R } from './spapr.js';
import { SPAPR_WINDOW_RULES as W } from './windows.js';

const test = suite('vfio spapr');

const V1 = 2;
const V2 = 7;
const WINDOW_BYTES = 1 << 30;

/** A container of a POWER machine, with one group. */
function power(lab: Lab, version: number): Lab {
  lab.container(null);
  assert.is(lab.ioctl(3, SET_IOMMU, { arg: version }).verdict, 'learned');
  return lab;
}

const INFO: readonly FieldAt[] = [
  [8, 0],
  [12, WINDOW_BYTES],
];
const DYNAMIC: readonly FieldAt[] = [
  [4, 1],
  [16, 0x100_1000, 8],
  [24, 2],
  [28, 5],
];

/** {@link power}, whose window GET_INFO has told. */
function told(lab: Lab, version: number): Lab {
  const fields = version === V2 ? [...INFO, ...DYNAMIC] : INFO;
  power(lab, version).good(lab.ioctl(3, IOMMU_GET_INFO, { in: struct(32), out: struct(32, ...fields) }));
  return lab;
}

function enabled(lab: Lab): Lab {
  told(lab, V1).good(lab.ioctl(3, IOMMU_ENABLE));
  return lab;
}

const region = (vaddr: U64, size: U64, ...more: readonly FieldAt[]) =>
  struct(24, [8, vaddr, 8], [16, size, 8], ...more);
const register = (lab: Lab, vaddr: U64, size: U64, errno = '', fd = 3) =>
  lab.ioctl(fd, IOMMU_SPAPR_REGISTER_MEMORY, { in: region(vaddr, size), errno });
const unregister = (lab: Lab, vaddr: U64, size: U64, errno = '') =>
  lab.ioctl(3, IOMMU_SPAPR_UNREGISTER_MEMORY, { in: region(vaddr, size), errno });

function registered(lab: Lab): Lab {
  told(lab, V2).good(register(lab, MEMORY, 0x10_0000));
  return lab;
}

const map = (lab: Lab, errno: string, ...fields: readonly FieldAt[]) =>
  lab.ioctl(3, IOMMU_MAP_DMA, { in: struct(32, [4, 3], [8, MEMORY, 8], [24, 0x1000, 8], ...fields), errno });
const unmap = (lab: Lab, errno: string, ...fields: readonly FieldAt[]) =>
  lab.ioctl(3, IOMMU_UNMAP_DMA, { in: struct(24, [16, 0x1000, 8], ...fields), errno });
const create = (lab: Lab, errno: string, ...fields: readonly FieldAt[]) =>
  lab.ioctl(3, IOMMU_SPAPR_TCE_CREATE, { in: struct(40, [8, 12], [16, 1 << 30, 8], ...fields), errno });
const remove = (lab: Lab, start: U64, errno: string, ...fields: readonly FieldAt[]) =>
  lab.ioctl(3, IOMMU_SPAPR_TCE_REMOVE, { in: struct(16, [8, start, 8], ...fields), errno });
const eeh = (lab: Lab, errno: string, ...fields: readonly FieldAt[]) =>
  lab.ioctl(3, IOMMU_EEH_PE_OP, { in: struct(40, ...fields), errno });

function withEeh(lab: Lab, ret: number): Lab {
  power(lab, V2).good(lab.ioctl(3, CHECK_EXTENSION, { arg: 5, ret }));
  return lab;
}

/** The second call comes from a child, which has an address space of its own. */
function inChild(lab: Lab, request: number, errno: string): Answer {
  lab.feed(ev('fork', { ret: 2, flags: 17 }));
  return lab.ioctl(3, request, { in: region(MEMORY, 0x1000), errno, pid: 2 });
}

const rows: readonly Row[] = [
  { rule: R.otherSpace, errno: 'EPERM', run: (l, e) => inChild(enabled(l), IOMMU_DISABLE, e) },
  { rule: R.otherSpace, errno: 'EPERM', run: (l, e) => inChild(registered(l), IOMMU_SPAPR_REGISTER_MEMORY, e) },
  { rule: R.unknownCommand, errno: 'ENOTTY', run: (l, e) => register(power(l, V1), MEMORY, 0x1000, e) },
  { rule: R.unknownCommand, errno: 'ENOTTY', run: (l, e) => power(l, V2).ioctl(3, IOMMU_ENABLE, { errno: e }) },
  { rule: R.unknownCommand, errno: 'ENOTTY', run: (l, e) => power(l, V2).ioctl(3, 0x3b7a, { errno: e }) },
  {
    rule: R.infoArgsz,
    errno: 'EINVAL',
    run: (l, e) => power(l, V2).ioctl(3, IOMMU_GET_INFO, { in: struct(16, [0, 15]), errno: e }),
  },
  { rule: R.enabled, errno: 'EBUSY', run: (l, e) => enabled(l).ioctl(3, IOMMU_ENABLE, { errno: e }) },
  {
    rule: R.noWindow,
    errno: 'EPERM',
    run(lab, errno) {
      power(lab, V1).good(lab.ioctl(3, IOMMU_GET_INFO, { in: struct(32), out: struct(32) }));
      return lab.ioctl(3, IOMMU_ENABLE, { errno });
    },
  },
  { rule: R.noEeh, errno: 'ENODEV', run: (l, e) => eeh(withEeh(l, 0), e) },
  { rule: R.eehArgsz, errno: 'EINVAL', run: (l, e) => eeh(withEeh(l, 1), e, [0, 11]) },
  { rule: R.eehArgsz, errno: 'EINVAL', run: (l, e) => eeh(withEeh(l, 1), e, [4, 1]) },
  { rule: R.eehArgsz, errno: 'EINVAL', run: (l, e) => eeh(withEeh(l, 1), e, [0, 39], [8, 9]) },
  { rule: R.eehOp, errno: 'EINVAL', run: (l, e) => eeh(withEeh(l, 1), e, [8, 10]) },
];

const memoryRows: readonly Row[] = [
  { rule: M.noSpace, errno: 'EPERM', run: (l, e) => unregister(power(l, V2), MEMORY, 0x1000, e) },
  {
    rule: M.argsz,
    errno: 'EINVAL',
    run: (l, e) =>
      power(l, V2).ioctl(3, IOMMU_SPAPR_REGISTER_MEMORY, { in: region(MEMORY, 0x1000, [0, 23]), errno: e }),
  },
  {
    rule: M.argsz,
    errno: 'EINVAL',
    run: (l, e) => power(l, V2).ioctl(3, IOMMU_SPAPR_REGISTER_MEMORY, { in: region(MEMORY, 1, [4, 1]), errno: e }),
  },
  { rule: M.aligned, errno: 'EINVAL', run: (l, e) => register(power(l, V2), MEMORY + 1, 0x1_0000, e) },
  { rule: M.aligned, errno: 'EINVAL', run: (l, e) => register(power(l, V2), 0xffff_ffff_ffff_0000n, 0x2_0000, e) },
  { rule: M.again, errno: 'EBUSY', run: (l, e) => register(registered(l), MEMORY, 0x10_0000, e) },
  { rule: M.empty, errno: 'ENOMEM', run: (l, e) => register(power(l, V2), MEMORY, 0, e) },
  { rule: M.pin, errno: 'EFAULT', run: (l, e) => register(power(l, V2), 0x1_0000, 0x1_0000, e) },
  { rule: M.overlap, errno: 'EINVAL', run: (l, e) => register(registered(l), MEMORY + 0x1_0000, 0x10_0000, e) },
  { rule: M.missing, errno: 'ENOENT', run: (l, e) => unregister(registered(l), MEMORY, 0x1_0000, e) },
];

const windowRows: readonly Row[] = [
  { rule: W.disabled, errno: 'EPERM', run: (l, e) => map(told(l, V1), e) },
  { rule: W.disabled, errno: 'EPERM', run: (l, e) => unmap(told(l, V2), e) },
  { rule: W.argsz, errno: 'EINVAL', run: (l, e) => map(enabled(l), e, [0, 31]) },
  { rule: W.argsz, errno: 'EINVAL', run: (l, e) => map(enabled(l), e, [4, 7]) },
  { rule: W.argsz, errno: 'EINVAL', run: (l, e) => unmap(enabled(l), e, [4, 2]) },
  { rule: W.noWindow, errno: 'ENXIO', run: (l, e) => map(enabled(l), e, [16, WINDOW_BYTES, 8]) },
  { rule: W.noWindow, errno: 'ENXIO', run: (l, e) => unmap(enabled(l), e, [8, WINDOW_BYTES, 8]) },
  { rule: W.aligned, errno: 'EINVAL', run: (l, e) => map(enabled(l), e, [8, MEMORY + 1, 8]) },
  { rule: W.aligned, errno: 'EINVAL', run: (l, e) => unmap(enabled(l), e, [16, 0x800, 8]) },
  { rule: W.access, errno: 'EINVAL', run: (l, e) => map(enabled(l), e, [4, 0]) },
  { rule: W.pin, errno: 'EFAULT', run: (l, e) => map(enabled(l), e, [8, 0x1_0000, 8]) },
  { rule: W.registered, errno: 'EINVAL', run: (l, e) => map(registered(l), e, [8, MEMORY + 0x20_0000, 8]) },
  { rule: W.createArgsz, errno: 'EINVAL', run: (l, e) => create(told(l, V2), e, [0, 39]) },
  { rule: W.createArgsz, errno: 'EINVAL', run: (l, e) => create(told(l, V2), e, [4, 1]) },
  {
    rule: W.full,
    errno: 'ENOSPC',
    run(lab, errno) {
      assert.is(create(told(lab, V2), '').verdict, 'unknown');
      return create(lab, errno);
    },
  },
  { rule: W.pageShift, errno: 'EINVAL', run: (l, e) => create(told(l, V2), e, [8, 16]) },
  { rule: W.removeArgsz, errno: 'EINVAL', run: (l, e) => remove(told(l, V2), 0, e, [0, 15]) },
  { rule: W.removeArgsz, errno: 'EINVAL', run: (l, e) => remove(told(l, V2), 0, e, [4, 1]) },
  { rule: W.removeNone, errno: 'EINVAL', run: (l, e) => remove(told(l, V2), 1n << 59n, e) },
];

test('rejections', () => checkRows(R, rows));
test('rejections of memory', () => checkRows(M, memoryRows));
test('rejections of windows', () => checkRows(W, windowRows));

test('an answer shows a kernel for POWER machines, which has no type1', () => {
  const lab = new Lab().container(null);
  const ask = (arg: number, ret: number) => lab.ioctl(3, CHECK_EXTENSION, { arg, ret }).verdict;
  assert.is(ask(3, 0), 'learned');
  assert.is(ask(1, 0), 'match');
  assert.is(ask(7, 1), 'learned');
  assert.equal([ask(2, 1), ask(9, 0), ask(2, 0)], ['match', 'match', 'diverge']);
  lab.good(lab.ioctl(3, SET_IOMMU, { arg: 3, errno: 'ENODEV' }));
  lab.good(lab.ioctl(3, SET_IOMMU, { arg: 2 }));
  assert.equal([ask(7, 1), ask(1, 0)], ['match', 'match']);
});

test('v1: what GET_INFO told holds, and the window is mapped while the container is enabled', () => {
  const lab = enabled(new Lab());
  const info = (size: number) => lab.ioctl(3, IOMMU_GET_INFO, { in: struct(32), out: struct(32, [12, size]) }).verdict;
  assert.equal([info(WINDOW_BYTES), info(4096)], ['match', 'diverge']);
  lab.good(map(lab, ''));
  lab.good(map(lab, ''));
  lab.good(unmap(lab, ''));
  lab.good(lab.ioctl(3, IOMMU_DISABLE));
  lab.good(map(lab, 'EPERM'));
  lab.open('/dev/vfio/8', 5);
  lab.good(lab.ioctl(5, GROUP_SET_CONTAINER, { in: struct(4, [0, 3]), errno: 'EBUSY' }));
});

test('an IOVA that is not aligned makes the call return 1', () => {
  const lab = enabled(new Lab());
  const at = (request: number, bytes: number, ...fields: readonly FieldAt[]) =>
    lab.ioctl(3, request, { in: struct(bytes, ...fields), ret: 1 }).verdict;
  assert.is(at(IOMMU_MAP_DMA, 32, [4, 3], [8, MEMORY, 8], [16, 0x800, 8], [24, 0x1000, 8]), 'match');
  assert.is(at(IOMMU_UNMAP_DMA, 24, [8, WINDOW_BYTES - 0x1000, 8], [16, 0x2000, 8]), 'match');
});

test('v2: registered memory is mapped; regions are shared by the containers of an address space', () => {
  const lab = registered(new Lab());
  lab.good(map(lab, '', [24, 0x10_0000, 8]));
  lab.open('/dev/vfio/vfio', 6);
  lab.open('/dev/vfio/8', 7);
  lab.good(lab.ioctl(7, GROUP_SET_CONTAINER, { in: struct(4, [0, 6]) }));
  lab.good(lab.ioctl(6, SET_IOMMU, { arg: 7 }));
  lab.good(register(lab, MEMORY, 0x10_0000, '', 6));
  lab.good(unregister(lab, MEMORY, 0x10_0000));
  lab.good(unregister(lab, MEMORY, 0x10_0000, 'ENOENT'));
  assert.is(register(lab, MEMORY + 0x20_1000, 0x1000).verdict, 'unknown');
});

test('v2: windows come and go; the default one is made by the first call that needs it', () => {
  const lab = registered(new Lab());
  const made = struct(40, [8, 24], [16, 2 ** 40, 8], [32, 1n << 59n, 8]);
  const ask = struct(40, [8, 24], [16, 2 ** 40, 8]);
  assert.is(lab.ioctl(3, IOMMU_SPAPR_TCE_CREATE, { in: ask, out: made }).verdict, 'unknown');
  lab.good(map(lab, ''));
  lab.good(map(lab, 'EINVAL', [16, 1n << 59n, 8]));
  lab.good(remove(lab, 0, ''));
  lab.good(map(lab, 'ENXIO'));
  lab.good(remove(lab, 1n << 59n, ''));
  const waived = registered(new Lab());
  waived.good(remove(waived, 0, ''));
  waived.good(map(waived, 'ENXIO'));
});

test('what nobody told is unknown, and says how to tell', () => {
  const lab = power(new Lab(), V1);
  lab.good(lab.ioctl(3, IOMMU_ENABLE));
  assert.match(map(lab, '').unknown, /SPAPR_TCE_GET_INFO/);
  assert.match(eeh(lab, '').unknown, /VFIO_EEH/);
});
