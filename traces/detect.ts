import { readLeader } from './strace/leader.js';
import { quoteLength, withoutColour } from './strace/noise.js';
import { isTape, MAGIC } from './tape/frame.js';

/**
 * Tells the format of a recording from its first bytes (already gunzipped), never from its name.
 *
 * Text is judged by its lines. One line that only strace or the kernel-event recorder prints is enough: people paste
 * recordings among other output, and what is around it is skipped later. Formats that other tools print are
 * recognised so that the refusal can say what the file is.
 */
export type Detected =
  | { readonly format: 'strace' | 'kernel-events' | 'tape' }
  /** Recognised, but nothing that can be replayed. `advice`: why, and what to do; the end of a sentence that begins with the name. */
  | { readonly format: 'foreign'; readonly name: string; readonly advice: string }
  | { readonly format: 'unknown' | 'empty' | 'binary' };

/** How much of a file is looked at. */
export const DETECT_BYTES = 256 << 10;
const MAX_LINE_CHARS = 4096;

/** `head`: the beginning, at most {@link DETECT_BYTES}; `whole`: whether that is the whole file. */
export function detect(head: Uint8Array, whole: boolean): Detected {
  if (isTape(head) || (whole && isTornMagic(head))) return { format: 'tape' };
  const bytes = Buffer.from(head.buffer, head.byteOffset, head.byteLength);
  const magic = MAGICS.find(([, signature]) => bytes.subarray(0, signature.length).equals(signature));
  if (magic !== undefined) return { format: 'foreign', name: magic[0], advice: magic[2] };
  const text = bytes.toString('latin1');
  if (text.trim() === '') return { format: head.length > 0 && text.includes('\0') ? 'binary' : 'empty' };
  return detectText(text, whole);
}

function detectText(text: string, whole: boolean): Detected {
  const lines = text.split('\n');
  // The last line may be cut where the head ends; if it is the only one, it is all there is.
  if (!whole && lines.length > 1) lines.pop();
  const votes = new Map<string, number>();
  let strace = 0;
  let kernelEvents = 0;
  for (const long of lines) {
    const line = long.slice(0, MAX_LINE_CHARS);
    if (isKernelEvent(line)) kernelEvents++;
    else if (isStraceLine(line)) strace++;
    else {
      const foreign = FOREIGN.find(([, pattern]) => pattern.test(line))?.[0];
      if (foreign !== undefined) votes.set(foreign, (votes.get(foreign) ?? 0) + 1);
    }
  }
  if (strace > 0 || kernelEvents > 0) return { format: strace >= kernelEvents ? 'strace' : 'kernel-events' };
  const [name] = [...votes].reduce((best, vote) => (vote[1] > best[1] ? vote : best), ['', 0]);
  if (name !== '') return { format: 'foreign', name, advice: ADVICE[name] ?? '' };
  return { format: isBinary(text) ? 'binary' : 'unknown' };
}

/** A tape whose writer was stopped within the first bytes. */
function isTornMagic(head: Uint8Array): boolean {
  return head.length > 0 && MAGIC.subarray(0, head.length).equals(head);
}

function isKernelEvent(line: string): boolean {
  return /^(?:\u00ef\u00bb\u00bf)?\s*\{\s*"(?:ts"\s*:\s*[0-9]|.*"ev"\s*:\s*")/.test(line);
}

function isBinary(text: string): boolean {
  let strange = 0;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code === 0) return true;
    if (code < 32 && code !== 9 && code !== 10 && code !== 13 && code !== 27) strange++;
  }
  return strange * 20 > text.length;
}

// ---- strace ------------------------------------------------------------------------------------------------

