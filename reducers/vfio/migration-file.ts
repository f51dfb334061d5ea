import { Bytes } from '../../core/bytes.js';
import type { IoctlEvent, IoEvent } from '../../core/event.js';
import type { Call } from '../call.js';
import {
  MTTY_HEADER_BYTES,
  mttyDataBytes,
  mttyHeaderPorts,
  mttyHeaderValid,
  mttyPortCounts,
  portsBytes,
} from '../devices/vfio-mtty.js';
import type { FileFamily } from '../family.js';
import { stateName } from './device/explain.js';
import { portsOf, teachPorts } from './device/region.js';
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
 * time is known of mtty: a header of 24 bytes from the beginning, and the ports once the device is in STOP_COPY. Where the
 * number of its ports is not known and decides about an answer, the answer tells it.
 *
 * The driver holds a reference of its own until the device leaves the transfer: a user who closes the fd ends nothing.
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
const PORTS_OPEN = 'how many ports the mtty has was not shown yet';
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
  else read(call, event, file, device);
}

function foreignIo(call: Call, file: MigrationFile): void {
  if (file.disabled && refuse(call, R.disabled)) return;
  // Between an interface and its data there is no rule: any count up to the one asked for is right.
  call.unknown(NOT_MTTY);
}

function read(call: Call, event: IoEvent, file: MigrationFile, device: VfioDevice): void {
  if (file.disabled && refuse(call, R.disabled)) return;
  const counts = mttyPortCounts(portsOf(call, device)).map((ports) => {
    const left = Math.max(0, file.filledBytes + (file.hasPorts ? portsBytes(ports) : 0) - file.positionBytes);
    return event.lengthBytes < left ? Number(event.lengthBytes) : left;
  });
  const count = counts[0] as number;
  const many = counts[1] ?? count;
  if (count === many) call.succeed('mig-file.read', count);
  else call.succeedUnlessLearned('mig-file.read', count, (ret) => ret === many);
  const told = call.recordedRet ?? count;
  if (told === -1) return;
  if (count !== many && (told === count || told === many)) teachPorts(call, device, told === count ? 1 : 2);
  readHeader(call, event, file, device);
  put(call, file, { positionBytes: file.positionBytes + Number(told) });
}

/** The header that mtty offers names its ports, which is worth knowing when the recording holds these bytes. */
function readHeader(call: Call, event: IoEvent, file: MigrationFile, device: VfioDevice): void {
  if (file.positionBytes !== 0 || portsOf(call, device) !== undefined) return;
  if (!event.data.has(0, MTTY_HEADER_BYTES)) return;
  const ports = mttyHeaderPorts(event.data);
  if (mttyPortCounts(undefined).includes(ports)) teachPorts(call, device, ports);
}

function write(call: Call, event: IoEvent, file: MigrationFile, device: VfioDevice): void {
  const counts = mttyPortCounts(portsOf(call, device));
  const count = Number(event.lengthBytes);
  const end = file.positionBytes + count;
  const takers = counts.filter((ports) => end <= mttyDataBytes(ports));
  if (takers.length === 0 && refuse(call, R.tooMuch)) return;
  if (takers.length === 1 && counts.length > 1 && call.failedByFact('ENOMEM', PORTS_OPEN))
    return teachPorts(call, device, 1);
  if (file.disabled && refuse(call, R.disabled)) return;
  const header = joinHeader(file.header, event.data, count);
  const written = { positionBytes: end, filledBytes: file.filledBytes + count, header: header ?? file.header };
  if (file.filledBytes < MTTY_HEADER_BYTES && end >= MTTY_HEADER_BYTES) {
    if (header === undefined) call.unknown('the data written is not in the recording');
    else if (headerRefused(call, header, device, takers)) return put(call, file, written);
  }
  if (!call.succeed('mig-file.write', count)) return;
  put(call, file, written);
  if (takers.length === 1) teachPorts(call, device, takers[0] as number);
}

/** The driver compares a header when it is whole, and keeps one that it does not like. True: the call ends here. */
function headerRefused(call: Call, header: Bytes, device: VfioDevice, counts: readonly number[]): boolean {
  const fits = counts.filter((ports) => mttyHeaderValid(header, ports));
  if (fits.length === 0) return refuse(call, R.header);
  const ports = fits[0] as number;
  if (counts.length === 1) return false;
  if (!call.failedByFact('EFAULT', PORTS_OPEN)) {
    teachPorts(call, device, ports);
    return false;
  }
  teachPorts(call, device, counts.find((other) => other !== ports) as number);
  return true;
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

/** Which transfer the file is of, how far it is, and where its device is. */
function transferText(call: Call): string {
  const file = fileOf(call);
  if (file === undefined) return '';
  const state = call.tx.world.devices.get(file.device)?.migration.state ?? -1;
  const of = file.direction === 'save' ? 'saves' : 'resumes';
  return `the file ${of} ${file.device}, which is in ${stateName(state)}; position ${file.positionBytes}`;
}

export const migrationFamily: FileFamily = {
  ioctl,
  io,
  countsIo: true,
  explain: (call) => ({ text: call.predictedErrno === '' ? '' : transferText(call) }),
  release(tx, { object }) {
    const file = tx.world.migrations.get(object);
    if (file === undefined) return;
    const { saving, resuming } = tx.world.devices.get(file.device)?.migration ?? {};
    if (object === saving || object === resuming)
      tx.world.migrations.set(object, Object.freeze({ ...file, fdOpen: false }));
    else tx.world.migrations.delete(object);
  },
};
