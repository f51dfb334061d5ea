import { Bytes } from '../../core/bytes.js';
import type { U64 } from '../../core/u64.js';
import type { Call } from '../call.js';
import type { Tx } from '../tx.js';
import type { BoundDevice, Viommu } from './state.js';

/**
 * What is known of the IOMMU behind a real device: which driver it has and what it can do.
 *
 * iommufd asks the driver through `struct iommu_ops`. Four drivers of Linux 7.2 know flags and driver data: VT-d
 * (drivers/iommu/intel), AMD-Vi (amd), SMMUv3 (arm/arm-smmu-v3) and, on top of that, Tegra's CMDQV; all others offer no more
 * than plain page tables. GET_HW_INFO tells the driver, for VT-d, AMD-Vi and SMMUv3 also capability registers from which
 * much follows. The rest is a fact of the device that the first call which needs it shows, and which
 * then must stay.
 */
export type IommuDriver = 'mock' | 'intel' | 'amd' | 'smmuv3' | 'other' | 'unknown';

/** Whether hardware has something; undefined where it was not told. */
export type Support = boolean | undefined;

export const NEST_PARENT = 1;
export const DIRTY_TRACKING = 2;
export const FAULT_ID_VALID = 4;
export const PASID = 8;

/** Types of GET_HW_INFO. */
const INFO_INTEL = 1;
export const INFO_SMMUV3 = 2;
export const INFO_TEGRA = 3;
const INFO_AMD = 4;

const DRIVER_FACT = 'iommu/driver';
const DRIVER_OF_TYPE: ReadonlyMap<number, IommuDriver> = new Map<number, IommuDriver>([
  [0, 'other'],
  [INFO_INTEL, 'intel'],
  [INFO_SMMUV3, 'smmuv3'],
  [INFO_TEGRA, 'smmuv3'],
  [INFO_AMD, 'amd'],
]);
const DRIVERS: ReadonlySet<unknown> = new Set(DRIVER_OF_TYPE.values());

/** The driver behind a device; one machine has one kind of IOMMU, so another device's answer tells it too. */
export function driverOf(tx: Tx, device: BoundDevice): IommuDriver {
  return device.mock !== null ? 'mock' : driverOfKey(tx, device.key);
}

function driverOfKey(tx: Tx, key: string): IommuDriver {
  if (key === 'mock') return 'mock';
  const own = factNumber(tx, `iommu/${key}/hw_info_type`);
  const known = own === undefined ? undefined : DRIVER_OF_TYPE.get(own);
  if (known !== undefined) return known;
  const told = tx.world.facts.get(DRIVER_FACT)?.value;
  return DRIVERS.has(told) ? (told as IommuDriver) : 'unknown';
}

/** Keeps the driver that an answer has shown. */
export function tellDriver(call: Call, driver: IommuDriver): void {
  if (!call.tx.world.facts.has(DRIVER_FACT))
    call.tx.world.facts.set(DRIVER_FACT, Object.freeze({ value: driver, since: call.event.seq }));
}

export function driverOfInfo(type: number): IommuDriver {
  return DRIVER_OF_TYPE.get(type) ?? 'unknown';
}

/** The kind of a vIOMMU: that of the driver, and Tegra's own. */
export function viommuKind(tx: Tx, viommu: Viommu): IommuDriver | 'tegra' {
  const driver = driverOfKey(tx, viommu.owner);
  return driver === 'smmuv3' && viommu.viommuType === VIOMMU_TEGRA ? 'tegra' : driver;
}

export const VIOMMU_SMMUV3 = 1;
export const VIOMMU_TEGRA = 2;

// ---- facts --------------------------------------------------------------------------------------------------

function factNumber(tx: Tx, key: string): number | undefined {
  const value = tx.world.facts.get(key)?.value;
  if (typeof value === 'number') return value;
  return value instanceof Bytes && value.length === 4 ? value.u32(0) : undefined;
}

function factU64(tx: Tx, key: string): U64 | undefined {
  const value = tx.world.facts.get(key)?.value;
  return value instanceof Bytes && value.length === 8 ? value.u64(0) : undefined;
}

