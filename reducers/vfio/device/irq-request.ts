import type { Bytes } from '../../../core/bytes.js';
import type { Call } from '../../call.js';
import { refuse, type Rule } from '../rules.js';
import {
  IRQ_ACTION_MASK,
  IRQ_ACTION_TRIGGER,
  IRQ_ACTION_UNMASK,
  IRQ_DATA_BOOL,
  IRQ_DATA_EVENTFD,
  IRQ_DATA_NONE,
  PCI_NUM_IRQS,
} from '../uapi.js';

/**
 * What all drivers check of a request to set interrupts (`vfio_set_irqs_validate_and_prepare`), and the rules of
 * VFIO_DEVICE_SET_IRQS in the kernel's order. Struct: argsz 0, flags 4, index 8, start 12, count 16, data 20.
 */
export const SET_IRQS_RULES = {
  argsz: { id: 'set-irqs.argsz', errno: 'EINVAL', text: 'argsz is less than 20' },
  header: {
    id: 'set-irqs.header',
    errno: 'EINVAL',
    text: 'index is 5 or more, start + count passes 2^32, or an unknown flag',
  },
  range: { id: 'set-irqs.range', errno: 'EINVAL', text: 'start and count go beyond the vectors of the index' },
  dataType: { id: 'set-irqs.data-type', errno: 'EINVAL', text: 'not exactly one of the three types of data' },
  dataSize: { id: 'set-irqs.data-size', errno: 'EINVAL', text: 'argsz does not hold the data of count vectors' },
  action: {
    id: 'set-irqs.action',
    errno: 'ENOTTY',
    text: 'no or several actions, or one that the index does not have (MASK and UNMASK are for INTx only)',
  },
  otherKind: { id: 'set-irqs.other-kind', errno: 'EINVAL', text: 'another of INTx, MSI and MSI-X is enabled' },
  single: { id: 'set-irqs.single', errno: 'EINVAL', text: 'INTx: start is not 0 or count is not 1' },
  notEnabled: {
    id: 'set-irqs.not-enabled',
    errno: 'EINVAL',
    text: 'the kind is not enabled, and the data sets no eventfds',
  },
  maskEventfd: { id: 'set-irqs.mask-eventfd', errno: 'ENOTTY', text: 'INTx: masking by an eventfd' },
  badFd: { id: 'set-irqs.fd', errno: 'EBADF', text: 'an eventfd is not open' },
  notEventfd: { id: 'set-irqs.not-eventfd', errno: 'EINVAL', text: 'an fd is no eventfd' },
  unmaskBusy: { id: 'set-irqs.unmask-busy', errno: 'EBUSY', text: 'INTx: an eventfd unmasks it already' },
  noVectors: { id: 'set-irqs.no-vectors', errno: 'ERANGE', text: 'eventfds for no vectors enable nothing' },
  asleep: { id: 'set-irqs.asleep', errno: 'EINVAL', text: 'MSI or MSI-X is to be enabled while the device is in D3' },
  vector: {
    id: 'set-irqs.vector',
    errno: 'EINVAL',
    text: 'a vector beyond those that were allocated, and the kind cannot grow while enabled',
  },
  triggerNone: {
    id: 'set-irqs.trigger-none',
    errno: 'EINVAL',
    text: 'error or request: DATA_NONE, and no eventfd is set',
  },
  triggerCount: { id: 'set-irqs.trigger-count', errno: 'EINVAL', text: 'error or request: no data for a vector' },
  triggerFd: { id: 'set-irqs.trigger-fd', errno: 'EINVAL', text: 'error or request: the fd is less than -1' },
} as const satisfies Record<string, Rule>;

const R = SET_IRQS_RULES;
export const IRQ_HEAD_BYTES = 20;
const DATA_MASK = IRQ_DATA_NONE | IRQ_DATA_BOOL | IRQ_DATA_EVENTFD;
const ACTION_MASK = IRQ_ACTION_MASK | IRQ_ACTION_UNMASK | IRQ_ACTION_TRIGGER;
const U32_MAX = 0xffff_ffff;

/** A request whose header is valid. */
export interface IrqRequest {
  readonly data: number;
  readonly action: number;
  readonly index: number;
  readonly start: number;
  readonly count: number;
  readonly payload: Bytes;
}

/**
 * The checks that all drivers share. `most`: vectors that the index has at most; where fewer may be there, a range that
 * may be too long passes here. undefined: the prediction was made.
 */
export function validRequest(call: Call, struct: Bytes, most: number): IrqRequest | undefined {
  const flags = struct.u32(4);
  const index = struct.u32(8);
  const start = struct.u32(12);
  const vectors = struct.u32(16);
  const badHeader = index >= PCI_NUM_IRQS || vectors >= U32_MAX - start || (flags & ~(DATA_MASK | ACTION_MASK)) !== 0;
  if (badHeader && refuse(call, R.header)) return undefined;
  if ((start >= most || start + vectors > most) && refuse(call, R.range)) return undefined;
  const data = flags & DATA_MASK;
  const oneByte = data === IRQ_DATA_BOOL ? 1 : data === IRQ_DATA_EVENTFD ? 4 : 0;
  if (oneByte === 0 && data !== IRQ_DATA_NONE) {
    refuse(call, R.dataType);
    return undefined;
  }
  const dataBytes = vectors * oneByte;
  if (struct.u32(0) - IRQ_HEAD_BYTES < dataBytes && refuse(call, R.dataSize)) return undefined;
  if (!struct.has(IRQ_HEAD_BYTES, dataBytes)) {
    call.unknown('payload not recorded');
    return undefined;
  }
  const payload = struct.slice(IRQ_HEAD_BYTES, dataBytes);
  return { data, action: flags & ACTION_MASK, index, start, count: vectors, payload };
}
