import { auditTime, skipUntil, Subscription, timer } from 'rxjs';
import type { Recording } from '../../traces/recording.js';
import type { Update } from '../fold.js';
import { newsText, progressFormat } from '../print/progress.js';
import type { ReplayOptions, Report } from '../report.js';
import { startSession } from '../session.js';
import type { Io } from './io.js';

/** A recording that is read in less gets no progress line. */
const QUIET_MS = 1_000;
const REFRESH_MS = 200;

/**
 * A replay with somebody in front of it: a line of progress when it takes longer, and, where the recording
 * comes live through a pipe, each finding as soon as it is known.
 */
export async function watchedReplay(
  recording: Recording,
  options: ReplayOptions,
  live: boolean,
  io: Io,
): Promise<Report> {
  const { updates, report } = startSession(recording, options);
  const { SingleBar } = await import('cli-progress');
  const bar = new SingleBar({ format: progressFormat(io.stderr.style), hideCursor: true, clearOnComplete: true });
  let started = false;
  const show = (update: Update): void => {
    if (!started) bar.start(update.events, update.events, update);
    started = true;
    bar.update(update.events, update);
  };
  const tell = (update: Update): void => {
    const news = newsText(recording.info.files, update, io.stderr.style);
    if (news !== '') void io.stderr.write(news);
  };
  const listeners = new Subscription();
  const ignoreError = { error: () => undefined };
  if (live) listeners.add(updates.subscribe({ next: tell, ...ignoreError }));
  const sometimes = updates.pipe(skipUntil(timer(QUIET_MS)), auditTime(REFRESH_MS));
  listeners.add(sometimes.subscribe({ next: show, ...ignoreError }));
  try {
    return await report;
  } finally {
    // The last look is still waiting for its time, and the line is about to be cleared.
    listeners.unsubscribe();
    if (started) bar.stop();
  }
}
