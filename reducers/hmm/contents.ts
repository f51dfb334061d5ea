import { carve, overlapping, put, type RangeMap, trimmed } from '../../core/interval.js';
import { add, alignDown, max, min, modPow2, sub, type U64 } from '../../core/u64.js';
import { type DataRun } from '../memory/pagetable.js';
import type { Machine } from './machine.js';
import { PAGE_BYTES } from '../memory/flags.js';

/**
 * Which pages hold nothing but zeros, as far as calls tell.
 *
 * It matters where a huge page is split: the kernel then gives up its pages that hold zeros only, and maps the page of
 * zeros in their place (`try_to_map_unused_to_zeropage`). New memory holds zeros; what a device writes to it and what the
 * kernel copies out is followed here, by the last byte of a page that is not 0. It is known only where the CPU
 * writes nothing by itself (knowledge `calls`).
 */

/** Of a page of which nothing is known. */
export const UNKNOWN_DATA = -1;

function same(a: DataRun, b: DataRun): boolean {
  return a.upto === b.upto;
}

/** A part of a range whose pages hold data up to the same byte. */
export interface Held {
  readonly start: U64;
  readonly last: U64;
  /** One more than the index of the last byte that is not 0, or {@link UNKNOWN_DATA}. */
  readonly upto: number;
}

/** What the pages of a range hold, in order and without gaps. */
export function heldIn(data: RangeMap<DataRun>, start: U64, last: U64): Held[] {
  const found: Held[] = [];
  let at = start;
  for (const run of overlapping(data, start, last)) {
    const from = max(run.start, start);
    const to = min(run.last, last);
    if (from > at) found.push({ start: at, last: sub(from, 1), upto: 0 });
    found.push({ start: from, last: to, upto: run.upto });
    if (to >= last) return found;
    at = add(to, 1);
  }
  found.push({ start: at, last, upto: 0 });
  return found;
}

/** The pages of a range hold data up to a byte from now on. */
export function hold(data: RangeMap<DataRun>, start: U64, last: U64, upto: number): void {
  if (upto === 0) {
    if (data.size > 0) carve(data, start, last, trimmed);
  } else put(data, Object.freeze({ start, last, upto }), trimmed, same);
}

/** Memory is new: it holds zeros. */
export function holdNothing(machine: Machine, start: U64, last: U64): void {
  if (machine.data.size > 0) hold(machine.dataToWrite(), start, last, 0);
}

/** Copies `npages` pages; what does not begin at a page is known only where it is zeros to zeros. */
export function copyHeld(from: readonly Held[], source: U64, to: RangeMap<DataRun>, target: U64): void {
  for (const { start, last, upto } of from) {
    const first = add(target, sub(start, source));
    const end = add(target, sub(last, source));
    if (modPow2(target, PAGE_BYTES) === modPow2(source, PAGE_BYTES)) hold(to, first, end, upto);
    else if (upto !== 0 || to.size > 0) {
      const lastPage = alignDown(end, PAGE_BYTES);
      hold(to, alignDown(first, PAGE_BYTES), add(lastPage, PAGE_BYTES - 1), UNKNOWN_DATA);
    }
  }
}

/** The kernel writes bytes to memory of a process. */
export function holdBytes(data: RangeMap<DataRun>, at: U64, bytes: Uint8Array): void {
  let done = 0;
  while (done < bytes.length) {
    const address = add(at, done);
    const page = alignDown(address, PAGE_BYTES);
    const offset = Number(sub(address, page));
    const part = bytes.subarray(done, done + PAGE_BYTES - offset);
    const [before] = heldIn(data, page, page);
    hold(data, page, add(page, PAGE_BYTES - 1), uptoAfter(before?.upto ?? 0, offset, part));
    done += part.length;
  }
}

function uptoAfter(before: number, offset: number, written: Uint8Array): number {
  let count = written.length;
  while (count > 0 && written[count - 1] === 0) count--;
  const end = offset + written.length;
  if (before === UNKNOWN_DATA) return offset === 0 && end === PAGE_BYTES ? count : UNKNOWN_DATA;
  if (before > end) return before;
  if (count > 0) return offset + count;
  // Zeros over data: what is left of it, if anything, lies in front.
  return before <= offset ? before : offset === 0 ? 0 : UNKNOWN_DATA;
}
