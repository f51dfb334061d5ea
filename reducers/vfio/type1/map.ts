import { firstOverlap } from '../../../core/interval.js';
import { add, hex, lastOf, lengthOf, modPow2, sub, type U64 } from '../../../core/u64.js';
import type { Call } from '../../call.js';
import { charge } from '../../memory/locked.js';
import { chargeAsked, explainShortage, refuseLikely, refuseSure } from '../../memory/memlock.js';
import { pinAdd, pinRemove } from '../../memory/pins.js';
import type { Tx } from '../../tx.js';
import {
  areGroupsKnown,
  containerOf,
  hasDomain,
  markMappingsUnknown,
  patchContainer,
  rangeAnswer,
} from '../containers.js';
import { isNatureOpen, learnEmulated } from '../groups.js';
import { physicalGroups } from '../membership.js';
import { happenedUnseen, takeStruct } from '../payload.js';
import { type Rule, refuse, refuseOverflow } from '../rules.js';
import type { DmaMapping, VfioContainer } from '../state.js';
import { MAP_READ, MAP_VADDR, MAP_WRITE } from '../uapi.js';
import { TRACKING_UNKNOWN } from './bitmap.js';
import { MAP_MEMLOCK_RULE, MAP_PIN_RULE } from './pin-rule.js';
import { judgePin, limitQuestion, STOPS } from './pinning.js';
import { teachWidth, widthOf } from './width.js';
import { unknownSinceText } from '../../answer.js';

/**
 * VFIO_IOMMU_MAP_DMA of type1 (vfio_iommu_type1.c, `vfio_iommu_type1_map_dma` and `vfio_dma_do_map`).
 *
 * A mapping is one entry, whatever its size. The memory behind it is pinned at once, page by page, when the
 * container has a real IOMMU; one page that cannot be pinned, or that RLIMIT_MEMLOCK does not allow, undoes all of it. Flag
 * VADDR gives a mapping whose address was taken away (UNMAP with VADDR) a new one; nothing is pinned anew then, but
 * from another process the charge for the pages moves there (`vfio_change_dma_owner`). A container with mediated
 * devices only pins nothing and has no invalid IOVAs; before a device is named, a success can be what shows that.
 *
 * Struct: argsz 0, flags 4, vaddr 8, iova 16, size 24.
 */
export const MAP_RULES = {
  argsz: { id: 'map-dma.argsz', errno: 'EINVAL', text: 'argsz is less than 32' },
  flags: { id: 'map-dma.flags', errno: 'EINVAL', text: 'a flag other than READ, WRITE, VADDR' },
  sizeZero: { id: 'map-dma.size-zero', errno: 'EINVAL', text: 'size is 0' },
  iovaOverflow: { id: 'map-dma.iova-overflow', errno: 'EOVERFLOW', text: 'iova + size passes 2^64' },
  vaddrOverflow: { id: 'map-dma.vaddr-overflow', errno: 'EOVERFLOW', text: 'vaddr + size passes 2^64' },
  access: {
    id: 'map-dma.access',
    errno: 'EINVAL',
    text: 'neither READ nor WRITE nor VADDR, or VADDR together with one of the others',
  },
  aligned: { id: 'map-dma.iova-aligned', errno: 'EINVAL', text: 'iova, vaddr or size is no multiple of the page size' },
  vaddrMissing: { id: 'map-dma.vaddr-none', errno: 'ENOENT', text: 'VADDR, and nothing is mapped in the range' },
  vaddrMismatch: {
    id: 'map-dma.vaddr-mismatch',
    errno: 'EINVAL',
    text: 'VADDR, and the range is not one whole mapping whose address was taken away',
  },
  vaddrMemlock: {
    id: 'map-dma.vaddr-memlock',
    errno: 'ENOMEM',
    text: 'VADDR from another address space, where RLIMIT_MEMLOCK does not allow the pages, and CAP_IPC_LOCK is missing',
  },
  overlap: { id: 'map-dma.overlap', errno: 'EEXIST', text: 'the range touches a mapping' },
  limit: { id: 'map-dma.entry-limit', errno: 'ENOSPC', text: 'the container holds dma_entry_limit mappings' },
  range: {
    id: 'map-dma.iova-range',
    errno: 'EINVAL',
    text: 'the range does not lie inside one valid IOVA range (aperture without reserved regions)',
  },
  pin: MAP_PIN_RULE,
  memlock: MAP_MEMLOCK_RULE,
  bitmap: {
    id: 'map-dma.dirty-bitmap',
    errno: 'EINVAL',
    text: 'dirty tracking is on and the mapping has more than 2^31 - 1 pages',
  },
} as const satisfies Record<string, Rule>;

