import * as assert from 'uvu/assert';
import { suite } from '../../core/testing.js';
import { kindOfPath, plainPath } from './kinds.js';

const test = suite('files/kinds');

const rows: readonly [string, string | undefined][] = [
  ['', undefined],
  ['/dev/iommu', 'iommufd'],
  ['/dev/iommu<char 10:127>', 'iommufd'],
  ['/dev/iommuX', 'other'],
  ['/dev/vfio/vfio', 'vfio-container'],
  ['/dev/vfio/vfio<char 10:196>', 'vfio-container'],
  ['/dev/vfio/13', 'vfio-group'],
  ['/dev/vfio/13<char 243:0>', 'vfio-group'],
  ['/dev/vfio/noiommu-0', 'vfio-group'],
  ['/dev/vfio/devices/vfio0', 'vfio-device'],
  ['/dev/vfio/devices/noiommu-vfio0', 'vfio-device'],
  ['/dev/vfio', 'other'],
  ['/dev/hmm_dmirror3', 'dmirror'],
  ['/dev/hmm_dmirror', 'other'],
  ['/dev/null<char 1:3>', 'other'],
  ['anon_inode:[vfio-device]', 'vfio-device'],
  ['anon_inode:[eventfd]', 'eventfd'],
  ['{eventfd-count=0, eventfd-id=1, eventfd-semaphore=0}', 'eventfd'],
  ['anon_inode:[iommufd-pgfault]', 'iommufd-fault'],
  ['anon_inode:[iommufd-viommu-event]', 'iommufd-veventq'],
  ['anon_inode:mtty_mig', 'vfio-migration'],
  ['anon_inode:mlx5vf_mig', 'vfio-migration'],
  ['anon_inode:hisi_acc_vf_mig', 'vfio-migration'],
  ['anon_inode:pds_vfio_lm', 'vfio-migration'],
  ['anon_inode:[iommufd_test_staccess]', 'iommufd-access'],
  ['anon_inode:[io_uring]', 'other'],
  ['/memfd:buffer', 'memfd'],
  ['/memfd:pc.ram (deleted)', 'memfd'],
  ['/dmabuf:', 'dma-buf'],
  ['socket:[123]', 'other'],
  ['/etc/passwd', 'other'],
];
test('what an annotation stands for', () => {
  for (const [path, kind] of rows) assert.is(kindOfPath(path), kind, path);
});

test('texts of one file are equal without their suffixes', () => {
  assert.is(plainPath('/dev/vfio/13<char 243:0>'), '/dev/vfio/13');
  assert.is(plainPath('/memfd:x (deleted)'), '/memfd:x');
  assert.is(plainPath('/tmp/a>'), '/tmp/a>');
  assert.is(plainPath('/tmp/a(b)'), '/tmp/a(b)');
});
