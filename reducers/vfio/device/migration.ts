import { Bytes } from '../../../core/bytes.js';
import { add } from '../../../core/u64.js';
import { find } from '../../answer.js';
import type { Call } from '../../call.js';
import { MTTY_HEADER_BYTES, MTTY_MIGRATION_FLAGS, mttyDataBytes, mttyPortCounts } from '../../devices/vfio-mtty.js';
import { installFd } from '../../files/fds.js';
import { outFd } from '../../new-fd.js';
import { patchDevice, shutMigrationFiles, UNSEEN_FILE } from '../devices.js';
import { deviceKey, smallFact, teach } from '../facts.js';
import { refuse, type Rule } from '../rules.js';
import type { MigrationFile, VfioDevice } from '../state.js';
import {
  nextState,
  STATE_PRE_COPY,
  STATE_PRE_COPY_P2P,
  STATE_RESUMING,
  STATE_RUNNING,
  STATE_STOP_COPY,
} from './migration-fsm.js';
import { portsOf, teachPorts } from './region.js';

/**
 * Feature MIG_DEVICE_STATE (drivers/vfio/vfio_main.c, `vfio_ioctl_device_feature_mig_device_state`; the driver's
 * part after samples/vfio-mdev/mtty.c). Data: device_state 8, data_fd 12.
 *
 * The device walks state by state; where a step fails it stays in the state before. Entering RESUMING, or the saving group
 * from outside, makes a data fd, which the call returns; leaving them shuts it. data_fd comes back as -1 otherwise, also
 * when the call fails. Within the saving group the file stays, and STOP_COPY adds to it.
 *
 * Leaving RESUMING, mtty wants all of its state in the file that it made, whether or not the user still has an fd of it. A
 * device that was closed in RESUMING has no file any more and the state nevertheless; the driver then runs into a null
 * pointer, so that the call may have any outcome.
 */
export const MIG_STATE_RULES = {
  noWay: {
    id: 'mig-state.no-way',
    errno: 'EINVAL',
    text: 'the device does not have the state, or no sequence of arcs leads there from the state it is in',
  },
  incomplete: {
    id: 'mig-state.incomplete',
    errno: 'EINVAL',
    text: 'mtty leaves RESUMING only when all of its state was written',
  },
} as const satisfies Record<string, Rule>;

const R = MIG_STATE_RULES;
const STATE_OFFSET = 8;
const FD_OFFSET = 12;
const NO_FD = 0xffff_ffff;

/** What the device supports: by its driver, or as the recording told. */
export function migrationFlags(call: Call, device: VfioDevice): number | undefined {
  if (device.driver === 'mtty') return MTTY_MIGRATION_FLAGS;
  return smallFact(call.tx, deviceKey(device.name, 'migration_flags'));
}

export function getMigrationState(call: Call, device: VfioDevice): void {
  if (!call.succeed('mig-state.get')) return;
  call.extentBytes = 16;
  call.out32(FD_OFFSET, NO_FD, 'data_fd');
  const { state } = device.migration;
  if (state >= 0) {
    call.out32(STATE_OFFSET, state, 'device_state');
    return;
  }
  const told = find(call.memOut, add(call.arg, STATE_OFFSET), 4)?.u32(0);
  if (told === undefined) return;
  call.out32(STATE_OFFSET, told, 'device_state');
  teach(call, deviceKey(device.name, 'first_state'), told);
  changeState(call, device.name, told);
}

function changeState(call: Call, name: string, state: number): void {
  const device = call.tx.world.devices.get(name);
  if (device === undefined) return;
  const { migration } = device;
  // A data file that was not seen is there for sure in the states that have one, and in others not.
  const saving = migration.saving === UNSEEN_FILE && !isSaving(state) ? 0 : migration.saving;
  const resuming = migration.resuming === UNSEEN_FILE && state !== STATE_RESUMING ? 0 : migration.resuming;
  patchDevice(call.tx, name, { migration: Object.freeze({ ...migration, state, saving, resuming }) });
}

