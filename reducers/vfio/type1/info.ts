import { Bytes, putU32, putU64 } from '../../../core/bytes.js';
import { add, type U64 } from '../../../core/u64.js';
import { find, unknownSinceText } from '../../answer.js';
import type { Call } from '../../call.js';
import { areGroupsKnown, containerOf, patchContainer } from '../containers.js';
import { ENTRY_LIMIT_KEY, iommuKey, smallFact, teach } from '../facts.js';
import { isNatureOpen, learnEmulated } from '../groups.js';
import { lowestBit, physicalGroups, refreshHardware } from '../membership.js';
import { takeStruct } from '../payload.js';
import type { Rule } from '../rules.js';
import type { VfioContainer } from '../state.js';
import {
  IOMMU_CAP_DMA_AVAIL,
  IOMMU_CAP_IOVA_RANGE,
  IOMMU_CAP_MIGRATION,
  IOMMU_INFO_CAPS,
  IOMMU_INFO_PGSIZES,
} from '../uapi.js';

/**
 * VFIO_IOMMU_GET_INFO of type1 (`vfio_iommu_type1_get_info`).
 *
 * Struct: argsz 0, flags 4, iova_pgsizes 8, cap_offset 16, pad 20; then, when argsz has room for all of it, the chain
 * of capabilities: migration, free entries, and valid IOVA ranges where there is a real IOMMU. With too little
 * room only the size that is needed comes back, in argsz. Page sizes, ranges and the limit of entries are
 * facts of the machine, kept per set of groups (all page sizes: there is no real IOMMU); the rest follows from the container's state.
 */
export const INFO_RULES = {
  argsz: { id: 'get-info.argsz', errno: 'EINVAL', text: 'argsz is less than 16' },
} as const satisfies Record<string, Rule>;

const MIN_BYTES = 16;
const STRUCT_BYTES = 24;
const MIGRATION_BYTES = 32;
const AVAIL_BYTES = 16;
const RANGES_HEAD_BYTES = 16;
const RANGE_BYTES = 16;
const MAX_RANGES = 4096;
const DIRTY_BITMAP_SIZE_MAX = 1 << 28;
/** Page sizes of a backend without a real IOMMU: PAGE_MASK. */
const ALL_PAGE_SIZES: U64 = 0xffff_ffff_ffff_f000n;

export function getInfo(call: Call): void {
  const struct = takeStruct(call, MIN_BYTES, INFO_RULES.argsz);
  if (struct === undefined) return;
  const container = containerOf(call);
  if (container.backend === 'unknown' || !areGroupsKnown(container)) {
    call.unknown(unknownSinceText('state of the container', container.unknownSince));
    return;
  }
  const argsz = struct.u32(0);
  call.extentBytes = Math.min(argsz, STRUCT_BYTES);
  if (!call.succeed('get-info.ok')) return;
  if (isNatureOpen(call.tx, container) && find(call.memOut, call.arg, MIN_BYTES)?.u64(8) === ALL_PAGE_SIZES)
    learnEmulated(call, container);
  const groups = physicalGroups(call.tx, container);
  call.out32(4, IOMMU_INFO_PGSIZES | IOMMU_INFO_CAPS, 'flags');
  const sizes = pageSizes(call, groups);
  const count = groups.length === 0 ? (container.ranges?.length ?? 0) : rangeCount(call, groups, argsz);
  if (sizes === undefined || count === undefined) return;
  const capsBytes = MIGRATION_BYTES + AVAIL_BYTES + (count === 0 ? 0 : RANGES_HEAD_BYTES + count * RANGE_BYTES);
  const fits = argsz >= STRUCT_BYTES + capsBytes;
  call.out32(0, fits ? argsz : STRUCT_BYTES + capsBytes, 'argsz');
  outTail(call, argsz, fits);
  if (!fits) return;
  call.extentBytes = STRUCT_BYTES + capsBytes;
  writeChain(call, container, groups, lowestBit(sizes), count);
  refreshHardware(call.tx, container.id);
}

function pageSizes(call: Call, groups: readonly number[]): U64 | undefined {
  if (groups.length > 0) return call.learn64(8, iommuKey(groups, 'pgsizes'), 'iova_pgsizes');
  call.out64(8, ALL_PAGE_SIZES, 'iova_pgsizes');
  return ALL_PAGE_SIZES;
}

