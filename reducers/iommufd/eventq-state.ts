import type { Tx } from '../tx.js';
import { patchObject, typedObject } from './context.js';

/**
 * Takes all page requests that came through one attach out of a fault queue: a detached domain cannot have its
 * requests answered any more (`iommufd_auto_response_faults`).
 */
export function answerFaultsOf(tx: Tx, contextId: number, faultId: number, attach: string): void {
  const queue = typedObject(tx, contextId, faultId, 'fault');
  if (queue === undefined) return;
  patchObject(tx, contextId, queue, {
    deliver: Object.freeze(queue.deliver.filter((group) => group.attach !== attach)),
    pending: Object.freeze(queue.pending.filter((group) => group.attach !== attach)),
  });
}
