import { putU64 } from '../core/bytes.js';
import { Random } from './random.js';
import { StraceText } from './strace-text.js';

/**
 * HMM churn whose right answers are known: a device writes to populated memory through its mirror, reads it back, and the
 * process discards some of it, which invalidates the mirror there. Three ioctls and two madvise calls in a round.
 */
export interface HmmChurnOptions {
  /** ioctls in all. */
  readonly calls: number;
  /** Ranges of 16 pages that the mirror may hold at once. */
  readonly ranges: number;
  readonly seed: number;
}

const PAGE = 4096;
const PAGES = 16;
/** Ranges stand apart, so that each stays a run of its own in page table and mirror. */
const STRIDE_BYTES = 32 * PAGE;
const STRUCT_AT = 0x7ffd_0000_1000;
const BUFFER_AT = 0x7e00_0000_0000;
const MEMORY_AT = 0x7f00_0000_0000;
const CHUNK_BYTES = 1 << 20;
const MIRROR = '3</dev/hmm_dmirror0>';
const READ = '_IOC(_IOC_READ|_IOC_WRITE, 0x48, 0, 0x28)';
const WRITE = '_IOC(_IOC_READ|_IOC_WRITE, 0x48, 0x1, 0x28)';

function mapped(out: StraceText, at: number, lengthBytes: number): void {
  const address = `0x${at.toString(16)}`;
  const how = 'PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_FIXED|MAP_ANONYMOUS, -1, 0';
  out.line(`mmap(${address}, ${lengthBytes}, ${how}) = ${address}`);
  out.line(`madvise(${address}, ${lengthBytes}, MADV_NOHUGEPAGE) = 0`);
}

/** `struct hmm_dmirror_cmd`: address, buffer, pages, pages done, faults taken. */
function command(at: number, donePages: number, faults: number): Uint8Array {
  const bytes = new Uint8Array(40);
  putU64(bytes, 0, at);
  putU64(bytes, 8, BUFFER_AT);
  putU64(bytes, 16, PAGES);
  putU64(bytes, 24, donePages);
  putU64(bytes, 32, faults);
  return bytes;
}

function dmirror(out: StraceText, request: string, at: number, faults: number): void {
  out.ioctl(MIRROR, request, STRUCT_AT, command(at, 0, 0), '0', command(at, PAGES, faults));
}

/** The text of the capture, in chunks of about 1 MiB. */
export function* hmmChurn(options: HmmChurnOptions): Generator<string> {
  const random = new Random(options.seed);
  const out = new StraceText(1234);
  out.line('execve("/bin/churn", ["churn"], 0x7ffe00000000 /* 3 vars */) = 0');
  mapped(out, MEMORY_AT, options.ranges * STRIDE_BYTES);
  mapped(out, BUFFER_AT, PAGES * PAGE);
  const populate = (at: number): void =>
    out.line(`madvise(0x${at.toString(16)}, ${PAGES * PAGE}, MADV_POPULATE_WRITE) = 0`);
  populate(BUFFER_AT);
  out.line(`openat(AT_FDCWD</tmp>, "/dev/hmm_dmirror0", O_RDWR) = ${MIRROR}`);
  const held = new Uint8Array(options.ranges);
  for (let calls = 0; calls + 3 <= options.calls; calls += 3) {
    const range = random.below(options.ranges);
    const at = MEMORY_AT + range * STRIDE_BYTES;
    if (held[range] === 1) out.line(`madvise(0x${at.toString(16)}, ${PAGES * PAGE}, MADV_DONTNEED) = 0`);
    held[range] = 1;
    populate(at);
    dmirror(out, WRITE, at, 1);
    dmirror(out, READ, at, 0);
    dmirror(out, WRITE, at, 0);
    if (out.bufferedBytes >= CHUNK_BYTES) yield out.take();
  }
  yield out.take();
}
