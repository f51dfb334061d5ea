import { type Interval, overlaps } from '../../core/interval.js';
import { add, modPow2, sub, type U64 } from '../../core/u64.js';

/**
 * The sequence numbers of mmu interval notifiers (mm/mmu_notifier.c), for drivers that mirror page tables.
 *
 * A space counts its invalidations: the number is even while it is idle, and odd from the start of the first
 * invalidation that hits a notifier until the last open one ends; then it goes on to the next even number. A
 * notifier that is hit takes the current number for its own. A driver reads its page table between
 * {@link readBegin} and {@link readRetry}: what it read is good only if its notifier was not hit meanwhile.
 *
 * Notifiers that come or go during an invalidation wait until it is over, so that a walk sees each of them once.
 */
export interface IntervalNotifier extends Interval {
  readonly id: number;
  /** The space's number when it was hit last, or when it was inserted. */
  readonly seq: U64;
}

export interface NotifierSpace {
  readonly seq: U64;
  /** Invalidations that have begun and not ended. */
  readonly active: number;
  readonly notifiers: readonly IntervalNotifier[];
  /** Inserted or removed (`undefined`) by id while an invalidation is under way. */
  readonly deferred: readonly { readonly id: number; readonly insert: IntervalNotifier | undefined }[];
}

/** The kernel begins with 2, so that a notifier can be older than every read. */
const FIRST_SEQ = 2;

export function newNotifierSpace(): NotifierSpace {
  return Object.freeze({ seq: FIRST_SEQ, active: 0, notifiers: Object.freeze([]), deferred: Object.freeze([]) });
}

function isInvalidating(space: NotifierSpace): boolean {
  return space.active > 0 && modPow2(space.seq, 2) === 1;
}

/**
 * `mmu_interval_notifier_insert`: while an invalidation is under way, the notifier waits for its end and collides
 * with the number of now; else it gets a number in the past, so that a read may begin at once.
 */
export function insertNotifier(space: NotifierSpace, id: number, range: Interval): NotifierSpace {
  const { start, last } = range;
  if (isInvalidating(space)) {
    const insert = Object.freeze({ id, start, last, seq: space.seq });
    return Object.freeze({ ...space, deferred: Object.freeze([...space.deferred, { id, insert }]) });
  }
  // Not walked by anybody: but an invalidation without notifiers may be open, which makes the number collide.
  const seq = space.active > 0 ? or1(space.seq) : minusOne(space.seq);
  const opened = space.active > 0 ? or1(space.seq) : space.seq;
  const notifiers = Object.freeze([...space.notifiers, Object.freeze({ id, start, last, seq })]);
  return Object.freeze({ ...space, seq: opened, notifiers });
}

export function removeNotifier(space: NotifierSpace, id: number): NotifierSpace {
  const waiting = space.deferred.filter((change) => change.id !== id);
  if (waiting.length < space.deferred.length) return Object.freeze({ ...space, deferred: Object.freeze(waiting) });
  if (!isInvalidating(space))
    return Object.freeze({ ...space, notifiers: Object.freeze(space.notifiers.filter((n) => n.id !== id)) });
  return Object.freeze({ ...space, deferred: Object.freeze([...space.deferred, { id, insert: undefined }]) });
}

/**
 * `mn_itree_inv_start_range` and the calls of the notifiers that the range hits: each whose driver acts on it takes the
 * number. A driver may ignore its own device's migrations, and then reads on as if nothing had been.
 */
export function beginInvalidation(
  space: NotifierSpace,
  range: Interval,
  acts: (id: number) => boolean = () => true,
): NotifierSpace {
  const hit = space.notifiers.some((n) => overlaps(n, range.start, range.last));
  const seq = hit ? or1(space.seq) : space.seq;
  const notifiers = space.notifiers.map((n) =>
    overlaps(n, range.start, range.last) && acts(n.id) ? Object.freeze({ ...n, seq }) : n,
  );
  return Object.freeze({ ...space, seq, active: space.active + 1, notifiers: Object.freeze(notifiers) });
}

/** `mn_itree_inv_end`: the end of the last open one makes the number even, and lets in who waited. */
export function endInvalidation(space: NotifierSpace): NotifierSpace {
  const active = Math.max(0, space.active - 1);
  if (active > 0 || !isInvalidating(space)) return Object.freeze({ ...space, active });
  let notifiers = space.notifiers;
  for (const { id, insert } of space.deferred) {
    notifiers = insert === undefined ? notifiers.filter((n) => n.id !== id) : [...notifiers, insert];
  }
  const none = Object.freeze([]);
  return Object.freeze({ seq: add(space.seq, 1), active, notifiers: Object.freeze(notifiers), deferred: none });
}

/**
 * `mmu_interval_read_begin`: the number to hand to {@link readRetry}, or undefined while the kernel would wait because
 * the notifier is being invalidated right now.
 */
export function readBegin(space: NotifierSpace, id: number): U64 | undefined {
  const found = notifierOf(space, id);
  if (found === undefined) return undefined;
  return isInvalidating(space) && found.seq === space.seq ? undefined : found.seq;
}

/** `mmu_interval_read_retry`: whether the notifier was hit since; what was read then is worth nothing. */
export function readRetry(space: NotifierSpace, id: number, seq: U64): boolean {
  return notifierOf(space, id)?.seq !== seq;
}

function notifierOf(space: NotifierSpace, id: number): IntervalNotifier | undefined {
  return space.notifiers.find((n) => n.id === id) ?? space.deferred.findLast((change) => change.id === id)?.insert;
}

function or1(seq: U64): U64 {
  return modPow2(seq, 2) === 1 ? seq : add(seq, 1);
}

function minusOne(seq: U64): U64 {
  return sub(seq, 1);
}
