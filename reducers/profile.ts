import type { Tx } from './tx.js';
import { emptyWorld, type World } from './world.js';

/**
 * What differs between kernel releases, in one table. A rule asks the profile for a behaviour, never for a version.
 *
 * The state carries the release's name as a fact, so that a snapshot, a tape and a hash belong to one profile. A
 * release that is not listed behaves as the newest listed one that is not newer than it.
 */
export interface Profile {
  /** The oldest release that behaves so, `major.minor`. */
  readonly since: string;
  /** CHECK_EXTENSION and SET_IOMMU know VFIO_TYPE1_NESTING_IOMMU (measured: 1 on 6.12, 0 on 7.2). */
  readonly nestingExtension: boolean;
  /** What type1 answers to a range that passes 2^64 (vfio_iommu_type1.c; "fix unmap overflow" series of 2025). */
  readonly rangeOverflowErrno: 'EINVAL' | 'EOVERFLOW';
}

export const DEFAULT_KERNEL = '7.2';
const FACT = 'kernel/release';

/** Oldest first. */
const PROFILES: readonly Profile[] = [
  { since: '6.12', nestingExtension: true, rangeOverflowErrno: 'EINVAL' },
  { since: DEFAULT_KERNEL, nestingExtension: false, rangeOverflowErrno: 'EOVERFLOW' },
];

function releaseNumber(release: string): number {
  const parts = /^(\d{1,4})\.(\d{1,4})(?:[.-].*)?$/.exec(release);
  return parts === null ? Number.NaN : Number(parts[1]) * 10_000 + Number(parts[2]);
}

/** The profile of a release such as `6.12` or `7.2.13-1`; undefined for no release, and for one older than all listed. */
export function profileFor(release: string): Profile | undefined {
  const wanted = releaseNumber(release);
  return PROFILES.findLast((profile) => releaseNumber(profile.since) <= wanted);
}

/** The state before the first event on a kernel of that release, which {@link profileFor} must know. */
export function worldOf(release: string): World {
  const profile = profileFor(release);
  if (profile === undefined) throw new Error(`no profile for ${release}`);
  const world = emptyWorld();
  if (profile.since === DEFAULT_KERNEL) return world;
  const facts = world.facts
    .edit()
    .set(FACT, Object.freeze({ value: profile.since, since: -1 }))
    .freeze();
  return Object.freeze({ ...world, facts });
}

/** The profile that this replay runs under. */
export function profileOf(tx: Tx): Profile {
  const fact = tx.world.facts.get(FACT)?.value;
  const release = typeof fact === 'string' ? fact : DEFAULT_KERNEL;
  const profile = profileFor(release);
  if (profile === undefined) throw new Error(`no profile for ${release}`);
  return profile;
}
