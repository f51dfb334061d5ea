import { firstGap, type Interval } from '../../core/interval.js';
import { add, max, min, sub, type U64 } from '../../core/u64.js';
import { MAP_SHARED, PROT_WRITE, PAGE_BYTES } from '../memory/flags.js';
import { type Pte, pieces, setRun } from '../memory/pagetable.js';
import { VMA_HUGETLB, VMA_PFNMAP, type Vma } from '../memory/state.js';
import { type Machine, NOTIFY_EXCLUSIVE, type WorkMirror } from './machine.js';
import { migrateToDevice, migrateToSystem } from './migrate.js';
import { entriesIn, firstBare, firstRefused, putEntries } from './mirror-table.js';
import { type HmmPfns, hmmRangeFault } from './range-fault.js';
import { splitEntries } from './sharing.js';
import { isPrivateDevice, type MirrorPte } from './state.js';
import { type FaultErrno, touch } from './touch.js';

/**
 * The commands of dmirror on a machine (lib/test_hmm.c): what they change, and what they answer. They know nothing of
 * the recording; dmirror.ts compares.
 */

export type CommandName =
  | 'read'
  | 'write'
  | 'migrateToDev'
  | 'migrateToSys'
  | 'snapshot'
  | 'exclusive'
  | 'checkExclusive';

export interface Range extends Interval {
  readonly npages: number;
}

/** How a command ends. */
export interface Outcome {
  readonly errno: string;
  /** The rule that decided. */
  readonly rule: string;
  readonly cpages: number;
  readonly faults: number;
  /** The pages as SNAPSHOT reports them; empty for other commands. */
  readonly pfns: readonly HmmPfns[];
  /** The entry without memory behind it that the command touches: the kernel dies there. */
  readonly dies: MirrorPte | undefined;
}

/** Pages that one step of READ, WRITE and SNAPSHOT looks at. */
const STEP_BYTES = 32 * 4096;

function failed(errno: string, rule: string): Outcome {
  return { errno, rule, cpages: 0, faults: 0, pfns: [], dies: undefined };
}

function done(rule: string, cpages: number, faults = 0): Outcome {
  return { errno: '', rule, cpages, faults, pfns: [], dies: undefined };
}

function dead(entry: MirrorPte): Outcome {
  return { errno: '', rule: 'dmirror.bare-entry', cpages: 0, faults: 0, pfns: [], dies: entry };
}

/** Runs a command. `special` tells VMAs that a driver filled by itself (VM_MIXEDMAP and its like). */
export function runCommand(
  machine: Machine,
  mirror: WorkMirror,
  name: CommandName,
  range: Range,
  special: (vma: Vma) => boolean,
): Outcome {
  switch (name) {
    case 'read':
    case 'write':
      return access(machine, mirror, range, name === 'write');
    case 'snapshot':
      return snapshot(machine, mirror, range);
    case 'migrateToDev': {
      const errno = migrateToDevice(machine, mirror, range.start, range.last, special);
      return errno === '' ? readBack(mirror, range, 'migrate-to-dev') : failed(errno, 'migrate-to-dev.vma');
    }
    case 'migrateToSys': {
      const { errno, cpages } = migrateToSystem(machine, mirror, range.start, range.last, special);
      if (errno === 'ENOMEM') return failed(errno, 'migrate-to-sys.alloc');
      return errno === '' ? done('migrate-to-sys.ok', cpages) : failed(errno, 'migrate-to-sys.vma');
    }
    case 'exclusive':
      return exclusive(machine, mirror, range);
    case 'checkExclusive':
      return entriesIn(mirror.ptes, range.start, range.last).some((pte) => pte.access === 'atomic')
        ? failed('EPERM', 'check-exclusive.atomic')
        : done('check-exclusive.ok', 0);
  }
}

// ---- READ, WRITE -----------------------------------------------------------------------------------------

/** Goes through the mirror; at the first page that it refuses, everything from there on is faulted in. */
function access(machine: Machine, mirror: WorkMirror, range: Range, write: boolean): Outcome {
  const name = write ? 'write' : 'read';
  let at = range.start;
  for (let faults = 0; ; faults++) {
    const refused = firstRefused(mirror.ptes, at, range.last, write);
    const bare =
      refused === at ? undefined : firstBare(mirror.ptes, at, refused === undefined ? range.last : sub(refused, 1));
    if (bare !== undefined) return dead(bare);
    if (refused === undefined) return done(`${name}.ok`, range.npages, faults);
    at = refused;
    const errno = fault(machine, mirror, at, range.last, write);
    if (errno !== '')
      return failed(errno, errno === 'EPERM' ? 'fault.write' : `fault.${errno === 'EBUSY' ? 'busy' : 'range'}`);
  }
}

