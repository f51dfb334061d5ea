import { lastOf, type U64, U64_MAX } from '../core/u64.js';
import { find } from './answer.js';
import type { Call } from './call.js';
import { containerTable, ioasTable } from './explain.js';
import { typedObject } from './iommufd/context.js';
import { dmaRequest } from './iommufd/request.js';
import { UNMAP_ALL } from './vfio/uapi.js';

/** What a call asked of a table of IOVAs, for a search through a recording. */
export interface DmaMove {
  /** As `Subject.table` names it. */
  readonly table: string;
  readonly start: U64;
  readonly last: U64;
  readonly what: 'map' | 'unmap';
}

/** The range that a MAP, COPY or UNMAP of a container or an iommufd names; undefined for other calls, and without payload. */
export function dmaMove(call: Call): DmaMove | undefined {
  return call.file.kind === 'vfio-container' ? ofContainer(call) : ofIommufd(call);
}

function ofContainer(call: Call): DmaMove | undefined {
  const maps = call.name === 'VFIO_IOMMU_MAP_DMA';
  if (!maps && call.name !== 'VFIO_IOMMU_UNMAP_DMA') return undefined;
  const s = call.struct;
  if (!s.has(0, maps ? 32 : 24)) return undefined;
  const table = containerTable(call.file.object);
  if (maps) return moveOf(table, s.u64(16), s.u64(24), 'map');
  return (s.u32(4) & UNMAP_ALL) !== 0
    ? { table, start: 0, last: U64_MAX, what: 'unmap' }
    : moveOf(table, s.u64(8), s.u64(16), 'unmap');
}

function ofIommufd(call: Call): DmaMove | undefined {
  const request = dmaRequest(call);
  const object = request === undefined ? undefined : typedObject(call.tx, call.file.object, request.ioas, 'ioas');
  if (request === undefined || object === undefined) return undefined;
  const table = ioasTable(object.ioas);
  if (call.name.includes('UNMAP')) {
    if (request.length === U64_MAX) return { table, start: 0, last: U64_MAX, what: 'unmap' };
    return moveOf(table, request.iova, request.length, 'unmap');
  }
  return moveOf(table, request.fixed ? request.iova : (chosenIova(call) ?? request.iova), request.length, 'map');
}

/** The IOVA that the kernel chose, where the recording shows it. */
function chosenIova(call: Call): U64 | undefined {
  return find(call.memOut, call.arg, 40)?.u64(call.name === 'IOMMU_IOAS_COPY' ? 24 : 32);
}

function moveOf(table: string, start: U64, length: U64, what: DmaMove['what']): DmaMove | undefined {
  const last = lastOf(start, length);
  return last === undefined ? undefined : { table, start, last, what };
}
