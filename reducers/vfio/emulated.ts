import type { Call } from '../call.js';
import { type Attached, unbindDevice } from '../iommufd/attach.js';
import { changeAccessIoas, destroyAccess, makeAccess } from '../iommufd/access.js';
import { contextOf, objectOf, typedObject } from '../iommufd/context.js';
import { notKnown, type Refusal, type Rule, refusal } from '../iommufd/rules.js';
import type { Tx } from '../tx.js';
import type { VfioDevice } from './state.js';
import { unknownSinceText } from '../answer.js';

/**
 * Mediated devices on an iommufd (drivers/vfio/iommufd.c, `vfio_iommufd_emulated_*`).
 *
 * There is no IOMMU behind such a device: it is bound as an access, an in-kernel user of one IOAS, which needs no
 * ownership of a group and no HWPT. ATTACH takes the id of an IOAS, gives it back unchanged, and reserves nothing.
 *
 * The driver's mark that the device is attached outlives an unbinding that the kernel leaves out: of a device that was
 * bound by its group, and whose last file was opened while the group was in no iommufd. The next user's attach then
 * moves an access that has no IOAS, which is ENOENT, until a DETACH or an unbinding takes the mark away.
 */
export const EMULATED_RULES = {
  object: { id: 'attach-access.ioas', errno: 'ENOENT', text: 'a mediated device, and no IOAS has the id' },
} as const satisfies Record<string, Rule>;

const R = EMULATED_RULES;

/** Such an access pins pages, so all that it names is aligned to them. */
export const ACCESS_ALIGNMENT_BYTES = 4096;

export function isMediated(device: VfioDevice): boolean {
  return device.driver !== 'pci' && device.driver !== 'unknown';
}

/** Binds a mediated device to a context; gives the object id. */
export function bindEmulated(tx: Tx, contextId: number, seq: number): number {
  return makeAccess(tx, contextId, ACCESS_ALIGNMENT_BYTES, false, seq).id;
}

/** Attaches or moves a mediated device to an IOAS by object id. */
export function attachEmulated(tx: Tx, contextId: number, accessId: number, ioasId: number): Attached | Refusal {
  if (typedObject(tx, contextId, accessId, 'access') === undefined)
    return notKnown('which object the device is in the iommufd is not known');
  if (objectOf(tx, contextId, ioasId)?.type !== 'ioas') {
    const since = contextOf(tx, contextId).unknownSince;
    return since < 0 ? refusal(R.object.errno, R.object.id) : notKnown(unknownSinceText('objects', since));
  }
  return changeAccessIoas(tx, contextId, accessId, ioasId) ?? { ptId: ioasId };
}

/** Whether the attach of a device that is not attached failed for the mark that an earlier user left; it is not in a recording. */
export function failedByMark(call: Call): boolean {
  return call.failedByFact(R.object.errno, 'whether an earlier user left the device marked as attached was not shown');
}

export function isAttachedEmulated(tx: Tx, contextId: number, accessId: number): boolean {
  return (typedObject(tx, contextId, accessId, 'access')?.ioas ?? 0) !== 0;
}

export function detachEmulated(tx: Tx, contextId: number, accessId: number): void {
  if (isAttachedEmulated(tx, contextId, accessId)) changeAccessIoas(tx, contextId, accessId, 0);
}

/** Ends what a device is in a context, whichever of the two kinds. */
export function unbindAny(tx: Tx, contextId: number, id: number): void {
  if (typedObject(tx, contextId, id, 'access') === undefined) unbindDevice(tx, contextId, id);
  else destroyAccess(tx, contextId, id);
}
