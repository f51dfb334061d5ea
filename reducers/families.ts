import type { Families } from './family.js';

/** Every kind of file that has a model; what is missing here answers `unknown: not modelled`. */
export const families: Families = {};
