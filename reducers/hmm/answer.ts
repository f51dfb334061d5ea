import { Bytes } from '../../core/bytes.js';
import type { MemNote } from '../../core/event.js';
import { mul, type U64 } from '../../core/u64.js';
import type { Call } from '../call.js';
import { forgetKnowledge } from '../memory/pagetable.js';
import type { AddressSpace, Vma } from '../memory/state.js';
import type { Tx } from '../tx.js';
import { canCopy } from './buffer.js';
import type { CommandName, Outcome, Range } from './commands.js';
import { coherentPages, noteCoherentPages, type Subject, subjectOf } from './devices.js';
import type { Machine } from './machine.js';
import type { Mirror } from './state.js';
import { followContents, spoilBuffer } from './copies.js';
import { adoptSnapshot, alike, snapshotBytes, type Trial, tryCommand } from './trials.js';
import { PAGE_BYTES } from '../memory/flags.js';

/**
 * From the outcomes of a command, one for each state that the memory may be in, to what the call answers, and which of
 * the states is taken over.
 */

/** Why a call has no answer, and never will have one. */
export const KERNEL_DIES = 'the kernel dies in this call: the device touches an entry without memory behind it';

const STRUCT_BYTES = 40;

/** The argument of a command, checked. */
export interface DmirrorArgs extends Range {
  readonly ptr: U64;
  readonly rawPages: U64;
}

export function outCounts(call: Call, cpages: number, faults: number): void {
  call.out64(24, cpages, 'cpages');
  call.out64(32, faults, 'faults');
}

/** False after a prediction: what WRITE is to write cannot be read, or may not be. */
export function inBufferAllows(call: Call, args: DmirrorArgs, own: AddressSpace | undefined): boolean {
  return settled(call, canCopy(call.tx, own, args.ptr, mul(args.npages, PAGE_BYTES), false));
}

function settled(call: Call, copies: 'yes' | 'no' | 'unknown'): boolean {
  if (copies === 'no') return !call.fail('EFAULT', 'dmirror.buffer');
  if (copies === 'unknown') call.unknown("the caller's buffer was mapped outside of the recording, if at all");
  return copies === 'yes';
}

