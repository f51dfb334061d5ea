import { Bytes } from '../../core/bytes.js';
import type { Call } from '../call.js';
import { MOCK_OWNER } from '../devices/mock-domain.js';
import {
  driverOf,
  FAULT_ID_VALID,
  intelNests,
  type IommuDriver,
  needs,
  needsSameIommu,
  PASID,
  viommuKind,
} from './hardware.js';
import type { Rule } from './rules.js';
import type { BoundDevice, PagingHwpt, Viommu } from './state.js';
import { readUserData } from './user-data.js';

/**
 * What a nested HWPT is made of (`iommufd_hwpt_nested_alloc`, `iommufd_viommu_alloc_hwpt_nested` and the drivers' part of
 * it): on a parent HWPT by VT-d (intel/nested.c), on a vIOMMU by SMMUv3 and Tegra's CMDQV
 * (arm-smmu-v3-iommufd.c), on both by the mock driver. AMD-Vi and all others have none.
 *
 * The kernel's order: on a vIOMMU that the device stands behind it; the flags; that there is data; that the
 * driver nests so; that the parent may be one; then the driver looks at its hardware, the type, the length and the
 * content of the data. VT-d looks at the content when a device is attached.
 */
export const NESTED_RULES: readonly Rule[] = [
  { id: 'hwpt-alloc.other-iommu', errno: 'EINVAL', text: 'the vIOMMU belongs to another IOMMU than the device' },
  { id: 'hwpt-alloc.nested-flags', errno: 'EOPNOTSUPP', text: 'a flag is unknown here' },
  { id: 'hwpt-alloc.nested-data', errno: 'EOPNOTSUPP', text: 'a nested HWPT needs data' },
  { id: 'hwpt-alloc.nesting', errno: 'EOPNOTSUPP', text: 'the driver, or this IOMMU, does not nest so' },
  { id: 'hwpt-alloc.no-nest-parent', errno: 'EINVAL', text: 'the parent was not made to be one' },
  { id: 'hwpt-alloc.data-type', errno: 'EOPNOTSUPP', text: 'the driver does not know the type of data' },
  { id: 'hwpt-alloc.smmu-data-type', errno: 'EINVAL', text: 'the data is not for an SMMUv3' },
  { id: 'hwpt-alloc.data-size', errno: 'EINVAL', text: 'the data is shorter or longer than the driver takes' },
  { id: 'hwpt-alloc.data-fault', errno: 'EFAULT', text: 'the data cannot be read' },
  { id: 'hwpt-alloc.smmu-ste', errno: 'EIO', text: 'the stream table entry has bits that a guest may not set' },
];

const DATA_SELFTEST = 0xdead;
const DATA_VTD_S1 = 1;
const DATA_ARM_SMMUV3 = 2;
const DATA_RULES = { size: 'hwpt-alloc.data-size', fault: 'hwpt-alloc.data-fault' };

/** What the driver makes of the data: the mock's IOTLB, or the struct of a real one. */
export interface NestedData {
  readonly iotlb: readonly number[];
  readonly config: Bytes;
}

/** The data of a nested HWPT; undefined when the handler stops. */
export function nestedData(call: Call, device: BoundDevice, parent: PagingHwpt | Viommu): NestedData | undefined {
  const s = call.struct;
  const onViommu = parent.type === 'viommu';
  if (onViommu && needsSameIommu(call, parent.owner, device, 'EINVAL', 'hwpt-alloc.other-iommu')) return undefined;
  if ((s.u32(4) & ~(FAULT_ID_VALID | PASID)) !== 0 && call.fail('EOPNOTSUPP', 'hwpt-alloc.nested-flags'))
    return undefined;
  if (s.u32(28) === 0 && call.fail('EOPNOTSUPP', 'hwpt-alloc.nested-data')) return undefined;
  const driver = onViommu ? viommuKind(call.tx, parent) : driverOf(call.tx, device);
  const nests = canNest(driver, onViommu);
  const [what, shows] = onViommu ? (['nested by vIOMMU', 'smmuv3'] as const) : (['nested', 'intel'] as const);
  if (needs(call, keyOf(device), what, nests, 'EOPNOTSUPP', 'hwpt-alloc.nesting', shows)) return undefined;
  if (!onViommu && !isParent(parent, device) && call.fail('EINVAL', 'hwpt-alloc.no-nest-parent')) return undefined;
  if (driver === 'mock') return mockData(call);
  return onViommu ? smmuData(call) : intelData(call, device);
}

function keyOf(device: BoundDevice): string {
  return device.mock !== null ? MOCK_OWNER : device.key;
}