/**
 * Predicts the failure of a call whose hardware lacks what it needs; true when the handler stops. Where that was not told,
 * the answer shows it: a success that the hardware has it, which is learned, and `errno` that it has not.
 *
 * @param what names the need among those of the device, e.g. `nested`
 * @param support what follows from what was told
 * @param driver the only driver that has it, so that a success tells the driver as well
 */
export function needs(
  call: Call,
  deviceKey: string,
  what: string,
  support: Support,
  errno: string,
  rule: string,
  driver?: IommuDriver,
): boolean {
  const key = `iommu/${deviceKey}/can/${what}`;
  const { facts } = call.tx.world;
  const fact = facts.get(key)?.value;
  const has = support ?? (fact === undefined ? undefined : fact === 1);
  if (has !== undefined) return !has && call.fail(errno, rule);
  const shown = call.partByFact(errno, `whether the IOMMU of ${deviceKey} can do it was not told yet: ${what}`);
  if (shown !== 'open') facts.set(key, Object.freeze({ value: shown === 'has' ? 1 : 0, since: call.event.seq }));
  if (shown === 'has' && driver !== undefined) tellDriver(call, driver);
  return shown === 'lacks';
}

/**
 * Whether two devices stand behind one instance of an IOMMU, as objects of a vIOMMU must: predicts `errno` where they do
 * not. True when the handler stops.
 */
export function needsSameIommu(call: Call, owner: string, device: BoundDevice, errno: string, rule: string): boolean {
  const key = device.mock !== null ? 'mock' : device.key;
  if (owner === key) return false;
  if (owner === 'mock' || key === 'mock') return call.fail(errno, rule);
  const [one, other] = owner < key ? [owner, key] : [key, owner];
  return needs(call, one, `share with ${other}`, undefined, errno, rule);
}

// ---- registers ----------------------------------------------------------------------------------------------

function bitOf(value: U64 | undefined, bit: number): Support {
  return value === undefined ? undefined : ((BigInt(value) >> BigInt(bit)) & 1n) === 1n;
}

function and(...parts: Support[]): Support {
  if (parts.includes(false)) return false;
  return parts.includes(undefined) ? undefined : true;
}

function hwInfo(tx: Tx, key: string, bytes: number): Bytes | undefined {
  const value = tx.world.facts.get(`iommu/${key}/hw_info/${bytes}`)?.value;
  return value instanceof Bytes ? value : undefined;
}

const VTD_INFO_BYTES = 24;
const AMD_INFO_BYTES = 16;
const SMMU_INFO_BYTES = 40;
const TEGRA_INFO = `${INFO_TEGRA}-8`;

const vtdCap = (tx: Tx, key: string, bit: number): Support => bitOf(hwInfo(tx, key, VTD_INFO_BYTES)?.u64(8), bit);
const vtdEcap = (tx: Tx, key: string, bit: number): Support => bitOf(hwInfo(tx, key, VTD_INFO_BYTES)?.u64(16), bit);

const ECAP_NEST = 26;
const ECAP_SRS = 31;
const ECAP_EAFS = 34;
const ECAP_SMTS = 43;
const ECAP_SLTS = 46;
const CAP_FL5LP = 60;

/** The IOMMU uses scalable mode: it can, and no parameter of the kernel forbids it, which what it offers may show. */
function scalable(tx: Tx, key: string): Support {
  const dirty = capabilities(tx, key);
  if (dirty === true || (maxPasidLog2(tx, { key }) ?? 0) > 0) return true;
  return vtdEcap(tx, key, ECAP_SMTS) === false ? false : undefined;
}

/** How many PASIDs a device has, as GET_HW_INFO told; 0 for one without. */
export function maxPasidLog2(tx: Tx, device: { readonly key: string }): number | undefined {
  const value = tx.world.facts.get(`iommu/${device.key}/max_pasid_log2`)?.value;
  return value instanceof Bytes ? value.u8(0) : undefined;
}

/** IOMMU_HW_CAP_DIRTY_TRACKING. */
function capabilities(tx: Tx, key: string): Support {
  return bitOf(factU64(tx, `iommu/${key}/capabilities`), 0);
}

/** Whether the IOMMU of a device tracks dirty pages, as GET_HW_INFO told. */
export function tracksDirty(tx: Tx, device: BoundDevice): Support {
  return capabilities(tx, device.key);
}

