import { Bytes } from '../../core/bytes.js';
import type { U64 } from '../../core/u64.js';
import type { Args } from './args.js';
import type { CallHead, CallReader } from './call-reader.js';

const MAX_DATA = 4096;

/**
 * Whether what was read or written can matter to the model: devices, anonymous files (a migration stream, an
 * eventfd), files that the recording does not name, and the switch of the kernel's fault injection. The bytes of
 * ordinary files do not.
 */
function matters(path: string): boolean {
  return !path.startsWith('/') || path.startsWith('/dev/') || (path.startsWith('/proc/') && path.endsWith('/fail-nth'));
}

function io(offsetAt: number): CallReader {
  return (args, head) => {
    const { fd, path } = args.fd(0);
    const bytes = matters(path) ? args.bytes(1) : undefined;
    return moved(args, head, fd, path, offsetAt, args.u64(2), bytes ?? Bytes.EMPTY, pointer(args));
  };
}

function vectorIo(offsetAt: number): CallReader {
  return (args, head) => {
    const { fd, path } = args.fd(0);
    const { data, lengthBytes } = args.vector(1);
    return moved(args, head, fd, path, offsetAt, lengthBytes, matters(path) ? data : Bytes.EMPTY, null);
  };
}

function moved(
  args: Args,
  head: CallHead,
  fd: number,
  path: string,
  offsetAt: number,
  lengthBytes: U64,
  bytes: Bytes,
  addr: U64 | null,
) {
  const data = bytes.slice(0, Math.min(bytes.length, MAX_DATA));
  const offset = offsetAt < 0 ? null : args.u64(offsetAt);
  return { kind: 'io', ...head, call: args.name, fd, path, offset, lengthBytes, data, addr } as const;
}

/** strace prints the buffer's address when it cannot show what is in it. */
function pointer(args: Args): U64 | null {
  const text = args.text(1);
  return text === '0' || text.startsWith('0x') || text === 'NULL' ? args.u64(1) : null;
}

/** Calls that move bytes between a file and memory. */
export const ioCalls: Readonly<Record<string, CallReader>> = {
  read: io(-1),
  write: io(-1),
  pread64: io(3),
  pread: io(3),
  pwrite64: io(3),
  pwrite: io(3),
  readv: vectorIo(-1),
  writev: vectorIo(-1),
  preadv: vectorIo(3),
  pwritev: vectorIo(3),
  preadv2: vectorIo(3),
  pwritev2: vectorIo(3),
};
