import * as assert from 'uvu/assert';
import type { Event } from '../../core/event.js';
import { suite } from '../../core/testing.js';
import { U64_MAX } from '../../core/u64.js';
import { CAPABILITIES } from './symbols.js';
import { parse, show } from './testing.js';

const test = suite('strace calls');

const COMMON = ['seq', 'tsNs', 'pid', 'tid', 'file', 'line', 'enteredAt', 'errno', 'injected'];

/** The call's own fields, and `ret`. */
function own(event: Event): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(event)
      .filter(([name]) => !COMMON.includes(name))
      .map(([name, value]) => [name, name === 'data' ? String((value as { toHex(): string }).toHex()) : value]),
  );
}

function check(rows: readonly [text: string, expected: Record<string, unknown>][]): void {
  for (const [text, expected] of rows) {
    const { events, log } = parse(`${text}\n`);
    assert.equal([events.length, log.list], [1, []], text);
    assert.equal(own(events[0] as Event), expected, text);
    assert.is(show(parse(`${text}\n`, { fast: false }).events), show(events), text);
  }
}

test('memory', () => {
  check([
    [
      'mmap(NULL, 8192, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x7f983dd9c000',
      {
        kind: 'mmap',
        ret: 0x7f983dd9c000,
        addr: 0,
        lengthBytes: 8192,
        prot: 3,
        flags: 0x22,
        fd: -1,
        path: '',
        offset: 0,
      },
    ],
    [
      'mmap(0x7f983dd98000, 4096, PROT_NONE, MAP_SHARED|MAP_FIXED|MAP_HUGETLB|30<<MAP_HUGE_SHIFT, 3</dev/iommu>, 0x1000) = -1 ENOMEM (Cannot allocate memory)',
      {
        kind: 'mmap',
        ret: -1,
        addr: 0x7f983dd98000,
        lengthBytes: 4096,
        prot: 0,
        flags: 0x78040011,
        fd: 3,
        path: '/dev/iommu',
        offset: 4096,
      },
    ],
    [
      'mmap(0xfffffffffffff000, 18446744073709551615, 0x7 /* PROT_READ|PROT_WRITE|PROT_EXEC */, 0x812, 3, 0xfffffffffffff000) = 0xfffffffffffff000',
      {
        kind: 'mmap',
        ret: 0xfffffffffffff000n,
        addr: 0xfffffffffffff000n,
        lengthBytes: U64_MAX,
        prot: 7,
        flags: 0x812,
        fd: 3,
        path: '',
        offset: 0xfffffffffffff000n,
      },
    ],
    ['munmap(0x7f983dd93000, 12467) = 0', { kind: 'munmap', ret: 0, addr: 0x7f983dd93000, lengthBytes: 12467 }],
    ['mprotect(0x1000, 16384, PROT_READ) = 0', { kind: 'mprotect', ret: 0, addr: 0x1000, lengthBytes: 16384, prot: 1 }],
    [
      'mremap(0x1000, 4096, 8192, MREMAP_MAYMOVE|MREMAP_FIXED|MREMAP_DONTUNMAP, 0x9000) = 0x9000',
      {
        kind: 'mremap',
        ret: 0x9000,
        addr: 0x1000,
        oldLengthBytes: 4096,
        newLengthBytes: 8192,
        flags: 7,
        newAddr: 0x9000,
      },
    ],
    [
      'mremap(0x1000, 4096, 8192, MREMAP_MAYMOVE) = 0x9000',
      { kind: 'mremap', ret: 0x9000, addr: 0x1000, oldLengthBytes: 4096, newLengthBytes: 8192, flags: 1, newAddr: 0 },
    ],
    [
      'madvise(0x1000, 4096, MADV_POPULATE_WRITE) = 0',
      { kind: 'madvise', ret: 0, addr: 0x1000, lengthBytes: 4096, advice: 23 },
    ],
    [
      'madvise(0x1000, 4096, 0x19 /* MADV_COLLAPSE */) = 0',
      { kind: 'madvise', ret: 0, addr: 0x1000, lengthBytes: 4096, advice: 25 },
    ],
    ['brk(NULL) = 0x55c793a0c000', { kind: 'brk', ret: 0x55c793a0c000, addr: 0 }],
  ]);
});

