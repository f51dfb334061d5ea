import type { Event } from '../../core/event.js';
import { carve, firstGap, type Interval } from '../../core/interval.js';
import { add, alignDown, sub, type U64 } from '../../core/u64.js';
import type { PossibleAnswer } from '../answer.js';
import type { Call } from '../call.js';
import type { Coming, Race } from '../in-flight.js';
import { HUGE_BYTES, pieces, setRun } from '../memory/pagetable.js';
import { piecesOf, trimVma } from '../memory/ranges.js';
import type { AddressSpace } from '../memory/state.js';
import { agrees, type DmirrorArgs, isSpecial, outBuffer, outOf, predict, TOUCHED } from './answer.js';
import type { CommandName } from './commands.js';
import { coherentPages } from './devices.js';
import { Machine } from './machine.js';
import { dropEntries, entriesIn, putEntries } from './mirror-table.js';
import { callChangesPages } from './space-calls.js';
import type { Mirror } from './state.js';
import { alike, type Trial, tryCommand } from './trials.js';

/**
 * A command whose memory another call changes while it runs.
 *
 * The kernel holds mmap_lock for a whole migration and for EXCLUSIVE, but READ, WRITE and SNAPSHOT let it go every 32
 * pages. So a command sees the memory as it was before a change, or as it is after it, or (the latter three) a part
 * of it before and a part after. Whole states give the answers that may be right; what a mixture counts is
 * not worked out: then the counts are unknown, and never the error, for that is the one of the state that failed.
 */
export const RACED = 'another thread changed what is mapped during the call';

/** A state that the command may have seen. */
interface Seen {
  readonly machine: Machine;
  /** Where it is not what is true now. */
  readonly differs: readonly Interval[];
}

/** The states of a race. `now` is what the calls that have ended left, undefined where they ended the space. */
function statesOf(call: Call, now: Machine | undefined, race: Race): readonly Seen[] {
  const states: Seen[] = [];
  for (const [index, { space, pages, mirrors }] of race.past.entries()) {
    if (pages === undefined) continue;
    const machine = Machine.past(call.tx, space, pages, mirrors, call.event.seq);
    states.push({ machine, differs: race.past.slice(index) });
  }
  if (now === undefined) return states;
  states.push({ machine: now.copy(), differs: [] });
  for (const coming of race.coming) states.push({ machine: after(now, coming), differs: [coming] });
  return states;
}

/** The answer of a raced command. `now` is stored with what the command did to it. */
export function answerRace(
  call: Call,
  mirror: Mirror,
  name: CommandName,
  args: DmirrorArgs,
  race: Race,
  now: Machine | undefined,
  dead: PossibleAnswer,
  own: AddressSpace | undefined,
): void {
  const sizes = coherentPages(call.tx, mirror.device);
  const states = statesOf(call, now, race);
  const perState = states.map(({ machine }) =>
    tryCommand(machine, mirror.id, name, args, { device: mirror.device, sizes }, (vma) => isSpecial(call.tx, vma)),
  );
  const trials = perState.flat();
  const first = trials[0];
  if (first === undefined || trials.some(({ outcome }) => outcome.dies !== undefined)) {
    call.unknown(RACED);
    return;
  }
  const same =
    now !== undefined && !race.devices && trials.every(({ outcome }) => alike(outcome, first.outcome, mirror.device));
  if (same) predict(call, mirror, name, args, first.outcome, own);
  else if (perState.some((some) => differ(some, mirror.device))) call.unknown(TOUCHED);
  else predictOne(call, mirror, name, args, trials, race, now === undefined ? dead : undefined, own);
  if (call.recordedRet === null || now === undefined) return;
  for (const [index, some] of perState.entries()) {
    const agreeing = some.find(({ outcome }) => agrees(call, mirror, outcome, args));
    if (agreeing === undefined) continue;
    takeOver(now, agreeing.machine, args, (states[index] as Seen).differs);
    break;
  }
  now.store(call.tx);
}

function differ(trials: readonly Trial[], device: number): boolean {
  const first = trials[0];
  return first !== undefined && trials.some(({ outcome }) => !alike(outcome, first.outcome, device));
}

