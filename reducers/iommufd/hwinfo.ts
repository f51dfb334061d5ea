import { Bytes, putU32 } from '../../core/bytes.js';
import { add } from '../../core/u64.js';
import type { Call } from '../call.js';
import { MAY_BE_MEDIATED, mayBeMediated } from './attach.js';
import { lookup } from './context.js';
import {
  driverOf,
  driverOfInfo,
  INFO_SMMUV3,
  INFO_TEGRA,
  type IommuDriver,
  needs,
  type Support,
  tellDriver,
} from './hardware.js';
import type { Rule } from './rules.js';
import type { BoundDevice } from './state.js';
import { probeBuffer } from './user-buffer.js';

/**
 * GET_HW_INFO (drivers/iommu/iommufd/device.c): what the IOMMU of a bound device can do.
 *
 * The driver's struct is copied as far as the caller's buffer goes, the rest of the buffer is zeroed, and the full
 * length is told. Of real hardware all of this is learned once per device; the mock device's is known. Of a
 * shorter struct the last field is written as far as it reaches.
 */
export const HW_INFO_RULES: readonly Rule[] = [
  { id: 'hw-info.flags', errno: 'EOPNOTSUPP', text: 'an unknown flag is set' },
  { id: 'hw-info.reserved', errno: 'EOPNOTSUPP', text: 'a reserved byte is not 0' },
  { id: 'hw-info.device', errno: 'ENOENT', text: 'no device has the id' },
  { id: 'hw-info.type', errno: 'EOPNOTSUPP', text: 'the driver has no data of the type asked for' },
  { id: 'hw-info.fault', errno: 'EFAULT', text: 'the buffer cannot be written' },
  { id: 'hw-info.ok', errno: '', text: 'the data is told' },
];

const INPUT_TYPE = 1;
const TYPE_DEFAULT = 0;
const TYPE_SELFTEST = 0xfeedbeef;
const SELFTEST_BYTES = 8;
const SELFTEST_REGISTER = 0xdeadbeef;
const CAP_DIRTY_TRACKING = 1;
const CAP_NO_ATS = 8;
const PASID_BITS = 20;

const OUT_DATA_LENGTH = 12;
const OUT_DATA_TYPE = 24;
const OUT_MAX_PASID_LOG2 = 28;
const OUT_CAPABILITIES = 32;
const CAPABILITIES_BYTES = 8;

export function getHwInfo(call: Call): void {
  const s = call.struct;
  const flags = s.u32(4);
  if ((flags & ~INPUT_TYPE) !== 0 && call.fail('EOPNOTSUPP', 'hw-info.flags')) return;
  if ((s.u8(29) | s.u8(30) | s.u8(31)) !== 0 && call.fail('EOPNOTSUPP', 'hw-info.reserved')) return;
  const device = lookup(call, s.u32(8), 'device', 'hw-info.device');
  if (device === undefined) return;
  if (mayBeMediated(call.tx, device) && call.failedByFact('ENOENT', MAY_BE_MEDIATED)) return;
  const type = flags & INPUT_TYPE ? s.u32(24) : TYPE_DEFAULT;
  if (device.mock !== null) mockInfo(call, device, type);
  else realInfo(call, device, type);
}

function mockInfo(call: Call, device: BoundDevice, type: number): void {
  const s = call.struct;
  if (type !== TYPE_DEFAULT && type !== TYPE_SELFTEST && call.fail('EOPNOTSUPP', 'hw-info.type')) return;
  const room = s.u32(OUT_DATA_LENGTH);
  const buffer = s.u64(16);
  if (probeBuffer(call, buffer, room, true) === 'fault' && call.fail('EFAULT', 'hw-info.fault')) return;
  if (!call.succeed('hw-info.ok')) return;
  const data = new Uint8Array(SELFTEST_BYTES);
  putU32(data, 4, SELFTEST_REGISTER);
  writeData(call, new Bytes(data), room);
  call.out32(OUT_DATA_LENGTH, SELFTEST_BYTES, 'data_len');
  call.out32(OUT_DATA_TYPE, TYPE_SELFTEST, 'out_data_type');
  const pasidLog2 = device.mock?.pasid ? PASID_BITS : 0;
  call.outBytes(add(call.arg, OUT_MAX_PASID_LOG2), new Bytes(Uint8Array.of(pasidLog2)), 'out_max_pasid_log2');
  const capabilities = new Uint8Array(CAPABILITIES_BYTES);
  putU32(capabilities, 0, (device.mock?.noDirty ? 0 : CAP_DIRTY_TRACKING) | CAP_NO_ATS);
  const told = toldCapabilities(call);
  if (told > 0) call.outBytes(add(call.arg, OUT_CAPABILITIES), new Bytes(capabilities, 0, told), 'out_capabilities');
}