function canNest(driver: IommuDriver | 'tegra', onViommu: boolean): boolean | undefined {
  switch (driver) {
    case 'mock':
      return true;
    case 'unknown':
      return undefined;
    case 'intel':
      return !onViommu;
    case 'smmuv3':
    case 'tegra':
      return onViommu;
    default:
      return false;
  }
}

/** Made to be a parent, by the device's own driver; one machine has one kind of IOMMU besides the mock. */
function isParent(parent: PagingHwpt, device: BoundDevice): boolean {
  return !parent.auto && parent.nestParent && (parent.domain.owner === MOCK_OWNER) === (device.mock !== null);
}

/** The mock driver's own data that the call brings, or undefined after a prediction. */
export function selftestData(call: Call): Bytes | undefined {
  if (call.struct.u32(24) !== DATA_SELFTEST && call.fail('EOPNOTSUPP', 'hwpt-alloc.data-type')) return undefined;
  return userData(call, 8, 4);
}

/** `__mock_domain_alloc_nested`. */
function mockData(call: Call): NestedData | undefined {
  const bytes = selftestData(call);
  if (bytes === undefined) return undefined;
  const value = bytes.u32(0);
  return { iotlb: Object.freeze([value, value, value, value]), config: Bytes.EMPTY };
}

/** `intel_iommu_domain_alloc_nested`. */
function intelData(call: Call, device: BoundDevice): NestedData | undefined {
  if (needs(call, device.key, 'nested', intelNests(call.tx, device), 'EOPNOTSUPP', 'hwpt-alloc.nesting'))
    return undefined;
  if (call.struct.u32(24) !== DATA_VTD_S1 && call.fail('EOPNOTSUPP', 'hwpt-alloc.data-type')) return undefined;
  const config = userData(call, 24, 24);
  return config === undefined ? undefined : { iotlb: Object.freeze([]), config };
}

const STE_BYTES = 16;
/** V, Config, S1Fmt, S1ContextPtr, S1CDMax. */
const STE_0_ALLOWED = 0xf80f_ffff_ffff_ffffn;
/** S1DSS, S1CIR, S1COR, S1CSH, S1STALLD, EATS. */
const STE_1_ALLOWED = 0x3800_00ffn;
const CONFIG_ABORT = 0;
const CONFIG_BYPASS = 4;
const CONFIG_S1 = 5;

/** `arm_vsmmu_alloc_domain_nested`. */
function smmuData(call: Call): NestedData | undefined {
  const s = call.struct;
  if ((s.u32(4) & PASID) !== 0 && call.fail('EOPNOTSUPP', 'hwpt-alloc.nested-flags')) return undefined;
  if (s.u32(24) !== DATA_ARM_SMMUV3 && call.fail('EINVAL', 'hwpt-alloc.smmu-data-type')) return undefined;
  const config = userData(call, STE_BYTES, STE_BYTES);
  if (config === undefined || (!steIsAllowed(config) && call.fail('EIO', 'hwpt-alloc.smmu-ste'))) return undefined;
  return { iotlb: Object.freeze([]), config };
}

/** `arm_smmu_validate_vste`. */
function steIsAllowed(ste: Bytes): boolean {
  const [first, second] = [BigInt(ste.u64(0)), BigInt(ste.u64(8))];
  if ((first & 1n) === 0n) return true;
  if ((first & ~STE_0_ALLOWED) !== 0n || (second & ~STE_1_ALLOWED) !== 0n) return false;
  const eats = Number((second >> 28n) & 3n);
  return [CONFIG_ABORT, CONFIG_BYPASS, CONFIG_S1].includes(steConfig(ste)) && eats <= 1;
}

/** What a stream table entry asks for; one that is not valid, to abort. */
function steConfig(ste: Bytes): number {
  const first = BigInt(ste.u64(0));
  return (first & 1n) === 0n ? CONFIG_ABORT : Number((first >> 1n) & 7n);
}

/** Whether a nested domain of SMMUv3 translates by a table of the guest, so that its device must be in the vIOMMU. */
export function steTranslates(ste: Bytes): boolean {
  return ste.length === STE_BYTES && steConfig(ste) === CONFIG_S1;
}

function userData(call: Call, sizeBytes: number, minBytes: number): Bytes | undefined {
  const s = call.struct;
  const data = readUserData(call, s.u64(32), s.u32(28), sizeBytes, minBytes, DATA_RULES);
  if (data === undefined) {
    call.unknown('payload not recorded');
    return undefined;
  }
  if ('bytes' in data) return new Bytes(data.bytes.toUint8Array());
  call.fail(data.errno, data.rule);
  return undefined;
}
