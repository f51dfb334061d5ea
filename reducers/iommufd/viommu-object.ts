import type { Tx } from '../tx.js';
import { dropObject, patchObject, typedObject } from './context.js';
import type { Vdevice } from './state.js';

/** Takes a vDEVICE out of its vIOMMU and its device. `tombstone` keeps its id reserved for good. */
export function destroyVdevice(tx: Tx, contextId: number, vdevice: Vdevice, tombstone: boolean): void {
  const viommu = typedObject(tx, contextId, vdevice.viommu, 'viommu');
  if (viommu !== undefined) {
    const vdevices = viommu.vdevices.edit();
    vdevices.delete(vdevice.virtId);
    patchObject(tx, contextId, viommu, { vdevices: vdevices.freeze(), users: viommu.users - 1 });
  }
  const device = typedObject(tx, contextId, vdevice.device, 'device');
  if (device !== undefined) patchObject(tx, contextId, device, { vdevice: 0 });
  dropObject(tx, contextId, vdevice.id, tombstone);
}
