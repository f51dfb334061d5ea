import { stateText } from '../print/state.js';
import { toPlain } from '../print/values.js';
import { TraceSource } from '../source.js';
import { lookUp } from '../state-path.js';
import { stateAfter } from '../timeline.js';
import { EXIT, type Io, wrongArgument } from './io.js';

export interface StateArgs {
  /** Files of one recording. */
  readonly paths: readonly string[];
  /** Event after which the state is wanted; undefined for the last one. */
  readonly at: number | undefined;
  readonly path: string;
  /** How many entries of a table are shown. */
  readonly entries: number;
  readonly json: boolean;
}

/** `state`: the model's state after an event. */
export async function state(args: StateArgs, io: Io): Promise<number> {
  const source = new TraceSource(args.paths, { rereadable: false, signal: io.signal, kernel: io.kernel });
  const { seq, world } = await stateAfter(source, args.at);
  const { value, missing } = lookUp(world, args.path);
  if (missing !== '') throw wrongArgument(`--path: after event ${seq} there is no ${missing}`);
  if (args.json) await io.stdout.line(JSON.stringify(toPlain(value)));
  else await io.stdout.write(stateText(value, io.stdout.style, { entries: args.entries, path: args.path }));
  return io.signal.aborted ? EXIT.interrupted : EXIT.nothingFound;
}
