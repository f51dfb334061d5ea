import type { Bytes } from './bytes.js';
import type { Head } from './event-head.js';
import type { FaultEvent, InvalidateEvent, MirrorEvent } from './kernel-event.js';
import type { U64 } from './u64.js';

export * from './kernel-event.js';

/**
 * The event contract. A tape is a list of these; nothing else reaches a reducer.
 *
 * Events are plain objects that nobody changes after the importer has handed them over. A system call is
 * one event, made when it completes; `enteredAt` keeps the position of its entry, so that of two calls
 * that overlap a reader can tell which one saw which state. A call that never completes has `ret: null`.
 */

/** What is known of a call's outcome. */
interface Outcome {
  /** The `seq` that stood when the call was entered; equal to `seq` where nothing came between. */
  readonly enteredAt: number;
  /** The value returned, -1 for a failure, null where the recording has no result. */
  readonly ret: U64 | -1 | null;
  /** Symbolic error name such as `EINVAL`, or '' for success or an unknown result. */
  readonly errno: string;
  /** Whether a fault was injected into this call (strace's `(INJECTED)`). */
  readonly injected: boolean;
}

/** A statement "memory at `addr` of the calling process holds `bytes`". */
export interface MemNote {
  readonly addr: U64;
  readonly bytes: Bytes;
}

/** fd arguments carry `path`: what strace `-y` printed for it (inner text without `<>`), or ''. */
export interface IoctlEvent extends Head, Outcome {
  readonly kind: 'ioctl';
  readonly fd: number;
  readonly path: string;
  /** The 32-bit request. Ambiguous strace names are resolved to the number they share. */
  readonly request: number;
  /** Third argument: a pointer, an fd or a small integer. */
  readonly arg: U64;
  /** Memory before the call: the struct, then what its pointers lead to. Empty where not recorded. */
  readonly memIn: readonly MemNote[];
  /** The same memory after the call. */
  readonly memOut: readonly MemNote[];
}

/** read, write, pread64, pwrite64, readv, writev, preadv, pwritev. */
export interface IoEvent extends Head, Outcome {
  readonly kind: 'io';
  readonly call: string;
  readonly fd: number;
  readonly path: string;
  /** Explicit offset, or null for the file's own position. */
  readonly offset: U64 | null;
  readonly lengthBytes: U64;
  /** The bytes shown, which may be fewer than moved. */
  readonly data: Bytes;
  /** Address of the buffer, or null where the recorder printed its content only. */
  readonly addr: U64 | null;
}

/** Any call that makes one new fd from nothing: open, openat, creat, memfd_create, eventfd2, socket, … */
export interface OpenEvent extends Head, Outcome {
  readonly kind: 'open';
  readonly call: string;
  /** Path as given, or the name of a memfd; '' for anonymous files. */
  readonly path: string;
  /** `O_*` flags of open; for other calls only O_CLOEXEC is kept. */
  readonly flags: number;
  /** What strace `-y` printed for the new fd, or ''. */
  readonly retPath: string;
}

export interface CloseEvent extends Head, Outcome {
  readonly kind: 'close';
  readonly fd: number;
  readonly path: string;
}

export interface CloseRangeEvent extends Head, Outcome {
  readonly kind: 'closeRange';
  readonly firstFd: number;
  readonly lastFd: number;
  readonly flags: number;
}

/** dup, dup2 and dup3; `newFd` is -1 for dup. */
export interface DupEvent extends Head, Outcome {
  readonly kind: 'dup';
  readonly fd: number;
  readonly path: string;
  readonly newFd: number;
  readonly flags: number;
}

export interface FcntlEvent extends Head, Outcome {
  readonly kind: 'fcntl';
  readonly fd: number;
  readonly path: string;
  readonly cmd: number;
  readonly arg: U64;
}

/**
 * Several new fds at once: pipe2, socketpair, and fds received by SCM_RIGHTS (`call: 'recvmsg'`). With `call: 'sendmsg'` they
 * are not new: the fds that a message carries.
 */
export interface NewFdsEvent extends Head, Outcome {
  readonly kind: 'newFds';
  readonly call: string;
  readonly fds: readonly number[];
  readonly paths: readonly string[];
  readonly cloexec: boolean;
}

export interface MmapEvent extends Head, Outcome {
  readonly kind: 'mmap';
  readonly addr: U64;
  readonly lengthBytes: U64;
  readonly prot: number;
  readonly flags: number;
  readonly fd: number;
  readonly path: string;
  readonly offset: U64;
}

export interface MunmapEvent extends Head, Outcome {
  readonly kind: 'munmap';
  readonly addr: U64;
  readonly lengthBytes: U64;
}

