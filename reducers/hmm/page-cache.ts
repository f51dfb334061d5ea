import { carve, type Interval, overlapping, rangeAt, trimmed, unite } from '../../core/interval.js';
import { add, alignDown, max, min, sub, type U64, U64_MAX } from '../../core/u64.js';
import { MAP_SHARED, PROT_WRITE, PAGE_BYTES } from '../memory/flags.js';
import { newPte, type Pte, pieces, setRun } from '../memory/pagetable.js';
import type { Vma } from '../memory/state.js';
import { noteAnon } from './anon.js';
import { hold, UNKNOWN_DATA } from './contents.js';
import { type Machine, NOTIFY_CLEAR } from './machine.js';
import { blockAround } from './sharing.js';

/**
 * Memory of files and shared memory (mm/memory.c `do_read_fault`, `do_cow_fault`, `do_shared_fault`, mm/filemap.c
 * `filemap_map_pages`).
 *
 * A fault brings its page into the page cache, whatever the mapping. A read also maps what the cache holds around it: the
 * window of 64 KiB that the address lies in, as far as the mapping reaches, where nothing is mapped yet. In a shared, writable
 * mapping of memory (shmem, memfd) every entry is writable from the start; where a disk stands behind, the first write
 * takes a fault of its own. A write to a private mapping makes a copy, and maps that alone. A read behind the end of the file fails,
 * and maps its neighbours nonetheless.
 */
const WINDOW_BYTES = 16 * PAGE_BYTES;

/** The entry rights of a page that is mapped for reading. */
export function isWritableAtOnce(machine: Machine, vma: Vma): boolean {
  return (vma.flags & MAP_SHARED) !== 0 && (vma.prot & PROT_WRITE) !== 0 && machine.isMemoryFile(vma);
}

/** Faults in pages of a file where nothing is mapped. False when the hole reaches beyond the end of the file. */
export function fillFromFile(machine: Machine, vma: Vma, hole: Interval, write: boolean): boolean {
  const end = machine.fileLast(vma);
  if (end !== undefined && end < hole.last) {
    if (end >= hole.start) fillFromFile(machine, vma, { start: hole.start, last: end }, write);
    // Neighbours are mapped before the page itself is looked for.
    const beyond = max(add(end, 1), hole.start);
    if (!write) mapAround(machine, vma, machine.fileKey(vma), { start: beyond, last: beyond });
    return false;
  }
  const key = machine.fileKey(vma);
  if (key !== '') cachePages(machine, key, offsetsOf(vma, hole));
  const since = machine.seq;
  if (write) {
    const shared = (vma.flags & MAP_SHARED) !== 0;
    noteAnon(machine, vma);
    if (!shared) hold(machine.dataToWrite(), hole.start, hole.last, UNKNOWN_DATA);
    setRun(machine.runs, hole.start, hole.last, newPte(shared ? 'file' : 'anon', since, { write }));
    return true;
  }
  setRun(machine.runs, hole.start, hole.last, readPte(machine, vma));
  mapAround(machine, vma, key, hole);
  return true;
}

function readPte(machine: Machine, vma: Vma): Pte {
  return newPte('file', machine.seq, { write: isWritableAtOnce(machine, vma) });
}

/** Maps what the cache holds around pages that are read. */
function mapAround(machine: Machine, vma: Vma, key: string, read: Interval): void {
  for (const part of around(vma, read))
    for (const cached of cachedIn(machine, vma, key, part))
      for (const piece of pieces(machine.runs, cached.start, cached.last))
        if (piece.pte === undefined) setRun(machine.runs, piece.start, piece.last, readPte(machine, vma));
}

/** What the windows of a range's ends hold beside it. */
function around(vma: Vma, { start, last }: Interval): Interval[] {
  const low = windowOf(vma, start);
  const high = windowOf(vma, last);
  const to = max(low.last, high.last);
  const parts: Interval[] = [];
  if (low.start < start) parts.push({ start: low.start, last: sub(start, 1) });
  if (to > last) parts.push({ start: add(last, 1), last: to });
  return parts;
}

/** `do_fault_around`: 16 entries of one page table, from the aligned one on or where the mapping begins. */
function windowOf(vma: Vma, address: U64): Interval {
  const table = blockAround(address);
  const start = max(alignDown(address, WINDOW_BYTES), vma.start);
  return { start, last: min(min(add(start, WINDOW_BYTES - 1), vma.last), table.last) };
}

/** Where in its file a part of a mapping lies. */
function offsetsOf(vma: Vma, { start, last }: Interval): Interval {
  const of = (address: U64): U64 => add(vma.offset, sub(address, vma.start));
  return { start: of(start), last: of(last) };
}

function cachePages(machine: Machine, key: string, { start, last }: Interval): void {
  unite(machine.cacheToWrite(key), start, last);
}

/** The parts of a range of a mapping whose pages are in the cache. */
function cachedIn(machine: Machine, vma: Vma, key: string, part: Interval): Interval[] {
  if (key === '') return [];
  const { start, last } = offsetsOf(vma, part);
  return overlapping(machine.cache(key), start, last).map((found) => ({
    start: add(part.start, sub(max(found.start, start), start)),
    last: add(part.start, sub(min(found.last, last), start)),
  }));
}

