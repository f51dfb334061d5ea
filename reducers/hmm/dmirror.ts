import { Bytes } from '../../core/bytes.js';
import type { MemNote } from '../../core/event.js';
import { firstGap, rangeAt } from '../../core/interval.js';
import { add, div, modPow2, mul, sub, type U64 } from '../../core/u64.js';
import { findCommand } from '../../core/uapi/lookup.js';
import type { Call } from '../call.js';
import { surelyEmpty } from '../memory/lookup.js';
import { changedByOthers, forgetKnowledge, settleChanges } from '../memory/pagetable.js';
import { type AddressSpace, VMA_ASSUMED, type Vma } from '../memory/state.js';
import type { Tx } from '../tx.js';
import { canCopy } from './buffer.js';
import type { CommandName, Outcome, Range } from './commands.js';
import { coherentPages, noteCoherentPages, releaseDevice } from './devices.js';
import { settleDeferred } from './kernel-events.js';
import { Machine } from './machine.js';
import { firstRefused } from './mirror-table.js';
import type { Mirror } from './state.js';
import { adoptSnapshot, alike, snapshotBytes, type Trial, tryCommand } from './trials.js';

/**
 * The ioctls of a dmirror file (lib/test_hmm.c `dmirror_fops_unlocked_ioctl`). All take one struct:
 * addr, ptr, npages, cpages (out), faults (out), and share its checks; the struct is written back by success only.
 * What READ, MIGRATE_TO_DEV and EXCLUSIVE copy out is memory of the process, which no recording of calls determines;
 * it is not predicted.
 */

const STRUCT_BYTES = 40;
const PAGE_BYTES = 4096;
/** No machine has memory for a copy of so many pages (1 TiB). */
const BOUNCE_NEVER = 2 ** 28;
/** Up to this many pages the model follows the steps of the kernel one by one. */
const FOLLOWED = 2 ** 20;
const FLAG_FAIL_ALLOC = 1;

const NAMES: Readonly<Record<string, CommandName>> = {
  HMM_DMIRROR_READ: 'read',
  HMM_DMIRROR_WRITE: 'write',
  HMM_DMIRROR_MIGRATE_TO_DEV: 'migrateToDev',
  HMM_DMIRROR_MIGRATE_TO_SYS: 'migrateToSys',
  HMM_DMIRROR_SNAPSHOT: 'snapshot',
  HMM_DMIRROR_EXCLUSIVE: 'exclusive',
  HMM_DMIRROR_CHECK_EXCLUSIVE: 'checkExclusive',
};

/** The argument of a command, checked. */
export interface DmirrorArgs extends Range {
  readonly ptr: U64;
  readonly rawPages: U64;
}

/** One ioctl on a dmirror file. */
export function dmirrorIoctl(call: Call): void {
  const request = call.event.kind === 'ioctl' ? call.event.request : 0;
  const command = findCommand('dmirror', request);
  const own = call.tx.world.spaces.get(call.process.space);
  const readable = canCopy(call.tx, own, call.arg, STRUCT_BYTES, false);
  if (readable === 'no' && !call.struct.has(0, 24) && call.fail('EFAULT', 'dmirror.fault')) return;
  // Whatever the struct holds, an unknown number ends in EINVAL.
  if (command === undefined && call.fail('EINVAL', 'dmirror.command')) return;
  if (!call.struct.has(0, 24)) {
    call.unknown('payload not recorded');
    return;
  }
  const args = checkedArgs(call);
  const mirror = call.tx.world.mirrors.get(call.file.object);
  if (args === undefined || command === undefined) return;
  if (mirror === undefined) {
    call.unknown('the mirror is not known');
    return;
  }
  settleChanges(call.tx, mirror.space, call.event.tid);
  const name = NAMES[command.name];
  const migrates = name === 'migrateToDev' || name === 'migrateToSys';
  settleDeferred(call.tx, call.event.tid, migrates ? mirror.device : -1, call.event.seq);
  if (name !== undefined) runOn(call, mirror, name, args, own);
  else if (command.name === 'HMM_DMIRROR_RELEASE') release(call, mirror);
  else setFlags(call, mirror, args);
}