/** cap_offset and padding, as far as the caller's struct reaches. */
function outTail(call: Call, argsz: number, fits: boolean): void {
  const tail = new Uint8Array(Math.max(0, Math.min(argsz, STRUCT_BYTES) - MIN_BYTES));
  if (fits) putU32(tail, 0, STRUCT_BYTES);
  if (tail.length > 0) call.outBytes(add(call.arg, MIN_BYTES), new Bytes(tail), 'cap_offset');
}

/** How many valid IOVA ranges the groups have: known, or told by the size that the kernel asks for. */
function rangeCount(call: Call, groups: readonly number[], argsz: number): number | undefined {
  const key = iommuKey(groups, 'iova_range_count');
  const known = smallFact(call.tx, key);
  if (known !== undefined) return known;
  const told = find(call.memOut, call.arg, STRUCT_BYTES);
  if (told === undefined) return undefined;
  let count: number | undefined;
  if (told.u32(16) === 0) {
    const rest = told.u32(0) - STRUCT_BYTES - MIGRATION_BYTES - AVAIL_BYTES - RANGES_HEAD_BYTES;
    if (told.u32(0) !== argsz && rest >= 0) count = rest / RANGE_BYTES;
  } else {
    count = find(call.memOut, add(call.arg, STRUCT_BYTES + MIGRATION_BYTES + AVAIL_BYTES + 8), 4)?.u32(0);
  }
  if (count === undefined || !Number.isInteger(count) || count > MAX_RANGES) return undefined;
  teach(call, key, count);
  return count;
}

function writeChain(
  call: Call,
  container: VfioContainer,
  groups: readonly number[],
  pageBytes: number,
  count: number,
): void {
  const at = add(call.arg, STRUCT_BYTES);
  const migration = new Uint8Array(MIGRATION_BYTES);
  header(migration, IOMMU_CAP_MIGRATION, STRUCT_BYTES + MIGRATION_BYTES);
  putU64(migration, 16, pageBytes);
  putU64(migration, 24, DIRTY_BITMAP_SIZE_MAX);
  call.outBytes(at, new Bytes(migration), 'migration capability');
  const availAt = add(at, MIGRATION_BYTES);
  const avail = new Uint8Array(AVAIL_BYTES);
  header(avail, IOMMU_CAP_DMA_AVAIL, count === 0 ? 0 : STRUCT_BYTES + MIGRATION_BYTES + AVAIL_BYTES);
  const left = entriesLeft(call, container, add(availAt, 8));
  if (left !== undefined) {
    putU32(avail, 8, left);
    call.outBytes(availAt, new Bytes(avail), 'DMA available capability');
  } else {
    call.outUnknown(availAt, AVAIL_BYTES, unknownSinceText('mappings of the container', container.unknownSince));
  }
  if (count === 0) return;
  const rangesAt = add(availAt, AVAIL_BYTES);
  const head = new Uint8Array(RANGES_HEAD_BYTES);
  header(head, IOMMU_CAP_IOVA_RANGE, 0);
  putU32(head, 8, count);
  call.outBytes(rangesAt, new Bytes(head), 'IOVA range capability');
  const listAt = add(rangesAt, RANGES_HEAD_BYTES);
  if (groups.length > 0) call.learnBytes(listAt, count * RANGE_BYTES, iommuKey(groups, 'iova_ranges'), 'iova_ranges');
  else call.outBytes(listAt, UNLIMITED, 'iova_ranges');
}

/** The one range of a container whose last group with an IOMMU has left. */
const UNLIMITED = new Bytes(new Uint8Array(RANGE_BYTES).fill(0xff, RANGE_BYTES / 2));

function header(cap: Uint8Array, id: number, next: number): void {
  putU32(cap, 0, id | (1 << 16));
  putU32(cap, 4, next);
}

/** Free entries of the container. The limit behind it is a module parameter, learned from the first answer. */
function entriesLeft(call: Call, container: VfioContainer, at: U64): number | undefined {
  if (container.unknownSince >= 0) return undefined;
  const used = container.mappings.size;
  const limit = smallFact(call.tx, ENTRY_LIMIT_KEY);
  if (limit !== undefined) return container.entryLimit - used;
  const told = find(call.memOut, at, 4)?.u32(0);
  if (told === undefined) return undefined;
  teach(call, ENTRY_LIMIT_KEY, told + used);
  patchContainer(call.tx, container.id, { entryLimit: told + used });
  return told;
}
