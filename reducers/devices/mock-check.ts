import { type Interval, rangeAt } from '../../core/interval.js';
import { add, addOverflows, alignDown, max, min, mod, modPow2, sub, type U64 } from '../../core/u64.js';
import type { Call } from '../call.js';
import { ioasOfObject, lookup } from '../iommufd/context.js';
import { smallestPage } from '../iommufd/domain.js';
import { PAGE } from '../iommufd/iopt.js';
import { areaAddress, byteAt } from '../iommufd/pages.js';
import type { Rule } from '../iommufd/rules.js';
import type { Area, IoPages } from '../iommufd/state.js';
import { vmaAt } from '../memory/lookup.js';
import { probePin } from '../memory/pin.js';
import { lostPages } from './mock-dmabuf.js';

/**
 * Questions of the self-tests about the kernel's own state (drivers/iommu/iommufd/selftest.c): does a domain map the
 * same pages as a user address, how often are pages pinned, what is in the IOTLB of a nested domain or the cache of a
 * device. They change nothing; a model that answers them right holds the same state as the kernel.
 *
 * Two addresses are the same memory when they are the same address of one process, or the same place in one
 * file. Counting pins walks all areas of all contexts: it is a question for tests, where those are few.
 */
export const CHECK_RULES: readonly Rule[] = [
  { id: 'check-map.hwpt', errno: 'ENOENT', text: 'no paging HWPT has the id' },
  { id: 'check-map.owner', errno: 'EINVAL', text: 'the HWPT is of a real IOMMU' },
  { id: 'check-map.aligned', errno: 'EINVAL', text: 'IOVA, length or address is no multiple of the smallest page' },
  { id: 'check-map.fault', errno: 'EFAULT', text: 'the address is not mapped' },
  { id: 'check-map.other', errno: 'EINVAL', text: 'the domain maps other memory there, or none' },
  { id: 'check-map.ok', errno: '', text: 'the domain maps the memory at the address' },
  { id: 'check-refs.aligned', errno: 'EINVAL', text: 'address or length is no multiple of a page' },
  { id: 'check-refs.fault', errno: 'EFAULT', text: 'the address is not mapped' },
  { id: 'check-refs.ok', errno: '', text: 'the pages are pinned so often' },
  { id: 'check-iotlb.hwpt', errno: 'ENOENT', text: 'no nested HWPT has the id' },
  { id: 'check-iotlb.value', errno: 'EINVAL', text: 'there is no such entry, or it holds another value' },
  { id: 'check-iotlb.ok', errno: '', text: 'the entry holds the value' },
  { id: 'check-cache.device', errno: 'ENOENT', text: 'no device has the id' },
  { id: 'check-cache.value', errno: 'EINVAL', text: 'there is no such entry, or it holds another value' },
  { id: 'check-cache.ok', errno: '', text: 'the entry holds the value' },
];

const MAX_ID = 3;

export function checkMap(call: Call): void {
  const s = call.struct;
  const iova = s.u64(16);
  const length = s.u64(24);
  const address = s.u64(32);
  const hwpt = lookup(call, s.u32(8), 'hwpt-paging', 'check-map.hwpt');
  if (hwpt === undefined) return;
  if (hwpt.domain.owner !== 'mock' && call.fail('EINVAL', 'check-map.owner')) return;
  const page = smallestPage(hwpt.domain);
  const uneven = mod(iova, page) !== 0 || mod(length, page) !== 0 || mod(address, page) !== 0;
  if ((uneven || addOverflows(address, length)) && call.fail('EINVAL', 'check-map.aligned')) return;
  if (length !== 0) {
    const same = sameMemory(call, call.file.object, hwpt.ioas, iova, sub(add(iova, length), 1), address);
    if (same === 'fault' && call.fail('EFAULT', 'check-map.fault')) return;
    if (same === 'other' && call.fail('EINVAL', 'check-map.other')) return;
    if (typeof same === 'object') call.unknown(same.unknown);
  }
  call.succeed('check-map.ok');
}

export type Same = 'same' | 'other' | 'fault' | { readonly unknown: string };

/** Whether an IOVA range of an IOAS shows the memory at an address of the caller. */
export function sameMemory(call: Call, contextId: number, ioasId: number, iova: U64, last: U64, address: U64): Same {
  const ioas = ioasOfObject(call.tx, contextId, ioasId);
  let at = iova;
  let user = address;
  for (;;) {
    const area = rangeAt(ioas.areas, at);
    const first = probePin(call.tx, call.process.space, user, user, { write: false, longterm: false, pfnmapOk: false });
    if (first.kind === 'fault') return 'fault';
    if (first.kind === 'unknown') return { unknown: first.why };
    if (area === undefined)
      return ioas.unknownSince < 0 ? 'other' : { unknown: `mappings unknown since event ${ioas.unknownSince}` };
    const end = min(last, area.last);
    const step = samePart(call, area, byteAt(area, at), user, add(user, sub(end, at)));
    if (step !== 'same') return step;
    if (area.last >= last) return 'same';
    user = add(user, add(sub(end, at), 1));
    at = add(area.last, 1);
  }
}

