import { add, or, type U64 } from '../../core/u64.js';
import type { Args } from './args.js';
import type { CallHead, CallReader } from './call-reader.js';
import { otherCall } from './other-call.js';
import { CAPABILITIES, CLONE, SECBIT } from './symbols.js';
import { readU64, toInt } from './values.js';

/** Calls that tell or change who a process is: user ids, capabilities, the user namespace. */

/** A uid_t of -1 means "as it is", in whichever way it is printed. */
const UNCHANGED = 0xffff_ffff;

interface Told {
  readonly targetPid?: number;
  readonly realUid?: U64 | null;
  readonly effectiveUid?: U64 | null;
  readonly savedUid?: U64 | null;
  readonly effectiveCaps?: U64 | null;
  readonly permittedCaps?: U64 | null;
  readonly flags?: number;
}

const NOTHING = Object.freeze({
  targetPid: 0,
  realUid: null,
  effectiveUid: null,
  savedUid: null,
  effectiveCaps: null,
  permittedCaps: null,
  flags: 0,
});

/** The calls of 32-bit programs with ids of 32 bits end so: `setresuid32`. */
const WIDE_SUFFIX = /32$/;

function creds(told: (args: Args, head: CallHead) => Told): CallReader {
  return (args, head) => ({
    kind: 'creds',
    ...head,
    call: args.name.replace(WIDE_SUFFIX, ''),
    ...NOTHING,
    ...told(args, head),
  });
}

/** An id that is to be set. */
function uid(args: Args, index: number): U64 | null {
  const value = toInt(args.u64(index)) >>> 0;
  return value === UNCHANGED ? null : value;
}

/** `[1000]`, as getresuid prints what it wrote. */
function uidBehind(args: Args, index: number): U64 | null {
  const found = /^\[(\d+)\]/.exec(args.text(index));
  return found === null ? null : (readU64(found[1] as string) as U64);
}

function returned(head: CallHead): U64 | null {
  return head.ret === -1 ? null : head.ret;
}

const CAP_BITS: ReadonlyMap<string, U64> = new Map(
  CAPABILITIES.map((name, bit): [string, U64] => [`CAP_${name}`, 2 ** bit]),
);
const UPPER_WORD = 2 ** 32;

/**
 * One set of `{effective=1<<CAP_CHOWN|1<<CAP_MAC_OVERRIDE, permitted=0xfeffffff|0x1ff, …}`; null where the struct is not
 * shown. Numbers are the two words of the set, the lower first.
 */
function capabilities(text: string, field: string): U64 | null {
  const found = new RegExp(`${field}=([^,}]*)`).exec(text.replace(/\/\*.*?\*\//g, ''))?.[1];
  if (found === undefined) return null;
  let caps: U64 = 0;
  let words = 0;
  for (const part of found.split('|')) {
    const name = part.trim().replace(/^1<</, '');
    const number = readU64(name);
    if (typeof number === 'number' && number < UPPER_WORD) {
      caps = words === 0 ? or(caps, number) : add(caps, number * UPPER_WORD);
      words++;
    } else caps = or(caps, CAP_BITS.get(name) ?? 0);
  }
  return caps;
}

const capsCall = creds((args) => ({
  targetPid: toInt((readU64(/pid=(\d+)/.exec(args.text(0))?.[1] ?? '0') ?? 0) as U64),
  effectiveCaps: capabilities(args.text(1), 'effective'),
  permittedCaps: capabilities(args.text(1), 'permitted'),
}));

const CLONE_NEWUSER = 0x1000_0000;

/** unshare, and setns with the kind of namespace: only the user namespace is of interest; setns without a kind may be one. */
function namespaceCall(flagsAt: number): CallReader {
  const reader = creds((args) => ({ flags: args.flags(flagsAt, CLONE) }));
  return (args, head) => {
    const flags = args.flags(flagsAt, CLONE);
    return flags & CLONE_NEWUSER || (flags === 0 && args.name === 'setns') ? reader(args, head) : otherCall(args, head);
  };
}

const PR_SET_SECUREBITS = 28;
const secureBits = creds((args) => ({ flags: args.flags(1, SECBIT) }));

/** Calls by name; the others of prctl stay as they are. */
export const credsCalls: Readonly<Record<string, CallReader>> = Object.fromEntries(
  Object.entries({
    getuid: creds((_args, head) => ({ realUid: returned(head) })),
    geteuid: creds((_args, head) => ({ effectiveUid: returned(head) })),
    getresuid: creds((args) => ({
      realUid: uidBehind(args, 0),
      effectiveUid: uidBehind(args, 1),
      savedUid: uidBehind(args, 2),
    })),
    setuid: creds((args) => ({ effectiveUid: uid(args, 0) })),
    setreuid: creds((args) => ({ realUid: uid(args, 0), effectiveUid: uid(args, 1) })),
    setresuid: creds((args) => ({
      realUid: uid(args, 0),
      effectiveUid: uid(args, 1),
      savedUid: uid(args, 2),
    })),
    capget: capsCall,
    capset: capsCall,
    unshare: namespaceCall(0),
    setns: namespaceCall(1),
    prctl: (args: Args, head: CallHead) =>
      args.text(0) === 'PR_SET_SECUREBITS' || readU64(args.text(0)) === PR_SET_SECUREBITS
        ? secureBits(args, head)
        : otherCall(args, head),
  } satisfies Record<string, CallReader>).flatMap(([name, reader]) =>
    name.endsWith('uid') ? [[name, reader] as const, [`${name}32`, reader] as const] : [[name, reader] as const],
  ),
);
