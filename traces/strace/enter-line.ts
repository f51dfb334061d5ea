import type { EnterEvent, Event } from '../../core/event.js';
import { requestOfStraceName } from '../../core/uapi/strace-name.js';
import type { Arena } from './arena.js';
import { Args } from './args.js';
import type { CallHead } from './call-reader.js';
import { NO_RESULT, splitCall } from './call-text.js';
import { memoryCalls } from './memory-calls.js';

const TYPE_VFIO = 0x3b;
const TYPE_HMM = 0x48;

/** The calls whose beginning means something to the model. */
export const ENTERED: ReadonlySet<string> = new Set(['ioctl', ...Object.keys(memoryCalls)]);

/**
 * The first half of a call as an event, or undefined where it does not tell enough. strace cuts
 * a call in two where another thread's line comes in between, so whatever has a first half is overlapped.
 */
export function enterOf(text: string, head: CallHead, arena: Arena): EnterEvent | undefined {
  const call = splitCall(text);
  if (call === undefined) return undefined;
  const args = new Args(call, NO_RESULT, arena);
  const { seq, tsNs, pid, tid, file, line } = head;
  const place = { kind: 'enter', seq, tsNs, pid, tid, file, line } as const;
  const none = { request: 0, addr: 0, lengthBytes: 0, prot: 0, flags: 0, advice: 0 };
  if (call.name === 'ioctl') {
    const request = requestOfStraceName(args.text(1));
    const type = request === undefined ? 0 : (request >>> 8) & 0xff;
    if (request === undefined || (type !== TYPE_VFIO && type !== TYPE_HMM)) return undefined;
    return { ...place, call: 'ioctl', ...args.fd(0), ...none, request };
  }
  const event = memoryCalls[call.name]?.(args, head);
  // Of a call that is cut inside its arguments, what stands there is not all.
  if (event === undefined || args.problem !== '') return undefined;
  return { ...place, call: event.kind, fd: -1, path: '', ...none, ...argumentsOf(event) };
}

function argumentsOf(event: Event): Partial<EnterEvent> {
  switch (event.kind) {
    case 'mprotect':
      return { addr: event.addr, lengthBytes: event.lengthBytes, prot: event.prot };
    case 'madvise':
      return { addr: event.addr, lengthBytes: event.lengthBytes, advice: event.advice };
    case 'mremap':
      return { addr: event.addr, lengthBytes: event.oldLengthBytes, flags: event.flags };
    case 'mmap':
      return { addr: event.addr, lengthBytes: event.lengthBytes, prot: event.prot, flags: event.flags };
    case 'munmap':
      return { addr: event.addr, lengthBytes: event.lengthBytes };
    case 'brk':
      return { addr: event.addr };
    default:
      return {};
  }
}
