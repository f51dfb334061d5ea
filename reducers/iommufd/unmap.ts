import { firstOverlap } from '../../core/interval.js';
import { add, lastOf, lengthOf, type U64, U64_MAX } from '../../core/u64.js';
import type { Call } from '../call.js';
import type { Tx } from '../tx.js';
import { notifyUnmap } from './access.js';
import { ioasByKey, lookupIoas, writeBack } from './context.js';
import { forgetDirty } from './dirty-state.js';
import { dropSharer, unpinArea } from './held-pages.js';
import { deleteArea } from './iopt.js';
import type { Rule } from './rules.js';
import type { Area, Ioas } from './state.js';
import { unknownSinceText } from '../answer.js';

/**
 * IOAS_UNMAP (drivers/iommu/iommufd/ioas.c, io_pagetable.c). It takes whole areas only, goes from the bottom up and
 * stops at the first that it may not take, so a failing call may have unmapped some.
 */
export const UNMAP_RULES: readonly Rule[] = [
  { id: 'unmap.ioas', errno: 'ENOENT', text: 'no IOAS has the id' },
  { id: 'unmap.all', errno: '', text: 'all areas go' },
  { id: 'unmap.overflow', errno: 'EOVERFLOW', text: 'IOVA, length or their sum passes 2^64 - 1' },
  { id: 'unmap.length', errno: 'EINVAL', text: 'the length is 0' },
  { id: 'unmap.locked', errno: 'EBUSY', text: 'a HW queue keeps an area' },
  { id: 'unmap.part', errno: 'ENOENT', text: 'an area is only partly inside the range' },
  { id: 'unmap.none', errno: 'ENOENT', text: 'no area is in the range' },
  { id: 'unmap.ok', errno: '', text: 'all areas in the range go' },
];

export interface UnmapPlan {
  /** What goes, also when the call then fails. */
  readonly areas: readonly Area[];
  readonly bytes: U64;
  readonly errno: string;
  readonly rule: string;
  readonly unknown: string;
}

export function unmap(call: Call): void {
  const s = call.struct;
  const ioas = lookupIoas(call, s.u32(4), 'unmap.ioas');
  if (ioas === undefined) return;
  const iova = s.u64(8);
  const length = s.u64(16);
  const all = iova === 0 && length === U64_MAX;
  if (!all && (iova === U64_MAX || length === U64_MAX) && call.fail('EOVERFLOW', 'unmap.overflow')) return;
  if (length === 0 && call.fail('EINVAL', 'unmap.length')) return;
  const last = all ? U64_MAX : lastOf(iova, length);
  if (last === undefined) {
    call.fail('EOVERFLOW', 'unmap.overflow');
    return;
  }
  const plan = planUnmap(ioas, iova, last);
  if (plan.unknown !== '') call.unknown(plan.unknown);
  else if (plan.errno !== '') call.fail(plan.errno, plan.rule);
  else if (!all && plan.areas.length === 0) call.fail('ENOENT', 'unmap.none');
  else call.succeed(all ? 'unmap.all' : 'unmap.ok');
  if (call.recordedRet !== -1 && call.recordedRet !== null) {
    executeUnmap(call.tx, ioas.id, plan.areas);
    if (plan.unknown === '') writeBack(call, 16, plan.bytes, 'length');
  } else if (call.recordedErrno === plan.errno) executeUnmap(call.tx, ioas.id, plan.areas);
}

/** What an unmap of a range takes and how it ends (`iopt_unmap_iova_range`), without doing it. */
export function planUnmap(ioas: Ioas, start: U64, last: U64): UnmapPlan {
  const areas: Area[] = [];
  let bytes: U64 = 0;
  let at = start;
  let errno = '';
  let rule = '';
  let gap = false;
  for (;;) {
    const area = firstOverlap(ioas.areas, at, last);
    if (area === undefined) {
      gap = true;
      break;
    }
    if (area.start > at) gap = true;
    if (area.locks > 0) {
      errno = 'EBUSY';
      rule = 'unmap.locked';
      break;
    }
    if (area.start < at || area.last > last) {
      errno = 'ENOENT';
      rule = 'unmap.part';
      break;
    }
    areas.push(area);
    bytes = add(bytes, lengthOf(area.start, area.last));
    if (area.last >= last) break;
    at = add(area.last, 1);
  }
  const unknown = ioas.unknownSince >= 0 && gap ? unknownSinceText('mappings', ioas.unknownSince) : '';
  return { areas, bytes, errno, rule, unknown };
}

/**
 * Takes areas away; accesses that hold pages of them let go first. `locked` areas are among them only where a recording
 * shows that they are gone.
 */
export function executeUnmap(tx: Tx, ioasKey: number, areas: readonly Area[], locked = false): void {
  for (const area of areas) {
    if (area.accesses > 0) notifyUnmap(tx, ioasKey, area.start, area.last, locked);
    removeArea(tx, ioasKey, area);
  }
}

/** Takes an area out of its IOAS; domains let go of its pages. */
function removeArea(tx: Tx, ioasKey: number, area: Area): void {
  const ioas = ioasByKey(tx, ioasKey);
  deleteArea(tx, ioasKey, area);
  if (ioas.hwpts.length > 0) {
    unpinArea(tx, area);
    forgetDirty(tx, ioas, area);
  }
  dropSharer(tx, area);
}
