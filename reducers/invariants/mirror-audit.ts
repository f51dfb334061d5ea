import type { Event, EventKind } from '../../core/event.js';
import type { Interval } from '../../core/interval.js';
import type { Finding, Invariant } from '../../core/invariant.js';
import { add, alignDown, hex, lastOf, mul, U64_MAX } from '../../core/u64.js';
import { knownProcessOf } from '../files/processes.js';
import { anyMirrored, auditMirrors, type Fault, filledUnderWay, mayContradict, type Problem } from '../hmm/audit.js';
import { leftBehind, mayLeaveBehind, mayStay, storedWrongly } from '../hmm/audit-driver.js';
import { inMotion, invalidatedJustNow } from '../hmm/notified.js';
import { lastOfPages, PAGE_BYTES } from '../memory/flags.js';
import { type PageTable } from '../memory/pagetable.js';
import type { World } from '../world.js';

/**
 * What the mirror invariants have in common: they compare the mirrors with the CPU's page table and with the
 * invalidations, in the range of each event that changes one of them, and each tells one kind of difference.
 *
 * Where the recording shows calls as they begin (kernel events), their invalidations still have to come: the
 * range is looked at when the thread goes on. Memory that the recording does not determine is not judged.
 */
const MAX_PROBLEMS = 16;
const MAX_DESCRIBED = 4;

const KINDS: readonly EventKind[] = [
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
  'invalidateEnd',
  'mirrorMap',
];

/** What an invariant says about the faults that it tells. */
export interface MirrorRule {
  readonly name: string;
  readonly why: string;
  /** What is wrong, after "mirror may read since event n, but". */
  readonly faults: { readonly [F in Fault]?: string };
  readonly advice: string;
}

export function mirrorInvariant({ name, why, faults, advice }: MirrorRule): Invariant<World> {
  return Object.freeze({
    name,
    why,
    kinds: KINDS,
    concerns,
    check(before: World, event: Event, after: World): readonly Finding[] {
      const problems = problemsOf(before, event, after).filter(({ fault }) => faults[fault] !== undefined);
      return problems.length === 0 ? [] : [finding(name, advice, faults, event, problems)];
    },
  });
}

/** Several invariants ask the same of the same event, one after the other: the last answers are kept. */
let lastConcern: { readonly event: Event; readonly before: World; readonly answer: boolean } | undefined;
let lastAudit:
  | { readonly event: Event; readonly before: World; readonly after: World; readonly problems: readonly Problem[] }
  | undefined;

function concerns(before: World, event: Event): boolean {
  if (before.mirrors.size === 0 && before.notified.size === 0) return false;
  if (lastConcern?.event === event && lastConcern.before === before) return lastConcern.answer;
  const answer = mayBreak(before, event);
  lastConcern = { event, before, answer };
  return answer;
}

function mayBreak(before: World, event: Event): boolean {
  if (event.kind === 'invalidateEnd') return mayLeaveBehind(before, event);
  const table = tableOf(before, event);
  if (event.kind === 'mirrorMap') {
    if (storedWrongly(before, event, 1).length > 0) return true;
    return table !== undefined && table.knowledge !== 'nothing' && mayContradict(before, table, event);
  }
  if (table === undefined || !mayDiffer(before, table)) return false;
  if (event.kind === 'ioctl' || event.kind === 'fork') return true;
  const range = rangeOf(before, event);
  if (range !== undefined && anyMirrored(before, table, range.start, range.last)) return true;
  return openRanges(table, event).some(({ start, last }) => anyMirrored(before, table, start, last));
}

/**
 * Whether mirrors may differ from the page table at all. Where calls determine everything, the invalidations are worked out from
 * them and reach every mirror; only a migration is ignored by all mirrors of its device, and there may be two of them.
 */
function mayDiffer(before: World, { knowledge, space }: PageTable): boolean {
  if (knowledge !== 'calls') return knowledge === 'events';
  let devices = 0;
  for (const mirror of before.mirrors.values()) {
    if (mirror.space !== space) continue;
    if ((devices & (1 << mirror.device)) !== 0) return true;
    devices |= 1 << mirror.device;
  }
  return false;
}

/** All that the event shows to be wrong. */
function problemsOf(before: World, event: Event, after: World): readonly Problem[] {
  if (lastAudit?.event === event && lastAudit.before === before && lastAudit.after === after) return lastAudit.problems;
  const problems = audit(before, event, after);
  lastAudit = { event, before, after, problems };
  return problems;
}