// ---- others who map the file -------------------------------------------------------------------------------

/** A mapping of a part of a file, in this space or in a relative's. */
interface View extends Interval {
  readonly machine: Machine;
  /** Of `start` in the file. */
  readonly offset: U64;
  /** Where the mapping begins in the file, and the event that made it: the place in the kernel's tree of mappings. */
  readonly from: U64;
  readonly since: number;
}

/** Everybody who maps a part of a file, in the order of the kernel's tree (`i_mmap`). O(number of their mappings). */
function viewsOf(machines: readonly Machine[], key: string, { start, last }: Interval): View[] {
  const found: View[] = [];
  for (const of of machines) {
    for (const vma of of.vmasIn(0, U64_MAX)) {
      if ((vma.file === 0 && (vma.flags & MAP_SHARED) === 0) || of.fileKey(vma) !== key) continue;
      const theirs = offsetsOf(vma, vma);
      const offset = max(theirs.start, start);
      const to = min(theirs.last, last);
      if (offset > to) continue;
      const at = (wanted: U64): U64 => add(vma.start, sub(wanted, theirs.start));
      found.push({
        machine: of,
        start: at(offset),
        last: at(to),
        offset,
        from: theirs.start,
        since: vma.since,
      });
    }
  }
  return found.sort(inTree);
}

function inTree(a: View, b: View): number {
  if (a.from !== b.from) return a.from < b.from ? -1 : 1;
  return a.since - b.since || a.machine.space.id - b.machine.space.id;
}

/**
 * Pages of a file are taken from all who map them, and given back (`try_to_migrate`). Where somebody else maps a page, the
 * kernel goes through all mappings of it until nobody is left who does; the mirrors of those that it passes hear of
 * it, the caller's own among them.
 */
export function tellMappers(machine: Machine, vma: Vma, part: Interval): void {
  const key = machine.fileKey(vma);
  const offsets = offsetsOf(vma, part);
  const views = key === '' ? [] : viewsOf([machine, ...machine.kin()], key, offsets);
  if (views.length < 2) return;
  for (let offset = offsets.start; offset <= offsets.last; offset = add(offset, PAGE_BYTES)) {
    const own = add(part.start, sub(offset, offsets.start));
    const pages = views
      .filter((view) => view.offset <= offset && sub(offset, view.offset) <= sub(view.last, view.start))
      .map((view) => ({ machine: view.machine, at: add(view.start, sub(offset, view.offset)) }));
    const lastMapper = pages.findLastIndex(
      (page) => (page.machine !== machine || page.at !== own) && rangeAt(page.machine.runs, page.at)?.kind === 'file',
    );
    for (const page of pages.slice(0, lastMapper + 1))
      page.machine.invalidate(NOTIFY_CLEAR, page.at, add(page.at, PAGE_BYTES - 1));
  }
}

/** MADV_REMOVE: pages are taken out of a file (`shmem_fallocate`). */
export function removePages(machine: Machine, vma: Vma, part: Interval): void {
  const key = machine.fileKey(vma);
  if (key === '') return;
  const offsets = offsetsOf(vma, part);
  unmapFile([machine, ...machine.kin()], key, offsets, false);
  carve(machine.cacheToWrite(key), offsets.start, offsets.last, trimmed);
}

/**
 * Pages of a file are taken from whoever maps them (`unmap_mapping_range`), with the copies that private mappings made of
 * them when the file is cut, else without.
 */
export function unmapFile(machines: readonly Machine[], key: string, offsets: Interval, evenCopies: boolean): void {
  for (const view of viewsOf(machines, key, offsets)) {
    view.machine.invalidate(NOTIFY_CLEAR, view.start, view.last);
    for (const piece of pieces(view.machine.runs, view.start, view.last))
      if (evenCopies || piece.pte?.kind === 'file') view.machine.clear(piece.start, piece.last);
  }
}

/**
 * MADV_PAGEOUT on pages of memory files: those that are mapped once lose their entry (`shrink_folio_list`), and stay in memory
 * where there is no swap.
 */
export function pageOut(machine: Machine, vma: Vma, part: Interval): void {
  const key = machine.fileKey(vma);
  if (key === '' || !machine.isMemoryFile(vma)) return;
  const views = viewsOf([machine, ...machine.kin()], key, offsetsOf(vma, part));
  for (const piece of pieces(machine.runs, part.start, part.last)) {
    if (piece.pte?.kind !== 'file') continue;
    for (let page = piece.start; page <= piece.last; page = add(page, PAGE_BYTES)) {
      const { start: offset } = offsetsOf(vma, { start: page, last: page });
      if (mappersAt(views, offset) > 1) continue;
      machine.invalidate(NOTIFY_CLEAR, page, add(page, PAGE_BYTES - 1));
      machine.clear(page, add(page, PAGE_BYTES - 1));
    }
  }
}

/** How many mappings have an entry for a page of the file. */
function mappersAt(views: readonly View[], offset: U64): number {
  return views.filter((view) => {
    if (view.offset > offset || sub(offset, view.offset) > sub(view.last, view.start)) return false;
    return rangeAt(view.machine.runs, add(view.start, sub(offset, view.offset)))?.kind === 'file';
  }).length;
}
