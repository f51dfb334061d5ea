import { Bytes, putU32, putU64 } from '../../core/bytes.js';
import { rangeAt } from '../../core/interval.js';
import { add, lastOf, modPow2, sub, type U64, U64_MAX } from '../../core/u64.js';
import type { Call } from '../call.js';
import { contextOf, ioasByKey, recorded32, typedObject } from './context.js';
import { commonPageSizes } from './domain.js';
import { afterUnseen } from './forget.js';
import { addSharer, pinArea, sharePages, unpinArea } from './held-pages.js';
import { deleteArea, insertArea, usableRanges } from './iopt.js';
import { learnRanges, pendingText, rangeCountKey, rangesFrom, tableKey } from './limits.js';
import { mapUserMemory } from './map.js';
import { refuseSmallPages, setLargePages } from './option.js';
import { byteAt } from './pages.js';
import { predictRefusal } from './refuse.js';
import { type Refusal, type Rule, refusal } from './rules.js';
import type { Area, Ioas } from './state.js';
import { executeUnmap, planUnmap } from './unmap.js';
import { probeBuffer } from './user-buffer.js';
import { unknownSinceText } from '../answer.js';

/**
 * VFIO's container calls on /dev/iommu (drivers/iommu/iommufd/vfio_compat.c). They work on the compatibility IOAS,
 * which VFIO_IOAS sets or the first group makes; without it they give ENODEV.
 *
 * What differs from the IOAS calls: MAP needs no right (but a page table does) and always a given IOVA;
 * UNMAP of nothing succeeds with size 0, and writes the size also when it fails; in TYPE1 mode (no large pages) UNMAP
 * may cut an area at both ends of its range. GET_INFO writes as many capabilities as fit and always the full size.
 */
export const COMPAT_RULES: readonly Rule[] = [
  { id: 'compat.number', errno: 'ENOTTY', text: 'no such container call' },
  { id: 'compat.version', errno: '', text: 'the API version is 0' },
  { id: 'compat.extension', errno: '', text: 'whether an extension is there' },
  { id: 'compat.no-ioas', errno: 'ENODEV', text: 'there is no compatibility IOAS' },
  { id: 'compat-set-iommu.type', errno: 'EINVAL', text: 'the type is not TYPE1 or TYPE1v2' },
  { id: 'compat-set-iommu.ok', errno: '', text: 'the type is set; TYPE1 turns large pages off' },
  { id: 'compat-map.argsz', errno: 'EINVAL', text: 'argsz is too small or a flag unknown' },
  { id: 'compat-unmap.argsz', errno: 'EINVAL', text: 'argsz is too small or a flag unknown' },
  { id: 'compat-unmap.all', errno: 'EINVAL', text: 'unmap-all with a range' },
  { id: 'compat-unmap.cut-alignment', errno: 'EINVAL', text: 'a cut would not keep to the alignment' },
  { id: 'compat-unmap.cut-access', errno: 'EINVAL', text: 'an area with pinned pages cannot be cut' },
  { id: 'compat-unmap.cut-dma-buf', errno: 'EOPNOTSUPP', text: 'an area of a dma-buf cannot be cut' },
  { id: 'compat-unmap.ok', errno: '', text: 'the areas in the range go' },
  { id: 'compat-unmap.nothing', errno: '', text: 'no area is in the range, and nothing goes' },
  { id: 'compat-info.argsz', errno: 'EINVAL', text: 'argsz is too small' },
  { id: 'compat-info.ok', errno: '', text: 'page sizes and capabilities are told' },
];

const GET_API_VERSION = 0x3b64;
const CHECK_EXTENSION = 0x3b65;
const SET_IOMMU = 0x3b66;
const GET_INFO = 0x3b70;
const MAP_DMA = 0x3b71;
const UNMAP_DMA = 0x3b72;

const TYPE1 = 1;
const TYPE1_V2 = 3;
const DMA_CC = 4;
const NOIOMMU = 8;
const UNMAP_ALL = 9;

export function compatIoctl(call: Call, request: number): void {
  switch (request) {
    case GET_API_VERSION:
      call.succeed('compat.version', 0);
      return;
    case CHECK_EXTENSION:
      checkExtension(call);
      return;
    case SET_IOMMU:
      setIommu(call);
      return;
    case GET_INFO:
      getInfo(call);
      return;
    case MAP_DMA:
      mapDma(call);
      return;
    case UNMAP_DMA:
      unmapDma(call);
      return;
    default:
      call.fail('ENOTTY', 'compat.number');
  }
}

