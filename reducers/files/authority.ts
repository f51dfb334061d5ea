import type { CredsEvent, PrlimitEvent } from '../../core/event.js';
import { nameUser } from '../memory/locked.js';
import type { Tx } from '../tx.js';
import { type Creds, credsAfter, isUnknownUser } from './creds.js';
import { processOf } from './processes.js';
import type { Process } from './state.js';

/**
 * What calls tell and change of what a process may do: its limit of locked memory and its credentials.
 *
 * Both are followed, not predicted. A limit that prlimit reports is one that holds; one that it sets holds from then on,
 * also for another process, which it names by the id of a thread (kernel/sys.c, `do_prlimit`).
 */

const RLIMIT_MEMLOCK = 8;

export function limited(tx: Tx, event: PrlimitEvent): void {
  const caller = processOf(tx, event);
  if (event.ret !== 0 || event.resource !== RLIMIT_MEMLOCK) return;
  const bytes = event.newSoft ?? event.oldSoft;
  const target = event.targetPid === 0 ? caller : processOfTid(tx, event.targetPid);
  if (bytes === null || target === undefined || target.memlock.bytes === bytes) return;
  const memlock = Object.freeze({ bytes, since: event.seq });
  tx.world.processes.set(target.pid, Object.freeze({ ...target, memlock, limitsSince: event.seq }));
}

export function identified(tx: Tx, event: CredsEvent): void {
  const caller = processOf(tx, event);
  if (event.ret === null || event.ret === -1) return;
  // A recording without thread ids is of one process, and what asks for capabilities by id asks for its own.
  const own = event.targetPid === 0 || event.tid === 0;
  const target = own ? caller : processOfTid(tx, event.targetPid);
  if (target === undefined) return;
  const creds = credsAfter(target.creds, event, target.tids.size === 1);
  if (isSame(creds, target.creds)) return;
  // Until now the id was not known, and it was the same all the time: what was charged to the nameless user is this one's.
  if (event.call.startsWith('get') && isUnknownUser(target.creds.user) && !isUnknownUser(creds.user))
    nameUser(tx, target.creds.user, creds.user);
  tx.world.processes.set(target.pid, Object.freeze({ ...target, creds, limitsSince: event.seq }));
}

function isSame(a: Creds, b: Creds): boolean {
  return Object.keys(a).every((key) => a[key as keyof Creds] === b[key as keyof Creds]);
}

function processOfTid(tx: Tx, tid: number): Process | undefined {
  return tx.world.processes.get(tx.world.threads.get(tid) ?? tid);
}
