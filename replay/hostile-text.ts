import { commandByName } from '../core/uapi/lookup.js';

/** Annotated strace text of a client that asks for absurd things and is told that they worked; for tests. */

export function u32(...values: number[]): string {
  return values.map((value) => littleEndian(BigInt.asUintN(32, BigInt(value)), 4)).join('');
}

export function u64(...values: (number | bigint)[]): string {
  return values.map((value) => littleEndian(BigInt.asUintN(64, BigInt(value)), 8)).join('');
}

function littleEndian(value: bigint, count: number): string {
  let text = '';
  for (let i = 0; i < count; i++) text += `\\x${((value >> BigInt(8 * i)) & 0xffn).toString(16).padStart(2, '0')}`;
  return text;
}

const ARG = 0x7ffe_0000_0000;
/** Where the examples put what a struct points to. */
export const DATA = 0x7ffd_0000_0000;

export const IOMMU = '3</dev/iommu>';
export const CONTAINER = '3</dev/vfio/vfio>';
export const GROUP = '4</dev/vfio/7>';
export const DEVICE = '5<anon_inode:[vfio-device]>';
export const MIRROR = '3</dev/hmm_dmirror0>';

/** That memory at `addr` holds bytes, given as escapes. */
export function note(shown: string, addr: number = ARG): string {
  return `pwrite64(-1, "${shown}", ${shown.length / 4}, ${addr}) = -1 EBADF (Bad file descriptor)\n`;
}

/** A call with its struct before and after; the same where only one is given. */
export function ioctl(fd: string, name: string, before: string, result: number | string = 0, after = before): string {
  const request = commandByName(name)?.request;
  if (request === undefined) throw new Error(`no command ${name}`);
  return `${note(before)}ioctl(${fd}, 0x${request.toString(16)}, 0x${ARG.toString(16)}) = ${result}\n${note(after)}`;
}

export function mmap(addr: number | bigint, length: number | bigint): string {
  const at = `0x${addr.toString(16)}`;
  return `mmap(${at}, ${length}, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_FIXED|MAP_ANONYMOUS, -1, 0) = ${at}\n`;
}

export function munmap(addr: number | bigint, length: number | bigint): string {
  return `munmap(0x${addr.toString(16)}, ${length}) = 0\n`;
}

/** An open iommufd with IOAS 1. */
export const WITH_IOAS = `openat(AT_FDCWD, "/dev/iommu", O_RDWR) = ${IOMMU}\n${ioctl(
  IOMMU,
  'IOMMU_IOAS_ALLOC',
  u32(12, 0, 0),
  0,
  u32(12, 0, 1),
)}`;

/** A mock device 2 in that IOAS, behind HWPT 4; its object as a bound device is 3. */
export const WITH_MOCK: string =
  WITH_IOAS +
  ioctl(
    IOMMU,
    'IOMMU_TEST_CMD',
    u32(72, 2, 1, 0) + u64(0, 0, 0, 0, 0, 0, 0),
    0,
    u32(72, 2, 1, 0, 2, 4, 3, 0) + u64(0, 0, 0, 0, 0),
  );

/** A container of type1 v2 with one group and its device. */
export const WITH_DEVICE: string = [
  `openat(AT_FDCWD, "/dev/vfio/vfio", O_RDWR) = ${CONTAINER}\n`,
  `openat(AT_FDCWD, "/dev/vfio/7", O_RDWR) = ${GROUP}\n`,
  ioctl(GROUP, 'VFIO_GROUP_SET_CONTAINER', u32(3)),
  `ioctl(${CONTAINER}, VFIO_SET_IOMMU, 0x3) = 0\n`,
  ioctl(GROUP, 'VFIO_GROUP_GET_DEVICE_FD', '\\x30\\x30\\x30\\x30\\x3a\\x30\\x30\\x3a\\x31\\x30\\x2e\\x30\\x00', DEVICE),
].join('');

/** IOMMU_IOAS_MAP at a fixed IOVA. */
export function ioasMap(ioas: number, va: number | bigint, length: number | bigint, iova: number | bigint): string {
  return ioctl(IOMMU, 'IOMMU_IOAS_MAP', u32(40, 7, ioas, 0) + u64(va, length, iova));
}

export function type1Map(va: number | bigint, iova: number | bigint, length: number | bigint): string {
  return ioctl(CONTAINER, 'VFIO_IOMMU_MAP_DMA', u32(32, 3) + u64(va, iova, length));
}