/** The struct's range, or undefined after a rejection. */
function checkedArgs(call: Call): DmirrorArgs | undefined {
  const start = call.struct.u64(0);
  const rawPages = call.struct.u64(16);
  const size = mul(rawPages, PAGE_BYTES);
  const end = add(start, size);
  // Where a recording says that such a call succeeded all the same, there is no range that it could have worked on.
  if (modPow2(start, PAGE_BYTES) !== 0) {
    call.fail('EINVAL', 'dmirror.addr-aligned');
    return undefined;
  }
  if (start >= end) {
    call.fail('EINVAL', 'dmirror.range');
    return undefined;
  }
  const npages = Number(div(size, PAGE_BYTES));
  return { start, last: sub(end, 1), npages, ptr: call.struct.u64(8), rawPages };
}

function outCounts(call: Call, cpages: number, faults: number): void {
  call.out64(24, cpages, 'cpages');
  call.out64(32, faults, 'faults');
}

function release(call: Call, mirror: Mirror): void {
  if (!call.succeed('release.ok')) return;
  outCounts(call, 0, 0);
  releaseDevice(call.tx, mirror.device, call.event.seq, true);
}

/** FLAGS takes its flags from npages, after the check that the range is not empty: they cannot be set to none. */
function setFlags(call: Call, mirror: Mirror, args: DmirrorArgs): void {
  if (!call.succeed('flags.ok')) return;
  outCounts(call, 0, 0);
  const failAlloc = (modPow2(args.rawPages, 2) & FLAG_FAIL_ALLOC) !== 0;
  call.tx.world.mirrors.set(mirror.id, Object.freeze({ ...mirror, failAlloc }));
}

function runOn(call: Call, mirror: Mirror, name: CommandName, args: DmirrorArgs, own: AddressSpace | undefined): void {
  const bounced = name === 'read' || name === 'write';
  if (bounced && args.npages >= BOUNCE_NEVER && call.fail('ENOMEM', 'dmirror.bounce')) return;
  if (name !== 'snapshot' && name !== 'checkExclusive' && args.npages > FOLLOWED) {
    call.unknown('the range is longer than the model follows');
    return;
  }
  if (name === 'write' && !bufferAllows(call, own, args, false)) return;
  const machine = Machine.of(call.tx, mirror.space, call.event.seq);
  if (machine === undefined) onDeadSpace(call, mirror, name, args);
  else if (!mirror.complete) call.unknown('the mirror was open before the recording began');
  else if (mayBeUnrecorded(machine.space, args))
    call.unknown('memory in the range was mapped outside of the recording, if at all');
  else if (isRaced(call, mirror, args)) call.unknown('another thread changed what is mapped during the call');
  else answer(call, mirror, name, args, machine, own);
}

/** Calls of other threads that returned while this one ran: it saw some of their effects, in an order of its own. */
function isRaced(call: Call, mirror: Mirror, args: DmirrorArgs): boolean {
  const table = call.tx.world.pageTables.get(mirror.space);
  const { tid, enteredAt } = call.event;
  return table !== undefined && changedByOthers(table, tid, enteredAt, args.start, args.last);
}

/** The process that opened the file is gone, with all its pages and the mirror's entries. */
function onDeadSpace(call: Call, mirror: Mirror, name: CommandName, args: DmirrorArgs): void {
  const bounced = name === 'read' || name === 'write';
  if (name === 'checkExclusive') {
    if (call.succeed('check-exclusive.ok')) outCounts(call, 0, 0);
  } else if (bounced && firstRefused(mirror.ptes, args.start, args.last, name === 'write') !== undefined)
    call.fail('EFAULT', 'fault.mm-gone');
  else call.fail('EINVAL', 'dmirror.mm-gone');
}

