import * as assert from 'uvu/assert';
import { suite } from '../core/testing.js';
import { detect } from './detect.js';

const test = suite('detect');

function formatOf(text: string, whole = true): string {
  const detected = detect(Buffer.from(text), whole);
  return detected.format === 'foreign' ? detected.name : detected.format;
}

test('lines of strace in all flags, one line is enough', () => {
  const lines = [
    'ioctl(3, VFIO_CHECK_EXTENSION, 0x563f895f5060) = -1 ENOTTY (Inappropriate ioctl for device)',
    '1152244 ioctl(12, VFIO_GET_API_VERSION) = 0',
    '[pid 20892<vfio \\74x\\76>] ioctl(3, VFIO_DEVICE_RESET) = 0',
    '02:23:47.413489 (+     0.000158) [  16] [00007f9d9c4d9d6b] ioctl(3, 0x3b71, 0x55e345c6c060) = 6',
    '     0.000041 openat(AT_FDCWD, "/dev/iommu", O_RDWR) = 3',
    '1700000000.123456 mmap(NULL, 8192, PROT_READ, MAP_PRIVATE, 3, 0) = 0x7f50cbbd5000 <0.000010>',
    '276.894553 <... ioctl resumed> , 0x7fffe3fd6b70) = 0 <286.974436>',
    '0.000070 ioctl(17, VFIO_IOMMU_SPAPR_REGISTER_MEMORY <unfinished ...>',
    'weird_new_call(1) = -1 ENOSYS (Function not implemented)',
    'read(3, 0x7ffe, 5) = ? ERESTARTSYS (To be restarted if SA_RESTART is set)',
    '+++ exited with 0 +++',
    '--- SIGSEGV {si_signo=SIGSEGV, si_code=SEGV_MAPERR, si_addr=NULL} ---',
    'strace: Process 20893 attached',
    '\u001b[33mioctl\u001b[0m(\u001b[35m3\u001b[0m, \u001b[35mX\u001b[0m)\u001b[0m [0m=\u001b[0m \u001b[32m0\u001b[0m'.replace(
      ' [0m=',
      ' =',
    ),
    '> ioctl(48, VFIO_IOMMU_UNMAP_DMA, 0x7ffffd5c42f0) = 0 <0.000014>',
    'close(3)                                = 0\r',
  ];
  for (const line of lines) {
    assert.is(formatOf(`${line}\n`), 'strace', line);
    assert.is(formatOf(line), 'strace', line);
    assert.is(
      formatOf(`My VM does not start:\n\n${line}\n[ 12.345678] vfio-pci 0000:01:00.0: reset\nThanks\n`),
      'strace',
      line,
    );
  }
});

test('kernel-event lines', () => {
  const line = '{"ts":14050600486,"pid":136,"tid":136,"ev":"exit_task"}';
  assert.is(formatOf(`${line}\n`), 'kernel-events');
  assert.is(formatOf(line.slice(0, 20)), 'kernel-events', 'cut off');
  assert.is(formatOf(`\ufeff${line}\n`), 'kernel-events');
  assert.is(formatOf(`{"pid":1,"ev":"fork"}\n${line}\n`), 'kernel-events');
  assert.is(formatOf('{"hello":1}\n'), 'unknown');
});

