import type { Call } from '../call.js';
import type { Tx } from '../tx.js';
import { detachDevice, unbindDevice } from './attach.js';
import {
  addUsers,
  contextOf,
  isIdGuessed,
  dropObject,
  markContextUnknown,
  missing,
  objectOf,
  objectsUnknown,
  patchContext,
  patchObject,
  typedObject,
} from './context.js';
import { destroyHwQueue } from './hw-queue-object.js';
import { destroyNestedHwpt, destroyPagingHwpt } from './hwpt-object.js';
import { dropIoas } from './ioas-object.js';
import type { Rule } from './rules.js';
import type { IommuObject } from './state.js';
import { destroyVdevice } from './viommu-object.js';

/**
 * IOMMU_DESTROY (drivers/iommu/iommufd/main.c): an object goes by its id when nothing uses it. Bound devices and
 * accesses have their driver as a user, event queues their file, so they are always busy here.
 */
export const DESTROY_RULES: readonly Rule[] = [
  { id: 'destroy.object', errno: 'ENOENT', text: 'no object has the id' },
  { id: 'destroy.busy', errno: 'EBUSY', text: 'something uses the object' },
  { id: 'destroy.ok', errno: '', text: 'the object goes and its id is free' },
];

export function destroy(call: Call): void {
  const id = call.struct.u32(4);
  const contextId = call.file.object;
  const object = objectOf(call.tx, contextId, id);
  if (object === undefined) {
    missing(call, contextId, 'destroy.object');
    return;
  }
  const since = contextOf(call.tx, contextId).unknownSince;
  if (isIdGuessed(call.tx, contextId, object)) {
    call.unknown(objectsUnknown(since));
    return;
  }
  if (object.users > 0 || isMapped(call, object)) {
    // Where the recording says that it went all the same, something is unknown: what refers to it still stands here.
    if (!call.fail('EBUSY', 'destroy.busy')) markContextUnknown(call.tx, contextId, call.event.seq);
    return;
  }
  if (since >= 0 && call.failedByFact('EBUSY', objectsUnknown(since))) return;
  if (call.succeed('destroy.ok')) destroyObject(call.tx, contextId, object);
}

/** Whether a process maps the pages that a vIOMMU offers; each such mapping uses it. */
function isMapped(call: Call, object: IommuObject): boolean {
  if (object.type !== 'viommu' || object.mmapOffset === 0) return false;
  const { tx, file } = call;
  if ((tx.world.files.get(file.id)?.vmaRefs ?? 0) === 0) return false;
  const length = contextOf(tx, file.object).mmaps.get(object.mmapOffset)?.lengthBytes ?? 0;
  for (const space of tx.world.spaces.values()) {
    if (!space.fileVmas.has(file.id)) continue;
    for (const vma of space.vmas.values())
      if (vma.file === file.id && vma.offset >= object.mmapOffset && vma.offset < object.mmapOffset + length)
        return true;
  }
  return false;
}

/** Takes an object apart that has no users. */
export function destroyObject(tx: Tx, contextId: number, object: IommuObject): void {
  switch (object.type) {
    case 'ioas':
      if (contextOf(tx, contextId).vfioIoas === object.id) patchContext(tx, contextId, { vfioIoas: 0 });
      dropIoas(tx, object.ioas);
      dropObject(tx, contextId, object.id);
      return;
    case 'hwpt-paging':
      destroyPagingHwpt(tx, contextId, object);
      return;
    case 'hwpt-nested':
      destroyNestedHwpt(tx, contextId, object);
      return;
    case 'selftest':
      detachDevice(tx, contextId, object.device);
      unbindDevice(tx, contextId, object.device);
      dropObject(tx, contextId, object.id);
      return;
    case 'vdevice':
      destroyVdevice(tx, contextId, object, false);
      return;
    case 'viommu':
      addUsers(tx, contextId, object.hwpt, -1);
      if (object.mmapOffset !== 0) tx.openTable(tx.world.iommufds, contextId, 'mmaps').delete(object.mmapOffset);
      dropObject(tx, contextId, object.id);
      return;
    case 'hw-queue':
      destroyHwQueue(tx, contextId, object);
      return;
    case 'veventq': {
      const viommu = typedObject(tx, contextId, object.viommu, 'viommu');
      if (viommu !== undefined)
        patchObject(tx, contextId, viommu, {
          users: viommu.users - 1,
          veventqs: Object.freeze(viommu.veventqs.filter((other) => other !== object.id)),
        });
      dropObject(tx, contextId, object.id);
      return;
    }
    case 'fault':
    case 'device':
    case 'access':
      dropObject(tx, contextId, object.id);
  }
}
