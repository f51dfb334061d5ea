import * as assert from 'uvu/assert';
import type { IoctlEvent } from '../../core/event.js';
import { suite } from '../../core/testing.js';
import { formatCall } from '../../core/uapi/format.js';
import { fixture, parse } from './testing.js';

const test = suite('recordings of docs/recorders/annotate.c');

/** Made by fixtures/make-annotated.mjs: a program that makes five ioctls on a file that refuses them. */
const { events, codes } = parse(fixture('annotated.strace'));
const ioctls = events.filter((event): event is IoctlEvent => event.kind === 'ioctl');

test('every struct is there, before and after its ioctl', () => {
  assert.equal(codes, []);
  const kinds = ['vfio-container', 'vfio-container', 'vfio-group', 'iommufd', 'vfio-container'];
  const text = (event: IoctlEvent, index: number, after: boolean): string =>
    formatCall(kinds[index] ?? '', event.request, event.arg, after ? event.memOut : event.memIn);
  const expected = [
    'VFIO_SET_IOMMU TYPE1v2_IOMMU',
    'VFIO_IOMMU_MAP_DMA {flags=READ|WRITE, vaddr=0x7f0000000000, iova=0x10000, size=0x2000}',
    'VFIO_GROUP_GET_DEVICE_FD "0000:00:10.0"',
    'IOMMU_IOAS_ALLOW_IOVAS {ioas_id=1, num_iovas=1, allowed_iovas=ADDRESS->[{start=0x1000, last=0x1fff}]}',
    'VFIO_IOMMU_MAP_DMA 0x0 {?}',
  ];
  for (const after of [false, true])
    assert.equal(
      ioctls.map((event, index) => text(event, index, after).replace(/0x7ff\w+->/, 'ADDRESS->')),
      expected,
    );
});
