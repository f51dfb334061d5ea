import { judgedAt } from '../judged.js';
import type { JudgedEvent } from '../judged.js';
import { reportJson } from '../print/report-json.js';
import { replay, type ReplayOptions, type Report } from '../report.js';
import { TraceSource } from '../source.js';
import { chosenInvariants, type InvariantArgs } from './invariants.js';
import { EXIT, forEachRecording, type Io } from './io.js';

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
      if (args.json) await io.stdout.line(JSON.stringify(reportJson(report)));
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
  const view = { shown: args.max, events: await eventsOf(report, source, args.max) };
  if (isFurther) await io.stdout.line('');
  await io.stdout.write(reportText(report, view, io.stdout.style));
}

/** The events that the shown divergences and findings name. What is interrupted is not read a second time. */
async function eventsOf(report: Report, source: TraceSource, max: number): Promise<ReadonlyMap<number, JudgedEvent>> {
  const seqs = report.divergences.slice(0, max).map((d) => d.seq);
  for (const finding of report.findings.slice(0, max)) seqs.push(finding.seq, ...finding.causes);
  if (seqs.length === 0 || report.interrupted) return new Map();
  return judgedAt(await source.open(), seqs);
}

function statusOf(report: Report): number {
  if (report.interrupted) return EXIT.interrupted;
  return report.divergenceCount + report.findingCount > 0 ? EXIT.found : EXIT.nothingFound;
}
