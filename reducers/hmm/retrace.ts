import type { IoctlEvent } from '../../core/event.js';
import { rangeAt } from '../../core/interval.js';
import { add, div, lastOf, max, min, modPow2, mul, type U64 } from '../../core/u64.js';
import { knownProcessOf } from '../files/processes.js';
import type { PteRun } from '../memory/pagetable.js';
import { Tx } from '../tx.js';
import type { World } from '../world.js';
import type { CommandName } from './commands.js';
import { coherentPages } from './devices.js';
import { Machine } from './machine.js';
import { entriesIn, firstRefused } from './mirror-table.js';
import type { Invalidation, Mirror, MirrorPte } from './state.js';
import { tryCommand } from './trials.js';

/** What a call makes of an entry that it stores, or finds, without memory behind it. */
export interface Retraced {
  /** The command as the uAPI names it, without prefix. */
  readonly command: string;
  /** The mirror as it was before the call. */
  readonly mirror: Mirror;
  readonly entry: MirrorPte;
  /** Whether the call itself goes through the entry. */
  readonly dies: boolean;
  /**
   * Where the call found its first refusal, since when the memory there is what it is (-1: nothing there), and the
   * last invalidation that took an entry from there, as far as the mirror remembers.
   */
  readonly missing: { readonly at: U64; readonly since: number; readonly taken: Invalidation | undefined } | undefined;
  /** The CPU's entry for the page. */
  readonly page: PteRun | undefined;
}

const COMMANDS: readonly (readonly [string, CommandName] | undefined)[] = [
  ['READ', 'read'],
  ['WRITE', 'write'],
  ['MIGRATE_TO_DEV', 'migrateToDev'],
  undefined,
  undefined,
  ['EXCLUSIVE', 'exclusive'],
];

/**
 * Goes through a call again on the state before it, in a sandbox, and tells which bare entry it touches or stores
 * first; undefined when none, or when the recording does not determine it.
 */
export function retrace(before: World, event: IoctlEvent): Retraced | undefined {
  const process = knownProcessOf(before, event);
  const file = before.fdTables.get(process?.fdTable ?? 0)?.fds.get(event.fd)?.file ?? 0;
  const mirror = before.mirrors.get(before.files.get(file)?.object ?? 0);
  const command = COMMANDS[event.request & 0xff];
  const struct = event.memIn.find((note) => note.addr === event.arg)?.bytes;
  if (mirror === undefined || command === undefined || !struct?.has(0, 24) || !mirror.complete) return undefined;
  const start = struct.u64(0);
  const size = mul(struct.u64(16), 4096);
  const last = lastOf(start, size);
  const npages = Number(div(size, 4096));
  if (last === undefined || modPow2(start, 4096) !== 0 || npages > 2 ** 20) return undefined;
  const tx = new Tx(before);
  const machine = Machine.of(tx, mirror.space, event.seq);
  if (machine === undefined) return undefined;
  const trials = tryCommand(
    machine,
    mirror.id,
    command[1],
    { start, last, npages },
    { device: mirror.device, sizes: coherentPages(tx, mirror.device) },
    () => false,
  );
  const entries = trials.map(({ machine: after, outcome }) => {
    const stored = entriesIn(after.mirror(mirror.id)?.ptes ?? mirror.ptes, start, last);
    return outcome.dies ?? stored.find((pte) => pte.bare && pte.since === event.seq);
  });
  const entry = entries[0];
  if (entry === undefined || entries.includes(undefined)) return undefined;
  const dies = trials.every((trial) => trial.outcome.dies !== undefined);
  return explained(
    before,
    mirror,
    command[0],
    { ...entry, start: max(entry.start, start), last: min(entry.last, last) },
    dies,
    start,
    last,
  );
}

function explained(
  before: World,
  mirror: Mirror,
  command: string,
  entry: MirrorPte,
  dies: boolean,
  start: U64,
  last: U64,
): Retraced {
  const runs = before.pageTables.get(mirror.space)?.runs;
  const page = runs === undefined ? undefined : rangeAt(runs, entry.start);
  const at = firstRefused(mirror.ptes, start, last, command === 'WRITE');
  const there = at === undefined || runs === undefined ? undefined : rangeAt(runs, at);
  const missing = at === undefined ? undefined : { at, since: there?.since ?? -1, taken: takenBy(mirror, at) };
  return { command, mirror, entry, dies, missing, page };
}

/** An invalidation reaches one page beyond its range, see machine.ts. */
function takenBy(mirror: Mirror, at: U64): Invalidation | undefined {
  return mirror.recent.findLast(({ start, last }) => start <= at && add(last, 1) >= at);
}