/** RESET: the device runs again, and its data fds are shut. */
export function resetMigration(call: Call, name: string): void {
  shutMigrationFiles(call.tx, name);
  changeState(call, name, STATE_RUNNING);
}

// ---- SET ---------------------------------------------------------------------------------------------------

export function setMigrationState(call: Call, device: VfioDevice): void {
  call.extentBytes = 16;
  const wanted = call.struct.u32(STATE_OFFSET);
  const flags = migrationFlags(call, device);
  if (device.migration.state < 0 || flags === undefined) {
    unknownState(call, device, wanted);
    return;
  }
  const steps = planSteps(device, flags, wanted);
  const written = steps.way.length === 0 ? 'enough' : writtenWhileResuming(call, device);
  if (written === 'no file' || written === 'unclear') {
    unclearEnd(call, device, steps, written);
    return;
  }
  const rule = written === 'too little' ? R.incomplete : steps.rule;
  const resumed = device.migration.state === STATE_RESUMING && steps.way.length > 0;
  if (rule === undefined && resumed && device.driver !== 'mtty' && failsInDriver(call)) return;
  if (rule === undefined && steps.opens !== 0) outFd(call, FD_OFFSET, 'data_fd');
  else call.out32(FD_OFFSET, NO_FD, 'data_fd');
  if (rule !== undefined && refuse(call, rule)) return;
  if (!call.succeed('mig-state.set')) return;
  walk(call, device, rule === undefined ? steps.way : [wanted]);
  enterFd(call, device.name);
}

function unknownState(call: Call, device: VfioDevice, wanted: number): void {
  if (!unknownSet(call, 'the migration state of the device was not asked yet (GET of MIG_DEVICE_STATE)')) return;
  changeState(call, device.name, wanted);
  if (toldFd(call) === undefined) return;
  openFile(call, device, wanted === STATE_RESUMING ? 'resume' : 'save', wanted);
  enterFd(call, device.name);
}

/** A SET whose outcome is not known. Whether it made a data fd is not known either, also where success is known. */
function unknownSet(call: Call, reason: string): boolean {
  call.outUnknown(add(call.arg, FD_OFFSET), 4, reason);
  return call.unknown(reason);
}

/** What a driver other than mtty finds in the data it was given is its own affair. */
function failsInDriver(call: Call): boolean {
  if (!call.failedByFact('EINVAL', 'what the driver says to the data of RESUMING is its own affair')) return false;
  call.out32(FD_OFFSET, NO_FD, 'data_fd');
  return true;
}

type Written = 'enough' | 'too little' | 'no file' | 'unclear';

/** Whether a device may leave RESUMING: mtty checks how much was written, other drivers are taken to be content. */
function writtenWhileResuming(call: Call, device: VfioDevice): Written {
  if (device.driver !== 'mtty' || device.migration.state !== STATE_RESUMING) return 'enough';
  const file = call.tx.world.migrations.get(device.migration.resuming);
  if (file === undefined) return 'no file';
  const counts = mttyPortCounts(portsOf(call, device));
  const enough = counts.filter((ports) => file.filledBytes >= mttyDataBytes(ports)).length;
  if (enough === 0) return 'too little';
  return enough === counts.length ? 'enough' : 'unclear';
}

/** The answer tells where the device is, and, where its ports decide, that it has one (enough was written) or two. */
function unclearEnd(call: Call, device: VfioDevice, steps: Steps, written: 'no file' | 'unclear'): void {
  const lost = 'what was written in RESUMING is not in the recording, or was lost by closing the device';
  const happened = unknownSet(call, written === 'no file' ? lost : 'how many ports the mtty has was not shown yet');
  if (written === 'unclear' && (happened || call.recordedErrno === R.incomplete.errno))
    teachPorts(call, device, happened ? 1 : 2);
  if (!happened) return;
  walk(call, device, steps.way);
  enterFd(call, device.name);
}

interface Steps {
  /** States that are reached, in order. */
  readonly way: readonly number[];
  /** Why the walk does not begin. */
  readonly rule: Rule | undefined;
  /** State whose entering makes a data fd, 0 when none does. */
  readonly opens: number;
}

