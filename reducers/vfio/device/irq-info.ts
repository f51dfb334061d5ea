import { Bytes } from '../../../core/bytes.js';
import type { Call } from '../../call.js';
import type { Tx } from '../../tx.js';
import { deviceOf } from '../devices.js';
import { deviceKey, numberFact, smallFact } from '../facts.js';
import { takeStruct } from '../payload.js';
import { tellDriver } from '../driver.js';
import { refuse, type Rule } from '../rules.js';
import type { VfioDevice } from '../state.js';
import {
  IRQ_ERR,
  IRQ_INFO_AUTOMASKED,
  IRQ_INFO_EVENTFD,
  IRQ_INFO_MASKABLE,
  IRQ_INFO_NORESIZE,
  IRQ_INTX,
  IRQ_MSI,
  IRQ_MSIX,
  IRQ_REQ,
  PCI_CONFIG_REGION,
  PCI_NUM_IRQS,
} from '../uapi.js';
import { regionKey } from './region.js';

/**
 * VFIO_DEVICE_GET_IRQ_INFO (`vfio_pci_ioctl_get_irq_info`, mtty.c). Struct: argsz 0, flags 4, index 8, count 12.
 * How many INTx, MSI and MSI-X vectors there are is the device's; so is whether MSI-X vectors can be added
 * while in use, which depends on the interrupt controller. All else follows from the index.
 */
export const IRQ_INFO_RULES = {
  argsz: { id: 'irq-info.argsz', errno: 'EINVAL', text: 'argsz is less than 16' },
  index: { id: 'irq-info.index', errno: 'EINVAL', text: 'the device has no interrupt of that index' },
  notExpress: {
    id: 'irq-info.not-express',
    errno: 'EINVAL',
    text: 'the error interrupt of a device that is not PCI Express',
  },
} as const satisfies Record<string, Rule>;

const R = IRQ_INFO_RULES;
const STRUCT_BYTES = 16;

export function irqInfo(call: Call): void {
  const struct = takeStruct(call, STRUCT_BYTES, R.argsz);
  if (struct === undefined) return;
  const device = deviceOf(call);
  const index = struct.u32(8);
  call.extentBytes = STRUCT_BYTES;
  if (device.driver === 'mtty') return mttyIrq(call, device, index);
  if (device.driver === 'pci') return pciIrq(call, device, index);
  const told = smallFact(call.tx, irqKey(device.name, index, 'count'));
  const happened =
    told === undefined
      ? call.unknown('which interrupts a device of an unknown driver has')
      : call.succeed('irq-info.ok');
  if (device.driver === 'unknown') requestShows(call, device, index, happened);
  if (!happened) return;
  call.learn32(4, irqKey(device.name, index, 'flags'), 'flags');
  call.learn32(12, irqKey(device.name, index, 'count'), 'count');
}

/** Every PCI device has MSI-X's index and the request interrupt, of which mediated devices have none. */
function requestShows(call: Call, device: VfioDevice, index: number, happened: boolean): void {
  if (index !== IRQ_REQ && index !== IRQ_MSIX) return;
  if (happened) tellDriver(call.tx, device, 'pci', call.event.seq);
  else if (call.recordedErrno === 'EINVAL') tellDriver(call.tx, device, 'mdev', call.event.seq);
}

export function irqKey(device: string, index: number, field: string): string {
  return deviceKey(device, `irq${index}/${field}`);
}

function pciIrq(call: Call, device: VfioDevice, index: number): void {
  if (index >= PCI_NUM_IRQS && refuse(call, R.index)) return;
  if (index === IRQ_ERR && !isExpress(call.tx, device) && refuse(call, R.notExpress)) return;
  if (!call.succeed('irq-info.ok')) return;
  if (index === IRQ_MSIX) call.learn32(4, irqKey(device.name, index, 'flags'), 'flags');
  else {
    const intx = IRQ_INFO_EVENTFD | IRQ_INFO_MASKABLE | IRQ_INFO_AUTOMASKED;
    call.out32(4, index === IRQ_INTX ? intx : IRQ_INFO_EVENTFD | IRQ_INFO_NORESIZE, 'flags');
  }
  if (index === IRQ_ERR || index === IRQ_REQ) call.out32(12, 1, 'count');
  else call.learn32(12, irqKey(device.name, index, 'count'), 'count');
}