test('what other tools print is named', () => {
  const rows: [string, string][] = [
    ['vfio_realize 0.000 pid=20045 name=0000:01:10.1 group_id=0x18', 'QEMU trace events'],
    ['12345@1589.123:vfio_dma_map container 5 iova 0x0', 'QEMU trace events'],
    ['vfio_listener_region_add_ram region_add [ram] 0xc0000 - 0xc0fff [0x7f6702c00000]', 'QEMU trace events'],
    ['[martins3:vfio_container_region_add:611] mem0 7f9aa3fff000 0 c0000', 'QEMU trace events'],
    [
      'vfio_dma_map(0x557b2f2736d0, 0x380000000000, 0x1000000, 0x7f98ac400000) = -22 (Invalid argument)',
      'messages of QEMU',
    ],
    [
      'qemu-system-x86_64: 218 vfio_dma_map(0x55b99d7b7d40, 0xfffff000, 0x1000, 0x7f79ee81f000) = 0',
      'messages of QEMU',
    ],
    ['IOMMU_IOAS_UNMAP failed: No such file or directory', 'messages of QEMU'],
    ['[  637.161194] arm-smmu arm-smmu.1.auto: Unhandled context fault', 'a kernel log (dmesg)'],
    ['[   12.345678][  T123] vfio-pci 0000:01:00.0: reset', 'a kernel log (dmesg)'],
    ['  qemu-kvm-4575    [008] .......   438.308478: unmap: IOMMU: iova=0x0 - 0x1000 size=4096', 'ftrace text'],
    ['# tracer: nop', 'ftrace text'],
    ['funcgraph_entry:      ! 428.925 us |        vfio_pin_pages_remote();', 'ftrace text'],
    ['Attaching 2 probes...', 'bpftrace output'],
    ['@[\n        vfio_pin_map_dma+244\n]: 8780', 'bpftrace output'],
    ['1154838: dma=0xffff8a65b28e7300 vaddr=0x7fe0a8400000 npage=0x1f3fa00', 'SystemTap output'],
    ['TAP version 13\n1..2', 'test results (TAP)'],
    ['#  RUN           hmm.hmm_device_private.exclusive ...\nnot ok 20 hmm.x', 'test results (TAP)'],
    ['memory.c: 801:_vfio_iommu_map_dma: *NOTICE*: Cannot set up DMA mapping', 'a log of SPDK'],
    ['PERFILE2........', 'perf data'],
  ];
  for (const [text, name] of rows) assert.is(formatOf(`${text}\n`), name, text);
  assert.is(detect(Buffer.from('28b52ffd0458', 'hex'), true).format, 'foreign');
});

test('empty, binary, unknown, tape', () => {
  assert.is(formatOf(''), 'empty');
  assert.is(formatOf(' \n\r\n\t'), 'empty');
  assert.is(formatOf('\0\0\0\0'), 'binary');
  assert.is(formatOf('\u0001\u0002\u0003\u0004'), 'binary');
  assert.is(formatOf('Dear all,\nclose(fd) is wrong here.\n'), 'unknown');
  assert.is(formatOf('int main(void) { return ioctl(3, 5, 0); }\n'), 'unknown');
  assert.is(formatOf('\0binary rubbish before\nioctl(3, 0x3b64) = 0\n'), 'strace');
  const magic = Buffer.from('\x89IOTAPE\n\x01\x00\x00\x00', 'latin1');
  assert.is(detect(magic, false).format, 'tape');
  for (let cut = 1; cut < 8; cut++) assert.is(detect(magic.subarray(0, cut), true).format, 'tape');
});

test('what is recognised and cannot be replayed says why, and what to do', () => {
  for (const text of [
    'qemu-system-x86_64: vfio_dma_map(0x1) = -22\n',
    '[  637.161194] arm-smmu: fault\n',
    'TAP version 13\n',
  ]) {
    const detected = detect(Buffer.from(text), true);
    assert.ok(detected.format === 'foreign' && /^which .+: (?:record|run) .+ strace$/.test(detected.advice), text);
  }
  const packed = detect(Buffer.from('28b52ffd0458', 'hex'), true);
  assert.ok(packed.format === 'foreign' && packed.advice.endsWith('zstd -d'));
});

test('a giant line and many lines are no trouble', () => {
  assert.is(formatOf('a'.repeat(256 << 10)), 'unknown');
  assert.is(formatOf('((((('.repeat(50_000)), 'unknown');
  assert.is(formatOf(' '.repeat(256 << 10)), 'empty');
  assert.is(formatOf('x() = '.repeat(40_000)), 'unknown');
  assert.is(formatOf(`${' '.repeat(4000)}x\n`.repeat(60)), 'unknown');
  assert.is(formatOf('\n'.repeat(256 << 10)), 'empty');
});
