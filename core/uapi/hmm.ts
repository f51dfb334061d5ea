import {
  arrayShape,
  bits,
  bytesShape,
  countOf,
  fixedCommand,
  joinBits,
  joinEnums,
  oneOf,
  pointsTo,
  scalarShape,
  struct,
  u64,
} from './layout.js';
import type { Command, EnumSet, FlagSet, Rendering, Struct, Target } from './types.js';

/**
 * HMM through its test driver: `test_hmm_uapi.h`, lib/test_hmm.c; and the words of `hmm.h`, which drivers see and no
 * system call passes. All commands take one struct; what `ptr` leads to, and whether anything is there, differs.
 */

const PAGE_BYTES = 4096;

function dmirrorCmd(ptr?: Target, npages: Rendering = 'decimal'): Struct {
  const pointerField = u64('in', 'hex');
  return struct('hmm_dmirror_cmd', {
    addr: u64(),
    ptr: ptr === undefined ? pointerField : { ...pointerField, target: ptr },
    npages: u64('in', npages),
    cpages: u64('out', 'decimal'),
    faults: u64('out', 'decimal'),
  });
}

/** Device page table entries as SNAPSHOT reports them, one byte for each page: one access, one size, one place. */
export const DMIRROR_ERROR = oneOf('HMM_DMIRROR_PROT_', { ERROR: 0xff });
export const DMIRROR_ACCESS = oneOf('HMM_DMIRROR_PROT_', { NONE: 0, READ: 1, WRITE: 2 });
export const DMIRROR_PLACE = oneOf('HMM_DMIRROR_PROT_', {
  ZERO: 0x10,
  DEV_PRIVATE_LOCAL: 0x20,
  DEV_PRIVATE_REMOTE: 0x30,
  DEV_COHERENT_LOCAL: 0x40,
  DEV_COHERENT_REMOTE: 0x50,
});
const DMIRROR_SIZE = oneOf('HMM_DMIRROR_PROT_', { PMD: 4, PUD: 8 });

/** All words of a snapshot byte. */
export const DMIRROR_PROT: EnumSet = joinEnums(DMIRROR_ERROR, DMIRROR_ACCESS, DMIRROR_SIZE, DMIRROR_PLACE);

export const DMIRROR_MEMORY = oneOf('HMM_DMIRROR_MEMORY_', { DEVICE_PRIVATE: 1, DEVICE_COHERENT: 2 });
export const DMIRROR_FLAGS: FlagSet = bits('HMM_DMIRROR_FLAG_', { FAIL_ALLOC: 1 });

const pageData = bytesShape(countOf('npages', PAGE_BYTES));
const pagePerms = arrayShape(scalarShape('u8', 'hex'), countOf('npages'));

export const dmirrorRead: Struct = dmirrorCmd(pointsTo(pageData, 'out'));
export const dmirrorWrite: Struct = dmirrorCmd(pointsTo(pageData, 'in'));
export const dmirrorSnapshot: Struct = dmirrorCmd(pointsTo(pagePerms, 'out'));
export const dmirrorPlain: Struct = dmirrorCmd();
export const dmirrorFlags: Struct = dmirrorCmd(undefined, DMIRROR_FLAGS);

/** `_IOWR('H', nr, struct hmm_dmirror_cmd)`. */
function dmirrorRequest(nr: number): number {
  return (0xc000_0000 + dmirrorPlain.sizeBytes * 0x1_0000 + 0x4800 + nr) >>> 0;
}

function dmirror(nr: number, label: string, of: Struct): Command {
  return fixedCommand('dmirror', `HMM_DMIRROR_${label}`, dmirrorRequest(nr), of);
}

/** MIGRATE_TO_DEV and EXCLUSIVE read the memory back through the device and copy it out, as READ does. */
export const DMIRROR_COMMANDS: readonly Command[] = [
  dmirror(0, 'READ', dmirrorRead),
  dmirror(1, 'WRITE', dmirrorWrite),
  dmirror(2, 'MIGRATE_TO_DEV', dmirrorRead),
  dmirror(3, 'MIGRATE_TO_SYS', dmirrorPlain),
  dmirror(4, 'SNAPSHOT', dmirrorSnapshot),
  dmirror(5, 'EXCLUSIVE', dmirrorRead),
  dmirror(6, 'CHECK_EXCLUSIVE', dmirrorPlain),
  dmirror(7, 'RELEASE', dmirrorPlain),
  dmirror(8, 'FLAGS', dmirrorFlags),
];

/** Flag bits of a `hmm_pfn`; below them lie the order of the mapping (bits 53 to 57) and the page frame number. */
export const HMM_PFN_OUT: FlagSet = bits('HMM_PFN_', {
  VALID: 1n << 63n,
  WRITE: 1n << 62n,
  ERROR: 1n << 61n,
  DMA_MAPPED: 1n << 60n,
  P2PDMA: 1n << 59n,
  P2PDMA_BUS: 1n << 58n,
});
export const HMM_PFN_REQUEST: FlagSet = bits('HMM_PFN_', { REQ_FAULT: 1n << 63n, REQ_WRITE: 1n << 62n });
export const HMM_PFN_BITS: FlagSet = joinBits(HMM_PFN_OUT, HMM_PFN_REQUEST);

/** What a driver asks hmm_range_fault() for; kernel addresses. */
export const hmmRange: Struct = struct('hmm_range', {
  notifier: u64(),
  notifier_seq: u64('in', 'decimal'),
  start: u64(),
  end: u64(),
  hmm_pfns: u64(),
  default_flags: u64('in', HMM_PFN_REQUEST),
  pfn_flags_mask: u64('in', HMM_PFN_REQUEST),
  dev_private_owner: u64(),
});
