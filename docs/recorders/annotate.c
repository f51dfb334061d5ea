/*
 * States, in the stream of strace, the memory that the ioctls of VFIO, iommufd and dmirror pass, which strace does
 * not print. docs/RECORDING.md says how it is used.
 *
 *     gcc -shared -fPIC -O2 -o annotate.so annotate.c
 *     strace -f -ttt -y -x -s 4096 -E LD_PRELOAD=$PWD/annotate.so -o run.strace PROGRAM...
 *
 * A statement is pwrite64(-1, memory, count, address). It fails with EBADF and changes nothing; strace prints the
 * bytes. Statements before an ioctl hold what the kernel is about to read, those after it what it wrote.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { VFIO = 0x3b, HMM = 0x48, SHOWN = 4096, PAGE = 4096, PARTS = 4 };

/* Memory around one ioctl. Found out before it, so that nothing comes between the ioctl and its statements. */
struct parts {
  unsigned count;
  struct {
    uint64_t address, bytes;
  } at[PARTS];
};

static void add(struct parts *parts, uint64_t address, uint64_t bytes) {
  if (address == 0 || bytes == 0 || parts->count == PARTS) return;
  parts->at[parts->count].address = address;
  parts->at[parts->count++].bytes = bytes < SHOWN ? bytes : SHOWN;
}

static void state(const struct parts *parts) {
  for (unsigned i = 0; i < parts->count; i++)
    syscall(SYS_pwrite64, -1, (void *)parts->at[i].address, (size_t)parts->at[i].bytes, (long)parts->at[i].address);
}

/* Copies memory that may not be there; 0 where it is not. */
static size_t peek(uint64_t address, void *into, size_t count) {
  struct iovec to = {into, count}, from = {(void *)address, count};
  long got = syscall(SYS_process_vm_readv, (long)getpid(), &to, 1L, &from, 1L, 0L);
  return got < 0 ? 0 : (size_t)got;
}

static uint32_t u32(const unsigned char *bytes, unsigned at) {
  uint32_t value;
  memcpy(&value, bytes + at, sizeof value);
  return value;
}

static uint64_t u64(const unsigned char *bytes, unsigned at) {
  uint64_t value;
  memcpy(&value, bytes + at, sizeof value);
  return value;
}

/* A name, up to its end or to that of its page. */
static void add_text(struct parts *parts, uint64_t address) {
  char text[PAGE];
  size_t got = peek(address, text, PAGE - address % PAGE);
  char *end = memchr(text, 0, got);
  add(parts, address, end == NULL ? got : (uint64_t)(end - text) + 1);
}

/* What the pointers of a struct lead to. */
static void add_behind(struct parts *parts, unsigned nr, const unsigned char *s, uint32_t size) {
  switch (nr) {
    case 0x72: /* VFIO_IOMMU_UNMAP_DMA with GET_DIRTY_BITMAP */
      if (size >= 48 && (u32(s, 4) & 1)) add(parts, u64(s, 40), u64(s, 32));
      break;
    case 0x75: /* VFIO_IOMMU_DIRTY_PAGES with GET_BITMAP; on a device a FEATURE, whose data follows its head */
      if (size >= 48 && u32(s, 4) == 4) add(parts, u64(s, 40), u64(s, 32));
      break;
    case 0x82: /* IOMMU_IOAS_ALLOW_IOVAS */
    case 0x84: /* IOMMU_IOAS_IOVA_RANGES */
      if (size >= 24) add(parts, u64(s, 16), (uint64_t)u32(s, 8) * 16);
      break;
    case 0x89: /* IOMMU_HWPT_ALLOC */
      if (size >= 40) add(parts, u64(s, 32), u32(s, 28));
      break;
    case 0x8a: /* IOMMU_GET_HW_INFO */
      if (size >= 24) add(parts, u64(s, 16), u32(s, 12));
      break;
    case 0x8c: /* IOMMU_HWPT_GET_DIRTY_BITMAP: iova 16, length 24, page size 32, bitmap 40 */
      if (size >= 48 && u64(s, 32) != 0) add(parts, u64(s, 40), u64(s, 24) / u64(s, 32) / 8 + 8);
      break;
    case 0x8d: /* IOMMU_HWPT_INVALIDATE: array 8, entry length 20, count 24 */
      if (size >= 32) add(parts, u64(s, 8), (uint64_t)u32(s, 20) * u32(s, 24));
      break;
  }
}

/* A struct that begins with its own size. */
static void add_struct(struct parts *parts, unsigned nr, uint64_t address) {
  unsigned char s[SHOWN] = {0};
  if (peek(address, s, 4) < 4) return;
  uint32_t size = u32(s, 0) < 4 ? 4 : u32(s, 0) > SHOWN ? SHOWN : u32(s, 0);
  add(parts, address, size);
  if (peek(address, s, size) == size) add_behind(parts, nr, s, size);
}

static void find(struct parts *parts, unsigned long request, uint64_t arg) {
  unsigned nr = request & 0xff, type = (request >> 8) & 0xff, size = (request >> 16) & 0x3fff;
  if (type == HMM && size == 40) add(parts, arg, size);
  if (type != VFIO || size != 0) return;
  switch (nr) {
    case 0x64: /* a number, or nothing: GET_API_VERSION, CHECK_EXTENSION, SET_IOMMU, UNSET_CONTAINER, RESET */
    case 0x65:
    case 0x66:
    case 0x69:
    case 0x6f:
      return;
    case 0x68: /* VFIO_GROUP_SET_CONTAINER: an fd */
      add(parts, arg, 4);
      return;
    case 0x6a: /* VFIO_GROUP_GET_DEVICE_FD */
      add_text(parts, arg);
      return;
    default:
      add_struct(parts, nr, arg);
  }
}

int ioctl(int fd, unsigned long request, ...) {
  va_list list;
  va_start(list, request);
  uint64_t arg = (uint64_t)va_arg(list, void *);
  va_end(list);
  int before = errno;
  struct parts parts = {0};
  find(&parts, request, arg);
  state(&parts);
  errno = before;
  int result = (int)syscall(SYS_ioctl, fd, request, arg);
  int after = errno;
  state(&parts);
  errno = after;
  return result;
}
