import type { Interval, RangeMap } from '../../core/interval.js';
import type { U64 } from '../../core/u64.js';

/** A run of pages with one set of rights and one backing. */
export interface Vma extends Interval {
  readonly prot: number;
  /** MAP_* flags that the mapping was made with. */
  readonly flags: number;
  /** Open file id that backs it, 0 for anonymous memory. */
  readonly file: number;
  /** Offset into the file at `start`. */
  readonly offset: U64;
  /** `seq` of the event that made it. */
  readonly since: number;
}

export interface AddressSpace {
  readonly id: number;
  /** Processes that share it (CLONE_VM). */
  readonly users: number;
  /** False when VMAs may exist that the recording never showed. */
  readonly complete: boolean;
  readonly vmas: RangeMap<Vma>;
}
