import type { Invariant } from '../../core/invariant.js';
import type { World } from '../world.js';
import { leakedMappings } from './leaked-mappings.js';
import { memoryPinned } from './memory-pinned.js';

/** Every invariant that is checked unless the user says otherwise, in the order of their names. */
export const invariants: readonly Invariant<World>[] = [leakedMappings, memoryPinned];
