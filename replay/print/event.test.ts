import * as assert from 'uvu/assert';
import { Bytes } from '../../core/bytes.js';
import type { Event } from '../../core/event.js';
import { suite } from '../../core/testing.js';
import { ev } from '../../reducers/testing.js';
import type { Judged } from '../judged.js';
import { eventText, placeOf, shortPlaceOf } from './event.js';
import { eventJson, eventLine } from './event-line.js';
import { PLAIN } from './style.js';

const test = suite('events as text');

const text = (event: Event, judged?: Judged): string => eventText({ event, judged });
const HEAD = { seq: 0, tsNs: 0, pid: 0, tid: 1, file: 0, line: 0 };
const MIRROR = { mirror: 0xa0, mm: 1, start: 0x1000, last: 0x1fff };
const ENTERED = {
  ...HEAD,
  kind: 'enter' as const,
  call: 'munmap',
  fd: -1,
  path: '',
  request: 0,
  addr: 0,
  lengthBytes: 0,
  prot: 0,
  flags: 0,
  advice: 0,
};
const failed = { ret: -1, errno: 'EINVAL' } as const;

test('an access to a region says where it goes, where the model knows', () => {
  const event = ev('io', {
    call: 'pread64',
    fd: 9,
    offset: 0x700_0000_0004,
    lengthBytes: 2,
    data: Bytes.EMPTY,
    ret: 2,
  });
  const shown = eventText({ event, judged: undefined, meaning: 'config space 0x4' });
  assert.is(shown, 'pread64(9, 2 bytes, offset 0x70000000004 (config space 0x4)) = 2');
});

