import { type Interval, rangeAt } from '../../core/interval.js';
import { add, addOverflows, alignUp, max, min, modPow2, mul, sub, type U64 } from '../../core/u64.js';
import type { Call } from '../call.js';
import { areaSpan, heldRuns } from '../iommufd/held-pages.js';
import { PAGE } from '../iommufd/iopt.js';
import type { Rule } from '../iommufd/rules.js';
import { MAP_SHARED } from '../memory/flags.js';
import { type MemoryRun, memoryRuns } from '../memory/identity.js';
import { probePin } from '../memory/pin.js';
import { type AddressSpace, VMA_HUGETLB, VMA_NOHUGEPAGE, type Vma } from '../memory/state.js';
import type { Tx } from '../tx.js';
import { pinnedRuns } from './mock-compare.js';

/**
 * IOMMU_TEST_OP_MD_CHECK_REFS: how often the pages at an address are pinned (drivers/iommu/iommufd/selftest.c).
 *
 * A page is pinned once for all areas and accesses that share one piece of memory, and once more for each other piece
 * (MAP) that shows it. The kernel counts small pages only and passes over large ones, and whether memory that
 * may be made of large pages is so was not recorded.
 * Counting walks all areas of all contexts: it is a question for tests, where those are few.
 */
export const REFS_RULES: readonly Rule[] = [
  { id: 'check-refs.aligned', errno: 'EINVAL', text: 'address or length is no multiple of a page' },
  { id: 'check-refs.fault', errno: 'EFAULT', text: 'the address is not mapped' },
  { id: 'check-refs.count', errno: 'EIO', text: 'a small page is pinned another number of times' },
  { id: 'check-refs.ok', errno: '', text: 'the pages are pinned so often, or large' },
];

const READ = Object.freeze({ write: false, longterm: false, pfnmapOk: false });
const HUGE_BYTES = 0x20_0000;

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
  const trouble = probePin(call.tx, call.process.space, address, last, READ);
  const comparable = trouble.kind === 'ok' ? last : sub(trouble.at, 1);
  if (trouble.kind === 'ok' || trouble.at > address) {
    const differs = otherCount(call, address, comparable, s.u32(32));
    if (differs === 'surely' && call.fail('EIO', 'check-refs.count')) return;
    if (differs === 'maybe') call.unknown('whether the pages are large ones is not recorded');
  }
  if (trouble.kind === 'fault' && call.fail('EFAULT', 'check-refs.fault')) return;
  if (trouble.kind === 'unknown') call.unknown(trouble.why);
  call.succeed('check-refs.ok');
}

/** Pairs of areas and mappings that are compared at most; self-tests have a few dozens. */
const MAX_PAIRS = 4_000_000;

/** Whether some small page of the range is pinned another number of times. */
function otherCount(call: Call, start: U64, last: U64, refs: number): 'surely' | 'maybe' | 'no' {
  const { tx } = call;
  const space = tx.world.spaces.get(call.process.space) as AddressSpace;
  const shown = memoryRuns(tx, space.id, start, last);
  let areas = 0;
  for (const ioas of tx.world.ioases.values()) areas += ioas.areas.size;
  if (areas * shown.length > MAX_PAIRS) return 'maybe';
  // How the count changes from page to page; each mapping begins at an edge.
  const changes = new Map<U64, number>(shown.map((run) => [run.start, 0]));
  const change = (at: U64, by: number): void => void changes.set(at, (changes.get(at) ?? 0) + by);
  for (const hold of holdsOf(tx, shown)) {
    change(hold.start, 1);
    change(add(hold.last, 1), -1);
  }
  const edges = [...changes].sort(([a], [b]) => (a < b ? -1 : 1)).filter(([at]) => at <= last);
  let count = 0;
  let answer: 'maybe' | 'no' = 'no';
  for (const [index, [at, by]] of edges.entries()) {
    count += by;
    const next = edges[index + 1];
    if (count === refs && vmaKnown(space, at)) continue;
    const size = pageSize(tx, space, at, next === undefined ? last : sub(next[0], 1));
    if (size === 'small') return 'surely';
    if (size === 'unknown') answer = 'maybe';
  }
  return answer;
}

