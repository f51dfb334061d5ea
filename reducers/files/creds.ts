import type { CredsEvent } from '../../core/event.js';
import type { U64 } from '../../core/u64.js';

/**
 * Who a process is, as far as the recording tells: its user ids, and the capabilities that limits ask for.
 *
 * The kernel keeps credentials per thread; glibc makes every thread follow a set*uid, capset concerns its caller alone.
 * Here they are kept per process, and what a process of several threads was told not to have is `unlikely` only.
 *
 * - fork hands them on. A new user namespace (CLONE_NEWUSER) takes every capability outside of it, which is what limits
 *   ask about (`capable`), and its user ids mean nothing outside.
 * - capget and capset tell the capabilities; getuid and its like the ids, and ids alone tell no capability: root in a
 *   container may lack it, a program may have got it from its file.
 * - set*uid (kernel/sys.c; security/commoncap.c, `cap_emulate_setxuid`): an effective id that leaves 0 takes all effective
 *   capabilities, one that becomes 0 gives what is permitted; so does the last of the three ids that leaves 0, unless
 *   PR_SET_KEEPCAPS was asked for. PR_SET_SECUREBITS can end all this.
 * - execve (`cap_bprm_creds_from_file`): root has all that its bounding set leaves; others have what the file gives, which
 *   no recording shows, and ambient ones.
 */

/** Whether a capability is held. `unlikely`: an outcome or a likely rule says so, and nothing excludes the contrary. */
export type Held = 'yes' | 'no' | 'unlikely' | 'unknown';

export interface Creds {
  readonly realUid: number | null;
  readonly effectiveUid: number | null;
  readonly savedUid: number | null;
  readonly ipcLock: Held;
  readonly sysResource: Held;
  /** It was told to have CAP_SETUID: with an effective id that is not known it is root, as good as always. */
  readonly setUid: boolean;
  /** `seq` of the event that `ipcLock` is known from; -1 where it is not known. */
  readonly ipcLockSince: number;
  /** PR_SET_SECUREBITS may have untied capabilities from user ids. */
  readonly untied: boolean;
  /** In a user namespace that a recorded call made or entered. */
  readonly inNamespace: boolean;
  /** Whom pages are charged to: the real user id; {@link isUnknownUser} while that is not known. */
  readonly user: number;
}

/** Above all user ids. */
const UNKNOWN_USERS = 2 ** 33;

/** Key of a user whose id is not known: that of a process that came from nowhere at an event, and of its children. */
function unknownUser(seq: number): number {
  return UNKNOWN_USERS + seq;
}

export function isUnknownUser(user: number): boolean {
  return user >= UNKNOWN_USERS;
}

/** The credentials of a process of which nothing was recorded before the event `seq`. */
export function unknownCreds(seq: number): Creds {
  return Object.freeze({
    realUid: null,
    effectiveUid: null,
    savedUid: null,
    ipcLock: 'unknown',
    sysResource: 'unknown',
    setUid: false,
    ipcLockSince: -1,
    untied: false,
    inNamespace: false,
    user: unknownUser(seq),
  });
}

/** Whether a call has told anything of them. */
export function isTold(creds: Creds): boolean {
  return creds.realUid !== null || creds.effectiveUid !== null || creds.ipcLockSince >= 0 || creds.inNamespace;
}

type Uids = Pick<Creds, 'realUid' | 'effectiveUid' | 'savedUid'>;

const CAP_SETUID = 7;
const CAP_IPC_LOCK = 14;
const CAP_SYS_RESOURCE = 24;
export const CLONE_NEWUSER = 0x1000_0000;

/** The credentials after a call that succeeded. `alone`: the process has one thread. */
export function credsAfter(creds: Creds, event: CredsEvent, alone: boolean): Creds {
  switch (event.call) {
    case 'getuid':
    case 'geteuid':
    case 'getresuid':
      return toldUids(creds, event);
    case 'setuid':
    case 'setreuid':
    case 'setresuid':
      return withUids(creds, uidsAfter(creds, event), event.seq, alone);
    case 'capget':
    case 'capset':
      return event.effectiveCaps === null ? creds : withCaps(creds, event.effectiveCaps, event.seq, alone);
    case 'prctl':
      return Object.freeze({ ...creds, untied: event.flags !== 0 });
    default:
      return enteredNamespace(creds, event);
  }
}

function uidOf(value: U64 | null): number | null {
  return value === null ? null : Number(value);
}

/** Ids that a call reports. An effective id that is not the one expected came with the file of an execve. */
function toldUids(creds: Creds, event: CredsEvent): Creds {
  const effectiveUid = uidOf(event.effectiveUid) ?? creds.effectiveUid;
  const surprise = creds.effectiveUid !== null && effectiveUid !== creds.effectiveUid;
  return Object.freeze({
    ...creds,
    ...(surprise ? NO_CAPS_KNOWN : {}),
    realUid: uidOf(event.realUid) ?? creds.realUid,
    effectiveUid,
    savedUid: uidOf(event.savedUid) ?? (surprise ? null : creds.savedUid),
    user: creds.inNamespace ? creds.user : (uidOf(event.realUid) ?? creds.user),
  });
}

const NO_CAPS_KNOWN = { ipcLock: 'unknown', sysResource: 'unknown', setUid: false, ipcLockSince: -1 } as const;

