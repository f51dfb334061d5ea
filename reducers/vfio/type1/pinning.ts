import { rangeAt } from '../../../core/interval.js';
import { add, hex, lengthOf, sub, type U64 } from '../../../core/u64.js';
import type { Call } from '../../call.js';
import { probePin } from '../../memory/pin.js';
import { pinAdd, pinRemove } from '../../memory/pins.js';
import { VMA_PFNMAP } from '../../memory/state.js';
import { isNatureOpen, learnEmulated } from '../groups.js';
import type { VfioContainer, VfioDevice } from '../state.js';
import { MAP_WRITE } from '../uapi.js';
import { MAP_PIN_RULE } from './pin-rule.js';

/**
 * Pinning the memory behind a mapping (`vfio_pin_map_dma`). Pages come from the calling process; one that cannot be
 * had undoes the whole call, and its error is the call's. Memory of a device (a mapped BAR) has no pages: its
 * frames are looked up instead, which works while the device decodes memory and is awake.
 */

/** {@link pinMapping}: the prediction ends the call, nothing is entered. */
export const PIN_STOPS = -1;
const READ_REQUEST = Object.freeze({ write: false, longterm: true, pfnmapOk: true });
const WRITE_REQUEST = Object.freeze({ write: true, longterm: true, pfnmapOk: true });

/**
 * Pins user memory for a mapping of `iova..iovaLast`; makes the prediction where that fails. Gives the id in the index
 * of pinned memory, 0 when there is none, or {@link PIN_STOPS}.
 */
export function pinMapping(
  call: Call,
  iova: U64,
  iovaLast: U64,
  vaddr: U64,
  access: number,
  container: VfioContainer,
): number {
  const space = call.process.space;
  const last = sub(add(vaddr, lengthOf(iova, iovaLast)), 1);
  const request = (access & MAP_WRITE) !== 0 ? WRITE_REQUEST : READ_REQUEST;
  const answer = probePin(call.tx, space, vaddr, last, request);
  if (answer.kind === 'unknown') {
    if (!call.unknown(`${answer.why} (${hex(answer.at)})`)) return PIN_STOPS;
  } else if (answer.kind === 'fault') {
    if (isNatureOpen(call.tx, container)) {
      if (call.failUnlessLearned(MAP_PIN_RULE.errno, MAP_PIN_RULE.id)) return PIN_STOPS;
      learnEmulated(call, container);
      return 0;
    }
    if (call.fail(MAP_PIN_RULE.errno, MAP_PIN_RULE.id)) return PIN_STOPS;
  } else if (sleepingDevice(call, space, vaddr, last) !== undefined && call.fail(MAP_PIN_RULE.errno, MAP_PIN_RULE.id)) {
    return PIN_STOPS;
  }
  return pinAdd(call.tx, space, {
    start: vaddr,
    last,
    owner: `type1:${container.id}`,
    key: iova,
    since: call.event.seq,
  });
}

/** Takes a pin back that a later check of the same call made void. */
export function unpinMapping(call: Call, pin: number): void {
  if (pin !== 0) pinRemove(call.tx, call.process.space, pin, call.event.seq);
}

/** The end of the range that lies in a BAR of a device that does not decode memory now. */
export function sleepingDevice(
  call: Call,
  spaceId: number,
  start: U64,
  last: U64,
): { readonly at: U64; readonly device: string } | undefined {
  const vmas = call.tx.world.spaces.get(spaceId)?.vmas;
  if (vmas === undefined || !someMemoryOff(call)) return undefined;
  for (const at of [start, last]) {
    const vma = rangeAt(vmas, at);
    if (vma === undefined || (vma.traits & VMA_PFNMAP) === 0) continue;
    const key = call.tx.world.files.get(vma.file)?.objectKey ?? '';
    if (isMemoryOff(call.tx.world.devices.get(key))) return { at, device: key };
  }
  return undefined;
}

const COMMAND_MEMORY = 2;

function isMemoryOff(device: VfioDevice | undefined): boolean {
  return device !== undefined && device.pciCommand >= 0 && (device.pciCommand & COMMAND_MEMORY) === 0;
}

/** Devices are few, and hardly ever off: this saves looking up the memory of every mapping. */
function someMemoryOff(call: Call): boolean {
  for (const device of call.tx.world.devices.values()) if (isMemoryOff(device)) return true;
  return false;
}
