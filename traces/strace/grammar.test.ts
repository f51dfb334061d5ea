import * as assert from 'uvu/assert';
import type { Event } from '../../core/event.js';
import { suite } from '../../core/testing.js';
import { only, parse, show } from './testing.js';

const test = suite('strace grammar');

const ENOTTY = '-1 ENOTTY (Inappropriate ioctl for device)';

function fields(event: Event, names: readonly string[]): Record<string, unknown> {
  return Object.fromEntries(names.map((name) => [name, (event as unknown as Record<string, unknown>)[name]]));
}

test('leaders: thread and time', () => {
  const rows: readonly [text: string, tid: number, startNs: bigint][] = [
    ['close(3) = 0', 0, 0n],
    ['1152244 close(3) = 0', 1152244, 0n],
    ['128   1795226779.062478 close(3) = 0', 128, 1795226779062478000n],
    ['128   1795226779.062 close(3) = 0', 128, 1795226779062000000n],
    ['128   1795226779.062478123 close(3) = 0', 128, 1795226779062478123n],
    ['128   1795226779 close(3) = 0', 128, 1795226779000000000n],
    ['1795226779.062478 close(3) = 0', 0, 1795226779062478000n],
    ['02:23:47 close(3) = 0', 0, 8627000000000n],
    ['128 02:23:47.435552 close(3) = 0', 128, 8627435552000n],
    ['[pid 21004] 02:23:47.441988 close(3) = 0', 21004, 8627441988000n],
    ['[pid    44] close(3) = 0', 44, 0n],
    ['[pid 20892<vfio \\74x\\76>] close(3) = 0', 20892, 0n],
    ['19144<t2> close(3) = 0', 19144, 0n],
    ['     0.000041 close(3) = 0', 0, 0n],
    ['7       0.000041 close(3) = 0', 7, 0n],
    ['02:23:47.413268 (+     0.000000) [  16] [00007f9d9c4d9d6b] close(3) = 0', 0, 8627413268000n],
    ['[unconfined_u:unconfined_r:unconfined_t:s0] 02:23:47 [????????????????] close(3) = 0', 0, 8627000000000n],
    ['12 [unconfined_t] [00007f9d9c4d9d6b] close(3) = 0', 12, 0n],
    ['> close(3) = 0', 0, 0n],
    ['| >> 128   1795226779.062478 close(3) = 0', 128, 1795226779062478000n],
    ['   close(3) = 0', 0, 0n],
    ['close(3) = 0\r', 0, 0n],
    ['\ufeff128 close(3) = 0', 128, 0n],
  ];
  for (const [text, tid, startNs] of rows) {
    const { events, parser } = parse(Buffer.from(`${text}\n`));
    assert.is(events.length, 1, text);
    assert.equal(fields(events[0] as Event, ['kind', 'tid', 'tsNs', 'line', 'fd']), {
      kind: 'close',
      tid,
      tsNs: 0,
      line: 1,
      fd: 3,
    });
    assert.is(parser.clock.startNs, startNs, text);
  }
});

test('clocks: distance, midnight, relative', () => {
  const rows: readonly [string, readonly number[]][] = [
    ['1795226779.5 close(1) = 0\n1795226780.25 close(1) = 0\nclose(1) = 0\n', [0, 750_000_000, 750_000_000]],
    ['23:59:59.5 close(1) = 0\n00:00:01 close(1) = 0\n00:00:00 close(1) = 0', [0, 1_500_000_000, 500_000_000]],
    ['  0.000010 close(1) = 0\n  0.5 close(1) = 0\n1.25 close(1) = 0', [0, 500_000_000, 1_750_000_000]],
    ['100000001.5 close(1) = 0\n100000000.5 close(1) = 0', [0, 0]],
    ['02:00:00 (+ 0.1) close(1) = 0\n02:00:01 (+ 0.7) close(1) = 0', [0, 1_000_000_000]],
  ];
  for (const [text, times] of rows) {
    assert.equal(
      parse(text).events.map((event) => event.tsNs),
      times,
      text,
    );
  }
});

