import { Bytes } from '../../../core/bytes.js';
import { add } from '../../../core/u64.js';
import type { Call } from '../../call.js';
import { deviceOf, patchDevice } from '../devices.js';
import { deviceKey } from '../facts.js';
import { takeStruct } from '../payload.js';
import { displayInfo, displayOf } from './display.js';
import type { Rule } from '../rules.js';
import { DEVICE_FLAG_CAPS, DEVICE_FLAG_PCI, PCI_NUM_IRQS, PCI_NUM_REGIONS } from '../uapi.js';

/**
 * VFIO_DEVICE_GET_INFO (`vfio_pci_ioctl_get_info`, mtty.c). Struct: argsz 0, flags 4, num_regions 8, num_irqs 12,
 * cap_offset 16, pad 20. Whether the device can be reset, how many regions it has, and its one capability
 * (atomic operations) are the machine's; PCI devices always have five kinds of interrupt. mtty has no
 * capabilities, and writes the fields up to num_irqs only.
 */
export const DEVICE_INFO_RULES = {
  argsz: { id: 'device-info.argsz', errno: 'EINVAL', text: 'argsz is less than 16' },
} as const satisfies Record<string, Rule>;

const MIN_BYTES = 16;
const STRUCT_BYTES = 24;
/** Header and flags of the capability of atomic operations, rounded up to 8. */
const ATOMIC_CAP_BYTES = 16;

export function deviceInfo(call: Call): void {
  const struct = takeStruct(call, MIN_BYTES, DEVICE_INFO_RULES.argsz);
  if (struct === undefined) return;
  const device = deviceOf(call);
  const argsz = struct.u32(0);
  call.extentBytes = Math.min(argsz, STRUCT_BYTES);
  if (!call.succeed('device-info.ok')) return;
  patchDevice(call.tx, device.name, { infoAsked: true });
  const display = displayOf(device);
  if (display !== undefined) return displayInfo(call, display);
  if (device.driver === 'mtty') {
    call.out32(4, DEVICE_FLAG_PCI, 'flags');
    call.out32(8, PCI_NUM_REGIONS, 'num_regions');
    call.out32(12, PCI_NUM_IRQS, 'num_irqs');
    return;
  }
  const flags = call.learn32(4, deviceKey(device.name, 'flags'), 'flags');
  call.learn32(8, deviceKey(device.name, 'num_regions'), 'num_regions');
  if (device.driver === 'unknown') call.extentBytes = MIN_BYTES;
  if (device.driver === 'pci') call.out32(12, PCI_NUM_IRQS, 'num_irqs');
  else call.learn32(12, deviceKey(device.name, 'num_irqs'), 'num_irqs');
  if (device.driver === 'pci' && flags !== undefined) capabilities(call, device.name, argsz, flags);
}

function capabilities(call: Call, name: string, argsz: number, flags: number): void {
  const has = (flags & DEVICE_FLAG_CAPS) !== 0;
  const fits = has && argsz >= STRUCT_BYTES + ATOMIC_CAP_BYTES;
  const tail = new Uint8Array(Math.max(0, call.extentBytes - MIN_BYTES));
  if (fits) tail[0] = STRUCT_BYTES;
  if (tail.length > 0) call.outBytes(add(call.arg, MIN_BYTES), new Bytes(tail), 'cap_offset');
  if (has && !fits) call.out32(0, STRUCT_BYTES + ATOMIC_CAP_BYTES, 'argsz');
  if (!fits) return;
  call.extentBytes = STRUCT_BYTES + ATOMIC_CAP_BYTES;
  call.learnBytes(add(call.arg, STRUCT_BYTES), ATOMIC_CAP_BYTES, deviceKey(name, 'caps'), 'capabilities');
}