test('each kind in the words of its call', () => {
  const rows: [Event, string][] = [
    [ev('open', { path: '/dev/iommu', flags: 0o2000002, ret: 3 }), 'openat("/dev/iommu", O_RDWR|O_CLOEXEC) = 3'],
    [ev('open', { path: 'a"b\n', ...failed }), 'openat("a\\"b\\n", O_RDONLY) = -1 EINVAL'],
    [ev('open', { call: 'memfd_create', path: 'm', ret: null }), 'memfd_create("m", O_RDONLY) = ?'],
    [ev('open', { flags: 0o4010001, ret: 3 }), 'openat("", O_WRONLY|O_SYNC) = 3'],
    [ev('open', { flags: 0o10000, ret: 3 }), 'openat("", O_RDONLY|O_DSYNC) = 3'],
    [ev('close', { fd: 3, path: '/dev/iommu' }), 'close(3</dev/iommu>) = 0'],
    [ev('closeRange', { firstFd: 3, lastFd: 9 }), 'close_range(3, 9, 0) = 0'],
    [ev('dup', { fd: 3, ret: 4 }), 'dup(3) = 4'],
    [ev('dup', { fd: 3, newFd: 7, ret: 7 }), 'dup2(3, 7) = 7'],
    [ev('dup', { fd: 3, newFd: 7, flags: 0o2000000, ret: 7 }), 'dup3(3, 7) = 7'],
    [ev('fcntl', { fd: 3, cmd: 1030, arg: 5, ret: 5 }), 'fcntl(3, F_DUPFD_CLOEXEC, 5) = 5'],
    [ev('fcntl', { fd: 3, cmd: 77 }), 'fcntl(3, 77, 0) = 0'],
    [ev('newFds', { fds: [3, 4], paths: ['pipe:[1]', ''] }), 'pipe2([3<pipe:[1]>, 4]) = 0'],
    [
      ev('mmap', { lengthBytes: 0x2000, ret: 0x7f0000000000 }),
      'mmap(NULL, 0x2000, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS) = 0x7f0000000000',
    ],
    [
      ev('mmap', { addr: 0x1000, prot: 0, flags: 0x80011, fd: 5, path: '/x', offset: 0x3000, ret: 0x1000 }),
      'mmap(0x1000, 0x1000, PROT_NONE, MAP_SHARED|MAP_FIXED|MAP_SYNC, 5</x>, 0x3000) = 0x1000',
    ],
    [
      ev('mmap', { flags: 0x40000003, ...failed }),
      'mmap(NULL, 0x1000, PROT_READ|PROT_WRITE, MAP_SHARED_VALIDATE|0x40000000) = -1 EINVAL',
    ],
    [ev('munmap', { addr: 0xffff_ffff_ffff_f000n }), 'munmap(0xfffffffffffff000, 0x1000) = 0'],
    [{ ...ENTERED, call: 'ioctl', fd: 3, path: '/dev/x', request: 0x3b71 }, 'ioctl(3</dev/x>, 0x3b71) begins'],
    [{ ...ENTERED, addr: 0x1000, lengthBytes: 0x2000 }, 'munmap(0x1000, 0x2000) begins'],
    [
      { ...ENTERED, call: 'mprotect', addr: 0x1000, lengthBytes: 0x2000, prot: 1 },
      'mprotect(0x1000, 0x2000, PROT_READ) begins',
    ],
    [
      { ...ENTERED, call: 'madvise', addr: 0x1000, lengthBytes: 0x2000, advice: 4 },
      'madvise(0x1000, 0x2000, MADV_DONTNEED) begins',
    ],
    [
      { ...ENTERED, call: 'mmap', addr: 0x1000, lengthBytes: 0x2000, flags: 0x32 },
      'mmap(0x1000, 0x2000, PROT_NONE, MAP_PRIVATE|MAP_FIXED|MAP_ANONYMOUS) begins',
    ],
    [ev('mprotect', { addr: 0x1000, prot: 5 }), 'mprotect(0x1000, 0x1000, PROT_READ|PROT_EXEC) = 0'],
    [
      ev('mremap', { addr: 0x1000, newLengthBytes: 0x2000, flags: 3, newAddr: 0x9000, ret: 0x9000 }),
      'mremap(0x1000, 0x1000, 0x2000, MREMAP_MAYMOVE|MREMAP_FIXED, 0x9000) = 0x9000',
    ],
    [ev('madvise', { addr: 0x1000, advice: 4 }), 'madvise(0x1000, 0x1000, MADV_DONTNEED) = 0'],
    [ev('brk', { ret: 0x55_0000_0000 }), 'brk(NULL) = 0x5500000000'],
    [ev('fork', { flags: 0x100 | 0x10000 | 17, ret: 99 }), 'clone(CLONE_VM|CLONE_THREAD) = 99'],
    [ev('exec', { path: '/bin/true' }), 'execve("/bin/true") = 0'],
    [{ ...HEAD, kind: 'exit', call: 'exit_group', status: 3 }, 'exit_group(3)'],
    [{ ...HEAD, kind: 'exit', call: 'killed', status: 9 }, 'killed by signal 9'],
    [
      ev('prlimit', { newSoft: 65536, newHard: 0xffff_ffff_ffff_ffffn }),
      'prlimit(0, RLIMIT_MEMLOCK, new 65536/unlimited) = 0',
    ],
    [
      ev('io', { call: 'pread64', fd: 4, data: Bytes.fromHex('00ff'), lengthBytes: 2, offset: 0x40, ret: 2 }),
      'pread64(4, 00ff, 2 bytes, offset 0x40) = 2',
    ],
    [
      ev('io', { fd: 4, data: Bytes.EMPTY, lengthBytes: 12, ret: 12, injected: true }),
      'write(4, 12 bytes) = 12 (injected)',
    ],
    [ev('mlock', { addr: 0x1000 }), 'mlock(0x1000, 0x1000) = 0'],
    [ev('mlock', { call: 'mlock2', addr: 0x1000, flags: 1 }), 'mlock2(0x1000, 0x1000, 0x1) = 0'],
    [ev('mlock', { call: 'mlockall', flags: 3 }), 'mlockall(MCL_CURRENT|MCL_FUTURE) = 0'],
    [ev('mlock', { call: 'munlockall' }), 'munlockall() = 0'],
    [ev('creds', { realUid: 1000, ret: 1000 }), 'getuid(real 1000) = 1000'],
    [
      ev('creds', { call: 'setresuid', realUid: 5, effectiveUid: 6, savedUid: 7, ...failed }),
      'setresuid(real 5, effective 6, saved 7) = -1 EINVAL',
    ],
    [
      ev('creds', { call: 'capget', targetPid: 9, effectiveCaps: 0x4000, permittedCaps: 0x1ff_feff_ffff }),
      'capget(of 9, effective caps 0x4000, permitted caps 0x1fffeffffff) = 0',
    ],
    [ev('creds', { call: 'unshare', flags: 0x1000_0000 }), 'unshare(CLONE_NEWUSER) = 0'],
    [ev('creds', { call: 'prctl', flags: 4 }), 'prctl(SECBIT_NO_SETUID_FIXUP) = 0'],
    [ev('other', { call: 'getpid', ret: 7 }), 'getpid() = 7'],
    [ev('other', { text: '\u001b[31mred\u0007', ret: 0 }), 'getpid(\\x1b[31mred\\x07) = 0'],
    [
      { ...HEAD, kind: 'fault', mm: 1, addr: 0x1000, flags: 0x255, ret: 0x100 },
      'page fault at 0x1000, flags 0x255, answer 0x100',
    ],
    [
      { ...HEAD, kind: 'invalidateStart', mm: 1, start: 0x1000, last: 0x1fff, type: 6, flags: 0, owner: 0 },
      'invalidation MIGRATE begins: 0x1000-0x1fff',
    ],
    [
      { ...HEAD, ...MIRROR, kind: 'mirrorMap', driver: 'rxe', flags: 3, owner: 0, memory: 0, notifierSeq: 17 },
      'mirror rxe 0xa0 takes 0x1000-0x1fff for read and write, read at 17',
    ],
    [
      { ...HEAD, ...MIRROR, kind: 'mirrorMap', driver: '', flags: 4, owner: 11, memory: 11, notifierSeq: null },
      'mirror 0xa0 takes 0x1000-0x1fff for atomic access, device-private memory of 0xb',
    ],
    [{ ...HEAD, ...MIRROR, kind: 'mirrorUnmap' }, 'mirror 0xa0 drops 0x1000-0x1fff'],
    [
      { ...HEAD, ...MIRROR, kind: 'mirrorInvalidate', notifierSeq: 19 },
      'mirror 0xa0 is told of an invalidation: 0x1000-0x1fff, number 19',
    ],
    [
      { ...HEAD, ...MIRROR, kind: 'mirrorInvalidate', notifierSeq: null },
      'mirror 0xa0 is told of an invalidation: 0x1000-0x1fff',
    ],
    [{ ...HEAD, kind: 'mirrorEnd', mirror: 0xa0, mm: 1 }, 'mirror 0xa0 ends'],
    [{ ...HEAD, kind: 'signal', text: 'SIGSEGV {si_signo=SIGSEGV}' }, 'SIGSEGV {si_signo=SIGSEGV}'],
  ];
  for (const [event, expected] of rows) assert.is(text(event), expected);
});

