import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { suite } from '../core/testing.js';
import { invariants } from '../reducers/invariants/index.js';
import { openRecording } from '../traces/open.js';
import { replay } from './report.js';

/**
 * Problems that people have reported of VFIO and iommufd, each as the recording of a program that has it: what iotape says of
 * them, to the letter.
 */
const test = suite('reported problems');
const scratch = mkdtempSync(join(tmpdir(), 'iotape-problems-'));
test.after(() => rmSync(scratch, { recursive: true, force: true }));

const ARG = 0x7ffc_0000_1000;
const RAM = 0x7f00_0000_0000;
const RW = 3;

/** A program under strace, with the memory of its ioctls stated. */
class Program {
  readonly #lines = ['execve("./vmm", ["./vmm"], 0x7ffd00000000 /* 0 vars */) = 0'];

  line(text: string): this {
    this.#lines.push(text);
    return this;
  }

  mmap(address: number, length: number): this {
    return this.line(
      `mmap(${hex(address)}, ${length}, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS|MAP_FIXED, -1, 0) = ${hex(address)}`,
    );
  }

  ioctl(fd: string, command: string, before: Uint8Array, result = '0', after = before): this {
    return this.#note(before)
      .line(`ioctl(${fd}, ${command}, ${hex(ARG)}) = ${result}`)
      .#note(after);
  }

  #note(bytes: Uint8Array): this {
    const text = [...bytes].map((byte) => `\\x${byte.toString(16).padStart(2, '0')}`).join('');
    return this.line(`pwrite64(-1, "${text}", ${bytes.length}, ${ARG}) = -1 EBADF (Bad file descriptor)`);
  }

  // ---- VFIO's container ----------------------------------------------------------------------------------

  container(type: 0 | 1 | 3 = 3): this {
    this.line('openat(AT_FDCWD, "/dev/vfio/vfio", O_RDWR) = 3</dev/vfio/vfio>');
    this.line('openat(AT_FDCWD, "/dev/vfio/12", O_RDWR) = 4</dev/vfio/12>');
    this.ioctl('4</dev/vfio/12>', 'VFIO_GROUP_SET_CONTAINER', words([3]));
    return type === 0 ? this : this.line(`ioctl(3</dev/vfio/vfio>, VFIO_SET_IOMMU, ${hex(type)}) = 0`);
  }

  device(): this {
    const name = new TextEncoder().encode('0000:03:00.0\0');
    return this.ioctl('4</dev/vfio/12>', 'VFIO_GROUP_GET_DEVICE_FD', name, '5<anon_inode:[vfio-device]>');
  }

  mapDma(iova: number, size: number, vaddr: number, result = '0'): this {
    return this.ioctl('3</dev/vfio/vfio>', 'VFIO_IOMMU_MAP_DMA', words([32, RW], [vaddr, iova, size]), result);
  }

  /** `went`: the size that the kernel writes back. */
  unmapDma(iova: number, size: number, went: number, result = '0'): this {
    const command = 'VFIO_DEVICE_QUERY_GFX_PLANE or VFIO_IOMMU_UNMAP_DMA';
    const before = words([24, 0], [iova, size]);
    return this.ioctl('3</dev/vfio/vfio>', command, before, result, words([24, 0], [iova, went]));
  }

  /** GET_INFO with a chain of capabilities: migration, mappings that are left, valid ranges. */
  ranges(...all: readonly (readonly [start: number, last: number])[]): this {
    const size = 88 + all.length * 16;
    const before = words([size, ...new Array<number>(size / 4 - 1).fill(0)]);
    const migration = words([0x1_0002, 0x38, 0, 0], [4096, 0x1000_0000]);
    const left = words([0x1_0003, 0x48, 65535, 0]);
    const valid = words([0x1_0001, 0, all.length, 0], all.flat());
    const after = joined(words([size, 3], [0x4020_1000], [24, 0]), migration, left, valid);
    return this.ioctl('3</dev/vfio/vfio>', 'VFIO_IOMMU_GET_INFO', before, '0', after);
  }

  // ---- iommufd -------------------------------------------------------------------------------------------

  iommufd(): this {
    this.line('openat(AT_FDCWD, "/dev/iommu", O_RDWR) = 6</dev/iommu>');
    return this.ioctl('6</dev/iommu>', '_IOC(_IOC_NONE, 0x3b, 0x81, 0)', words([12, 0, 0]), '0', words([12, 0, 1]));
  }

  /** A device by its cdev, attached to IOAS 1. */
  cdev(): this {
    this.line('openat(AT_FDCWD, "/dev/vfio/devices/vfio0", O_RDWR) = 5</dev/vfio/devices/vfio0>');
    const bound = words([24, 0, 6, 2], [0]);
    this.ioctl(CDEV, 'VFIO_DEVICE_BIND_IOMMUFD', words([24, 0, 6, 0], [0]), '0', bound);
    return this.ioctl(CDEV, 'VFIO_DEVICE_ATTACH_IOMMUFD_PT', words([12, 0, 1]), '0', words([12, 0, 3]));
  }

  iommuMap(iova: number, length: number, address: number, result = '0'): this {
    const struct = words([40, 7, 1, 0], [address, length, iova]);
    return this.ioctl('6</dev/iommu>', '_IOC(_IOC_NONE, 0x3b, 0x85, 0)', struct, result);
  }

  iommuUnmap(iova: number, length: number, result = '0'): this {
    const struct = words([24, 1], [iova, length]);
    return this.ioctl('6</dev/iommu>', '_IOC(_IOC_NONE, 0x3b, 0x86, 0)', struct, result);
  }

  // ---- the answer ----------------------------------------------------------------------------------------

  /** What failed and why, what did nothing, and what was found, one line each. Calls must not contradict the model. */
  async says(): Promise<string[]> {
    const path = join(scratch, 'problem.strace');
    writeFileSync(path, `${this.#lines.join('\n')}\n`);
    const report = await replay(await openRecording(path), { invariants });
    assert.equal(
      report.divergences.map(({ call, rule, line }) => `${line} ${call} ${rule}`),
      [],
    );
    return [
      ...report.failures.map(({ call, errno, reason }) => `${call} ${errno}: ${reason}`),
      ...report.idleGroups.map(({ first: { call, reason } }) => `${call} succeeded: ${reason}`),
      ...report.unknowns.map(({ call, because }) => `${call} unknown: ${because}`),
      ...report.findings.map(({ invariant, message }) => `${invariant}: ${message}`),
    ];
  }
}