/** Calls of which a finished line without an error is taken for strace's; any error line of any call is. */
const CALLS: ReadonlySet<string> = new Set(
  (
    'ioctl read write pread64 pwrite64 readv writev preadv pwritev open openat openat2 creat close close_range dup dup2 ' +
    'dup3 fcntl pipe pipe2 socket socketpair connect bind listen accept accept4 sendmsg recvmsg sendto recvfrom sendmmsg ' +
    'recvmmsg setsockopt getsockopt shutdown getsockname getpeername mmap mmap2 munmap mprotect mremap madvise brk msync ' +
    'mlock mlock2 munlock mlockall munlockall mincore memfd_create eventfd eventfd2 signalfd4 timerfd_create ' +
    'timerfd_settime userfaultfd fork vfork clone clone3 execve execveat exit exit_group wait4 waitid kill tkill tgkill ' +
    'getpid getppid gettid getuid geteuid getgid getegid setuid setgid setpgid getpgrp setsid prctl arch_prctl ' +
    'set_tid_address set_robust_list rseq futex poll ppoll select pselect6 epoll_create1 epoll_ctl epoll_wait ' +
    'epoll_pwait rt_sigaction rt_sigprocmask rt_sigreturn rt_sigsuspend rt_sigtimedwait sigaltstack nanosleep ' +
    'clock_nanosleep clock_gettime gettimeofday getrandom getrlimit setrlimit prlimit64 getrusage sysinfo uname stat ' +
    'fstat lstat newfstatat statx statfs fstatfs lseek access faccessat faccessat2 readlink readlinkat getdents ' +
    'getdents64 getcwd chdir fchdir mkdir unlink unlinkat rename ftruncate fallocate fsync fdatasync flock sched_yield ' +
    'sched_setaffinity sched_getaffinity mbind set_mempolicy get_mempolicy io_uring_setup io_uring_enter ' +
    'io_uring_register capget capset seccomp pidfd_open pidfd_getfd process_vm_readv unshare setns mount umount2 ' +
    'perf_event_open restart_syscall alarm setitimer umask'
  ).split(' '),
);
const FINISHED = /^([a-z][a-z0-9_]*)\(.*\) += (?:-?[0-9]|0x[0-9a-f]|\?)/;
const FAILED = /^[a-z][a-z0-9_]*\(.*\) += (?:-1 E[A-Z0-9]+ \(|\? ERESTART)/;
const BEGUN = /^([a-z][a-z0-9_]*)\(.*<(?:unfinished \.\.\.|detached \.\.\.)>$/;
const RESUMED = /^<\.\.\. [a-z][a-z0-9_]* resumed>/;
const END_OR_SIGNAL =
  /^(?:\+\+\+ (?:exited with [0-9]|killed by SIG|superseded by execve)|--- (?:SIG[A-Z0-9]+ \{|stopped by SIG))/;
const MESSAGE = /^(?:[^\s:]*\/)?strace: Process [0-9]+ (?:attached|detached)/;

function isStraceLine(raw: string): boolean {
  const text = withoutColour(raw.endsWith('\r') ? raw.slice(0, -1) : raw);
  const line = text.slice(readLeader(text, quoteLength(text)).end);
  if (RESUMED.test(line) || END_OR_SIGNAL.test(line) || MESSAGE.test(line) || FAILED.test(line)) return true;
  const name = (FINISHED.exec(line) ?? BEGUN.exec(line))?.[1];
  return name !== undefined && CALLS.has(name);
}

// ---- what others print -------------------------------------------------------------------------------------

const QEMU_MESSAGES = 'messages of QEMU';
const QEMU_TRACE = 'QEMU trace events';
const KERNEL_LOG = 'a kernel log (dmesg)';
const FTRACE = 'ftrace text';
const BPFTRACE = 'bpftrace output';
const TAP = 'test results (TAP)';
const SYSTEMTAP = 'SystemTap output';
const SPDK = 'a log of SPDK';
const PERF = 'perf script output';

/** One line tells; of several formats the one with the most lines wins. */
const FOREIGN: readonly (readonly [name: string, pattern: RegExp])[] = [
  [QEMU_MESSAGES, /qemu-system-[a-z0-9_-]+: /],
  [QEMU_MESSAGES, /^(?:VFIO|IOMMU|IOMMUFD)_[A-Z_]+ failed: /],
  [QEMU_MESSAGES, /\b(?:vfio|iommufd)_(?:[a-z]+_)?dma_(?:un)?map\(0x[0-9a-f]+, /],
  [
    QEMU_TRACE,
    /^(?:[0-9]+@[0-9.]+:)?(?:vfio|iommufd|smmu|vtd|virtio_iommu|hiod|host_iommu)\w*\s+(?:[0-9.]+ pid=|(?!took )\S)/,
  ],
  [QEMU_TRACE, /^\[\w+:(?:vfio|iommufd)_\w+:[0-9]+\] /],
  [KERNEL_LOG, /^(?:<[0-9]+>)?\[ *[0-9]+\.[0-9]{6}\](?:\[[^\]]*\])? /],
  [KERNEL_LOG, /^[A-Z][a-z]{2} [ 0-9][0-9] [0-9:]{8} \S+ kernel: /],
  [FTRACE, /^# tracer: |^\s*funcgraph_(?:entry|exit): |^CPU [0-9]+ is empty|^cpus=[0-9]+$/],
  [FTRACE, /^\s*\S.*-[0-9]+\s+(?:\([ 0-9-]+\)\s+)?\[[0-9]{3}\]\s+(?:\S{4,8}\s+)?[0-9]+\.[0-9]{6}: \w+:/],
  [FTRACE, /^\s*(?:un)?map: IOMMU:/],
  [BPFTRACE, /^Attaching [0-9]+ probes?\.\.\.|\bbpftrace -e\b/],
  [BPFTRACE, /^@\w*(?:\[.*)?(?::.*)?$|^\]: [0-9]+$|^\s+[a-z_]\w*\+[0-9]+$/],
  [BPFTRACE, /^\w+\(\): \w+=|^\[[0-9]+[KMG]?, [0-9]+[KMG]?\) +[0-9]+ \|/],
  [SYSTEMTAP, /^[0-9]+: \w+=(?:0x)?[0-9a-f]+ \w+=/],
  [TAP, /^\s*(?:# )*(?:TAP version [0-9]+|(?:not )?ok [0-9]+ |1\.\.[0-9]+$)/],
  [TAP, /^\s*(?:# )+\s*(?:RUN |OK |FAIL |SKIP )/],
  [SPDK, /^\w+\.c: *[0-9]+:\w+: \*[A-Z]+\*: /],
  [PERF, /^\s*\S.* [0-9]+(?:\/[0-9]+)? (?:\[[0-9]+\] )?[0-9]+\.[0-9]+: +(?:[0-9]+ )?[a-z_]+:[a-z_]+: /],
];

/** Why a text of each kind cannot be replayed, and what to do: the end of a sentence that begins with its name. */
const ADVICE: Readonly<Record<string, string>> = {
  [QEMU_MESSAGES]: 'which name the calls that failed and not those that made them fail: record QEMU with strace',
  [QEMU_TRACE]: "which show QEMU's own steps and not the answers of the kernel: record QEMU with strace",
  [KERNEL_LOG]: 'which holds what the kernel complained of and no calls: record the program with strace',
  [FTRACE]: 'which shows what goes on inside the kernel and no calls of a program: record the program with strace',
  [BPFTRACE]: 'which shows what one script chose to print: record the program with strace, or print kernel-event lines',
  [SYSTEMTAP]: 'which shows what one script chose to print: record the program with strace',
  [TAP]: 'which tell what failed and not the calls that were made: run the test under strace',
  [SPDK]: 'which names the calls that failed and not those that made them fail: record the program with strace',
  [PERF]: 'which shows events inside the kernel and no calls with their arguments: record the program with strace',
};

const TRACE_DATA =
  'which hold tracepoints of the kernel and no calls with their arguments: record the program with strace';

const MAGICS: readonly (readonly [name: string, signature: Buffer, advice: string])[] = [
  ['perf data', Buffer.from('PERFILE2'), TRACE_DATA],
  ['trace-cmd data', Buffer.from('\x17\x08\x44tracing', 'latin1'), TRACE_DATA],
  ['a zstd archive', Buffer.from('28b52ffd', 'hex'), 'which has to be decompressed first: zstd -d'],
  ['an xz archive', Buffer.from('fd377a585a00', 'hex'), 'which has to be decompressed first: xz -d'],
  ['a bzip2 archive', Buffer.from('BZh'), 'which has to be decompressed first: bzip2 -d'],
  ['a zip archive', Buffer.from('504b0304', 'hex'), 'which has to be unpacked first'],
  ['a program (ELF)', Buffer.from('7f454c46', 'hex'), 'whose run has to be recorded first'],
];