test('results', () => {
  const rows: readonly [tail: string, ret: unknown, errno: string, injected?: boolean][] = [
    ['= 0', 0, ''],
    ['     = 0', 0, ''],
    ['= 0x6', 6, ''],
    ['= 2147483647', 2147483647, ''],
    ['= 18446744073709551615', 18446744073709551615n, ''],
    [`= ${ENOTTY}`, -1, 'ENOTTY'],
    [`= ${ENOTTY} <0.000040>`, -1, 'ENOTTY'],
    ['= 0 <0.000014>', 0, ''],
    ['= -1 (errno 524)', -1, 'ENOTSUPP'],
    ['= -1 (errno 700)', -1, 'E700'],
    ['= -1 EWOULDBLOCK (Resource temporarily unavailable)', -1, 'EAGAIN'],
    ['= -22', -1, 'EINVAL'],
    ['= -1', -1, ''],
    ['= ?', null, ''],
    ['= ? <unavailable>', null, ''],
    ['= ? ERESTARTSYS (To be restarted if SA_RESTART is set) <0.002993>', null, ''],
    ['= ? ERESTART_RESTARTBLOCK (Interrupted by signal)', null, ''],
    ['= -1 ENOMEM (Cannot allocate memory) (INJECTED)', -1, 'ENOMEM', true],
    ['= 0 (INJECTED: args, retval)', 0, '', true],
    ['= 0 (INJECTED) (DELAYED) <0.1>', 0, '', true],
    ['= 0 (DELAYED)', 0, ''],
  ];
  for (const [tail, ret, errno, injected] of rows) {
    const event = only('ioctl', `ioctl(3, VFIO_GET_API_VERSION, 0) ${tail}`);
    assert.equal(fields(event, ['ret', 'errno', 'injected']), { ret, errno, injected: injected ?? false }, tail);
  }
});

test('fd arguments', () => {
  const rows: readonly [text: string, fd: number, path: string][] = [
    ['3', 3, ''],
    ['0x63', 99, ''],
    ['-1', -1, ''],
    ['4294967295', -1, ''],
    ['3</dev/vfio/vfio>', 3, '/dev/vfio/vfio'],
    ['3</dev/null<char 1:3>>', 3, '/dev/null<char 1:3>'],
    ['fd=3</dev/null<char 1:3>>', 3, '/dev/null<char 1:3>'],
    [
      '4<{eventfd-count=0, eventfd-id=1, eventfd-semaphore=0}>',
      4,
      '{eventfd-count=0, eventfd-id=1, eventfd-semaphore=0}',
    ],
    ['5</memfd:pc.ram>(deleted)', 5, '/memfd:pc.ram'],
    ['5<TCP:[127.0.0.1:33994->127.0.0.1:22]>', 5, 'TCP:[127.0.0.1:33994->127.0.0.1:22]'],
    ['5</tmp/a\\74b\\76, (c>', 5, '/tmp/a<b>, (c'],
    ['5<\\x2f\\x64\\x65\\x76>', 5, '/dev'],
    ['5</dev/iommu> /* note */', 5, '/dev/iommu'],
  ];
  for (const [text, fd, path] of rows) {
    const ioctl = only('ioctl', `ioctl(${text}, VFIO_GET_API_VERSION, 0) = 0`);
    assert.equal([ioctl.fd, ioctl.path, ioctl.request], [fd, path, 0x3b64], text);
    const close = only('close', `close(${text}) = 0`);
    assert.equal([close.fd, close.path], [fd, path], text);
  }
});