function hex(value: number): string {
  return `0x${value.toString(16)}`;
}

/** Fields of 4 bytes and of 8 bytes, in turn. */
function words(...groups: readonly (readonly number[])[]): Uint8Array {
  const fields = groups.flatMap((group, i) => group.map((value) => [value, i % 2 === 0 ? 4 : 8] as const));
  const bytes = new Uint8Array(fields.reduce((sum, [, width]) => sum + width, 0));
  const view = new DataView(bytes.buffer);
  let at = 0;
  for (const [value, width] of fields) {
    if (width === 4) view.setUint32(at, value, true);
    else view.setBigUint64(at, BigInt(value), true);
    at += width;
  }
  return bytes;
}

function joined(...parts: readonly Uint8Array[]): Uint8Array {
  return new Uint8Array(parts.flatMap((part) => [...part]));
}

const CDEV = '5</dev/vfio/devices/vfio0>';
const EINVAL = '-1 EINVAL (Invalid argument)';
const EEXIST = '-1 EEXIST (File exists)';
const EFAULT = '-1 EFAULT (Bad address)';
const ENOENT = '-1 ENOENT (No such file or directory)';
const EBUSY = '-1 EBUSY (Device or resource busy)';
const MIB = 0x10_0000;

function guest(): Program {
  return new Program().mmap(RAM, 64 * MIB);
}