test('making fds', () => {
  const open = (call: string, path: string, flags: number, ret: number, retPath = '') => {
    return { kind: 'open', ret, call, path, flags, retPath };
  };
  check([
    [
      'openat(AT_FDCWD</lab>, "/dev/iommu", O_RDWR|O_CLOEXEC) = 4</dev/iommu>',
      open('openat', '/dev/iommu', 0x80002, 4, '/dev/iommu'),
    ],
    [
      'openat(-100 /* AT_FDCWD */, "/dev/null", 0x80002 /* O_RDWR|O_CLOEXEC */) = 3',
      open('openat', '/dev/null', 0x80002, 3),
    ],
    ['open("/a\\x20b\\303\\244", O_RDONLY) = 3', open('open', '/a bä', 0, 3)],
    ['open("/tmp/x", O_WRONLY|O_CREAT|O_TRUNC, 0644) = 3', open('open', '/tmp/x', 0o1101, 3)],
    [
      'openat2(AT_FDCWD, "/a", {flags=O_RDWR|O_CLOEXEC, resolve=RESOLVE_BENEATH}, 24) = 3',
      open('openat2', '/a', 0x80002, 3),
    ],
    ['creat("/a", 0600) = 3', open('creat', '/a', 0o1101, 3)],
    [
      'memfd_create("buffer", MFD_CLOEXEC|MFD_ALLOW_SEALING) = 3</memfd:buffer>(deleted)',
      open('memfd_create', 'buffer', 0x80000, 3, '/memfd:buffer'),
    ],
    ['memfd_create("buffer", 0x2) = 3', open('memfd_create', 'buffer', 0, 3)],
    [
      'eventfd2(0, EFD_CLOEXEC|EFD_NONBLOCK) = 4<anon_inode:[eventfd]>',
      open('eventfd2', '', 0x80000, 4, 'anon_inode:[eventfd]'),
    ],
    ['eventfd2(0, 0) = 4', open('eventfd2', '', 0, 4)],
    ['socket(AF_UNIX, SOCK_STREAM|SOCK_CLOEXEC, 0) = 3', open('socket', '', 0x80000, 3)],
    ['socket(0x1, 0x80001, 0) = 3', open('socket', '', 0x80000, 3)],
    ['pidfd_open(12, 0) = 3', open('pidfd_open', '', 0x80000, 3)],
    ['io_uring_setup(8, {flags=0, sq_thread_cpu=0, sq_entries=8}) = 3', open('io_uring_setup', '', 0x80000, 3)],
    [
      'perf_event_open({type=PERF_TYPE_HARDWARE}, 0, -1, -1, PERF_FLAG_FD_CLOEXEC) = 3',
      open('perf_event_open', '', 0x80000, 3),
    ],
    ['accept4(3, {sa_family=AF_UNIX}, [110 => 2], SOCK_CLOEXEC) = 4', open('accept4', '', 0x80000, 4)],
    [
      'pipe2([3<pipe:[1]>, 4<pipe:[1]>], O_CLOEXEC) = 0',
      { kind: 'newFds', ret: 0, call: 'pipe2', fds: [3, 4], paths: ['pipe:[1]', 'pipe:[1]'], cloexec: true },
    ],
    ['pipe([3, 4]) = 0', { kind: 'newFds', ret: 0, call: 'pipe', fds: [3, 4], paths: ['', ''], cloexec: false }],
    [
      'socketpair(AF_UNIX, SOCK_STREAM, 0, [5, 6]) = 0',
      { kind: 'newFds', ret: 0, call: 'socketpair', fds: [5, 6], paths: ['', ''], cloexec: false },
    ],
    [
      'recvmsg(5, {msg_name=NULL, msg_namelen=0, msg_iov=[{iov_base="x", iov_len=1}], msg_iovlen=1, msg_control=[{cmsg_len=24, cmsg_level=SOL_SOCKET, cmsg_type=SCM_RIGHTS, cmsg_data=[6</dev/vfio/vfio>, 7<anon_inode:[eventfd]>]}], msg_controllen=24, msg_flags=0}, MSG_CMSG_CLOEXEC) = 1',
      {
        kind: 'newFds',
        ret: 1,
        call: 'recvmsg',
        fds: [6, 7],
        paths: ['/dev/vfio/vfio', 'anon_inode:[eventfd]'],
        cloexec: true,
      },
    ],
    [
      'sendmsg(5, {msg_name=NULL, msg_namelen=0, msg_iov=[{iov_base="x", iov_len=1}], msg_iovlen=1, msg_control=[{cmsg_len=20, cmsg_level=SOL_SOCKET, cmsg_type=SCM_RIGHTS, cmsg_data=[6</dev/vfio/vfio>]}], msg_controllen=24, msg_flags=0}, 0) = 1',
      { kind: 'newFds', ret: 1, call: 'sendmsg', fds: [6], paths: ['/dev/vfio/vfio'], cloexec: false },
    ],
  ]);
});

