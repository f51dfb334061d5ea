import type { IoctlEvent } from '../../../core/event.js';
import { Bytes } from '../../../core/bytes.js';
import { add } from '../../../core/u64.js';
import { commandName, SPAPR_CONTAINER } from '../../../core/uapi/lookup.js';
import type { Call } from '../../call.js';
import { containerOf } from '../containers.js';
import { smallFact } from '../facts.js';
import { happenedUnseen, takeStruct } from '../payload.js';
import { refuse, type Rule } from '../rules.js';
import type { SpaprBackend } from '../state.js';
import {
  IOMMU_DISABLE,
  IOMMU_EEH_PE_OP,
  IOMMU_ENABLE,
  IOMMU_GET_INFO,
  IOMMU_MAP_DMA,
  IOMMU_SPAPR_REGISTER_MEMORY,
  IOMMU_SPAPR_TCE_CREATE,
  IOMMU_SPAPR_TCE_REMOVE,
  IOMMU_SPAPR_UNREGISTER_MEMORY,
  IOMMU_UNMAP_DMA,
} from '../uapi.js';
import { EEH_KEY, notTold, patchSpapr, spaprKey, spaprOf } from './backend.js';
import { registerMemory, unregisterMemory } from './memory.js';
import { createWindow, mapDma, removeWindow, unmapDma } from './windows.js';

/**
 * Containers of POWER machines (drivers/vfio/vfio_iommu_spapr_tce.c).
 *
 * v1 has one group and its default window for DMA, of 32 bits, and counts all of it as locked by ENABLE; MAP pins the pages.
 * v2 has windows that come and go, and memory that is registered, which pins it, before it can be mapped. A container
 * belongs to the address space that used it first; all others get EPERM. Which windows the hardware can have, and what
 * became of a device in error recovery (EEH), is the machine's.
 */
export const SPAPR_RULES = {
  otherSpace: { id: 'spapr.other-space', errno: 'EPERM', text: 'another address space has used the container first' },
  unknownCommand: { id: 'spapr.unknown-command', errno: 'ENOTTY', text: 'v1 or v2 of the backend has no such command' },
  infoArgsz: { id: 'spapr-info.argsz', errno: 'EINVAL', text: 'argsz is less than 16' },
  enabled: { id: 'spapr-enable.again', errno: 'EBUSY', text: 'the container is enabled already' },
  noWindow: { id: 'spapr-enable.no-window', errno: 'EPERM', text: 'the group has no default window' },
  noEeh: { id: 'eeh.none', errno: 'ENODEV', text: 'the machine has no EEH' },
  eehArgsz: { id: 'eeh.argsz', errno: 'EINVAL', text: 'argsz is less than 12, or a flag is set' },
  eehOp: { id: 'eeh.op', errno: 'EINVAL', text: 'no such operation' },
} as const satisfies Record<string, Rule>;

const R = SPAPR_RULES;
const INFO_BYTES = 16;
const INFO_DDW_BYTES = 32;
const FLAG_DDW = 1;
const EEH_BYTES = 12;
const EEH_LAST_OP = 9;
const EEH_INJECT_BYTES = 40;

/** A command on a container whose backend is sPAPR TCE. */
export function spaprIoctl(call: Call, spapr: SpaprBackend): void {
  const { request } = call.event as IoctlEvent;
  call.kind = SPAPR_CONTAINER;
  call.name = commandName(SPAPR_CONTAINER, request);
  if (spapr.space !== 0 && spapr.space !== call.process.space && refuse(call, R.otherSpace)) return;
  if (!command(call, spapr, request)) refuse(call, R.unknownCommand);
  else if (CHANGES.includes(request) && call.struct.length < REMOVE_BYTES && happenedUnseen(call))
    patchSpapr(call, { enabled: true, unknownSince: call.event.seq });
}

/** What these did cannot be known without their structs. */
const CHANGES: readonly number[] = [
  IOMMU_SPAPR_REGISTER_MEMORY,
  IOMMU_SPAPR_UNREGISTER_MEMORY,
  IOMMU_SPAPR_TCE_CREATE,
  IOMMU_SPAPR_TCE_REMOVE,
];
const REMOVE_BYTES = 16;

