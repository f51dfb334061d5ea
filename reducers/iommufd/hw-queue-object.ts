import { MOCK_OWNER } from '../devices/mock-domain.js';
import type { Tx } from '../tx.js';
import { destroyAccess, unpinRange } from './access.js';
import { addUsers, dropObject, ioasOfObject, patchObject, typedObject } from './context.js';
import type { HwQueue, Viommu } from './state.js';

/** Takes a HW queue apart: its pages are let go, its vIOMMU and the queue before it are no longer used. */
export function destroyHwQueue(tx: Tx, contextId: number, queue: HwQueue): void {
  const access = typedObject(tx, contextId, queue.access, 'access');
  const item = access?.items[0];
  if (access !== undefined && item !== undefined && access.ioas !== 0)
    unpinRange(tx, ioasOfObject(tx, contextId, access.ioas).id, item, true);
  if (access !== undefined) {
    patchObject(tx, contextId, access, { items: Object.freeze([]) });
    destroyAccess(tx, contextId, queue.access);
  }
  const viommu = typedObject(tx, contextId, queue.viommu, 'viommu');
  if (viommu !== undefined) {
    patchObject(tx, contextId, viommu, { users: viommu.users - 1, queues: withoutQueue(viommu, queue.index) });
  }
  if (queue.previous !== 0) addUsers(tx, contextId, queue.previous, -1);
  dropObject(tx, contextId, queue.id);
}

/**
 * The places of a vIOMMU when a queue goes. The mock driver does not note which place a queue has and always empties
 * the first one (`mock_hw_queue_destroy`): the place of another queue stays taken for good, by nothing.
 */
function withoutQueue(viommu: Viommu, index: number): Viommu['queues'] {
  const queues = viommu.queues.edit();
  if (viommu.owner === MOCK_OWNER && index !== 0) queues.set(index, 0).delete(0);
  else queues.delete(index);
  return queues.freeze();
}
