import { Bytes, putU32 } from '../../../core/bytes.js';
import { add } from '../../../core/u64.js';
import { find } from '../../answer.js';
import type { Call } from '../../call.js';
import { type DisplayDriver, displayRegion, displayRegionCount } from '../../devices/vfio-display.js';
import { deviceOf } from '../devices.js';
import { tellDriver } from '../driver.js';
import { deviceKey } from '../facts.js';
import { takeStruct } from '../payload.js';
import { refuse, type Rule } from '../rules.js';
import type { VfioDevice } from '../state.js';
import {
  DEVICE_FLAG_PCI,
  PCI_NUM_IRQS,
  REGION_CAP_TYPE,
  REGION_CAP_TYPE_BYTES,
  REGION_CAPS,
  REGION_INFO_BYTES,
  REGION_MMAP,
  REGION_READ,
  REGION_WRITE,
} from '../uapi.js';

/**
 * What the sample displays mdpy and mbochs answer (samples/vfio-mdev). GET_IRQ_INFO finds no vectors of any interrupt and
 * leaves the flags as they were; SET_IRQS fails whatever it is given.
 *
 * QUERY_GFX_PLANE: argsz 0, flags 4, drm_plane_type 8, drm_format 12, drm_format_mod 16, width 24, height 28, stride 32,
 * size 36, x_pos 40, y_pos 44, x_hot 48, y_hot 52, region_index or dmabuf_id 56. mdpy shows its framebuffer as a region;
 * mbochs as a dma-buf, for the primary plane and where the guest has set a mode, which the model does not follow.
 */
export const DISPLAY_RULES = {
  irqs: { id: 'display.set-irqs', errno: 'EINVAL', text: 'mdpy and mbochs have no interrupts to set' },
  argsz: { id: 'gfx-plane.argsz', errno: 'EINVAL', text: 'argsz is less than 60' },
  flags: {
    id: 'gfx-plane.flags',
    errno: 'EINVAL',
    text: 'the plane is asked for in a way that the display does not have: mdpy has a region, mbochs dma-bufs',
  },
} as const satisfies Record<string, Rule>;

const R = DISPLAY_RULES;
const TYPE_GFX = 1;
const SUBTYPE_EDID = 1;
const PLANE_BYTES = 60;
const PLANE_PROBE = 1;
const PLANE_DMABUF = 2;
const PLANE_REGION = 4;
const PRIMARY_PLANE = 1;
const MDPY_DISPLAY_REGION = 16;

export function displayOf({ driver }: VfioDevice): DisplayDriver | undefined {
  return driver === 'mdpy' || driver === 'mbochs' ? driver : undefined;
}

export function displayInfo(call: Call, display: DisplayDriver): void {
  call.out32(4, DEVICE_FLAG_PCI, 'flags');
  call.out32(8, displayRegionCount(display), 'num_regions');
  call.out32(12, PCI_NUM_IRQS, 'num_irqs');
}

/** GET_REGION_INFO; `framebufferKey` is the fact of the framebuffer's size. */
export function displayRegionInfo(
  call: Call,
  display: DisplayDriver,
  index: number,
  noRegion: Rule,
  framebufferKey: string,
): void {
  const region = displayRegion(display, index);
  if (region === undefined) {
    refuse(call, noRegion);
    return;
  }
  if (!call.succeed('region-info.display')) return;
  const access = region.bytes === 0 ? 0 : REGION_READ | REGION_WRITE;
  call.out32(4, access | (region.mappable ? REGION_MMAP : 0) | (region.edid ? REGION_CAPS : 0), 'flags');
  if (region.bytes === undefined) call.learn64(16, framebufferKey, 'size');
  else call.out64(16, region.bytes, 'size');
  call.out64(24, region.offset, 'offset');
  if (region.edid) edidCapability(call);
}

function edidCapability(call: Call): void {
  const total = REGION_INFO_BYTES + REGION_CAP_TYPE_BYTES;
  const fits = call.struct.u32(0) >= total;
  call.out32(12, fits ? REGION_INFO_BYTES : 0, 'cap_offset');
  if (!fits) {
    call.out32(0, total, 'argsz');
    return;
  }
  call.extentBytes = total;
  const cap = new Uint8Array(REGION_CAP_TYPE_BYTES);
  putU32(cap, 0, REGION_CAP_TYPE | (1 << 16));
  putU32(cap, 8, TYPE_GFX);
  putU32(cap, 12, SUBTYPE_EDID);
  call.outBytes(add(call.arg, REGION_INFO_BYTES), new Bytes(cap), 'type capability');
}

export function displaySetIrqs(call: Call): void {
  refuse(call, R.irqs);
}

// ---- planes ------------------------------------------------------------------------------------------------

export function queryPlane(call: Call, display: DisplayDriver): void {
  const struct = takeStruct(call, PLANE_BYTES, R.argsz);
  if (struct === undefined) return;
  call.extentBytes = PLANE_BYTES;
  const flags = struct.u32(4);
  const way = display === 'mdpy' ? PLANE_REGION : PLANE_DMABUF;
  if ((flags & PLANE_PROBE) !== 0) {
    if (flags !== (PLANE_PROBE | way) && refuse(call, R.flags)) return;
    call.succeed('gfx-plane.probe');
    return;
  }
  if (flags !== way && refuse(call, R.flags)) return;
  if (display === 'mdpy') regionPlane(call);
  else dmabufPlane(call, struct.u32(8));
}

/** The mode is the type of the device that the host made. */
function regionPlane(call: Call): void {
  if (!call.succeed('gfx-plane.region')) return;
  const { name } = deviceOf(call);
  call.learnBytes(add(call.arg, 12), 4, deviceKey(name, 'plane/format'), 'drm_format');
  call.learnBytes(add(call.arg, 24), 16, deviceKey(name, 'plane/mode'), 'width, height, stride and size');
  call.out64(16, 0, 'drm_format_mod');
  call.outBytes(add(call.arg, 40), new Bytes(new Uint8Array(16)), 'positions');
  call.out32(56, MDPY_DISPLAY_REGION, 'region_index');
}

function dmabufPlane(call: Call, plane: number): void {
  const mode = 'the mode that was set in the registers of the display';
  if (plane === PRIMARY_PLANE) {
    call.outUnknown(add(call.arg, 12), PLANE_BYTES - 12, mode);
    call.unknown(mode);
    return;
  }
  if (!call.succeed('gfx-plane.none')) return;
  call.outBytes(add(call.arg, 12), new Bytes(new Uint8Array(PLANE_BYTES - 12)), 'an empty plane');
}

/** QUERY_GFX_PLANE of a mediated device whose driver is not known: a plane that it shows tells. Only after a prediction. */
export function planeShows(call: Call, device: VfioDevice): void {
  if (call.recordedRet !== 0 || call.struct.length < PLANE_BYTES) return;
  const flags = call.struct.u32(4) & ~PLANE_PROBE;
  const index = find(call.memOut, add(call.arg, 56), 4)?.u32(0);
  if (flags === PLANE_REGION && index === MDPY_DISPLAY_REGION) tellDriver(call.tx, device, 'mdpy', call.event.seq);
}
