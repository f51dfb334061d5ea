import { Bytes, putU32 } from '../../../core/bytes.js';
import { add, mul, type U64 } from '../../../core/u64.js';
import { find } from '../../answer.js';
import type { Call } from '../../call.js';
import { displayOfFramebuffer } from '../../devices/vfio-display.js';
import { mttyRegionBytes } from '../../devices/vfio-mtty.js';
import { deviceOf } from '../devices.js';
import { deviceKey, numberFact, smallFact, teach } from '../facts.js';
import { takeStruct } from '../payload.js';
import { tellDriver } from '../driver.js';
import { refuse, type Rule } from '../rules.js';
import type { VfioDevice } from '../state.js';
import {
  PCI_CONFIG_REGION,
  PCI_NUM_REGIONS,
  PCI_OFFSET_SHIFT,
  PCI_ROM_REGION,
  PCI_VGA_REGION,
  REGION_CAP_HEAD_BYTES,
  REGION_CAP_MSIX_MAPPABLE,
  REGION_CAP_SPARSE_MMAP,
  REGION_CAP_TYPE,
  REGION_CAP_TYPE_BYTES,
  REGION_CAPS,
  REGION_INFO_BYTES,
  REGION_MMAP,
  REGION_READ,
  REGION_WRITE,
} from '../uapi.js';
import { configOf, isPorts, msixTable } from './config-space.js';
import { displayOf, displayRegionInfo } from './display.js';
import { PAGE_BYTES } from '../../memory/flags.js';

/**
 * VFIO_DEVICE_GET_REGION_INFO (`vfio_get_region_info`, then the driver's part). Struct: argsz 0, flags 4, index 8,
 * cap_offset 12, size 16, offset 24.
 *
 * Sizes of regions and whether they can be mapped are the machine's. What PCI drivers have in common is predicted: the
 * place of a region in the device file, the flags of config space, and the one capability of a BAR, which says that
 * the MSI-X table inside may be mapped. cap_offset keeps the caller's value when there is no capability.
 */
export const REGION_RULES = {
  argsz: { id: 'region-info.argsz', errno: 'EINVAL', text: 'argsz is less than 32' },
  vga: { id: 'region-info.vga', errno: 'EINVAL', text: 'the VGA region of a device that is no VGA controller' },
  index: { id: 'region-info.index', errno: 'EINVAL', text: 'the device has no region of that index' },
} as const satisfies Record<string, Rule>;

const R = REGION_RULES;
const MSIX_CAP_BYTES = 8;
const MAX_CAPS_BYTES = 1 << 16;
const CAP_SPARSE_HEAD_BYTES = 16;
const CAP_AREA_BYTES = 16;
/** Of the VGA region: all addresses below 1 MiB that a VGA controller may decode. */
const VGA_BYTES = 0xc_0000;
/** Size of mtty's config space, which no PCI device has. */
const MTTY_CONFIG_BYTES = 0xff;

export function regionInfo(call: Call): void {
  const struct = takeStruct(call, REGION_INFO_BYTES, R.argsz);
  if (struct === undefined) return;
  const device = deviceOf(call);
  const index = struct.u32(8);
  call.extentBytes = REGION_INFO_BYTES;
  if (device.driver === 'mtty') return mttyRegion(call, device, index);
  const display = displayOf(device);
  if (display !== undefined) return displayRegionInfo(call, display, index, R.index, regionKey(device.name, 0, 'size'));
  if (device.driver === 'unknown' && index === PCI_VGA_REGION) {
    call.unknown('the driver of the device is not known');
    return;
  }
  if (device.driver === 'pci' && index === PCI_VGA_REGION && vgaRefused(call, device)) return;
  const regions = smallFact(call.tx, deviceKey(device.name, 'num_regions'));
  if (regions === undefined && device.driver !== 'pci' && index >= PCI_NUM_REGIONS) {
    call.unknown('how many regions the device has was not asked yet (GET_INFO)');
    return;
  }
  if (index >= (regions ?? PCI_NUM_REGIONS) && refuse(call, R.index)) return;
  if (!call.succeed('region-info.ok')) return;
  outOffset(call, device, index);
  const size = learnSize(call, device, index);
  const flags = device.driver === 'pci' ? pciFlags(call, device, index, size) : learnFlags(call, device, index);
  if (size !== undefined) placeShows(call, device, index, size);
  if (flags !== undefined && (flags & REGION_CAPS) !== 0) capabilities(call, device, index);
}

