import type { Call } from '../call.js';
import type { Tx } from '../tx.js';
import { objectOf, typedObject } from './context.js';
import { driverOf, intelTakesStage1, maxPasidLog2, needs } from './hardware.js';
import { steTranslates } from './hwpt-nested.js';
import { type Refusal, type Rule, refusal } from './rules.js';
import type { BoundDevice, NestedHwpt, PagingHwpt } from './state.js';

/**
 * What the driver of a real IOMMU says to a domain (`attach_dev`, `set_dev_pasid`).
 *
 * A paging domain that was made for a device fits it. A nested one of VT-d was made without a look at its first-stage
 * table, which is checked here (intel/nested.c); one of SMMUv3 that translates needs a vDEVICE of the device
 * (arm-smmu-v3-iommufd.c). A device without PASIDs never sees the domain of one.
 */
export const REAL_ATTACH_RULES: readonly Rule[] = [
  {
    id: 'attach.pasid-range',
    errno: 'EINVAL',
    text: 'the PASID is beyond those that the device and its IOMMU support',
  },
  { id: 'attach.stage-1', errno: 'EINVAL', text: 'the IOMMU does not take the first-stage table of the nested domain' },
  { id: 'attach.page-requests', errno: 'ENODEV', text: 'the device sends no page requests, which the HWPT hands on' },
  {
    id: 'attach.smmu-page-requests',
    errno: 'EOPNOTSUPP',
    text: 'the kernel was built without page requests for an SMMUv3, which the HWPT hands on',
  },
  { id: 'attach.vdevice', errno: 'ENOENT', text: 'the device has no vDEVICE in the vIOMMU of the nested domain' },
];

const PASID_RANGE = refusal('EINVAL', 'attach.pasid-range');
const STAGE_1 = refusal('EINVAL', 'attach.stage-1');
const NO_VDEVICE = refusal('ENOENT', 'attach.vdevice');

type Hwpt = PagingHwpt | NestedHwpt;

/** Why the IOMMU of a device does not take a domain; undefined when it does, or where that was not told. */
export function refuseDomain(
  tx: Tx,
  contextId: number,
  device: BoundDevice,
  hwpt: Hwpt,
  pasid: number,
): Refusal | undefined {
  const log2 = maxPasidLog2(tx, device);
  if (pasid !== 0 && log2 !== undefined && log2 > 0 && pasid >= 2 ** log2) return PASID_RANGE;
  if (hwpt.type === 'hwpt-paging' || (pasid !== 0 && log2 === 0)) return undefined;
  if (hwpt.viommu === 0) return intelTakesStage1(tx, device, hwpt.config) === false ? STAGE_1 : undefined;
  const vdevice = typedObject(tx, contextId, device.vdevice, 'vdevice');
  return steTranslates(hwpt.config) && vdevice?.viommu !== hwpt.viommu ? NO_VDEVICE : undefined;
}

/** Why the IOMMU may refuse a domain for all that was told. */
export function domainInDoubt(tx: Tx, contextId: number, device: BoundDevice, hwptId: number): string | undefined {
  const hwpt = objectOf(tx, contextId, hwptId);
  if (device.mock !== null || hwpt?.type !== 'hwpt-nested' || hwpt.viommu !== 0) return undefined;
  return intelTakesStage1(tx, device, hwpt.config) === undefined
    ? `what first-stage tables the IOMMU of ${device.key} takes was not told: GET_HW_INFO`
    : undefined;
}

/**
 * Predicts that a device which sends no page requests is not attached to a HWPT that hands them on to user space; true when
 * the handler stops. VT-d and a kernel without SVA for SMMUv3 refuse it, AMD-Vi and others do not mind.
 */
export function lacksPageRequests(call: Call, contextId: number, device: BoundDevice, hwptId: number): boolean {
  const hwpt = objectOf(call.tx, contextId, hwptId);
  if ((hwpt?.type !== 'hwpt-paging' && hwpt?.type !== 'hwpt-nested') || hwpt.fault === 0) return false;
  switch (driverOf(call.tx, device)) {
    case 'intel':
    case 'unknown':
      return needs(call, device.key, 'page requests', undefined, 'ENODEV', 'attach.page-requests');
    case 'smmuv3':
      return needs(call, device.key, 'page requests', undefined, 'EOPNOTSUPP', 'attach.smmu-page-requests');
    default:
      return false;
  }
}

/** Whether a driver that takes PASIDs at all takes one that the device has (`intel_iommu_set_dev_pasid`). */
export function takesPasids(tx: Tx, device: BoundDevice): boolean {
  const log2 = maxPasidLog2(tx, device);
  return log2 === 0 || (log2 !== undefined && driverOf(tx, device) === 'intel');
}
