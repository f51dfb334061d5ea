import type { IoEvent } from '../../core/event.js';
import type { Tx } from '../tx.js';
import { plainPath } from './kinds.js';
import type { FileKind } from './state.js';

/**
 * The kernel's own fault injection (Documentation/fault-injection): a number n written to /proc/<pid>/task/<tid>/fail-nth
 * makes the n-th place of that thread fail where a fault can be injected, 0 ends it. Which call that is, and with
 * which error it fails, depends on the kernel's inside: as long as a thread is armed, one error of one of its calls
 * is a fact of that run.
 */
const FAIL_NTH = /^\/proc\/(?:\d+\/task\/)?(\d+)\/fail-nth$/;

/** Arms or disarms the thread that a write to its fail-nth names. */
export function followFaultInjection(tx: Tx, event: IoEvent): void {
  if (!event.path.endsWith('fail-nth') || !event.call.includes('write')) return;
  if (event.ret === null || event.ret === -1) return;
  const tid = Number(FAIL_NTH.exec(plainPath(event.path))?.[1] ?? Number.NaN);
  const nth = Number.parseInt(event.data.cString(), 10);
  if (!Number.isSafeInteger(tid) || Number.isNaN(nth)) return;
  if (nth > 0) tx.world.armedFaults.set(tid, nth);
  else tx.world.armedFaults.delete(tid);
}

/** Whether a fault may hit the next call of a thread. */
export function faultArmed(tx: Tx, tid: number): boolean {
  return tx.world.armedFaults.size > 0 && tx.world.armedFaults.has(tid);
}

/**
 * The errors that the places of iommufd give where a fault can be injected: an allocation, the look-up of an object, the
 * pinning of pages, and (EINVAL) a device that is added or attached. Its other errors come from checks.
 */
const IOMMUFD_ERRORS: ReadonlySet<string> = new Set(['ENOMEM', 'ENOENT', 'EFAULT', 'EINVAL']);

/** Whether a fault can end a call on a kind of file with an error. */
export function isFaultError(kind: FileKind, errno: string): boolean {
  return kind !== 'iommufd' || IOMMUFD_ERRORS.has(errno);
}

/** The fault of a thread has hit: the next ones are its own. */
export function faultFired(tx: Tx, tid: number): void {
  tx.world.armedFaults.delete(tid);
}