function audit(before: World, event: Event, after: World): readonly Problem[] {
  if (event.kind === 'invalidateEnd') return leftBehind(before, event, MAX_PROBLEMS);
  const problems: Problem[] = event.kind === 'mirrorMap' ? storedWrongly(before, event, MAX_PROBLEMS) : [];
  if (event.kind === 'ioctl') problems.push(...filledUnderWay(before, event, after, MAX_PROBLEMS));
  const table = tableOf(before, event);
  if (table === undefined || table.knowledge === 'nothing') return problems;
  // The thread goes on: what it had begun must be settled, in the state before this event.
  for (const { start, last } of openRanges(table, event))
    problems.push(
      ...auditMirrors(before, table, start, last, MAX_PROBLEMS).filter((p) => !isTold(before, event, table, p)),
    );
  const now = after.pageTables.get(table.space);
  const range = rangeOf(before, event);
  if (now === undefined || range === undefined || begins(table, event)) return problems;
  for (const problem of auditMirrors(after, now, range.start, range.last, MAX_PROBLEMS)) {
    if (event.kind === 'mirrorMap' ? isSettled(before, table, problem) : isNew(before, table, problem))
      problems.push(problem);
  }
  return problems;
}

/** The page table that an event is about: that of the mirror for an ioctl, of the named mm for kernel events. */
function tableOf(world: World, event: Event): PageTable | undefined {
  if (event.kind === 'fault' || event.kind === 'mirrorMap') return world.pageTables.get(world.mms.get(event.mm) ?? 0);
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
  if (event.kind === 'mirrorMap') return [];
  return table.changes.filter((change) => change.open && change.tid === event.tid);
}

/** Whether the recording shows the call as it begins; docs/KERNEL-EVENTS.md says which are taken where. */
function begins({ knowledge }: PageTable, { kind }: Event): boolean {
  return knowledge === 'events' && (kind === 'munmap' || kind === 'mprotect' || kind === 'madvise' || kind === 'brk');
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
    case 'mirrorMap':
      return interval(event.start, event.last);
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

/** Whether it was reported when the invalidation of the thread's call ended. */
function isTold(before: World, { tid }: Event, { mm }: PageTable, { start, access }: Problem): boolean {
  const ended = mm === null ? undefined : invalidatedJustNow(before, mm, tid, start);
  return ended !== undefined && !mayStay(access, ended.type);
}

/** Whether the event brought it about; what was wrong before has been reported. */
function isNew(before: World, table: PageTable, problem: Problem): boolean {
  const earlier = auditMirrors(before, table, problem.start, problem.last, MAX_PROBLEMS);
  return !earlier.some((p) => p.mirror === problem.mirror && p.fault === problem.fault && p.start <= problem.start);
}

/**
 * Whether nobody is just changing the page table at a place: else a driver may have stored what was there before, and its
 * callback takes it away in time.
 */
function isSettled(before: World, table: PageTable, { start, last, because }: Problem): boolean {
  if (table.changes.some((c) => c.open && c.start <= last && c.last >= start)) return false;
  return !inMotion(before, table.mm ?? 0, start, because[0] ?? -1);
}

function finding(
  name: string,
  advice: string,
  faults: MirrorRule['faults'],
  event: Event,
  problems: readonly Problem[],
): Finding {
  const described = problems
    .slice(0, MAX_DESCRIBED)
    .map(
      (p) =>
        `${hex(p.start)}-${hex(p.last)}: ${p.mirror} may ${verb(p)} since event ${p.since}, but ${faults[p.fault]}`,
    );
  const more = problems.length > MAX_DESCRIBED ? `; and ${problems.length - MAX_DESCRIBED} more` : '';
  const causes = new Set(problems.flatMap(({ since, because }) => [since, ...because]));
  causes.add(event.seq);
  return Object.freeze({
    invariant: name,
    severity: 'violation',
    seq: event.seq,
    file: event.file,
    line: event.line,
    message: `${described.join('; ')}${more}`,
    causes: Object.freeze([...causes].sort((a, b) => a - b)),
    advice,
  });
}

function verb({ access }: Problem): string {
  return access === 'atomic' ? 'access exclusively' : access;
}
