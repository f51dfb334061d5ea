import type { Call } from '../../call.js';
import type { OpenFile } from '../../files/state.js';
import { deviceOf, patchDevice } from '../devices.js';
import { fdUnknown, lookFd } from '../fd-look.js';
import { takeStruct } from '../payload.js';
import { refuse, type Rule } from '../rules.js';
import type { DeviceIrqs, VfioDevice } from '../state.js';
import {
  IRQ_ACTION_MASK,
  IRQ_ACTION_TRIGGER,
  IRQ_ACTION_UNMASK,
  IRQ_DATA_BOOL,
  IRQ_DATA_EVENTFD,
  IRQ_DATA_NONE,
  IRQ_ERR,
  IRQ_INTX,
  IRQ_MSI,
  IRQ_MSIX,
  PCI_NUM_IRQS,
} from '../uapi.js';
import { displayOf, displaySetIrqs } from './display.js';
import { type IrqOutcome, irqUnknown } from './irq-outcome.js';
import { IRQ_HEAD_BYTES, type IrqRequest, SET_IRQS_RULES as R, validRequest } from './irq-request.js';
import { IRQ_INFO_NO_RESIZE_KNOWN, msiResizes, teachBounds, type VectorBounds, vectorBounds } from './irq-vectors.js';
import { mttyIrqs } from './mtty-irqs.js';
import { unknownSinceText } from '../../answer.js';

/**
 * VFIO_DEVICE_SET_IRQS (`vfio_set_irqs_validate_and_prepare`, vfio_pci_intrs.c). Struct: argsz 0, flags 4, index 8,
 * start 12, count 16, data 20.
 *
 * A device has at most one of INTx, MSI and MSI-X enabled. Setting eventfds enables a kind; DATA_NONE with count 0
 * disables it. MASK and UNMASK exist for INTx only. The error and request interrupts are single triggers that
 * do not exclude anything. DATA_NONE and DATA_BOOL on a trigger are for loopback tests: nothing changes.
 */
export function setIrqs(call: Call): void {
  if (displayOf(deviceOf(call)) !== undefined) return displaySetIrqs(call);
  const struct = takeStruct(call, IRQ_HEAD_BYTES, R.argsz);
  if (struct === undefined) return;
  const device = deviceOf(call);
  call.extentBytes = Math.min(struct.length, struct.u32(0));
  if (device.driver === 'mtty') return mttyIrqs(call, device, struct);
  const bounds = vectorBounds(call.tx, device, struct.u32(8));
  if (device.driver !== 'pci') {
    // What is refused here, all drivers refuse; mtty takes its kinds of interrupts for vectors.
    const request = validRequest(call, struct, Math.max(bounds.most, PCI_NUM_IRQS));
    const happened = request !== undefined && call.unknown('the driver of the device is not known');
    if (happened) patchDevice(call.tx, device.name, { unknownSince: call.event.seq });
    return;
  }
  const request = validRequest(call, struct, bounds.most);
  if (request === undefined) return;
  conclude(call, device, request, pciIrqs(call, device, request), bounds);
}

/** Turns what the driver would do into the prediction, and does it. */
function conclude(
  call: Call,
  device: VfioDevice,
  request: IrqRequest,
  outcome: IrqOutcome,
  bounds: VectorBounds,
): void {
  if (outcome.unknown !== '') call.unknown(outcome.unknown);
  else if (rangeDecides(call, device, request, outcome, bounds)) return;
  if (device.unknownSince >= 0) call.unknown(unknownSinceText('interrupts of the device', device.unknownSince));
  if (outcome.rule !== undefined && refuse(call, outcome.rule)) return;
  if (outcome.after !== undefined && device.irqs.type < 0 && enablingFails(call, outcome.after)) return;
  if (!call.succeed('set-irqs.ok')) return;
  if (outcome.after !== undefined) patchDevice(call.tx, device.name, { irqs: outcome.after });
}

/** What the machine may say to a request that enables a kind. */
const MACHINE_ERRORS: readonly string[] = ['ENODEV', 'EBUSY', 'ENOSPC'];

