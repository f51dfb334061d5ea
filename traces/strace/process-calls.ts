import { type U64, U64_MAX } from '../../core/u64.js';
import type { Args } from './args.js';
import type { CallHead, CallReader } from './call-reader.js';
import { CLONE, CLONE_VFORK, CLONE_VM, RLIMIT } from './symbols.js';
import { readU64, toInt } from './values.js';

function forks(flagsOf: (args: Args) => U64): CallReader {
  return (args, head) => ({ kind: 'fork', ...head, call: args.name, flags: flagsOf(args) });
}

/** The `CLONE_…` bits without the exit signal, which clone (not clone3) has in its lowest byte. */
function cloneFlags(args: Args): U64 {
  const text = args.named('flags') ?? args.text(0);
  // Names beside CLONE_* are the exit signal; a word that is only that has no flags.
  const word = /CLONE_|[0-9]/.test(text) ? args.wideFlags(text, CLONE) : 0;
  return typeof word === 'number' && args.name === 'clone' ? word - (word % 0x100) : word;
}

/** One limit of `{rlim_cur=8192*1024, rlim_max=RLIM64_INFINITY}`; null where the struct is not shown. */
function limit(text: string, field: string): U64 | null {
  const found = new RegExp(`${field}=([^,}]*)`).exec(text)?.[1];
  if (found === undefined) return null;
  if (found.includes('INFINITY')) return U64_MAX;
  const value = readU64(found);
  return value === undefined || value === 'range' ? null : value;
}

function prlimit(pidAt: number, resourceAt: number, newAt: number, oldAt: number): CallReader {
  return (args: Args, head: CallHead) => {
    const fresh = newAt < 0 ? '' : args.text(newAt);
    const old = oldAt < 0 ? '' : args.text(oldAt);
    return {
      kind: 'prlimit',
      ...head,
      targetPid: pidAt < 0 ? 0 : toInt(args.u64(pidAt)),
      resource: args.flags(resourceAt, RLIMIT),
      newSoft: limit(fresh, 'rlim_cur'),
      newHard: limit(fresh, 'rlim_max'),
      oldSoft: limit(old, 'rlim_cur'),
      oldHard: limit(old, 'rlim_max'),
    };
  };
}

/** Calls that make, replace or limit processes. */
export const processCalls: Readonly<Record<string, CallReader>> = {
  fork: forks(() => 0),
  vfork: forks(() => CLONE_VM | CLONE_VFORK),
  clone: forks(cloneFlags),
  clone2: forks(cloneFlags),
  clone3: forks(cloneFlags),
  execve: (args, head) => ({ kind: 'exec', ...head, path: args.path(0) }),
  execveat: (args, head) => ({ kind: 'exec', ...head, path: args.path(1) }),
  prlimit64: prlimit(0, 1, 2, 3),
  setrlimit: prlimit(-1, 0, 1, -1),
  getrlimit: prlimit(-1, 0, -1, 1),
  ugetrlimit: prlimit(-1, 0, -1, 1),
};