test('a part of a larger mapping is unmapped, its memory replaced, and mapped anew (SPDK 1705)', async () => {
  const half = RAM + 2 * MIB;
  const program = guest()
    .container(1)
    .device()
    .mapDma(0, 4 * MIB, RAM)
    .unmapDma(2 * MIB, 2 * MIB, 0);
  program
    .line(`munmap(${hex(half)}, ${2 * MIB}) = 0`)
    .mmap(half, 2 * MIB)
    .mapDma(2 * MIB, 2 * MIB, half, EEXIST);
  assert.equal(await program.says(), [
    'VFIO_IOMMU_MAP_DMA EEXIST: 0x200000-0x3fffff overlaps mapping 0x0-0x3fffff of event 7',
    'VFIO_IOMMU_UNMAP_DMA succeeded: 0x200000-0x3fffff cuts mapping 0x0-0x3fffff of event 7, which goes as a whole or not at all',
    'memory-pinned: memory was unmapped while DMA mappings still pin it: 0x7f0000200000-0x7f00003fffff of IOVA 0x0 in type1:1 (mapped by event 7)',
  ]);
});

test('a range is unmapped twice (SPDK 2075), and once more where iommufd has none (QEMU, intel_iommu)', async () => {
  const program = guest()
    .container()
    .device()
    .mapDma(0, 2 * MIB, RAM)
    .unmapDma(0, 2 * MIB, 2 * MIB);
  program.unmapDma(0, 2 * MIB, 0);
  program
    .iommufd()
    .iommuMap(0, 2 * MIB, RAM)
    .iommuUnmap(0, 2 * MIB)
    .iommuUnmap(0, 2 * MIB, ENOENT);
  assert.equal(await program.says(), [
    'IOMMU_IOAS_UNMAP ENOENT: 0x0-0x1fffff is not mapped in IOAS 1; the IOAS is empty',
    'VFIO_IOMMU_UNMAP_DMA succeeded: 0x0-0x1fffff is not mapped; the container has no mapping',
  ]);
});

test('a region is registered where another one is (SPDK 3061, Kata 10582)', async () => {
  const program = guest()
    .container()
    .device()
    .mapDma(0x1c2c_400000, 2 * MIB, RAM);
  program.mapDma(0x1c2c_500000, 2 * MIB, RAM + 4 * MIB, EEXIST).unmapDma(0x1c2c_400000, 2 * MIB, 2 * MIB);
  assert.equal(await program.says(), [
    'VFIO_IOMMU_MAP_DMA EEXIST: 0x1c2c500000-0x1c2c6fffff overlaps mapping 0x1c2c400000-0x1c2c5fffff of event 7',
  ]);
});

test('the container has no IOMMU yet (libevpl 86), or not any more (libvfn 17)', async () => {
  const program = guest().container(0).mapDma(0, MIB, RAM, EINVAL);
  program.line('ioctl(3</dev/vfio/vfio>, VFIO_SET_IOMMU, 0x3) = 0').mapDma(0, MIB, RAM);
  program.line('ioctl(4</dev/vfio/12>, VFIO_GROUP_UNSET_CONTAINER) = 0');
  program.ioctl('4</dev/vfio/12>', 'VFIO_GROUP_SET_CONTAINER', words([3])).mapDma(0, MIB, RAM, EINVAL);
  assert.equal(await program.says(), [
    'VFIO_IOMMU_MAP_DMA EINVAL: the container has /dev/vfio/12, and SET_IOMMU was not called since the first one joined',
    'VFIO_IOMMU_MAP_DMA EINVAL: the container has /dev/vfio/12, and SET_IOMMU was not called since the first one joined',
  ]);
});

