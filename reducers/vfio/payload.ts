import type { Bytes } from '../../core/bytes.js';
import type { U64 } from '../../core/u64.js';
import type { Call } from '../call.js';
import { probeBuffer } from '../iommufd/user-buffer.js';
import { refuse, type Rule } from './rules.js';
import { USER_PTR_MAX } from './uapi.js';

/**
 * The beginning that nearly every VFIO command shares: copy the struct in, then compare the caller's `argsz` with
 * what the command needs. The recording may hold less of the struct than the kernel saw.
 */

/** Why a call is unknown whose struct the recording does not hold, or not all of it. */
export const NOT_RECORDED = 'payload not recorded';

/** Checks before those of any command. */
export const PAYLOAD_RULES = {
  copyIn: { id: 'vfio.copy-in', errno: 'EFAULT', text: 'the argument does not point to user memory' },
} as const satisfies Record<string, Rule>;

const FIRST_MAPPABLE = 0x1000;

/** Whether no process can have memory at this address. */
export function isBadPointer(call: Call): boolean {
  return call.arg < FIRST_MAPPABLE || call.arg >= USER_PTR_MAX;
}

/**
 * The struct at the argument, when the recording holds the first `minBytes` of it and its `argsz` is no smaller.
 * Otherwise the prediction is made here (EFAULT, the rule, or unknown) and undefined comes back.
 */
export function takeStruct(call: Call, minBytes: number, argsz: Rule): Bytes | undefined {
  const struct = call.struct;
  if (struct.length < 4) {
    if (isBadPointer(call)) refuse(call, PAYLOAD_RULES.copyIn);
    else call.unknown(NOT_RECORDED);
    return undefined;
  }
  if (struct.u32(0) < minBytes && refuse(call, argsz)) return undefined;
  if (struct.length >= minBytes) return struct;
  call.unknown(NOT_RECORDED);
  return undefined;
}

/** Bytes that a struct points to, or undefined after the rule or `unknown` was predicted: the memory may not be there. */
export function takeBytes(call: Call, addr: U64, count: number, fault: Rule): Bytes | undefined {
  const bytes = call.bytesAt(addr, count);
  if (bytes !== undefined) return bytes;
  if (probeBuffer(call, addr, count, false) === 'fault') refuse(call, fault);
  else call.unknown(NOT_RECORDED);
  return undefined;
}

/** Whether the call was answered `unknown` and did succeed: its effect happened, and nobody knows which. */
export function happenedUnseen(call: Call): boolean {
  return call.unknownReason !== '' && call.recordedRet !== -1 && call.recordedRet !== null;
}
