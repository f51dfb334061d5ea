import * as assert from 'uvu/assert';
import { suite } from '../../core/testing.js';
import { corpus, iotape } from './testing.js';

/**
 * What people paste into bug reports: plain strace, without payload, often without a name behind the fd. The answers
 * to the letter: what is known, what is not, what the error can mean, and what to record to settle it.
 */
const test = suite('fragments');

function page(args: readonly string[], input = ''): string {
  const ran = iotape(['check', ...args], input);
  assert.is(ran.stderr, '');
  assert.is(ran.status, 0);
  return ran.stdout.replaceAll(corpus('wild/'), '');
}

const START = `  - from the start of the program, which shows how things came to be as they are (attaching with -p
    does not), and with -y, which names the files behind fds`;
const STRUCTS = `  - the structs of the ioctls, which no strace prints: preload the library of docs/RECORDING.md,
    which states them in the stream
    strace -f -ttt -y -x -s 4096 -E LD_PRELOAD=$PWD/annotate.so -o run.strace PROGRAM...`;

test('memory that is pinned on a POWER machine', () => {
  assert.is(
    page([corpus('wild/02-ubuntu-slow-vfio-spapr-ppc64.txt.gz')]),
    `02-ubuntu-slow-vfio-spapr-ppc64.txt.gz  strace, 3 events
  2 device calls: 2 unknown

  command                           calls  match  learned  unknown  diverge
  VFIO_IOMMU_SPAPR_REGISTER_MEMORY      1      .        .        1        .
  VFIO_SET_IOMMU                        1      .        .        1        .

UNKNOWN  VFIO_SET_IOMMU  02-ubuntu-slow-vfio-spapr-ppc64.txt.gz:1  event 0
  call       ioctl(17, VFIO_SET_IOMMU SPAPR_TCE_v2_IOMMU) = 0
  because    state of the container unknown: the file was open before the recording began
  known      fd 17 is a VFIO container, open before the recording began
             its backend is spapr
  not known  what was done with the file before the recording began

UNKNOWN  VFIO_IOMMU_SPAPR_REGISTER_MEMORY  02-ubuntu-slow-vfio-spapr-ppc64.txt.gz:4  event 2
  call       ioctl(17, VFIO_IOMMU_SPAPR_REGISTER_MEMORY 0x7fffe3fd6b70 {?}) = 0
  because    payload not recorded
  known      fd 17 is a VFIO container, open before the recording began
             its backend is spapr
             the memory is pinned and counted as locked; the time goes into pinning its pages
  not known  what was done with the file before the recording began
             what is at 0x7fffe3fd6b70: flags, vaddr, size

to settle it, record
${START}
${STRUCTS}

nothing found, 2 calls unknown
`,
  );
});

test('a number that two commands share', () => {
  assert.is(
    page([corpus('wild/03-qemu-devel-unmap-ambiguous-T.txt.gz')]),
    `03-qemu-devel-unmap-ambiguous-T.txt.gz  strace, 1 event
  1 device call: 1 unknown

  command                      calls  match  learned  unknown  diverge
  VFIO_DEVICE_QUERY_GFX_PLANE      1      .        .        1        .
    or VFIO_IOMMU_UNMAP_DMA

UNKNOWN  VFIO_DEVICE_QUERY_GFX_PLANE or VFIO_IOMMU_UNMAP_DMA  03-qemu-devel-unmap-ambiguous-T.txt.gz:1  event 0
  call       ioctl(48, VFIO_DEVICE_QUERY_GFX_PLANE or VFIO_IOMMU_UNMAP_DMA 0x7ffffd5c42f0) = 0
  because    which file is behind the fd was not recorded
  known      fd 48 is a VFIO container or /dev/iommu (VFIO_IOMMU_UNMAP_DMA), or a VFIO device
             (VFIO_DEVICE_QUERY_GFX_PLANE), by its number
             VFIO_IOMMU_UNMAP_DMA: success does not say that anything was unmapped: where nothing is
             mapped it succeeds too, and the size that it writes back tells how much went
  not known  which file fd 48 is
             what is at 0x7ffffd5c42f0: flags, iova, size, data (VFIO_IOMMU_UNMAP_DMA), or flags,
             drm_plane_type, drm_format, drm_format_mod, width, height, stride and 6 more
             (VFIO_DEVICE_QUERY_GFX_PLANE)

to settle it, record
${START}
${STRUCTS}

nothing found, 1 call unknown
`,
  );
});

