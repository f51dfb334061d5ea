/**
 * The numbers behind the names that strace prints in arguments, as Linux on x86-64 has them: from
 * include/uapi/asm-generic/{mman-common,mman,fcntl}.h, include/uapi/linux/{mman,sched,fcntl,resource}.h and
 * arch/x86/include/uapi/asm/mman.h of Linux 7.2.
 */
export type Symbols = ReadonlyMap<string, number>;

function symbols(prefix: string, values: Readonly<Record<string, number>>): Symbols {
  return new Map(Object.entries(values).map(([name, value]) => [prefix + name, value]));
}

export const PROT: Symbols = symbols('PROT_', {
  NONE: 0,
  READ: 1,
  WRITE: 2,
  EXEC: 4,
  SEM: 8,
  GROWSDOWN: 0x0100_0000,
  GROWSUP: 0x0200_0000,
});

export const MAP: Symbols = symbols('MAP_', {
  FILE: 0,
  SHARED: 1,
  PRIVATE: 2,
  SHARED_VALIDATE: 3,
  DROPPABLE: 8,
  FIXED: 0x10,
  ANONYMOUS: 0x20,
  ANON: 0x20,
  '32BIT': 0x40,
  ABOVE4G: 0x80,
  GROWSDOWN: 0x100,
  DENYWRITE: 0x800,
  EXECUTABLE: 0x1000,
  LOCKED: 0x2000,
  NORESERVE: 0x4000,
  POPULATE: 0x8000,
  NONBLOCK: 0x1_0000,
  STACK: 0x2_0000,
  HUGETLB: 0x4_0000,
  SYNC: 0x8_0000,
  FIXED_NOREPLACE: 0x10_0000,
  UNINITIALIZED: 0x400_0000,
  HUGE_SHIFT: 26,
});

export const MREMAP: Symbols = symbols('MREMAP_', { MAYMOVE: 1, FIXED: 2, DONTUNMAP: 4 });

export const MADV: Symbols = symbols('MADV_', {
  NORMAL: 0,
  RANDOM: 1,
  SEQUENTIAL: 2,
  WILLNEED: 3,
  DONTNEED: 4,
  FREE: 8,
  REMOVE: 9,
  DONTFORK: 10,
  DOFORK: 11,
  MERGEABLE: 12,
  UNMERGEABLE: 13,
  HUGEPAGE: 14,
  NOHUGEPAGE: 15,
  DONTDUMP: 16,
  DODUMP: 17,
  WIPEONFORK: 18,
  KEEPONFORK: 19,
  COLD: 20,
  PAGEOUT: 21,
  POPULATE_READ: 22,
  POPULATE_WRITE: 23,
  DONTNEED_LOCKED: 24,
  COLLAPSE: 25,
  HWPOISON: 100,
  SOFT_OFFLINE: 101,
  GUARD_INSTALL: 102,
  GUARD_REMOVE: 103,
});

export const O_CLOEXEC = 0o2_000_000;

export const OPEN: Symbols = symbols('O_', {
  RDONLY: 0,
  WRONLY: 1,
  RDWR: 2,
  ACCMODE: 3,
  CREAT: 0o100,
  EXCL: 0o200,
  NOCTTY: 0o400,
  TRUNC: 0o1000,
  APPEND: 0o2000,
  NONBLOCK: 0o4000,
  NDELAY: 0o4000,
  DSYNC: 0o10_000,
  FASYNC: 0o20_000,
  ASYNC: 0o20_000,
  DIRECT: 0o40_000,
  LARGEFILE: 0o100_000,
  DIRECTORY: 0o200_000,
  NOFOLLOW: 0o400_000,
  NOATIME: 0o1_000_000,
  CLOEXEC: O_CLOEXEC,
  SYNC: 0o4_010_000,
  PATH: 0o10_000_000,
  TMPFILE: 0o20_200_000,
});

