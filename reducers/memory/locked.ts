import type { Interval, RangeMap } from '../../core/interval.js';
import { OrderedMap } from '../../core/ordered-map.js';
import type { U64 } from '../../core/u64.js';
import type { Tx } from '../tx.js';

/**
 * How many pages the kernel charges against RLIMIT_MEMLOCK, in two kinds of account.
 *
 * - An address space (`mm->locked_vm`): pages that type1 pinned, those of iommufd in RLIMIT_MODE 1, and all pages of VMAs that
 *   mlock and its relatives locked. It goes with the space.
 * - A user (`user_struct::locked_vm`), by real user id: pages that iommufd pinned, for all processes of the user. io_uring,
 *   perf and others charge here as well, which no recording shows.
 *
 * Accounts are counters in pages, changed when memory is pinned or let go. Some pages are charged for sure, others
 * unless their memory is a device's or whoever mapped them has CAP_IPC_LOCK; the two are counted apart, so that one part is
 * never more than the truth. Of a space or user that was there before the recording, what it had locked is not
 * counted.
 */
export interface LockedPages {
  /** Charged for sure. */
  readonly pages: number;
  /** Charged by all likelihood. */
  readonly maybePages: number;
  /** So many more an ENOMEM has shown, which the recording does not show being locked. */
  readonly otherPages: number;
  /** `seq` of the event that showed them; -1 for none. */
  readonly otherSince: number;
  /** `seq` since which pages may have been let go that are still counted; -1 when none. */
  readonly unsureSince: number;
  /** The most that was allowed under a limit that the recording does not tell; null when nothing was. */
  readonly peak: Peak | null;
}

/** Says that a limit allowed so many pages. Means something as long as the process has the same limit and credentials. */
export interface Peak {
  readonly pages: number;
  readonly pid: number;
  readonly limitsSince: number;
  /** `seq` of the call that was allowed. */
  readonly seq: number;
}

/** The account of an address space. */
export interface SpaceLocked extends LockedPages {
  /** How many of `pages` are in `ranges`. */
  readonly mlockedPages: number;
  /** Ranges whose VMAs are locked; disjoint. */
  readonly ranges: RangeMap<Interval>;
  /** MCL_FUTURE: new mappings are locked. */
  readonly lockFuture: boolean;
  /** `seq` since which VMAs may be locked that are not in `ranges`; -1 when all are. */
  readonly moreSince: number;
}

const NOTHING_CHARGED: LockedPages = Object.freeze({
  pages: 0,
  maybePages: 0,
  otherPages: 0,
  otherSince: -1,
  unsureSince: -1,
  peak: null,
});

export const NOTHING_LOCKED: SpaceLocked = Object.freeze({
  ...NOTHING_CHARGED,
  mlockedPages: 0,
  ranges: OrderedMap.numeric<U64, Interval>().freeze(),
  lockFuture: false,
  moreSince: -1,
});

/** Which account a page goes to. */
export type AccountKind = 'space' | 'user';

/** The account as it is; `key` is an address space, or a user as `Creds.user` has it. */
export function accountOf(tx: Tx, kind: AccountKind, key: number): LockedPages {
  return (
    (kind === 'space' ? tx.world.spaceLocked.get(key) : tx.world.userLocked.get(nameOf(tx, key))) ?? NOTHING_CHARGED
  );
}

/** Charges pages, or with negative numbers takes them off. An address space that is gone has no account. */
export function charge(tx: Tx, kind: AccountKind, key: number, pages: number, maybePages: number, peak?: Peak): void {
  if (pages === 0 && maybePages === 0) return;
  if (kind === 'space') {
    const before = tx.world.spaceLocked.get(key) ?? (tx.world.spaces.has(key) ? NOTHING_LOCKED : undefined);
    if (before !== undefined) add(tx, tx.world.spaceLocked, key, before, pages, maybePages, peak);
  } else {
    const user = nameOf(tx, key);
    add(tx, tx.world.userLocked, user, tx.world.userLocked.get(user) ?? NOTHING_CHARGED, pages, maybePages, peak);
  }
}

/** Every MAP and UNMAP comes here: an account is copied once in a transaction and then changed in place. */
function add<A extends LockedPages>(
  tx: Tx,
  table: OrderedMap<number, A>,
  key: number,
  account: A,
  pages: number,
  maybePages: number,
  peak?: Peak,
): void {
  const isOpen = !Object.isFrozen(account);
  const open: { -readonly [F in keyof LockedPages]: LockedPages[F] } = isOpen ? account : tx.openRecord(account);
  open.pages = Math.max(0, open.pages + pages);
  open.maybePages = Math.max(0, open.maybePages + maybePages);
  if (peak !== undefined) open.peak = peak;
  if (!isOpen) table.set(key, open as A);
}

/** Changes an account; no-op for an address space that is gone. */
export function patchAccount(tx: Tx, kind: AccountKind, key: number, patch: Partial<LockedPages>): void {
  if (kind === 'space') {
    const account = tx.world.spaceLocked.get(key) ?? (tx.world.spaces.has(key) ? NOTHING_LOCKED : undefined);
    if (account !== undefined) tx.world.spaceLocked.set(key, Object.freeze({ ...account, ...patch }));
    return;
  }
  const user = nameOf(tx, key);
  const account = tx.world.userLocked.get(user) ?? NOTHING_CHARGED;
  tx.world.userLocked.set(user, Object.freeze({ ...account, ...patch }));
}

/** Mappings may be gone that the recording still shows: from now on the account may count too much. */
export function markUnsure(tx: Tx, kind: AccountKind, key: number, seq: number): void {
  if (accountOf(tx, kind, key).unsureSince < 0) patchAccount(tx, kind, key, { unsureSince: seq });
}

// ---- users --------------------------------------------------------------------------------------------------

function nameOf(tx: Tx, user: number): number {
  return tx.world.userNames.size === 0 ? user : (tx.world.userNames.get(user) ?? user);
}

/** A call told the id of a user that had none so far: what was charged to it belongs to the user of this id. */
export function nameUser(tx: Tx, nameless: number, uid: number): void {
  if (tx.world.userNames.has(nameless)) return;
  tx.world.userNames.set(nameless, uid);
  const moved = tx.world.userLocked.get(nameless);
  if (moved === undefined) return;
  tx.world.userLocked.delete(nameless);
  const account = tx.world.userLocked.get(uid);
  if (account === undefined) tx.world.userLocked.set(uid, moved);
  else add(tx, tx.world.userLocked, uid, account, moved.pages, moved.maybePages);
}
