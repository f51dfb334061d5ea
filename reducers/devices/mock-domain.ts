import { patchObject, typedObject } from '../iommufd/context.js';
import { type Refusal, type Rule, refusal } from '../iommufd/rules.js';
import type { BoundDevice, DomainTraits, MockDevice, NestedHwpt, PagingHwpt } from '../iommufd/state.js';
import type { Tx } from '../tx.js';

/**
 * The kernel's mock IOMMU, the domain side (`mock_ops` in drivers/iommu/iommufd/selftest.c).
 *
 * A default domain has a 2 KiB page and an aperture of 16 MiB..2 GiB; a huge one has 1 MiB and 4 KiB pages and no
 * limit but the 38 bits of its page table. A device made without dirty tracking refuses domains that track. A
 * domain of a vIOMMU can be attached only to a device that has a vDEVICE there.
 * PASID 1024 is there to fail: every second attach of a domain to it gives ENOMEM.
 */
export const MOCK_RULES: readonly Rule[] = [
  { id: 'mock-attach.dirty', errno: 'EINVAL', text: 'the domain tracks dirty pages and the mock device does not' },
  { id: 'mock-attach.vdevice', errno: 'ENOENT', text: 'the device has no vDEVICE in the vIOMMU of the nested domain' },
  { id: 'mock-attach.pasid-range', errno: 'EINVAL', text: 'the PASID is beyond the 20 bits of the mock device' },
  { id: 'mock-attach.pasid-1024', errno: 'ENOMEM', text: 'every second attach of PASID 1024 is made to fail' },
];

const DIRTY = refusal('EINVAL', 'mock-attach.dirty');
const NO_VDEVICE = refusal('ENOENT', 'mock-attach.vdevice');
const PASID_RANGE = refusal('EINVAL', 'mock-attach.pasid-range');
const PASID_1024 = refusal('ENOMEM', 'mock-attach.pasid-1024');

export const MOCK_OWNER = 'mock';
const MAX_PASIDS = 1 << 20;
const PASID_THAT_FAILS = 1024;
/** Every power of two from 2 KiB on that a page table of three levels (38 bits) can hold. */
const DEFAULT_PGSIZES = 0x1f_ffff_f800;
const HUGE_PGSIZES = 0x10_1000;

export function mockTraits(huge: boolean, dirtyTracking: boolean): DomainTraits {
  return Object.freeze({
    owner: MOCK_OWNER,
    pgsizes: huge ? HUGE_PGSIZES : DEFAULT_PGSIZES,
    aperture: Object.freeze(huge ? { start: 0, last: 0x3f_ffff_ffff } : { start: 0x100_0000, last: 0x7fff_ffff }),
    dirtyTracking,
    table: '',
    takesReadOnly: true,
  });
}

export function newMockDevice(flags: number): MockDevice {
  return Object.freeze({
    noDirty: (flags & 1) !== 0,
    pasid: (flags & 4) !== 0,
    cache: Object.freeze([0xbaddad, 0xbaddad, 0xbaddad, 0xbaddad]),
    viommu: 0,
    vdevId: 0,
    faultUsers: 0,
    failPasid1024: false,
    gone: false,
  });
}

type Hwpt = PagingHwpt | NestedHwpt;

function patchMock(tx: Tx, contextId: number, deviceId: number, patch: Partial<MockDevice>): void {
  const device = typedObject(tx, contextId, deviceId, 'device');
  if (device?.mock) patchObject(tx, contextId, device, { mock: Object.freeze({ ...device.mock, ...patch }) });
}

/** Attaches a domain to the device itself, in place of `old` when there is one (`mock_domain_nop_attach`). */
export function mockAttach(
  tx: Tx,
  contextId: number,
  device: BoundDevice,
  hwpt: Hwpt,
  old: Hwpt | undefined,
): Refusal | undefined {
  const mock = device.mock as MockDevice;
  if (hwpt.type === 'hwpt-paging' && hwpt.domain.dirtyTracking && mock.noDirty) return DIRTY;
  let viommu = 0;
  let vdevId = mock.vdevId;
  if (hwpt.type === 'hwpt-nested' && hwpt.viommu !== 0) {
    const vdevice = typedObject(tx, contextId, device.vdevice, 'vdevice');
    if (vdevice === undefined || vdevice.viommu !== hwpt.viommu) return NO_VDEVICE;
    viommu = hwpt.viommu;
    vdevId = vdevice.virtId;
  }
  const changed = viommu !== mock.viommu;
  patchMock(tx, contextId, device.id, {
    viommu,
    vdevId: changed ? (viommu === 0 ? 0 : vdevId) : mock.vdevId,
    faultUsers: mock.faultUsers + (hwpt.fault !== 0 ? 1 : 0) - (old !== undefined && old.fault !== 0 ? 1 : 0),
  });
  return undefined;
}

/** Back to the blocking domain. */
export function mockDetach(tx: Tx, contextId: number, device: BoundDevice, old: Hwpt): void {
  const mock = device.mock as MockDevice;
  patchMock(tx, contextId, device.id, {
    viommu: 0,
    vdevId: mock.viommu === 0 ? mock.vdevId : 0,
    faultUsers: mock.faultUsers - (old.fault !== 0 ? 1 : 0),
  });
}

/** Attaches a domain to one PASID of the device (`iommu_attach_device_pasid`, `mock_domain_set_dev_pasid_nop`). */
export function mockAttachPasid(
  tx: Tx,
  contextId: number,
  device: BoundDevice,
  hwpt: Hwpt,
  old: Hwpt | undefined,
  pasid: number,
): Refusal | undefined {
  const mock = device.mock as MockDevice;
  const maxPasids = mock.pasid ? MAX_PASIDS : 1;
  if (old === undefined && pasid >= maxPasids) return PASID_RANGE;
  if (pasid === PASID_THAT_FAILS) {
    patchMock(tx, contextId, device.id, { failPasid1024: !mock.failPasid1024 });
    if (mock.failPasid1024) return PASID_1024;
  }
  patchMock(tx, contextId, device.id, {
    faultUsers: mock.faultUsers + (hwpt.fault !== 0 ? 1 : 0) - (old !== undefined && old.fault !== 0 ? 1 : 0),
  });
  return undefined;
}

export function mockDetachPasid(tx: Tx, contextId: number, device: BoundDevice, old: Hwpt, pasid: number): void {
  const mock = device.mock as MockDevice;
  patchMock(tx, contextId, device.id, {
    faultUsers: mock.faultUsers - (old.fault !== 0 ? 1 : 0),
    ...(pasid === PASID_THAT_FAILS ? { failPasid1024: false } : {}),
  });
}
