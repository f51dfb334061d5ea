import { and } from '../../core/u64.js';
import type { Args } from './args.js';
import type { CallHead, CallReader } from './call-reader.js';
import { otherCall } from './other-call.js';
import { CLOSE_RANGE, FCNTL, FCNTL_ARG, O_CLOEXEC, OPEN } from './symbols.js';
import { type Fd, readFd, readU64 } from './values.js';

const O_CREAT_TRUNC_WRONLY = 0o1101;

/** open and its kin: the path at one position, flags at the next. */
function opens(pathAt: number): CallReader {
  return (args, head) => opened(args, head, args.path(pathAt), args.flags(pathAt + 1, OPEN));
}

function opened(args: Args, head: CallHead, path: string, flags: number) {
  return { kind: 'open', ...head, call: args.name, path, flags, retPath: args.result.path } as const;
}

/** How a call that makes an anonymous file says that exec shall close it. */
interface Cloexec {
  /** Which argument holds the flags; -1 where the call always sets close-on-exec, -2 where it never does. */
  readonly at: number;
  /** The bit of that argument, for recordings that print numbers. */
  readonly bit: number;
  /** Which argument holds a name. */
  readonly nameAt?: number;
}

const ALWAYS: Cloexec = { at: -1, bit: 0 };
const NEVER: Cloexec = { at: -2, bit: 0 };

/** Calls with one new fd that is no opened path; bits from include/uapi/linux of Linux 7.2. */
const MAKERS: Readonly<Record<string, Cloexec>> = {
  memfd_create: { at: 1, bit: 1, nameAt: 0 },
  memfd_secret: { at: 0, bit: O_CLOEXEC },
  eventfd: NEVER,
  eventfd2: { at: 1, bit: O_CLOEXEC },
  epoll_create: NEVER,
  epoll_create1: { at: 0, bit: O_CLOEXEC },
  timerfd_create: { at: 1, bit: O_CLOEXEC },
  signalfd: NEVER,
  signalfd4: { at: 3, bit: O_CLOEXEC },
  inotify_init: NEVER,
  inotify_init1: { at: 0, bit: O_CLOEXEC },
  fanotify_init: { at: 0, bit: 1 },
  userfaultfd: { at: 0, bit: O_CLOEXEC },
  socket: { at: 1, bit: O_CLOEXEC },
  accept: NEVER,
  accept4: { at: 3, bit: O_CLOEXEC },
  pidfd_open: ALWAYS,
  pidfd_getfd: ALWAYS,
  io_uring_setup: ALWAYS,
  perf_event_open: { at: 4, bit: 8 },
  landlock_create_ruleset: ALWAYS,
  open_tree: { at: 2, bit: O_CLOEXEC, nameAt: 1 },
  open_by_handle_at: { at: 2, bit: O_CLOEXEC },
  fsopen: { at: 1, bit: 1, nameAt: 0 },
  fspick: { at: 2, bit: 1, nameAt: 1 },
  fsmount: { at: 1, bit: 1 },
  mq_open: { at: 1, bit: O_CLOEXEC, nameAt: 0 },
};

function maker(how: Cloexec): CallReader {
  return (args, head) => {
    const path = how.nameAt === undefined ? '' : args.path(how.nameAt);
    return opened(args, head, path, isCloexec(args, how) ? O_CLOEXEC : 0);
  };
}

function isCloexec(args: Args, how: Cloexec): boolean {
  if (how.at < 0) return how.at === ALWAYS.at;
  const text = args.text(how.at);
  if (text.includes('CLOEXEC')) return true;
  const word = readU64(text);
  return word !== undefined && word !== 'range' && and(word, how.bit) !== 0;
}

/** The fds of `[3</a>, 4</b>]`. */
function fdList(text: string): Fd[] {
  const found: Fd[] = [];
  for (const item of text.matchAll(/(?<=[[ ])-?[0-9]+(?:<(?:[^<>]|<[^<>]*>)*>)?/g)) {
    const fd = readFd(item[0]);
    if (fd !== undefined && fd !== 'range') found.push(fd);
  }
  return found;
}

function newFds(args: Args, head: CallHead, fds: readonly Fd[], cloexec: boolean) {
  const paths = fds.map((fd) => fd.path);
  return { kind: 'newFds', ...head, call: args.name, fds: fds.map((fd) => fd.fd), paths, cloexec } as const;
}

function pair(fdsAt: number, flagsAt: number): CallReader {
  return (args, head) => {
    const fds = fdList(args.text(fdsAt));
    return newFds(args, head, fds, isCloexec(args, { at: flagsAt, bit: O_CLOEXEC }));
  };
}

/** Messages matter only where they carry rights. */
const message: CallReader = (args, head) => {
  const fds = [...args.allText.matchAll(/cmsg_type=SCM_RIGHTS, cmsg_data=(\[(?:[^\]<]|<(?:[^<>]|<[^<>]*>)*>)*\])/g)];
  const list = fds.flatMap((match) => fdList(match[1] as string));
  if (list.length === 0) return otherCall(args, head);
  return newFds(args, head, list, args.allText.includes('MSG_CMSG_CLOEXEC'));
};

const dup =
  (newFdAt: number, flagsAt: number): CallReader =>
  (args, head) => {
    const { fd, path } = args.fd(0);
    const newFd = newFdAt < 0 ? -1 : args.fd(newFdAt).fd;
    return { kind: 'dup', ...head, fd, path, newFd, flags: flagsAt < 0 ? 0 : args.flags(flagsAt, OPEN) };
  };

/** Calls that make, copy or close file descriptors. */
export const fdCalls: Readonly<Record<string, CallReader>> = {
  ...Object.fromEntries(Object.entries(MAKERS).map(([name, how]) => [name, maker(how)])),
  open: opens(0),
  openat: opens(1),
  creat: (args, head) => opened(args, head, args.path(0), O_CREAT_TRUNC_WRONLY),
  openat2: (args, head) => {
    const flags = args.wideFlags(args.named('flags') ?? '0', OPEN);
    return opened(args, head, args.path(1), typeof flags === 'number' ? flags : 0);
  },
  close: (args, head) => ({ kind: 'close', ...head, ...args.fd(0) }),
  close_range: (args, head) => ({
    kind: 'closeRange',
    ...head,
    firstFd: args.u32(0),
    lastFd: args.u32(1),
    flags: args.flags(2, CLOSE_RANGE),
  }),
  dup: dup(-1, -1),
  dup2: dup(1, -1),
  dup3: dup(1, 2),
  fcntl: fcntl,
  fcntl64: fcntl,
  pipe: pair(0, NEVER.at),
  pipe2: pair(0, 1),
  socketpair: pair(3, 1),
  recvmsg: message,
  recvmmsg: message,
  sendmsg: message,
  sendmmsg: message,
};

function fcntl(...[args, head]: Parameters<CallReader>): ReturnType<CallReader> {
  const { fd, path } = args.fd(0);
  const cmd = args.flags(1, FCNTL);
  return { kind: 'fcntl', ...head, fd, path, cmd, arg: fcntlArg(args.text(2)) };
}

/** A number, flags, or the address of a struct; a struct that strace printed counts as 0. */
function fcntlArg(text: string) {
  if (text === '' || text.startsWith('{')) return 0;
  let word = 0;
  for (const part of text.replace(/\/\*.*?\*\//g, '').split('|')) {
    const value = FCNTL_ARG.get(part.trim()) ?? readU64(part.trim());
    if (typeof value === 'bigint') return value;
    if (typeof value === 'number') word = word + value;
  }
  return word;
}
