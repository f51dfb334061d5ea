import type { Call } from '../call.js';
import { profileOf } from '../profile.js';
import type { Tx } from '../tx.js';
import { areGroupsKnown, containerOf, hasEmulated, isNoIommu } from './containers.js';
import { isNatureOpen } from './groups.js';
import { iommuKey, NOIOMMU_KEY, smallFact, teach } from './facts.js';
import { physicalGroups } from './membership.js';
import { EEH_KEY, SPAPR_KEY } from './spapr/backend.js';
import type { VfioContainer } from './state.js';
import {
  EXT_DMA_CC,
  EXT_EEH,
  EXT_NESTING,
  EXT_NOIOMMU,
  EXT_SPAPR_TCE,
  EXT_SPAPR_TCE_V2,
  EXT_TYPE1,
  EXT_TYPE1V2,
  EXT_UNMAP_ALL,
  EXT_UPDATE_VADDR,
} from './uapi.js';
import { unknownSinceText } from '../answer.js';

/**
 * VFIO_CHECK_EXTENSION (`vfio_container_ioctl_check_extension`). The backend answers, or, without one, the first of the
 * registered backends with a positive answer, but for those that the attached groups rule out.
 *
 * A kernel for PCs has type1, one for POWER machines sPAPR instead. That is assumed of a PC until an answer shows
 * otherwise, once. What the machine and its configuration decide is learned.
 */

/** The answer where a recording can show another one, and the facts that this tells. */
interface Usual {
  readonly usual: 0 | 1;
  readonly facts: Readonly<Record<string, 0 | 1>>;
}

type Extension = number | 'unknown' | { readonly key: string } | Usual;

const TYPE1_KEY = 'kernel/type1';

/** Whether the kernel is one for POWER machines, as far as the recording has shown. */
export function isPower(tx: Tx): boolean {
  return smallFact(tx, SPAPR_KEY) === 1;
}

/** Whether the kernel has the type1 backend; undefined when nothing has shown it. */
export function hasType1(tx: Tx): boolean | undefined {
  const told = isPower(tx) ? 0 : smallFact(tx, TYPE1_KEY);
  return told === undefined ? undefined : told === 1;
}

/** What type1 says to an extension with or without a container. */
export function isType1Base(tx: Tx, value: number): boolean {
  if (value === EXT_NESTING) return profileOf(tx).nestingExtension;
  return value === EXT_TYPE1 || value === EXT_TYPE1V2 || value === EXT_UNMAP_ALL;
}

export function checkExtension(call: Call): void {
  const container = containerOf(call);
  const answer = extension(call.tx, container, Number(call.arg));
  if (answer === 'unknown') call.unknown(unknownSinceText('state of the container', container.unknownSince));
  else if (answer === 1 && Number(call.arg) === EXT_UPDATE_VADDR && isNatureOpen(call.tx, container)) {
    // Mediated devices have none, nor has a container that iommufd provides: which it is, later answers tell.
    call.succeedUnlessLearned('check-extension.value', 1, (ret) => ret === 0);
  } else if (typeof answer === 'number') call.succeed('check-extension.value', answer);
  else if ('key' in answer) learnExtension(call, answer.key);
  else if (call.succeedUnlessLearned('check-extension.value', answer.usual, (ret) => ret === 1 - answer.usual))
    for (const [key, value] of Object.entries(answer.facts)) teach(call, key, value);
}

/** An extension whose answer is a fact of the machine: 0 or 1, the same from now on. */
function learnExtension(call: Call, key: string): void {
  const known = smallFact(call.tx, key);
  if (known !== undefined) {
    call.succeed('check-extension.value', known);
    return;
  }
  if (!call.succeedWithLearnedRet('check-extension.machine')) return;
  const told = call.recordedRet;
  if (told === 0 || told === 1) teach(call, key, told);
}

function extension(tx: Tx, container: VfioContainer, value: number): Extension {
  switch (container.backend) {
    case 'none':
      return polled(tx, container, value);
    case 'type1':
    case 'type1v2':
      return type1Extension(tx, container, value);
    case 'noiommu':
      return value === EXT_NOIOMMU ? { key: NOIOMMU_KEY } : 0;
    case 'spapr':
      return spaprExtension(value);
    case 'unknown':
      return 'unknown';
  }
}

/** Without a backend every registered one is asked, except those that the attached groups rule out. */
function polled(tx: Tx, container: VfioContainer, value: number): Extension {
  const some = container.groups.length > 0;
  const noIommu = some && isNoIommu(tx, container);
  if (value === EXT_NOIOMMU) return some && !noIommu ? 0 : { key: NOIOMMU_KEY };
  if (noIommu) return 0;
  if (isType1Base(tx, value)) {
    const known = hasType1(tx);
    return known === undefined ? { usual: 1, facts: { [TYPE1_KEY]: 0 } } : Number(known);
  }
  if (isPower(tx)) return spaprExtension(value);
  const powers = value === EXT_SPAPR_TCE || value === EXT_SPAPR_TCE_V2 || value === EXT_EEH;
  return powers ? { usual: 0, facts: { [SPAPR_KEY]: 1, ...(value === EXT_EEH ? { [EEH_KEY]: 1 } : {}) } } : 0;
}

function spaprExtension(value: number): Extension {
  if (value === EXT_EEH) return { key: EEH_KEY };
  return value === EXT_SPAPR_TCE || value === EXT_SPAPR_TCE_V2 ? 1 : 0;
}

function type1Extension(tx: Tx, container: VfioContainer, value: number): Extension {
  if (isType1Base(tx, value)) return 1;
  if ((value === EXT_UPDATE_VADDR || value === EXT_DMA_CC) && !areGroupsKnown(container)) return 'unknown';
  if (value === EXT_UPDATE_VADDR) return hasEmulated(tx, container) ? 0 : 1;
  if (value !== EXT_DMA_CC) return 0;
  const groups = physicalGroups(tx, container);
  return groups.length === 0 ? 1 : { key: iommuKey(groups, 'dma_cc') };
}
