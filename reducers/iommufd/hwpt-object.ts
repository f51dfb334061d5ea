import type { Interval } from '../../core/interval.js';
import { OrderedMap } from '../../core/ordered-map.js';
import type { Tx } from '../tx.js';
import { attachHwpt, detachHwpt } from './attach-hwpt.js';
import {
  addUsers,
  dropObject,
  ioasOfObject,
  nextObjectId,
  patchIoas,
  patchObject,
  putObject,
  takeId,
  typedObject,
} from './context.js';
import { addDomain, removeDomain } from './domain.js';
import type { Refusal } from './rules.js';
import type { BoundDevice, DomainTraits, NestedHwpt, PagingHwpt } from './state.js';

/**
 * The life of HWPT objects (drivers/iommu/iommufd/hw_pagetable.c), shared by HWPT_ALLOC and by attaches to an IOAS.
 *
 * A paging HWPT is a domain that is part of an IOAS: it keeps the IOAS alive and, as the last one to go,
 * unpins its areas. A nested one keeps its parent or its vIOMMU alive. Both keep their fault queue alive.
 */

export interface PagingRequest {
  readonly contextId: number;
  /** Object id of the IOAS. */
  readonly ioasId: number;
  readonly device: BoundDevice;
  readonly domain: DomainTraits;
  readonly auto: boolean;
  readonly nestParent: boolean;
  readonly pasidCompat: boolean;
  readonly seq: number;
  /** PASID to attach the device to before the domain is filled, or -1. */
  readonly attachPasid: number;
}

/**
 * Makes a paging HWPT in the IOAS. On refusal nothing is left behind, its id neither
 * (`iommufd_hwpt_paging_alloc`).
 */
export function makePagingHwpt(tx: Tx, request: PagingRequest): PagingHwpt | Refusal {
  const { contextId, ioasId } = request;
  const id = nextObjectId(tx, contextId);
  takeId(tx, contextId, id);
  const hwpt: PagingHwpt = {
    type: 'hwpt-paging',
    id,
    users: 0,
    since: request.seq,
    ioas: ioasId,
    domain: request.domain,
    auto: request.auto,
    nestParent: request.nestParent,
    pasidCompat: request.pasidCompat,
    fault: 0,
    dirtyOn: false,
    dirty: OrderedMap.numeric<number, Interval>().freeze(),
    maybeDirty: OrderedMap.numeric<number, Interval>().freeze(),
  };
  putObject(tx, contextId, hwpt);
  addUsers(tx, contextId, ioasId, 1);
  const ioasKey = ioasOfObject(tx, contextId, ioasId).id;
  if (request.attachPasid >= 0) {
    const refused = attachHwpt(tx, contextId, request.device.id, id, request.attachPasid);
    if (refused !== undefined) {
      dropUnfinished(tx, contextId, hwpt);
      return refused;
    }
  }
  const refused = addDomain(tx, ioasKey, id, request.domain);
  if (refused !== undefined && refused.unknown === '') {
    if (request.attachPasid >= 0) detachHwpt(tx, contextId, request.device.id, request.attachPasid);
    dropUnfinished(tx, contextId, hwpt);
    return refused;
  }
  patchIoas(tx, ioasKey, { hwpts: Object.freeze([...ioasOfObject(tx, contextId, ioasId).hwpts, id]) });
  if (refused !== undefined) return refused;
  return typedObject(tx, contextId, id, 'hwpt-paging') as PagingHwpt;
}

function dropUnfinished(tx: Tx, contextId: number, hwpt: PagingHwpt): void {
  dropObject(tx, contextId, hwpt.id);
  addUsers(tx, contextId, hwpt.ioas, -1);
}

/** Takes the domain out of its IOAS and the object out of the table. Its users must be 0. */
export function destroyPagingHwpt(tx: Tx, contextId: number, hwpt: PagingHwpt): void {
  const ioas = ioasOfObject(tx, contextId, hwpt.ioas);
  patchIoas(tx, ioas.id, { hwpts: Object.freeze(ioas.hwpts.filter((id) => id !== hwpt.id)) });
  removeDomain(tx, ioas.id, hwpt.id, hwpt.domain);
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