test('ioctl requests and arguments', () => {
  const rows: readonly [text: string, request: number, arg: unknown][] = [
    ['VFIO_DEVICE_PCI_HOT_RESET or VFIO_IOMMU_MAP_DMA, 0x7ffe0be00df0', 0x3b71, 0x7ffe0be00df0],
    ['VFIO_IOMMU_SPAPR_REGISTER_MEMORY, 0', 0x3b75, 0],
    ['_IOC(_IOC_NONE, 0x3b, 0xa0, 0), 0xffffffffffffffff', 0x3ba0, 0xffffffffffffffffn],
    ['_IOC(0, 0x3b, 0xa0, 0x00), NULL', 0x3ba0, 0],
    ['_IOC(_IOC_READ|_IOC_WRITE, 0x48, 0x2, 0x28), 0x10', 0xc0284802, 0x10],
    ['HIDIOCSFEATURE(40), 0x10', 0xc0284806, 0x10],
    ['HIDIOCSFEATURE(40) or HL_IOCTL_DEBUG, 0x10', 0xc0284806, 0x10],
    ['0x3b71 /* VFIO_DEVICE_PCI_HOT_RESET or VFIO_IOMMU_MAP_DMA */, 0x10', 0x3b71, 0x10],
    ['op=IOMMU_IOAS_MAP, argp=0x10', 0x3b85, 0x10],
    ['0x3b85, 0x10', 0x3b85, 0x10],
    ['VFIO_SET_IOMMU, 3', 0x3b66, 3],
  ];
  for (const [text, request, arg] of rows) {
    const event = only('ioctl', `ioctl(3, ${text}) = 0`);
    assert.equal([event.request, event.arg, event.memIn, event.memOut], [request, arg, [], []], text);
  }
  const tty = only('other', 'ioctl(1, TIOCGWINSZ, {ws_row=24, ws_col=80}) = 0');
  assert.equal([tty.call, tty.text], ['ioctl', '1, TIOCGWINSZ, {ws_row=24, ws_col=80}']);
});

test('a dump instead of an argument', () => {
  const both = only(
    'ioctl',
    'ioctl(3, _IOC(_IOC_READ|_IOC_WRITE, 0x48, 0x2, 0x28), "\\x01\\x02"... => "\\1\\3"...) = 0',
  );
  assert.is(show([both]).includes('"memIn":[{"addr":0,"bytes":"0102"}],"memOut":[{"addr":0,"bytes":"0103"}]'), true);
  assert.is(both.arg, 0);
  const written = only('ioctl', 'ioctl(3, _IOC(_IOC_READ, 0x48, 0x2, 0x28), "\\x01") = 0');
  assert.equal([written.memIn.length, written.memOut.length], [0, 1]);
});

test('halves of calls', () => {
  const rows: readonly [
    text: string,
    tids: readonly number[],
    entered: readonly (number | undefined)[],
    codes: readonly string[],
  ][] = [
    [
      '1 ioctl(3, VFIO_DEVICE_RESET <unfinished ...>\n2 close(9) = 0\n1 <... ioctl resumed>, 0) = 0\n',
      [1, 2, 1],
      [undefined, 1, 0],
      [],
    ],
    [
      '1 ioctl(3, VFIO_DEVICE_RESET, 0 <unfinished ...>\n2 close(9) = 0\n1 <... ioctl resumed> ) = 0\n',
      [1, 2, 1],
      [undefined, 1, 0],
      [],
    ],
    [
      'ioctl(17, VFIO_DEVICE_RESET <unfinished ...>\n0.5 <... ioctl resumed> , 0x7fff) = 0 <2.5>\n',
      [0, 0],
      [undefined, 0],
      [],
    ],
    ['1 ioctl(3, VFIO_DEVICE_RESET, 0 <unfinished ...>\n', [1, 1], [undefined, 0], ['IOT106']],
    ['1 <... ioctl resumed>, 0) = 0\n2 close(3) = 0\n', [2], [0], ['IOT104']],
    ['1 read(3,  <unfinished ...>\n1 close(3) = 0\n', [1, 1], [0, 1], ['IOT106']],
    ['1 ioctl(3, VFIO_DEVICE_RESET, 0 <detached ...>\n', [1], [0], []],
    [
      '1 read(3,  <unfinished ...>\n1 <... read resumed> <unfinished ...>) = ?\n1 +++ killed by SIGKILL +++\n',
      [1, 1],
      [0, undefined],
      [],
    ],
  ];
  for (const [text, tids, entered, codes] of rows) {
    const parsed = parse(text);
    assert.equal(parsed.codes, codes, text);
    assert.equal(
      parsed.events.map((event) => event.tid),
      tids,
      text,
    );
    assert.equal(
      parsed.events.map((event) => (event as { enteredAt?: number }).enteredAt),
      entered,
      text,
    );
  }
});

