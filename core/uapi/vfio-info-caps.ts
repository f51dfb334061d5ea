import {
  bits,
  bytesShape,
  countOf,
  flexible,
  nested,
  oneOf,
  reserved32,
  struct,
  structShape,
  u8,
  u16,
  u32,
  u64,
} from './layout.js';
import type { FieldSpec } from './layout.js';
import type { CapChain, Struct } from './types.js';
import { infoCapHeader } from './vfio-container.js';

/**
 * The capabilities of VFIO_DEVICE_GET_INFO and VFIO_DEVICE_GET_REGION_INFO: `vfio.h`, `vfio_zdev.h`.
 * The ids of one ioctl's chain mean nothing in another's.
 */

const header: FieldSpec = nested(infoCapHeader, 'out');

/** Ids in the chain of VFIO_DEVICE_GET_INFO. */
export const DEVICE_CAPS = oneOf('VFIO_DEVICE_INFO_CAP_', {
  ZPCI_BASE: 1,
  ZPCI_GROUP: 2,
  ZPCI_UTIL: 3,
  ZPCI_PFIP: 4,
  PCI_ATOMIC_COMP: 5,
});

const zpciBase: Struct = struct('vfio_device_info_cap_zpci_base', {
  header,
  start_dma: u64('out'),
  end_dma: u64('out'),
  pchid: u16('out', 'hex'),
  vfn: u16('out', 'hex'),
  fmb_length: u16('out'),
  pft: u8('out'),
  gid: u8('out'),
  fh: u32('out', 'hex'),
});

const zpciGroup: Struct = struct('vfio_device_info_cap_zpci_group', {
  header,
  dasm: u64('out'),
  msi_addr: u64('out'),
  flags: u64('out', bits('VFIO_DEVICE_INFO_ZPCI_FLAG_', { REFRESH: 1 })),
  mui: u16('out'),
  noi: u16('out'),
  maxstbl: u16('out'),
  version: u8('out'),
  reserved: u8('reserved'),
  imaxstbl: u16('out'),
});

const zpciUtil: Struct = struct('vfio_device_info_cap_zpci_util', {
  header,
  size: u32('out'),
  util_str: { shape: bytesShape(countOf('size')), direction: 'out' },
});

const zpciPfip: Struct = struct('vfio_device_info_cap_zpci_pfip', {
  header,
  size: u32('out'),
  pfip: { shape: bytesShape(countOf('size')), direction: 'out' },
});

const atomicCompletion: Struct = struct('vfio_device_info_cap_pci_atomic_comp', {
  header,
  flags: u32('out', bits('VFIO_PCI_ATOMIC_', { COMP32: 1, COMP64: 2, COMP128: 4 })),
  reserved: reserved32,
});

export const DEVICE_CAP_CHAIN: CapChain = {
  offsetField: 'cap_offset',
  flag: 0x80,
  known: new Map([
    [1, zpciBase],
    [2, zpciGroup],
    [3, zpciUtil],
    [4, zpciPfip],
    [5, atomicCompletion],
  ]),
};

/** Ids in the chain of VFIO_DEVICE_GET_REGION_INFO. */
export const REGION_CAPS = oneOf('VFIO_REGION_INFO_CAP_', {
  SPARSE_MMAP: 1,
  TYPE: 2,
  MSIX_MAPPABLE: 3,
  NVLINK2_SSATGT: 4,
  NVLINK2_LNKSPD: 5,
});

export const sparseMmapArea: Struct = struct('vfio_region_sparse_mmap_area', {
  offset: u64('out'),
  size: u64('out'),
});

const capSparseMmap: Struct = struct('vfio_region_info_cap_sparse_mmap', {
  header,
  nr_areas: u32('out'),
  reserved: reserved32,
  areas: flexible(structShape(sparseMmapArea), countOf('nr_areas'), 'out'),
});

const capType: Struct = struct('vfio_region_info_cap_type', {
  header,
  type: u32('out', 'hex'),
  subtype: u32('out', 'hex'),
});

const capSsatgt: Struct = struct('vfio_region_info_cap_nvlink2_ssatgt', { header, tgt: u64('out') });

const capLinkSpeed: Struct = struct('vfio_region_info_cap_nvlink2_lnkspd', {
  header,
  link_speed: u32('out'),
  __pad: reserved32,
});

export const REGION_CAP_CHAIN: CapChain = {
  offsetField: 'cap_offset',
  flag: 8,
  known: new Map([
    [1, capSparseMmap],
    [2, capType],
    [3, infoCapHeader],
    [4, capSsatgt],
    [5, capLinkSpeed],
  ]),
};

/** Content of the EDID region, read and written through the device fd; not the argument of an ioctl. */
export const gfxEdid: Struct = struct('vfio_region_gfx_edid', {
  edid_offset: u32('out', 'hex'),
  edid_max_size: u32('out'),
  edid_size: u32('inout'),
  max_xres: u32('out'),
  max_yres: u32('out'),
  link_state: u32('inout', oneOf('VFIO_DEVICE_GFX_LINK_STATE_', { UP: 1, DOWN: 2 })),
});

/** Begins the region of the migration interface that Linux 5.18 replaced by VFIO_DEVICE_FEATURE. */
export const migrationInfoV1: Struct = struct('vfio_device_migration_info', {
  device_state: u32('inout', bits('VFIO_DEVICE_STATE_V1_', { RUNNING: 1, SAVING: 2, RESUMING: 4 })),
  reserved: reserved32,
  pending_bytes: u64('out'),
  data_offset: u64('out'),
  data_size: u64('inout'),
});
