import {
  CONTAINER,
  DATA,
  DEVICE,
  IOMMU,
  ioasMap,
  ioctl,
  MIRROR,
  mmap,
  munmap,
  note,
  type1Map,
  u32,
  u64,
  WITH_DEVICE,
  WITH_IOAS,
  WITH_MOCK,
} from './hostile-text.js';

/**
 * Recordings made to break a replay, for tests: sizes and counts that no table could hold, and many of everything. What a
 * name promises is what the generator gives, piece by piece; the whole of one is at most some tens of megabytes.
 */

const MAX32 = 0xffff_ffff;
const TIB = 2 ** 40;
const VA = 0x10_0000_0000;
const PAGE = 4096;
/** Where the mock device's addresses begin. */
const APERTURE = 2 ** 24;

function* times(count: number, line: (i: number) => string): Generator<string> {
  for (let i = 0; i < count; i++) yield line(i);
}

const EDGES = [
  0n,
  2n ** 24n,
  2n ** 30n,
  1n,
  0xfffn,
  0x1000n,
  2n ** 31n,
  2n ** 52n,
  2n ** 63n - 1n,
  2n ** 63n,
  2n ** 64n - 4096n,
  2n ** 64n - 1n,
];

function* everyPair(text: (a: bigint, b: bigint) => string): Generator<string> {
  for (const a of EDGES) for (const b of EDGES) yield text(a, b);
}

