import { Bytes } from '../../../core/bytes.js';
import type { IoEvent } from '../../../core/event.js';
import { hex } from '../../../core/u64.js';
import { regionFieldText } from '../../../core/uapi/region-fields.js';
import type { Call } from '../../call.js';
import { BY_CDEV, isMemoryOn, patchDevice } from '../devices.js';
import { deviceKey, smallFact } from '../facts.js';
import { refuse, type Rule } from '../rules.js';
import type { VfioDevice } from '../state.js';
import {
  PCI_CONFIG_REGION,
  PCI_OFFSET_SHIFT,
  PCI_ROM_REGION,
  PCI_VGA_REGION,
  REGION_CAP_HEAD_BYTES,
  REGION_CAP_TYPE,
  REGION_CAP_TYPE_BYTES,
  REGION_INFO_BYTES,
} from '../uapi.js';
import { CAP_EXPRESS, CAP_PM, type ConfigView, configOf, isPorts, keepConfig, msixTable } from './config-space.js';
import { isVga, regionBytes, regionKey } from './region.js';
import { PAGE_BYTES } from '../../memory/flags.js';

/**
 * Reads and writes of a PCI device's regions, by pread and pwrite on its file (vfio_pci_rdwr.c, vfio_pci_config.c). They are no
 * commands and get no verdict; what they answer is predicted all the same, for whoever looks.
 *
 * An access to config space must lie inside it; one to a BAR ends with the BAR, and needs memory decoding and a device that is
 * awake, unless it touches nothing but the MSI-X table, which nobody reaches. Accesses to config space tell and
 * change what later commands depend on: capabilities (config-space.ts), the command register, which switches memory
 * decoding, and the power state of the PM capability: in D3 a BAR cannot be reached, nor be mapped for DMA.
 */
export const REGION_IO_RULES = {
  noAccess: { id: 'region-io.no-access', errno: 'EINVAL', text: 'a cdev file that has not bound the device' },
  index: { id: 'region-io.index', errno: 'EINVAL', text: 'the device has no region at the offset' },
  config: { id: 'region-io.config', errno: 'EFAULT', text: 'the access ends beyond config space' },
  bar: { id: 'region-io.bar', errno: 'EINVAL', text: 'no such BAR, or the access begins beyond its end' },
  romWrite: { id: 'region-io.rom-write', errno: 'EINVAL', text: 'a write into the ROM' },
  vga: { id: 'region-io.vga', errno: 'EINVAL', text: 'the VGA region of a device that is no VGA controller' },
  memoryOff: {
    id: 'region-io.memory-off',
    errno: 'EIO',
    text: 'a BAR in memory while the device does not decode memory, or sleeps',
  },
} as const satisfies Record<string, Rule>;

const R = REGION_IO_RULES;
const REGION_SPAN = 2n ** BigInt(PCI_OFFSET_SHIFT);
const COMMAND = 4;
const PM_CONTROL = 4;
const PM_STATE_MASK = 3;
const PM_D3 = 3;
/** Config space of a conventional device, and of one of PCI Express. */
const CONFIG_BYTES = 256;
const EXPRESS_CONFIG_BYTES = 4096;
/** PCI Express: device capabilities, of which the top byte says that a function can be reset, and device control. */
const EXPRESS_CAPABILITIES = 7;
const EXPRESS_CONTROL = 9;
const CAN_RESET_FUNCTION = 0x10;
const RESET_FUNCTION = 0x80;

interface Access {
  readonly index: number;
  readonly offset: number;
  readonly count: number;
  readonly writes: boolean;
  readonly data: Bytes;
}

export function regionIo(call: Call): void {
  const event = call.event as IoEvent;
  const device = call.tx.world.devices.get(call.file.objectKey);
  if (device === undefined || event.offset === null) return;
  if (call.file.object === BY_CDEV && device.boundFile !== call.file.id && refuse(call, R.noAccess)) return;
  const access = accessOf(event);
  if (device.driver !== 'pci') call.unknown('how the driver of the device lays out its file');
  else if (access.count === 0) call.succeed('region-io.nothing');
  else predict(call, device, access);
  if (access.index === PCI_CONFIG_REGION && call.recordedRet !== null && call.recordedRet !== -1)
    followConfig(call, device, access);
}

function accessOf(event: IoEvent): Access {
  const place = BigInt(event.offset ?? 0);
  return {
    index: Number(place / REGION_SPAN),
    offset: Number(place % REGION_SPAN),
    count: Number(event.lengthBytes),
    writes: event.call.includes('write'),
    data: event.data,
  };
}

function predict(call: Call, device: VfioDevice, access: Access): void {
  const { index, offset, count } = access;
  if (index > PCI_VGA_REGION) {
    const regions = smallFact(call.tx, deviceKey(device.name, 'num_regions'));
    if (regions !== undefined && index >= regions) refuse(call, R.index);
    else call.unknown('what is in a region of the driver’s own');
  } else if (index === PCI_VGA_REGION) {
    if (isVga(call, device) !== true) refuse(call, R.vga);
    else call.unknown('who owns the VGA resources of the machine');
  } else if (index === PCI_CONFIG_REGION) {
    const size = regionBytes(call, device, index);
    const end = offset + count;
    if (end > (size ?? EXPRESS_CONFIG_BYTES)) refuse(call, R.config);
    else if (size === undefined && end > CONFIG_BYTES) call.unknown(NO_SIZE);
    else call.succeed('region-io.ok', count);
  } else predictBar(call, device, access);
}