/** One area against the caller's `user..userLast`. */
function samePart(call: Call, area: Area, firstByte: U64, user: U64, userLast: U64): Same {
  const { pages } = area;
  if (pages.kind === 'dmabuf') {
    if (lostPages(call, pages.file, pages.id)) return 'other';
    return { unknown: 'whether the address shows the dma-buf is not recorded' };
  }
  let at = user;
  let byte = firstByte;
  for (;;) {
    const vma = vmaAt(call.tx, call.process.space, at);
    if (vma === undefined) return { unknown: 'memory there was mapped outside of the recording' };
    const place = placeOf(call, pages, byte);
    const mine = placeOf(call, { ...pages, kind: 'user', space: call.process.space, base: 0 }, at);
    if (place.key !== mine.key || place.offset !== mine.offset) {
      if (place.key === '' || mine.key === '') return { unknown: 'what is mapped there was not recorded' };
      return 'other';
    }
    if (vma.last >= userLast) return 'same';
    byte = add(byte, add(sub(vma.last, at), 1));
    at = add(vma.last, 1);
  }
}

const MAP_SHARED = 1;

/** Where a byte of some memory lives: a place in a file, or an address of a process. '' when not known. */
function placeOf(call: Call, pages: IoPages, byte: U64): { key: string; offset: U64 } {
  const address = add(pages.base, byte);
  if (pages.kind === 'file') return { key: `file:${pages.file}`, offset: address };
  const vma = vmaAt(call.tx, pages.space, address);
  if (vma === undefined) return { key: '', offset: address };
  if (vma.file !== 0 && (vma.flags & MAP_SHARED) !== 0)
    return { key: `file:${vma.file}`, offset: add(vma.offset, sub(address, vma.start)) };
  return { key: `space:${pages.space}`, offset: address };
}

// ---- pin counts ---------------------------------------------------------------------------------------------

export function checkRefs(call: Call): void {
  const s = call.struct;
  const length = s.u64(16);
  const address = s.u64(24);
  const uneven = modPow2(length, PAGE) !== 0 || modPow2(address, PAGE) !== 0 || addOverflows(address, length);
  if (uneven && call.fail('EINVAL', 'check-refs.aligned')) return;
  if (length === 0) {
    call.succeed('check-refs.ok');
    return;
  }
  const last = sub(add(address, length), 1);
  const space = call.process.space;
  const answer = probePin(call.tx, space, address, last, { write: false, longterm: false, pfnmapOk: false });
  if (answer.kind === 'fault' && call.fail('EFAULT', 'check-refs.fault')) return;
  if (answer.kind === 'unknown') call.unknown(answer.why);
  // Large folios are not counted by the kernel, and whether memory is made of them is not recorded.
  if (!pinnedEvenly(call, address, last, s.u32(32))) call.unknown('whether the pages are compound is not recorded');
  call.succeed('check-refs.ok');
}

/** Whether each page of the range is pinned by exactly so many page lists. */
function pinnedEvenly(call: Call, start: U64, last: U64, refs: number): boolean {
  const byPages = new Map<number, Interval[]>();
  for (const ioas of call.tx.world.ioases.values())
    for (const area of ioas.areas.values()) {
      if (ioas.hwpts.length === 0 && area.accesses === 0) continue;
      const shown = shownAt(call, area, start);
      if (shown === undefined || shown.start > last || shown.last < start) continue;
      const list = byPages.get(area.pages.id) ?? [];
      list.push({ start: max(shown.start, start), last: min(shown.last, last) });
      byPages.set(area.pages.id, list);
    }
  let full = 0;
  for (const ranges of byPages.values()) {
    if (!covers(ranges, start, last)) return false;
    full++;
  }
  return full === refs;
}

/** Where the caller sees the pages of an area, in whole pages; undefined when not in this process. */
function shownAt(call: Call, area: Area, near: U64): Interval | undefined {
  const span = sub(area.last, area.start);
  let start: U64;
  if (area.pages.kind === 'user' && area.pages.space === call.process.space) start = areaAddress(area);
  else {
    const vma = vmaAt(call.tx, call.process.space, near);
    if (vma === undefined) return undefined;
    const mine = placeOf(call, { ...area.pages, kind: 'user', space: call.process.space, base: 0 }, near);
    const theirs = placeOf(call, area.pages, area.startByte);
    if (mine.key !== theirs.key) return undefined;
    const shift = sub(near, mine.offset);
    start = add(shift, theirs.offset);
  }
  return { start: alignDown(start, PAGE), last: add(alignDown(add(start, span), PAGE), PAGE - 1) };
}

function covers(ranges: Interval[], start: U64, last: U64): boolean {
  let at = start;
  for (const range of [...ranges].sort((a, b) => (a.start < b.start ? -1 : 1))) {
    if (range.start > at) return false;
    if (range.last >= last) return true;
    if (range.last >= at) at = add(range.last, 1);
  }
  return false;
}

// ---- IOTLB and device caches --------------------------------------------------------------------------------

export function checkIotlb(call: Call): void {
  const s = call.struct;
  const hwpt = lookup(call, s.u32(8), 'hwpt-nested', 'check-iotlb.hwpt');
  if (hwpt === undefined) return;
  const id = s.u32(16);
  if ((id > MAX_ID || hwpt.iotlb[id] !== s.u32(20)) && call.fail('EINVAL', 'check-iotlb.value')) return;
  call.succeed('check-iotlb.ok');
}

export function checkCache(call: Call): void {
  const s = call.struct;
  const device = lookup(call, s.u32(8), 'device', 'check-cache.device');
  if (device === undefined) return;
  const id = s.u32(16);
  if ((id > MAX_ID || device.mock?.cache[id] !== s.u32(20)) && call.fail('EINVAL', 'check-cache.value')) return;
  call.succeed('check-cache.ok');
}
