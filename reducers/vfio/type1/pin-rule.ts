import type { Rule } from '../rules.js';

/** Shared by the table of MAP_DMA and by the code that pins. */
export const MAP_PIN_RULE = {
  id: 'map-dma.pin',
  errno: 'EFAULT',
  text: 'memory in the range cannot be pinned: unmapped, not accessible as asked, or a BAR that is switched off',
} as const satisfies Rule;

export const MAP_MEMLOCK_RULE = {
  id: 'map-dma.memlock',
  errno: 'ENOMEM',
  text: 'more pages would be locked than RLIMIT_MEMLOCK allows, and CAP_IPC_LOCK is missing',
} as const satisfies Rule;
