import { Bytes } from '../../core/bytes.js';
import type { IoctlEvent, IoEvent } from '../../core/event.js';
import type { Call } from '../call.js';
import { MTTY_HEADER_BYTES, mttyDataBytes, mttyHeaderValid } from '../devices/vfio-mtty.js';
import type { FileFamily } from '../family.js';
import { portsOf } from './device/region.js';
import { STATE_PRE_COPY, STATE_PRE_COPY_P2P } from './device/migration-fsm.js';
import { takeStruct } from './payload.js';
import { refuse, type Rule } from './rules.js';
import type { MigrationFile, VfioDevice } from './state.js';
import { MIG_GET_PRECOPY_INFO } from './uapi.js';

/**
 * Migration data fds (linux/vfio.h; samples/vfio-mdev/mtty.c for what a driver does with them).
 *
 * A file is for one transfer in one direction: reading while saving, writing while resuming. It is a stream, so there is
 * no positioned access. Once the device has left the transfer, every access fails. How much data there is at a
 * time is known of mtty: a header of 24 bytes from the beginning, and the ports once the device is in STOP_COPY.
 * VFIO_MIG_GET_PRECOPY_INFO: argsz 0, flags 4, initial_bytes 8, dirty_bytes 16.
 */
export const MIGRATION_FILE_RULES = {
  direction: { id: 'mig-file.direction', errno: 'EBADF', text: 'a read while resuming, or a write while saving' },
  positioned: { id: 'mig-file.positioned', errno: 'ESPIPE', text: 'pread or pwrite' },
  disabled: { id: 'mig-file.disabled', errno: 'ENODEV', text: 'the device has left the transfer' },
  header: { id: 'mig-file.header', errno: 'EFAULT', text: 'mtty: the header that was written is not its own' },
  tooMuch: { id: 'mig-file.too-much', errno: 'ENOMEM', text: 'mtty: more is written than its state has bytes' },
  command: { id: 'mig-file.command', errno: 'ENOTTY', text: 'the number is no command of a saving file' },
  argsz: { id: 'precopy-info.argsz', errno: 'EINVAL', text: 'argsz is less than 24' },
  notPreCopy: { id: 'precopy-info.state', errno: 'EINVAL', text: 'the device is in neither of the PRE_COPY states' },
} as const satisfies Record<string, Rule>;

const R = MIGRATION_FILE_RULES;
const NO_PAST = 'what happened to the migration file before is not in the recording';
const NOT_MTTY = 'how much data the device has is its own affair';

function fileOf(call: Call): MigrationFile | undefined {
  return call.tx.world.migrations.get(call.file.object);
}

function put(call: Call, file: MigrationFile, patch: Partial<MigrationFile>): void {
  call.tx.world.migrations.set(file.id, Object.freeze({ ...file, ...patch }));
}

// ---- read and write ----------------------------------------------------------------------------------------

function io(call: Call): void {
  const event = call.event as IoEvent;
  const file = fileOf(call);
  if (file === undefined) {
    call.unknown(NO_PAST);
    return;
  }
  const writes = event.call.includes('write');
  const wrongWay = writes !== (file.direction === 'resume');
  if (event.offset !== null && refuse(call, R.positioned)) return;
  if (wrongWay && refuse(call, R.direction)) return;
  const device = call.tx.world.devices.get(file.device);
  if (device?.driver !== 'mtty') return foreignIo(call, file);
  if (writes) write(call, event, file, device);
  else read(call, event, file);
}

function foreignIo(call: Call, file: MigrationFile): void {
  if (file.disabled && refuse(call, R.disabled)) return;
  // Between an interface and its data there is no rule: any count up to the one asked for is right.
  call.unknown(NOT_MTTY);
}

function read(call: Call, event: IoEvent, file: MigrationFile): void {
  if (file.disabled && refuse(call, R.disabled)) return;
  const left = Math.max(0, file.filledBytes - file.positionBytes);
  const count = event.lengthBytes < left ? Number(event.lengthBytes) : left;
  if (!call.succeed('mig-file.read', count)) return;
  put(call, file, { positionBytes: file.positionBytes + Number(call.recordedRet ?? count) });
}

function write(call: Call, event: IoEvent, file: MigrationFile, device: VfioDevice): void {
  const ports = portsOf(call, device);
  const count = Number(event.lengthBytes);
  const end = file.positionBytes + count;
  if (end > mttyDataBytes(ports ?? 2) && refuse(call, R.tooMuch)) return;
  if (file.disabled && refuse(call, R.disabled)) return;
  const header = joinHeader(file.header, event.data, count);
  const written = { positionBytes: end, filledBytes: file.filledBytes + count, header: header ?? file.header };
  const completes = file.filledBytes < MTTY_HEADER_BYTES && end >= MTTY_HEADER_BYTES;
  if (completes && header === undefined) call.unknown('the data written is not in the recording');
  if (completes && header !== undefined && !mttyHeaderValid(header, ports)) {
    const stop = refuse(call, R.header);
    put(call, file, written);
    if (stop) return;
  }
  if (call.succeed('mig-file.write', count)) put(call, file, written);
}

/** The first bytes of the stream with these added; undefined when the recording lacks some of them. */
function joinHeader(before: Bytes, data: Bytes, count: number): Bytes | undefined {
  const wanted = Math.min(MTTY_HEADER_BYTES - before.length, count);
  if (wanted <= 0) return before;
  if (!data.has(0, wanted)) return undefined;
  const joined = new Uint8Array(before.length + wanted);
  before.copyTo(joined, 0);
  data.slice(0, wanted).copyTo(joined, before.length);
  return new Bytes(joined);
}

// ---- VFIO_MIG_GET_PRECOPY_INFO -----------------------------------------------------------------------------

function ioctl(call: Call): void {
  const file = fileOf(call);
  const command = (call.event as IoctlEvent).request;
  if (file === undefined) {
    call.unknown(NO_PAST);
    return;
  }
  if ((file.direction === 'resume' || command !== MIG_GET_PRECOPY_INFO) && refuse(call, R.command)) return;
  if (takeStruct(call, 24, R.argsz) === undefined) return;
  const device = call.tx.world.devices.get(file.device);
  if (device?.driver !== 'mtty') {
    call.unknown(NOT_MTTY);
    return;
  }
  const { state, precopyV2 } = device.migration;
  if (state !== STATE_PRE_COPY && state !== STATE_PRE_COPY_P2P && refuse(call, R.notPreCopy)) return;
  if (file.disabled && refuse(call, R.disabled)) return;
  if (!call.succeed('precopy-info.ok')) return;
  call.extentBytes = 24;
  if (precopyV2) call.out32(4, 0, 'flags');
  call.out64(8, Math.max(0, file.filledBytes - file.positionBytes), 'initial_bytes');
  call.out64(16, 0, 'dirty_bytes');
}

export const migrationFamily: FileFamily = {
  ioctl,
  io,
  countsIo: true,
  release(tx, file) {
    tx.world.migrations.delete(file.object);
  },
};
