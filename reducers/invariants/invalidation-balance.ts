import type { Event } from '../../core/event.js';
import type { Finding, Invariant } from '../../core/invariant.js';
import { hex } from '../../core/u64.js';
import { knownProcessOf } from '../files/processes.js';
import { beginningOf, type MmInvalidation, openInvalidations } from '../hmm/notified.js';
import type { World } from '../world.js';

/**
 * Every invalidation begins once and ends once.
 *
 * A thread ends what it began before it does anything else that a recording shows, so a lost end is known at the thread's
 * next call. One that must not block may be refused by a callback, and then has no end.
 */
const NAME = 'invalidation-balance';

export const invalidationBalance: Invariant<World> = Object.freeze({
  name: NAME,
  why: 'an invalidation that never ends stops all device faults of its range; one that never began lets stale entries live',
  kinds: Object.freeze(['invalidateEnd', 'ioctl', 'munmap', 'mprotect', 'madvise', 'close', 'open'] as const),

  concerns(before: World, event: Event): boolean {
    if (before.notified.size === 0 && event.kind !== 'invalidateEnd') return false;
    if (event.kind !== 'invalidateEnd') return ownOpen(before, event).length > 0;
    return (
      before.mms.has(event.mm) && beginningOf(before.notified.get(event.mm)?.invalidations ?? [], event) === undefined
    );
  },

  check(before: World, event: Event): readonly Finding[] {
    if (event.kind === 'invalidateEnd')
      return [report(event, `${hex(event.start)}-${hex(event.last)} ends without having begun`, [])];
    return ownOpen(before, event).map((o) =>
      report(event, `${hex(o.start)}-${hex(o.last)} (event ${o.seq}) never ends`, [o.seq]),
    );
  },
});

/** What the event's thread began before, and has not ended though it goes on. */
function ownOpen(world: World, event: Event): readonly MmInvalidation[] {
  const process = knownProcessOf(world, event);
  const mm = world.pageTables.get(process?.space ?? 0)?.mm ?? null;
  return openInvalidations(world, mm).filter(
    (o) => o.blockable && o.tid === event.tid && !(event.kind === 'ioctl' && o.seq >= event.enteredAt),
  );
}

function report(event: Event, what: string, causes: readonly number[]): Finding {
  return Object.freeze({
    invariant: NAME,
    severity: 'violation',
    seq: event.seq,
    file: event.file,
    line: event.line,
    message: `the invalidation of ${what}`,
    causes: Object.freeze([...causes, event.seq]),
    advice: 'start and end of an invalidation come in pairs on one thread; look for the path that left one out',
  });
}
