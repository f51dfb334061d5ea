import type { Event, IoctlEvent } from '../../core/event.js';
import { rangeAt } from '../../core/interval.js';
import type { Finding, Invariant } from '../../core/invariant.js';
import { hex } from '../../core/u64.js';
import { knownProcessOf } from '../files/processes.js';
import { type Retraced, retrace } from '../hmm/retrace.js';
import { type Invalidation, isPrivateDevice, type Mirror } from '../hmm/state.js';
import type { World } from '../world.js';

/**
 * A mirror entry holds device-private memory itself, where it must hold the memory behind it.
 *
 * dmirror's private devices have no memory: each of their pages is backed by a system page, and MIGRATE_TO_DEV puts
 * the backing page into the mirror. But when READ or WRITE misses an entry, everything from there on is faulted in
 * again, and hmm_range_fault() reports the caller's own device-private pages as they are; `dmirror_do_fault` stores
 * those. The kernel has no mapping for them: it dies at the first access through such an entry.
 */
const NAME = 'mirror-bare';

export const mirrorBare: Invariant<World> = Object.freeze({
  name: NAME,
  why: 'the kernel dies when it touches device-private memory through its own page, which has no memory behind it',
  kinds: Object.freeze(['ioctl'] as const),

  /** Only a device with private memory in the space can have it in its mirror. */
  concerns(before: World, event: Event): boolean {
    if (before.mirrors.size === 0 || event.kind !== 'ioctl') return false;
    const mirror = mirrorOf(before, event);
    if (mirror === undefined || !isPrivateDevice(mirror.device)) return false;
    return ((before.pageTables.get(mirror.space)?.devices ?? 0) & (1 << mirror.device)) !== 0;
  },

  check(before: World, event: Event): readonly Finding[] {
    if (event.kind !== 'ioctl') return [];
    const traced = retrace(before, event);
    return traced === undefined ? [] : [finding(event, traced)];
  },
});

function mirrorOf(world: World, event: IoctlEvent): Mirror | undefined {
  const process = knownProcessOf(world, event);
  const file = world.fdTables.get(process?.fdTable ?? 0)?.fds.get(event.fd)?.file;
  const open = world.files.get(file ?? 0);
  return open?.kind === 'dmirror' ? world.mirrors.get(open.object) : undefined;
}

function finding(event: IoctlEvent, traced: Retraced): Finding {
  const { command, mirror, entry, missing, page, dies } = traced;
  const place = `${hex(entry.start)}-${hex(entry.last)}`;
  const device = `dmirror${mirror.device}`;
  const moved = page === undefined ? '' : ` (moved to the device by event ${page.since})`;
  const held = rangeAt(mirror.ptes, entry.start);
  const was = held === undefined ? 'had no entry' : `had an entry for ${held.access} since event ${held.since}`;
  const why =
    missing === undefined
      ? ''
      : ` At ${hex(missing.at)} the mirror lacked what ${command} needs${
          missing.since < 0 ? '' : ` (the memory there is as event ${missing.since} left it${tookAway(missing.taken)})`
        }, so all pages from there on were asked for again; for ${place} it ${was} until then.`;
  const end = dies
    ? `${command} goes through it, and the kernel dies in this call${event.ret === null ? '' : '; this one did not'}.`
    : 'The next access through it kills the kernel.';
  const causes = [page?.since, held?.since, missing?.since, missing?.taken?.seq, event.seq].filter(
    (seq) => seq !== undefined && seq >= 0,
  ) as number[];
  return Object.freeze({
    invariant: NAME,
    severity: 'violation',
    seq: event.seq,
    file: event.file,
    line: event.line,
    message: `the mirror entry of ${device} for ${place} holds the device-private page itself${moved}, not the memory that backs it. ${end}${why}`,
    causes: Object.freeze([...new Set(causes)].sort((a, b) => a - b)),
    advice: `bring the memory back by MIGRATE_TO_SYS before ${device} reads or writes a range of which its mirror lacks a part; the driver must store the backing page (lib/test_hmm.c, dmirror_do_fault)`,
  });
}

function tookAway(taken: Invalidation | undefined): string {
  if (taken === undefined) return '';
  const how = taken.derived ? ', worked out from that call' : '';
  return `, and the invalidation of ${hex(taken.start)}-${hex(taken.last)} by event ${taken.seq}${how}, took the entry away`;
}