/** fcntl commands, and the words that stand as their argument. */
export const FCNTL: Symbols = symbols('F_', {
  DUPFD: 0,
  GETFD: 1,
  SETFD: 2,
  GETFL: 3,
  SETFL: 4,
  GETLK: 5,
  SETLK: 6,
  SETLKW: 7,
  SETOWN: 8,
  GETOWN: 9,
  SETSIG: 10,
  GETSIG: 11,
  SETOWN_EX: 15,
  GETOWN_EX: 16,
  GETOWNER_UIDS: 17,
  OFD_GETLK: 36,
  OFD_SETLK: 37,
  OFD_SETLKW: 38,
  SETLEASE: 1024,
  GETLEASE: 1025,
  NOTIFY: 1026,
  DUPFD_QUERY: 1027,
  CREATED_QUERY: 1028,
  CANCELLK: 1029,
  DUPFD_CLOEXEC: 1030,
  SETPIPE_SZ: 1031,
  GETPIPE_SZ: 1032,
  ADD_SEALS: 1033,
  GET_SEALS: 1034,
  GET_RW_HINT: 1035,
  SET_RW_HINT: 1036,
  GET_FILE_RW_HINT: 1037,
  SET_FILE_RW_HINT: 1038,
  GETDELEG: 1039,
  SETDELEG: 1040,
});
export const FCNTL_ARG: Symbols = new Map([
  ...OPEN,
  ...symbols('F_', { RDLCK: 0, WRLCK: 1, UNLCK: 2 }),
  ...symbols('F_SEAL_', { SEAL: 1, SHRINK: 2, GROW: 4, WRITE: 8, FUTURE_WRITE: 16, EXEC: 32 }),
  ['FD_CLOEXEC', 1],
]);

export const CLOSE_RANGE: Symbols = symbols('CLOSE_RANGE_', { UNSHARE: 2, CLOEXEC: 4 });

export const CLONE: Symbols = symbols('CLONE_', {
  NEWTIME: 0x80,
  VM: 0x100,
  FS: 0x200,
  FILES: 0x400,
  SIGHAND: 0x800,
  PIDFD: 0x1000,
  PTRACE: 0x2000,
  VFORK: 0x4000,
  PARENT: 0x8000,
  THREAD: 0x1_0000,
  NEWNS: 0x2_0000,
  SYSVSEM: 0x4_0000,
  SETTLS: 0x8_0000,
  PARENT_SETTID: 0x10_0000,
  CHILD_CLEARTID: 0x20_0000,
  DETACHED: 0x40_0000,
  UNTRACED: 0x80_0000,
  CHILD_SETTID: 0x100_0000,
  NEWCGROUP: 0x200_0000,
  NEWUTS: 0x400_0000,
  NEWIPC: 0x800_0000,
  NEWUSER: 0x1000_0000,
  NEWPID: 0x2000_0000,
  NEWNET: 0x4000_0000,
  IO: 0x8000_0000,
  CLEAR_SIGHAND: 0x1_0000_0000,
  INTO_CGROUP: 0x2_0000_0000,
});
export const CLONE_VM = 0x100;
export const CLONE_VFORK = 0x4000;

export const RLIMIT: Symbols = symbols('RLIMIT_', {
  CPU: 0,
  FSIZE: 1,
  DATA: 2,
  STACK: 3,
  CORE: 4,
  RSS: 5,
  NPROC: 6,
  NOFILE: 7,
  MEMLOCK: 8,
  AS: 9,
  LOCKS: 10,
  SIGPENDING: 11,
  MSGQUEUE: 12,
  NICE: 13,
  RTPRIO: 14,
  RTTIME: 15,
});

/** Flags of mlock2 and mlockall. */
export const MLOCK: Symbols = symbols('', { MLOCK_ONFAULT: 1, MCL_CURRENT: 1, MCL_FUTURE: 2, MCL_ONFAULT: 4 });

/** `prctl(PR_SET_SECUREBITS, …)`. */
export const SECBIT: Symbols = symbols('SECBIT_', {
  NOROOT: 1,
  NOROOT_LOCKED: 2,
  NO_SETUID_FIXUP: 4,
  NO_SETUID_FIXUP_LOCKED: 8,
  KEEP_CAPS: 16,
  KEEP_CAPS_LOCKED: 32,
  NO_CAP_AMBIENT_RAISE: 64,
  NO_CAP_AMBIENT_RAISE_LOCKED: 128,
  EXEC_RESTRICT_FILE: 256,
  EXEC_RESTRICT_FILE_LOCKED: 512,
  EXEC_DENY_INTERACTIVE: 1024,
  EXEC_DENY_INTERACTIVE_LOCKED: 2048,
});

/** Capabilities by number (include/uapi/linux/capability.h). */
export const CAPABILITIES: readonly string[] = (
  'CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE ' +
  'NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN ' +
  'SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE ' +
  'MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE'
).split(' ');

/** Signal numbers, for the status of a process that a signal killed. */
export const SIGNALS: Symbols = new Map(
  (
    'HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP TTIN ' +
    'TTOU URG XCPU XFSZ VTALRM PROF WINCH IO PWR SYS'
  )
    .split(' ')
    .map((name, index) => [`SIG${name}`, index + 1]),
);