test('using fds', () => {
  check([
    ['close(3</dev/iommu>) = 0', { kind: 'close', ret: 0, fd: 3, path: '/dev/iommu' }],
    [
      'close_range(3, 4294967295, CLOSE_RANGE_CLOEXEC) = 0',
      { kind: 'closeRange', ret: 0, firstFd: 3, lastFd: 0xffffffff, flags: 4 },
    ],
    ['dup(3</a>) = 4</a>', { kind: 'dup', ret: 4, fd: 3, path: '/a', newFd: -1, flags: 0 }],
    ['dup2(3, 4) = 4', { kind: 'dup', ret: 4, fd: 3, path: '', newFd: 4, flags: 0 }],
    ['dup3(3, 4, O_CLOEXEC) = 4', { kind: 'dup', ret: 4, fd: 3, path: '', newFd: 4, flags: 0x80000 }],
    ['fcntl(3, F_DUPFD_CLOEXEC, 10) = 10', { kind: 'fcntl', ret: 10, fd: 3, path: '', cmd: 1030, arg: 10 }],
    ['fcntl(3, F_SETFD, FD_CLOEXEC) = 0', { kind: 'fcntl', ret: 0, fd: 3, path: '', cmd: 2, arg: 1 }],
    [
      'fcntl(3, F_GETFL) = 0x8000 (flags O_RDONLY|O_LARGEFILE)',
      { kind: 'fcntl', ret: 0x8000, fd: 3, path: '', cmd: 3, arg: 0 },
    ],
    [
      'fcntl(3, 0x2 /* F_SETFD */, 0x1 /* FD_CLOEXEC */) = 0',
      { kind: 'fcntl', ret: 0, fd: 3, path: '', cmd: 2, arg: 1 },
    ],
    ['fcntl(3, F_SETLK, {l_type=F_WRLCK, l_start=0}) = 0', { kind: 'fcntl', ret: 0, fd: 3, path: '', cmd: 6, arg: 0 }],
  ]);
});

test('reading and writing', () => {
  const io = (call: string, more: Record<string, unknown>) => {
    return {
      kind: 'io',
      ret: 2,
      call,
      fd: 3,
      path: '',
      offset: null,
      lengthBytes: 2,
      data: '4142',
      addr: null,
      ...more,
    };
  };
  check([
    ['read(3, "AB", 2) = 2', io('read', {})],
    ['read(3, "A\\x42"..., 20) = 2', io('read', { lengthBytes: 20 })],
    ['read(3</etc/passwd>, "AB", 2) = 2', io('read', { path: '/etc/passwd', data: '' })],
    ['read(3</dev/vfio/1>, "\\1\\0\\n\\"", 2) = 2', io('read', { path: '/dev/vfio/1', data: '01000a22' })],
    [
      'write(4</proc/7/task/7/fail-nth>, "3", 1) = 1',
      io('write', { ret: 1, fd: 4, path: '/proc/7/task/7/fail-nth', data: '33', lengthBytes: 1 }),
    ],
    ['pread64(3, "AB", 2, 7696581394432) = 2', io('pread64', { offset: 7696581394432 })],
    ['pwrite64(3, "AB", 2, 0) = 2', io('pwrite64', { offset: 0 })],
    [
      'pwrite64(-1, NULL, 2, 0) = -1 EBADF (Bad file descriptor)',
      io('pwrite64', { ret: -1, fd: -1, offset: 0, data: '', addr: 0 }),
    ],
    [
      'read(3, 0x7ffd5be5b4e8, 2) = ? ERESTARTSYS (To be restarted if SA_RESTART is set)',
      io('read', { ret: null, data: '', addr: 0x7ffd5be5b4e8 }),
    ],
    ['writev(3, [{iov_base="A", iov_len=1}, {iov_base="B", iov_len=1}], 2) = 2', io('writev', {})],
    ['preadv(3, [{iov_base="AB", iov_len=5}], 1, 4096) = 2', io('preadv', { lengthBytes: 5, offset: 4096 })],
  ]);
});

