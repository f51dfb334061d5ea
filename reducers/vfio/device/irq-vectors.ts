import type { Call } from '../../call.js';
import type { Tx } from '../../tx.js';
import { deviceKey, numberFact, smallFact, teach } from '../facts.js';
import type { VfioDevice } from '../state.js';
import { IRQ_ERR, IRQ_INFO_NORESIZE, IRQ_INTX, IRQ_MSI, IRQ_MSIX, IRQ_REQ, PCI_CONFIG_REGION } from '../uapi.js';
import { CAP_EXPRESS, CAP_MSI, CAP_MSIX, configOf } from './config-space.js';
import { regionKey } from './region.js';

/**
 * How many vectors a PCI device has of each interrupt (`vfio_pci_get_irq_count`). GET_IRQ_INFO tells, config space tells, and
 * so does a SET_IRQS that was taken or was refused for the range it named: then the number has a bound from then on.
 */
export interface VectorBounds {
  readonly least: number;
  readonly most: number;
  /** What is taken for granted until an answer shows otherwise. */
  readonly usual: number;
}

const CONVENTIONAL_CONFIG_BYTES = 256;
const MSI_MAX = 32;
const MSIX_MAX = 2048;
const INTERRUPT_PIN = 0x3d;

export function irqKey(device: string, index: number, field: string): string {
  return deviceKey(device, `irq${index}/${field}`);
}

export function vectorBounds(tx: Tx, device: VfioDevice, index: number): VectorBounds {
  const known = knownCount(tx, device, index);
  if (known !== undefined) return { least: known, most: known, usual: known };
  const least = smallFact(tx, irqKey(device.name, index, 'count_from')) ?? 0;
  const max = index === IRQ_INTX ? 1 : index === IRQ_MSI ? MSI_MAX : MSIX_MAX;
  const most = smallFact(tx, irqKey(device.name, index, 'count_to')) ?? max;
  // MSI has 1, 2, 4, .. 32 vectors.
  if (index === IRQ_MSI) return { least: powerFrom(least), most: powerTo(most), usual: powerFrom(least) };
  // Nearly every device has a pin for INTx.
  return { least, most, usual: index === IRQ_INTX ? most : least };
}

function powerFrom(count: number): number {
  return count === 0 ? 0 : 2 ** Math.ceil(Math.log2(count));
}

function powerTo(count: number): number {
  return count === 0 ? 0 : 2 ** Math.floor(Math.log2(count));
}

function knownCount(tx: Tx, device: VfioDevice, index: number): number | undefined {
  if (index === IRQ_REQ) return 1;
  if (index === IRQ_ERR) return isExpress(tx, device) ? 1 : 0;
  if (index > IRQ_REQ) return 0;
  return smallFact(tx, irqKey(device.name, index, 'count')) ?? countInConfig(tx, device, index);
}

function countInConfig(tx: Tx, device: VfioDevice, index: number): number | undefined {
  const config = configOf(tx, device);
  if (index === IRQ_INTX) {
    const pin = config.u8(INTERRUPT_PIN);
    return pin === undefined ? undefined : Math.min(pin, 1);
  }
  const at = config.capability(index === IRQ_MSI ? CAP_MSI : CAP_MSIX);
  if (at === undefined || at === 0) return at;
  const control = config.u16(at + 2);
  if (control === undefined) return undefined;
  return index === IRQ_MSI ? 1 << ((control >> 1) & 7) : (control & 0x7ff) + 1;
}

/** PCI Express by its capability or its long config space; a device of which nothing was seen is taken for one. */
export function isExpress(tx: Tx, device: VfioDevice): boolean {
  const at = configOf(tx, device).capability(CAP_EXPRESS);
  if (at !== undefined) return at !== 0;
  return numberFact(tx, regionKey(device.name, PCI_CONFIG_REGION, 'size')) !== CONVENTIONAL_CONFIG_BYTES;
}

/** An answer has shown that the vectors `start..` of a request are there, or that not all are. Only after a prediction. */
export function teachBounds(
  call: Call,
  device: VfioDevice,
  request: { readonly index: number; readonly start: number; readonly count: number },
  taken: boolean,
): void {
  const { index, start, count } = request;
  const needed = Math.max(start + 1, start + count);
  teach(call, irqKey(device.name, index, taken ? 'count_from' : 'count_to'), taken ? needed : needed - 1);
}

export const IRQ_INFO_NO_RESIZE_KNOWN =
  'whether MSI-X vectors can be added while enabled was not asked (GET_IRQ_INFO, flag NORESIZE)';

/** Whether vectors can be added while the kind is enabled: MSI never, MSI-X as GET_IRQ_INFO said. */
export function msiResizes(tx: Tx, device: VfioDevice, index: number): boolean | undefined {
  if (index !== IRQ_MSIX) return false;
  const flags = smallFact(tx, irqKey(device.name, index, 'flags'));
  return flags === undefined ? undefined : (flags & IRQ_INFO_NORESIZE) === 0;
}
