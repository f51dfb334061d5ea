import type { Head } from './event-head.js';
import type { U64 } from './u64.js';

/** What only a recorder inside the kernel sees: page faults, invalidations, and the mirrors of drivers. */

/** A page fault seen in the kernel (`handle_mm_fault`): flags are FAULT_FLAG_*, ret VM_FAULT_*. */
export interface FaultEvent extends Head {
  readonly kind: 'fault';
  readonly mm: U64;
  readonly addr: U64;
  readonly flags: number;
  readonly ret: number;
}

/** An mmu-notifier invalidation begins or ends; `type` is the kernel's `mmu_notifier_event`. */
export interface InvalidateEvent extends Head {
  readonly kind: 'invalidateStart' | 'invalidateEnd';
  readonly mm: U64;
  readonly start: U64;
  readonly last: U64;
  readonly type: number;
  readonly flags: number;
  readonly owner: U64;
}

/**
 * A driver put entries into the page table of its device, which mirrors that of a process. Emitted while the driver
 * holds the lock that its notifier callback takes, so that the order of these events is that of the table.
 */
export interface MirrorMapEvent extends Head {
  readonly kind: 'mirrorMap';
  /** The kernel's address of what the driver keeps for one such page table. */
  readonly mirror: U64;
  /** Name of the driver, or ''. */
  readonly driver: string;
  readonly mm: U64;
  readonly start: U64;
  readonly last: U64;
  /** What the device may do: {@link MIRROR_READ}, {@link MIRROR_WRITE}, {@link MIRROR_ATOMIC}. */
  readonly flags: number;
  /** Whose device-private memory the driver takes for its own (`dev_private_owner`); 0: nobody's. */
  readonly owner: U64;
  /** Owner of the device-private memory that the entries lead to (`pgmap->owner`); 0: memory that the CPU reaches, too. */
  readonly memory: U64;
  /** What mmu_interval_read_begin() gave for the walk that found the pages; null where not recorded. */
  readonly notifierSeq: U64 | null;
}

/** A driver took entries out of such a table, for whatever reason. */
export interface MirrorUnmapEvent extends Head {
  readonly kind: 'mirrorUnmap';
  readonly mirror: U64;
  readonly mm: U64;
  readonly start: U64;
  readonly last: U64;
}

/**
 * The driver's notifier callback runs and holds its lock: what was read from the page table before is void.
 * `notifierSeq` is the lowest number that a later update of the range may carry.
 */
export interface MirrorInvalidateEvent extends Head {
  readonly kind: 'mirrorInvalidate';
  readonly mirror: U64;
  readonly mm: U64;
  readonly start: U64;
  readonly last: U64;
  readonly notifierSeq: U64 | null;
}

/** Such a table is gone with all of its entries. */
export interface MirrorEndEvent extends Head {
  readonly kind: 'mirrorEnd';
  readonly mirror: U64;
  readonly mm: U64;
}

export type MirrorEvent = MirrorMapEvent | MirrorUnmapEvent | MirrorInvalidateEvent | MirrorEndEvent;

export const MIRROR_READ = 1;
export const MIRROR_WRITE = 2;
/** Exclusive access (`make_device_exclusive`): while it lasts, no CPU and no other device reaches the page. */
export const MIRROR_ATOMIC = 4;