test('first halves that mean something are events', () => {
  const first = { fd: -1, path: '', request: 0, addr: 0, lengthBytes: 0, prot: 0, flags: 0, advice: 0 };
  const rows: readonly [text: string, fields: object | undefined][] = [
    ['ioctl(3</dev/x>, VFIO_DEVICE_RESET', { call: 'ioctl', fd: 3, path: '/dev/x', request: 0x3b6f }],
    ['ioctl(3, _IOC(_IOC_READ|_IOC_WRITE, 0x48, 0x2, 0x28)', { call: 'ioctl', fd: 3, request: 0xc0284802 }],
    ['ioctl(3, TCGETS', undefined],
    ['munmap(0x1000, 8192', { call: 'munmap', addr: 0x1000, lengthBytes: 0x2000 }],
    ['mprotect(0x1000, 8192, PROT_READ', { call: 'mprotect', addr: 0x1000, lengthBytes: 0x2000, prot: 1 }],
    ['pkey_mprotect(0x1000, 8192, PROT_READ, 1', { call: 'mprotect', addr: 0x1000, lengthBytes: 0x2000, prot: 1 }],
    ['madvise(0x1000, 8192, MADV_DONTNEED', { call: 'madvise', addr: 0x1000, lengthBytes: 0x2000, advice: 4 }],
    ['mremap(0x1000, 4096, 8192, MREMAP_MAYMOVE', { call: 'mremap', addr: 0x1000, lengthBytes: 0x1000, flags: 1 }],
    [
      'mmap(0x1000, 4096, PROT_NONE, MAP_PRIVATE|MAP_FIXED|MAP_ANONYMOUS, -1, 0',
      { call: 'mmap', addr: 0x1000, lengthBytes: 0x1000, flags: 0x32 },
    ],
    ['brk(0x5000', { call: 'brk', addr: 0x5000 }],
    ['munmap(0x1000', undefined],
    ['futex(0x1000, FUTEX_WAIT', undefined],
  ];
  for (const [text, fields] of rows) {
    const { events } = parse(`1 ${text} <unfinished ...>\n2 getpid() = 2\n`);
    const found = events.find((event) => event.kind === 'enter');
    if (fields === undefined) assert.is(found, undefined, text);
    else
      assert.equal(
        found,
        { kind: 'enter', seq: 0, tsNs: 0, pid: 0, tid: 1, file: 0, line: 1, ...first, ...fields },
        text,
      );
  }
});

test('ends of threads and processes', () => {
  const rows: readonly [text: string, ends: readonly string[]][] = [
    ['1 exit_group(3) = ?\n1 +++ exited with 3 +++\n', ['1 exit_group 3']],
    ['1 exit(0) = ?\n1 +++ exited with 0 +++\n', ['1 exit 0']],
    ['1 +++ exited with 1 +++\n', ['1 exit 1']],
    [
      '1 exit_group(7 <unfinished ...>\n2 +++ exited with 7 +++\n1 <... exit_group resumed>) = ?\n1 +++ exited with 7 +++\n',
      ['2 exit 7', '1 exit_group 7'],
    ],
    ['1 exit_group(7 <unfinished ...>\n1 +++ exited with 7 +++\n', ['1 exit_group 7']],
    ['1 +++ killed by SIGSEGV (core dumped) +++\n', ['1 killed 11']],
    ['1 +++ exited with 0 +++\n1 +++ exited with 0 +++\n', ['1 exit 0', '1 exit 0']],
  ];
  for (const [text, ends] of rows) {
    const { events, codes } = parse(text);
    assert.equal(codes, [], text);
    assert.equal(
      events.map((e) => (e.kind === 'exit' ? `${e.tid} ${e.call} ${e.status}` : e.kind)),
      ends,
      text,
    );
  }
});

test('execve by another thread takes the leader over', () => {
  const text =
    '12 execve("/bin/true", ["true"], 0x7ffc /* 3 vars */ <unfinished ...>\n' +
    '10 +++ superseded by execve in pid 12 +++\n10 <... execve resumed>) = 0\n10 close(3) = 0\n';
  const { events, codes } = parse(text);
  assert.equal(codes, []);
  assert.equal(
    events.map((e) => `${e.kind} ${e.tid}`),
    ['exit 12', 'exec 10', 'close 10'],
  );
});

