import type { Bytes } from '../../../core/bytes.js';
import type { Call } from '../../call.js';
import { patchDevice } from '../devices.js';
import { deviceKey, smallFact, teach } from '../facts.js';
import { fdUnknown, lookFd } from '../fd-look.js';
import { refuse, type Rule } from '../rules.js';
import type { VfioDevice } from '../state.js';
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
import { unknownSinceText } from '../../answer.js';

/**
 * SET_IRQS of mtty (samples/vfio-mdev/mtty.c, `mtty_set_irqs`). It takes the number of interrupt kinds for the number
 * of vectors of each, and has INTx and MSI with one eventfd each. Setting an eventfd drops the one before, even
 * when the new fd is bad. A request without any action succeeds and does nothing.
 *
 * It has no interrupts at all before the first GET_INFO in its life, of which the recording may not tell. The answer to a
 * request that is valid otherwise does.
 */
export function mttyIrqs(call: Call, device: VfioDevice, struct: Bytes): void {
  const request = validRequest(call, struct, PCI_NUM_IRQS);
  if (request === undefined) return;
  const { index, action } = request;
  if (device.unknownSince >= 0) call.unknown(unknownSinceText('interrupts of the device', device.unknownSince));
  if (index !== IRQ_INTX && index !== IRQ_MSI) unlessUntold(call, device, R.action);
  else if (action === IRQ_ACTION_MASK || action === IRQ_ACTION_UNMASK) mask(call, device, request);
  else if (action === IRQ_ACTION_TRIGGER) trigger(call, device, request);
  else if (!mttyUntold(call, device)) call.succeed('set-irqs.mtty-nothing');
}

/** Predicts an error other than the one that a device without interrupts gives. True: the call ends here. */
function unlessUntold(call: Call, device: VfioDevice, rule: Rule): boolean {
  return mttyUntold(call, device) || refuse(call, rule);
}

/** Whether the device has no interrupts yet. True: the prediction ends the call. */
export function mttyUntold(call: Call, device: VfioDevice, rule: Rule = R.range): boolean {
  if (device.infoAsked) return false;
  const key = deviceKey(device.name, 'irqs_untold');
  if (smallFact(call.tx, key) === 1) return refuse(call, rule);
  const reason = 'mtty has interrupts only after a GET_INFO; whether there was one before is not recorded';
  const part = call.partByFact(rule.errno, reason);
  if (part === 'lacks') teach(call, key, 1);
  else if (part === 'has') patchDevice(call.tx, device.name, { infoAsked: true });
  return part === 'lacks';
}

function mask(call: Call, device: VfioDevice, request: IrqRequest): void {
  if (request.index === IRQ_MSI && unlessUntold(call, device, R.action)) return;
  if (device.irqs.type !== IRQ_INTX && refuse(call, R.notEnabled)) return;
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
  const wrongKind = typeof file === 'object' && file.kind !== 'eventfd';
  if (!wrongKind && mttyUntold(call, device)) return;
  if (fd >= 0 && file === 'unknown') {
    if (call.unknown(fdUnknown(fd))) become(request.index);
    return;
  }
  if (fd >= 0 && (file === 'none' || wrongKind)) {
    const stop = refuse(call, file === 'none' ? R.badFd : R.notEventfd);
    become(stop ? -1 : request.index);
    return;
  }
  if (call.succeed('set-irqs.mtty-eventfd')) become(fd < 0 ? -1 : request.index);
}
