import { find } from '../../answer.js';
import type { Call } from '../../call.js';
import { deviceOf } from '../devices.js';
import { smallFact } from '../facts.js';
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
  PCI_NUM_IRQS,
} from '../uapi.js';
import { displayOf } from './display.js';
import { irqKey, isExpress } from './irq-vectors.js';
import { mttyUntold } from './mtty-irqs.js';

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
  if (displayOf(device) !== undefined) return displayIrq(call, device, index);
  if (device.driver === 'pci') return pciIrq(call, device, index);
  const told = smallFact(call.tx, irqKey(device.name, index, 'count'));
  const happened =
    told === undefined
      ? call.succeedByFact('irq-info.ok', 'which interrupts a device of an unknown driver has')
      : call.succeed('irq-info.ok');
  if (device.driver === 'unknown') requestShows(call, device, index, happened);
  if (!happened) return;
  call.learn32(4, irqKey(device.name, index, 'flags'), 'flags');
  call.learn32(12, irqKey(device.name, index, 'count'), 'count');
}

/**
 * Every PCI device has MSI-X's index and the request interrupt. Of mediated devices some have neither, and the displays no
 * vectors of any, and no flags but the caller's.
 */
function requestShows(call: Call, device: VfioDevice, index: number, happened: boolean): void {
  if (index !== IRQ_REQ && index !== IRQ_MSIX) return;
  if (!happened) {
    if (call.recordedErrno === 'EINVAL') tellDriver(call.tx, device, 'mdev', call.event.seq);
    return;
  }
  const told = find(call.memOut, call.arg, STRUCT_BYTES);
  if (told === undefined) return;
  const signals = (told.u32(4) & ~call.struct.u32(4) & IRQ_INFO_EVENTFD) !== 0;
  const pci = index === IRQ_REQ ? told.u32(12) === 1 : signals;
  if (pci) tellDriver(call.tx, device, 'pci', call.event.seq);
  else if (index === IRQ_REQ) tellDriver(call.tx, device, 'mdev', call.event.seq);
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

/** mdpy counts its interrupts by what a GET_INFO said, as mtty does; there are no vectors of any. */
function displayIrq(call: Call, device: VfioDevice, index: number): void {
  if (index >= PCI_NUM_IRQS && refuse(call, R.index)) return;
  if (device.driver === 'mdpy' && mttyUntold(call, device, R.index)) return;
  if (call.succeed('irq-info.display')) call.out32(12, 0, 'count');
}

function mttyIrq(call: Call, device: VfioDevice, index: number): void {
  const inRange = index < PCI_NUM_IRQS;
  const supported = index === IRQ_INTX || index === IRQ_MSI;
  if (!(inRange && supported) && refuse(call, R.index)) return;
  if (mttyUntold(call, device, R.index)) return;
  if (!call.succeed('irq-info.mtty')) return;
  const intx = IRQ_INFO_EVENTFD | IRQ_INFO_MASKABLE | IRQ_INFO_AUTOMASKED;
  call.out32(4, index === IRQ_INTX ? intx : IRQ_INFO_EVENTFD | IRQ_INFO_NORESIZE, 'flags');
  call.out32(12, 1, 'count');
}
