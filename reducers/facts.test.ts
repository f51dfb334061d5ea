import * as assert from 'uvu/assert';
import { suite } from '../core/testing.js';
import { isLearnable } from './facts.js';
import { infoAnswer, Lab, struct } from './vfio/testing.js';
import { DEVICE_GET_INFO, DEVICE_GET_IRQ_INFO, DEVICE_GET_REGION_INFO, IOMMU_GET_INFO } from './vfio/uapi.js';

const test = suite('facts');

test('a key is learnable only when the table has it', () => {
  for (const key of ['vfio-device/0000:00:10.0/irq2/count', 'vfio-type1/7+9/iova_ranges', 'vfio-type1/dma_entry_limit'])
    assert.ok(isLearnable(key), key);
  for (const key of ['vfio-device/x/errno', 'vfio-type1/7/iova_ranges/more', 'else', ''])
    assert.not.ok(isLearnable(key), key);
});

test('what VFIO learned in a session is in the table', () => {
  const lab = new Lab().device();
  lab.good(lab.ioctl(3, IOMMU_GET_INFO, { in: struct(120), out: infoAnswer(65535) }));
  lab.good(lab.ioctl(5, DEVICE_GET_INFO, { in: struct(24), out: struct(24, [4, 3], [8, 9], [12, 5]) }));
  const region = struct(32, [4, 3], [16, 0x1000, 8]);
  lab.good(lab.ioctl(5, DEVICE_GET_REGION_INFO, { in: struct(32), out: region }));
  lab.good(lab.ioctl(5, DEVICE_GET_IRQ_INFO, { in: struct(16), out: struct(16, [4, 7], [12, 1]) }));
  const keys = [...lab.world.facts.keys()];
  assert.ok(keys.length >= 7);
  for (const key of keys) assert.ok(isLearnable(key), key);
});
