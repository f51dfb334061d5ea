import type { IoctlEvent } from '../../core/event.js';
import type { Call } from '../call.js';
import { explained } from '../explain.js';
import type { FileFamily } from '../family.js';
import { containerOf, isNoIommu, newContainer, patchContainer } from './containers.js';
import { checkExtension, hasType1, isPower, isType1Base } from './extension.js';
import { teach } from './facts.js';
import { becomeIommufd, isProvidedByIommufd, revealedIommufd, TOLD_BY_ANSWER } from './iommufd-container.js';
import { dropIfUnused, setBackend } from './membership.js';
import { type Rule, refuse } from './rules.js';
import { JOIN_BUSY, newSpapr, SPAPR_KEY } from './spapr/backend.js';
import { spaprIoctl } from './spapr/spapr.js';
import type { Backend, VfioContainer } from './state.js';
import { dirtyPages } from './type1/dirty.js';
import { TYPE1_EXPLANATIONS } from './type1/explain.js';
import { getInfo } from './type1/info.js';
import { mapDma } from './type1/map.js';
import { unmapDma } from './type1/unmap.js';
import {
  CHECK_EXTENSION,
  EXT_NOIOMMU,
  EXT_SPAPR_TCE,
  EXT_SPAPR_TCE_V2,
  EXT_TYPE1,
  EXT_UNMAP_ALL,
  GET_API_VERSION,
  IOMMU_DIRTY_PAGES,
  IOMMU_GET_INFO,
  IOMMU_MAP_DMA,
  IOMMU_UNMAP_DMA,
  SET_IOMMU,
} from './uapi.js';
import { unknownSinceText } from '../answer.js';

/**
 * /dev/vfio/vfio (drivers/vfio/container.c).
 *
 * Three commands are the container's own; everything else goes to the IOMMU backend and is EINVAL while there is
 * none. The backend is set once, when a group is there, and lasts until the last group leaves. Which backend a
 * number selects, and which extensions there are (extension.ts), is asked of each registered backend: on a PC these are
 * type1 and, for groups without an IOMMU only, noiommu.
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
  spaprBusy: JOIN_BUSY,
  notType1: { id: 'container.unknown-command', errno: 'ENOTTY', text: 'the backend does not know the command' },
} as const satisfies Record<string, Rule>;

const R = CONTAINER_RULES;

function ioctl(call: Call): void {
  const { request } = call.event as IoctlEvent;
  const { spapr } = containerOf(call);
  if (spapr !== null && !OWN_COMMANDS.includes(request)) return spaprIoctl(call, spapr);
  switch (request) {
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
      if (containerOf(call).backend === 'unknown') call.unknown(stateUnknown(containerOf(call)));
      else if (backendIsType1(call)) refuse(call, R.notType1);
  }
}

/** Commands that the container answers itself, whatever its backend. */
const OWN_COMMANDS: readonly number[] = [GET_API_VERSION, CHECK_EXTENSION, SET_IOMMU];

/** True when type1 answers; otherwise the prediction was made. A container of unknown past is taken for type1 v2. */
function backendIsType1(call: Call): boolean {
  const container = containerOf(call);
  switch (container.backend) {
    case 'type1':
    case 'type1v2':
      return true;
    case 'unknown':
      // One that was seen from its open on may have no group yet.
      return !(call.file.complete && call.failedByFact(R.noBackend.errno, stateUnknown(container)));
    case 'none':
      refuse(call, R.noBackend);
      return false;
    case 'noiommu':
    case 'spapr':
      refuse(call, R.notType1);
      return false;
  }
}

function stateUnknown({ unknownSince }: VfioContainer): string {
  return unknownSinceText('state of the container', unknownSince);
}

const NO_TYPE1 = 'whether the kernel has the type1 backend was not shown yet';
const NO_CAPABILITY = 'whether the process has CAP_SYS_RAWIO is not in the recording';
const NOT_ISOLATED =
  'whether the interrupts of the groups are isolated, and their devices free of the firmware, is not in the recording';

