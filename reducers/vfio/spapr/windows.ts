import { rangeAt } from '../../../core/interval.js';
import { add, lastOf, modPow2, sub, type U64 } from '../../../core/u64.js';
import { Bytes } from '../../../core/bytes.js';
import { find } from '../../answer.js';
import type { Call } from '../../call.js';
import { probePin } from '../../memory/pin.js';
import { containerOf } from '../containers.js';
import { smallFact } from '../facts.js';
import { takeStruct } from '../payload.js';
import { refuse, type Rule } from '../rules.js';
import type { SpaprBackend, SpaprWindow } from '../state.js';
import { MAP_READ, MAP_WRITE } from '../uapi.js';
import { lacks, notTold, patchSpapr, spaprKey, spaprOf } from './backend.js';

/**
 * DMA windows of a sPAPR container (MAP_DMA, UNMAP_DMA, SPAPR_TCE_CREATE, SPAPR_TCE_REMOVE).
 *
 * A container has room for two. The default one, of 4 KiB pages from 0 on, is made by the first call that looks for a
 * window, unless REMOVE has waived it before. How large it is GET_INFO tells. MAP enters pages one by one over whatever was
 * there; an IOVA that is not aligned, or for UNMAP a range that leaves its window, makes the call return 1, an
 * oddity of the kernel's. Structs: map argsz 0, flags 4, vaddr 8, iova 16, size 24; unmap argsz 0, flags 4, iova 8, size 16;
 * create argsz 0, flags 4, page_shift 8, window_size 16, levels 24, start_addr 32; remove argsz 0, flags 4, start_addr 8.
 */
export const SPAPR_WINDOW_RULES = {
  disabled: {
    id: 'spapr-map.disabled',
    errno: 'EPERM',
    text: 'v1: the container is not enabled; v2: no memory was registered',
  },
  argsz: { id: 'spapr-map.argsz', errno: 'EINVAL', text: 'argsz is too small, or a flag unknown' },
  noWindow: { id: 'spapr-map.window', errno: 'ENXIO', text: 'the IOVA is in no window' },
  aligned: { id: 'spapr-map.aligned', errno: 'EINVAL', text: 'vaddr or size is no multiple of the page of the window' },
  access: { id: 'spapr-map.access', errno: 'EINVAL', text: 'neither READ nor WRITE' },
  pin: { id: 'spapr-map.pin', errno: 'EFAULT', text: 'v1: memory in the range cannot be pinned' },
  registered: { id: 'spapr-map.registered', errno: 'EINVAL', text: 'v2: memory in the range is not registered' },
  createArgsz: { id: 'spapr-create.argsz', errno: 'EINVAL', text: 'argsz is less than 40, or a flag is set' },
  full: { id: 'spapr-create.full', errno: 'ENOSPC', text: 'the container has two windows' },
  pageShift: { id: 'spapr-create.page-shift', errno: 'EINVAL', text: 'the hardware has no pages of that size' },
  removeArgsz: { id: 'spapr-remove.argsz', errno: 'EINVAL', text: 'argsz is less than 16, or a flag is set' },
  removeNone: { id: 'spapr-remove.none', errno: 'EINVAL', text: 'no window is at the address' },
} as const satisfies Record<string, Rule>;

const R = SPAPR_WINDOW_RULES;
const MAP_BYTES = 32;
const UNMAP_BYTES = 24;
const CREATE_BYTES = 40;
const REMOVE_BYTES = 16;
const DEFAULT_PAGE_SHIFT = 12;
/** What the check of an IOVA returns, where the kernel means an error. */
const ODD_FAILURE = 1;

// ---- MAP and UNMAP -----------------------------------------------------------------------------------------

export function mapDma(call: Call, spapr: SpaprBackend): void {
  if (!spapr.enabled && lacks(call, R.disabled)) return;
  const struct = takeStruct(call, MAP_BYTES, R.argsz);
  if (struct === undefined) return;
  call.extentBytes = MAP_BYTES;
  const flags = struct.u32(4);
  if ((flags & ~(MAP_READ | MAP_WRITE)) !== 0 && refuse(call, R.argsz)) return;
  const [vaddr, iova, size] = [struct.u64(8), struct.u64(16), struct.u64(24)];
  const window = windowFor(call, iova);
  if (window === undefined) return;
  const page = 2 ** window.pageShift;
  if (modPow2(vaddr, page) + modPow2(size, page) !== 0 && refuse(call, R.aligned)) return;
  if ((flags & (MAP_READ | MAP_WRITE)) === 0 && refuse(call, R.access)) return;
  if (modPow2(iova, page) !== 0) {
    call.succeed('spapr-map.iova-check', ODD_FAILURE);
    return;
  }
  if (size !== 0 && memoryRefused(call, spapr, vaddr, size, (flags & MAP_WRITE) !== 0)) return;
  if (leaves(window, iova, size)) call.unknown('what the hardware does with pages beyond the window');
  call.succeed('spapr-map.ok');
}

function memoryRefused(call: Call, spapr: SpaprBackend, vaddr: U64, size: U64, write: boolean): boolean {
  const last = lastOf(vaddr, size);
  if (spapr.v2) {
    const region = rangeAt(spapr.registered, vaddr);
    if (region !== undefined && last !== undefined && region.last >= last) return false;
    // Another container may have registered the memory, and a range may go over the end of a region into the next.
    if (region === undefined && registeredElsewhere(call, vaddr) === undefined) return lacks(call, R.registered);
    call.unknown('memory that lies in several registered regions');
    return false;
  }
  if (last === undefined) return refuse(call, R.pin);
  const answer = probePin(call.tx, call.process.space, vaddr, last, { write, longterm: false, pfnmapOk: false });
  if (answer.kind === 'unknown') call.unknown(answer.why);
  return answer.kind === 'fault' && refuse(call, R.pin);
}

