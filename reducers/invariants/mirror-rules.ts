import type { Invariant } from '../../core/invariant.js';
import type { World } from '../world.js';
import { mirrorInvariant } from './mirror-audit.js';

/**
 * The invariants of mirrors: what a device that mirrors the page table of a process may hold and do
 * (Documentation/mm/hmm.rst, include/linux/mmu_notifier.h). They hold for dmirror, whose entries the model knows, and for
 * every driver whose entries a recorder reports.
 */

/** Whoever mirrors must drop entries when the kernel invalidates them, before memory is given to somebody else. */
export const mirrorStale: Invariant<World> = mirrorInvariant({
  name: 'mirror-stale',
  why: 'a device that uses an entry which the kernel took back reads and writes memory that belongs to somebody else',
  faults: {
    gone: 'the CPU has nothing there that may be read',
    'older page': 'another page is there now',
    kept: 'an invalidation of the range has ended since',
  },
  advice: 'the invalidation of this range did not reach the mirror, was too short, or was ignored as the device’s own',
});

export const mirrorRights: Invariant<World> = mirrorInvariant({
  name: 'mirror-rights',
  why: 'a device that may write where the CPU may not changes read-only memory, or pages that others share',
  faults: { 'more rights': 'the CPU may not write there' },
  advice:
    'ask for the right to write (HMM_PFN_REQ_WRITE) before an entry gets it, and take it away when mprotect, fork or a write-protection invalidates the range',
});

export const mirrorUpdate: Invariant<World> = mirrorInvariant({
  name: 'mirror-update',
  why: 'what was read from the page table before an invalidation of the range is void, and nobody takes it out of the mirror again',
  faults: {
    'under way': 'an invalidation of the range was under way, of which the driver had been told',
    outdated: 'it was read before an invalidation of the range',
  },
  advice: 'compare sequence numbers under the lock of the callback before each update: mmu_interval_read_retry()',
});

export const mirrorPrivate: Invariant<World> = mirrorInvariant({
  name: 'mirror-private',
  why: 'device-private memory has no address that another device could reach',
  faults: { 'foreign memory': 'the memory is private to another device' },
  advice:
    'give hmm_range_fault() the device’s own dev_private_owner, so that memory of others is brought back first, and act on the invalidations of other devices’ migrations',
});

export const mirrorExclusive: Invariant<World> = mirrorInvariant({
  name: 'mirror-exclusive',
  why: 'atomic operations of a device are only atomic while nobody else reaches the page',
  faults: { 'not exclusive': 'access to the page is exclusive to one side, and both have it' },
  advice:
    'drop entries at invalidations of type EXCLUSIVE of other owners, and exclusive ones when the CPU takes the page back',
});
