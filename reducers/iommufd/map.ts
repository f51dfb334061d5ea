import { firstOverlap, rangeAt } from '../../core/interval.js';
import { add, addOverflows, lastOf, lengthOf, min, modPow2, sub, type U64, U64_MAX } from '../../core/u64.js';
import type { Call } from '../call.js';
import { Asked } from './asked.js';
import { chargeOfCaller } from './charges.js';
import { addPagesRef } from '../files/open-files.js';
import { contextOf, ioasByKey, lookupIoas, patchIoas, typedObject, writeBack } from './context.js';
import { refuseAreaRights } from './domain.js';
import { addSharer, NOT_HELD, pinArea, refusePages, sharePages } from './held-pages.js';
import { checkIova, chooseIova, insertArea, isRefusal, nthAreaIova, PAGE } from './iopt.js';
import { pendingText } from './limits.js';
import { fileForMap } from './map-file.js';
import { byteAt, pagesIn } from './pages.js';
import { predictRefusal } from './refuse.js';
import { type Rule, SELFTEST_FACT } from './rules.js';
import type { Area, Ioas, IoPages } from './state.js';
import { executeUnmap } from './unmap.js';
import { unknownSinceText } from '../answer.js';

/**
 * IOAS_MAP, MAP_FILE and COPY (drivers/iommu/iommufd/ioas.c, io_pagetable.c).
 *
 * The kernel's order for a new mapping: the fields of the struct; the IOAS; the memory (address plus length, not 0);
 * then in the IOVA space the length, the place (given or chosen), the rights, the offset in the page; at last,
 * if the IOAS has domains, the pages are pinned, mapped into each and charged (charges.ts). A failure leaves nothing
 * behind.
 *
 * COPY shares the memory of a gapless run of areas; each becomes an area of the destination.
 */
export const MAP_RULES: readonly Rule[] = [
  { id: 'map.flags', errno: 'EOPNOTSUPP', text: 'an unknown flag or the reserved field is set' },
  { id: 'map.overflow', errno: 'EOVERFLOW', text: 'IOVA or length is 2^64 - 1' },
  { id: 'map.no-access', errno: 'EINVAL', text: 'neither readable nor writable' },
  { id: 'map.ioas', errno: 'ENOENT', text: 'no IOAS has the id' },
  { id: 'map.memory-overflow', errno: 'EOVERFLOW', text: 'address and length pass 2^64' },
  { id: 'map.memory-length', errno: 'EINVAL', text: 'the length is 0 or within a page of 2^64' },
  { id: 'map.write', errno: 'EPERM', text: 'writable, and the memory was mapped read-only before' },
  { id: 'map.page-offset', errno: 'EINVAL', text: 'the offset in the page is no multiple of the alignment' },
  { id: 'map.ok', errno: '', text: 'an area is made' },
  { id: 'copy.source', errno: 'ENOENT', text: 'no IOAS has the source id' },
  { id: 'copy.length', errno: 'EINVAL', text: 'the length is 0' },
  { id: 'copy.source-overflow', errno: 'EOVERFLOW', text: 'source IOVA and length pass 2^64' },
  { id: 'copy.source-gap', errno: 'ENOENT', text: 'the source range is not covered by areas' },
  { id: 'copy.ok', errno: '', text: 'the destination shares the memory' },
];

const FIXED_IOVA = 1;
const WRITEABLE = 2;
const READABLE = 4;
const ALL_FLAGS = FIXED_IOVA | WRITEABLE | READABLE;
/** On kernels with the self-tests: the source IOVA of COPY means the n-th area. */
const SYZ_FLAG = 0x1_0000;

function protOf(flags: number): number {
  return (flags & READABLE ? 1 : 0) | (flags & WRITEABLE ? 2 : 0);
}

/** A run of bytes of some memory that becomes one area. */
export interface Slice {
  readonly pages: IoPages;
  /** The area that shows it already; null for new memory. */
  readonly source: Area | null;
  readonly startByte: U64;
  readonly length: U64;
}

/** Checks of flags and sizes that MAP and MAP_FILE share; true when the prediction is a failure. */
function refuseFields(call: Call, reserved: number): boolean {
  const s = call.struct;
  const flags = s.u32(4);
  if (((flags & ~ALL_FLAGS) !== 0 || reserved !== 0) && call.fail('EOPNOTSUPP', 'map.flags')) return true;
  if ((s.u64(32) === U64_MAX || s.u64(24) === U64_MAX) && call.fail('EOVERFLOW', 'map.overflow')) return true;
  return (flags & (WRITEABLE | READABLE)) === 0 && call.fail('EINVAL', 'map.no-access');
}

export function map(call: Call): void {
  const s = call.struct;
  if (refuseFields(call, s.u32(12))) return;
  const ioas = lookupIoas(call, s.u32(8), 'map.ioas');
  if (ioas === undefined) return;
  const flags = s.u32(4);
  const iova = mapUserMemory(call, ioas, s.u64(16), s.u64(24), s.u64(32), (flags & FIXED_IOVA) !== 0, protOf(flags));
  if (iova !== undefined) writeBack(call, 32, iova, 'iova');
}