/**
 * Enabling asks the machine for interrupts. It may have none left; or fewer than asked for, whose number the call then
 * returns, having enabled nothing. True: the call ends here.
 */
function enablingFails(call: Call, after: DeviceIrqs): boolean {
  if (after.type < 0) return false;
  for (const errno of MACHINE_ERRORS)
    if (call.failedByFact(errno, 'what interrupts the machine has left is not in the recording')) return true;
  return after.vectors > 1 && call.succeedUnlessLearned('set-irqs.fewer', 0, (ret) => ret < after.vectors);
}

/**
 * Where it is not known whether the device has the vectors, an EINVAL that nothing else explains says that it has not,
 * and the answer that the request gets then says that it has. True: the call ends here.
 */
function rangeDecides(
  call: Call,
  device: VfioDevice,
  request: IrqRequest,
  outcome: IrqOutcome,
  bounds: VectorBounds,
): boolean {
  const error = outcome.rule?.errno ?? '';
  if (error === R.range.errno || covers(bounds.least, request)) return false;
  const reason = `how many vectors index ${request.index} has was not asked yet (GET_IRQ_INFO), nor read from config space`;
  const part = covers(bounds.usual, request) ? 'usual' : call.partByFact(R.range.errno, reason);
  if (part === 'lacks' || (part === 'usual' && call.failedByFact(R.range.errno, reason))) {
    teachBounds(call, device, request, false);
    return true;
  }
  if (part === 'open') call.unknown(reason);
  if (part === 'has' || (part === 'open' && call.recordedRet !== null && call.recordedErrno === error))
    teachBounds(call, device, request, true);
  return false;
}

function covers(vectors: number, { start, count }: IrqRequest): boolean {
  return start < vectors && start + count <= vectors;
}

// ---- vfio-pci ----------------------------------------------------------------------------------------------

const DONE: IrqOutcome = Object.freeze({ rule: undefined, after: undefined, unknown: '' });

function fails(rule: Rule, after?: DeviceIrqs): IrqOutcome {
  return { rule, after, unknown: '' };
}

function becomes(irqs: DeviceIrqs, patch: Partial<DeviceIrqs>): IrqOutcome {
  return { rule: undefined, after: Object.freeze({ ...irqs, ...patch }), unknown: '' };
}

function pciIrqs(call: Call, device: VfioDevice, request: IrqRequest): IrqOutcome {
  const { index, action } = request;
  const trigger = action === IRQ_ACTION_TRIGGER;
  if (index === IRQ_INTX) {
    if (trigger) return intxTrigger(call, device.irqs, request);
    if (action === IRQ_ACTION_MASK || action === IRQ_ACTION_UNMASK) return intxMask(call, device.irqs, request);
  } else if (trigger) {
    if (index === IRQ_MSI || index === IRQ_MSIX) return msiTrigger(call, device, request);
    return singleTrigger(call, device.irqs, request);
  }
  return fails(R.action);
}

/** The eventfd that vector `i` of the request names: a file, -1 to disable, or how the call ends. */
function eventfdAt(call: Call, request: IrqRequest, i: number): OpenFile | number | IrqOutcome {
  const fd = request.payload.s32(i * 4);
  if (fd < 0) return fd;
  const file = lookFd(call, fd);
  if (file === 'none') return fails(R.badFd);
  if (file === 'unknown') return irqUnknown(fdUnknown(fd));
  return file.kind === 'eventfd' ? file : fails(R.notEventfd);
}

/** An outcome that is not known carries what holds if the call did succeed. */
function orElse(outcome: IrqOutcome, success: IrqOutcome): IrqOutcome {
  return outcome.unknown === '' ? outcome : { ...outcome, after: success.after };
}

const ended = (found: OpenFile | number | IrqOutcome): found is IrqOutcome =>
  typeof found === 'object' && 'unknown' in found;

