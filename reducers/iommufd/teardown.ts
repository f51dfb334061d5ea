import type { Tx } from '../tx.js';
import { contextOf, patchContext } from './context.js';
import { dropIoas } from './ioas-object.js';

/**
 * The end of a context (`iommufd_fops_release`): everything in it goes, users or not. Its own file is one reference;
 * bound real devices, accesses and event queues hold the same file, so the end comes with the last of them.
 */
export function closeContext(tx: Tx, contextId: number): void {
  patchContext(tx, contextId, { closed: true });
  releaseContextIfDone(tx, contextId);
}

export function releaseContextIfDone(tx: Tx, contextId: number): void {
  const context = contextOf(tx, contextId);
  if (!context.closed || context.holders > 0) return;
  for (const object of context.objects.values()) if (object.type === 'ioas') dropIoas(tx, object.ioas);
  tx.world.iommufds.delete(contextId);
}