test('the same with one of its names removed by hand', () => {
  assert.is(
    page([corpus('wild/04-qemu-devel-unmap-hand-edited-T.txt.gz')]),
    `04-qemu-devel-unmap-hand-edited-T.txt.gz  strace, 1 event
  1 device call: 1 unknown

  command                      calls  match  learned  unknown  diverge
  VFIO_DEVICE_QUERY_GFX_PLANE      1      .        .        1        .
    or VFIO_IOMMU_UNMAP_DMA

UNKNOWN  VFIO_DEVICE_QUERY_GFX_PLANE or VFIO_IOMMU_UNMAP_DMA  04-qemu-devel-unmap-hand-edited-T.txt.gz:1  event 0
  call       ioctl(48, VFIO_DEVICE_QUERY_GFX_PLANE or VFIO_IOMMU_UNMAP_DMA 0x7ffffd5c42f0) = 0
  because    which file is behind the fd was not recorded
  known      fd 48 is a VFIO container or /dev/iommu (VFIO_IOMMU_UNMAP_DMA), or a VFIO device
             (VFIO_DEVICE_QUERY_GFX_PLANE), by its number
             VFIO_IOMMU_UNMAP_DMA: success does not say that anything was unmapped: where nothing is
             mapped it succeeds too, and the size that it writes back tells how much went
  not known  which file fd 48 is
             what is at 0x7ffffd5c42f0: flags, iova, size, data (VFIO_IOMMU_UNMAP_DMA), or flags,
             drm_plane_type, drm_format, drm_format_mod, width, height, stride and 6 more
             (VFIO_DEVICE_QUERY_GFX_PLANE)

to settle it, record
${START}
${STRUCTS}

nothing found, 1 call unknown
`,
  );
});

test('a self-test that spins, attached to while it ran', () => {
  assert.is(
    page([corpus('wild/05-iommufd-selftest-runaway.txt.gz')]),
    `05-iommufd-selftest-runaway.txt.gz  strace, 17 events
  17 device calls: 17 unknown

  command         calls  match  learned  unknown  diverge
  IOMMU_TEST_CMD     17      .        .       17        .

UNKNOWN  IOMMU_TEST_CMD  05-iommufd-selftest-runaway.txt.gz:1  event 0, and 16 more like it
  call       ioctl(5, IOMMU_TEST_CMD 0x7ffdd9eebc00 {?}) = 0
  because    payload not recorded
  known      fd 5 is /dev/iommu, open before the recording began
             the kernel was built with the iommufd self-tests (CONFIG_IOMMUFD_TEST): no other has
             the command
  not known  what was done with the file before the recording began
             what is at 0x7ffdd9eebc00: op, id, args

to settle it, record
${START}
${STRUCTS}

nothing found, 17 calls unknown
`,
  );
});

test('MAP_DMA with EEXIST: the error tells which kind of file it was', () => {
  const fragment = `ioctl(17, VFIO_DEVICE_PCI_HOT_RESET or VFIO_IOMMU_MAP_DMA, 0x7ffd005c42f0) = -1 EEXIST (File exists)
`;
  assert.is(
    page(['-'], fragment),
    `-  strace, 1 event
  1 device call: 1 unknown

  command                    calls  match  learned  unknown  diverge
  VFIO_DEVICE_PCI_HOT_RESET      1      .        .        1        .
    or VFIO_IOMMU_MAP_DMA

UNKNOWN  VFIO_DEVICE_PCI_HOT_RESET or VFIO_IOMMU_MAP_DMA  -:1  event 0
  call       ioctl(17, VFIO_DEVICE_PCI_HOT_RESET or VFIO_IOMMU_MAP_DMA 0x7ffd005c42f0) = -1 EEXIST
  because    which file is behind the fd was not recorded
  known      fd 17 is a VFIO container or /dev/iommu (VFIO_IOMMU_MAP_DMA), by its number and EEXIST
  not known  which file fd 17 is
             what is at 0x7ffd005c42f0: flags, vaddr, iova, size
  possible   on a VFIO container:
             - the range touches a mapping (map-dma.overlap)
             on /dev/iommu:
             - an area is there already (iova.exists)

to settle it, record
${START}
${STRUCTS}

nothing found, 1 call unknown
`,
  );
});

