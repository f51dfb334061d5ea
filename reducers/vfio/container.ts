import type { IoctlEvent } from '../../core/event.js';
import type { Call } from '../call.js';
import { explained } from '../explain.js';
import type { FileFamily } from '../family.js';
import { profileOf } from '../profile.js';
import type { Tx } from '../tx.js';
import { containerOf, hasEmulated, isNoIommu, newContainer, patchContainer } from './containers.js';
import { iommuKey, NOIOMMU_KEY, smallFact, teach } from './facts.js';
import { dropIfUnused, physicalGroups, setBackend } from './membership.js';
import { type Rule, refuse } from './rules.js';
import type { Backend, VfioContainer } from './state.js';
import { dirtyPages } from './type1/dirty.js';
import { TYPE1_EXPLANATIONS } from './type1/explain.js';
import { getInfo } from './type1/info.js';
import { mapDma } from './type1/map.js';
import { unmapDma } from './type1/unmap.js';
import {
  CHECK_EXTENSION,
  EXT_DMA_CC,
  EXT_NESTING,
  EXT_NOIOMMU,
  EXT_SPAPR_TCE,
  EXT_SPAPR_TCE_V2,
  EXT_TYPE1,
  EXT_TYPE1V2,
  EXT_UNMAP_ALL,
  EXT_UPDATE_VADDR,
  GET_API_VERSION,
  IOMMU_DIRTY_PAGES,
  IOMMU_GET_INFO,
  IOMMU_MAP_DMA,
  IOMMU_UNMAP_DMA,
  SET_IOMMU,
} from './uapi.js';

/**
 * /dev/vfio/vfio (drivers/vfio/container.c).
 *
 * Three commands are the container's own; everything else goes to the IOMMU backend and is EINVAL while there is
 * none. The backend is set once, when a group is there, and lasts until the last group leaves. Which backend a
 * number selects, and which extensions there are, is asked of each registered backend: on a PC these are type1
 * and, for groups without an IOMMU only, noiommu.
 */

export const CONTAINER_RULES = {
  setNoGroup: { id: 'set-iommu.no-group', errno: 'EINVAL', text: 'no group is attached to the container' },
  setTwice: { id: 'set-iommu.again', errno: 'EINVAL', text: 'the container has a backend already' },
  setNotABackend: {
    id: 'set-iommu.not-a-backend',
    errno: 'EINVAL',
    text: 'the number is an extension of type1 that selects no backend (VFIO_UNMAP_ALL)',
  },
  setNoBackend: { id: 'set-iommu.no-backend', errno: 'ENODEV', text: 'no registered backend supports the number' },
  noBackend: { id: 'container.no-backend', errno: 'EINVAL', text: 'the container has no IOMMU backend yet' },
  notType1: { id: 'container.unknown-command', errno: 'ENOTTY', text: 'the backend does not know the command' },
} as const satisfies Record<string, Rule>;

const R = CONTAINER_RULES;

function ioctl(call: Call): void {
  switch ((call.event as IoctlEvent).request) {
    case IOMMU_MAP_DMA:
      return backendIsType1(call) ? mapDma(call) : undefined;
    case IOMMU_UNMAP_DMA:
      return backendIsType1(call) ? unmapDma(call) : undefined;
    case GET_API_VERSION:
      call.succeed('container.api-version');
      return;
    case CHECK_EXTENSION:
      return checkExtension(call);
    case SET_IOMMU:
      return setIommu(call);
    case IOMMU_GET_INFO:
      return backendIsType1(call) ? getInfo(call) : undefined;
    case IOMMU_DIRTY_PAGES:
      return backendIsType1(call) ? dirtyPages(call) : undefined;
    default:
      if (backendIsType1(call)) refuse(call, R.notType1);
  }
}

/** True when type1 answers; otherwise the prediction was made. A container of unknown past is taken for type1 v2. */
function backendIsType1(call: Call): boolean {
  const container = containerOf(call);
  switch (container.backend) {
    case 'type1':
    case 'type1v2':
      return true;
    case 'unknown':
      return true;
    case 'none':
      refuse(call, R.noBackend);
      return false;
    case 'noiommu':
      refuse(call, R.notType1);
      return false;
    case 'spapr':
      call.unknown('the sPAPR TCE backend of POWER machines is not modelled');
      return false;
  }
}

// ---- CHECK_EXTENSION ---------------------------------------------------------------------------------------