/** The answer on memory that nobody changes meanwhile. */
export function answer(
  call: Call,
  mirror: Mirror,
  name: CommandName,
  args: DmirrorArgs,
  machine: Machine,
  own: AddressSpace | undefined,
): void {
  const subject = subjectOf(call.tx, machine, mirror.device, args);
  setKnownPages(call.tx, machine, mirror.device);
  const trials = tryCommand(machine, mirror.id, name, args, subject, (vma) => isSpecial(call.tx, vma));
  const first = trials[0] as Trial;
  const certain = trials.every((trial) => alike(trial.outcome, first.outcome, mirror.device));
  if (first.outcome.dies !== undefined && certain) {
    call.unknown(KERNEL_DIES);
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
  const refused = !canCopyOut(call, name, args, own);
  const agreeing = trials.filter((trial) => agrees(call, mirror, trial.outcome, args, refused));
  const chosen = (certain ? likelier(agreeing, mirror.device, subject) : agreeing[0]) ?? first;
  const lost = certain && agreeing.length === 0;
  if ((lost || chosen.machine.knowledge === 'nothing') && name === 'snapshot')
    adoptTold(call, mirror, chosen.machine, args);
  if (call.recordedRet === 0) followContents(call.tx, mirror, name, args, chosen, own);
  else if (chosen.outcome.errno === '') spoilBuffer(call.tx, args, chosen.machine, own);
  chosen.machine.store(call.tx);
  if (subject.sizes.length > 1 || chosen.machine.askedPages) learnPages(call, subject, mirror, agreeing);
  // The recording contradicts what calls seemed to determine: one finding, and not one for each call that follows.
  if (lost) forgetKnowledge(call.tx, mirror.space);
}

/** The size that is known of the caller's own device. */
function setKnownPages(tx: Tx, machine: Machine, device: number): void {
  const [size, ...others] = coherentPages(tx, device);
  if (size !== undefined && others.length === 0) machine.coherentPages = size;
}

/**
 * Where either size of free pages gives the answer: a device has small ones at boot (`dmirror_device_init`), so that size is
 * taken, unless there would be huge pages now; whether these are huge shows later. See devices.ts for what happens
 * when the size turns out to be the other one.
 */
function likelier(trials: readonly Trial[], device: number, subject: Subject): Trial | undefined {
  // What another device was taken to have given stays as it is.
  if (subject.device !== device) return trials.find(({ pages }) => pages === 'large') ?? trials[0];
  const huge = trials.find(({ pages, machine }) => pages === 'large' && machine.madeHuge === device);
  return huge ?? trials.find(({ pages }) => pages === 'small') ?? trials[0];
}

/** The recorded answer is that of one size only: from now on it is known. */
function learnPages(call: Call, subject: Subject, mirror: Mirror, agreeing: readonly Trial[]): void {
  const told = agreeing[0];
  if (told === undefined) return;
  const { seq } = call.event;
  const own = subject.device === mirror.device;
  if (!own && told.machine.askedPages) noteCoherentPages(call.tx, mirror.device, told.machine.coherentPages, seq);
  if (agreeing.some((trial) => trial.pages !== told.pages)) return;
  noteCoherentPages(call.tx, subject.device, own ? told.machine.coherentPages : told.pages, seq);
}

const FREE_PAGES = 'which device pages are free was not recorded: it shows with the first that is taken';
export const TOUCHED =
  'what the CPU touched was not recorded: kernel events, or MADV_POPULATE_* in its place, would tell';

/** A mapping that a driver filled: VM_MIXEDMAP, which does not migrate. */
export function isSpecial(tx: Tx, vma: Vma): boolean {
  return vma.file !== 0 && tx.world.files.get(vma.file)?.kind === 'dmirror';
}

export function predict(
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
  if (!settled(call, outBuffer(call, name, args, own))) return false;
  return canCopy(call.tx, own, call.arg, STRUCT_BYTES, true) !== 'no' || !call.fail('EFAULT', 'dmirror.fault');
}

/** Whether all that a call copies out has a place for sure. */
function canCopyOut(call: Call, name: CommandName, args: DmirrorArgs, own: AddressSpace | undefined): boolean {
  if (outBuffer(call, name, args, own) !== 'yes') return false;
  return canCopy(call.tx, own, call.arg, STRUCT_BYTES, true) === 'yes';
}

/** Whether what a command found can be copied to where the caller wants it. */
export function outBuffer(
  call: Call,
  name: CommandName,
  args: DmirrorArgs,
  own: AddressSpace | undefined,
): 'yes' | 'no' | 'unknown' {
  switch (name) {
    case 'read':
    case 'migrateToDev':
    case 'exclusive':
      return canCopy(call.tx, own, args.ptr, mul(args.npages, PAGE_BYTES), true);
    case 'snapshot':
      return canCopy(call.tx, own, args.ptr, args.npages, true);
    default:
      return 'yes';
  }
}

export function outOf(call: Call, mirror: Mirror, name: CommandName, args: DmirrorArgs, outcome: Outcome): void {
  outCounts(call, outcome.cpages, outcome.faults);
  const note = name === 'snapshot' ? noteAt(call.memOut, args.ptr) : undefined;
  if (note === undefined) return;
  const count = Math.min(note.bytes.length, args.npages);
  call.outBytes(args.ptr, new Bytes(snapshotBytes(outcome, args.start, mirror.device, count)), 'pages');
}

function noteAt(notes: readonly MemNote[], addr: U64): MemNote | undefined {
  return notes.find((note) => note.addr === addr);
}

/**
 * Whether the recorded answer is the one of this trial. Only after a prediction. `refused`: the command may have done its work, and
 * failed to copy out what it found.
 */
export function agrees(call: Call, mirror: Mirror, outcome: Outcome, args: DmirrorArgs, refused = false): boolean {
  if (outcome.dies !== undefined) return false;
  if (call.recordedRet === -1)
    return call.recordedErrno === (refused && outcome.errno === '' ? 'EFAULT' : outcome.errno);
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