test('a group cannot leave its container while a BAR is mapped (Cloud Hypervisor 8063)', async () => {
  const program = guest().container().device();
  program.line('mmap(NULL, 65536, PROT_READ|PROT_WRITE, MAP_SHARED, 5<anon_inode:[vfio-device]>, 0) = 0x7e0000000000');
  program.line('close(5<anon_inode:[vfio-device]>) = 0');
  program.line(`ioctl(4</dev/vfio/12>, VFIO_GROUP_UNSET_CONTAINER) = ${EBUSY}`);
  assert.equal(await program.says(), [
    'VFIO_GROUP_UNSET_CONTAINER EBUSY: open devices: 0000:03:00.0 (mmaps of its fd are alive: 0x7e0000000000-0x7e000000ffff of event 7)',
  ]);
});

test('a BAR is no memory for iommufd (Cloud Hypervisor 8895, QEMU)', async () => {
  const program = guest().iommufd().cdev();
  program.line('mmap(NULL, 65536, PROT_READ|PROT_WRITE, MAP_SHARED, 5</dev/vfio/devices/vfio0>, 0) = 0x7e0000000000');
  program.iommuMap(0xfe00_0000, 65536, 0x7e00_0000_0000, EFAULT).iommuUnmap(0xfe00_0000, 65536, ENOENT);
  assert.equal(await program.says(), [
    'IOMMU_IOAS_MAP EFAULT: 0x7e0000000000 of user memory 0x7e0000000000-0x7e000000ffff: memory of a device, which has no struct pages (a BAR of vfio0, 0x7e0000000000-0x7e000000ffff of event 7); iommufd takes a BAR as a dma-buf only, by IOAS_MAP_FILE',
    'IOMMU_IOAS_UNMAP ENOENT: 0xfe000000-0xfe00ffff is not mapped in IOAS 1; the IOAS is empty',
  ]);
});

test('a part of an area is unmapped, and the next MAP there is refused (iommufd)', async () => {
  const program = guest().iommufd().iommuMap(0xffff_f000, 4096, RAM);
  program.iommuUnmap(0xffff_f000, 2048, ENOENT).iommuMap(0xffff_f000, 4096, RAM, EEXIST);
  assert.equal(await program.says(), [
    'IOMMU_IOAS_UNMAP ENOENT: 0xfffff000-0xfffff7ff cuts area 0xfffff000-0xffffffff of event 4, which goes as a whole or not at all',
    'IOMMU_IOAS_MAP EEXIST: 0xfffff000-0xffffffff is area 0xfffff000-0xffffffff of event 4',
  ]);
});

test('an IOAS is destroyed while a device is attached (QEMU)', async () => {
  const program = guest().iommufd().cdev().iommuMap(0, MIB, RAM);
  program.ioctl('6</dev/iommu>', '_IOC(_IOC_NONE, 0x3b, 0x80, 0)', words([8, 1]), EBUSY);
  assert.equal(await program.says(), ['IOMMU_DESTROY EBUSY: IOAS 1 of event 3 is used by HWPT 3 of event 6']);
});

test('memory goes away under a mapping (SPDK 1705)', async () => {
  const program = guest()
    .container()
    .device()
    .mapDma(0, 4 * MIB, RAM);
  program.line(`munmap(${hex(RAM)}, ${2 * MIB}) = 0`);
  assert.equal(await program.says(), [
    'memory-pinned: memory was unmapped while DMA mappings still pin it: 0x7f0000000000-0x7f00001fffff of IOVA 0x0 in type1:1 (mapped by event 7)',
  ]);
});

