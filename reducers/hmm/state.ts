import type { Interval, RangeMap } from '../../core/interval.js';
import type { U64 } from '../../core/u64.js';

/**
 * One open of a dmirror device: a mirror of the address space that opened it (lib/test_hmm.c `struct dmirror`).
 *
 * It belongs to that space and not to whoever uses the file: a child that inherits the fd works on its parent's
 * memory.
 */
export interface Mirror {
  readonly id: number;
  /** Minor of the device: 0 and 1 have private memory, 2 and 3 coherent memory. */
  readonly device: number;
  /** Address space id. The space may be gone. */
  readonly space: number;
  /** False when it was open before the recording began: what it holds is unknown. */
  readonly complete: boolean;
  /** `seq` of a command of which it is not known what it did; -1 for none. */
  readonly unseenSince: number;
  /** HMM_DMIRROR_FLAG_FAIL_ALLOC is set: the next page of either kind cannot be had. */
  readonly failAlloc: boolean;
  readonly ptes: RangeMap<MirrorPte>;
  /** Invalidations that it acted on, and those of its own migrations that it ignored. */
  readonly invalidations: number;
  readonly ignored: number;
  /** The last invalidations that it acted on, oldest first. */
  readonly recent: readonly Invalidation[];
}

/** An invalidation as a mirror sees it. */
export interface Invalidation extends Interval {
  readonly seq: number;
  /** The kernel's mmu_notifier_event. */
  readonly type: number;
  /** Minor of the device whose migration it is part of, or -1. */
  readonly device: number;
  /** True: worked out from a system call. False: the recording holds it. */
  readonly derived: boolean;
}

/**
 * What the device may do with a run of pages. `atomic` is how dmirror marks exclusive access: it can be read through,
 * and not written.
 */
export type MirrorAccess = 'read' | 'write' | 'atomic';

export interface MirrorEntry {
  readonly access: MirrorAccess;
  /**
   * It holds the page that stands for device-private memory, which has no memory behind it, in place of the system
   * page that backs it. The kernel dies when dmirror reads or writes through such an entry.
   */
  readonly bare: boolean;
  /** `seq` of the event that made it. */
  readonly since: number;
}

export interface MirrorPte extends Interval, MirrorEntry {}

/** Whether the memory of a device is out of the CPU's reach. */
export function isPrivateDevice(device: number): boolean {
  return device < 2;
}

/** Invalidations of a thread's migration that wait for the device to be known. */
export interface Deferred {
  readonly space: number;
  /** Kernel address of the device. */
  readonly owner: U64;
  readonly ranges: readonly Interval[];
}