const VFIO_IOMMU_MAP_DMA = 0x3b71;
const VFIO_IOMMU_UNMAP_DMA = 0x3b72;
const judged = (name: string): Judged => ({
  verdict: 'match',
  name,
  kind: 'vfio-container',
  rule: 'r',
  state: '',
  unknownReason: '',
  explanation: undefined,
});

function unmap(size: string): Bytes {
  return Bytes.fromHex(`18000000000000000010000000000000${size}`);
}

test('an ioctl is decoded by the kind of its file, with what the kernel changed', () => {
  const call = { request: VFIO_IOMMU_UNMAP_DMA, fd: 5, arg: 0x100 };
  const before = { addr: 0x100, bytes: unmap('0020000000000000') };
  const after = { addr: 0x100, bytes: unmap('0000000000000000') };
  const name = 'VFIO_IOMMU_UNMAP_DMA';
  assert.is(
    text(ev('ioctl', { ...call, memIn: [before], memOut: [before] }), judged(name)),
    'ioctl(5, VFIO_IOMMU_UNMAP_DMA {flags=0, iova=0x1000, size=0x2000}) = 0',
  );
  assert.is(
    text(ev('ioctl', { ...call, memIn: [before], memOut: [after] }), judged(name)),
    'ioctl(5, VFIO_IOMMU_UNMAP_DMA {flags=0, iova=0x1000, size=0x2000} => {flags=0, iova=0x1000, size=0x0}) = 0',
  );
  assert.is(
    text(ev('ioctl', { ...call, ...failed }), judged(name)),
    'ioctl(5, VFIO_IOMMU_UNMAP_DMA 0x100 {?}) = -1 EINVAL',
  );
});

test('without a model the possible names stand there', () => {
  assert.match(
    text(ev('ioctl', { request: VFIO_IOMMU_MAP_DMA, fd: 5, arg: 0 })),
    /VFIO_IOMMU_MAP_DMA or|or VFIO_IOMMU_MAP_DMA/,
  );
});

test('lines and JSON', () => {
  const event = ev('munmap', { seq: 7, line: 12, tsNs: 1_500_000_000, tid: 31, addr: 0x1000 });
  const files = ['/tmp/dir/run.strace'];
  assert.is(placeOf(files, event), '/tmp/dir/run.strace:12');
  assert.is(shortPlaceOf(files, event), 'run.strace:12');
  assert.is(
    eventLine(files, { event, judged: undefined }, PLAIN),
    '      7  run.strace:12        1.500000  [31]  munmap(0x1000, 0x1000) = 0',
  );
  const unknown: Judged = { ...judged('X'), verdict: 'unknown', rule: '', unknownReason: 'no payload' };
  assert.match(eventLine(files, { event, judged: unknown }, PLAIN), /= 0 {2}unknown no payload$/);
  assert.equal(JSON.parse(JSON.stringify(eventJson(files, { event, judged: unknown }))), {
    ...{ kind: 'munmap', seq: 7, tsNs: 1_500_000_000, pid: 0, tid: 31, line: 12, enteredAt: 0, ret: 0, errno: '' },
    ...{ injected: false, addr: '0x1000', lengthBytes: 4096, file: '/tmp/dir/run.strace' },
    ...{ text: 'munmap(0x1000, 0x1000) = 0', call: 'X', verdict: 'unknown', rule: '', unknown: 'no payload' },
  });
});
