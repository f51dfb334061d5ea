import type { Event } from '../../core/event.js';
import type { Interval } from '../../core/interval.js';
import type { Finding, Invariant } from '../../core/invariant.js';
import { add, alignDown, hex, lastOf, mul, U64_MAX } from '../../core/u64.js';
import { knownProcessOf } from '../files/processes.js';
import { anyMirrored, auditMirrors, type Fault, type Problem } from '../hmm/audit.js';
import { lastOfPages } from '../memory/flags.js';
import { PAGE_BYTES, type PageTable } from '../memory/pagetable.js';
import type { World } from '../world.js';

/**
 * A device holds entries that its process's page table does not stand behind.
 *
 * Whoever mirrors a page table must drop its entries when the kernel invalidates them, before memory is given to
 * somebody else. The check looks at the range of each event that changes one of the two sides. Where the recording
 * shows calls as they begin (kernel events), their invalidations still have to come: the range is looked at when
 * the thread goes on. Memory that the recording does not determine is not judged.
 */
const NAME = 'mirror-stale';
const MAX_PROBLEMS = 16;

const KINDS = [
  'munmap',
  'mmap',
  'mremap',
  'mprotect',
  'madvise',
  'brk',
  'fork',
  'ioctl',
  'fault',
  'close',
  'exit',
] as const;

export const mirrorStale: Invariant<World> = Object.freeze({
  name: NAME,
  why: 'a device that uses an entry which the kernel took back reads and writes memory that belongs to somebody else',
  kinds: Object.freeze(KINDS),

  concerns(before: World, event: Event): boolean {
    if (before.mirrors.size === 0) return false;
    const table = tableOf(before, event);
    if (table === undefined || table.knowledge === 'nothing') return false;
    if (event.kind === 'ioctl' || event.kind === 'fork') return true;
    const range = rangeOf(before, event);
    if (range !== undefined && anyMirrored(before, table.space, range.start, range.last)) return true;
    return openRanges(table, event).some(({ start, last }) => anyMirrored(before, table.space, start, last));
  },

  check(before: World, event: Event, after: World): readonly Finding[] {
    const table = tableOf(before, event);
    if (table === undefined) return [];
    const problems: Problem[] = [];
    // The thread goes on: what it had begun must be settled, in the state before this event.
    for (const { start, last } of openRanges(table, event))
      problems.push(...auditMirrors(before, table, start, last, MAX_PROBLEMS));
    const now = after.pageTables.get(table.space);
    const range = rangeOf(before, event);
    const begins =
      table.knowledge === 'events' && event.kind !== 'ioctl' && event.kind !== 'fault' && event.kind !== 'fork';
    if (now !== undefined && range !== undefined && !begins)
      problems.push(
        ...auditMirrors(after, now, range.start, range.last, MAX_PROBLEMS).filter((p) => isNew(before, table, p)),
      );
    return problems.length === 0 ? [] : [finding(event, problems)];
  },
});

/** The page table that an event is about: that of the mirror for an ioctl, of the named mm for a fault. */
function tableOf(world: World, event: Event): PageTable | undefined {
  if (event.kind === 'fault') return world.pageTables.get(world.mms.get(event.mm) ?? 0);
  const process = knownProcessOf(world, event);
  if (process === undefined) return undefined;
  if (event.kind !== 'ioctl') return world.pageTables.get(process.space);
  const file = world.fdTables.get(process.fdTable)?.fds.get(event.fd)?.file ?? 0;
  const open = world.files.get(file);
  if (open?.kind !== 'dmirror') return undefined;
  return world.pageTables.get(world.mirrors.get(open.object)?.space ?? 0);
}

/** Ranges that the event's thread changed by a call whose invalidations had to come before this event. */
function openRanges(table: PageTable, event: Event): readonly Interval[] {
  return table.changes.filter((change) => change.open && change.tid === event.tid);
}

/** The addresses whose entries the event may change; undefined where it changes none. */
function rangeOf(world: World, event: Event): Interval | undefined {
  switch (event.kind) {
    case 'munmap':
    case 'mprotect':
    case 'madvise':
      return interval(event.addr, lastOfPages(event.addr, event.lengthBytes));
    case 'mmap':
      return event.ret === null || event.ret === -1
        ? undefined
        : interval(event.ret, lastOfPages(event.ret, event.lengthBytes));
    case 'mremap':
      return interval(event.addr, lastOfPages(event.addr, event.oldLengthBytes));
    case 'fault': {
      const start = alignDown(event.addr, PAGE_BYTES);
      return interval(start, add(start, PAGE_BYTES - 1));
    }
    case 'ioctl': {
      const struct = event.memIn.find((note) => note.addr === event.arg)?.bytes;
      if (!struct?.has(0, 24)) return undefined;
      return interval(struct.u64(0), lastOf(struct.u64(0), mul(struct.u64(16), PAGE_BYTES)));
    }
    case 'brk':
      return world.mirrors.size === 0 || event.ret === null || event.ret === -1
        ? undefined
        : interval(event.ret, U64_MAX);
    case 'fork':
      return interval(0, U64_MAX);
    default:
      return undefined;
  }
}

function interval(start: Interval['start'], last: Interval['last'] | undefined): Interval | undefined {
  return last === undefined ? undefined : { start, last };
}

/** Whether the event brought it about; what was wrong before has been reported. */
function isNew(before: World, table: PageTable, problem: Problem): boolean {
  const earlier = auditMirrors(before, table, problem.start, problem.last, MAX_PROBLEMS);
  return !earlier.some(
    (p) => p.mirror.id === problem.mirror.id && p.fault === problem.fault && p.start <= problem.start,
  );
}

const WHAT: { readonly [F in Fault]: string } = {
  gone: 'the CPU has nothing there that may be read',
  'older page': 'another page is there now',
  'more rights': 'the CPU may not write there',
  'foreign memory': 'the memory is private to another device',
  'not exclusive': 'access to the page is exclusive to one side, and both have it',
};

function finding(event: Event, problems: readonly Problem[]): Finding {
  const described = problems
    .slice(0, 4)
    .map(
      (p) =>
        `${hex(p.start)}-${hex(p.last)}: dmirror${p.mirror.device} may ${p.entry.access} since event ${p.entry.since}, but ${WHAT[p.fault]}`,
    );
  const more = problems.length > 4 ? `; and ${problems.length - 4} more` : '';
  const causes = new Set<number>([event.seq]);
  for (const { entry, pte } of problems) {
    causes.add(entry.since);
    if (pte !== undefined) causes.add(pte.since);
  }
  return Object.freeze({
    invariant: NAME,
    severity: 'violation',
    seq: event.seq,
    file: event.file,
    line: event.line,
    message: `a mirror holds entries that are not the CPU's: ${described.join('; ')}${more}`,
    causes: Object.freeze([...causes].sort((a, b) => a - b)),
    advice:
      'the invalidation of this range did not reach the mirror, was too short, or was ignored as the device’s own',
  });
}
