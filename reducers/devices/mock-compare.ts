import { type Interval, rangeAt } from '../../core/interval.js';
import { add, max, min, mul, sub, type U64 } from '../../core/u64.js';
import type { Call } from '../call.js';
import { ioasOfObject } from '../iommufd/context.js';
import { heldRuns, pageSpan } from '../iommufd/held-pages.js';
import { PAGE } from '../iommufd/iopt.js';
import { byteAt } from '../iommufd/pages.js';
import type { Area } from '../iommufd/state.js';
import { fileKey, type MemoryRun, memoryRuns } from '../memory/identity.js';
import { probePin } from '../memory/pin.js';
import type { Tx } from '../tx.js';
import { unknownSinceText } from '../answer.js';

/**
 * Whether pinned pages are those that a process sees at an address.
 *
 * The kernel compares page frames: those that were taken when the pages were pinned, with those that the address has now.
 * It looks page by page, so the first page that differs, or that is not there, decides.
 */
export type Same = 'same' | 'other' | 'fault' | { readonly unknown: string };

const READ = Object.freeze({ write: false, longterm: false, pfnmapOk: false });

/** Whether an IOVA range of an IOAS, which is pinned or would be now, shows the memory at an address of the caller. */
export function sameMemory(call: Call, contextId: number, ioasId: number, iova: U64, last: U64, address: U64): Same {
  const { tx } = call;
  const { space } = call.process;
  const ioas = ioasOfObject(tx, contextId, ioasId);
  const trouble = probePin(tx, space, address, add(address, sub(last, iova)), READ);
  const comparable = trouble.kind === 'ok' ? undefined : trouble.at;
  let at = iova;
  let user = address;
  while (comparable === undefined || user < comparable) {
    const area = rangeAt(ioas.areas, at);
    if (area === undefined)
      return ioas.unknownSince < 0 ? 'other' : { unknown: unknownSinceText('mappings', ioas.unknownSince) };
    const left = comparable === undefined ? last : min(last, add(at, sub(comparable, add(user, 1))));
    const end = min(left, area.last);
    const step = samePart(tx, space, area, byteAt(area, at), byteAt(area, end), user);
    if (step !== 'same') return step;
    if (end >= last) return 'same';
    user = add(user, add(sub(end, at), 1));
    at = add(end, 1);
  }
  return trouble.kind === 'unknown' ? { unknown: trouble.why } : 'fault';
}

function samePart(tx: Tx, space: number, area: Area, firstByte: U64, lastByte: U64, user: U64): Same {
  // Nobody can map the self-tests' dma-bufs, or those of VFIO, into a process.
  if (area.pages.kind === 'dmabuf') return 'other';
  const shift = (byte: U64): U64 => add(user, sub(byte, firstByte));
  for (const pinned of pinnedRuns(tx, area, { start: firstByte, last: lastByte }))
    for (const mine of memoryRuns(tx, space, shift(pinned.start), shift(pinned.last))) {
      if (pinned.key === '' || mine.key === '') return { unknown: 'what memory was pinned there is not recorded' };
      const offset = add(pinned.offset, sub(mine.start, shift(pinned.start)));
      if (pinned.key !== mine.key || offset !== mine.offset) return 'other';
    }
  return 'same';
}

/** The memory behind some bytes of an area, as it was when its pages were pinned. Runs are in bytes of the area's memory. */
export function* pinnedRuns(tx: Tx, area: Area, bytes: Interval): Generator<MemoryRun> {
  const { pages } = area;
  if (pages.kind === 'file') {
    yield { ...bytes, key: fileKey(tx, pages.file), offset: add(pages.base, bytes.start) };
    return;
  }
  let at = bytes.start;
  for (const held of heldRuns(tx, area, pageSpan(bytes.start, bytes.last))) {
    const start = max(mul(held.start, PAGE), bytes.start);
    const last = min(add(mul(held.last, PAGE), PAGE - 1), bytes.last);
    if (start > at) yield* userRuns(tx, area, at, sub(start, 1));
    yield* userRuns(tx, area, start, last, held.since);
    at = add(last, 1);
  }
  if (at <= bytes.last) yield* userRuns(tx, area, at, bytes.last);
}

function* userRuns(tx: Tx, area: Area, first: U64, last: U64, since?: number): Generator<MemoryRun> {
  const { base, space } = area.pages;
  for (const run of memoryRuns(tx, space, add(base, first), add(base, last), since))
    yield { ...run, start: sub(run.start, base), last: sub(run.last, base) };
}