/** Whether a part of the range has no VMA in the recording and may have one in the kernel. */
function mayBeUnrecorded(space: AddressSpace, args: DmirrorArgs): boolean {
  let at: U64 = args.start;
  for (;;) {
    const gap = firstGap(space.vmas, at, args.last);
    if (gap === undefined) break;
    if (!surelyEmpty(space, gap)) return true;
    const next = space.vmas.higher(gap);
    if (next === undefined || next.start > args.last) break;
    at = next.start;
  }
  const first = rangeAt(space.vmas, args.start);
  return first !== undefined && (first.traits & VMA_ASSUMED) !== 0;
}

/** False after a prediction: the buffer cannot be copied, or may not be. */
function bufferAllows(
  call: Call,
  own: AddressSpace | undefined,
  args: DmirrorArgs,
  write: boolean,
  unit = PAGE_BYTES,
): boolean {
  const copies = canCopy(call.tx, own, args.ptr, mul(args.npages, unit), write);
  if (copies === 'no') return !call.fail('EFAULT', 'dmirror.buffer');
  if (copies === 'unknown') call.unknown("the caller's buffer was mapped outside of the recording, if at all");
  return copies === 'yes';
}

function answer(
  call: Call,
  mirror: Mirror,
  name: CommandName,
  args: DmirrorArgs,
  machine: Machine,
  own: AddressSpace | undefined,
): void {
  const pages = coherentPages(call.tx, mirror.device);
  const trials = tryCommand(machine, mirror.id, name, args, pages, (vma) => isSpecial(call.tx, vma));
  const first = trials[0] as Trial;
  const certain = trials.every((trial) => alike(trial.outcome, first.outcome, mirror.device));
  if (first.outcome.dies !== undefined && certain) {
    call.unknown('the kernel dies in this call: the device touches an entry without memory behind it');
    if (call.recordedRet !== null) first.machine.store(call.tx);
    return;
  }
  const sameTouched = trials.every((trial) =>
    trials.every((other) => other.pages !== trial.pages || alike(other.outcome, trial.outcome, mirror.device)),
  );
  if (certain) predict(call, mirror, name, args, first.outcome, own);
  else if (sameTouched) predictByFact(call, mirror, name, args, trials, own);
  else call.unknown(TOUCHED);
  if (call.recordedRet === null) return;
  const agreeing = trials.filter((trial) => agrees(call, mirror, trial.outcome, args));
  // A failure tells nothing of the size, but what came before it was done: a device has small pages first (`dmirror_device_init`).
  const failedAlike = certain && first.outcome.errno !== '';
  const chosen = (failedAlike ? agreeing.find((trial) => trial.pages === 'small') : undefined) ?? agreeing[0] ?? first;
  const lost = certain && agreeing.length === 0;
  if ((lost || chosen.machine.knowledge === 'nothing') && name === 'snapshot')
    adoptTold(call, mirror, chosen.machine, args);
  if (pages.length > 1 || chosen.machine.askedPages) learnPages(call, mirror, agreeing);
  chosen.machine.store(call.tx);
  // The recording contradicts what calls seemed to determine: one finding, and not one for each call that follows.
  if (lost) forgetKnowledge(call.tx, mirror.space);
}

/** The recorded answer is that of one size only: from now on it is known. */
function learnPages(call: Call, mirror: Mirror, agreeing: readonly Trial[]): void {
  const told = agreeing[0];
  if (told === undefined || agreeing.some((trial) => trial.pages !== told.pages)) return;
  noteCoherentPages(call.tx, mirror.device, told.machine.coherentPages, call.event.seq);
}

const FREE_PAGES = 'which device pages are free was not recorded: it shows with the first that is taken';
const TOUCHED = 'what the CPU touched was not recorded: kernel events, or MADV_POPULATE_* in its place, would tell';

/** A mapping that a driver filled: VM_MIXEDMAP, which does not migrate. */
function isSpecial(tx: Tx, vma: Vma): boolean {
  return vma.file !== 0 && tx.world.files.get(vma.file)?.kind === 'dmirror';
}