test('processes', () => {
  check([
    ['fork() = 12', { kind: 'fork', ret: 12, call: 'fork', flags: 0 }],
    ['vfork() = 12', { kind: 'fork', ret: 12, call: 'vfork', flags: 0x4100 }],
    [
      'clone(child_stack=NULL, flags=CLONE_CHILD_CLEARTID|CLONE_CHILD_SETTID|SIGCHLD, child_tidptr=0x7f) = 12',
      { kind: 'fork', ret: 12, call: 'clone', flags: 0x1200000 },
    ],
    ['clone(child_stack=NULL, flags=SIGCHLD) = 12', { kind: 'fork', ret: 12, call: 'clone', flags: 0 }],
    [
      'clone(child_stack=NULL, flags=0x1200011, child_tidptr=0x7f) = 12',
      { kind: 'fork', ret: 12, call: 'clone', flags: 0x1200000 },
    ],
    [
      'clone3({flags=CLONE_VM|CLONE_THREAD|CLONE_INTO_CGROUP, exit_signal=0} => {parent_tid=[12]}, 88) = 12',
      { kind: 'fork', ret: 12, call: 'clone3', flags: 0x200010100 },
    ],
    [
      'execve("./iommufd", ["./iommufd", "-r"], 0x56214d83d980 /* 8 vars */) = 0',
      { kind: 'exec', ret: 0, path: './iommufd' },
    ],
    ['execveat(3, "", ["x"], 0x5 /* 8 vars */, AT_EMPTY_PATH) = 0', { kind: 'exec', ret: 0, path: '' }],
    [
      'prlimit64(0, RLIMIT_MEMLOCK, {rlim_cur=8192*1024, rlim_max=RLIM64_INFINITY}, NULL) = 0',
      {
        kind: 'prlimit',
        ret: 0,
        targetPid: 0,
        resource: 8,
        newSoft: 8388608,
        newHard: U64_MAX,
        oldSoft: null,
        oldHard: null,
      },
    ],
    [
      'getrlimit(RLIMIT_MEMLOCK, {rlim_cur=64*1024, rlim_max=64*1024}) = 0',
      {
        kind: 'prlimit',
        ret: 0,
        targetPid: 0,
        resource: 8,
        newSoft: null,
        newHard: null,
        oldSoft: 65536,
        oldHard: 65536,
      },
    ],
    [
      'setrlimit(RLIMIT_NOFILE, {rlim_cur=5, rlim_max=6}) = 0',
      { kind: 'prlimit', ret: 0, targetPid: 0, resource: 7, newSoft: 5, newHard: 6, oldSoft: null, oldHard: null },
    ],
    ['gettid() = 7', { kind: 'other', ret: 7, call: 'gettid', text: '' }],
    [
      'restart_syscall(<... resuming interrupted read ...>) = 0',
      { kind: 'other', ret: 0, call: 'restart_syscall', text: '<... resuming interrupted read ...>' },
    ],
  ]);
});

test('memory that is locked', () => {
  check([
    ['mlock(0x1000, 8192) = 0', { kind: 'mlock', ret: 0, call: 'mlock', addr: 4096, lengthBytes: 8192, flags: 0 }],
    [
      'mlock2(0x1000, 8192, MLOCK_ONFAULT) = 0',
      { kind: 'mlock', ret: 0, call: 'mlock2', addr: 4096, lengthBytes: 8192, flags: 1 },
    ],
    [
      'mlockall(MCL_CURRENT|MCL_FUTURE) = 0',
      { kind: 'mlock', ret: 0, call: 'mlockall', addr: 0, lengthBytes: 0, flags: 3 },
    ],
    ['munlockall() = 0', { kind: 'mlock', ret: 0, call: 'munlockall', addr: 0, lengthBytes: 0, flags: 0 }],
  ]);
});