test('lines broken by messages of strace', () => {
  const rows: readonly [string, readonly string[]][] = [
    ['ioctl(4, VFIO_DEVICE_RESET, 0x10strace: Process 19138 attached\n) = 0\n', ['ioctl 0 16']],
    ['ioctl(4, VFIO_DEVICE_RESET, 0x10/usr/bin/strace: Process 19138 attached\n) = 0\n', ['ioctl 0 16']],
    [
      'ioctl(4, VFIO_DEVICE_RESET, 0x10./src/strace: Process 19138 attached\n <unfinished ...>\n<... ioctl resumed>) = 0\n',
      ['enter 0 ', 'ioctl 0 16'],
    ],
    ['ioctl(4, VFIO_DEVICE_RESET, 0x10[ Process PID=19138 runs in 32 bit mode. ]\n) = 0\n', ['ioctl 0 16']],
    [
      'strace: Process 7 attached\n[pid 7] ioctl(4, VFIO_DEVICE_RESET, 0x1strace: Process 7 detached\nstrace: Process 6 detached\n <detached ...>\n',
      ['ioctl 7 1'],
    ],
  ];
  for (const [text, expected] of rows) {
    const { events, codes } = parse(text);
    assert.equal(codes, [], text);
    assert.equal(
      events.map((e) => `${e.kind} ${e.tid} ${e.kind === 'ioctl' ? e.arg : ''}`),
      expected,
      text,
    );
  }
});

test('what says nothing about calls is passed over', () => {
  const text = [
    '',
    'strace: Process 5 attached',
    '/usr/bin/strace: [ Process PID=5 runs in x32 mode. ]',
    ' > /usr/lib/libc.so.6(ioctl+0x3b) [0xfdd6b]',
    ' > t3(main+0x30) [0x1179] t3.c:12',
    ' > unexpected_backtracing_error [0x0]',
    '[...]',
    '% time     seconds  usecs/call     calls    errors syscall',
    '------ ----------- ----------- --------- --------- ----------------',
    ' 50.00    0.000004           4         1           ioctl',
    '100.00    0.000008           4         2         1 total',
    'close(3) = 0',
  ].join('\n');
  const { events, codes, skippedLines } = parse(`${text}\n`);
  assert.equal([events.length, codes, skippedLines], [1, [], 0]);
});

test('colour', () => {
  const line = '\u001b[33mclose\u001b[0m(\u001b[35m3\u001b[0m)\u001b[0m [0m=\u001b[0m\u001b[0m \u001b[32m0\u001b[0m';
  assert.is(only('close', line.replace(' [0m=', ' \u001b[0m=')).fd, 3);
});

test('what cannot be read is reported and passed over', () => {
  const rows: readonly [text: string, code: string][] = [
    ['this is no trace', 'IOT101'],
    ['ioctl(3, VFIO_GET_API_VERSION, 0)', 'IOT101'],
    ['ioctl(3, VFIO_GET_API_VERSION, 0) = yes', 'IOT101'],
    ['munmap(0x1000) = 0', 'IOT101'],
    ['mmap(0x1000, oops, PROT_READ, MAP_PRIVATE, 3, 0) = 0', 'IOT101'],
    ['munmap(0x10000000000000000, 1) = 0', 'IOT105'],
    ['ioctl(3, VFIO_GET_API_VERSION, 0x12345678123456781) = 0', 'IOT105'],
    ['ioctl(3, VFIO_GET_API_VERSION, 0) = 99999999999999999999', 'IOT105'],
    ['9999999999999999999999 close(3) = 0', 'IOT105'],
    ['99999999 close(3) = 0\n999999999999999.5 close(3) = 0', 'IOT105'],
    ['close(\u0000\u0001) = 0', 'IOT107'],
    ['+++ what +++', 'IOT101'],
  ];
  for (const [text, code] of rows) {
    const { codes, skippedLines } = parse(`${text}\nclose(5) = 0\n`);
    assert.equal([codes, skippedLines], [[code], 1], text);
    const last = parse(`${text}\nclose(5) = 0\n`).events.at(-1);
    assert.is(last?.kind, 'close', text);
  }
});

