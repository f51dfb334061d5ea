import type { Families } from './family.js';
import { hmmFamilies } from './hmm/index.js';
import { iommufdFamilies } from './iommufd/index.js';
import { vfioFamilies } from './vfio/index.js';

/** Every kind of file that has a model; what is missing here answers `unknown: not modelled`. */
export const families: Families = { ...iommufdFamilies, ...vfioFamilies, ...hmmFamilies };