export const HOSTILE: Readonly<Record<string, () => Generator<string>>> = {
  *'mappings of a tebibyte and more, and unmaps of half the address space'() {
    yield WITH_IOAS + mmap(VA, TIB) + ioasMap(1, VA, TIB, 0);
    yield* times(1000, (i) => munmap(VA + i * 2 * PAGE, PAGE));
    yield* everyPair((a, b) => ioasMap(1, a, b, a) + ioctl(IOMMU, 'IOMMU_IOAS_UNMAP', u32(24, 1) + u64(a, b)));
    yield* everyPair((a, b) => mmap(a, b) + munmap(b, a));
    yield* everyPair(
      (a, b) => `mremap(${a}, ${b}, ${a}, MREMAP_MAYMOVE) = ${b}\nmprotect(${a}, ${b}, PROT_NONE) = 0\n`,
    );
    yield* everyPair((a, b) => `madvise(${a}, ${b}, MADV_DONTNEED) = 0\nbrk(${a}) = ${b}\n`);
  },

  *'type1 mappings of a tebibyte and more, unmapped with dirty bitmaps'() {
    yield WITH_DEVICE + mmap(VA, TIB) + type1Map(VA, 0, TIB);
    yield ioctl(CONTAINER, 'VFIO_IOMMU_DIRTY_PAGES', u32(8, 1));
    const dirty = (a: bigint, b: bigint): string =>
      ioctl(CONTAINER, 'VFIO_IOMMU_DIRTY_PAGES', u32(48, 4) + u64(a, b, PAGE, 8, DATA)) + note(u64(MAX32), DATA);
    yield* everyPair(dirty);
    yield* everyPair((a, b) => ioctl(CONTAINER, 'VFIO_IOMMU_UNMAP_DMA', u32(48, 1) + u64(a, b, PAGE, b, DATA)));
    yield* everyPair((a, b) => type1Map(a, b, a) + ioctl(CONTAINER, 'VFIO_IOMMU_UNMAP_DMA', u32(24, 2) + u64(a, b)));
    yield* everyPair((a, b) => type1Map(VA, a, b) + ioctl(CONTAINER, 'VFIO_IOMMU_UNMAP_DMA', u32(24, 4) + u64(a, b)));
    yield ioctl(CONTAINER, 'VFIO_IOMMU_GET_INFO', u32(MAX32, 2) + u64(PAGE) + u32(24, 0) + u32(0x1_0001, 24));
  },

  *'dirty bitmaps over 2^60 bytes with nothing behind them'() {
    yield WITH_MOCK + mmap(VA, TIB) + ioasMap(1, VA, 2 ** 30, APERTURE);
    yield ioctl(
      IOMMU,
      'IOMMU_HWPT_ALLOC',
      u32(48, 2, 3, 1, 0, 0, 0, 0) + u64(0, 0),
      0,
      u32(48, 2, 3, 1, 5, 0, 0, 0) + u64(0, 0),
    );
    yield ioctl(IOMMU, 'IOMMU_HWPT_SET_DIRTY_TRACKING', u32(16, 1, 5, 0));
    for (const pageSize of [0, 1, 3, 4096, 2 ** 52])
      yield* everyPair(
        (a, b) =>
          note(u64(1), DATA) +
          ioctl(IOMMU, 'IOMMU_HWPT_GET_DIRTY_BITMAP', u32(48, 5, 0, 0) + u64(a, b, pageSize, DATA)),
      );
    yield* everyPair((a, b) => ioctl(IOMMU, 'IOMMU_TEST_CMD', u32(72, 13, 5, 0, 1, 0) + u64(a, b, PAGE, DATA, b, 0)));
  },

  *'mock calls over the whole address space'() {
    yield WITH_MOCK + mmap(VA, TIB) + ioasMap(1, VA, 2 ** 30, APERTURE);
    const ops = [1, 3, 4, 7, 8, 9, 13, 14, 15, 17, 22];
    for (const op of ops)
      yield* everyPair((a, b) => ioctl(IOMMU, 'IOMMU_TEST_CMD', u32(72, op, 4, 0) + u64(a, b, DATA, a, b, 0, 0)));
    for (const op of [5, 7, 8])
      yield* everyPair((a, b) => ioctl(IOMMU, 'IOMMU_TEST_CMD', u32(72, op, 1, 0, 0, 0) + u64(a, b, DATA, 1, 0, 0), 6));
    for (const op of [7, 8])
      yield* everyPair((a, b) => ioctl(IOMMU, 'IOMMU_TEST_CMD', u32(72, op, 6, 0, 0, 0) + u64(a, b, DATA, 1, 0, 0)));
  },

  *'counts of 2^32-1 in every struct that has one'() {
    yield WITH_DEVICE;
    for (const flags of [0x21, 0x22, 0x24, 0x14, 0x0a]) {
      for (const start of [0, 1, MAX32])
        yield ioctl(DEVICE, 'VFIO_DEVICE_SET_IRQS', u32(MAX32, flags, 0, start, MAX32, 7, 8, 9));
    }
    yield ioctl(DEVICE, 'VFIO_DEVICE_GET_INFO', u32(MAX32, 0x40, MAX32, MAX32, 24, 0) + u32(0x1_0001, 24));
    yield ioctl(
      DEVICE,
      'VFIO_DEVICE_GET_REGION_INFO',
      u32(MAX32, 15, MAX32, 32) + u64(-1, -1) + u32(0x1_0002, 32, MAX32),
    );
    yield ioctl(
      DEVICE,
      'VFIO_DEVICE_GET_REGION_INFO',
      u32(48, 15, 0, 32) + u64(-1, -1) + u32(0x1_0001, 32, MAX32, MAX32),
    );
    yield ioctl(DEVICE, 'VFIO_DEVICE_GET_IRQ_INFO', u32(16, MAX32, MAX32, MAX32));
    yield ioctl(DEVICE, 'VFIO_DEVICE_GET_PCI_HOT_RESET_INFO', u32(MAX32, 0, MAX32, 1, 2, 3));
    yield ioctl(DEVICE, 'VFIO_DEVICE_PCI_HOT_RESET', u32(MAX32, 0, MAX32, 4));
    for (let feature = 0; feature < 16; feature++) {
      for (const flags of [0x1_0000, 0x2_0000, 0x4_0000])
        yield ioctl(
          DEVICE,
          'VFIO_DEVICE_FEATURE',
          u32(MAX32, flags + feature) + u64(1, MAX32, DATA, 2 ** 60, DATA, -1),
        );
    }
  },

  *'lists of 2^32-1 ranges, entries and bytes in iommufd'() {
    yield WITH_MOCK;
    yield note(u64(0, -1, 5, 1), DATA);
    yield ioctl(IOMMU, 'IOMMU_IOAS_IOVA_RANGES', u32(32, 1, MAX32, 0) + u64(DATA, 0)) + note(u64(0, -1, 5, 1), DATA);
    yield note(u64(0, -1, 5, 1), DATA);
    yield ioctl(IOMMU, 'IOMMU_IOAS_ALLOW_IOVAS', u32(32, 1, MAX32, 0) + u64(DATA));
    yield ioctl(IOMMU, 'IOMMU_GET_HW_INFO', u32(40, 0, 3, MAX32) + u64(DATA, -1, -1));
    yield ioctl(
      IOMMU,
      'IOMMU_HWPT_ALLOC',
      u32(48, 0, 3, 4, 0, 0, 0xdead, MAX32) + u64(DATA, 0),
      0,
      u32(48, 0, 3, 4, 9, 0, 0xdead, MAX32) + u64(DATA, 0),
    );
    for (const id of [4, 9])
      yield ioctl(IOMMU, 'IOMMU_HWPT_INVALIDATE', u32(32, id) + u64(DATA) + u32(0xdead, MAX32, MAX32, 0));
    yield ioctl(IOMMU, 'IOMMU_OPTION', u32(24, 0, 0, 0) + u64(-1));
    yield* times(2000, (i) => ioctl(IOMMU, 'IOMMU_IOAS_ALLOC', u32(12, 0, 0), 0, u32(12, 0, MAX32 - i)));
  },

  *'100,000 forks'() {
    yield WITH_IOAS;
    yield* times(1000, (i) => mmap(VA + 2 * i * PAGE, PAGE));
    yield* times(100_000, (i) => `clone(child_stack=NULL, flags=SIGCHLD) = ${1000 + i}\n`);
    yield* times(1000, (i) => `[pid ${1000 + i}] munmap(0x${VA.toString(16)}, 4096) = 0\n`);
  },

  *'100,000 open files, then 20 children that share none of them'() {
    yield* times(100_000, (i) => `openat(AT_FDCWD, "/dev/iommu", O_RDWR) = ${3 + i}\n`);
    yield* times(
      20,
      (i) =>
        `fork() = ${1000 + i}\n[pid ${1000 + i}] close(3) = 0\n[pid ${1000 + i}] execve("/bin/x", ["x"], NULL) = 0\n`,
    );
    yield 'close_range(0, 4294967295, 0) = 0\n';
    yield 'dup2(1, 2147483647) = 2147483647\nclose_range(2147483647, 4294967295, 0) = 0\n';
  },

  *'one VMA split 100,000 times, forked, moved and unmapped'() {
    yield mmap(VA, TIB);
    yield* times(100_000, (i) => `mprotect(0x${(VA + 2 * i * PAGE).toString(16)}, 4096, PROT_NONE) = 0\n`);
    yield* times(5, (i) => `fork() = ${1000 + i}\n[pid ${1000 + i}] ${munmap(VA, PAGE)}`);
    yield* times(20, () => `madvise(0x${VA.toString(16)}, ${TIB}, MADV_WILLNEED) = 0\n`);
    yield munmap(VA, TIB);
  },

  *'the same memory mapped 60,000 times, then unmapped again and again'() {
    yield WITH_IOAS + mmap(VA, 2 * PAGE);
    yield* times(60_000, (i) => ioasMap(1, VA, PAGE, i * PAGE));
    yield* times(2000, () => munmap(VA, PAGE) + mmap(VA, PAGE));
    yield 'close(3) = 0\n';
  },

  *'20,000 type1 mappings of one page, each unmapped by its process first'() {
    yield WITH_DEVICE;
    yield* times(20_000, (i) => mmap(VA + i * PAGE, PAGE) + type1Map(VA + i * PAGE, i * PAGE, PAGE));
    yield* times(20_000, (i) => munmap(VA + i * PAGE, PAGE));
    yield ioctl(CONTAINER, 'VFIO_IOMMU_UNMAP_DMA', u32(24, 2) + u64(0, 0), 0, u32(24, 2) + u64(0, 20_000 * PAGE));
  },

  *'30,000 IOASes, each copied from the one before, all closed at once'() {
    yield WITH_IOAS + mmap(VA, PAGE) + ioasMap(1, VA, PAGE, 0);
    yield* times(
      30_000,
      (i) =>
        ioctl(IOMMU, 'IOMMU_IOAS_ALLOC', u32(12, 0, 0), 0, u32(12, 0, i + 2)) +
        ioctl(IOMMU, 'IOMMU_IOAS_COPY', u32(40, 7, i + 2, i + 1) + u64(PAGE, 0, 0)),
    );
    yield 'close(3) = 0\n';
  },

  *'device memory of any number of pages'() {
    yield `openat(AT_FDCWD, "/dev/hmm_dmirror0", O_RDWR) = ${MIRROR}\n${mmap(VA, TIB)}`;
    const names = [
      'READ',
      'WRITE',
      'MIGRATE_TO_DEV',
      'MIGRATE_TO_SYS',
      'SNAPSHOT',
      'EXCLUSIVE',
      'CHECK_EXCLUSIVE',
      'RELEASE',
      'FLAGS',
    ];
    const counts = [1n, 2n ** 16n, 2n ** 28n, 2n ** 32n, 2n ** 52n - 1n, 2n ** 52n, 2n ** 63n, 2n ** 64n - 1n];
    for (const name of names) {
      for (const count of counts) {
        for (const at of [BigInt(VA), 0n, 2n ** 63n, 2n ** 64n - 4096n])
          yield ioctl(MIRROR, `HMM_DMIRROR_${name}`, u64(at, DATA, count, 0, 0), 0, u64(at, DATA, count, count, 1));
      }
    }
    yield munmap(VA, TIB);
  },

  *'page faults and invalidations over the whole address space, 200,000 of them'() {
    let ts = 1;
    const line = (fields: object): string => `${JSON.stringify({ ts: ts++, pid: 9, tid: 9, ...fields })}\n`;
    const hex = (value: bigint): string => `0x${value.toString(16)}`;
    yield line({ ev: 'call', call: 'openat', path: '/dev/hmm_dmirror0', ret: 3 });
    yield* everyPair((a, b) => line({ ev: 'fault', mm: '0x1', addr: hex(a), flags: hex(b), ret: hex(a) }));
    for (const ev of ['invalidate_start', 'invalidate_end'])
      yield* everyPair((a, b) => line({ ev, mm: '0x1', start: hex(a), end: hex(b), type: 0, flags: 1, owner: hex(b) }));
    yield* times(100_000, (i) =>
      line({ ev: 'fault', mm: '0x1', addr: hex(BigInt(VA + i * PAGE)), flags: '0x1', ret: '0x0' }),
    );
    yield* times(100_000, () =>
      line({
        ev: 'invalidate_start',
        mm: '0x1',
        start: '0x0',
        end: '0xfffffffffffff000',
        type: 0,
        flags: 1,
        owner: '0x0',
      }),
    );
  },

  *'a file of 50 MB without a line end'() {
    yield 'ioctl(3, VFIO_SET_IOMMU, 0x1) = 0\n';
    yield* times(800, () => 'ioctl(3, VFIO_SET_IOMMU, "'.padEnd(65_536, '\\x00'));
  },

  *'200,000 divergences and lines that mean nothing'() {
    yield WITH_DEVICE;
    yield* times(100_000, (i) => `ioctl(${CONTAINER}, VFIO_GET_API_VERSION) = ${i + 1}\n`);
    yield* times(100_000, (i) => `?? ${i}\n`);
  },
};