test('iommufd: a MAP that cannot pin, an UNMAP of nothing, a DESTROY of something in use', () => {
  const fragment = `ioctl(24</dev/iommu>, IOMMU_IOAS_MAP, 0x7ffd005c42f0) = -1 EFAULT (Bad address)
ioctl(24</dev/iommu>, IOMMU_IOAS_UNMAP, 0x7ffd005c42f0) = -1 ENOENT (No such file or directory)
ioctl(24</dev/iommu>, IOMMU_DESTROY, 0x7ffd005c42f0) = -1 EBUSY (Device or resource busy)
`;
  assert.is(
    page(['-'], fragment),
    `-  strace, 3 events
  3 device calls: 3 unknown

  command           calls  match  learned  unknown  diverge
  IOMMU_DESTROY         1      .        .        1        .
  IOMMU_IOAS_MAP        1      .        .        1        .
  IOMMU_IOAS_UNMAP      1      .        .        1        .

UNKNOWN  IOMMU_IOAS_MAP  -:1  event 0
  call       ioctl(24, IOMMU_IOAS_MAP 0x7ffd005c42f0 {?}) = -1 EFAULT
  because    payload not recorded
  known      fd 24 is /dev/iommu, open before the recording began
  not known  what was done with the file before the recording began
             what is at 0x7ffd005c42f0: flags, ioas_id, user_va, length, iova
  possible   - the struct cannot be read (common.fault)
             - the memory is not mapped, or not with the rights that are needed (pages.fault)

UNKNOWN  IOMMU_IOAS_UNMAP  -:2  event 1
  call       ioctl(24, IOMMU_IOAS_UNMAP 0x7ffd005c42f0 {?}) = -1 ENOENT
  because    payload not recorded
  known      fd 24 is /dev/iommu, open before the recording began
  not known  what was done with the file before the recording began
             what is at 0x7ffd005c42f0: ioas_id, iova, length
  possible   - no IOAS has the id (unmap.ioas)
             - an area is only partly inside the range (unmap.part)
             - no area is in the range (unmap.none)

UNKNOWN  IOMMU_DESTROY  -:3  event 2
  call       ioctl(24, IOMMU_DESTROY 0x7ffd005c42f0 {?}) = -1 EBUSY
  because    payload not recorded
  known      fd 24 is /dev/iommu, open before the recording began
  not known  what was done with the file before the recording began
             what is at 0x7ffd005c42f0: id
  possible   something uses the object (destroy.busy)

to settle it, record
${START}
${STRUCTS}

nothing found, 3 calls unknown
`,
  );
});

