import type { Rule } from '../rules.js';

/** Shared by the table of MAP_DMA and by the code that pins. */
export const MAP_PIN_RULE = {
  id: 'map-dma.pin',
  errno: 'EFAULT',
  text: 'memory in the range cannot be pinned: unmapped, not accessible as asked, or a BAR that is switched off',
} as const satisfies Rule;
