import { Observable, share } from 'rxjs';
import type { Recording } from '../traces/recording.js';
import type { Update } from './fold.js';
import { replay, type ReplayOptions, type Report } from './report.js';

/**
 * A replay that several listeners follow while it runs: a progress bar, a reporter that prints findings as they
 * come, a user's own code. One item is one batch (thousands of events), so an operator's cost does not show.
 *
 * This module imports rxjs, which costs 35-60 ms at start-up (measured, Node 20, two cores; Node itself takes 40);
 * {@link replay} does the same fold without it, so only a replay that somebody watches loads this file.
 */
export interface Session {
  /**
   * What is known after each batch. The first subscriber starts the replay, all share it; when the last one leaves,
   * the replay stops. Errors with `InputError`.
   */
  readonly updates: Observable<Update>;
  /** The report, when the updates have ended. Pending until somebody subscribes to them. */
  readonly report: Promise<Report>;
}

/** Prepares a replay. Nothing is read before somebody subscribes to the updates. */
export function startSession(recording: Recording, options: Omit<ReplayOptions, 'onUpdate'> = {}): Session {
  let resolve: (report: Report) => void = () => undefined;
  let reject: (error: unknown) => void = () => undefined;
  const report = new Promise<Report>((yes, no) => {
    resolve = yes;
    reject = no;
  });
  // The updates carry the same error; who listens to them alone must not meet it as an unhandled rejection.
  report.catch(() => undefined);
  const updates = new Observable<Update>((subscriber) => {
    const stop = new AbortController();
    const signal = options.signal === undefined ? stop.signal : AbortSignal.any([stop.signal, options.signal]);
    const run = async (): Promise<void> => {
      try {
        resolve(await replay(recording, { ...options, signal, onUpdate: (update) => subscriber.next(update) }));
        subscriber.complete();
      } catch (error) {
        reject(error);
        subscriber.error(error);
      }
    };
    void run();
    return () => stop.abort();
  });
  return { updates: updates.pipe(share()), report };
}