function checkExtension(call: Call): void {
  const container = containerOf(call);
  const answer = extension(call, container, Number(call.arg));
  if (answer === 'unknown') {
    call.unknown(`state of the container unknown since event ${container.unknownSince}`);
  } else if (typeof answer === 'number') {
    call.succeed('check-extension.value', answer);
  } else {
    learnExtension(call, answer.key);
  }
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

function extension(call: Call, container: VfioContainer, value: number): number | 'unknown' | { key: string } {
  switch (container.backend) {
    case 'none':
      return polled(call, container, value);
    case 'type1':
    case 'type1v2':
      return type1Extension(call, container, value);
    case 'noiommu':
      return value === EXT_NOIOMMU ? { key: NOIOMMU_KEY } : 0;
    case 'unknown':
    case 'spapr':
      return 'unknown';
  }
}

function isType1Base(tx: Tx, value: number): boolean {
  if (value === EXT_NESTING) return profileOf(tx).nestingExtension;
  return value === EXT_TYPE1 || value === EXT_TYPE1V2 || value === EXT_UNMAP_ALL;
}

/** Without a backend every registered one is asked, except those that the attached groups rule out. */
function polled(call: Call, container: VfioContainer, value: number): number | { key: string } {
  const some = container.groups.length > 0;
  const noIommu = isNoIommu(call.tx, container);
  if (isType1Base(call.tx, value)) return some && noIommu ? 0 : 1;
  return value === EXT_NOIOMMU && !(some && !noIommu) ? { key: NOIOMMU_KEY } : 0;
}

function type1Extension(call: Call, container: VfioContainer, value: number): number | { key: string } {
  if (isType1Base(call.tx, value)) return 1;
  if (value === EXT_UPDATE_VADDR) return hasEmulated(call.tx, container) ? 0 : 1;
  if (value !== EXT_DMA_CC) return 0;
  const groups = physicalGroups(call.tx, container);
  return groups.length === 0 ? 1 : { key: iommuKey(groups, 'dma_cc') };
}

const NO_CAPABILITY = 'whether the process has CAP_SYS_RAWIO is not in the recording';
const NOT_ISOLATED =
  'whether the interrupts of the groups are isolated, and their devices free of the firmware, is not in the recording';

// ---- SET_IOMMU ---------------------------------------------------------------------------------------------

function setIommu(call: Call): void {
  const container = containerOf(call);
  const value = Number(call.arg);
  if (container.backend === 'unknown') {
    if (call.unknown(`state of the container unknown since event ${container.unknownSince}`))
      setBackend(call.tx, container.id, backendOfNumber(value));
    return;
  }
  if (container.groups.length === 0 && refuse(call, R.setNoGroup)) return;
  if (container.backend !== 'none' && refuse(call, R.setTwice)) return;
  const noIommu = isNoIommu(call.tx, container);
  if (!noIommu && value === EXT_UNMAP_ALL && refuse(call, R.setNotABackend)) return;
  const supported = noIommu ? value === EXT_NOIOMMU : isType1Base(call.tx, value);
  if (!supported && refuse(call, R.setNoBackend)) return;
  if (call.failedByFact('EPERM', noIommu ? NO_CAPABILITY : NOT_ISOLATED)) return;
  if (!call.succeed('set-iommu.ok')) return;
  setBackend(call.tx, container.id, backendOfNumber(value));
}

function backendOfNumber(value: number): Backend {
  if (value === EXT_TYPE1) return 'type1';
  if (value === EXT_NOIOMMU) return 'noiommu';
  return value === EXT_SPAPR_TCE || value === EXT_SPAPR_TCE_V2 ? 'spapr' : 'type1v2';
}

// ---- the family --------------------------------------------------------------------------------------------

export const containerFamily: FileFamily = {
  open(tx, file, event) {
    const container = newContainer(tx, file.complete ? -1 : event.seq);
    return Object.freeze({ ...file, object: container.id });
  },
  claims(event) {
    // An iommufd takes SET_IOMMU too, but never for the backends of POWER machines.
    return event.request === SET_IOMMU && backendOfNumber(Number(event.arg)) === 'spapr';
  },
  ioctl,
  explain: (call) => explained(TYPE1_EXPLANATIONS, call),
  release(tx, file) {
    patchContainer(tx, file.object, { fileOpen: false });
    dropIfUnused(tx, file.object);
  },
};
