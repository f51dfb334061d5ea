import { bisectExpression, bisectInvariant, type BisectResult } from '../bisect.js';
import { Expression } from '../expression.js';
import { bisectJson, bisectText } from '../print/bisect.js';
import { TraceSource } from '../source.js';
import { chosenInvariants, invariantNamed } from './invariants.js';
import { EXIT, forEachRecording, type Io, wrongArgument } from './io.js';

export interface BisectArgs {
  /** The files of each recording. */
  readonly recordings: readonly (readonly string[])[];
  readonly invariant: string | undefined;
  readonly expr: string | undefined;
  readonly invariants: readonly string[];
  readonly json: boolean;
}

/** `bisect`: the first event after which an invariant is broken or an expression holds. */
export async function bisect(args: BisectArgs, io: Io): Promise<number> {
  const search = await searchOf(args);
  return forEachRecording(args.recordings, io, async (paths) => {
    const source = new TraceSource(paths, { rereadable: true, signal: io.signal, kernel: io.kernel });
    try {
      const result = await search(source);
      if (io.signal.aborted) return EXIT.interrupted;
      const what = { expr: args.expr, invariant: args.invariant };
      if (args.json) await io.stdout.line(JSON.stringify(bisectJson(result, what)));
      else await io.stdout.write(bisectText(result, what, io.stdout.style));
      return result.hit === undefined && !result.fromTheStart ? EXIT.nothingFound : EXIT.found;
    } finally {
      await source.close();
    }
  });
}

async function searchOf(args: BisectArgs): Promise<(source: TraceSource) => Promise<BisectResult>> {
  if (args.expr !== undefined && args.invariant === undefined) {
    const expression = new Expression(args.expr);
    return (source) => bisectExpression(source, expression);
  }
  if (args.invariant === undefined || args.expr !== undefined)
    throw wrongArgument('bisect needs either --invariant NAME or --expr EXPRESSION');
  const all = await chosenInvariants({ invariants: args.invariants, only: [] });
  const invariant = invariantNamed(all, args.invariant);
  return (source) => bisectInvariant(source, invariant);
}