function withCaps(creds: Creds, caps: U64, seq: number, alone: boolean): Creds {
  if (creds.inNamespace) return creds;
  const has = (bit: number): boolean => ((BigInt(caps) >> BigInt(bit)) & 1n) !== 0n;
  const held = (bit: number): Held => (has(bit) ? 'yes' : alone ? 'no' : 'unlikely');
  return Object.freeze({
    ...creds,
    ipcLock: held(CAP_IPC_LOCK),
    sysResource: held(CAP_SYS_RESOURCE),
    setUid: has(CAP_SETUID),
    ipcLockSince: seq,
  });
}

// ---- set*uid -----------------------------------------------------------------------------------------------

function uidsAfter(old: Creds, event: CredsEvent): Uids {
  const real = uidOf(event.realUid);
  const effective = uidOf(event.effectiveUid);
  switch (event.call) {
    case 'setuid':
      return afterSetuid(old, effective);
    case 'setreuid': {
      const effectiveUid = effective ?? old.effectiveUid;
      const saves = real !== null || (effective !== null && effective !== old.realUid);
      const unsure = real === null && effective !== null && old.realUid === null;
      return {
        realUid: real ?? old.realUid,
        effectiveUid,
        savedUid: unsure ? null : saves ? effectiveUid : old.savedUid,
      };
    }
    default:
      return {
        realUid: real ?? old.realUid,
        effectiveUid: effective ?? old.effectiveUid,
        savedUid: uidOf(event.savedUid) ?? old.savedUid,
      };
  }
}

/** With CAP_SETUID all three ids change, otherwise the effective one, to one of the two others. */
function afterSetuid(old: Creds, uid: number | null): Uids {
  const foreign = old.realUid !== null && old.savedUid !== null && uid !== old.realUid && uid !== old.savedUid;
  if (old.effectiveUid === 0 || foreign) return { realUid: uid, effectiveUid: uid, savedUid: uid };
  const same = (id: number | null): number | null => (id === uid ? uid : null);
  return { realUid: same(old.realUid), effectiveUid: uid, savedUid: same(old.savedUid) };
}

function withUids(creds: Creds, next: Uids, seq: number, alone: boolean): Creds {
  const ipcLock = afterUids(creds, creds.ipcLock, next, alone);
  const moved = next.realUid !== creds.realUid;
  const user = creds.inNamespace || next.realUid === null ? unknownUser(seq) : next.realUid;
  return Object.freeze({
    ...creds,
    ...next,
    ipcLock,
    sysResource: afterUids(creds, creds.sysResource, next, alone),
    setUid: false,
    ipcLockSince: ipcLock === creds.ipcLock ? creds.ipcLockSince : ipcLock === 'unknown' ? -1 : seq,
    user: moved ? user : creds.user,
  });
}

/** What set*uid leaves of a capability (`cap_emulate_setxuid`). */
function afterUids(old: Creds, held: Held, next: Uids, alone: boolean): Held {
  if (old.inNamespace) return held;
  if (next.effectiveUid === 0) return old.effectiveUid === 0 || held === 'yes' ? held : 'unknown';
  if (held === 'no' || held === 'unlikely') return held;
  if (old.untied || next.effectiveUid === null) return 'unknown';
  if (old.effectiveUid === 0) return alone ? 'no' : 'unlikely';
  // Mostly it is root who becomes somebody else.
  if (old.effectiveUid === null && (held === 'unknown' || old.setUid)) return 'unlikely';
  const neverRoot = isOther(old.realUid) && isOther(old.effectiveUid) && isOther(old.savedUid);
  return neverRoot ? held : 'unknown';
}

/** A known id that is not root's. */
function isOther(uid: number | null): boolean {
  return uid !== null && uid !== 0;
}

// ---- namespaces, execve, fork ------------------------------------------------------------------------------

function enteredNamespace(creds: Creds, event: CredsEvent): Creds {
  if (event.flags & CLONE_NEWUSER) return inNewNamespace(creds, event.seq);
  return creds.inNamespace ? creds : Object.freeze({ ...creds, ...NO_CAPS_KNOWN });
}

/** The credentials of a process that a call put into a user namespace. */
export function inNewNamespace(creds: Creds, seq: number): Creds {
  return Object.freeze({
    ...creds,
    realUid: null,
    effectiveUid: null,
    savedUid: null,
    ipcLock: 'no',
    sysResource: 'no',
    setUid: false,
    ipcLockSince: seq,
    inNamespace: true,
  });
}

/** The credentials after an execve; that the file has no owner's rights of its own is likely, not sure. */
export function credsAfterExec(creds: Creds, seq: number): Creds {
  const ipcLock = heldAfterExec(creds, creds.ipcLock);
  return Object.freeze({
    ...creds,
    savedUid: creds.effectiveUid,
    ipcLock,
    sysResource: heldAfterExec(creds, creds.sysResource),
    setUid: false,
    ipcLockSince: ipcLock === creds.ipcLock ? creds.ipcLockSince : ipcLock === 'unknown' ? -1 : seq,
  });
}

function heldAfterExec(creds: Creds, held: Held): Held {
  if (creds.inNamespace) return held;
  if (isOther(creds.effectiveUid) && isOther(creds.realUid)) return 'unlikely';
  return creds.effectiveUid === 0 && held === 'yes' && !creds.untied ? 'yes' : 'unknown';
}
