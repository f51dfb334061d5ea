import {
  bitmapOf,
  bits,
  by,
  bytesShape,
  countOf,
  fd,
  member,
  oneOf,
  pointer,
  pointsTo,
  reserved32,
  struct,
  structShape,
  u32,
  u64,
  union,
} from './layout.js';
import type { FieldSpec } from './layout.js';
import type { Case, Struct } from './types.js';

/**
 * IOMMU_TEST_CMD, the switch of iommufd's mock devices: drivers/iommu/iommufd/{iommufd_test.h,selftest.c}.
 * One union of 8-byte alignment begins at byte 16, the member chosen by `op`; `last` closes the struct.
 */

export const TEST_OPS = oneOf('IOMMU_TEST_OP_', {
  ADD_RESERVED: 1,
  MOCK_DOMAIN: 2,
  MD_CHECK_MAP: 3,
  MD_CHECK_REFS: 4,
  CREATE_ACCESS: 5,
  DESTROY_ACCESS_PAGES: 6,
  ACCESS_PAGES: 7,
  ACCESS_RW: 8,
  SET_TEMP_MEMORY_LIMIT: 9,
  MOCK_DOMAIN_REPLACE: 10,
  ACCESS_REPLACE_IOAS: 11,
  MOCK_DOMAIN_FLAGS: 12,
  DIRTY: 13,
  MD_CHECK_IOTLB: 14,
  TRIGGER_IOPF: 15,
  DEV_CHECK_CACHE: 16,
  TRIGGER_VEVENT: 17,
  PASID_ATTACH: 18,
  PASID_REPLACE: 19,
  PASID_DETACH: 20,
  PASID_CHECK_HWPT: 21,
  DMABUF_GET: 22,
  DMABUF_REVOKE: 23,
});

export const ACCESS_PAGES_FLAGS = bits('MOCK_FLAGS_ACCESS_', { WRITE: 1, SYZ: 0x1_0000 });
export const ACCESS_RW_FLAGS = bits('MOCK_ACCESS_RW_', { WRITE: 1, SLOW_PATH: 4 });
export const CREATE_ACCESS_FLAGS = bits('MOCK_FLAGS_ACCESS_', { CREATE_NEEDS_PIN_PAGES: 1 });
export const MOCK_DEVICE_FLAGS = bits('MOCK_FLAGS_DEVICE_', { NO_DIRTY: 1, PASID: 4 });

function op(name: string, number: number, fields: Readonly<Record<string, FieldSpec>>): Case {
  return member(name, [number], structShape(struct(`iommu_test_cmd.${name}`, fields)));
}

const MEMBERS: readonly Case[] = [
  op('add_reserved', 1, { start: u64(), length: u64() }),
  op('mock_domain', 2, { out_stdev_id: u32('out'), out_hwpt_id: u32('out'), out_idev_id: u32('out') }),
  op('mock_domain_flags', 12, {
    out_stdev_id: u32('out'),
    out_hwpt_id: u32('out'),
    out_idev_id: u32('out'),
    dev_flags: u32('in', MOCK_DEVICE_FLAGS),
  }),
  op('mock_domain_replace', 10, { pt_id: u32('inout') }),
  op('check_map', 3, { iova: u64(), length: u64(), uptr: u64() }),
  op('check_refs', 4, { length: u64(), uptr: u64(), refs: u32() }),
  op('create_access', 5, { out_access_fd: u32('out'), flags: u32('in', CREATE_ACCESS_FLAGS) }),
  op('destroy_access_pages', 6, { access_pages_id: u32() }),
  op('access_pages', 7, {
    flags: u32('in', ACCESS_PAGES_FLAGS),
    out_access_pages_id: u32('out'),
    iova: u64(),
    length: u64(),
    uptr: u64(),
  }),
  op('access_rw', 8, {
    iova: u64(),
    length: u64(),
    uptr: pointer(pointsTo(bytesShape(countOf('length')), 'inout')),
    flags: u32('in', ACCESS_RW_FLAGS),
  }),
  op('memory_limit', 9, { limit: u32() }),
  op('access_replace_ioas', 11, { ioas_id: u32() }),
  op('dirty', 13, {
    flags: u32('in', 'hex'),
    iova: u64(),
    length: u64(),
    page_size: u64(),
    uptr: pointer(pointsTo(bytesShape(bitmapOf('length', 'page_size')), 'in')),
    out_nr_dirty: u64('out', 'decimal'),
  }),
  op('check_iotlb', 14, { id: u32(), iotlb: u32('in', 'hex') }),
  op('trigger_iopf', 15, { dev_id: u32(), pasid: u32(), grpid: u32(), perm: u32(), addr: u64() }),
  op('check_dev_cache', 16, { id: u32(), cache: u32('in', 'hex') }),
  op('trigger_vevent', 17, { dev_id: u32() }),
  op('pasid_attach', 18, { pasid: u32(), pt_id: u32('inout') }),
  op('pasid_replace', 19, { pasid: u32(), pt_id: u32('inout') }),
  op('pasid_detach', 20, { pasid: u32() }),
  op('pasid_check', 21, { pasid: u32(), hwpt_id: u32() }),
  op('dmabuf_get', 22, { length: u32(), open_flags: u32('in', 'hex') }),
  op('dmabuf_revoke', 23, { dmabuf_fd: fd(), revoked: u32() }),
];

export const testCmd: Struct = struct('iommu_test_cmd', {
  size: u32(),
  op: u32('in', TEST_OPS),
  id: u32(),
  __reserved: reserved32,
  args: union(by('op'), MEMBERS, 'inout'),
  last: u32('reserved'),
});
