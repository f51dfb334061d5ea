import type { Tx } from '../tx.js';
import { addUsers, dropObject, ioasOfObject, patchIoas, patchObject, typedObject } from './context.js';
import { removeDomain } from './domain.js';
import type { NestedHwpt, PagingHwpt } from './state.js';

/**
 * The life of HWPT objects (drivers/iommu/iommufd/hw_pagetable.c), shared by HWPT_ALLOC and by attaches to an IOAS.
 *
 * A paging HWPT is a domain that is part of an IOAS: it keeps the IOAS alive and, as the last one to go,
 * unpins its areas. A nested one keeps its parent or its vIOMMU alive. Both keep their fault queue alive.
 */

/** Takes the domain out of its IOAS and the object out of the table. Its users must be 0. */
export function destroyPagingHwpt(tx: Tx, contextId: number, hwpt: PagingHwpt): void {
  const ioas = ioasOfObject(tx, contextId, hwpt.ioas);
  patchIoas(tx, ioas.id, { hwpts: Object.freeze(ioas.hwpts.filter((id) => id !== hwpt.id)) });
  removeDomain(tx, ioas.id, hwpt.id);
  if (hwpt.fault !== 0) addUsers(tx, contextId, hwpt.fault, -1);
  dropObject(tx, contextId, hwpt.id);
  addUsers(tx, contextId, hwpt.ioas, -1);
}

export function destroyNestedHwpt(tx: Tx, contextId: number, hwpt: NestedHwpt): void {
  if (hwpt.fault !== 0) addUsers(tx, contextId, hwpt.fault, -1);
  addUsers(tx, contextId, hwpt.viommu !== 0 ? hwpt.viommu : hwpt.parent, -1);
  dropObject(tx, contextId, hwpt.id);
}

/** One device less uses a HWPT; an automatic one goes with its last (`iommufd_hw_pagetable_put`). */
export function putHwpt(tx: Tx, contextId: number, hwptId: number): void {
  addUsers(tx, contextId, hwptId, -1);
  const hwpt = typedObject(tx, contextId, hwptId, 'hwpt-paging');
  if (hwpt?.auto && hwpt.users === 0) destroyPagingHwpt(tx, contextId, hwpt);
}

/** Sets the fault queue of a HWPT that was just made. */
export function setFault(tx: Tx, contextId: number, hwpt: PagingHwpt | NestedHwpt, fault: number): void {
  patchObject<PagingHwpt | NestedHwpt>(tx, contextId, hwpt, { fault });
  addUsers(tx, contextId, fault, 1);
}