export interface MprotectEvent extends Head, Outcome {
  readonly kind: 'mprotect';
  readonly addr: U64;
  readonly lengthBytes: U64;
  readonly prot: number;
}

export interface MremapEvent extends Head, Outcome {
  readonly kind: 'mremap';
  readonly addr: U64;
  readonly oldLengthBytes: U64;
  readonly newLengthBytes: U64;
  readonly flags: number;
  /** Only meaningful with MREMAP_FIXED. */
  readonly newAddr: U64;
}

export interface MadviseEvent extends Head, Outcome {
  readonly kind: 'madvise';
  readonly addr: U64;
  readonly lengthBytes: U64;
  readonly advice: number;
}

export interface BrkEvent extends Head, Outcome {
  readonly kind: 'brk';
  readonly addr: U64;
}

/**
 * fork, vfork, clone, clone3; `ret` is the child's tid. An importer hands it over before the child's first event
 * where it can: when a line of a new thread comes while a fork is unfinished, that line is its success. The
 * line of its return then makes no second event.
 */
export interface ForkEvent extends Head, Outcome {
  readonly kind: 'fork';
  readonly call: string;
  /** `CLONE_*` flags (0 for fork; CLONE_VM|CLONE_VFORK for vfork). */
  readonly flags: U64;
}

export interface ExecEvent extends Head, Outcome {
  readonly kind: 'exec';
  readonly path: string;
}

/** The end of a thread (`exit`), of a process (`exit_group`) or by a signal (`killed`). */
export interface ExitEvent extends Head {
  readonly kind: 'exit';
  readonly call: string;
  readonly status: number;
}

export interface PrlimitEvent extends Head, Outcome {
  readonly kind: 'prlimit';
  readonly targetPid: number;
  readonly resource: number;
  readonly newSoft: U64 | null;
  readonly newHard: U64 | null;
  readonly oldSoft: U64 | null;
  readonly oldHard: U64 | null;
}

/** mlock, mlock2, munlock, mlockall and munlockall; the last two have neither address nor length. */
export interface MlockEvent extends Head, Outcome {
  readonly kind: 'mlock';
  readonly call: string;
  readonly addr: U64;
  readonly lengthBytes: U64;
  /** `MLOCK_*` or `MCL_*`. */
  readonly flags: number;
}

/**
 * A call that tells or changes user ids, capabilities or the user namespace: getuid, setresuid, capget, unshare, … A field is
 * null where the call says nothing of it; so is an id that was to stay as it is (-1).
 */
export interface CredsEvent extends Head, Outcome {
  readonly kind: 'creds';
  readonly call: string;
  /** The process that capget and capset name; 0 for the caller. */
  readonly targetPid: number;
  readonly realUid: U64 | null;
  readonly effectiveUid: U64 | null;
  readonly savedUid: U64 | null;
  /** Bit n stands for capability n. */
  readonly effectiveCaps: U64 | null;
  readonly permittedCaps: U64 | null;
  /** `CLONE_NEW*` of unshare and setns, the bits of PR_SET_SECUREBITS. */
  readonly flags: number;
}

export interface SignalEvent extends Head {
  readonly kind: 'signal';
  readonly text: string;
}

/** A system call that changes nothing the model knows of; kept so that `show` shows it. */
export interface OtherEvent extends Head, Outcome {
  readonly kind: 'other';
  readonly call: string;
  /** Its arguments as printed, cut at 200 characters. */
  readonly text: string;
}

/**
 * A call that other threads' events overlap begins: the calls that change an address space, and ioctls on requests of
 * the modelled interfaces. The call itself is the event of its kind that its thread makes next; it has nothing
 * that this one lacks but the outcome. Calls that nothing overlaps, which is nearly all, have no such event.
 */
export interface EnterEvent extends Head {
  readonly kind: 'enter';
  /** Name of the system call. */
  readonly call: string;
  /** Of an ioctl; -1 for calls without. */
  readonly fd: number;
  readonly path: string;
  /** Of an ioctl, else 0. */
  readonly request: number;
  /** Where a call that changes an address space works. */
  readonly addr: U64;
  readonly lengthBytes: U64;
  readonly prot: number;
  readonly flags: number;
  readonly advice: number;
}

export type Event =
  | IoctlEvent
  | IoEvent
  | OpenEvent
  | CloseEvent
  | CloseRangeEvent
  | DupEvent
  | FcntlEvent
  | NewFdsEvent
  | MmapEvent
  | MunmapEvent
  | MprotectEvent
  | MremapEvent
  | MadviseEvent
  | BrkEvent
  | ForkEvent
  | ExecEvent
  | ExitEvent
  | PrlimitEvent
  | FaultEvent
  | InvalidateEvent
  | SignalEvent
  | OtherEvent
  | MlockEvent
  | CredsEvent
  | MirrorEvent
  | EnterEvent;