/** False when the backend does not know the command. */
function command(call: Call, spapr: SpaprBackend, request: number): boolean {
  const both = BOTH[request];
  const own = both ?? (spapr.v2 ? V2[request] : V1[request]);
  own?.(call, spapr);
  return own !== undefined;
}

type Handlers = Readonly<Record<number, (call: Call, spapr: SpaprBackend) => void>>;

const BOTH: Handlers = {
  [IOMMU_GET_INFO]: getInfo,
  [IOMMU_MAP_DMA]: mapDma,
  [IOMMU_UNMAP_DMA]: unmapDma,
  [IOMMU_EEH_PE_OP]: eehOp,
};

const V1: Handlers = { [IOMMU_ENABLE]: enable, [IOMMU_DISABLE]: disable };

const V2: Handlers = {
  [IOMMU_SPAPR_REGISTER_MEMORY]: (call) => claimed(call, registerMemory),
  [IOMMU_SPAPR_UNREGISTER_MEMORY]: unregisterMemory,
  [IOMMU_SPAPR_TCE_CREATE]: (call) => claimed(call, createWindow),
  [IOMMU_SPAPR_TCE_REMOVE]: (call) => claimed(call, removeWindow),
};

/** The first of these calls makes the container its address space's, however the call ends. */
function claimed(call: Call, handler: (call: Call, spapr: SpaprBackend) => void): void {
  patchSpapr(call, { space: call.process.space });
  handler(call, spaprOf(call));
}

// ---- GET_INFO ----------------------------------------------------------------------------------------------

/** Struct: argsz 0, flags 4, dma32_window_start 8, dma32_window_size 12, ddw 16 (pgsizes, windows 24, levels 28). */
function getInfo(call: Call, spapr: SpaprBackend): void {
  const struct = takeStruct(call, INFO_BYTES, R.infoArgsz);
  if (struct === undefined) return;
  if (!call.succeed('spapr-info.ok')) return;
  const { groups } = containerOf(call);
  const whole = struct.u32(0) >= INFO_DDW_BYTES;
  call.extentBytes = whole ? INFO_DDW_BYTES : INFO_BYTES;
  call.out32(4, spapr.v2 ? FLAG_DDW : 0, 'flags');
  call.learn32(8, spaprKey(groups, 'window_start'), 'dma32_window_start');
  call.learn32(12, spaprKey(groups, 'window_size'), 'dma32_window_size');
  if (!whole) return;
  const at = add(call.arg, INFO_BYTES);
  const bytes = INFO_DDW_BYTES - INFO_BYTES;
  if (spapr.v2) call.learnBytes(at, bytes, spaprKey(groups, 'dynamic_windows'), 'ddw');
  else call.outBytes(at, new Bytes(new Uint8Array(bytes)), 'ddw');
}

// ---- ENABLE and DISABLE (v1) -------------------------------------------------------------------------------

function enable(call: Call, spapr: SpaprBackend): void {
  if (spapr.enabled && refuse(call, R.enabled)) return;
  if (smallFact(call.tx, spaprKey(containerOf(call).groups, 'window_size')) === 0 && refuse(call, R.noWindow)) return;
  if (call.succeed('spapr-enable.ok')) patchSpapr(call, { enabled: true, space: call.process.space });
}

function disable(call: Call): void {
  if (call.succeed('spapr-disable.ok')) patchSpapr(call, { enabled: false });
}

// ---- EEH ---------------------------------------------------------------------------------------------------

/** Struct: argsz 0, flags 4, op 8, then for INJECT_ERR what to inject. */
function eehOp(call: Call): void {
  const eeh = smallFact(call.tx, EEH_KEY);
  if (eeh === 0 && refuse(call, R.noEeh)) return;
  if (eeh === undefined) call.unknown(notTold('whether the machine has EEH', 'CHECK_EXTENSION of VFIO_EEH'));
  const struct = takeStruct(call, EEH_BYTES, R.eehArgsz);
  if (struct === undefined) return;
  call.extentBytes = EEH_BYTES;
  if (struct.u32(4) !== 0 && refuse(call, R.eehArgsz)) return;
  const op = struct.u32(8);
  if (op > EEH_LAST_OP && refuse(call, R.eehOp)) return;
  if (op === EEH_LAST_OP && struct.u32(0) < EEH_INJECT_BYTES && refuse(call, R.eehArgsz)) return;
  call.unknown('what state the device is in, and what the firmware does about it');
}