const NO_SIZE = 'the size of the region was not asked yet (GET_REGION_INFO)';

function predictBar(call: Call, device: VfioDevice, access: Access): void {
  const { index, offset, count, writes } = access;
  if (index === PCI_ROM_REGION && writes && refuse(call, R.romWrite)) return;
  const size = regionBytes(call, device, index);
  if (size === undefined) {
    call.unknown(NO_SIZE);
    return;
  }
  if (offset >= size && refuse(call, R.bar)) return;
  const done = Math.min(count, Number(size) - offset);
  if (!isMemoryOn(device) && reachesHardware(call, device, index, offset, done)) {
    // BARs of I/O ports have 256 bytes at most.
    const inMemory = index === PCI_ROM_REGION || size >= PAGE_BYTES;
    const ports = inMemory ? false : isPorts(configOf(call.tx, device), index);
    if (ports === undefined) call.unknown('whether the BAR is in memory or of I/O ports');
    else if (!ports && refuse(call, R.memoryOff)) return;
  }
  call.succeed('region-io.ok', done);
}

/** Whether an access goes beyond the MSI-X table, of which reads give ones and writes are dropped. */
function reachesHardware(call: Call, device: VfioDevice, index: number, offset: number, count: number): boolean {
  const table = msixTable(call.tx, device);
  if (table === undefined || table === 'none' || table.bar !== index) return true;
  return offset < table.start || offset + count > table.start + table.bytes;
}

// ---- what config space tells and changes -------------------------------------------------------------------

function followConfig(call: Call, device: VfioDevice, { offset, writes, data }: Access): void {
  if (writes) written(call, device, offset, data);
  else keepConfig(call, device, offset, data);
}

/** The bytes that the user wrote take effect, each by itself. */
function written(call: Call, device: VfioDevice, offset: number, data: Bytes): void {
  const byte = (at: number): number | undefined =>
    data.has(at - offset, 1) && at >= offset ? data.u8(at - offset) : undefined;
  const [low, high] = [byte(COMMAND), byte(COMMAND + 1)];
  const known = device.pciCommand >= 0 || (low !== undefined && high !== undefined);
  const before = Math.max(device.pciCommand, 0);
  const pciCommand = known ? (low ?? before & 0xff) | ((high ?? before >> 8) << 8) : device.pciCommand;
  const asleep = sleeps(configOf(call.tx, device), device.asleep, byte);
  if (pciCommand !== device.pciCommand || asleep !== device.asleep)
    patchDevice(call.tx, device.name, { pciCommand, asleep });
}

/**
 * Whether the device is in D3 after a write. From there it goes back to D0 only, by the power state or by the reset that
 * the bit of PCI Express asks for; D1 and D2 are out of reach.
 */
function sleeps(config: ConfigView, before: boolean, byte: (at: number) => number | undefined): boolean {
  const express = config.capability(CAP_EXPRESS) ?? 0;
  const resets = express !== 0 && ((byte(express + EXPRESS_CONTROL) ?? 0) & RESET_FUNCTION) !== 0;
  if (resets && ((config.u8(express + EXPRESS_CAPABILITIES) ?? 0) & CAN_RESET_FUNCTION) !== 0) return false;
  const pm = config.capability(CAP_PM) ?? 0;
  const control = pm === 0 ? undefined : byte(pm + PM_CONTROL);
  if (control === undefined) return before;
  const state = control & PM_STATE_MASK;
  return state === PM_D3 || (before && state !== 0);
}

// ---- for show ----------------------------------------------------------------------------------------------

/** The place of an access, in words: `config space 0x4`, `BAR 0 0x100`, `region 9 0x0 device_state=RUNNING`. */
export function ioMeaning(call: Call): string {
  const event = call.event as IoEvent;
  const device = call.tx.world.devices.get(call.file.objectKey);
  if (device === undefined || device.driver === 'unknown' || event.offset === null) return '';
  const { index, offset, data } = accessOf(event);
  const field = fieldText(call, device, index, offset, data);
  return `${regionName(index)} ${hex(offset)}${field === '' ? '' : ` ${field}`}`;
}

/** The field of a region that has a type, as its capabilities told. */
function fieldText(call: Call, device: VfioDevice, index: number, offset: number, data: Bytes): string {
  const caps = call.tx.world.facts.get(regionKey(device.name, index, 'caps'))?.value;
  if (!(caps instanceof Bytes)) return '';
  // Offsets in the chain count from the beginning of the struct before it.
  for (let at = 0; caps.has(at, REGION_CAP_HEAD_BYTES); ) {
    if (caps.u16(at) === REGION_CAP_TYPE && caps.has(at, REGION_CAP_TYPE_BYTES))
      return regionFieldText(caps.u32(at + 8), caps.u32(at + 12), offset, data);
    const next = caps.u32(at + 4) - REGION_INFO_BYTES;
    if (next <= at) return '';
    at = next;
  }
  return '';
}

function regionName(index: number): string {
  if (index < PCI_ROM_REGION) return `BAR ${index}`;
  if (index === PCI_ROM_REGION) return 'ROM';
  if (index === PCI_CONFIG_REGION) return 'config space';
  return index === PCI_VGA_REGION ? 'VGA' : `region ${index}`;
}
