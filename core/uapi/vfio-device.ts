import {
  arrayShape,
  bits,
  by,
  bytesShape,
  countOf,
  fd,
  fixed,
  fixedCommand,
  flexible,
  flexibleChoice,
  member,
  oneOf,
  plainCommand,
  pointer,
  pointsTo,
  reserved32,
  scalarShape,
  semicolonRequest,
  sizedCommand,
  struct,
  structShape,
  u8,
  u16,
  u32,
  u64,
  union,
} from './layout.js';
import type { Command, Struct } from './types.js';
import { deviceFeature } from './vfio-feature.js';
import { DEVICE_CAP_CHAIN, REGION_CAP_CHAIN } from './vfio-info-caps.js';

/**
 * VFIO devices, opened through a group or as a character device of their own: `vfio.h`,
 * drivers/vfio/{vfio_main,device_cdev}.c, pci/vfio_pci_core.c; the graphics plane: samples/vfio-mdev/mbochs.c.
 */

export const deviceInfo: Struct = struct(
  'vfio_device_info',
  {
    argsz: u32('inout'),
    flags: u32(
      'out',
      bits('VFIO_DEVICE_FLAGS_', {
        RESET: 1,
        PCI: 2,
        PLATFORM: 4,
        AMBA: 8,
        CCW: 0x10,
        AP: 0x20,
        FSL_MC: 0x40,
        CAPS: 0x80,
        CDX: 0x100,
      }),
    ),
    num_regions: u32('out'),
    num_irqs: u32('out'),
    cap_offset: u32('out', 'hex'),
    pad: reserved32,
  },
  DEVICE_CAP_CHAIN,
);

export const regionInfo: Struct = struct(
  'vfio_region_info',
  {
    argsz: u32('inout'),
    flags: u32('out', bits('VFIO_REGION_INFO_FLAG_', { READ: 1, WRITE: 2, MMAP: 4, CAPS: 8 })),
    index: u32(),
    cap_offset: u32('out', 'hex'),
    size: u64('out'),
    offset: u64('out'),
  },
  REGION_CAP_CHAIN,
);

export const irqInfo: Struct = struct('vfio_irq_info', {
  argsz: u32(),
  flags: u32('out', bits('VFIO_IRQ_INFO_', { EVENTFD: 1, MASKABLE: 2, AUTOMASKED: 4, NORESIZE: 8 })),
  index: u32(),
  count: u32('out'),
});

export const irqSet: Struct = struct('vfio_irq_set', {
  argsz: u32(),
  flags: u32(
    'in',
    bits('VFIO_IRQ_SET_', {
      DATA_NONE: 1,
      DATA_BOOL: 2,
      DATA_EVENTFD: 4,
      ACTION_MASK: 8,
      ACTION_UNMASK: 0x10,
      ACTION_TRIGGER: 0x20,
    }),
  ),
  index: u32(),
  start: u32(),
  count: u32(),
  data: flexibleChoice(
    by('flags', 7),
    [
      member('bools', [2], arrayShape(scalarShape('u8'), countOf('count'))),
      member('eventfds', [4], arrayShape(scalarShape('s32'), countOf('count'))),
    ],
    'in',
  ),
});

/** Ids that stand for no iommufd device: one that the caller owns without an id of its own, and a stranger's. */
const DEVID = oneOf('VFIO_PCI_DEVID_', { OWNED: 0, NOT_OWNED: 0xffff_ffff });

/** Which id the first word holds is told by the flags of the enclosing struct. */
export const dependentDevice: Struct = struct('vfio_pci_dependent_device', {
  owner: union(
    by('flags', 1),
    [member('devid', [1], scalarShape('u32', DEVID)), member('group_id', [0], scalarShape('u32'))],
    'out',
  ),
  segment: u16('out', 'hex'),
  bus: u8('out', 'hex'),
  devfn: u8('out', 'hex'),
});

export const hotResetInfo: Struct = struct('vfio_pci_hot_reset_info', {
  argsz: u32('inout'),
  flags: u32('out', bits('VFIO_PCI_HOT_RESET_FLAG_', { DEV_ID: 1, DEV_ID_OWNED: 2 })),
  count: u32('out'),
  devices: flexible(structShape(dependentDevice), countOf('count'), 'out'),
});

export const hotReset: Struct = struct('vfio_pci_hot_reset', {
  argsz: u32(),
  flags: u32('in', 'hex'),
  count: u32(),
  group_fds: flexible(scalarShape('s32'), countOf('count'), 'in'),
});

