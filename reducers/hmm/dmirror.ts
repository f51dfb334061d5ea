import { firstGap, rangeAt } from '../../core/interval.js';
import { add, div, modPow2, mul, sub, type U64 } from '../../core/u64.js';
import { findCommand } from '../../core/uapi/lookup.js';
import type { PossibleAnswer } from '../answer.js';
import type { Call } from '../call.js';
import { raceOf } from '../in-flight.js';
import { surelyEmpty } from '../memory/lookup.js';
import { changedByOthers, settleChanges } from '../memory/pagetable.js';
import { type AddressSpace, VMA_ASSUMED } from '../memory/state.js';
import { answer, type DmirrorArgs, inBufferAllows, outCounts } from './answer.js';
import { canCopy } from './buffer.js';
import type { CommandName } from './commands.js';
import { releaseDevice } from './devices.js';
import { settleDeferred } from './kernel-events.js';
import { Machine } from './machine.js';
import { firstRefused } from './mirror-table.js';
import { answerRace, RACED } from './race.js';
import type { Mirror } from './state.js';
import { forgetWhatItDid, unseenText } from './unseen.js';
import { PAGE_BYTES } from '../memory/flags.js';

/**
 * The ioctls of a dmirror file (lib/test_hmm.c `dmirror_fops_unlocked_ioctl`). All take one struct:
 * addr, ptr, npages, cpages (out), faults (out), and share its checks; the struct is written back by success only.
 * What READ, MIGRATE_TO_DEV and EXCLUSIVE copy out is memory of the process, which no recording of calls determines;
 * it is not predicted.
 */

const STRUCT_BYTES = 40;
/** No machine has memory for a copy of so many pages (1 TiB). */
const BOUNCE_NEVER = 2 ** 28;
/** Up to this many pages the model follows the steps of the kernel one by one; a longer range may end at a hole before. */
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

/** One ioctl on a dmirror file. */
export function dmirrorIoctl(call: Call): void {
  const request = call.event.kind === 'ioctl' ? call.event.request : 0;
  const command = findCommand('dmirror', request);
  const own = call.tx.world.spaces.get(call.process.space);
  const readable = canCopy(call.tx, own, call.arg, STRUCT_BYTES, false);
  if (readable === 'no' && !call.struct.has(0, 24) && call.fail('EFAULT', 'dmirror.fault')) return;
  // Whatever the struct holds, an unknown number ends in EINVAL.
  if (command === undefined && call.fail('EINVAL', 'dmirror.command')) return;
  const mirror = call.tx.world.mirrors.get(call.file.object);
  if (!call.struct.has(0, 24)) {
    call.unknown('payload not recorded');
    if (mirror !== undefined) forgetWhatItDid(call, mirror, call.name);
    return;
  }
  const args = checkedArgs(call);
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
  if (
    name !== 'snapshot' &&
    name !== 'checkExclusive' &&
    args.npages > FOLLOWED &&
    !endsEarly(call, mirror, name, args)
  ) {
    call.unknown('the range is longer than the model follows');
    forgetWhatItDid(call, mirror, call.name);
    return;
  }
  if (name === 'write' && !inBufferAllows(call, args, own)) return;
  const unseen = unseenText(call.tx, mirror);
  if (unseen !== '') {
    call.unknown(unseen);
    return;
  }
  const { tid, seq } = call.event;
  const race = mirror.complete ? raceOf(call.tx.world, tid, mirror.space, args) : undefined;
  const machine = Machine.of(call.tx, mirror.space, seq);
  const spaces = [...(race?.past ?? []).map(({ space }) => space), ...(machine === undefined ? [] : [machine.space])];
  if (spaces.length === 0) answerDead(call, onDeadSpace(mirror, name, args));
  else if (!mirror.complete) call.unknown('the mirror was open before the recording began');
  else if (spaces.some((space) => mayBeUnrecorded(space, args)))
    call.unknown('memory in the range was mapped outside of the recording, if at all');
  else if (race !== undefined)
    answerRace(call, mirror, name, args, race, machine, onDeadSpace(mirror, name, args), own);
  else if (machine !== undefined && isRaced(call, mirror, args)) call.unknown(RACED);
  else if (machine !== undefined) answer(call, mirror, name, args, machine, own);
}

/** Whether a command without a copy of the whole range ends at a hole that comes soon enough, or at once. */
function endsEarly(call: Call, mirror: Mirror, name: CommandName, { start, last }: DmirrorArgs): boolean {
  if (name === 'read' || name === 'write') return false;
  const space = call.tx.world.spaces.get(mirror.space);
  if (space === undefined) return true;
  const gap = firstGap(space.vmas, start, last);
  return gap !== undefined && sub(gap, start) <= FOLLOWED * PAGE_BYTES;
}

/** Calls of other threads returned while this one ran, and the recording does not show where it began among them. */
function isRaced(call: Call, mirror: Mirror, args: DmirrorArgs): boolean {
  const table = call.tx.world.pageTables.get(mirror.space);
  const { tid, enteredAt } = call.event;
  return table !== undefined && changedByOthers(table, tid, enteredAt, args.start, args.last);
}

/** The process that opened the file is gone, with all its pages and the mirror's entries. */
function onDeadSpace(mirror: Mirror, name: CommandName, args: DmirrorArgs): PossibleAnswer {
  const bounced = name === 'read' || name === 'write';
  if (name === 'checkExclusive') return { errno: '', rule: 'check-exclusive.ok' };
  if (bounced && firstRefused(mirror.ptes, args.start, args.last, name === 'write') !== undefined)
    return { errno: 'EFAULT', rule: 'fault.mm-gone' };
  return { errno: 'EINVAL', rule: 'dmirror.mm-gone' };
}

function answerDead(call: Call, { errno, rule }: PossibleAnswer): void {
  if (errno !== '') call.fail(errno, rule);
  else if (call.succeed(rule)) outCounts(call, 0, 0);
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