/** The size of config space, and where the first BAR is, tell the kernel's sample devices and PCI devices from each other. */
function placeShows(call: Call, device: VfioDevice, index: number, size: U64): void {
  if (device.driver === 'pci') return;
  const offset = numberFact(call.tx, regionKey(device.name, index, 'offset'));
  const inOrder = offset === offsetOf(index);
  const { seq } = call.event;
  if (index === PCI_CONFIG_REGION && size === MTTY_CONFIG_BYTES && inOrder) tellDriver(call.tx, device, 'mtty', seq);
  else if (index === PCI_CONFIG_REGION && (size === 256 || size === 4096)) tellDriver(call.tx, device, 'pci', seq);
  const display = index === 0 && offset !== undefined ? displayOfFramebuffer(offset) : undefined;
  if (display !== undefined) tellDriver(call.tx, device, display, seq);
}

export function regionKey(device: string, index: number, field: string): string {
  return deviceKey(device, `region${index}/${field}`);
}

/** Size of a region in bytes, when the recording has told it. */
export function regionBytes(call: Call, device: VfioDevice, index: number): number | bigint | undefined {
  if (device.driver === 'mtty') return mttyRegionBytes(index, portsOf(call, device));
  return numberFact(call.tx, regionKey(device.name, index, 'size'));
}

export function portsOf(call: Call, device: VfioDevice): number | undefined {
  return smallFact(call.tx, deviceKey(device.name, 'ports'));
}

/** An answer showed how many ports an mtty has. */
export function teachPorts(call: Call, device: VfioDevice, ports: number): void {
  if (portsOf(call, device) !== ports) teach(call, deviceKey(device.name, 'ports'), ports);
}

/** A device whose class was not read is taken for no VGA controller until an answer shows that it is one. */
function vgaRefused(call: Call, device: VfioDevice): boolean {
  const vga = isVga(call, device);
  if (vga === undefined) return call.failUnlessLearned(R.vga.errno, R.vga.id);
  return !vga && refuse(call, R.vga);
}

/** Class code 03 00 in config space; undefined while that was not read. */
export function isVga(call: Call, device: VfioDevice): boolean | undefined {
  const code = configOf(call.tx, device).u16(0x0a);
  return code === undefined ? undefined : code === 0x0300;
}

function outOffset(call: Call, device: VfioDevice, index: number): void {
  if (device.driver === 'pci') call.out64(24, offsetOf(index), 'offset');
  else call.learn64(24, regionKey(device.name, index, 'offset'), 'offset');
}

function offsetOf(index: number): number | bigint {
  return mul(index, 2 ** PCI_OFFSET_SHIFT);
}

function learnSize(call: Call, device: VfioDevice, index: number): U64 | undefined {
  if (device.driver !== 'pci' || index !== PCI_VGA_REGION)
    return call.learn64(16, regionKey(device.name, index, 'size'), 'size');
  call.out64(16, VGA_BYTES, 'size');
  return VGA_BYTES;
}

function learnFlags(call: Call, device: VfioDevice, index: number): number | undefined {
  return call.learn32(4, regionKey(device.name, index, 'flags'), 'flags');
}

/** What follows from a region's kind and size; whether a BAR can be mapped, and has the MSI-X table in it, is the machine's. */
function pciFlags(call: Call, device: VfioDevice, index: number, size: U64 | undefined): number | undefined {
  if (index > PCI_VGA_REGION) return learnFlags(call, device, index);
  let [fixed, open] = [REGION_READ | REGION_WRITE, 0];
  if (index <= PCI_ROM_REGION) {
    if (size === undefined) return undefined;
    if (index === PCI_ROM_REGION) fixed = REGION_READ;
    else open = openFlags(call, device, index, size);
    if (size === 0) [fixed, open] = [0, 0];
  }
  return learnSome(call, regionKey(device.name, index, 'flags'), fixed, open);
}

/** A BAR of ports cannot be mapped, one that shares its page may not be; the MSI-X table is in one BAR at most. */
function openFlags(call: Call, device: VfioDevice, index: number, size: U64): number {
  const ports = size < PAGE_BYTES && isPorts(configOf(call.tx, device), index) === true;
  if (ports) return 0;
  const table = msixTable(call.tx, device);
  const hasTable = table === undefined || (table !== 'none' && table.bar === index);
  return REGION_MMAP | (hasTable ? REGION_CAPS : 0);
}

/** Flags of which some are known beforehand; the `open` ones are learned. */
function learnSome(call: Call, key: string, fixed: number, open: number): number | undefined {
  const known = smallFact(call.tx, key);
  if (known !== undefined) {
    call.out32(4, known, 'flags');
    return known;
  }
  const told = find(call.memOut, add(call.arg, 4), 4)?.u32(0);
  if (open === 0) call.out32(4, fixed, 'flags');
  if (told === undefined || open === 0) return open === 0 ? fixed : undefined;
  const flags = fixed | (told & open);
  call.out32(4, flags, 'flags');
  teach(call, key, flags);
  return flags;
}