/**
 * Maps memory of the calling process; gives the IOVA, or undefined when nothing was mapped. Predicts.
 * Shared with VFIO's MAP_DMA.
 */
export function mapUserMemory(
  call: Call,
  ioas: Ioas,
  address: U64,
  length: U64,
  iova: U64,
  fixed: boolean,
  prot: number,
): U64 | undefined {
  if (addOverflows(address, length) && call.fail('EOVERFLOW', 'map.memory-overflow')) return undefined;
  if ((length === 0 || length > sub(U64_MAX, PAGE)) && call.fail('EINVAL', 'map.memory-length')) return undefined;
  const offset = modPow2(address, PAGE);
  const pages: IoPages = Object.freeze({
    id: call.tx.nextId('io-pages'),
    kind: 'user',
    space: call.process.space,
    base: sub(address, offset),
    file: 0,
    pageCount: pagesIn(offset, length),
    writable: (prot & 2) !== 0,
    ...chargeOfCaller(call, contextOf(call.tx, ioas.context).accountMm),
  });
  return place(call, ioas, [{ pages, source: null, startByte: offset, length }], length, iova, fixed, prot, 'map.ok');
}

export function mapFile(call: Call): void {
  const s = call.struct;
  if (refuseFields(call, 0)) return;
  const ioas = lookupIoas(call, s.u32(8), 'map.ioas');
  if (ioas === undefined) return;
  const flags = s.u32(4);
  const prot = protOf(flags);
  const pages = fileForMap(call, ioas, s.s32(12), s.u64(16), s.u64(24), (prot & 2) !== 0);
  if (pages === undefined) return;
  const slice = { pages, source: null, startByte: modPow2(s.u64(16), PAGE), length: s.u64(24) };
  const iova = place(call, ioas, [slice], slice.length, s.u64(32), (flags & FIXED_IOVA) !== 0, prot, 'map.ok');
  if (iova !== undefined) writeBack(call, 32, iova, 'iova');
}

/**
 * Puts slices one after the other into the IOVA space (`iopt_map_pages`). Predicts; gives the IOVA when the areas
 * were made.
 */
function place(
  call: Call,
  ioas: Ioas,
  slices: readonly Slice[],
  length: U64,
  iova: U64,
  fixed: boolean,
  prot: number,
  rule: string,
): U64 | undefined {
  if ((length === 0 || modPow2(length, ioas.alignment) !== 0) && call.fail('EINVAL', 'iova.length')) return undefined;
  let at = iova;
  if (fixed) {
    const refused = checkIova(ioas, iova, length);
    if (refused !== undefined && predictRefusal(call, refused)) return undefined;
  } else {
    const first = slices[0] as Slice;
    const chosen = chooseIova(call.tx, ioas, add(first.pages.base, first.startByte), length);
    if (!isRefusal(chosen)) at = chosen;
    else {
      if (predictRefusal(call, chosen)) return undefined;
      const told = recordedIova(call);
      if (told === undefined) return undefined;
      at = told;
    }
  }
  const asked = new Asked(call.tx);
  if (refuseSlices(call, ioas, slices, prot, asked) || asked.refuseLikely(call)) return undefined;
  if (fixed && ioas.unknownHardware.length > 0) {
    const reason = `no IOVA_RANGES shows what ${pendingText(call.tx, ioas)} reserves`;
    if (call.failedByFact('EINVAL', reason)) return undefined;
  }
  if (!call.succeed(rule)) {
    asked.explain(call);
    return undefined;
  }
  // A choice that the recording contradicts is one finding, and the state goes by the recording.
  putSlices(call, ioas, slices, fixed ? at : (recordedIova(call) ?? at), prot);
  return at;
}

/** The IOVA that the recording shows where it could not be predicted. */
function recordedIova(call: Call): U64 | undefined {
  const note = call.memOut.find((candidate) => candidate.addr === call.arg);
  const offset = call.name === 'IOMMU_IOAS_COPY' ? 24 : 32;
  return note?.bytes.has(offset, 8) ? note.bytes.u64(offset) : undefined;
}

function refuseSlices(call: Call, ioas: Ioas, slices: readonly Slice[], prot: number, asked: Asked): boolean {
  for (const slice of slices) {
    if ((prot & 2) !== 0 && !slice.pages.writable && call.fail('EPERM', 'map.write')) return true;
    if (modPow2(modPow2(slice.startByte, PAGE), ioas.alignment) !== 0 && call.fail('EINVAL', 'map.page-offset'))
      return true;
  }
  if (ioas.hwpts.length === 0) return false;
  for (const slice of slices) {
    const lastByte = sub(add(slice.startByte, slice.length), 1);
    const refused =
      refusePages(call.tx, slice.pages, slice.source, slice.startByte, lastByte) ??
      refuseAreaRights(call.tx, ioas, prot);
    // A failure that is only possible may have been one of RLIMIT_MEMLOCK instead.
    if (refused !== undefined && predictRefusal(call, refused) && refused.unknown === '') return true;
    if (asked.refuse(call, slice.pages, slice.source, slice.startByte, lastByte)) return true;
  }
  return false;
}

