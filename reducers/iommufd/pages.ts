import { add, alignDown, div, sub, type U64 } from '../../core/u64.js';
import { type PinRequest, probePin } from '../memory/pin.js';
import type { Tx } from '../tx.js';
import { PAGE } from './iopt.js';
import { notKnown, type Refusal, type Rule, refusal } from './rules.js';
import type { Area, IoPages } from './state.js';

/**
 * The memory behind areas (drivers/iommu/iommufd/pages.c).
 *
 * Pages are pinned while a domain maps them or an access holds them, and then for as long as one of both does, whatever
 * becomes of the user's mapping. An IOAS without domains pins nothing: MAP there accepts any address.
 * Memory mapped by address belongs to the address space of the caller of MAP; it cannot be pinned any more once that
 * process is gone. A file must be a memory file (memfd, tmpfs, hugetlbfs) and long enough.
 */
export const PAGES_RULES: readonly Rule[] = [
  { id: 'pages.fault', errno: 'EFAULT', text: 'the memory is not mapped, or not with the rights that are needed' },
  { id: 'pages.file-kind', errno: 'EINVAL', text: 'the file is no memory file' },
  { id: 'pages.file-size', errno: 'EINVAL', text: 'the range passes the end of the file' },
  { id: 'pages.rights', errno: 'EINVAL', text: 'an area without rights cannot enter a page table' },
];

const FAULT = refusal('EFAULT', 'pages.fault');
const FILE_KIND = refusal('EINVAL', 'pages.file-kind');
const FILE_SIZE = refusal('EINVAL', 'pages.file-size');
const KIND_UNKNOWN = notKnown('whether the file is a memory file was not recorded', 'EINVAL');
const SIZE_UNKNOWN = notKnown('the size of the file was not recorded: ftruncate, fallocate', 'EINVAL');
const MEMORY_PATH = /^\/dev\/(shm|hugepages)\//;
/** What strace prints for files that lie in no file system with memory: pipes and sockets, devices, and what the kernel shows of itself. */
const NO_MEMORY =
  /^anon_inode:|^[\w-]+:\[|^\/(?:proc|sys)\/|^\/dev\/(?:null|zero|full|u?random|tty\d*|ptmx|pts\/\d+|console|kvm)$|<(?:char|block) \d+:\d+>$/;

/** First byte of the memory of an area. */
export function areaAddress(area: Area): U64 {
  return add(area.pages.base, area.startByte);
}

/** Offset in `pages` of the byte that an IOVA inside the area shows. */
export function byteAt(area: Area, iova: U64): U64 {
  return add(area.startByte, sub(iova, area.start));
}

/** Whether the pages of a slice can be pinned now (`pfn_reader_user_pin`); undefined when they can. */
export function pinSlice(tx: Tx, pages: IoPages, firstByte: U64, lastByte: U64): Refusal | undefined {
  switch (pages.kind) {
    case 'user':
      return probe(tx, pages, firstByte, lastByte, { write: pages.writable, longterm: true, pfnmapOk: false });
    case 'file':
      return probeFile(tx, pages, lastByte);
    case 'dmabuf':
      return undefined;
  }
}

/** Whether the CPU of the process itself can copy to or from a slice. */
export function touchSlice(tx: Tx, pages: IoPages, firstByte: U64, lastByte: U64, write: boolean): Refusal | undefined {
  return probe(tx, pages, firstByte, lastByte, { write, longterm: false, pfnmapOk: true, cpu: true });
}

/** Whether another process can have the page at an address for a moment (`iopt_pages_rw_page`). */
export function lookUpPage(tx: Tx, pages: IoPages, byte: U64, write: boolean): Refusal | undefined {
  return probe(tx, pages, byte, byte, { write, longterm: false, pfnmapOk: false });
}

function probe(tx: Tx, pages: IoPages, firstByte: U64, lastByte: U64, request: PinRequest): Refusal | undefined {
  const start = add(pages.base, alignDown(firstByte, PAGE));
  const answer = probePin(tx, pages.space, start, add(pages.base, lastByte), request);
  if (answer.kind === 'ok') return undefined;
  return answer.kind === 'fault' ? FAULT : notKnown(answer.why, 'EFAULT');
}

/** A memory file holds every page below its size (`memfd_pin_folios`); pages are whole, so the last one must be all inside. */
function probeFile(tx: Tx, pages: IoPages, lastByte: U64): Refusal | undefined {
  const file = tx.world.files.get(pages.file);
  const kind = file?.kind ?? 'unknown';
  const path = file?.path ?? '';
  const isMemory = kind === 'memfd' || MEMORY_PATH.test(path);
  const inDoubt = kind === 'unknown' || (kind === 'other' && !NO_MEMORY.test(path));
  if (!isMemory) return inDoubt ? KIND_UNKNOWN : FILE_KIND;
  if (file === undefined || file.sizeBytes === null) return SIZE_UNKNOWN;
  const last = add(add(pages.base, alignDown(lastByte, PAGE)), PAGE - 1);
  return last >= file.sizeBytes ? FILE_SIZE : undefined;
}

/** How many pages `length` bytes touch that begin `offset` bytes into a page. */
export function pagesIn(offset: number, length: U64): U64 {
  return div(add(add(length, offset), PAGE - 1), PAGE);
}

const NO_RIGHTS = refusal('EINVAL', 'pages.rights');

/** What a page table refuses: entries that may neither be read nor written. Only VFIO's MAP_DMA makes such areas. */
export function refuseEntry(prot: number): Refusal | undefined {
  return (prot & 3) === 0 ? NO_RIGHTS : undefined;
}
