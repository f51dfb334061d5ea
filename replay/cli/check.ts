import { histories, lookBack, NO_LOOK_BACK } from '../look-back.js';
import { reportJson } from '../print/report-json.js';
import { replay, type ReplayOptions, type Report } from '../report.js';
import { TraceSource } from '../source.js';
import { chosenInvariants, type InvariantArgs } from './invariants.js';
import { EXIT, EXIT_BUG, forEachRecording, type Io } from './io.js';

export interface CheckArgs extends InvariantArgs {
  /** The files of each recording. */
  readonly recordings: readonly (readonly string[])[];
  readonly json: boolean;
  /** How many divergences, and findings, are shown to people. */
  readonly max: number;
}

/** `check`: replays each trace and reports on it. */
export async function check(args: CheckArgs, io: Io): Promise<number> {
  const invariants = await chosenInvariants(args);
  let printed = 0;
  return forEachRecording(args.recordings, io, async (paths) => {
    // People see the events behind a finding, which are read again; machines get their numbers.
    const source = new TraceSource(paths, { rereadable: !args.json, signal: io.signal, kernel: io.kernel });
    try {
      const options = { trace: source.name, invariants, signal: io.signal };
      const report = await replayed(source, options, !args.json && io.stderr.isTerminal, io);
      if (args.json) await io.stdout.line(JSON.stringify(reportJson(report, await historiesOf(report, source))));
      else await print(report, source, args, io, printed++ > 0);
      return statusOf(report);
    } finally {
      await source.close();
    }
  });
}

async function replayed(source: TraceSource, options: ReplayOptions, watched: boolean, io: Io): Promise<Report> {
  const recording = await source.open();
  if (!watched) return replay(recording, options);
  const { watchedReplay } = await import('./watch.js');
  return watchedReplay(recording, options, source.isStdin, io);
}

async function print(report: Report, source: TraceSource, args: CheckArgs, io: Io, isFurther: boolean): Promise<void> {
  const { reportText } = await import('../print/report.js');
  const { shownFailures } = await import('../print/failures.js');
  const { shownUnknowns } = await import('../print/unknowns.js');
  const shown = {
    report,
    max: args.max,
    failures: [...shownFailures(report), ...report.idleGroups],
    unknowns: shownUnknowns(report),
  };
  // What is interrupted is not read a second time.
  const back = report.interrupted ? NO_LOOK_BACK : await lookBack(shown, () => source.open());
  if (isFurther) await io.stdout.line('');
  await io.stdout.write(reportText(report, { shown: args.max, back }, io.stdout.style));
}

/** What is read from a pipe and not for people comes once. */
async function historiesOf(report: Report, source: TraceSource): Promise<ReadonlyMap<number, string>> {
  if (source.isStdin || report.interrupted) return NO_LOOK_BACK.histories;
  return histories(report.failures, () => source.open());
}

function statusOf(report: Report): number {
  if (report.bugCount > 0) return EXIT_BUG;
  if (report.interrupted) return EXIT.interrupted;
  return report.divergenceCount + report.findingCount > 0 ? EXIT.found : EXIT.nothingFound;
}
