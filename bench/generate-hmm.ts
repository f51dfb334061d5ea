import { putU64 } from '../core/bytes.js';
import { Random } from './random.js';
import { StraceText } from './strace-text.js';

/**
 * Invalidations whose right outcome is known: ranges of 16 pages, far apart in 1 TiB, that a device mirrors. Each round takes
 * the memory of one away and puts new memory into the mirror again, so that the number of live runs stays.
 */
export interface InvalidationOptions {
  readonly invalidations: number;
  /** Ranges in the mirror, and in the CPU's page table; all of them from the first round on. */
  readonly ranges: number;
  readonly seed: number;
}

const PAGE = 4096;
const PAGES = 16;
const RANGE_BYTES = PAGES * PAGE;
const SPACE_BYTES = 2 ** 40;
const STRUCT_AT = 0x7ffd_0000_1000;
const BUFFER_AT = 0x7e00_0000_0000;
const MEMORY_AT = 0x7000_0000_0000;
const CHUNK_BYTES = 1 << 20;
const MIRROR = '3</dev/hmm_dmirror0>';
const WRITE = '_IOC(_IOC_READ|_IOC_WRITE, 0x48, 0x1, 0x28)';

/** The first address of a range: whole pages, spread over all of the space. */
function placeOf(range: number, ranges: number): number {
  return MEMORY_AT + Math.floor(SPACE_BYTES / ranges / PAGE) * PAGE * range;
}

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

/** System calls only: MADV_DONTNEED, MADV_POPULATE_WRITE and a WRITE of dmirror make a round. As text, in chunks of about 1 MiB. */
export function* invalidationCalls(options: InvalidationOptions): Generator<string> {
  const random = new Random(options.seed);
  const out = new StraceText(1234);
  const advise = (at: number, advice: string): void =>
    out.line(`madvise(0x${at.toString(16)}, ${RANGE_BYTES}, ${advice}) = 0`);
  const fill = (at: number): void => {
    advise(at, 'MADV_POPULATE_WRITE');
    out.ioctl(MIRROR, WRITE, STRUCT_AT, command(at, 0, 0), '0', command(at, PAGES, 1));
  };
  out.line('execve("/bin/churn", ["churn"], 0x7ffe00000000 /* 3 vars */) = 0');
  mapped(out, MEMORY_AT, SPACE_BYTES);
  mapped(out, BUFFER_AT, RANGE_BYTES);
  advise(BUFFER_AT, 'MADV_POPULATE_WRITE');
  out.line(`openat(AT_FDCWD</tmp>, "/dev/hmm_dmirror0", O_RDWR) = ${MIRROR}`);
  for (let range = 0; range < options.ranges; range++) {
    fill(placeOf(range, options.ranges));
    if (out.bufferedBytes >= CHUNK_BYTES) yield out.take();
  }
  for (let done = 0; done < options.invalidations; done++) {
    const at = placeOf(random.below(options.ranges), options.ranges);
    advise(at, 'MADV_DONTNEED');
    fill(at);
    if (out.bufferedBytes >= CHUNK_BYTES) yield out.take();
  }
  yield out.take();
}

/** The kernel's own invalidations and what a driver does about them: five lines make a round. In chunks of about 1 MiB. */
export function* invalidationEvents(options: InvalidationOptions): Generator<string> {
  const random = new Random(options.seed);
  const mm = '"mm":"0xffff888100001000"';
  const mirror = `"mirror":"0xffff888100002000",${mm}`;
  let text = '';
  let ts = 0;
  const line = (tid: number, fields: string): void => {
    text += `{"ts":${++ts},"pid":7,"tid":${tid},${fields}}\n`;
  };
  const span = (at: number): string => `"start":"0x${at.toString(16)}","end":"0x${(at + RANGE_BYTES).toString(16)}"`;
  line(7, `"ev":"fault",${mm},"addr":"0x7fff00000000","flags":"0x255","ret":"0x0"`);
  const memory = `["0x0","0x${SPACE_BYTES.toString(16)}",3,34,-1,"0x0"],"ret":"0x${MEMORY_AT.toString(16)}"`;
  line(7, `"ev":"call","call":"mmap","args":${memory}`);
  let number = 1;
  const store = (at: number): void => line(8, `"ev":"mirror_map",${mirror},${span(at)},"flags":3,"seq":${number}`);
  for (let range = 0; range < options.ranges; range++) {
    store(placeOf(range, options.ranges));
    if (text.length < CHUNK_BYTES) continue;
    yield text;
    text = '';
  }
  for (let done = 0; done < options.invalidations; done++) {
    const at = placeOf(random.below(options.ranges), options.ranges);
    number += 2;
    line(7, `"ev":"invalidate_start",${mm},${span(at)},"type":1,"flags":1,"owner":"0x0"`);
    line(7, `"ev":"mirror_invalidate",${mirror},${span(at)},"seq":${number}`);
    line(7, `"ev":"mirror_unmap",${mirror},${span(at)}`);
    line(7, `"ev":"invalidate_end",${mm},${span(at)},"type":1`);
    store(at);
    if (text.length < CHUNK_BYTES) continue;
    yield text;
    text = '';
  }
  yield text;
}