export const gfxPlaneInfo: Struct = struct('vfio_device_gfx_plane_info', {
  argsz: u32(),
  flags: u32('in', bits('VFIO_GFX_PLANE_TYPE_', { PROBE: 1, DMABUF: 2, REGION: 4 })),
  drm_plane_type: u32(),
  drm_format: u32('out', 'hex'),
  drm_format_mod: u64('out'),
  width: u32('out'),
  height: u32('out'),
  stride: u32('out'),
  size: u32('out'),
  x_pos: u32('out'),
  y_pos: u32('out'),
  x_hot: u32('out'),
  y_hot: u32('out'),
  source: union(
    by('flags', 6),
    [member('region_index', [], scalarShape('u32')), member('dmabuf_id', [2], scalarShape('u32'))],
    'out',
  ),
  reserved: reserved32,
});

/** VFIO_DEVICE_GET_GFX_DMABUF reads a plain number, the `dmabuf_id` of the plane. */
const dmabufId: Struct = struct('__u32', { dmabuf_id: u32() });

export const ioeventfd: Struct = struct('vfio_device_ioeventfd', {
  argsz: u32(),
  flags: u32('in', bits('VFIO_DEVICE_IOEVENTFD_', { 8: 1, 16: 2, 32: 4, 64: 8 })),
  offset: u64(),
  data: u64(),
  fd: fd(),
  reserved: reserved32,
});

export const bindIommufd: Struct = struct('vfio_device_bind_iommufd', {
  argsz: u32(),
  flags: u32('in', bits('VFIO_DEVICE_BIND_FLAG_', { TOKEN: 1 })),
  iommufd: fd(),
  out_devid: u32('out'),
  token_uuid_ptr: pointer(pointsTo(bytesShape(fixed(16)), 'in', { when: by('flags', 1) })),
});

export const attachPt: Struct = struct('vfio_device_attach_iommufd_pt', {
  argsz: u32(),
  flags: u32('in', bits('VFIO_DEVICE_ATTACH_', { PASID: 1 })),
  pt_id: u32('inout'),
  pasid: u32(),
});

export const detachPt: Struct = struct('vfio_device_detach_iommufd_pt', {
  argsz: u32(),
  flags: u32('in', bits('VFIO_DEVICE_DETACH_', { PASID: 1 })),
  pasid: u32(),
});

export const precopyInfo: Struct = struct('vfio_precopy_info', {
  argsz: u32(),
  flags: u32('out', bits('VFIO_PRECOPY_INFO_', { REINIT: 1 })),
  initial_bytes: u64('out'),
  dirty_bytes: u64('out'),
});

export const DEVICE_COMMANDS: readonly Command[] = [
  sizedCommand('vfio-device', 'VFIO_DEVICE_GET_INFO', 0x6b, deviceInfo, 'num_irqs'),
  sizedCommand('vfio-device', 'VFIO_DEVICE_GET_REGION_INFO', 0x6c, regionInfo, 'offset'),
  sizedCommand('vfio-device', 'VFIO_DEVICE_GET_IRQ_INFO', 0x6d, irqInfo, 'count'),
  sizedCommand('vfio-device', 'VFIO_DEVICE_SET_IRQS', 0x6e, irqSet, 'count'),
  plainCommand('vfio-device', 'VFIO_DEVICE_RESET', 0x6f, 'none'),
  sizedCommand('vfio-device', 'VFIO_DEVICE_GET_PCI_HOT_RESET_INFO', 0x70, hotResetInfo, 'count'),
  sizedCommand('vfio-device', 'VFIO_DEVICE_PCI_HOT_RESET', 0x71, hotReset, 'count'),
  sizedCommand('vfio-device', 'VFIO_DEVICE_QUERY_GFX_PLANE', 0x72, gfxPlaneInfo, 'source'),
  fixedCommand('vfio-device', 'VFIO_DEVICE_GET_GFX_DMABUF', semicolonRequest(0x73), dmabufId, { returns: 'fd' }),
  sizedCommand('vfio-device', 'VFIO_DEVICE_IOEVENTFD', 0x74, ioeventfd, 'fd'),
  sizedCommand('vfio-device', 'VFIO_DEVICE_FEATURE', 0x75, deviceFeature, 'flags', { returns: 'number' }),
  sizedCommand('vfio-device', 'VFIO_DEVICE_BIND_IOMMUFD', 0x76, bindIommufd, 'out_devid'),
  sizedCommand('vfio-device', 'VFIO_DEVICE_ATTACH_IOMMUFD_PT', 0x77, attachPt, 'pt_id'),
  sizedCommand('vfio-device', 'VFIO_DEVICE_DETACH_IOMMUFD_PT', 0x78, detachPt, 'flags'),
];

/** On the data fd that a device in a migration state hands out. */
export const MIGRATION_COMMANDS: readonly Command[] = [
  sizedCommand('vfio-migration', 'VFIO_MIG_GET_PRECOPY_INFO', 0x79, precopyInfo, 'dirty_bytes'),
];
