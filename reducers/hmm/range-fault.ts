import { firstOverlap, type RangeMap, rangeAt } from '../../core/interval.js';
import { OrderedMap } from '../../core/ordered-map.js';
import { add, alignDown, max, min, sub, type U64 } from '../../core/u64.js';
import { PROT_READ, PROT_WRITE } from '../memory/flags.js';
import { type AnonRun, HUGE_BYTES, hugePart, type PteRun, pieces } from '../memory/pagetable.js';
import { VMA_GUARD, VMA_HUGETLB, VMA_PFNMAP, type Vma } from '../memory/state.js';
import { mergedVma } from './merged.js';

/**
 * hmm_range_fault() (mm/hmm.c) as a function of page table and VMAs.
 *
 * The kernel walks a range: what satisfies the request is reported; the first entry that does not is faulted in,
 * together with everything behind it up to the end of its VMA, its 2 MiB block or the range (satisfied entries
 * too: device-private pages there move back to system memory), and the walk goes on from there. Requests are
 * per range here (`default_flags`); a per-page request of the header is a range of one page.
 *
 * In the kernel's order, for each part of the range:
 * 1. no VMA: EFAULT when something is requested, else ERROR;
 * 2. memory of a device without struct pages, or not readable: the same;
 * 3. no entry: a fault when requested (EPERM when a write is requested and the VMA is not writable; EFAULT for a guard page), else 0;
 * 4. device-private memory of the caller: reported as it is, valid, even when a write is requested that the entry
 *    does not allow;
 * 5. other device-private memory and exclusive entries: as no entry, but a huge one is ERROR without a request;
 * 6. present: a fault when a write is requested and the entry is read-only.
 */

/** The memory that the walk looks at. */
export interface PageView {
  readonly vmas: RangeMap<Vma>;
  readonly runs: RangeMap<PteRun>;
  /** Which private mappings ever got a page of their own: of them, moved ones do not merge with their neighbours. */
  readonly anon?: RangeMap<AnonRun>;
}

const NO_ANON: RangeMap<AnonRun> = OrderedMap.numeric<U64, AnonRun>().freeze();

export interface HmmRequest {
  readonly start: U64;
  readonly last: U64;
  /** HMM_PFN_REQ_FAULT: everything must be valid. */
  readonly fault: boolean;
  /** HMM_PFN_REQ_WRITE: and writable. Means nothing without `fault`. */
  readonly write: boolean;
  /** Device whose private memory is reported and not faulted (`dev_private_owner`), or -1. */
  readonly owner: number;
}

/** A part of the answer: equal pages. Without `valid` there is no entry, or one that cannot be used. */
export interface HmmPfns {
  readonly start: U64;
  readonly last: U64;
  readonly valid: boolean;
  readonly write: boolean;
  /** HMM_PFN_ERROR: there is nothing that could be faulted in. */
  readonly error: boolean;
  /** log2 of the pages that one CPU entry maps: 0 or 9. */
  readonly order: number;
  /** The entry behind it, where it is valid. */
  readonly pte: PteRun | undefined;
}

/** Where a walk ended. */
export type HmmStep =
  | { readonly kind: 'done'; readonly pfns: readonly HmmPfns[] }
  | { readonly kind: 'error'; readonly errno: 'EFAULT' | 'EPERM'; readonly at: U64 }
  | { readonly kind: 'fault'; readonly vma: Vma; readonly start: U64; readonly last: U64; readonly write: boolean };

/** One walk over the range: the answer, an error, or the pages that must be faulted in before the next walk. */
export function hmmWalk(view: PageView, request: HmmRequest): HmmStep {
  const pfns: HmmPfns[] = [];
  let at = request.start;
  for (;;) {
    const vma = mergedVma(view.vmas, view.anon ?? NO_ANON, at);
    const part = vma === undefined ? holeEnd(view, at, request.last) : min(vma.last, request.last);
    if (vma === undefined || !walkable(vma)) {
      if (request.fault) return { kind: 'error', errno: 'EFAULT', at };
      pfns.push({ start: at, last: part, valid: false, write: false, error: true, order: 0, pte: undefined });
    } else {
      const needed = walkVma(view, vma, at, part, request, pfns);
      if (needed !== undefined && isGuard(view, vma, needed)) return { kind: 'error', errno: 'EFAULT', at: needed };
      if (needed !== undefined) return faultFrom(vma, needed, part, request.write);
    }
    if (part >= request.last) return { kind: 'done', pfns };
    at = add(part, 1);
  }
}