function registeredElsewhere(call: Call, vaddr: U64): number | undefined {
  for (const { id, spapr } of call.tx.world.containers.values())
    if (spapr?.space === call.process.space && rangeAt(spapr.registered, vaddr) !== undefined) return id;
  return undefined;
}

export function unmapDma(call: Call, spapr: SpaprBackend): void {
  if (!spapr.enabled && lacks(call, R.disabled)) return;
  const struct = takeStruct(call, UNMAP_BYTES, R.argsz);
  if (struct === undefined) return;
  call.extentBytes = UNMAP_BYTES;
  if (struct.u32(4) !== 0 && refuse(call, R.argsz)) return;
  const [iova, size] = [struct.u64(8), struct.u64(16)];
  const window = windowFor(call, iova);
  if (window === undefined) return;
  const page = 2 ** window.pageShift;
  if (modPow2(size, page) !== 0 && refuse(call, R.aligned)) return;
  if (modPow2(iova, page) !== 0 || leaves(window, iova, size)) call.succeed('spapr-unmap.iova-check', ODD_FAILURE);
  else call.succeed('spapr-unmap.ok');
}

/** The window that holds an IOVA, or undefined after a prediction was made. */
function windowFor(call: Call, iova: U64): SpaprWindow | undefined {
  makeDefault(call);
  const { windows } = spaprOf(call);
  const found = windows.find((window) => window !== null && iova >= window.start && !isBelow(window, iova));
  if (found !== undefined && found !== null && found.bytes !== null) return found;
  if (windows.some((window) => window?.bytes === null)) {
    call.unknown(notTold('how large the default window is', 'SPAPR_TCE_GET_INFO'));
    return undefined;
  }
  lacks(call, R.noWindow);
  return undefined;
}

/** Whether a window of known size ends below an address. */
function isBelow(window: SpaprWindow, iova: U64): boolean {
  return window.bytes !== null && sub(iova, window.start) >= window.bytes;
}

function leaves(window: SpaprWindow, iova: U64, size: U64): boolean {
  return window.bytes !== null && size > sub(window.bytes, sub(iova, window.start));
}

/** The default window comes into being with the first call that looks for one. */
function makeDefault(call: Call): void {
  const { defaultPending, windows } = spaprOf(call);
  if (!defaultPending) return;
  const bytes = smallFact(call.tx, spaprKey(containerOf(call).groups, 'window_size')) ?? null;
  const made: SpaprWindow = Object.freeze({ start: 0, bytes, pageShift: DEFAULT_PAGE_SHIFT });
  patchSpapr(call, { defaultPending: false, windows: withWindow(windows, windows.indexOf(null), made) });
}

function withWindow(
  windows: SpaprBackend['windows'],
  at: number,
  window: SpaprWindow | null,
): readonly (SpaprWindow | null)[] {
  return Object.freeze(windows.map((one, i) => (i === at ? window : one)));
}

// ---- windows that come and go (v2) --------------------------------------------------------------------------

export function createWindow(call: Call): void {
  const struct = takeStruct(call, CREATE_BYTES, R.createArgsz);
  if (struct === undefined) return;
  call.extentBytes = CREATE_BYTES;
  if (struct.u32(4) !== 0 && refuse(call, R.createArgsz)) return;
  makeDefault(call);
  const { windows } = spaprOf(call);
  const free = windows.indexOf(null);
  if (free < 0 && refuse(call, R.full)) return;
  const pageShift = struct.u32(8);
  if (hasPageSize(call, pageShift) === false && refuse(call, R.pageShift)) return;
  if (!call.unknown('what windows the hardware can have, and where')) return;
  const start = find(call.memOut, add(call.arg, 32), 8)?.u64(0);
  if (start === undefined || free < 0) return;
  const made: SpaprWindow = Object.freeze({ start, bytes: struct.u64(16), pageShift });
  patchSpapr(call, { windows: withWindow(windows, free, made) });
}

/** Whether the hardware has pages of that size, as GET_INFO told; undefined when it did not. */
function hasPageSize(call: Call, shift: number): boolean | undefined {
  const told = call.tx.world.facts.get(spaprKey(containerOf(call).groups, 'dynamic_windows'))?.value;
  if (!(told instanceof Bytes)) return undefined;
  // The kernel shifts by the lower bits of the number.
  return ((BigInt(told.u64(0)) >> BigInt(shift & 63)) & 1n) === 1n;
}

export function removeWindow(call: Call, spapr: SpaprBackend): void {
  const struct = takeStruct(call, REMOVE_BYTES, R.removeArgsz);
  if (struct === undefined) return;
  call.extentBytes = REMOVE_BYTES;
  if (struct.u32(4) !== 0 && refuse(call, R.removeArgsz)) return;
  const start = struct.u64(8);
  if (spapr.defaultPending && start === 0) {
    if (call.succeed('spapr-remove.waived')) patchSpapr(call, { defaultPending: false });
    return;
  }
  const at = spapr.windows.findIndex((window) => window !== null && start >= window.start && !isBelow(window, start));
  if (at < 0 && lacks(call, R.removeNone)) return;
  if (spapr.windows[at]?.bytes === null && start !== 0)
    call.unknown(notTold('how large the default window is', 'SPAPR_TCE_GET_INFO'));
  if (call.succeed('spapr-remove.ok')) patchSpapr(call, { windows: withWindow(spapr.windows, at, null) });
}