test('user ids, capabilities, user namespaces', () => {
  const nothing = {
    kind: 'creds',
    targetPid: 0,
    realUid: null,
    effectiveUid: null,
    savedUid: null,
    effectiveCaps: null,
    permittedCaps: null,
    flags: 0,
  };
  const caps = 0x1ff_feff_ffff;
  const names = CAPABILITIES.filter((name) => name !== 'SYS_RESOURCE').map((name) => `1<<CAP_${name}`);
  check([
    ['getuid() = 1000', { ...nothing, ret: 1000, call: 'getuid', realUid: 1000 }],
    ['geteuid32() = 0', { ...nothing, ret: 0, call: 'geteuid', effectiveUid: 0 }],
    [
      'getresuid([1000], [0], [7]) = 0',
      { ...nothing, ret: 0, call: 'getresuid', realUid: 1000, effectiveUid: 0, savedUid: 7 },
    ],
    ['setuid(1000) = 0', { ...nothing, ret: 0, call: 'setuid', effectiveUid: 1000 }],
    ['setreuid(-1, 1000) = 0', { ...nothing, ret: 0, call: 'setreuid', effectiveUid: 1000 }],
    [
      'setresuid(4294967295, 1000, 0xffffffff) = -1 EPERM (Operation not permitted)',
      { ...nothing, ret: -1, call: 'setresuid', effectiveUid: 1000 },
    ],
    [
      'capget({version=0 /* _LINUX_CAPABILITY_VERSION_??? */, pid=0}, NULL) = 0',
      { ...nothing, ret: 0, call: 'capget' },
    ],
    [
      `capget({version=_LINUX_CAPABILITY_VERSION_3, pid=77}, {effective=${names.join('|')}, permitted=1<<CAP_IPC_LOCK, inheritable=0}) = 0`,
      { ...nothing, ret: 0, call: 'capget', targetPid: 77, effectiveCaps: caps, permittedCaps: 0x4000 },
    ],
    [
      'capset({version=0x20080522, pid=0}, {effective=0, permitted=0xfeffffff|0x1ff, inheritable=0}) = 0',
      { ...nothing, ret: 0, call: 'capset', effectiveCaps: 0, permittedCaps: caps },
    ],
    [
      'capset({version=0x20080522 /* V3 */, pid=0}, {effective=0x4000 /* 1<<CAP_IPC_LOCK */, permitted=0x4000 /* 1<<CAP_IPC_LOCK */, inheritable=0}) = 0',
      { ...nothing, ret: 0, call: 'capset', effectiveCaps: 0x4000, permittedCaps: 0x4000 },
    ],
    ['unshare(CLONE_NEWNS|CLONE_NEWUSER) = 0', { ...nothing, ret: 0, call: 'unshare', flags: 0x1002_0000 }],
    ['unshare(CLONE_FILES) = 0', { kind: 'other', ret: 0, call: 'unshare', text: 'CLONE_FILES' }],
    ['setns(3, 0) = 0', { ...nothing, ret: 0, call: 'setns' }],
    ['setns(3, CLONE_NEWNET) = 0', { kind: 'other', ret: 0, call: 'setns', text: '3, CLONE_NEWNET' }],
    ['prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP) = 0', { ...nothing, ret: 0, call: 'prctl', flags: 4 }],
    ['prctl(PR_SET_KEEPCAPS, 1) = 0', { kind: 'other', ret: 0, call: 'prctl', text: 'PR_SET_KEEPCAPS, 1' }],
  ]);
});

test('a clone that also makes a pidfd', () => {
  const { events } = parse(
    'clone3({flags=CLONE_PIDFD, exit_signal=SIGCHLD} => {pidfd=[5<anon_inode:[pidfd]>]}, 88) = 12\n',
  );
  assert.equal(
    events.map((event) => event.kind),
    ['fork', 'newFds'],
  );
  assert.equal(own(events[1] as Event), {
    kind: 'newFds',
    ret: 12,
    call: 'clone3',
    fds: [5],
    paths: ['anon_inode:[pidfd]'],
    cloexec: true,
  });
});

test('long arguments are cut in events', () => {
  const { events } = parse(`stat("${'a'.repeat(1000)}", 0x1) = 0\n`);
  assert.is((events[0] as { text: string }).text.length, 200);
});