/** The compatibility IOAS; undefined after a prediction was made. */
function compatIoas(call: Call): Ioas | undefined {
  const context = contextOf(call.tx, call.file.object);
  const object = typedObject(call.tx, context.id, context.vfioIoas, 'ioas');
  if (object !== undefined) return ioasByKey(call.tx, object.ioas);
  if (context.unknownSince >= 0) call.unknown(unknownSinceText('objects', context.unknownSince));
  else call.fail('ENODEV', 'compat.no-ioas');
  return undefined;
}

function checkExtension(call: Call): void {
  switch (call.arg) {
    case TYPE1:
    case TYPE1_V2:
    case UNMAP_ALL:
      call.succeed('compat.extension', contextOf(call.tx, call.file.object).noIommu ? 0 : 1);
      return;
    case NOIOMMU:
      learnedExtension(call, 'kernel/vfio_noiommu');
      return;
    case DMA_CC: {
      const ioas = compatIoas(call);
      if (ioas === undefined) return;
      const mock = ioas.hwpts.some(
        (id) => typedObject(call.tx, ioas.context, id, 'hwpt-paging')?.domain.owner === 'mock',
      );
      const { unknownSince } = contextOf(call.tx, call.file.object);
      if (mock) call.succeed('compat.extension', 0);
      else if (unknownSince >= 0) call.unknown(unknownSinceText('objects', unknownSince));
      else if (ioas.hwpts.length === 0) call.succeed('compat.extension', 1);
      else learnedExtension(call, 'iommu/cache_coherency');
      return;
    }
    default:
      call.succeed('compat.extension', 0);
  }
}

/** Whether this kernel or machine has something, which only a recorded answer can tell, once. */
function learnedExtension(call: Call, key: string): void {
  const told = call.tx.world.facts.get(key)?.value;
  if (typeof told === 'number') {
    call.succeed('compat.extension', told);
    return;
  }
  if (!call.succeedWithLearnedRet('compat.extension')) return;
  call.tx.world.facts.set(key, Object.freeze({ value: Number(call.recordedRet), since: call.event.seq }));
}

function setIommu(call: Call): void {
  const noIommu = contextOf(call.tx, call.file.object).noIommu;
  const type = call.arg;
  if (noIommu && type === NOIOMMU) {
    call.succeed('compat-set-iommu.ok');
    return;
  }
  if ((noIommu || (type !== TYPE1 && type !== TYPE1_V2)) && call.fail('EINVAL', 'compat-set-iommu.type')) return;
  const ioas = compatIoas(call);
  if (ioas === undefined) return;
  if (type === TYPE1 && refuseSmallPages(call, ioas)) return;
  if (call.succeed('compat-set-iommu.ok') && type === TYPE1) setLargePages(call.tx, ioas, false);
}

/**
 * Whether the first bytes of the struct are there; else predicts. A struct that says itself to be shorter is refused
 * whatever follows it.
 */
function hasPayload(call: Call, bytes: number, rule: string): boolean {
  if (call.struct.length >= bytes) return true;
  if (call.struct.length >= 4 && call.struct.u32(0) < bytes && call.fail('EINVAL', rule)) return false;
  const shown = call.struct.length;
  if (probeBuffer(call, add(call.arg, shown), bytes - shown, false) === 'fault') call.fail('EFAULT', 'common.fault');
  else if (call.unknown('payload not recorded')) afterUnseen(call);
  return false;
}

function mapDma(call: Call): void {
  if (!hasPayload(call, 32, 'compat-map.argsz')) return;
  const s = call.struct;
  const flags = s.u32(4);
  call.extentBytes = 32;
  if ((s.u32(0) < 32 || (flags & ~3) !== 0) && call.fail('EINVAL', 'compat-map.argsz')) return;
  const ioas = compatIoas(call);
  if (ioas !== undefined) mapUserMemory(call, ioas, s.u64(8), s.u64(24), s.u64(16), true, flags & 3);
}

// ---- UNMAP_DMA ----------------------------------------------------------------------------------------------

const FLAG_UNMAP_ALL = 2;

function unmapDma(call: Call): void {
  if (!hasPayload(call, 24, 'compat-unmap.argsz')) return;
  const s = call.struct;
  const flags = s.u32(4);
  call.extentBytes = 24;
  if ((s.u32(0) < 24 || (flags & ~FLAG_UNMAP_ALL) !== 0) && call.fail('EINVAL', 'compat-unmap.argsz')) return;
  const ioas = compatIoas(call);
  if (ioas === undefined) return;
  const iova = s.u64(8);
  const size = s.u64(16);
  if (flags & FLAG_UNMAP_ALL) {
    if ((iova !== 0 || size !== 0) && call.fail('EINVAL', 'compat-unmap.all')) return;
    finishUnmap(call, ioas.id, 0, U64_MAX);
    return;
  }
  if (ioas.noLargePages) {
    call.trial();
    const refused =
      cut(call, ioas.id, sub(add(iova, size), 1)) ?? (iova === 0 ? undefined : cut(call, ioas.id, sub(iova, 1)));
    if (refused !== undefined && predictRefusal(call, refused)) return;
  }
  const last = lastOf(iova, size);
  if (size !== 0 && last !== undefined) {
    finishUnmap(call, ioas.id, iova, last);
    return;
  }
  if (size === 0) call.fail('EINVAL', 'unmap.length');
  else call.fail('EOVERFLOW', 'unmap.overflow');
  if (call.recordedErrno !== '') call.out64(16, 0, 'size');
}