// ---- capabilities ------------------------------------------------------------------------------------------

function capabilities(call: Call, device: VfioDevice, index: number): void {
  const bar = device.driver === 'pci' && index < PCI_ROM_REGION;
  const capsBytes = bar ? MSIX_CAP_BYTES : capsLength(call, device, index);
  if (capsBytes === undefined) {
    call.outUnknown(call.arg, 16, 'capabilities of the region are not in the recording');
    return;
  }
  const fits = call.struct.u32(0) >= REGION_INFO_BYTES + capsBytes;
  call.out32(12, fits ? REGION_INFO_BYTES : 0, 'cap_offset');
  if (!fits) {
    call.out32(0, REGION_INFO_BYTES + capsBytes, 'argsz');
    return;
  }
  call.extentBytes = REGION_INFO_BYTES + capsBytes;
  const at = add(call.arg, REGION_INFO_BYTES);
  if (bar) {
    const cap = new Uint8Array(MSIX_CAP_BYTES);
    putU32(cap, 0, REGION_CAP_MSIX_MAPPABLE | (1 << 16));
    call.outBytes(at, new Bytes(cap), 'MSI-X mappable capability');
  } else {
    call.learnBytes(at, capsBytes, regionKey(device.name, index, 'caps'), 'capabilities');
  }
}

/** Length of the chain of a region of the driver's own kind: known, or told by the chain or by the argsz that comes back. */
function capsLength(call: Call, device: VfioDevice, index: number): number | undefined {
  const key = regionKey(device.name, index, 'caps_bytes');
  const known = smallFact(call.tx, key);
  if (known !== undefined) return known;
  const told = find(call.memOut, call.arg, 16);
  if (told === undefined) return undefined;
  const bytes = told.u32(12) === 0 ? told.u32(0) - REGION_INFO_BYTES : chainBytes(call, device, told.u32(12));
  if (bytes === undefined || bytes < MSIX_CAP_BYTES || bytes > MAX_CAPS_BYTES) return undefined;
  teach(call, key, bytes);
  return bytes;
}

/**
 * Length of a chain that came back. Each capability but the last says where the next one is; the end of the last follows
 * from its kind. That the MSI-X table may be mapped is said by vfio-pci alone.
 */
function chainBytes(call: Call, device: VfioDevice, first: number): number | undefined {
  const at = first < REGION_INFO_BYTES ? undefined : lastCapability(call, device, first);
  const header = at === undefined ? undefined : find(call.memOut, add(call.arg, at), REGION_CAP_HEAD_BYTES);
  if (at === undefined || header === undefined) return undefined;
  const rest = at - REGION_INFO_BYTES;
  if (header.u16(0) === REGION_CAP_MSIX_MAPPABLE) return rest + REGION_CAP_HEAD_BYTES;
  if (header.u16(0) === REGION_CAP_TYPE) return rest + REGION_CAP_TYPE_BYTES;
  const areas = find(call.memOut, add(call.arg, at + REGION_CAP_HEAD_BYTES), 4)?.u32(0);
  if (header.u16(0) !== REGION_CAP_SPARSE_MMAP || areas === undefined) return undefined;
  return rest + CAP_SPARSE_HEAD_BYTES + areas * CAP_AREA_BYTES;
}

function lastCapability(call: Call, device: VfioDevice, first: number): number | undefined {
  for (let at = first; ; ) {
    const header = find(call.memOut, add(call.arg, at), REGION_CAP_HEAD_BYTES);
    if (header === undefined) return undefined;
    if (header.u16(0) === REGION_CAP_MSIX_MAPPABLE) tellDriver(call.tx, device, 'pci', call.event.seq);
    const next = header.u32(4);
    if (next === 0) return at;
    if (next <= at) return undefined;
    at = next;
  }
}

// ---- mtty --------------------------------------------------------------------------------------------------

function mttyRegion(call: Call, device: VfioDevice, index: number): void {
  if (index >= PCI_NUM_REGIONS && refuse(call, R.index)) return;
  if (!call.succeed('region-info.mtty')) return;
  call.out32(4, REGION_READ | REGION_WRITE, 'flags');
  call.out64(24, offsetOf(index), 'offset');
  let bytes = mttyRegionBytes(index, portsOf(call, device));
  if (bytes === undefined) {
    const told = find(call.memOut, add(call.arg, 16), 8)?.u64(0);
    if (told === undefined) return;
    const ports = told === 0 ? 1 : 2;
    teachPorts(call, device, ports);
    bytes = mttyRegionBytes(index, ports) ?? 0;
  }
  call.out64(16, bytes, 'size');
}
