// Modules of a family import their family's table and it imports them: entered from here, they find it made.
import './families.js';
import { ACCESS_TEST_RULES } from './devices/mock-access.js';
import { CHECK_RULES } from './devices/mock-check.js';
import { DEVICE_TEST_RULES } from './devices/mock-device.js';
import { DIRTY_TEST_RULES } from './devices/mock-dirty.js';
import { DMABUF_RULES } from './devices/mock-dmabuf.js';
import { MOCK_RULES } from './devices/mock-domain.js';
import { EVENT_TEST_RULES } from './devices/mock-events.js';
import { TEST_RULES } from './devices/mock-test.js';
import { DMIRROR_RULES } from './hmm/rules.js';
import { ACCESS_RULES } from './iommufd/access.js';
import { ATTACH_RULES } from './iommufd/attach-hwpt.js';
import { DEVICE_RULES as IOMMUFD_DEVICE_RULES } from './iommufd/attach.js';
import { CHANGE_PROCESS_RULES } from './iommufd/change-process.js';
import { CHARGE_RULES } from './iommufd/charges.js';
import { COMPAT_RULES } from './iommufd/compat.js';
import { DESTROY_RULES } from './iommufd/destroy.js';
import { DIRTY_RULES as IOMMUFD_DIRTY_RULES } from './iommufd/dirty.js';
import { DOMAIN_RULES } from './iommufd/domain.js';
import { EVENTQ_RULES } from './iommufd/eventq.js';
import { HW_QUEUE_RULES } from './iommufd/hw-queue.js';
import { HW_INFO_RULES } from './iommufd/hwinfo.js';
import { HWPT_RULES } from './iommufd/hwpt.js';
import { COMMON_RULES } from './iommufd/index.js';
import { IOMMUFD_RULES } from './iommufd/index.js';
import { INVALIDATE_RULES } from './iommufd/invalidate.js';
import { IOAS_RULES } from './iommufd/ioas.js';
import { IOPT_RULES } from './iommufd/iopt.js';
import { MAP_FILE_RULES } from './iommufd/map-file.js';
import { MAP_RULES as IOMMUFD_MAP_RULES } from './iommufd/map.js';
import { OPTION_RULES } from './iommufd/option.js';
import { PAGES_RULES } from './iommufd/pages.js';
import { VIOMMU_RULES } from './iommufd/viommu.js';
import { CONTAINER_RULES } from './vfio/container.js';
import { CDEV_RULES } from './vfio/device/cdev.js';
import { DEVICE_RULES as VFIO_DEVICE_RULES } from './vfio/device/device.js';
import { DISPLAY_RULES } from './vfio/device/display.js';
import { DMA_BUF_RULES } from './vfio/device/feature-dmabuf.js';
import { LOGGING_RULES } from './vfio/device/feature-logging.js';
import { FEATURE_RULES } from './vfio/device/feature.js';
import { HOT_RESET_RULES } from './vfio/device/hot-reset.js';
import { DEVICE_INFO_RULES } from './vfio/device/info.js';
import { IOEVENTFD_RULES } from './vfio/device/ioeventfd.js';
import { IRQ_INFO_RULES } from './vfio/device/irq-info.js';
import { MIG_STATE_RULES } from './vfio/device/migration.js';
import { REGION_RULES } from './vfio/device/region.js';
import { REGION_IO_RULES } from './vfio/device/region-io.js';
import { SET_IRQS_RULES } from './vfio/device/irq-request.js';
import { EMULATED_RULES } from './vfio/emulated.js';
import { DEVICE_FD_RULES } from './vfio/group-device.js';
import { GROUP_RULES } from './vfio/group.js';
import { MIGRATION_FILE_RULES } from './vfio/migration-file.js';
import { PAYLOAD_RULES } from './vfio/payload.js';
import { SPAPR_MEMORY_RULES } from './vfio/spapr/memory.js';
import { SPAPR_RULES } from './vfio/spapr/spapr.js';
import { SPAPR_WINDOW_RULES } from './vfio/spapr/windows.js';
import { DIRTY_RULES as VFIO_DIRTY_RULES } from './vfio/type1/dirty.js';
import { INFO_RULES } from './vfio/type1/info.js';
import { MAP_RULES as VFIO_MAP_RULES } from './vfio/type1/map.js';
import { UNMAP_RULES } from './vfio/type1/unmap.js';
import type { Rule } from './iommufd/rules.js';

/** All rules of the model by their ids: what a reader of a divergence is told. A test holds the list complete. */
const TABLES: readonly (readonly Rule[] | Readonly<Record<string, Rule>>)[] = [
  ACCESS_TEST_RULES,
  CHECK_RULES,
  DEVICE_TEST_RULES,
  DIRTY_TEST_RULES,
  DMABUF_RULES,
  MOCK_RULES,
  EVENT_TEST_RULES,
  TEST_RULES,
  DMIRROR_RULES,
  ACCESS_RULES,
  ATTACH_RULES,
  IOMMUFD_DEVICE_RULES,
  COMPAT_RULES,
  DESTROY_RULES,
  IOMMUFD_DIRTY_RULES,
  DOMAIN_RULES,
  EVENTQ_RULES,
  HW_QUEUE_RULES,
  HW_INFO_RULES,
  HWPT_RULES,
  COMMON_RULES,
  IOMMUFD_RULES,
  INVALIDATE_RULES,
  IOAS_RULES,
  IOPT_RULES,
  MAP_FILE_RULES,
  IOMMUFD_MAP_RULES,
  OPTION_RULES,
  CHANGE_PROCESS_RULES,
  PAGES_RULES,
  CHARGE_RULES,
  VIOMMU_RULES,
  CONTAINER_RULES,
  PAYLOAD_RULES,
  SPAPR_RULES,
  SPAPR_MEMORY_RULES,
  SPAPR_WINDOW_RULES,
  CDEV_RULES,
  VFIO_DEVICE_RULES,
  DISPLAY_RULES,
  DMA_BUF_RULES,
  LOGGING_RULES,
  FEATURE_RULES,
  HOT_RESET_RULES,
  DEVICE_INFO_RULES,
  IOEVENTFD_RULES,
  IRQ_INFO_RULES,
  MIG_STATE_RULES,
  REGION_RULES,
  REGION_IO_RULES,
  SET_IRQS_RULES,
  DEVICE_FD_RULES,
  EMULATED_RULES,
  GROUP_RULES,
  MIGRATION_FILE_RULES,
  VFIO_DIRTY_RULES,
  INFO_RULES,
  VFIO_MAP_RULES,
  UNMAP_RULES,
];

/** All rules, each once, table by table, in the order of the checks within a table. Tables may share rules. */
export function allRules(): readonly Rule[] {
  const rules = TABLES.flatMap((table) => Object.values(table));
  return [...new Map(rules.map((rule) => [rule.id, rule])).values()];
}

let texts: ReadonlyMap<string, string> | undefined;

/** One line on when a rule of the model applies; undefined for rules that have no text, such as success. */
export function ruleText(id: string): string | undefined {
  texts ??= new Map(allRules().map((rule) => [rule.id, rule.text]));
  return texts.get(id);
}