function vmaKnown(space: AddressSpace, at: U64): boolean {
  return rangeAt(space.vmas, at) !== undefined;
}

/** Where the caller sees pages that are held, once for each piece of memory that holds them. */
function holdsOf(tx: Tx, shown: readonly MemoryRun[]): Interval[] {
  const holds: Interval[] = [];
  const seen = new Set<number>();
  for (const ioas of tx.world.ioases.values())
    for (const area of ioas.areas.values()) {
      const shared = tx.world.sharedPages.get(area.pages.id);
      if (area.pages.kind === 'dmabuf' || (shared !== undefined && seen.has(area.pages.id))) continue;
      seen.add(area.pages.id);
      for (const held of shared?.runs.values() ?? heldRuns(tx, area, areaSpan(area)))
        for (const run of pinnedRuns(tx, area, bytesOf(held))) holds.push(...seenAt(run, shown));
    }
  return holds;
}

function bytesOf(pages: Interval): Interval {
  return { start: mul(pages.start, PAGE), last: add(mul(pages.last, PAGE), PAGE - 1) };
}

/** Where a run of pinned memory is among what the caller sees. */
function seenAt(run: MemoryRun, shown: readonly MemoryRun[]): Interval[] {
  const found: Interval[] = [];
  const offsetLast = add(run.offset, sub(run.last, run.start));
  for (const mine of shown) {
    if (mine.key !== run.key || mine.key === '') continue;
    const from = max(run.offset, mine.offset);
    const to = min(offsetLast, add(mine.offset, sub(mine.last, mine.start)));
    if (from > to) continue;
    const start = add(mine.start, sub(from, mine.offset));
    found.push({ start, last: add(start, sub(to, from)) });
  }
  return found;
}

/** Of which size the pages of a range are, all of one VMA. */
function pageSize(tx: Tx, space: AddressSpace, start: U64, last: U64): 'small' | 'large' | 'unknown' {
  const vma = rangeAt(space.vmas, start);
  if (vma === undefined) return 'unknown';
  if (vma.traits & VMA_HUGETLB) return 'large';
  if (vma.file !== 0) return isShortMemoryFile(tx, vma) ? 'small' : 'unknown';
  if (vma.traits & VMA_NOHUGEPAGE) return 'small';
  const whole = extentOf(space, vma);
  // A huge page covers an aligned block that lies wholly in one mapping.
  for (let block = alignUp(whole.start, HUGE_BYTES); ; block = add(block, HUGE_BYTES)) {
    const blockLast = add(block, HUGE_BYTES - 1);
    if (blockLast > whole.last || block > last) return 'small';
    if (blockLast >= start) return 'unknown';
  }
}

function isShortMemoryFile(tx: Tx, vma: Vma): boolean {
  const file = tx.world.files.get(vma.file);
  const shared = (vma.flags & MAP_SHARED) !== 0;
  return shared && file?.kind === 'memfd' && file.sizeBytes !== null && file.sizeBytes < HUGE_BYTES;
}

/** A VMA with the anonymous neighbours that the kernel may have joined with it. */
function extentOf(space: AddressSpace, vma: Vma): Interval {
  let { start, last } = vma;
  const joins = (other: Vma | undefined): other is Vma =>
    other !== undefined && other.file === 0 && (other.flags & MAP_SHARED) === (vma.flags & MAP_SHARED);
  for (let below = space.vmas.lower(start); joins(below) && add(below.last, 1) === start; ) {
    start = below.start;
    below = space.vmas.lower(start);
  }
  for (let above = space.vmas.get(add(last, 1)); joins(above); ) {
    last = above.last;
    above = space.vmas.get(add(last, 1));
  }
  return { start, last };
}
