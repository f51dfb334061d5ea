import type { Event, EventKind } from './event.js';

/**
 * How grave a finding is. `violation`: the interface forbids it. `hazard`: allowed, and dangerous.
 * `leak`: something outlived its use.
 */
export type Severity = 'violation' | 'hazard' | 'leak';

/** One thing an invariant has to say about one event. */
export interface Finding {
  readonly invariant: string;
  readonly severity: Severity;
  /** The event at which it can first be known. */
  readonly seq: number;
  /** Index into the recording's files, and the line there. */
  readonly file: number;
  readonly line: number;
  /** What happened, with addresses and ids, in one or two sentences. */
  readonly message: string;
  /** `seq` of the events that led to it (mapped at, unmapped at), in order. */
  readonly causes: readonly number[];
  /** What to do about it, or what to record to settle it. */
  readonly advice: string;
}

/**
 * A checker: a small object that looks at single events with the state before and after.
 * `W` is the state's type; core does not know it. Checkers keep nothing between calls, so that a replay may
 * begin at any checkpoint.
 */
export interface Invariant<W> {
  readonly name: string;
  /** One sentence: why it matters. */
  readonly why: string;
  /** The kinds of event that can break it; no other event reaches {@link check}. */
  readonly kinds: readonly EventKind[];
  /**
   * A cheap look at the state before the event: false when this event cannot break the invariant. Saves the two
   * snapshots that {@link check} needs, so a workload that unmaps unpinned memory all day pays nothing.
   * `before` is a draft here: read, never keep.
   */
  concerns?(before: W, event: Event): boolean;
  check(before: W, event: Event, after: W): readonly Finding[];
}