/**
 * The whole of hmm_range_fault(): walks and faults until the range is as requested.
 * @param fault makes the CPU's page faults; false stands for VM_FAULT_ERROR
 * @returns the pages, or the error: EFAULT, EPERM; EBUSY when faults do not help (the kernel would not end)
 */
export function hmmRangeFault(
  view: PageView,
  request: HmmRequest,
  fault: (vma: Vma, start: U64, last: U64, write: boolean) => boolean,
): { readonly errno: string; readonly at: U64; readonly pfns: readonly HmmPfns[] } {
  for (let round = 0; round < MAX_ROUNDS; round++) {
    const step = hmmWalk(view, request);
    if (step.kind === 'done') return { errno: '', at: request.last, pfns: step.pfns };
    if (step.kind === 'error') return { errno: step.errno, at: step.at, pfns: [] };
    if (!fault(step.vma, step.start, step.last, step.write)) return { errno: 'EFAULT', at: step.start, pfns: [] };
  }
  return { errno: 'EBUSY', at: request.start, pfns: [] };
}

/** One round for each VMA or block of a range, and one more each for entries that need two faults. */
const MAX_ROUNDS = 1 << 16;

function walkable(vma: Vma): boolean {
  return (vma.prot & PROT_READ) !== 0 && (vma.traits & VMA_PFNMAP) === 0;
}

/** Guard pages are an error of the walk itself, whatever is asked for. */
function isGuard(view: PageView, vma: Vma, at: U64): boolean {
  return (vma.traits & VMA_GUARD) !== 0 && ((rangeAt(view.vmas, at)?.traits ?? 0) & VMA_GUARD) !== 0;
}

function holeEnd(view: PageView, at: U64, last: U64): U64 {
  const next = firstOverlap(view.vmas, at, last);
  return next === undefined ? last : sub(next.start, 1);
}

/** The pages of one VMA. Gives the first address that must be faulted in, or undefined. */
function walkVma(
  view: PageView,
  vma: Vma,
  start: U64,
  last: U64,
  request: HmmRequest,
  pfns: HmmPfns[],
): U64 | undefined {
  for (const piece of pieces(view.runs, start, last)) {
    const { pte } = piece;
    const own = pte?.kind === 'private' && pte.device === request.owner;
    const present = pte !== undefined && pte.kind !== 'private' && pte.kind !== 'exclusive';
    const valid = present || own;
    const refused = !valid || (request.write && present && !pte.write);
    if (request.fault && refused) return piece.start;
    if (pte === undefined) {
      pfns.push({ ...piece, valid: false, write: false, error: false, order: 0, pte: undefined });
    } else reportEntry(vma, pte, piece.start, piece.last, valid, pfns);
  }
  return undefined;
}

/** Huge entries carry the order of their mapping, and are an ERROR where they cannot be used. */
function reportEntry(vma: Vma, pte: PteRun, start: U64, last: U64, valid: boolean, pfns: HmmPfns[]): void {
  const huge = hugePart(pte, start, last);
  const push = (from: U64, to: U64, order: number): void => {
    if (from > to) return;
    const error = !valid && order > 0;
    pfns.push({ start: from, last: to, valid, write: valid && pte.write, error, order, pte: valid ? pte : undefined });
  };
  if (huge === undefined) {
    push(start, last, vma.traits & VMA_HUGETLB ? 9 : 0);
    return;
  }
  if (huge.start > start) push(start, sub(huge.start, 1), 0);
  push(huge.start, huge.last, 9);
  if (huge.last < last) push(add(huge.last, 1), last, 0);
}

function faultFrom(vma: Vma, at: U64, partLast: U64, write: boolean): HmmStep {
  if (write && (vma.prot & PROT_WRITE) === 0) return { kind: 'error', errno: 'EPERM', at };
  const blockLast = add(alignDown(at, HUGE_BYTES), HUGE_BYTES - 1);
  return { kind: 'fault', vma, start: max(at, vma.start), last: min(blockLast, partLast), write };
}
