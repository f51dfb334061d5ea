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
  putObject,
  takeId,
  typedObject,
} from './context.js';
import { addDomain } from './domain.js';
import type { Refusal } from './rules.js';
import type { BoundDevice, DomainTraits, PagingHwpt } from './state.js';

/**
 * How a paging HWPT comes into being (`iommufd_hwpt_paging_alloc`), apart from its further life in hwpt-object.ts, which
 * attaching needs as well.
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
  /** The id to take; the next one when not given. */
  readonly id?: number | undefined;
  /** PASID to attach the device to before the domain is filled, or -1. */
  readonly attachPasid: number;
}

/** A HWPT that was made, where the recording cannot tell whether the kernel would make it: the caller undoes it then. */
export interface DoubtfulHwpt {
  readonly hwpt: PagingHwpt;
  readonly unknown: string;
}

/**
 * Makes a paging HWPT in the IOAS. On refusal nothing is left behind, its id neither
 * (`iommufd_hwpt_paging_alloc`).
 */
export function makePagingHwpt(tx: Tx, request: PagingRequest): PagingHwpt | DoubtfulHwpt | Refusal {
  const { contextId, ioasId } = request;
  const id = request.id ?? nextObjectId(tx, contextId);
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
  const refused = addDomain(tx, ioasKey, id, request.domain, request.seq);
  if (refused !== undefined && refused.unknown === '') {
    if (request.attachPasid >= 0) detachHwpt(tx, contextId, request.device.id, request.attachPasid);
    dropUnfinished(tx, contextId, hwpt);
    return refused;
  }
  patchIoas(tx, ioasKey, { hwpts: Object.freeze([...ioasOfObject(tx, contextId, ioasId).hwpts, id]) });
  const made = typedObject(tx, contextId, id, 'hwpt-paging') as PagingHwpt;
  return refused === undefined ? made : { hwpt: made, unknown: refused.unknown };
}

function dropUnfinished(tx: Tx, contextId: number, hwpt: PagingHwpt): void {
  dropObject(tx, contextId, hwpt.id);
  addUsers(tx, contextId, hwpt.ioas, -1);
}
