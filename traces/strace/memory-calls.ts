import type { CallReader } from './call-reader.js';
import { MADV, MAP, MLOCK, MREMAP, PROT } from './symbols.js';

const mmap: CallReader = (args, head) => {
  const file = args.fd(4);
  return {
    kind: 'mmap',
    ...head,
    addr: args.u64(0),
    lengthBytes: args.u64(1),
    prot: args.flags(2, PROT),
    flags: args.flags(3, MAP),
    fd: file.fd,
    path: file.path,
    offset: args.u64(5),
  };
};

/** mlock and its relatives; `flagsAt` is the argument with the flags, or -1. */
function mlock(hasRange: boolean, flagsAt: number): CallReader {
  return (args, head) => ({
    kind: 'mlock',
    ...head,
    call: args.name,
    addr: hasRange ? args.u64(0) : 0,
    lengthBytes: hasRange ? args.u64(1) : 0,
    flags: flagsAt < 0 ? 0 : args.flags(flagsAt, MLOCK),
  });
}

/** Calls that change an address space. strace prints the offset of mmap2 in bytes, like that of mmap. */
export const memoryCalls: Readonly<Record<string, CallReader>> = {
  mmap,
  mmap2: mmap,
  old_mmap: mmap,
  munmap: (args, head) => ({ kind: 'munmap', ...head, addr: args.u64(0), lengthBytes: args.u64(1) }),
  mprotect: (args, head) => ({
    kind: 'mprotect',
    ...head,
    addr: args.u64(0),
    lengthBytes: args.u64(1),
    prot: args.flags(2, PROT),
  }),
  pkey_mprotect: (args, head) => ({
    kind: 'mprotect',
    ...head,
    addr: args.u64(0),
    lengthBytes: args.u64(1),
    prot: args.flags(2, PROT),
  }),
  mremap: (args, head) => ({
    kind: 'mremap',
    ...head,
    addr: args.u64(0),
    oldLengthBytes: args.u64(1),
    newLengthBytes: args.u64(2),
    flags: args.flags(3, MREMAP),
    newAddr: args.count > 4 ? args.u64(4) : 0,
  }),
  madvise: (args, head) => ({
    kind: 'madvise',
    ...head,
    addr: args.u64(0),
    lengthBytes: args.u64(1),
    advice: args.flags(2, MADV),
  }),
  mlock: mlock(true, -1),
  mlock2: mlock(true, 2),
  munlock: mlock(true, -1),
  mlockall: mlock(false, 0),
  munlockall: mlock(false, -1),
  brk: (args, head) => ({ kind: 'brk', ...head, addr: args.u64(0) }),
};
