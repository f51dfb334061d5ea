import type { Interval } from '../../core/interval.js';

/**
 * What the IOMMUs of all x86-64 machines have in common. It stands in for what a recording has not told yet of the one
 * that it was made on.
 */

/** The window of the local APICs: what a device writes to there is an interrupt, and never reaches memory. */
export const MSI_WINDOW: Interval = Object.freeze({ start: 0xfee0_0000, last: 0xfeef_ffff });
/** Least that an IOMMU translates: three levels of page tables. */
export const SURELY_TRANSLATED = 2 ** 39 - 1;