export type EventKind = Event['kind'];

const HEAD = ['seq', 'tsNs', 'pid', 'tid', 'file', 'line'] as const;
const CREDS = [
  'call',
  'targetPid',
  'realUid',
  'effectiveUid',
  'savedUid',
  'effectiveCaps',
  'permittedCaps',
  'flags',
] as const;
const OUTCOME = ['enteredAt', 'ret', 'errno', 'injected'] as const;

/**
 * The fields of each kind in tape order; the kind itself comes first in a tuple, as its index in
 * {@link EVENT_KINDS}. Both lists only ever grow at their end: a tape of any released schema stays readable.
 */
export const EVENT_FIELDS: { readonly [K in EventKind]: readonly (keyof Extract<Event, { kind: K }>)[] } = {
  ioctl: [...HEAD, ...OUTCOME, 'fd', 'path', 'request', 'arg', 'memIn', 'memOut'],
  io: [...HEAD, ...OUTCOME, 'call', 'fd', 'path', 'offset', 'lengthBytes', 'data', 'addr'],
  open: [...HEAD, ...OUTCOME, 'call', 'path', 'flags', 'retPath'],
  close: [...HEAD, ...OUTCOME, 'fd', 'path'],
  closeRange: [...HEAD, ...OUTCOME, 'firstFd', 'lastFd', 'flags'],
  dup: [...HEAD, ...OUTCOME, 'fd', 'path', 'newFd', 'flags'],
  fcntl: [...HEAD, ...OUTCOME, 'fd', 'path', 'cmd', 'arg'],
  newFds: [...HEAD, ...OUTCOME, 'call', 'fds', 'paths', 'cloexec'],
  mmap: [...HEAD, ...OUTCOME, 'addr', 'lengthBytes', 'prot', 'flags', 'fd', 'path', 'offset'],
  munmap: [...HEAD, ...OUTCOME, 'addr', 'lengthBytes'],
  mprotect: [...HEAD, ...OUTCOME, 'addr', 'lengthBytes', 'prot'],
  mremap: [...HEAD, ...OUTCOME, 'addr', 'oldLengthBytes', 'newLengthBytes', 'flags', 'newAddr'],
  madvise: [...HEAD, ...OUTCOME, 'addr', 'lengthBytes', 'advice'],
  brk: [...HEAD, ...OUTCOME, 'addr'],
  fork: [...HEAD, ...OUTCOME, 'call', 'flags'],
  exec: [...HEAD, ...OUTCOME, 'path'],
  exit: [...HEAD, 'call', 'status'],
  prlimit: [...HEAD, ...OUTCOME, 'targetPid', 'resource', 'newSoft', 'newHard', 'oldSoft', 'oldHard'],
  fault: [...HEAD, 'mm', 'addr', 'flags', 'ret'],
  invalidateStart: [...HEAD, 'mm', 'start', 'last', 'type', 'flags', 'owner'],
  invalidateEnd: [...HEAD, 'mm', 'start', 'last', 'type', 'flags', 'owner'],
  signal: [...HEAD, 'text'],
  other: [...HEAD, ...OUTCOME, 'call', 'text'],
  mlock: [...HEAD, ...OUTCOME, 'call', 'addr', 'lengthBytes', 'flags'],
  creds: [...HEAD, ...OUTCOME, ...CREDS],
  mirrorMap: [...HEAD, 'mirror', 'driver', 'mm', 'start', 'last', 'flags', 'owner', 'memory', 'notifierSeq'],
  mirrorUnmap: [...HEAD, 'mirror', 'mm', 'start', 'last'],
  mirrorInvalidate: [...HEAD, 'mirror', 'mm', 'start', 'last', 'notifierSeq'],
  mirrorEnd: [...HEAD, 'mirror', 'mm'],
  enter: [...HEAD, 'call', 'fd', 'path', 'request', 'addr', 'lengthBytes', 'prot', 'flags', 'advice'],
};

export const EVENT_KINDS: readonly EventKind[] = Object.keys(EVENT_FIELDS) as EventKind[];

/** A run of events in tape order, as importers hand them over (at most 4,096). */
export type EventBatch = readonly Event[];
export const BATCH_EVENTS = 4096;

/** What a recording says of itself, apart from its events. */
export interface RecordingInfo {
  /** `strace`, `kernel-events` or `tape`. */
  readonly format: string;
  /** File names; `event.file` points here. */
  readonly files: readonly string[];
  /** Wall or monotonic clock at `tsNs` 0, in ns; 0 where unknown. */
  readonly startNs: bigint;
  /** Kernel release the behaviour is taken from, e.g. `7.2`, where the recording tells; else ''. */
  readonly kernel: string;
}