test('a run from its start: what is known of the container narrows the reasons', () => {
  const fragment = `100 execve("/bin/vmm", ["vmm"], 0x7ffd00000000 /* 3 vars */) = 0
100 openat(AT_FDCWD, "/dev/vfio/vfio", O_RDWR) = 3</dev/vfio/vfio>
100 openat(AT_FDCWD, "/dev/vfio/13", O_RDWR) = 4</dev/vfio/13>
100 ioctl(4</dev/vfio/13>, VFIO_GROUP_SET_CONTAINER, 0x7ffd005c42f0) = 0
100 ioctl(3</dev/vfio/vfio>, VFIO_SET_IOMMU, 0x3) = 0
100 ioctl(3</dev/vfio/vfio>, VFIO_DEVICE_PCI_HOT_RESET or VFIO_IOMMU_MAP_DMA, 0x7ffd005c42f0) = -1 EINVAL (Invalid argument)
`;
  assert.is(
    page(['-'], fragment),
    `-  strace, 6 events
  3 device calls: 1 match, 2 unknown

  command                   calls  match  learned  unknown  diverge
  VFIO_GROUP_SET_CONTAINER      1      .        .        1        .
  VFIO_IOMMU_MAP_DMA            1      .        .        1        .
  and 1 command with nothing but match and learned

UNKNOWN  VFIO_IOMMU_MAP_DMA  -:6  event 5
  call       ioctl(3, VFIO_IOMMU_MAP_DMA 0x7ffd005c42f0 {?}) = -1 EINVAL
  because    payload not recorded
  known      fd 3 is a VFIO container (/dev/vfio/vfio), opened by event 1 (line 2)
             its backend is type1v2, it has /dev/vfio/13
  not known  what is at 0x7ffd005c42f0: flags, vaddr, iova, size
  possible   - argsz is less than 32 (map-dma.argsz)
             - a flag other than READ, WRITE, VADDR (map-dma.flags)
             - size is 0 (map-dma.size-zero)
             - neither READ nor WRITE nor VADDR, or VADDR together with one of the others
               (map-dma.access)
             - iova, vaddr or size is no multiple of the page size (map-dma.iova-aligned)
             - the range does not lie inside one valid IOVA range (aperture without reserved
               regions) (map-dma.iova-range)

UNKNOWN  VFIO_GROUP_SET_CONTAINER  -:4  event 3
  call       ioctl(4, VFIO_GROUP_SET_CONTAINER 0x7ffd005c42f0 {?}) = 0
  because    payload not recorded
  known      fd 4 is a VFIO group (/dev/vfio/13), opened by event 2 (line 3)
  not known  what is at 0x7ffd005c42f0: an fd

to settle it, record
${STRUCTS}

nothing found, 2 calls unknown
`,
  );
});

test('an ENOMEM, and an error that no rule gives', () => {
  const fragment = `ioctl(17</dev/vfio/vfio>, VFIO_IOMMU_MAP_DMA, 0x7ffd005c42f0) = -1 ENOMEM (Cannot allocate memory)
ioctl(19</dev/vfio/13>, VFIO_GROUP_GET_DEVICE_FD, 0x7ffd005c42f0) = -1 EIO (Input/output error)
`;
  assert.is(
    page(['-'], fragment),
    `-  strace, 2 events
  2 device calls: 2 unknown

  command                   calls  match  learned  unknown  diverge
  VFIO_GROUP_GET_DEVICE_FD      1      .        .        1        .
  VFIO_IOMMU_MAP_DMA            1      .        .        1        .

UNKNOWN  VFIO_IOMMU_MAP_DMA  -:1  event 0
  call       ioctl(17, VFIO_IOMMU_MAP_DMA 0x7ffd005c42f0 {?}) = -1 ENOMEM
  because    payload not recorded
  known      fd 17 is a VFIO container (/dev/vfio/vfio), open before the recording began
             RLIMIT_MEMLOCK of the process is not recorded
  not known  what was done with the file before the recording began
             what is at 0x7ffd005c42f0: flags, vaddr, iova, size
  possible   - VADDR from another address space, where RLIMIT_MEMLOCK does not allow the pages,
               and CAP_IPC_LOCK is missing (map-dma.vaddr-memlock)
             - more pages would be locked than RLIMIT_MEMLOCK allows, and CAP_IPC_LOCK is missing
               (map-dma.memlock)
             - the kernel had no memory for it

UNKNOWN  VFIO_GROUP_GET_DEVICE_FD  -:2  event 1
  call       ioctl(19, VFIO_GROUP_GET_DEVICE_FD 0x7ffd005c42f0 {?}) = -1 EIO
  because    payload not recorded
  known      fd 19 is a VFIO group (/dev/vfio/13), open before the recording began
  not known  what was done with the file before the recording began
             what is at 0x7ffd005c42f0: a name
  possible   no rule of the model gives EIO: it comes from the driver, a security module or another
             release

to settle it, record
${START}
${STRUCTS}

nothing found, 2 calls unknown
`,
  );
});