const R = MAP_RULES;
const STRUCT_BYTES = 32;
const KNOWN_FLAGS = MAP_READ | MAP_WRITE | MAP_VADDR;
/** Most pages that one dirty bitmap covers. */
export const BITMAP_PAGES_MAX = 0x7fff_ffff;

export function mapDma(call: Call): void {
  const struct = takeStruct(call, STRUCT_BYTES, R.argsz);
  if (struct === undefined) {
    if (happenedUnseen(call)) markMappingsUnknown(call, containerOf(call));
    return;
  }
  const flags = struct.u32(4);
  const vaddr = struct.u64(8);
  const iova = struct.u64(16);
  const size = struct.u64(24);
  if ((flags & ~KNOWN_FLAGS) !== 0 && refuse(call, R.flags)) return;
  if (size === 0 && refuse(call, R.sizeZero)) return;
  const last = lastOf(iova, size);
  if (last === undefined && refuseOverflow(call, R.iovaOverflow)) return;
  if (lastOf(vaddr, size) === undefined && refuseOverflow(call, R.vaddrOverflow)) return;
  const access = flags & (MAP_READ | MAP_WRITE);
  const setVaddr = (flags & MAP_VADDR) !== 0;
  if ((access !== 0) === setVaddr && refuse(call, R.access)) return;
  const container = containerOf(call);
  const page = container.pageBytes;
  const misaligned = modPow2(iova, page) + modPow2(vaddr, page) + modPow2(size, page) !== 0;
  if (misaligned && refuse(call, R.aligned)) return;
  // Only a recording that contradicts the rules above gets here without an end: nothing to enter.
  if (last === undefined) return;
  if (setVaddr) updateVaddr(call, container, iova, last, vaddr);
  else addMapping(call, container, iova, last, vaddr, access);
}

function unknownText(container: VfioContainer): string {
  return unknownSinceText('mappings of the container', container.unknownSince);
}

function addMapping(call: Call, container: VfioContainer, iova: U64, last: U64, vaddr: U64, access: number): void {
  const tx = call.tx;
  const mappings = tx.openTable(tx.world.containers, container.id, 'mappings');
  const hit = firstOverlap(mappings, iova, last);
  if (hit !== undefined) {
    if (refuse(call, R.overlap)) return;
  } else if (container.unknownSince >= 0) {
    call.unknown(unknownText(container));
  } else if (mappings.size >= container.entryLimit) {
    if (refuse(call, R.limit)) return;
  }
  if (!call.predicted && outsideRanges(call, container, iova, last)) return;
  const vaddrLast = sub(add(vaddr, lengthOf(iova, last)), 1);
  const inDomain = hasDomain(tx, container);
  const pins = inDomain && !call.predicted;
  const question = pins ? judgePin(call, container, vaddr, vaddrLast, access) : undefined;
  if (question === STOPS) return;
  if (pinsUnseen(call, container)) return;
  if (!call.predicted && bitmapTooLarge(container, iova, last) && bitmapRefused(call, container)) return;
  if (question !== undefined && refuseLikely(call, question, R.memlock.id)) return;
  if (container.ranges === null && inDomain && call.failedByFact(R.range.errno, RANGES_NOT_TOLD)) return;
  if (!call.succeed('map-dma.ok')) {
    if (question !== undefined) explainShortage(call, question);
    return;
  }
  const { seq } = call.event;
  const { space } = call.process;
  if (question !== undefined) chargeAsked(tx, question, seq);
  mappings.set(
    iova,
    Object.freeze({
      start: iova,
      last,
      vaddr,
      flags: access,
      space,
      vaddrInvalid: false,
      pinned: inDomain,
      pin: question === undefined ? 0 : enterPin(tx, container.id, space, iova, last, vaddr, seq),
      lockedPages: question?.pages ?? 0,
      maybeLockedPages: question?.maybePages ?? 0,
      since: seq,
    }),
  );
}

/** A group that joined unseen may have an IOMMU, which pins memory and reserves ranges: then a failure is no news. */
function pinsUnseen(call: Call, container: VfioContainer): boolean {
  if (areGroupsKnown(container)) return false;
  return UNSEEN_ERRORS.some((errno) => call.failedByFact(errno, 'which groups are in the container is not recorded'));
}

const UNSEEN_ERRORS: readonly string[] = [R.pin.errno, R.memlock.errno, R.range.errno];

