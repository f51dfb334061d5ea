import {
  by,
  member,
  nested,
  oneOf,
  reserved32,
  sizedCommand,
  struct,
  structShape,
  u32,
  u64,
  union,
  bits,
} from './layout.js';
import type { Command, Struct } from './types.js';

/**
 * Containers with the POWER backend (sPAPR TCE) and its error recovery: `vfio.h`, drivers/vfio/vfio_iommu_spapr_tce.c.
 * Three of the requests have another meaning for type1 or for devices.
 */

const ddwInfo: Struct = struct('vfio_iommu_spapr_tce_ddw_info', {
  pgsizes: u64('out'),
  max_dynamic_windows_supported: u32('out'),
  levels: u32('out'),
});

const tceInfo: Struct = struct('vfio_iommu_spapr_tce_info', {
  argsz: u32(),
  flags: u32('out', bits('VFIO_IOMMU_SPAPR_INFO_', { DDW: 1 })),
  dma32_window_start: u32('out', 'hex'),
  dma32_window_size: u32('out', 'hex'),
  ddw: nested(ddwInfo, 'out'),
});

/** Operations of VFIO_EEH_PE_OP. */
export const EEH_OPS = oneOf('VFIO_EEH_PE_', {
  DISABLE: 0,
  ENABLE: 1,
  UNFREEZE_IO: 2,
  UNFREEZE_DMA: 3,
  GET_STATE: 4,
  RESET_DEACTIVATE: 5,
  RESET_HOT: 6,
  RESET_FUNDAMENTAL: 7,
  CONFIGURE: 8,
  INJECT_ERR: 9,
});

/** What VFIO_EEH_PE_GET_STATE returns as the call's result. */
export const EEH_STATES = oneOf('VFIO_EEH_PE_STATE_', { NORMAL: 0, RESET: 1, STOPPED: 2, STOPPED_DMA: 4, UNAVAIL: 5 });

const eehError: Struct = struct('vfio_eeh_pe_err', { type: u32(), func: u32(), addr: u64(), mask: u64() });

const eehOp: Struct = struct('vfio_eeh_pe_op', {
  argsz: u32(),
  flags: u32('in', 'hex'),
  op: u32('in', EEH_OPS),
  detail: union(by('op'), [member('err', [9], structShape(eehError))], 'in'),
});

const registerMemory: Struct = struct('vfio_iommu_spapr_register_memory', {
  argsz: u32(),
  flags: u32('in', 'hex'),
  vaddr: u64(),
  size: u64(),
});

const tceCreate: Struct = struct('vfio_iommu_spapr_tce_create', {
  argsz: u32(),
  flags: u32('in', 'hex'),
  page_shift: u32(),
  __resv1: reserved32,
  window_size: u64(),
  levels: u32(),
  __resv2: reserved32,
  start_addr: u64('out'),
});

const tceRemove: Struct = struct('vfio_iommu_spapr_tce_remove', {
  argsz: u32(),
  flags: u32('in', 'hex'),
  start_addr: u64(),
});

const spapr = { spapr: true } as const;

export const SPAPR_COMMANDS: readonly Command[] = [
  sizedCommand('vfio-container', 'VFIO_IOMMU_SPAPR_TCE_GET_INFO', 0x70, tceInfo, 'dma32_window_size', spapr),
  sizedCommand('vfio-container', 'VFIO_IOMMU_SPAPR_REGISTER_MEMORY', 0x75, registerMemory, 'size', spapr),
  sizedCommand('vfio-container', 'VFIO_IOMMU_SPAPR_UNREGISTER_MEMORY', 0x76, registerMemory, 'size', spapr),
  sizedCommand('vfio-container', 'VFIO_IOMMU_SPAPR_TCE_CREATE', 0x77, tceCreate, 'start_addr', spapr),
  sizedCommand('vfio-container', 'VFIO_IOMMU_SPAPR_TCE_REMOVE', 0x78, tceRemove, 'start_addr', spapr),
  sizedCommand('vfio-container', 'VFIO_EEH_PE_OP', 0x79, eehOp, 'op', { spapr: true, returns: 'number' }),
];