/** `dmirror_fault`: 32 pages at a time; a step that fails leaves the mirror of its own pages as it was. */
function fault(machine: Machine, mirror: WorkMirror, start: U64, last: U64, write: boolean): string {
  const owner = mirror.device;
  let at = start;
  for (;;) {
    const end = min(last, add(at, STEP_BYTES - 1));
    const request = { start: at, last: end, fault: true, write, owner };
    const view = { vmas: machine.space.vmas, runs: machine.runs, anon: machine.anon };
    const answer = hmmRangeFault(
      view,
      request,
      (vma, from, to, forWrite) => touch(machine, vma, from, to, forWrite) === '',
    );
    if (answer.errno !== '') return answer.errno;
    for (const pfns of answer.pfns) {
      // Own device-private memory is reported without the right to write that was asked for.
      if (write && !pfns.write) return 'EFAULT';
      const bare = pfns.pte?.kind === 'private';
      const since = machine.seq;
      putEntries(mirror.ptes, pfns.start, pfns.last, { access: pfns.write ? 'write' : 'read', bare, since });
    }
    if (end >= last) return '';
    at = add(end, 1);
  }
}

/** MIGRATE_TO_DEV and EXCLUSIVE read the range through the mirror at the end, without faults. */
function readBack(mirror: WorkMirror, range: Range, name: string): Outcome {
  const hole = firstGap(mirror.ptes, range.start, range.last);
  const bare =
    hole === range.start
      ? undefined
      : firstBare(mirror.ptes, range.start, hole === undefined ? range.last : sub(hole, 1));
  if (bare !== undefined) return dead(bare);
  return hole === undefined ? done(`${name}.ok`, range.npages) : failed('ENOENT', `${name}.read-back`);
}

// ---- SNAPSHOT --------------------------------------------------------------------------------------------

function snapshot(machine: Machine, mirror: WorkMirror, range: Range): Outcome {
  const view = { vmas: machine.space.vmas, runs: machine.runs, anon: machine.anon };
  const request = { start: range.start, last: range.last, fault: false, write: false, owner: mirror.device };
  const { pfns } = hmmRangeFault(view, request, () => false);
  return { ...done('snapshot.ok', range.npages), pfns };
}

const PROT_ERROR = 0xff;
const PROT_HUGE = 0x04;

/** HMM_DMIRROR_PROT_* of a page as the device sees it (`dmirror_mkentry`). */
export function snapshotByte(pfns: HmmPfns, device: number): number {
  if (pfns.error) return PROT_ERROR;
  if (!pfns.valid || pfns.pte === undefined) return 0;
  return placeOf(pfns.pte, device) | (pfns.write ? 2 : 1) | (pfns.order === 9 ? PROT_HUGE : 0);
}

function placeOf(pte: Pte, device: number): number {
  if (pte.device >= 0) {
    const remote = pte.device === device ? 0 : 0x10;
    return (isPrivateDevice(pte.device) ? 0x20 : 0x40) + remote;
  }
  // A huge page of zeros is not the page that the macro knows.
  return pte.kind === 'zero' && !pte.huge ? 0x10 : 0;
}

// ---- EXCLUSIVE -------------------------------------------------------------------------------------------

/** `make_device_exclusive` page by page: pages before the one that fails stay exclusive. */
function exclusive(machine: Machine, mirror: WorkMirror, range: Range): Outcome {
  let at = range.start;
  for (;;) {
    const vma = machine.vmaAt(at);
    if (vma === undefined || (vma.prot & PROT_WRITE) === 0 || vma.traits & VMA_PFNMAP)
      return failed('EFAULT', 'exclusive.pages');
    const end = min(vma.last, range.last);
    if (vma.traits & VMA_HUGETLB || vma.flags & MAP_SHARED) {
      // The page is faulted in before it is looked at.
      const errno = touch(machine, vma, at, add(at, PAGE_BYTES - 1), true);
      return errno === '' ? failed('EOPNOTSUPP', 'exclusive.anonymous') : refusedPage(errno);
    }
    // What one entry maps is split, before it is faulted in and after (FOLL_SPLIT_PMD).
    splitEntries(machine, at, end);
    const errno = touch(machine, vma, at, end, true);
    const ready = errno === '' ? end : sub(firstNotReady(machine, at, end), 1);
    if (ready >= at) {
      splitEntries(machine, at, ready);
      takeFromCpu(machine, mirror, at, ready);
    }
    if (errno !== '') return refusedPage(errno);
    if (end >= range.last) return readBack(mirror, range, 'exclusive');
    at = add(end, 1);
  }
}

function refusedPage(errno: FaultErrno): Outcome {
  return failed(errno, errno === 'ENOMEM' ? 'exclusive.alloc' : 'exclusive.pages');
}

/** The first page of a range that a write fault did not make ready. */
function firstNotReady(machine: Machine, start: U64, last: U64): U64 {
  const found = pieces(machine.runs, start, last).find(
    ({ pte }) => pte === undefined || !pte.write || (pte.kind !== 'anon' && pte.kind !== 'coherent'),
  );
  return found?.start ?? start;
}

function takeFromCpu(machine: Machine, mirror: WorkMirror, start: U64, last: U64): void {
  machine.invalidate(NOTIFY_EXCLUSIVE, start, last);
  for (const piece of pieces(machine.runs, start, last)) {
    if (piece.pte === undefined) continue;
    const taken: Pte = { ...piece.pte, kind: 'exclusive', huge: false, write: true };
    setRun(machine.runs, max(piece.start, start), piece.last, taken);
  }
  putEntries(mirror.ptes, start, last, { access: 'atomic', bare: false, since: machine.seq });
}