/** What every machine can map was assumed; what this one reserves besides, only GET_INFO tells. */
const RANGES_NOT_TOLD =
  'no GET_INFO shows what the IOMMU reserves: /sys/kernel/iommu_groups/N/reserved_regions lists it for each group';

function outsideRanges(call: Call, container: VfioContainer, iova: U64, last: U64): boolean {
  const answer = rangeAnswer(container, iova, last);
  if (answer === 'valid') return false;
  if (answer === 'unknown') return tooWide(call, container, iova, last);
  if (container.ranges !== null || !isNatureOpen(call.tx, container)) return refuse(call, R.range);
  if (call.failUnlessLearned(R.range.errno, R.range.id)) return true;
  learnEmulated(call, container);
  return false;
}

/** Of an address that not every machine translates, answers to others of its width tell. True: the call ends here. */
function tooWide(call: Call, container: VfioContainer, iova: U64, last: U64): boolean {
  const groups = physicalGroups(call.tx, container);
  const { least, most } = widthOf(call.tx, groups);
  if (last <= least) return false;
  if (most !== undefined && last > most) return refuse(call, R.range);
  const reason = `IOVA ${hex(last)} needs more than 39 bits, and no GET_INFO shows the valid IOVA ranges of the container`;
  // A container without an IOMMU takes any address.
  if (isNatureOpen(call.tx, container)) return !call.unknown(reason);
  const part = call.partByFact(R.range.errno, reason);
  const clear = part === 'has' || (part === 'lacks' && !bitmapTooLarge(container, iova, last));
  if (clear) teachWidth(call, groups, last, part === 'has');
  return part === 'lacks';
}

function bitmapTooLarge(container: VfioContainer, iova: U64, last: U64): boolean {
  if (container.dirtyTracking === false) return false;
  return BigInt(last) - BigInt(iova) >= BigInt(BITMAP_PAGES_MAX) * BigInt(container.pageBytes);
}

function bitmapRefused(call: Call, container: VfioContainer): boolean {
  return container.dirtyTracking === null ? !call.unknown(TRACKING_UNKNOWN) : refuse(call, R.bitmap);
}

function updateVaddr(call: Call, container: VfioContainer, iova: U64, last: U64, vaddr: U64): void {
  const tx = call.tx;
  const mappings = tx.openTable(tx.world.containers, container.id, 'mappings');
  const hit = firstOverlap(mappings, iova, last);
  if (hit === undefined && container.unknownSince >= 0) {
    call.unknown(unknownText(container));
    return;
  }
  if (hit === undefined) {
    refuse(call, R.vaddrMissing);
    return;
  }
  const fits = hit.vaddrInvalid && hit.start === iova && hit.last === last;
  if (!fits && refuse(call, R.vaddrMismatch)) return;
  const { space } = call.process;
  const asked = { pages: hit.lockedPages, maybePages: hit.maybeLockedPages };
  const question = hit.space === space ? undefined : limitQuestion(call, asked);
  if (question !== undefined) {
    if (refuseSure(call, question, R.vaddrMemlock.id) || refuseLikely(call, question, R.vaddrMemlock.id)) return;
  }
  if (!call.succeed('map-dma.vaddr-ok')) {
    if (question !== undefined) explainShortage(call, question);
    return;
  }
  if (question !== undefined) {
    charge(tx, 'space', hit.space, -hit.lockedPages, -hit.maybeLockedPages);
    chargeAsked(tx, question, call.event.seq);
  }
  const pin = hit.pin === 0 ? 0 : movePin(tx, container.id, hit, space, vaddr);
  mappings.set(hit.start, Object.freeze({ ...hit, vaddr, vaddrInvalid: false, space, pin }));
  if (hit.vaddrInvalid) patchContainer(tx, container.id, { vaddrInvalid: container.vaddrInvalid - 1 });
}

/** The pages are found at another address now, maybe of another process. */
function movePin(tx: Tx, containerId: number, mapping: DmaMapping, space: number, vaddr: U64): number {
  pinRemove(tx, mapping.space, mapping.pin, mapping.since);
  return enterPin(tx, containerId, space, mapping.start, mapping.last, vaddr, mapping.since);
}

function enterPin(
  tx: Tx,
  containerId: number,
  space: number,
  iova: U64,
  iovaLast: U64,
  vaddr: U64,
  since: number,
): number {
  const last = sub(add(vaddr, lengthOf(iova, iovaLast)), 1);
  return pinAdd(tx, space, { start: vaddr, last, owner: `type1:${containerId}`, key: iova, since });
}
