import { add, lastOf, type U64 } from '../../core/u64.js';
import type { Call } from '../call.js';
import { probePin } from '../memory/pin.js';

/**
 * What `copy_to_user` and `copy_from_user` make of the caller's own memory.
 *
 * A pointer outside of user space, into memory that nobody mapped or that may not be written (read), makes the call
 * fail with EFAULT. Where memory was mapped outside of the recording the model does not know.
 */
export type BufferAnswer = 'ok' | 'fault' | { readonly unknown: string };

/** Bytes around the struct of a call that its stack frame and those of its callers may take. */
const FRAME_BYTES = 64 * 1024;

/** Whether the kernel can touch `count` bytes at `start` for the caller; nothing is touched when it is 0. */
export function probeBuffer(call: Call, start: U64, count: U64, write: boolean): BufferAnswer {
  if (count === 0) return 'ok';
  const last = lastOf(start, count);
  if (last === undefined) return 'fault';
  const answer = probePin(call.tx, call.process.space, start, last, {
    write,
    longterm: false,
    pfnmapOk: true,
    cpu: true,
  });
  if (answer.kind === 'fault') return 'fault';
  return answer.kind === 'ok' || onStack(call, start, last) ? 'ok' : { unknown: answer.why };
}

/**
 * The stack is made by execve, which no recorded call shows. A buffer near the call's own struct, both above
 * everything that the kernel placed for mmap, lies in it, and can be read and written.
 */
function onStack(call: Call, start: U64, last: U64): boolean {
  const placed = call.tx.world.spaces.get(call.process.space)?.firstPlacedLast ?? null;
  if (placed === null || start <= placed || call.arg <= placed) return false;
  return add(start, FRAME_BYTES) > call.arg && last < add(call.arg, FRAME_BYTES);
}
