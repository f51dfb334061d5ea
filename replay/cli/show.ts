import { type EventFilter, matcher } from '../filter.js';
import { judge } from '../judged.js';
import { callName } from '../print/event.js';
import { eventJson, eventLine } from '../print/event-line.js';
import { TraceSource } from '../source.js';
import { EXIT, type Io } from './io.js';

export interface ShowArgs extends EventFilter {
  /** Files of one recording. */
  readonly paths: readonly string[];
  readonly json: boolean;
}

/** `show`: the events of a trace, one line each, as they are read. */
export async function show(args: ShowArgs, io: Io): Promise<number> {
  const recording = await new TraceSource(args.paths, {
    rereadable: false,
    signal: io.signal,
    kernel: io.kernel,
  }).open();
  const wanted = matcher(args, callName);
  const { files } = recording.info;
  for await (const batch of judge(recording)) {
    const lines = batch
      .filter(wanted)
      .map((each) => (args.json ? JSON.stringify(eventJson(files, each)) : eventLine(files, each, io.stdout.style)));
    if (lines.length > 0) await io.stdout.write(`${lines.join('\n')}\n`);
    if ((batch.at(-1)?.event.seq ?? 0) >= args.to) break;
  }
  return io.signal.aborted ? EXIT.interrupted : EXIT.nothingFound;
}