test('statements that no ioctl follows or precedes', () => {
  const { codes, events } = parse(
    '1 pwrite64(-1, "\\x01", 1, 4096) = -1 EBADF (Bad file descriptor)\n1 close(3) = 0\n',
  );
  assert.equal([codes, events.length], [['IOT108'], 1]);
});

test('diagnostics are capped and counted', () => {
  const { log, skippedLines } = parse('rubbish\n'.repeat(5000));
  assert.is(skippedLines, 5000);
  assert.is(log.list.length, 1001);
  assert.is(log.list.at(-1)?.code, 'IOT109');
});

test('a thread number that comes again', () => {
  const { events } = parse(
    '1 exit_group(0) = ?\n1 close(3) = 0\n1 +++ killed by SIGKILL +++\n1 exit_group(1) = ?\n1 exit_group(2) = ?\n',
  );
  const seen = events.map((event) => (event.kind === 'exit' ? `${event.call} ${event.status}` : event.kind));
  assert.equal(seen, ['exit_group 0', 'close', 'killed 9', 'exit_group 1', 'exit_group 2']);
});

test('a child whose lines come before the result of its clone is born first', () => {
  const text =
    '5 clone(child_stack=NULL, flags=CLONE_CHILD_SETTID|SIGCHLD <unfinished ...>\n6 close(3) = 0\n' +
    '5 <... clone resumed>, child_tidptr=0x7f) = 6\n5 close(4) = 0\n';
  const seen = parse(text).events.map((event) => [event.kind, event.tid, 'ret' in event ? event.ret : '', event.seq]);
  assert.equal(seen, [
    ['fork', 5, 6, 0],
    ['close', 6, 0, 1],
    ['close', 5, 0, 2],
  ]);
  // A stranger was taken for the child: the result still tells who it was.
  const other = parse(text.replace('= 6', '= 7')).events.map((event) => [event.kind, 'ret' in event ? event.ret : '']);
  assert.equal(other, [
    ['fork', 6],
    ['close', 0],
    ['fork', 7],
    ['close', 0],
  ]);
});

test('which process a line without a number belongs to', () => {
  const rows: readonly [string, readonly number[]][] = [
    // the first process keeps 0 when its number turns up
    ['close(3) = 0\nstrace: Process 12 attached\n[pid 11] close(3) = 0\n[pid 12] close(3) = 0\n', [0, 0, 12]],
    ['fork() = 12\n[pid 12] close(3) = 0\n[pid 11] close(3) = 0\n', [0, 12, 0]],
    ['fork( <unfinished ...>\n[pid 12] close(3) = 0\n[pid 11] <... fork resumed>) = 12\n', [0, 12]],
    ['gettid() = 11\nfork( <unfinished ...>\n[pid 11] <... fork resumed>) = 12\n[pid 12] close(3) = 0\n', [0, 0, 12]],
    // the last survivor's lines have no number again
    ['fork() = 12\n[pid 11] close(3) = 0\n[pid 11] +++ exited with 0 +++\nclose(3) = 0\n', [0, 0, 0, 12]],
    ['fork() = 12\n[pid 12] close(3) = 0\n[pid 12] +++ exited with 0 +++\nclose(3) = 0\n', [0, 12, 12, 0]],
    // strace -p 11
    ['strace: Process 11 attached\nclose(3) = 0\nstrace: Process 12 attached\n[pid 11] close(3) = 0\n', [0, 0]],
    // an excerpt from the middle
    ['[pid 11] close(3) = 0\n[pid 12] close(3) = 0\n[pid 12] +++ exited with 0 +++\nclose(3) = 0\n', [11, 12, 12, 11]],
  ];
  for (const [text, tids] of rows) {
    assert.equal(
      parse(text).events.map((event) => event.tid),
      tids,
      text,
    );
  }
});

test('a line without end', () => {
  const { codes, events } = parse(`close(3) = 0\nwrite(3, "${'x'.repeat(5000)}", 5000) = 5000\nclose(4) = 0\n`, {
    maxLineBytes: 1000,
    chunkBytes: 300,
  });
  assert.equal(codes, ['IOT103']);
  assert.equal(
    events.map((e) => `${e.kind} ${e.line}`),
    ['close 1', 'other 2', 'close 3'],
  );
});