/** Whether VT-d nests domains of user space (`nested_supported`). */
export function intelNests(tx: Tx, device: BoundDevice): Support {
  return and(scalable(tx, device.key), vtdEcap(tx, device.key, ECAP_NEST));
}

/**
 * Whether the driver makes a page table for these flags of HWPT_ALLOC (`domain_alloc_paging_flags`), of which there is at
 * least one.
 */
export function makesPageTable(tx: Tx, device: BoundDevice, flags: number): Support {
  const { key } = device;
  const dirty = (flags & DIRTY_TRACKING) === 0 ? true : tracksDirty(tx, device);
  switch (driverOf(tx, device)) {
    case 'intel': {
      if ((flags & (NEST_PARENT | DIRTY_TRACKING)) === 0) return true;
      const nests = (flags & NEST_PARENT) === 0 ? true : intelNests(tx, device);
      return and(dirty, nests, vtdEcap(tx, key, ECAP_SLTS));
    }
    case 'amd':
      if (flags === PASID) return undefined;
      return (flags & PASID) !== 0 ? false : and(dirty, (flags & NEST_PARENT) === 0 ? true : amdNests(tx, key));
    case 'smmuv3':
      if (flags === NEST_PARENT) return and(smmuStage(tx, key, 1), smmuStage(tx, key, 0)) === false ? false : undefined;
      return (flags & NEST_PARENT) !== 0 ? false : and(dirty, smmuStage(tx, key, 1));
    case 'other':
      return false;
    default:
      return dirty === false ? false : undefined;
  }
}

const EFR_GT = 4;
const EFR_GIOSUP = 48;
const EFR2_GCR3TRPMODE = 3;

function amdNests(tx: Tx, key: string): Support {
  const info = hwInfo(tx, key, AMD_INFO_BYTES);
  return and(bitOf(info?.u64(0), EFR_GT), bitOf(info?.u64(0), EFR_GIOSUP), bitOf(info?.u64(8), EFR2_GCR3TRPMODE));
}

/** IDR0: bit 1 for stage 1, bit 0 for stage 2. */
function smmuStage(tx: Tx, key: string, bit: number): Support {
  const info = hwInfo(tx, key, SMMU_INFO_BYTES);
  return info === undefined ? undefined : bitOf(info.u32(8), bit);
}

/**
 * Which kind of page table the flags choose, '' for the one that a plain HWPT gets. Kinds may differ in their aperture and
 * page sizes.
 */
export function tableOf(tx: Tx, device: BoundDevice, flags: number): string {
  const kind = flags & (NEST_PARENT | DIRTY_TRACKING | PASID);
  if (driverOf(tx, device) === 'intel') return (kind & ~PASID) === 0 ? '' : 'second stage';
  return [kind & NEST_PARENT ? 'nest parent' : '', kind & DIRTY_TRACKING ? 'dirty' : '', kind & PASID ? 'PASID' : '']
    .filter((part) => part !== '')
    .join('+');
}

/** What the first-stage table of a nested domain asks of VT-d (`intel_pasid_setup_nested`). */
export function intelTakesStage1(tx: Tx, device: BoundDevice, config: Bytes): Support {
  const { key } = device;
  const flags = config.u32(0);
  const width = config.u32(16);
  const levels = width === 48 ? true : width === 57 ? vtdCap(tx, key, CAP_FL5LP) : false;
  const supervisor = (flags & STAGE1_SRE) === 0 ? true : vtdEcap(tx, key, ECAP_SRS);
  const accessed = (flags & STAGE1_EAFE) === 0 ? true : vtdEcap(tx, key, ECAP_EAFS);
  return and(levels, supervisor, accessed);
}

const STAGE1_SRE = 1;
const STAGE1_EAFE = 2;

/** log2 of the entries of the longest command queue, and of the queues of one vIOMMU, of Tegra's CMDQV. */
export function tegraLimits(tx: Tx, key: string): { queueLog2: number | undefined; queuesLog2: number | undefined } {
  const idr1 = hwInfo(tx, key, SMMU_INFO_BYTES)?.u32(12);
  const told = tx.world.facts.get(`iommu/${key}/hw_info/${TEGRA_INFO}`)?.value;
  return {
    queueLog2: idr1 === undefined ? undefined : (idr1 >>> 21) & 0x1f,
    queuesLog2: told instanceof Bytes ? told.u8(5) : undefined,
  };
}
