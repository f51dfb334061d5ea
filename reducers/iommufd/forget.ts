import type { Call } from '../call.js';
import { forgetRevoked } from '../devices/mock-dmabuf.js';
import { markFdsIncomplete } from '../files/processes.js';
import type { Tx } from '../tx.js';
import { patchDevice } from '../vfio/devices.js';
import { contextOf, ioasByKey, newContext, objectsUnknown, patchContext, patchIoas } from './context.js';
import { dropIoas } from './ioas-object.js';
import { releaseContextIfDone } from './teardown.js';
import { executeUnmap } from './unmap.js';

/**
 * What is left of a context after a command that succeeded and whose struct the recording does not hold. Which object it
 * was about is not known: a MAP may have been in any IOAS, so that more may be mapped in each of them; an UNMAP may have
 * taken what any of them holds; and after a command that makes, destroys or attaches objects nothing that was known
 * of them holds any more. Two commands only look.
 */
export function afterUnseen(call: Call): void {
  const { tx, name } = call;
  const contextId = call.file.object;
  const { seq } = call.event;
  if (LOOKS.has(name)) return;
  if (FDS.has(name)) markFdsIncomplete(tx, call.process.fdTable);
  if (name === 'IOMMU_TEST_CMD') forgetRevoked(tx);
  if (MAPS.has(name)) forgetAreas(tx, contextId, seq, false);
  else if (UNMAPS.has(name)) forgetAreas(tx, contextId, seq, true);
  else forgetContext(tx, contextId, seq);
}

/**
 * A command that succeeded on an object that no event showed: what it made, attached, copied or reserved is about objects
 * that may be known.
 */
export function afterStranger(call: Call): void {
  const since = call.tx.world.iommufds.get(call.file.object)?.unknownSince ?? -1;
  if (since < 0 || call.unknownReason !== objectsUnknown(since) || !MAKES.has(call.name)) return;
  if (call.recordedRet !== -1 && call.recordedRet !== null) afterUnseen(call);
}

const MAKES: ReadonlySet<string> = new Set([
  'IOMMU_HWPT_ALLOC',
  'IOMMU_HW_QUEUE_ALLOC',
  'IOMMU_IOAS_COPY',
  'IOMMU_TEST_CMD',
  'IOMMU_VDEVICE_ALLOC',
  'IOMMU_VEVENTQ_ALLOC',
  'IOMMU_VIOMMU_ALLOC',
]);

const LOOKS: ReadonlySet<string> = new Set(['IOMMU_IOAS_IOVA_RANGES', 'IOMMU_GET_HW_INFO', 'VFIO_IOMMU_GET_INFO']);
const MAPS: ReadonlySet<string> = new Set([
  'IOMMU_IOAS_MAP',
  'IOMMU_IOAS_MAP_FILE',
  'IOMMU_IOAS_COPY',
  'VFIO_IOMMU_MAP_DMA',
]);
const UNMAPS: ReadonlySet<string> = new Set(['IOMMU_IOAS_UNMAP', 'VFIO_IOMMU_UNMAP_DMA']);
/** They may make a file. */
const FDS: ReadonlySet<string> = new Set(['IOMMU_FAULT_QUEUE_ALLOC', 'IOMMU_VEVENTQ_ALLOC', 'IOMMU_TEST_CMD']);

/** In each IOAS something may be mapped that was not seen; `gone`: and nothing may be left of what was. */
function forgetAreas(tx: Tx, contextId: number, seq: number, gone: boolean): void {
  for (const object of contextOf(tx, contextId).objects.values()) {
    if (object.type !== 'ioas') continue;
    const { areas, unknownSince } = ioasByKey(tx, object.ioas);
    if (gone && areas.size > 0) executeUnmap(tx, object.ioas, [...areas.values()], true);
    if (unknownSince < 0) patchIoas(tx, object.ioas, { unknownSince: seq });
  }
}

/**
 * Nothing is known any more of the objects of a context: for its file and its groups it is another one, with an unknown
 * past; the devices and files that were part of it are part of one that is gone.
 */
export function forgetContext(tx: Tx, contextId: number, seq: number): void {
  const context = tx.world.iommufds.get(contextId);
  if (context === undefined || (context.unknownSince >= 0 && context.objects.size === 0)) return;
  for (const object of context.objects.values()) if (object.type === 'ioas') dropIoas(tx, object.ioas);
  tx.world.iommufds.delete(contextId);
  const { id } = newContext(tx, seq);
  let holders = 0;
  for (const group of [...tx.world.groups.values()]) {
    if (group.iommufd !== contextId) continue;
    tx.world.groups.set(group.id, Object.freeze({ ...group, iommufd: id }));
    holders++;
  }
  for (const device of [...tx.world.devices.values()])
    if (device.iommufd === contextId)
      patchDevice(tx, device.name, { iommufd: 0, devid: 0, attached: false, pasids: Object.freeze([]) });
  for (const file of [...tx.world.files.values()])
    if (file.kind === 'iommufd' && file.object === contextId)
      tx.world.files.set(file.id, Object.freeze({ ...file, object: id }));
  const { closed, accountMm, noIommu } = context;
  patchContext(tx, id, { closed, accountMm, noIommu, holders });
  releaseContextIfDone(tx, id);
}