function planSteps(device: VfioDevice, flags: number, wanted: number): Steps {
  const reached: number[] = [];
  let at = device.migration.state;
  let saving = device.migration.saving !== 0;
  let opens = 0;
  while (at !== wanted) {
    const next = nextState(flags, at, wanted);
    if (next === undefined) return { way: [], rule: R.noWay, opens: 0 };
    if (makesFile(at, next, saving)) opens = next;
    if (endsTransfer(at, next)) saving = false;
    reached.push(next);
    at = next;
  }
  return { way: reached, rule: undefined, opens };
}

const isSaving = (state: number): boolean =>
  state === STATE_PRE_COPY || state === STATE_PRE_COPY_P2P || state === STATE_STOP_COPY;

function makesFile(from: number, to: number, saving: boolean): boolean {
  if (to === STATE_RESUMING) return true;
  // A device that was closed in PRE_COPY has the state and no file; only the way into STOP_COPY makes it one.
  return isSaving(to) && (!isSaving(from) || (to === STATE_STOP_COPY && !saving));
}

function endsTransfer(from: number, to: number): boolean {
  return (isSaving(from) && !isSaving(to)) || from === STATE_RESUMING;
}

/** Goes through the states, with what each step does to the data fds. */
function walk(call: Call, device: VfioDevice, states: readonly number[]): void {
  let at = device.migration.state;
  for (const next of states) {
    const now = call.tx.world.devices.get(device.name) ?? device;
    if (endsTransfer(at, next)) shutMigrationFiles(call.tx, device.name);
    else if (makesFile(at, next, now.migration.saving !== 0))
      openFile(call, device, next === STATE_RESUMING ? 'resume' : 'save', next);
    else if (next === STATE_STOP_COPY && isSaving(at)) fillSaved(call, now);
    changeState(call, device.name, next);
    at = next;
  }
}

/** A new data file of the device. mtty offers its header at once, and its ports when it is stopped. */
function openFile(call: Call, device: VfioDevice, direction: 'save' | 'resume', state: number): void {
  const id = call.tx.nextId('migrations');
  const file: MigrationFile = Object.freeze({
    id,
    device: device.name,
    direction,
    disabled: false,
    fdOpen: false,
    filledBytes: direction === 'save' && device.driver === 'mtty' ? MTTY_HEADER_BYTES : 0,
    hasPorts: state === STATE_STOP_COPY,
    positionBytes: 0,
    header: Bytes.EMPTY,
  });
  call.tx.world.migrations.set(id, file);
  const migration = call.tx.world.devices.get(device.name)?.migration ?? device.migration;
  patchDevice(call.tx, device.name, {
    migration: Object.freeze({ ...migration, [direction === 'save' ? 'saving' : 'resuming']: id }),
  });
}

function fillSaved(call: Call, device: VfioDevice): void {
  const file = call.tx.world.migrations.get(device.migration.saving);
  if (file !== undefined) call.tx.world.migrations.set(file.id, Object.freeze({ ...file, hasPorts: true }));
}

/** The data fd that the recording shows, or undefined for none. */
function toldFd(call: Call): number | undefined {
  const fd = find(call.memOut, add(call.arg, FD_OFFSET), 4)?.s32(0);
  return fd === undefined || fd < 0 ? undefined : fd;
}

/** Enters the data fd that the call returned; the file behind it is the newest of the device. */
function enterFd(call: Call, name: string): void {
  const device = call.tx.world.devices.get(name);
  const fd = toldFd(call);
  if (device === undefined || fd === undefined) return;
  const resuming = device.migration.state === STATE_RESUMING;
  const object = resuming ? device.migration.resuming : device.migration.saving;
  const file = call.tx.world.migrations.get(object);
  if (file === undefined) return;
  call.tx.world.migrations.set(object, Object.freeze({ ...file, fdOpen: true }));
  const path = device.driver === 'mtty' ? 'anon_inode:mtty_mig' : '';
  installFd(
    call.tx,
    call.process,
    fd,
    { kind: 'vfio-migration', path, object, flags: resuming ? 1 : 0, cloexec: true },
    call.event,
    call.families,
  );
}
