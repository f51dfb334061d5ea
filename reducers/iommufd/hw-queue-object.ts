import type { Tx } from '../tx.js';
import { destroyAccess, unpinRange } from './access.js';
import { addUsers, dropObject, ioasOfObject, patchObject, typedObject } from './context.js';
import type { HwQueue } from './state.js';

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
    const queues = viommu.queues.edit();
    queues.delete(queue.index);
    patchObject(tx, contextId, viommu, { users: viommu.users - 1, queues: queues.freeze() });
  }
  if (queue.previous !== 0) addUsers(tx, contextId, queue.previous, -1);
  dropObject(tx, contextId, queue.id);
}