function mttyIrq(call: Call, device: VfioDevice, index: number): void {
  const inRange = index < PCI_NUM_IRQS;
  const supported = index === IRQ_INTX || index === IRQ_MSI;
  if (!(inRange && supported) && refuse(call, R.index)) return;
  if (!device.infoAsked) {
    call.unknown('mtty knows its interrupts only after a GET_INFO; whether there was one before is not recorded');
    return;
  }
  if (!call.succeed('irq-info.mtty')) return;
  const intx = IRQ_INFO_EVENTFD | IRQ_INFO_MASKABLE | IRQ_INFO_AUTOMASKED;
  call.out32(4, index === IRQ_INTX ? intx : IRQ_INFO_EVENTFD | IRQ_INFO_NORESIZE, 'flags');
  call.out32(12, 1, 'count');
}

// ---- what is known of a PCI device's interrupts ------------------------------------------------------------

const CAP_MSI = 0x05;
const CAP_EXPRESS = 0x10;
const CAP_MSIX = 0x11;
const CONVENTIONAL_CONFIG_BYTES = 256;

/** Number of vectors of an index, or undefined when neither an answer nor config space has shown it. */
export function irqCount(tx: Tx, device: VfioDevice, index: number): number | undefined {
  if (index >= PCI_NUM_IRQS) return 0;
  if (index === IRQ_REQ) return 1;
  if (index === IRQ_ERR) return isExpress(tx, device) ? 1 : 0;
  const told = smallFact(tx, irqKey(device.name, index, 'count'));
  if (told !== undefined) return told;
  const config = configOf(tx, device);
  if (config === undefined) return index === IRQ_INTX ? 1 : undefined;
  if (index === IRQ_INTX) return config.u8(0x3d) !== 0 ? 1 : 0;
  const at = capability(config, index === IRQ_MSI ? CAP_MSI : CAP_MSIX);
  if (at === undefined) return undefined;
  if (at === 0) return 0;
  if (!config.has(at + 2, 2)) return undefined;
  const control = config.u16(at + 2);
  return index === IRQ_MSI ? 1 << ((control >> 1) & 7) : (control & 0x7ff) + 1;
}

/** Most vectors that any device has of an index. */
export function irqCountMax(index: number): number {
  if (index === IRQ_MSI) return 32;
  return index === IRQ_MSIX ? 2048 : 1;
}

/** PCI Express by its capability or its long config space; a device of which nothing was seen is taken for one. */
function isExpress(tx: Tx, device: VfioDevice): boolean {
  const config = configOf(tx, device);
  const at = config === undefined ? undefined : capability(config, CAP_EXPRESS);
  if (at !== undefined) return at !== 0;
  return numberFact(tx, regionKey(device.name, PCI_CONFIG_REGION, 'size')) !== CONVENTIONAL_CONFIG_BYTES;
}

function configOf(tx: Tx, device: VfioDevice): Bytes | undefined {
  const config = tx.world.facts.get(deviceKey(device.name, 'config'))?.value;
  return config instanceof Bytes && config.length >= 64 ? config : undefined;
}

/** Offset of a capability in config space, 0 when there is none, undefined when the bytes end before that is clear. */
export function capability(config: Bytes, id: number): number | undefined {
  let at = config.u8(0x34) & 0xfc;
  for (let hops = 0; at !== 0 && hops < 48; hops++) {
    if (!config.has(at, 2)) return undefined;
    if (config.u8(at) === id) return at;
    at = config.u8(at + 1) & 0xfc;
  }
  return 0;
}

/** Where the MSI-X table of a PCI device lies: BAR, offset, bytes. undefined when config space was not read. */
export function msixTable(
  tx: Tx,
  device: VfioDevice,
): { bar: number; start: number; bytes: number } | 'none' | undefined {
  const config = configOf(tx, device);
  const at = config === undefined ? undefined : capability(config, CAP_MSIX);
  if (config === undefined || at === undefined) return undefined;
  if (at === 0) return 'none';
  if (!config.has(at, 8)) return undefined;
  const table = config.u32(at + 4);
  return { bar: table & 7, start: (table & ~7) >>> 0, bytes: ((config.u16(at + 2) & 0x7ff) + 1) * 16 };
}
