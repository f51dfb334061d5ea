import { OrderedMap } from '../../../core/ordered-map.js';
import type { Call } from '../../call.js';
import { containerOf, patchContainer } from '../containers.js';
import { type Rule, refuse } from '../rules.js';
import type { SpaprBackend } from '../state.js';
import { unknownSinceText } from '../../answer.js';

/** The record of a container's sPAPR backend, and the facts of a POWER machine. */

/** Whether the kernel has the backend, which those of POWER machines have, and no other. */
export const SPAPR_KEY = 'kernel/spapr_tce';
export const EEH_KEY = 'kernel/eeh';

/** Facts of the windows that a set of groups can have. */
export function spaprKey(groups: readonly number[], field: string): string {
  const names = [...groups].sort((a, b) => a - b).join('+');
  return `vfio-spapr/${names === '' ? 'unknown' : names}/${field}`;
}

/** The backend as it is now; the container of the call has one. */
export function spaprOf(call: Call): SpaprBackend {
  const { spapr } = containerOf(call);
  if (spapr === null) throw new Error('the container has no sPAPR backend');
  return spapr;
}

export function patchSpapr(call: Call, patch: Partial<SpaprBackend>): void {
  patchContainer(call.tx, call.file.object, { spapr: Object.freeze({ ...spaprOf(call), ...patch }) });
}

/** `what` is not known, and which call would tell. */
export function notTold(what: string, by: string): string {
  return `${what} was not asked yet (${by})`;
}

/** A backend as SET_IOMMU makes it, for the groups that the container has. */
export function newSpapr(v2: boolean): SpaprBackend {
  return Object.freeze({
    v2,
    enabled: false,
    space: 0,
    defaultPending: true,
    windows: Object.freeze([null, null]),
    registered: OrderedMap.numeric<number, never>().freeze(),
    unknownSince: -1,
  });
}

/** Predicts a failure for something that the container lacks; true: the call ends. */
export function lacks(call: Call, rule: Rule): boolean {
  const { unknownSince } = spaprOf(call);
  if (unknownSince < 0) return refuse(call, rule);
  return !call.unknown(unknownSinceText('windows and memory of the container', unknownSince));
}

/** v1 reuses the one window that its group has. */
export const JOIN_BUSY = {
  id: 'set-container.spapr-busy',
  errno: 'EBUSY',
  text: 'v1 of the sPAPR backend takes one group only',
} as const satisfies Rule;
