import type { Event } from '../../core/event.js';
import type { Finding, Invariant } from '../../core/invariant.js';
import { hex } from '../../core/u64.js';
import { knownProcessOf } from '../files/processes.js';
import { beginningOf } from '../hmm/kernel-events.js';
import type { OpenInvalidation } from '../memory/pagetable.js';
import type { World } from '../world.js';

/**
 * Every invalidation begins once and ends once, and mirrors stand still in between.
 *
 * Between start and end the page table is in motion: a mirror that takes entries of the range then may take what is
 * about to go (that is what mmu_interval_read_begin() and read_retry() prevent). A thread ends what it began
 * before it does anything else that a recording shows, so a lost end is known at the thread's next call.
 */
const NAME = 'invalidation-balance';

export const invalidationBalance: Invariant<World> = Object.freeze({
  name: NAME,
  why: 'an invalidation that never ends stops all device faults of its range; one that never began lets stale entries live',
  kinds: Object.freeze(['invalidateEnd', 'ioctl', 'munmap', 'mprotect', 'madvise', 'close', 'open'] as const),

  concerns(before: World, event: Event): boolean {
    if (event.kind === 'invalidateEnd') {
      const table = before.pageTables.get(before.mms.get(event.mm) ?? 0);
      return table !== undefined && beginningOf(table.invalidating, event) === undefined;
    }
    return openIn(before, event).length > 0;
  },

  check(before: World, event: Event, after: World): readonly Finding[] {
    if (event.kind === 'invalidateEnd')
      return [report(event, `${hex(event.start)}-${hex(event.last)} ends without having begun`, [])];
    const open = openIn(before, event);
    const own = open.filter((o) => o.tid === event.tid && !(event.kind === 'ioctl' && o.seq >= event.enteredAt));
    const found = own.map((o) => report(event, `${hex(o.start)}-${hex(o.last)} (event ${o.seq}) never ends`, [o.seq]));
    if (event.kind !== 'ioctl') return found;
    for (const o of open)
      if (o.tid !== event.tid && o.seq < event.enteredAt && filled(after, event, o)) found.push(moved(event, o));
    return found;
  },
});

function openIn(world: World, event: Event): readonly OpenInvalidation[] {
  const process = knownProcessOf(world, event);
  return world.pageTables.get(process?.space ?? 0)?.invalidating ?? [];
}

/** Whether the call stored mirror entries in the range of the invalidation. */
function filled(after: World, event: Event, open: OpenInvalidation): boolean {
  for (const mirror of after.mirrors.values()) {
    let found = false;
    mirror.ptes.forRange(open.start, open.last, (pte) => {
      found = pte.since === event.seq;
      return !found;
    });
    if (found) return true;
  }
  return false;
}

function moved(event: Event, open: OpenInvalidation): Finding {
  const range = `${hex(open.start)}-${hex(open.last)}`;
  return report(event, `${range} (event ${open.seq}) was under way while a mirror took entries of its range`, [
    open.seq,
  ]);
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