function intxTrigger(call: Call, irqs: DeviceIrqs, request: IrqRequest): IrqOutcome {
  const enabled = irqs.type === IRQ_INTX;
  if (enabled && request.count === 0 && request.data === IRQ_DATA_NONE)
    return becomes(irqs, { type: -1, vectors: 0, unmaskFile: 0 });
  if (!enabled && irqs.type !== -1) return fails(R.otherKind);
  if (request.start !== 0 || request.count !== 1) return fails(R.single);
  if (request.data !== IRQ_DATA_EVENTFD) return enabled ? DONE : fails(R.notEnabled);
  const found = eventfdAt(call, request, 0);
  const success = enabled ? DONE : becomes(irqs, { type: IRQ_INTX, vectors: 1 });
  return ended(found) ? orElse(found, success) : success;
}

function intxMask(call: Call, irqs: DeviceIrqs, request: IrqRequest): IrqOutcome {
  if (irqs.type !== IRQ_INTX) return fails(R.notEnabled);
  if (request.start !== 0 || request.count !== 1) return fails(R.single);
  if (request.data !== IRQ_DATA_EVENTFD) return DONE;
  if (request.action === IRQ_ACTION_MASK) return fails(R.maskEventfd);
  const found = eventfdAt(call, request, 0);
  if (ended(found)) return found;
  if (typeof found === 'number') return becomes(irqs, { unmaskFile: 0 });
  const busy = irqs.unmaskFile !== 0 && call.tx.world.files.has(irqs.unmaskFile);
  return busy ? fails(R.unmaskBusy) : becomes(irqs, { unmaskFile: found.id });
}

function msiTrigger(call: Call, device: VfioDevice, request: IrqRequest): IrqOutcome {
  const { irqs } = device;
  const { index, start, count } = request;
  const enabled = irqs.type === index;
  if (enabled && count === 0 && request.data === IRQ_DATA_NONE) return becomes(irqs, { type: -1, vectors: 0 });
  if (!enabled && irqs.type !== -1) return fails(R.otherKind);
  if (request.data !== IRQ_DATA_EVENTFD) return enabled ? DONE : fails(R.notEnabled);
  const empty = !enabled && start + count === 0;
  // MSI-X looks at the number of vectors first, MSI at the power state.
  if (empty && index === IRQ_MSIX) return fails(R.noVectors);
  if (!enabled && device.asleep) return fails(R.asleep);
  if (empty) return fails(R.noVectors);
  const vectors = enabled ? irqs.vectors : start + count;
  const success = enabled ? DONE : becomes(irqs, { type: index, vectors });
  for (let i = 0; i < count; i++) {
    const found = vectorOutcome(call, device, request, i, vectors);
    if (found !== undefined) return orElse(found, success);
  }
  return success;
}

/** How one vector of a block ends the call, or undefined when it is set. */
function vectorOutcome(
  call: Call,
  device: VfioDevice,
  request: IrqRequest,
  i: number,
  vectors: number,
): IrqOutcome | undefined {
  const fd = request.payload.s32(i * 4);
  if (fd >= 0 && request.start + i >= vectors) {
    const resizes = msiResizes(call.tx, device, request.index);
    if (resizes === false) return fails(R.vector);
    if (resizes === undefined) return irqUnknown(IRQ_INFO_NO_RESIZE_KNOWN);
  }
  const found = eventfdAt(call, request, i);
  return ended(found) ? found : undefined;
}

function singleTrigger(call: Call, irqs: DeviceIrqs, request: IrqRequest): IrqOutcome {
  const err = request.index === IRQ_ERR;
  const set = err ? irqs.err : irqs.req;
  const change = (on: boolean): IrqOutcome => becomes(irqs, err ? { err: on } : { req: on });
  if (request.data === IRQ_DATA_NONE) {
    if (!set) return fails(R.triggerNone);
    return request.count > 0 ? DONE : change(false);
  }
  if (request.count === 0) return fails(R.triggerCount);
  if (request.data === IRQ_DATA_BOOL) return DONE;
  const found = eventfdAt(call, request, 0);
  if (ended(found)) return orElse(found, change(true));
  if (typeof found === 'number') return found === -1 ? change(false) : fails(R.triggerFd);
  return change(true);
}
