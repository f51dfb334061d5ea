import { rangeAt } from '../../../core/interval.js';
import { hex, sub, type U64 } from '../../../core/u64.js';
import type { Call } from '../../call.js';
import { askLimit, explainShortage, type LimitQuestion, refuseSure } from '../../memory/memlock.js';
import { probePin } from '../../memory/pin.js';
import { VMA_PFNMAP } from '../../memory/state.js';
import { countPages, type PageCount, pagesBetween } from '../../memory/substance.js';
import { isMemoryOn } from '../devices.js';
import { isNatureOpen, learnEmulated } from '../groups.js';
import type { Rule } from '../rules.js';
import type { VfioContainer, VfioDevice } from '../state.js';
import { MAP_WRITE } from '../uapi.js';
import { MAP_MEMLOCK_RULE, MAP_PIN_RULE } from './pin-rule.js';

/**
 * Pinning the memory behind a mapping (`vfio_pin_map_dma`). Pages come from the calling process; one that cannot be
 * had undoes the whole call, and its error is the call's. Memory of a device (a mapped BAR) has no pages: its
 * frames are looked up instead, which works while the device decodes memory and is awake.
 *
 * The kernel goes from page to page (`vfio_pin_pages_remote`). Each one that is memory counts against RLIMIT_MEMLOCK as
 * soon as it is had, so the limit decides before a page that cannot be had, when that comes later. All of them are charged to
 * the address space of the caller, also for one whom the limit does not bind (`vfio_lock_acct`); UNMAP takes them off
 * there, as long as that space lives.
 */

/** {@link judgePin}: the prediction ends the call. */
export const STOPS = 'stops';
const READ_REQUEST = Object.freeze({ write: false, longterm: true, pfnmapOk: true });
const WRITE_REQUEST = Object.freeze({ write: true, longterm: true, pfnmapOk: true });

/**
 * Whether the memory `vaddr..last` of the caller can be pinned; predicts where it cannot. Gives what it asks of
 * RLIMIT_MEMLOCK, undefined where nothing is pinned, or {@link STOPS}.
 */
export function judgePin(
  call: Call,
  container: VfioContainer,
  vaddr: U64,
  last: U64,
  access: number,
): LimitQuestion | typeof STOPS | undefined {
  const { space } = call.process;
  const request = (access & MAP_WRITE) !== 0 ? WRITE_REQUEST : READ_REQUEST;
  const answer = probePin(call.tx, space, vaddr, last, request);
  if (answer.kind === 'unknown' && !call.unknown(`${answer.why} (${hex(answer.at)})`)) return STOPS;
  const faultAt = answer.kind === 'fault' ? answer.at : sleepingDevice(call, space, vaddr, last)?.at;
  if (faultAt !== undefined) return judgeFault(call, container, vaddr, faultAt);
  const counted =
    answer.kind === 'ok' && !answer.device
      ? { pages: pagesBetween(vaddr, last), maybePages: 0 }
      : countPages(call.tx, space, vaddr, last);
  const question = limitQuestion(call, counted);
  if (call.predicted || askLimit(call.tx, question) !== 'exceeds') return question;
  if (isNatureOpen(call.tx, container))
    return failsUnlessMediated(call, container, MAP_MEMLOCK_RULE) ? STOPS : undefined;
  return refuseSure(call, question, MAP_MEMLOCK_RULE.id) ? STOPS : question;
}

/** A page at `faultAt` cannot be had, or one before it is too much. */
function judgeFault(
  call: Call,
  container: VfioContainer,
  vaddr: U64,
  faultAt: U64,
): LimitQuestion | typeof STOPS | undefined {
  if (isNatureOpen(call.tx, container)) return failsUnlessMediated(call, container, MAP_PIN_RULE) ? STOPS : undefined;
  const before = faultAt > vaddr ? countPages(call.tx, call.process.space, vaddr, sub(faultAt, 1)) : NO_PAGES;
  const question = limitQuestion(call, before);
  if (refuseSure(call, question, MAP_MEMLOCK_RULE.id)) return STOPS;
  if (!call.fail(MAP_PIN_RULE.errno, MAP_PIN_RULE.id)) return question;
  explainShortage(call, question);
  return STOPS;
}

const NO_PAGES: PageCount = Object.freeze({ pages: 0, maybePages: 0 });

/** A failure unless the group turns out to have mediated devices only, for which nothing is pinned. True: the call ends. */
function failsUnlessMediated(call: Call, container: VfioContainer, rule: Rule): boolean {
  if (call.failUnlessLearned(rule.errno, rule.id)) return true;
  learnEmulated(call, container);
  return false;
}

/** What pinning so many pages asks of the caller's limit. */
export function limitQuestion(call: Call, { pages, maybePages }: PageCount): LimitQuestion {
  const { process } = call;
  return { account: 'space', key: process.space, process, ipcLock: process.creds.ipcLock, pages, maybePages };
}

/** The end of the range that lies in a BAR of a device that cannot be reached now. */
export function sleepingDevice(
  call: Call,
  spaceId: number,
  start: U64,
  last: U64,
): { readonly at: U64; readonly device: string } | undefined {
  const vmas = call.tx.world.spaces.get(spaceId)?.vmas;
  if (vmas === undefined || !someMemoryOff(call)) return undefined;
  for (const at of [start, last]) {
    const vma = rangeAt(vmas, at);
    if (vma === undefined || (vma.traits & VMA_PFNMAP) === 0) continue;
    const key = call.tx.world.files.get(vma.file)?.objectKey ?? '';
    if (isMemoryOff(call.tx.world.devices.get(key))) return { at, device: key };
  }
  return undefined;
}

/** A page fault in a BAR fails while the device does not decode memory, sleeps, or was let go into low power. */
function isMemoryOff(device: VfioDevice | undefined): boolean {
  return device !== undefined && (!isMemoryOn(device) || device.lowPower === true);
}

/** Devices are few, and hardly ever off: this saves looking up the memory of every mapping. */
function someMemoryOff(call: Call): boolean {
  return call.tx.world.devices.some(isMemoryOff);
}
