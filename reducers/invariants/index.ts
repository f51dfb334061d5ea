import type { Invariant } from '../../core/invariant.js';
import type { World } from '../world.js';
import { invalidationBalance } from './invalidation-balance.js';
import { leakedMappings } from './leaked-mappings.js';
import { memoryPinned } from './memory-pinned.js';
import { mirrorBare } from './mirror-bare.js';
import { mirrorExclusive, mirrorPrivate, mirrorRights, mirrorStale, mirrorUpdate } from './mirror-rules.js';

/** Every invariant that is checked unless the user says otherwise, in the order of their names. */
export const invariants: readonly Invariant<World>[] = [
  invalidationBalance,
  leakedMappings,
  memoryPinned,
  mirrorBare,
  mirrorExclusive,
  mirrorPrivate,
  mirrorRights,
  mirrorStale,
  mirrorUpdate,
];
