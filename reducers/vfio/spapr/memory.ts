import { firstOverlap } from '../../../core/interval.js';
import { addOverflows, lastOf, modPow2, type U64 } from '../../../core/u64.js';
import type { Call } from '../../call.js';
import { probePin } from '../../memory/pin.js';
import { takeStruct } from '../payload.js';
import { refuse, type Rule } from '../rules.js';
import type { SpaprBackend } from '../state.js';
import { lacks, patchSpapr, spaprOf } from './backend.js';
import { unknownSinceText } from '../../answer.js';

/**
 * Memory of an address space that v2 containers may map (SPAPR_REGISTER_MEMORY, SPAPR_UNREGISTER_MEMORY; the list is in
 * arch/powerpc/mm/book3s64/iommu_api.c). Struct of both: argsz 0, flags 4, vaddr 8, size 16.
 *
 * The list is the address space's: regions never overlap, several containers may share one, and one container has it
 * once. A region is found by its exact address and size. Registering one pins its pages and enables the container. Pages
 * of POWER machines have 64 KiB or 4 KiB; which, a recording does not say.
 */
export const SPAPR_MEMORY_RULES = {
  noSpace: {
    id: 'spapr-unregister.unused',
    errno: 'EPERM',
    text: 'the container was not used by any address space yet',
  },
  argsz: { id: 'spapr-memory.argsz', errno: 'EINVAL', text: 'argsz is less than 24, or a flag is set' },
  aligned: {
    id: 'spapr-memory.aligned',
    errno: 'EINVAL',
    text: 'vaddr or size is no multiple of the page size, or vaddr + size passes 2^64',
  },
  again: { id: 'spapr-register.again', errno: 'EBUSY', text: 'the container has registered the region' },
  empty: { id: 'spapr-register.empty', errno: 'ENOMEM', text: 'size is 0' },
  pin: { id: 'spapr-register.pin', errno: 'EFAULT', text: 'memory of the region cannot be pinned for writing' },
  overlap: { id: 'spapr-register.overlap', errno: 'EINVAL', text: 'the region overlaps another one' },
  missing: { id: 'spapr-unregister.none', errno: 'ENOENT', text: 'the container has not registered the region' },
} as const satisfies Record<string, Rule>;

const R = SPAPR_MEMORY_RULES;
const STRUCT_BYTES = 24;
const SMALL_PAGE = 0x1000;
const PAGE = 0x1_0000;
const PAGE_SIZE_UNKNOWN = 'whether pages have 4 or 64 KiB is not in the recording';

export function registerMemory(call: Call): void {
  const region = regionOf(call);
  if (region === undefined) return;
  const { vaddr, size } = region;
  if (addOverflows(vaddr, size) && refuse(call, R.aligned)) return;
  const { registered } = spaprOf(call);
  const last = lastOf(vaddr, size);
  if (last === undefined) {
    refuse(call, R.empty);
    return;
  }
  if (isRegion(registered, vaddr, last) && refuse(call, R.again)) return;
  if (!otherHas(call, vaddr, last) && newRegionRefused(call, vaddr, last)) return;
  if (!call.succeed('spapr-register.ok')) return;
  const regions = registered.edit();
  regions.set(vaddr, Object.freeze({ start: vaddr, last }));
  patchSpapr(call, { enabled: true, space: call.process.space, registered: regions.freeze() });
}

function newRegionRefused(call: Call, vaddr: U64, last: U64): boolean {
  const answer = probePin(call.tx, call.process.space, vaddr, last, { write: true, longterm: true, pfnmapOk: false });
  if (answer.kind === 'fault' && refuse(call, R.pin)) return true;
  if (answer.kind === 'unknown') call.unknown(answer.why);
  for (const { spapr } of call.tx.world.containers.values())
    if (spapr?.space === call.process.space && firstOverlap(spapr.registered, vaddr, last) !== undefined)
      return refuse(call, R.overlap);
  const { unknownSince } = spaprOf(call);
  if (unknownSince >= 0) call.unknown(unknownSinceText('registered memory', unknownSince));
  return false;
}

export function unregisterMemory(call: Call, spapr: SpaprBackend): void {
  if (spapr.space === 0 && lacks(call, R.noSpace)) return;
  const region = regionOf(call);
  if (region === undefined) return;
  const last = lastOf(region.vaddr, region.size);
  if ((last === undefined || !isRegion(spapr.registered, region.vaddr, last)) && lacks(call, R.missing)) return;
  if (!call.succeed('spapr-unregister.ok')) return;
  const regions = spapr.registered.edit();
  regions.delete(region.vaddr);
  patchSpapr(call, { registered: regions.freeze() });
}

/** The region of the request, or undefined after a prediction was made. */
function regionOf(call: Call): { vaddr: U64; size: U64 } | undefined {
  const struct = takeStruct(call, STRUCT_BYTES, R.argsz);
  if (struct === undefined) return undefined;
  call.extentBytes = STRUCT_BYTES;
  if (struct.u32(4) !== 0 && refuse(call, R.argsz)) return undefined;
  const vaddr = struct.u64(8);
  const size = struct.u64(16);
  const uneven = (page: number): boolean => modPow2(vaddr, page) + modPow2(size, page) !== 0;
  if (uneven(SMALL_PAGE) && refuse(call, R.aligned)) return undefined;
  if (uneven(PAGE)) call.unknown(PAGE_SIZE_UNKNOWN);
  return { vaddr, size };
}

function isRegion(regions: SpaprBackend['registered'], vaddr: U64, last: U64): boolean {
  return regions.get(vaddr)?.last === last;
}

/** Whether another container of the address space has registered just this region. */
function otherHas(call: Call, vaddr: U64, last: U64): boolean {
  for (const { spapr } of call.tx.world.containers.values())
    if (spapr?.space === call.process.space && isRegion(spapr.registered, vaddr, last)) return true;
  return false;
}