function finishUnmap(call: Call, ioasKey: number, start: U64, last: U64): void {
  const plan = planUnmap(ioasByKey(call.tx, ioasKey), start, last);
  if (plan.unknown !== '') call.unknown(plan.unknown);
  else if (plan.errno !== '') call.fail(plan.errno, plan.rule);
  else call.succeed(plan.areas.length === 0 && last !== U64_MAX ? 'compat-unmap.nothing' : 'compat-unmap.ok');
  const happened = call.recordedRet !== null && (call.recordedRet !== -1 || call.recordedErrno === plan.errno);
  if (!happened) return;
  executeUnmap(call.tx, ioasKey, plan.areas);
  if (plan.unknown === '') call.out64(16, plan.bytes, 'size');
}

const CUT_ALIGNMENT = refusal('EINVAL', 'compat-unmap.cut-alignment');
const CUT_ACCESS = refusal('EINVAL', 'compat-unmap.cut-access');
const CUT_DMA_BUF = refusal('EOPNOTSUPP', 'compat-unmap.cut-dma-buf');

/**
 * Splits the area that holds `lastByte` after it (`iopt_area_split`). An area that ends there, or (as in the kernel)
 * starts there, stays whole.
 */
function cut(call: Call, ioasKey: number, lastByte: U64): Refusal | undefined {
  const ioas = ioasByKey(call.tx, ioasKey);
  const area = rangeAt(ioas.areas, lastByte);
  if (area === undefined || area.start === lastByte || area.last === lastByte) return undefined;
  if (area.pages.kind === 'dmabuf') return CUT_DMA_BUF;
  const next = add(lastByte, 1);
  const startByte = byteAt(area, next);
  if (modPow2(next, ioas.alignment) !== 0 || modPow2(startByte, ioas.alignment) !== 0) return CUT_ALIGNMENT;
  if (area.accesses > 0) return CUT_ACCESS;
  // Both halves show the same memory, and its pages stay pinned all the while.
  sharePages(call.tx, area);
  addSharer(call.tx, area.pages.id);
  deleteArea(call.tx, ioasKey, area);
  const halves: Area[] = [
    { ...area, last: lastByte, pin: 0 },
    { ...area, start: next, startByte, pin: 0 },
  ];
  const pinned = ioas.hwpts.length > 0;
  const made = halves.map((half) => (pinned ? pinArea(call.tx, ioasKey, half, call.event.seq) : Object.freeze(half)));
  if (pinned) unpinArea(call.tx, area);
  for (const half of made) insertArea(call.tx, ioasKey, half);
  return undefined;
}

// ---- GET_INFO -----------------------------------------------------------------------------------------------

const INFO_BYTES = 24;
const INFO_MIN_BYTES = 16;
const AVAIL_AT = 24;
const AVAIL_BYTES = 12;
const RANGES_AT = 40;
const RANGES_HEADER_BYTES = 16;
const CAP_IOVA_RANGES = 1;
const CAP_DMA_AVAIL = 3;

function getInfo(call: Call): void {
  if (!hasPayload(call, INFO_MIN_BYTES, 'compat-info.argsz')) return;
  const argsz = call.struct.u32(0);
  if (argsz < INFO_MIN_BYTES && call.fail('EINVAL', 'compat-info.argsz')) return;
  const ioas = compatIoas(call);
  if (ioas === undefined) return;
  if (ioas.unknownSince >= 0) call.unknown(unknownSinceText('reserved ranges', ioas.unknownSince));
  if (!call.succeed('compat-info.ok')) return;
  if (ioas.unknownHardware.length > 0 && !learnInfo(call, ioas, argsz)) return;
  tellInfo(call, ioasByKey(call.tx, ioas.id), argsz);
}

