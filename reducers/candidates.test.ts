import * as assert from 'uvu/assert';
import { suite } from '../core/testing.js';
import type { Event } from '../core/event.js';
import { type Candidate, candidates, possibleKinds, rejections } from './candidates.js';
import { allCommandRules } from './command-rules.js';
import { Reducer } from './dispatch.js';
import { families } from './families.js';
import { DEFAULT_KERNEL, worldOf } from './profile.js';
import { allRules } from './rules.js';
import { ev, numbered } from './testing.js';
import { Tx } from './tx.js';
import { mapStruct, struct } from './vfio/testing.js';
import { GROUP_SET_CONTAINER, IOMMU_MAP_DMA, IOMMU_UNMAP_DMA, SET_IOMMU } from './vfio/uapi.js';

const test = suite('candidates');
const ARG = 0x7ffd_0000_1000;

/** The call of the last event, after all of them were reduced. */
function callOf(events: readonly Event[], release = DEFAULT_KERNEL) {
  const reducer = new Reducer(families);
  const tx = new Tx(worldOf(release));
  for (const event of numbered(events)) reducer.reduce(tx, event);
  return reducer.call;
}

function failing(fd: number, request: number, errno: string, path = ''): Event {
  return ev('ioctl', { fd, path, request, arg: ARG, ret: -1, errno });
}

const ids = (list: readonly Candidate[] | undefined): string[] => (list ?? []).map(({ rule }) => rule.id);

const open = (path: string, ret: number): Event => ev('open', { path, flags: 2, ret, retPath: path });

function container(backend: number): Event[] {
  const group = [{ addr: ARG, bytes: struct(4, [0, 3]) }];
  return [
    ev('exec'),
    open('/dev/vfio/vfio', 3),
    open('/dev/vfio/7', 4),
    ev('ioctl', { fd: 4, request: GROUP_SET_CONTAINER, arg: ARG, memIn: group, memOut: group }),
    ev('ioctl', { fd: 3, request: SET_IOMMU, arg: backend }),
  ];
}

test('every rejection belongs to a command, but for those of reads and writes', () => {
  const known = allCommandRules();
  const isKnown = (id: string): boolean =>
    known.some((one) => id === one || ((one.endsWith('.') || one.endsWith('-')) && id.startsWith(one)));
  const alone = allRules().filter(({ id, errno }) => errno !== '' && !isKnown(id));
  assert.equal(
    alone.filter(({ id }) => !/-(?:read|write|io)\./.test(id)).map(({ id }) => id),
    [],
  );
  for (const one of known)
    assert.ok(
      allRules().some(({ id }) => id.startsWith(one)),
      `no rule has the id ${one}`,
    );
});

test('rules come in the kernel order, and each once', () => {
  const map = rejections('vfio-container', 'VFIO_IOMMU_MAP_DMA').map(({ id }) => id);
  assert.equal(map.slice(0, 5), [
    'container.no-backend',
    'container.unknown-command',
    'vfio.copy-in',
    'map-dma.argsz',
    'map-dma.flags',
  ]);
  assert.is(new Set(map).size, map.length);
  assert.equal(
    rejections('iommufd', '0x3b7f').map(({ id }) => id),
    ['common.number', 'compat.number'],
  );
});

test('an error tells kinds of file apart', () => {
  const exists = callOf([failing(9, IOMMU_MAP_DMA, 'EEXIST')]);
  assert.equal(possibleKinds(exists), ['vfio-container', 'iommufd']);
  assert.equal(ids(candidates(exists)), ['map-dma.overlap', 'iova.exists']);
  assert.equal(possibleKinds(callOf([failing(9, IOMMU_MAP_DMA, 'ENOSPC')])), ['vfio-container']);
  const strange = callOf([failing(9, IOMMU_MAP_DMA, 'EXDEV')]);
  assert.equal(possibleKinds(strange), ['vfio-container', 'iommufd', 'vfio-device']);
  assert.equal(candidates(strange), []);
});

test('what is known of a container excludes rules', () => {
  const found = callOf([failing(3, IOMMU_UNMAP_DMA, 'EINVAL', '/dev/vfio/vfio')]);
  assert.ok(ids(candidates(found)).includes('container.no-backend'));
  assert.ok(ids(candidates(found)).includes('unmap-dma.cuts-first'));
  const empty = callOf([...container(3), failing(3, IOMMU_UNMAP_DMA, 'EINVAL')]);
  assert.is(ids(candidates(empty)).includes('container.no-backend'), false);
  assert.is(ids(candidates(empty)).includes('unmap-dma.cuts-first'), false);
  assert.ok(ids(candidates(empty)).includes('unmap-dma.iova-aligned'));
  const mapped = ev('ioctl', { fd: 3, request: IOMMU_MAP_DMA, arg: ARG });
  const v2 = callOf([...container(3), mapped, failing(3, IOMMU_UNMAP_DMA, 'EINVAL')]);
  assert.ok(ids(candidates(v2)).includes('unmap-dma.cuts-first'));
  const v1 = callOf([...container(1), mapped, failing(3, IOMMU_UNMAP_DMA, 'EINVAL')]);
  assert.is(ids(candidates(v1)).includes('unmap-dma.cuts-first'), false);
  assert.equal(ids(candidates(callOf([...container(3), failing(3, IOMMU_MAP_DMA, 'ENOSPC')]))), []);
});

test('what is known of an iommufd excludes rules', () => {
  const start = [ev('exec'), open('/dev/iommu', 3)];
  assert.equal(ids(candidates(callOf([...start, failing(3, 0x3b85, 'EFAULT')]))), ['common.fault']);
  assert.equal(ids(candidates(callOf([...start, failing(3, 0x3b86, 'ENOENT')]))), ['unmap.ioas', 'unmap.none']);
  assert.equal(ids(candidates(callOf([failing(3, 0x3b86, 'ENOENT', '/dev/iommu')]))), [
    'unmap.ioas',
    'unmap.part',
    'unmap.none',
  ]);
});

test('the error of some rules depends on the release', () => {
  const overflow = [failing(3, IOMMU_MAP_DMA, 'EOVERFLOW', '/dev/vfio/vfio')];
  assert.equal(ids(candidates(callOf(overflow))), ['map-dma.iova-overflow', 'map-dma.vaddr-overflow']);
  assert.equal(ids(candidates(callOf(overflow, '6.12'))), []);
});

test('nothing is asked of a call that succeeded, or whose argument was recorded', () => {
  assert.is(candidates(callOf([ev('ioctl', { fd: 3, path: '/dev/vfio/vfio', request: IOMMU_MAP_DMA })])), undefined);
  const notes = [{ addr: ARG, bytes: mapStruct(0, 0x1000) }];
  const whole = { ...failing(3, IOMMU_MAP_DMA, 'EEXIST', '/dev/vfio/vfio'), memIn: notes, memOut: notes };
  assert.is(candidates(callOf([whole])), undefined);
});
