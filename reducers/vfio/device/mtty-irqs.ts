import type { Bytes } from '../../../core/bytes.js';
import type { Call } from '../../call.js';
import { patchDevice } from '../devices.js';
import { fdUnknown, lookFd } from '../fd-look.js';
import { refuse } from '../rules.js';
import type { DeviceIrqs, VfioDevice } from '../state.js';
import {
  IRQ_ACTION_MASK,
  IRQ_ACTION_TRIGGER,
  IRQ_ACTION_UNMASK,
  IRQ_DATA_EVENTFD,
  IRQ_DATA_NONE,
  IRQ_INTX,
  IRQ_MSI,
  PCI_NUM_IRQS,
} from '../uapi.js';
import { type IrqRequest, SET_IRQS_RULES as R, validRequest } from './irq-request.js';

/**
 * SET_IRQS of mtty (samples/vfio-mdev/mtty.c, `mtty_set_irqs`). It takes the number of interrupt kinds for the number
 * of vectors of each, and has INTx and MSI with one eventfd each. Setting an eventfd drops the one before, even
 * when the new fd is bad. A request without any action succeeds and does nothing.
 */
export function mttyIrqs(call: Call, device: VfioDevice, struct: Bytes): void {
  if (!device.infoAsked) {
    call.unknown('mtty has interrupts only after a GET_INFO; whether there was one before is not recorded');
    return;
  }
  const request = validRequest(call, struct, PCI_NUM_IRQS);
  if (request === undefined) return;
  const { index, action } = request;
  if (index !== IRQ_INTX && index !== IRQ_MSI && refuse(call, R.action)) return;
  if (action === IRQ_ACTION_MASK || action === IRQ_ACTION_UNMASK) return mask(call, device.irqs, request);
  if (action === IRQ_ACTION_TRIGGER) return trigger(call, device, request);
  call.succeed('set-irqs.mtty-nothing');
}

function mask(call: Call, irqs: DeviceIrqs, request: IrqRequest): void {
  if (request.index === IRQ_MSI && refuse(call, R.action)) return;
  if (irqs.type !== IRQ_INTX && refuse(call, R.notEnabled)) return;
  if ((request.start !== 0 || request.count !== 1) && refuse(call, R.single)) return;
  if (request.data === IRQ_DATA_EVENTFD && refuse(call, R.maskEventfd)) return;
  call.succeed('set-irqs.mtty-mask');
}

function trigger(call: Call, device: VfioDevice, request: IrqRequest): void {
  const { irqs } = device;
  const enabled = irqs.type === request.index;
  const become = (type: number): void =>
    patchDevice(call.tx, device.name, { irqs: Object.freeze({ ...irqs, type, vectors: type < 0 ? 0 : 1 }) });
  if (enabled && request.count === 0 && request.data === IRQ_DATA_NONE) {
    if (call.succeed('set-irqs.mtty-off')) become(-1);
    return;
  }
  if (!enabled && irqs.type !== -1 && refuse(call, R.otherKind)) return;
  if ((request.start !== 0 || request.count !== 1) && refuse(call, R.single)) return;
  if (request.data !== IRQ_DATA_EVENTFD) {
    if (!enabled && refuse(call, R.notEnabled)) return;
    call.succeed('set-irqs.mtty-loopback');
    return;
  }
  const fd = request.payload.s32(0);
  const file = lookFd(call, fd);
  if (fd >= 0 && file === 'unknown') {
    if (call.unknown(fdUnknown(fd))) become(request.index);
    return;
  }
  if (fd >= 0 && (file === 'none' || (file !== 'unknown' && file.kind !== 'eventfd'))) {
    const stop = refuse(call, file === 'none' ? R.badFd : R.notEventfd);
    become(stop ? -1 : request.index);
    return;
  }
  if (call.succeed('set-irqs.mtty-eventfd')) become(fd < 0 ? -1 : request.index);
}
