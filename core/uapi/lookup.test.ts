import * as assert from 'uvu/assert';
import { suite } from '../testing.js';
import { COMMANDS } from './commands.js';
import { commandByName, commandName, findCommand, namesOf, renderRequest, SPAPR_CONTAINER } from './lookup.js';
import { requestOfStraceName } from './strace-name.js';

const test = suite('uapi/lookup');

/** Shortest struct that Linux 7.2 accepts: offsetofend() of its last mandatory field, as the drivers compute it. */
const MINIMA: Readonly<Record<string, number>> = {
  IOMMU_DESTROY: 8,
  IOMMU_IOAS_ALLOC: 12,
  IOMMU_IOAS_MAP: 40,
  IOMMU_IOAS_UNMAP: 24,
  IOMMU_IOAS_IOVA_RANGES: 32,
  IOMMU_OPTION: 24,
  IOMMU_VFIO_IOAS: 12,
  IOMMU_HWPT_ALLOC: 24,
  IOMMU_GET_HW_INFO: 32,
  IOMMU_HWPT_GET_DIRTY_BITMAP: 48,
  IOMMU_VIOMMU_ALLOC: 24,
  IOMMU_VEVENTQ_ALLOC: 28,
  IOMMU_HW_QUEUE_ALLOC: 40,
  IOMMU_TEST_CMD: 68,
  VFIO_IOMMU_GET_INFO: 16,
  VFIO_IOMMU_MAP_DMA: 32,
  VFIO_IOMMU_UNMAP_DMA: 24,
  VFIO_IOMMU_DIRTY_PAGES: 8,
  VFIO_GROUP_GET_STATUS: 8,
  VFIO_GROUP_SET_CONTAINER: 4,
  VFIO_DEVICE_GET_INFO: 16,
  VFIO_DEVICE_GET_REGION_INFO: 32,
  VFIO_DEVICE_GET_IRQ_INFO: 16,
  VFIO_DEVICE_SET_IRQS: 20,
  VFIO_DEVICE_GET_PCI_HOT_RESET_INFO: 12,
  VFIO_DEVICE_PCI_HOT_RESET: 12,
  VFIO_DEVICE_QUERY_GFX_PLANE: 60,
  VFIO_DEVICE_IOEVENTFD: 28,
  VFIO_DEVICE_FEATURE: 8,
  VFIO_DEVICE_BIND_IOMMUFD: 16,
  VFIO_DEVICE_ATTACH_IOMMUFD_PT: 12,
  VFIO_DEVICE_DETACH_IOMMUFD_PT: 8,
  VFIO_MIG_GET_PRECOPY_INFO: 24,
  VFIO_IOMMU_SPAPR_TCE_GET_INFO: 16,
  VFIO_IOMMU_SPAPR_TCE_CREATE: 40,
  VFIO_EEH_PE_OP: 12,
  HMM_DMIRROR_SNAPSHOT: 40,
};

for (const [name, bytes] of Object.entries(MINIMA)) {
  test(`${name} needs ${bytes} bytes`, () => {
    assert.is(commandByName(name)?.minSizeBytes, bytes);
  });
}

test('each command is found by its number and name', () => {
  for (const command of COMMANDS) {
    const found = findCommand(command.spapr ? SPAPR_CONTAINER : command.kind, command.request);
    assert.is(found, command);
    assert.is(commandByName(command.name)?.request, command.request);
    assert.ok(namesOf(command.request).includes(command.name));
    assert.is(requestOfStraceName(namesOf(command.request).join(' or ')), command.request);
    assert.is(requestOfStraceName(renderRequest(command.request)), command.request);
  }
});

test('a shared number means what the file says', () => {
  const rows: readonly (readonly [kind: string, request: number, name: string])[] = [
    ['vfio-container', 0x3b70, 'VFIO_IOMMU_GET_INFO'],
    ['vfio-device', 0x3b70, 'VFIO_DEVICE_GET_PCI_HOT_RESET_INFO'],
    ['iommufd', 0x3b71, 'VFIO_IOMMU_MAP_DMA'],
    ['vfio-device', 0x3b71, 'VFIO_DEVICE_PCI_HOT_RESET'],
    ['vfio-container', 0x3b75, 'VFIO_IOMMU_DIRTY_PAGES'],
    ['vfio-device', 0x3b75, 'VFIO_DEVICE_FEATURE'],
    ['vfio-container', 0x3b76, 'VFIO_IOMMU_SPAPR_UNREGISTER_MEMORY'],
    ['vfio-device', 0x3b76, 'VFIO_DEVICE_BIND_IOMMUFD'],
    ['vfio-container', 0x3b79, 'VFIO_EEH_PE_OP'],
    ['vfio-migration', 0x3b79, 'VFIO_MIG_GET_PRECOPY_INFO'],
    ['dmirror', 0xc0284802, 'HMM_DMIRROR_MIGRATE_TO_DEV'],
    // No such command on this file.
    ['vfio-group', 0x3b71, '0x3b71'],
    ['iommufd', 0x3b95, '0x3b95'],
    ['dmirror', 0xc0284809, '_IOC(_IOC_READ|_IOC_WRITE, 0x48, 0x9, 0x28)'],
    ['dmirror', 0x80284800, '_IOC(_IOC_READ, 0x48, 0x0, 0x28)'],
    // A file of unknown kind.
    ['unknown', 0x3b71, 'VFIO_DEVICE_PCI_HOT_RESET or VFIO_IOMMU_MAP_DMA'],
    ['constructor', 0x3b85, 'IOMMU_IOAS_MAP'],
  ];
  for (const [kind, request, name] of rows) assert.is(commandName(kind, request), name, `${kind} ${request}`);
});

test('a number with a direction or size in it is another request', () => {
  assert.is(findCommand('iommufd', 0xc0003b85), undefined);
  assert.is(findCommand('iommufd', 0x00283b85), undefined);
  assert.is(findCommand('dmirror', 0x4802), undefined);
  assert.is(findCommand('toString', 0x3b85), undefined);
});