function predictOne(
  call: Call,
  mirror: Mirror,
  name: CommandName,
  args: DmirrorArgs,
  trials: readonly Trial[],
  race: Race,
  dead: PossibleAnswer | undefined,
  own: AddressSpace | undefined,
): void {
  const answers: PossibleAnswer[] = trials.map(({ outcome }) => outcome);
  if (dead !== undefined) answers.push(dead);
  const [first, ...others] = answers;
  if (first === undefined) return;
  call.looked(RACED);
  if (outBuffer(call, name, args, own) !== 'yes') {
    call.unknown(RACED);
    return;
  }
  // Two devices at work may meet in more ways than these.
  if (!call.oneOf([first, ...others], race.devices ? RACED : '')) return;
  const seen = trials.find(({ outcome }) => agrees(call, mirror, outcome, args));
  if (seen !== undefined) outOf(call, mirror, name, args, seen.outcome);
  else call.outUnknown(add(call.arg, COUNTS_AT), COUNTS_BYTES, RACED);
}

/** `cpages` and `faults`. */
const COUNTS_AT = 24;
const COUNTS_BYTES = 16;

// ---- states ----------------------------------------------------------------------------------------------

/** The memory as it will be when a change that is under way has happened. */
function after(now: Machine, coming: Coming): Machine {
  const vmas = now.space.vmas.freeze().edit();
  const gap = firstGap(vmas, coming.start, coming.last);
  switch (coming.call) {
    case 'mprotect': {
      // It stops at a hole.
      const last = gap === undefined ? coming.last : gap === coming.start ? undefined : sub(gap, 1);
      if (last === undefined) break;
      for (const vma of piecesOf(vmas, coming.start, last)) {
        carve(vmas, vma.start, vma.last, trimVma);
        vmas.set(vma.start, Object.freeze({ ...vma, prot: coming.prot & 7 }));
      }
      break;
    }
    case 'madvise':
      break;
    default:
      carve(vmas, coming.start, coming.last, trimVma);
  }
  const before = now.copy();
  callChangesPages(before, eventOf(coming));
  return before.copy(Object.freeze({ ...now.space, vmas }));
}

/** The call as it would be recorded when it has succeeded. What moves or replaces pages takes them from here. */
function eventOf(coming: Coming): Event {
  const { start, last, prot, advice } = coming;
  const kind = coming.call === 'mprotect' || coming.call === 'madvise' ? coming.call : 'munmap';
  const head = { seq: 0, tsNs: 0, pid: 0, tid: 0, file: 0, line: 0 };
  const outcome = { enteredAt: 0, ret: 0, errno: '', injected: false };
  const range = { addr: start, lengthBytes: add(sub(last, start), 1) };
  switch (kind) {
    case 'mprotect':
      return { kind, ...head, ...outcome, ...range, prot };
    case 'madvise':
      return { kind, ...head, ...outcome, ...range, advice };
    default:
      return { kind, ...head, ...outcome, ...range };
  }
}

/**
 * What the command did in the state that it saw becomes true now, but not where others changed the memory: what it
 * did there is gone, or was done again.
 */
function takeOver(now: Machine, seen: Machine, { start, last }: Interval, differs: readonly Interval[]): void {
  const from = alignDown(start, HUGE_BYTES);
  const to = add(alignDown(last, HUGE_BYTES), HUGE_BYTES - 1);
  for (const part of outside(from, to, differs)) {
    for (const piece of pieces(seen.runs, part.start, part.last)) {
      if (piece.pte === undefined) now.clear(piece.start, piece.last);
      else setRun(now.runs, piece.start, piece.last, piece.pte);
    }
    for (const mirror of now.mirrors) {
      const other = seen.mirror(mirror.id);
      if (other === undefined) continue;
      dropEntries(mirror.ptes, part.start, part.last);
      for (const entry of entriesIn(other.ptes, part.start, part.last))
        putEntries(mirror.ptes, entry.start, entry.last, entry);
      mirror.failAlloc = other.failAlloc;
    }
  }
  now.devices |= seen.devices;
}

/** The parts of a range that none of the changes touches. */
function outside(start: U64, last: U64, changes: readonly Interval[]): Interval[] {
  let parts: Interval[] = [{ start, last }];
  for (const change of changes) {
    const next: Interval[] = [];
    for (const part of parts) {
      if (change.start > part.last || change.last < part.start) {
        next.push(part);
        continue;
      }
      if (change.start > part.start) next.push({ start: part.start, last: sub(change.start, 1) });
      if (change.last < part.last) next.push({ start: add(change.last, 1), last: part.last });
    }
    parts = next;
  }
  return parts;
}