/** Takes the reserved ranges over from an answer that holds them all; else only its size is a fact. */
function learnInfo(call: Call, ioas: Ioas, argsz: number): boolean {
  const total = learnSize(call, ioas);
  learnPageSizes(call, ioas);
  const rangesAt = RANGES_AT + RANGES_HEADER_BYTES;
  if (total === undefined || argsz < total) {
    // The capabilities that did fit are not compared.
    if (argsz > INFO_BYTES)
      call.outUnknown(
        add(call.arg, INFO_BYTES),
        argsz - INFO_BYTES,
        `reserved ranges of ${pendingText(call.tx, ioas)} not recorded yet`,
      );
    call.out32(4, 3, 'flags');
    call.extentBytes = Math.min(argsz, call.struct.length);
    return false;
  }
  const shown = call.memOut.find((note) => note.addr === call.arg)?.bytes;
  if (!shown?.has(rangesAt, total - rangesAt)) return false;
  const ranges = rangesFrom(new Bytes(shown.slice(rangesAt, total - rangesAt).toUint8Array()));
  if (!learnRanges(call.tx, ioas.id, ranges, call.event.seq)) return false;
  call.noteLearned();
  return true;
}

/** Size of the whole answer, which tells how many ranges there are. */
function learnSize(call: Call, ioas: Ioas): number | undefined {
  const key = rangeCountKey(call.tx, ioas);
  const known = call.tx.world.facts.get(key)?.value;
  const beforeRanges = RANGES_AT + RANGES_HEADER_BYTES;
  if (known instanceof Bytes) {
    const total = beforeRanges + known.u32(0) * 16;
    call.out32(0, total, 'argsz');
    return total;
  }
  const total = recorded32(call, 0);
  if (total === undefined) return undefined;
  const count = (total - beforeRanges) / 16;
  if (!Number.isInteger(count) || count < 1) return undefined;
  const value = new Uint8Array(4);
  putU32(value, 0, count);
  call.tx.world.facts.set(key, Object.freeze({ value: new Bytes(value), since: call.event.seq }));
  call.out32(0, total, 'argsz');
  call.noteLearned();
  return total;
}

/** Page sizes of real domains are told here only; later answers must agree. */
function learnPageSizes(call: Call, ioas: Ioas): void {
  const hwpt = typedObject(call.tx, ioas.context, ioas.hwpts[0] ?? 0, 'hwpt-paging');
  if (hwpt !== undefined) call.learn64(8, `iommu/${tableKey(hwpt.domain)}/pgsizes`, 'iova_pgsizes');
}

/** The whole answer, and then the parts of it that fit. */
function tellInfo(call: Call, ioas: Ioas, argsz: number): void {
  const pgsizes = commonPageSizes(call.tx, ioas);
  const ranges = [...usableRanges(ioas)];
  const total = RANGES_AT + RANGES_HEADER_BYTES + ranges.length * 16;
  const info = new Uint8Array(total);
  putU32(info, 0, total);
  putU32(info, 4, 3);
  if (pgsizes !== undefined) putU64(info, 8, pgsizes);
  putU32(info, 16, argsz >= total ? INFO_BYTES : 0);
  putU32(info, AVAIL_AT, CAP_DMA_AVAIL | (1 << 16));
  putU32(info, AVAIL_AT + 4, argsz >= RANGES_AT ? RANGES_AT : 0);
  putU32(info, AVAIL_AT + 8, 0xffff_ffff);
  putU32(info, RANGES_AT, CAP_IOVA_RANGES | (1 << 16));
  putU32(info, RANGES_AT + 8, ranges.length);
  ranges.forEach((range, index) => {
    putU64(info, RANGES_AT + RANGES_HEADER_BYTES + index * 16, range.start);
    putU64(info, RANGES_AT + RANGES_HEADER_BYTES + index * 16 + 8, range.last);
  });
  if (pgsizes === undefined) learnPageSizes(call, ioas);
  putInfo(call, info, argsz, ranges.length, pgsizes !== undefined);
}

/** Writes what fits: a capability whole, the ranges one by one, the struct's beginning always. */
function putInfo(call: Call, info: Uint8Array, argsz: number, rangeCount: number, knownPgsizes: boolean): void {
  const put = (at: number, count: number): void => {
    if (count > 0) call.outBytes(add(call.arg, at), new Bytes(info, at, count), `bytes ${at}..${at + count - 1}`);
  };
  const head = Math.min(argsz, INFO_BYTES);
  put(0, 8);
  if (knownPgsizes) put(8, 8);
  put(16, head - 16);
  if (argsz >= AVAIL_AT + AVAIL_BYTES) put(AVAIL_AT, AVAIL_BYTES);
  else if (argsz >= RANGES_AT) put(AVAIL_AT + 4, 4);
  if (argsz > RANGES_AT) {
    const ranges = RANGES_AT + RANGES_HEADER_BYTES;
    const fits = Math.min(rangeCount, Math.max(0, Math.floor((argsz - ranges) / 16)));
    put(ranges, fits * 16);
    if (fits === rangeCount) put(RANGES_AT, RANGES_HEADER_BYTES);
  }
  call.extentBytes = Math.min(argsz, call.struct.length);
}