/** How many bytes of the last field the caller's struct has; the kernel writes as much of it. */
function toldCapabilities(call: Call): number {
  return Math.max(0, Math.min(CAPABILITIES_BYTES, call.extentBytes - OUT_CAPABILITIES));
}

/** The driver's bytes, cut to the room, then zeroes as far as the recording can show them. */
function writeData(call: Call, data: Bytes, room: number): void {
  const buffer = call.struct.u64(16);
  const copied = Math.min(room, data.length);
  if (copied > 0) call.outBytes(buffer, data.slice(0, copied), 'data_uptr');
  const shown = call.memOut.find((note) => note.addr === buffer)?.bytes.length ?? 0;
  const zeroed = Math.min(room, shown) - copied;
  if (zeroed > 0) call.outBytes(add(buffer, copied), new Bytes(new Uint8Array(zeroed)), 'data_uptr');
}

/**
 * A driver knows the type of its own data, and Tegra's CMDQV one more beside that of its SMMUv3; drivers without data take
 * any type and give none.
 */
function knowsType(driver: IommuDriver, type: number): Support {
  switch (driver) {
    case 'unknown':
      return undefined;
    case 'other':
      return true;
    case 'smmuv3':
      return type === INFO_SMMUV3 || (type === INFO_TEGRA ? undefined : false);
    default:
      return driverOfInfo(type) === driver;
  }
}

function realInfo(call: Call, device: BoundDevice, type: number): void {
  const driver = driverOf(call.tx, device);
  const what = `hardware info of type ${type}`;
  if (type !== TYPE_DEFAULT) {
    const knows = knowsType(driver, type);
    if (needs(call, device.key, what, knows, 'EOPNOTSUPP', 'hw-info.type')) return;
  }
  const room = call.struct.u32(OUT_DATA_LENGTH);
  const buffer = call.struct.u64(16);
  if (probeBuffer(call, buffer, room, true) === 'fault' && call.fail('EFAULT', 'hw-info.fault')) return;
  if (!call.succeed('hw-info.ok')) return;
  const key = `iommu/${device.key}`;
  call.learnBytes(add(call.arg, OUT_MAX_PASID_LOG2), 1, `${key}/max_pasid_log2`, 'out_max_pasid_log2');
  learnCapabilities(call, key);
  const second = type === INFO_TEGRA;
  if (second) call.out32(OUT_DATA_TYPE, INFO_TEGRA, 'out_data_type');
  else {
    const told = call.learn32(OUT_DATA_TYPE, `${key}/hw_info_type`, 'out_data_type');
    if (told !== undefined) tellDriver(call, driverOfInfo(told));
  }
  const full = call.learn32(OUT_DATA_LENGTH, `${key}/hw_info_bytes${second ? `_${type}` : ''}`, 'data_len');
  learnData(call, `${key}/hw_info/${second ? `${type}-` : ''}`, full, room);
}

function learnCapabilities(call: Call, key: string): void {
  const told = toldCapabilities(call);
  const known = call.tx.world.facts.get(`${key}/capabilities`)?.value;
  const at = add(call.arg, OUT_CAPABILITIES);
  if (told === CAPABILITIES_BYTES) call.learn64(OUT_CAPABILITIES, `${key}/capabilities`, 'out_capabilities');
  else if (told > 0 && known instanceof Bytes) call.outBytes(at, known.slice(0, told), 'out_capabilities');
  else if (told > 0) call.outUnknown(at, told, 'a part of the capabilities');
}

/** The driver's bytes as far as there is room, then zeroes as far as the recording can show them. */
function learnData(call: Call, key: string, full: number | undefined, room: number): void {
  if (full === undefined) return;
  const whole = call.tx.world.facts.get(`${key}${full}`)?.value;
  if (whole instanceof Bytes && whole.length === full) {
    writeData(call, whole, room);
    return;
  }
  const buffer = call.struct.u64(16);
  const copied = Math.min(room, full);
  if (copied > 0) call.learnBytes(buffer, copied, `${key}${copied}`, 'data_uptr');
  const shown = call.memOut.find((note) => note.addr === buffer)?.bytes.length ?? 0;
  const zeroed = Math.min(room, shown) - copied;
  if (zeroed > 0) call.outBytes(add(buffer, copied), new Bytes(new Uint8Array(zeroed)), 'data_uptr');
}
