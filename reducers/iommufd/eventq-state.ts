import type { Tx } from '../tx.js';
import { patchObject, typedObject } from './context.js';
import type { FaultQueue } from './state.js';

/**
 * Takes all page requests that came through one attach out of a fault queue: a detached domain cannot have its
 * requests answered any more (`iommufd_auto_response_faults`).
 */
export function answerFaultsOf(tx: Tx, contextId: number, faultId: number, attach: string): void {
  const queue = typedObject(tx, contextId, faultId, 'fault');
  if (queue === undefined) return;
  const gone = [...queue.pending].filter(([, group]) => group.attach === attach).map(([cookie]) => cookie);
  const deliver = queue.deliver.edit();
  for (const [arrival, group] of queue.deliver) if (group.attach === attach) deliver.delete(arrival);
  patchObject(tx, contextId, queue, { deliver: deliver.freeze(), ...withoutCookies(queue, gone) });
}

/** What changes in a queue when cookies are answered. */
export function withoutCookies(queue: FaultQueue, cookies: readonly number[]): Partial<FaultQueue> {
  const pending = queue.pending.edit();
  const freeCookies = queue.freeCookies.edit();
  for (const cookie of cookies) if (pending.delete(cookie)) freeCookies.set(cookie, true);
  return { pending: pending.freeze(), freeCookies: freeCookies.freeze() };
}
