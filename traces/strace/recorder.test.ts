import * as assert from 'uvu/assert';
import type { IoctlEvent } from '../../core/event.js';
import { suite } from '../../core/testing.js';
import { fixture, parse, statement } from './testing.js';

const test = suite('strace memory statements');

const ARG = 0x1000;
const call = (arg: number) => `ioctl(3, IOMMU_IOAS_MAP, 0x${arg.toString(16)}) = 0`;
const shape = (event: IoctlEvent) => [
  event.memIn.map((note) => `${note.addr}:${note.bytes.toHex()}`),
  event.memOut.map((note) => `${note.addr}:${note.bytes.toHex()}`),
];

/** The ioctls of thread 1 with their memory; the lines are its own unless they name another one. */
function pairs(lines: readonly string[]): readonly (readonly string[][])[] {
  const text = lines.map((line) => (/^[0-9]+ /.test(line) ? line : `1 ${line}`)).join('\n');
  const { events, codes } = parse(`${text}\n`);
  assert.equal(codes, []);
  return events.filter((event) => event.kind === 'ioctl' && event.tid === 1).map((event) => shape(event as IoctlEvent));
}

test('struct before and after', () => {
  assert.equal(pairs([statement(ARG, [1]), call(ARG), statement(ARG, [2]), 'close(3) = 0']), [
    [['4096:01'], ['4096:02']],
  ]);
});

test('the same address over and over', () => {
  const lines = [1, 2, 3].flatMap((n) => [statement(ARG, [n]), call(ARG), statement(ARG, [n, n])]);
  assert.equal(pairs(lines), [
    [['4096:01'], ['4096:0101']],
    [['4096:02'], ['4096:0202']],
    [['4096:03'], ['4096:0303']],
  ]);
});

test('what only the kernel wrote, at the address of the next struct', () => {
  assert.equal(
    pairs([
      statement(ARG, [1]),
      call(ARG),
      statement(ARG, [2]),
      statement(0x2000, [9]),
      statement(0x2000, [3]),
      call(0x2000),
      statement(0x2000, [4]),
    ]),
    [
      [['4096:01'], ['4096:02', '8192:09']],
      [['8192:03'], ['8192:04']],
    ],
  );
});

test('a struct that points to itself', () => {
  const self = [0, 0x10, 0, 0, 0, 0, 0, 0];
  const hex = '0010000000000000';
  assert.equal(
    pairs([
      statement(0x2000, [1]),
      call(0x2000),
      statement(0x2000, [1]),
      statement(ARG, self),
      statement(ARG, [7]),
      call(ARG),
    ]),
    [
      [['8192:01'], ['8192:01']],
      [[`4096:${hex}`, '4096:07'], []],
    ],
  );
});

test('calls without statements between', () => {
  assert.equal(
    pairs([
      statement(ARG, [1]),
      call(ARG),
      statement(ARG, [2]),
      'ioctl(3, VFIO_SET_IOMMU, 0x1) = 0',
      statement(ARG, [3]),
      call(ARG),
    ]),
    [
      [['4096:01'], ['4096:02']],
      [[], []],
      [['4096:03'], []],
    ],
  );
});

test('after another call statements belong to the next ioctl', () => {
  assert.equal(
    pairs([
      statement(ARG, [1]),
      call(ARG),
      statement(ARG, [2]),
      'close(9) = 0',
      statement(ARG, [3]),
      statement(5, [4]),
      call(ARG),
    ]),
    [
      [['4096:01'], ['4096:02']],
      [['4096:03', '5:04'], []],
    ],
  );
});

test('other threads, signals and halves in between', () => {
  assert.equal(
    pairs(
      [
        statement(ARG, [1]),
        `2 ${statement(ARG, [0xaa])}`,
        'ioctl(3, IOMMU_IOAS_MAP <unfinished ...>',
        '2 close(9) = 0',
        '<... ioctl resumed>, 0x1000) = 0',
        '--- SIGCHLD {si_signo=SIGCHLD} ---',
        'pwrite64(-1, "\\x02", 1, 4096 <unfinished ...>',
        '2 close(9) = 0',
        '<... pwrite64 resumed>) = -1 EBADF (Bad file descriptor)',
        statement(ARG, [3]),
        call(ARG),
      ].filter((line) => !line.startsWith('2 pwrite64')),
    ),
    [
      [['4096:01'], ['4096:02']],
      [['4096:03'], []],
    ],
  );
});

test('an ioctl cut off before its argument takes it from the statement', () => {
  const { events } = parse(`1 ${statement(ARG, [1])}\n1 ioctl(3, _IOC(_IOC_READ|_IOC_WRITE, 0x48, 0x1, 0x28)`);
  assert.equal(
    events.map((event) => (event as IoctlEvent).arg),
    [ARG],
  );
  assert.is((events[0] as IoctlEvent).ret, null);
});

test('spellings of a statement', () => {
  const bad = '-1 EBADF (Bad file descriptor)';
  for (const line of [
    `pwrite64(-1, "\\1A", 2, 4096) = ${bad}`,
    `pwrite64(-1, "\\x01\\x41"..., 2, 4096) = ${bad}`,
    `pwrite64(-1, "\\x01A", 2, 4096)     = ${bad}`,
    `pwrite64(-1, "\\x01\\x41", 2, 4096) = ${bad} <0.000003>`,
    `pwrite64(fd=-1, buf="\\x01\\x41", count=2, pos=4096) = ${bad}`,
  ]) {
    assert.equal(pairs([line, call(ARG)]), [[['4096:0141'], []]], line);
  }
});

test('addresses above 2^63 are printed as negative offsets', () => {
  const { events } = parse(`${statement(-4096, [1])}\nioctl(3, IOMMU_IOAS_MAP, 0xfffffffffffff000) = 0\n`);
  assert.equal((events[0] as IoctlEvent).memIn[0]?.addr, 0xfffffffffffff000n);
});

test('real recordings: every statement finds its ioctl, every struct its argument', () => {
  for (const name of [
    'iommufd.map_cmd.strace.gz',
    'crash-13.strace.gz',
    'hmm.hmm_device_private.anon_teardown.strace.gz',
    'vfio_pci_device_init_perf_test-e1000e.strace.gz',
  ]) {
    const { events, codes } = parse(fixture(name));
    assert.equal(
      codes.filter((code) => code !== 'IOT102'),
      [],
      name,
    );
    const annotated = events.filter((event) => event.kind === 'ioctl' && event.memIn.length > 0) as IoctlEvent[];
    assert.ok(annotated.length > 2, name);
    for (const event of annotated) {
      assert.is(event.memIn[0]?.addr, event.arg, `${name}:${event.line}`);
      if (event.ret !== null) assert.is(event.memOut[0]?.addr, event.arg, `${name}:${event.line}`);
    }
  }
});