function putSlices(call: Call, ioas: Ioas, slices: readonly Slice[], iova: U64, prot: number): void {
  for (const { source, pages } of slices) {
    if (source === null) {
      if (pages.kind !== 'user') addPagesRef(call.tx, pages.file);
      continue;
    }
    sharePages(call.tx, source);
    addSharer(call.tx, source.pages.id);
  }
  let at = iova;
  for (const slice of slices) {
    const last = lastOf(at, slice.length);
    if (last === undefined) return;
    // Only where the recording contradicts the model can something be in the way; it is then gone.
    for (let old = firstOverlap(ioasByKey(call.tx, ioas.id).areas, at, last); old !== undefined; ) {
      executeUnmap(call.tx, ioas.id, [old], true);
      old = firstOverlap(ioasByKey(call.tx, ioas.id).areas, at, last);
    }
    const made: Area = {
      start: at,
      last,
      pages: slice.pages,
      startByte: slice.startByte,
      prot,
      accesses: 0,
      locks: 0,
      pin: 0,
      pinnedSince: NOT_HELD,
      since: call.event.seq,
    };
    insertArea(
      call.tx,
      ioas.id,
      ioas.hwpts.length > 0 ? pinArea(call.tx, ioas.id, made, call.event.seq) : Object.freeze(made),
    );
    if (last === U64_MAX) return;
    at = add(last, 1);
  }
}

// ---- COPY ---------------------------------------------------------------------------------------------------

export function copy(call: Call): void {
  const s = call.struct;
  const syz = (s.u32(4) & SYZ_FLAG) !== 0;
  const flags = s.u32(4) & ~SYZ_FLAG;
  if ((flags & ~ALL_FLAGS) !== 0 && call.fail('EOPNOTSUPP', 'map.flags')) return;
  const length = s.u64(16);
  const iova = s.u64(24);
  const from = syz ? nthSource(call) : s.u64(32);
  if ((length === U64_MAX || from === U64_MAX || iova === U64_MAX) && call.fail('EOVERFLOW', 'map.overflow')) return;
  if ((flags & (WRITEABLE | READABLE)) === 0 && call.fail('EINVAL', 'map.no-access')) return;
  const source = lookupIoas(call, s.u32(12), 'copy.source');
  if (source === undefined) return;
  const slices = sourceSlices(call, source, from, length);
  if (slices === undefined) return;
  const destination = lookupIoas(call, s.u32(8), 'map.ioas');
  if (destination === undefined) return;
  const fixed = (flags & FIXED_IOVA) !== 0;
  const at = place(call, destination, slices, length, iova, fixed, protOf(flags), 'copy.ok');
  if (at === undefined) return;
  writeBack(call, 24, at, 'dst_iova');
  if (!syz) return;
  call.out32(4, flags, 'flags');
  call.out64(32, from, 'src_iova');
}

/** With the self-tests' flag the source is the n-th area of its IOAS; without such an IOAS it stays what it is. */
function nthSource(call: Call): U64 {
  const { tx, struct } = call;
  if (!tx.world.facts.has(SELFTEST_FACT)) call.unknown('whether the kernel has the self-tests is not known');
  const source = typedObject(tx, call.file.object, struct.u32(12), 'ioas');
  const ioas = source === undefined ? undefined : tx.world.ioases.get(source.ioas);
  if (ioas === undefined) return struct.u64(32);
  if (ioas.unknownSince >= 0) call.unknown(unknownSinceText('mappings', ioas.unknownSince));
  return nthAreaIova(ioas, struct.u32(32), struct.u32(36));
}

/** The memory under a gapless range of areas (`iopt_get_pages`); undefined after a prediction was made. */
function sourceSlices(call: Call, source: Ioas, from: U64, length: U64): Slice[] | undefined {
  if (length === 0) {
    call.fail('EINVAL', 'copy.length');
    return undefined;
  }
  const last = lastOf(from, length);
  if (last === undefined) {
    call.fail('EOVERFLOW', 'copy.source-overflow');
    return undefined;
  }
  const slices: Slice[] = [];
  let at: U64 = from;
  for (;;) {
    const area = rangeAt(source.areas, at);
    if (area === undefined) {
      if (source.unknownSince < 0) call.fail('ENOENT', 'copy.source-gap');
      else if (call.unknown(unknownSinceText('mappings', source.unknownSince))) forgetDestination(call);
      return undefined;
    }
    const end = min(last, area.last);
    slices.push({ pages: area.pages, source: area, startByte: byteAt(area, at), length: lengthOf(at, end) });
    if (area.last >= last) return slices;
    at = add(area.last, 1);
  }
}

/** A copy of memory that nobody knows: the destination has an area which nobody knows either. */
function forgetDestination(call: Call): void {
  const object = contextOf(call.tx, call.file.object).objects.get(call.struct.u32(8));
  if (object?.type === 'ioas') patchIoas(call.tx, object.ioas, { unknownSince: call.event.seq });
}
