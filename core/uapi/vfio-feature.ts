import {
  bits,
  bitmapOf,
  by,
  bytesShape,
  arrayShape,
  countOf,
  fd,
  fixed,
  flexible,
  flexibleChoice,
  member,
  oneOf,
  pointer,
  pointsTo,
  reserved32,
  struct,
  structCase,
  structShape,
  u32,
  u64,
} from './layout.js';
import type { Struct } from './types.js';

/**
 * VFIO_DEVICE_FEATURE: a table of its own, by the feature's number in the low half of `flags`: `vfio.h`,
 * drivers/vfio/vfio_main.c, pci/vfio_pci_core.c. With PROBE the kernel only says whether GET or SET would work, and does
 * not look at the data.
 */

export const FEATURE_MASK = 0xffff;

export interface Feature {
  readonly name: string;
  readonly number: number;
  /** Layout of `data`; undefined for the ones that have none and for the token, 16 plain bytes. */
  readonly struct: Struct | undefined;
  /** What `argsz` must hold behind the 8 bytes of the header. */
  readonly minSizeBytes: number;
}

const migration: Struct = struct('vfio_device_feature_migration', {
  flags: u64('out', bits('VFIO_MIGRATION_', { STOP_COPY: 1, P2P: 2, PRE_COPY: 4 })),
});

/** States of a device for migration. */
export const MIG_STATES = oneOf('VFIO_DEVICE_STATE_', {
  ERROR: 0,
  STOP: 1,
  RUNNING: 2,
  STOP_COPY: 3,
  RESUMING: 4,
  RUNNING_P2P: 5,
  PRE_COPY: 6,
  PRE_COPY_P2P: 7,
});

const migState: Struct = struct('vfio_device_feature_mig_state', {
  device_state: u32('inout', MIG_STATES),
  data_fd: fd('out'),
});

const lowPowerWithWakeup: Struct = struct('vfio_device_low_power_entry_with_wakeup', {
  wakeup_eventfd: fd(),
  reserved: reserved32,
});

export const loggingRange: Struct = struct('vfio_device_feature_dma_logging_range', { iova: u64(), length: u64() });

const loggingControl: Struct = struct('vfio_device_feature_dma_logging_control', {
  page_size: u64('inout'),
  num_ranges: u32(),
  __reserved: reserved32,
  ranges: pointer(pointsTo(arrayShape(structShape(loggingRange), countOf('num_ranges')), 'in')),
});

const loggingReport: Struct = struct('vfio_device_feature_dma_logging_report', {
  iova: u64(),
  length: u64(),
  page_size: u64(),
  bitmap: pointer(pointsTo(bytesShape(bitmapOf('length', 'page_size')), 'inout')),
});

const migDataSize: Struct = struct('vfio_device_feature_mig_data_size', { stop_copy_length: u64('out', 'decimal') });

const busMaster: Struct = struct('vfio_device_feature_bus_master', {
  op: u32('in', oneOf('VFIO_DEVICE_FEATURE_', { CLEAR_MASTER: 0, SET_MASTER: 1 })),
});

export const dmaRange: Struct = struct('vfio_region_dma_range', { offset: u64(), length: u64() });

const dmaBuf: Struct = struct('vfio_device_feature_dma_buf', {
  region_index: u32(),
  open_flags: u32('in', 'hex'),
  flags: u32('in', 'hex'),
  nr_ranges: u32(),
  dma_ranges: flexible(structShape(dmaRange), countOf('nr_ranges'), 'in'),
});

function feature(number: number, label: string, of?: Struct, minSizeBytes = of?.sizeBytes ?? 0): Feature {
  return { number, name: `VFIO_DEVICE_FEATURE_${label}`, struct: of, minSizeBytes };
}

const TOKEN_BYTES = 16;

/** All features, by number. */
export const FEATURES: readonly Feature[] = [
  feature(0, 'PCI_VF_TOKEN', undefined, TOKEN_BYTES),
  feature(1, 'MIGRATION', migration),
  feature(2, 'MIG_DEVICE_STATE', migState),
  feature(3, 'LOW_POWER_ENTRY'),
  feature(4, 'LOW_POWER_ENTRY_WITH_WAKEUP', lowPowerWithWakeup),
  feature(5, 'LOW_POWER_EXIT'),
  feature(6, 'DMA_LOGGING_START', loggingControl),
  feature(7, 'DMA_LOGGING_STOP'),
  feature(8, 'DMA_LOGGING_REPORT', loggingReport),
  feature(9, 'MIG_DATA_SIZE', migDataSize),
  feature(10, 'BUS_MASTER', busMaster),
  feature(11, 'DMA_BUF', dmaBuf),
  feature(12, 'MIG_PRECOPY_INFOv2'),
];

/** The feature that `flags` of VFIO_DEVICE_FEATURE selects. */
export function findFeature(flags: number): Feature | undefined {
  return FEATURES[flags & FEATURE_MASK];
}

const FEATURE_NAMES = oneOf(
  'VFIO_DEVICE_FEATURE_',
  Object.fromEntries(FEATURES.map((f) => [f.name.slice('VFIO_DEVICE_FEATURE_'.length), f.number])),
);

export const deviceFeature: Struct = struct('vfio_device_feature', {
  argsz: u32(),
  flags: u32(
    'in',
    bits('VFIO_DEVICE_FEATURE_', { GET: 0x1_0000, SET: 0x2_0000, PROBE: 0x4_0000 }, FEATURE_MASK, FEATURE_NAMES),
  ),
  data: flexibleChoice(
    by('flags', FEATURE_MASK),
    [
      member('token', [0], bytesShape(fixed(TOKEN_BYTES))),
      ...FEATURES.flatMap((f) => (f.struct ? [structCase(f.struct, f.number)] : [])),
    ],
    'inout',
  ),
});