test('a mapping crosses the MSI window (aarch64-virt on x86), or what the machine reserves (AMD 1 TiB hole, ISA floppy)', async () => {
  const program = guest().container().device().mapDma(0xfee0_0000, MIB, RAM, EINVAL);
  program.ranges([0x100_0000, 0xfedf_ffff], [0xfef0_0000, 0xfc_ffff_ffff], [0x100_0000_0000, 0xffff_ffff_ffff]);
  program.mapDma(0xc_0000, MIB, RAM, EINVAL).mapDma(0xfc_ff00_0000, 32 * MIB, RAM, EINVAL);
  assert.equal(await program.says(), [
    'VFIO_IOMMU_MAP_DMA EINVAL: 0xfee00000-0xfeefffff touches 0xfee00000-0xfeefffff, where x86 devices send their interrupts (MSI)',
    'VFIO_IOMMU_MAP_DMA EINVAL: 0xc0000-0x1bffff touches 0x0-0xffffff, which is reserved; valid are 0x1000000-0xfedfffff, 0xfef00000-0xfcffffffff, 0x10000000000-0xffffffffffff for /dev/vfio/12, as GET_INFO of event 8 told',
    'VFIO_IOMMU_MAP_DMA EINVAL: 0xfcff000000-0xfd00ffffff touches 0xfd00000000-0xffffffffff, which is reserved; valid are 0x1000000-0xfedfffff, 0xfef00000-0xfcffffffff, 0x10000000000-0xffffffffffff for /dev/vfio/12, as GET_INFO of event 8 told',
  ]);
});

test('the IOVA is wider than the IOMMU (39 bits: unvme 4, Cloud Hypervisor 7030)', async () => {
  const program = guest().container().device().mapDma(0x3800_0000_0000, MIB, RAM, EINVAL);
  program.ranges([0, 0xfedf_ffff], [0xfef0_0000, 0x7f_ffff_ffff]);
  program.mapDma(0x3800_0000_0000, MIB, RAM, EINVAL).mapDma(0xfed0_0000, 2 * MIB, RAM, EINVAL);
  assert.equal(await program.says(), [
    'VFIO_IOMMU_MAP_DMA EINVAL: 0x380000000000-0x3800000fffff ends beyond the aperture: it needs 46 bits, the IOMMU has 39; valid are 0x0-0xfedfffff, 0xfef00000-0x7fffffffff for /dev/vfio/12, as GET_INFO of event 8 told',
    'VFIO_IOMMU_MAP_DMA EINVAL: 0xfed00000-0xfeefffff touches 0xfee00000-0xfeefffff, which is reserved; valid are 0x0-0xfedfffff, 0xfef00000-0x7fffffffff for /dev/vfio/12, as GET_INFO of event 8 told',
    'VFIO_IOMMU_MAP_DMA unknown: IOVA 0x3800000fffff needs more than 39 bits, and no GET_INFO shows the valid IOVA ranges of the container',
  ]);
});

test('RLIMIT_MEMLOCK is too small (QEMU, many users)', async () => {
  const program = guest().container().device();
  program.line('prlimit64(0, RLIMIT_MEMLOCK, NULL, {rlim_cur=8192*1024, rlim_max=8192*1024}) = 0');
  program.mapDma(0, 4 * MIB, RAM).mapDma(4 * MIB, 8 * MIB, RAM + 4 * MIB, '-1 ENOMEM (Cannot allocate memory)');
  assert.equal(await program.says(), [
    'VFIO_IOMMU_MAP_DMA ENOMEM: the process has 4096 KiB locked and asks for 8192 KiB, 12288 KiB in all; RLIMIT_MEMLOCK is 8192 KiB (event 7), which only CAP_IPC_LOCK lifts',
  ]);
});

test('dirty pages are asked for before tracking starts (QEMU)', async () => {
  const program = guest().container().device().mapDma(0, MIB, RAM);
  const get = words([48, 4], [0, MIB, 4096, 32, RAM]);
  program.ioctl('3</dev/vfio/vfio>', 'VFIO_DEVICE_FEATURE or VFIO_IOMMU_DIRTY_PAGES', get, EINVAL);
  assert.equal(await program.says(), ['VFIO_IOMMU_DIRTY_PAGES EINVAL: no DIRTY_PAGES with START is in force']);
});

test('mappings are left when the program ends (tt-umd 850)', async () => {
  const program = guest().container().device().mapDma(0, MIB, RAM).line('exit_group(0) = ?');
  program.line('+++ exited with 0 +++');
  assert.equal(await program.says(), [
    'leaked-mappings: container 1 went away with 1 DMA mapping in place, the first at IOVA 0x0-0xfffff',
  ]);
});