// ---- SET_IOMMU ---------------------------------------------------------------------------------------------

function setIommu(call: Call): void {
  const container = containerOf(call);
  const value = Number(call.arg);
  if (container.backend === 'unknown') {
    if (!call.unknown(stateUnknown(container))) return;
    if (backendOfNumber(value) === 'spapr') enterSpapr(call, container, value === EXT_SPAPR_TCE_V2);
    else setBackend(call.tx, container.id, backendOfNumber(value));
    return;
  }
  if (container.groups.length === 0 && refuse(call, R.setNoGroup)) return;
  if (container.backend !== 'none' && refuse(call, R.setTwice)) return;
  const noIommu = isNoIommu(call.tx, container);
  if (backendOfNumber(value) === 'spapr') return setSpapr(call, container, noIommu, value === EXT_SPAPR_TCE_V2);
  if (!noIommu && value === EXT_UNMAP_ALL && hasType1(call.tx) !== false && refuse(call, R.setNotABackend)) return;
  const supported = noIommu ? value === EXT_NOIOMMU : isType1Base(call.tx, value) && hasType1(call.tx) !== false;
  if (!supported && refuse(call, R.setNoBackend)) return;
  if (!noIommu && hasType1(call.tx) === undefined && call.failedByFact(R.setNoBackend.errno, NO_TYPE1)) return;
  if (call.failedByFact('EPERM', noIommu ? NO_CAPABILITY : NOT_ISOLATED)) return;
  if (!call.succeed('set-iommu.ok')) return;
  setBackend(call.tx, container.id, backendOfNumber(value));
}

/** A kernel for POWER machines has the sPAPR backend, no other one has; a success shows which it is. */
function setSpapr(call: Call, container: VfioContainer, noIommu: boolean, v2: boolean): void {
  if (noIommu && refuse(call, R.setNoBackend)) return;
  if (!isPower(call.tx) && call.failUnlessLearned(R.setNoBackend.errno, R.setNoBackend.id)) return;
  if (v2 && call.failedByFact('EINVAL', 'whether the hardware has windows that come and go')) return;
  if (!v2 && container.groups.length > 1 && refuse(call, JOIN_BUSY)) return;
  if (call.succeed('set-iommu.ok')) enterSpapr(call, container, v2);
}

/** The success of SET_IOMMU tells the machine, and a backend that has nothing yet. */
function enterSpapr(call: Call, container: VfioContainer, v2: boolean): void {
  if (!isPower(call.tx)) teach(call, SPAPR_KEY, 1);
  setBackend(call.tx, container.id, 'spapr');
  patchContainer(call.tx, container.id, { spapr: newSpapr(v2) });
}

function backendOfNumber(value: number): Backend {
  if (value === EXT_TYPE1) return 'type1';
  if (value === EXT_NOIOMMU) return 'noiommu';
  return value === EXT_SPAPR_TCE || value === EXT_SPAPR_TCE_V2 ? 'spapr' : 'type1v2';
}

// ---- the family --------------------------------------------------------------------------------------------

export const containerFamily: FileFamily = {
  open(tx, file, event) {
    if (isProvidedByIommufd(tx)) return becomeIommufd(tx, file, event.seq);
    const container = newContainer(tx, file.complete ? -1 : event.seq);
    return Object.freeze({ ...file, object: container.id });
  },
  claims(event) {
    // An iommufd takes SET_IOMMU too, but never for the backends of POWER machines.
    return event.request === SET_IOMMU && backendOfNumber(Number(event.arg)) === 'spapr';
  },
  reveals(tx, file, event) {
    const iommufd = revealedIommufd(tx, file, event);
    return iommufd === undefined ? undefined : { file: iommufd, why: TOLD_BY_ANSWER };
  },
  ioctl,
  explain: (call) => explained(TYPE1_EXPLANATIONS, call),
  release(tx, file) {
    patchContainer(tx, file.object, { fileOpen: false });
    dropIfUnused(tx, file.object);
  },
};
