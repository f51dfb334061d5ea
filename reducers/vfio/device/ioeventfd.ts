import { add, type U64 } from '../../../core/u64.js';
import type { Call } from '../../call.js';
import { deviceOf, patchDevice } from '../devices.js';
import { numberFact, teach } from '../facts.js';
import { fdUnknown, lookFd } from '../fd-look.js';
import { takeStruct } from '../payload.js';
import { refuse, type Rule } from '../rules.js';
import type { IoEventFd, VfioDevice } from '../state.js';
import { PCI_OFFSET_SHIFT, PCI_ROM_REGION } from '../uapi.js';
import { msixTable } from './config-space.js';
import { regionBytes, regionKey } from './region.js';
import { unknownSinceText } from '../../answer.js';

/**
 * VFIO_DEVICE_IOEVENTFD (`vfio_pci_ioctl_ioeventfd`, `vfio_pci_ioeventfd`): a write of fixed data into a BAR whenever
 * an eventfd is signalled. The same place, data and width can be registered once; fd -1 takes it away, and nothing else
 * does while the device is open: without its eventfd the entry stays. Struct: argsz 0, flags 4 (width in bytes), offset 8,
 * data 16, fd 24.
 */
export const IOEVENTFD_RULES = {
  argsz: { id: 'ioeventfd.argsz', errno: 'EINVAL', text: 'argsz is less than 28' },
  flags: { id: 'ioeventfd.flags', errno: 'EINVAL', text: 'not exactly one width of 1, 2, 4 or 8 bytes' },
  fd: { id: 'ioeventfd.fd', errno: 'EINVAL', text: 'the fd is less than -1' },
  notBar: { id: 'ioeventfd.not-a-bar', errno: 'EINVAL', text: 'the offset is in no BAR' },
  beyond: { id: 'ioeventfd.beyond', errno: 'EINVAL', text: 'the write ends beyond the BAR' },
  msix: { id: 'ioeventfd.msix', errno: 'EINVAL', text: 'the write touches the MSI-X table' },
  width: { id: 'ioeventfd.width', errno: 'EINVAL', text: 'writes of 8 bytes are not supported' },
  exists: { id: 'ioeventfd.exists', errno: 'EEXIST', text: 'the same write is registered' },
  missing: { id: 'ioeventfd.missing', errno: 'ENODEV', text: 'fd -1, and no such write is registered' },
  limit: { id: 'ioeventfd.limit', errno: 'ENOSPC', text: 'the device has 1000 of them' },
  badFd: { id: 'ioeventfd.bad-fd', errno: 'EBADF', text: 'the fd is not open' },
  notEventfd: { id: 'ioeventfd.not-eventfd', errno: 'EINVAL', text: 'the fd is no eventfd' },
} as const satisfies Record<string, Rule>;

const R = IOEVENTFD_RULES;
const STRUCT_BYTES = 28;
const MAX_PER_DEVICE = 1000;
const WIDEST = 8;
const WIDTHS: readonly number[] = [1, 2, 4, WIDEST];

export function ioeventfd(call: Call): void {
  const struct = takeStruct(call, STRUCT_BYTES, R.argsz);
  if (struct === undefined) return;
  const device = deviceOf(call);
  call.extentBytes = STRUCT_BYTES;
  const bytes = struct.u32(4);
  if (!WIDTHS.includes(bytes) && refuse(call, R.flags)) return;
  const fd = struct.s32(24);
  if (fd < -1 && refuse(call, R.fd)) return;
  const offset = BigInt(struct.u64(8));
  const bar = Number(offset >> BigInt(PCI_OFFSET_SHIFT));
  const pos = Number(offset & ((1n << BigInt(PCI_OFFSET_SHIFT)) - 1n));
  if (bar >= PCI_ROM_REGION && refuse(call, R.notBar)) return;
  if (placeRefused(call, device, bar, pos, bytes)) return;
  if (bytes === WIDEST && refuse(call, R.width)) return;
  if (device.unknownSince >= 0) {
    call.unknown(unknownSinceText('triggers of the device', device.unknownSince));
    return;
  }
  register(call, device, { bar, pos, data: struct.u64(16), bytes }, fd);
}

function placeRefused(call: Call, device: VfioDevice, bar: number, pos: number, bytes: number): boolean {
  const size = regionBytes(call, device, bar);
  const table = msixTable(call.tx, device);
  // Wherever it lies, a write of 8 bytes fails with the same error.
  if ((size === undefined || table === undefined) && bytes === WIDEST) return refuse(call, R.width);
  const end = add(pos, bytes);
  if (size === undefined ? endOpen(call, device, bar, end) : end > size && refuse(call, R.beyond)) return true;
  if (table === undefined) return call.failedByFact(R.msix.errno, 'where the MSI-X table lies is not in the recording');
  if (table === 'none' || table.bar !== bar) return false;
  const touches = pos + bytes > table.start && pos < table.start + table.bytes;
  return touches && refuse(call, R.msix);
}

/** Of a BAR whose size was not asked an answer tells how far it reaches. True: the prediction ends the call. */
function endOpen(call: Call, device: VfioDevice, bar: number, end: U64): boolean {
  const key = regionKey(device.name, bar, 'size_from');
  const reached = numberFact(call.tx, key) ?? 0;
  if (end <= reached) return false;
  const part = call.partByFact(R.beyond.errno, `the size of BAR ${bar} was not asked yet (GET_REGION_INFO)`);
  if (part === 'has') teach(call, key, end);
  return part === 'lacks';
}

function register(call: Call, device: VfioDevice, wanted: IoEventFd, fd: number): void {
  const entries = device.ioeventfds;
  const same = entries.find((one) => sameWrite(one, wanted));
  if (same !== undefined && fd !== -1 && refuse(call, R.exists)) return;
  if (same !== undefined) {
    if (call.succeed('ioeventfd.removed'))
      put(
        call,
        device,
        entries.filter((one) => one !== same),
      );
    return;
  }
  if (fd < 0 && refuse(call, R.missing)) return;
  if (entries.length >= MAX_PER_DEVICE && refuse(call, R.limit)) return;
  const file = lookFd(call, fd);
  if (file === 'unknown') {
    call.unknown(fdUnknown(fd));
    return;
  }
  if (file === 'none') {
    refuse(call, R.badFd);
    return;
  }
  if (file.kind !== 'eventfd' && refuse(call, R.notEventfd)) return;
  if (call.succeed('ioeventfd.ok')) put(call, device, [...entries, Object.freeze(wanted)]);
}

function sameWrite(one: IoEventFd, wanted: IoEventFd): boolean {
  return one.bar === wanted.bar && one.pos === wanted.pos && one.data === wanted.data && one.bytes === wanted.bytes;
}

function put(call: Call, device: VfioDevice, ioeventfds: readonly IoEventFd[]): void {
  patchDevice(call.tx, device.name, { ioeventfds: Object.freeze([...ioeventfds]) });
}