function predict(
  call: Call,
  mirror: Mirror,
  name: CommandName,
  args: DmirrorArgs,
  outcome: Outcome,
  own: AddressSpace | undefined,
): void {
  if (outcome.errno !== '') {
    call.fail(outcome.errno, outcome.rule);
    return;
  }
  if (!copiesAllowed(call, name, args, own) || !call.succeed(outcome.rule)) return;
  outOf(call, mirror, name, args, outcome);
}

/**
 * Which size the free pages of a coherent device have is a fact that one answer teaches: a success is that of one of
 * the sizes; a failure may have other reasons.
 */
function predictByFact(
  call: Call,
  mirror: Mirror,
  name: CommandName,
  args: DmirrorArgs,
  trials: readonly Trial[],
  own: AddressSpace | undefined,
): void {
  const good = trials.filter(({ outcome }) => outcome.errno === '' && outcome.dies === undefined);
  const usual = good[0];
  if (usual === undefined) {
    call.unknown(FREE_PAGES);
    return;
  }
  if (!copiesAllowed(call, name, args, own) || !call.succeedByFact(usual.outcome.rule, FREE_PAGES)) return;
  const taught = good.find((trial) => agrees(call, mirror, trial.outcome, args)) ?? usual;
  outOf(call, mirror, name, args, taught.outcome);
}

/** False after a prediction: what the command found cannot be copied out. */
function copiesAllowed(call: Call, name: CommandName, args: DmirrorArgs, own: AddressSpace | undefined): boolean {
  const copiesOut = name === 'read' || name === 'migrateToDev' || name === 'exclusive';
  if (copiesOut && !bufferAllows(call, own, args, true)) return false;
  if (name === 'snapshot' && !bufferAllows(call, own, args, true, 1)) return false;
  return canCopy(call.tx, own, call.arg, STRUCT_BYTES, true) !== 'no' || !call.fail('EFAULT', 'dmirror.fault');
}

function outOf(call: Call, mirror: Mirror, name: CommandName, args: DmirrorArgs, outcome: Outcome): void {
  outCounts(call, outcome.cpages, outcome.faults);
  const note = name === 'snapshot' ? noteAt(call.memOut, args.ptr) : undefined;
  if (note === undefined) return;
  const count = Math.min(note.bytes.length, args.npages);
  call.outBytes(args.ptr, new Bytes(snapshotBytes(outcome, args.start, mirror.device, count)), 'pages');
}

function noteAt(notes: readonly MemNote[], addr: U64): MemNote | undefined {
  return notes.find((note) => note.addr === addr);
}

/** Whether the recorded answer is the one of this trial. Only after a prediction. */
function agrees(call: Call, mirror: Mirror, outcome: Outcome, args: DmirrorArgs): boolean {
  if (outcome.dies !== undefined) return false;
  if (call.recordedRet === -1) return call.recordedErrno === outcome.errno;
  if (outcome.errno !== '') return false;
  const struct = noteAt(call.memOut, call.arg)?.bytes;
  if (struct?.has(24, 16) && (struct.u64(24) !== outcome.cpages || struct.u64(32) !== outcome.faults)) return false;
  const told = outcome.pfns.length > 0 ? noteAt(call.memOut, args.ptr)?.bytes : undefined;
  if (told === undefined) return true;
  const count = Math.min(told.length, args.npages);
  return told.equalsAt(0, new Bytes(snapshotBytes(outcome, args.start, mirror.device, count)), 0, count);
}

function adoptTold(call: Call, mirror: Mirror, machine: Machine, args: DmirrorArgs): void {
  const told = noteAt(call.memOut, args.ptr)?.bytes;
  const work = machine.mirror(mirror.id);
  if (told === undefined || work === undefined || call.recordedRet !== 0) return;
  adoptSnapshot(machine, work, args.start, told.slice(0, Math.min(told.length, args.npages)));
}
