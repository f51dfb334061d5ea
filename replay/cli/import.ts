import { stat } from 'node:fs/promises';
import { writeTape } from '../../traces/tape/writer.js';
import { counted, printable } from '../print/style.js';
import { TraceSource } from '../source.js';
import { complain, EXIT, type Io, wrongArgument } from './io.js';

export interface ImportArgs {
  /** Files of one recording. */
  readonly paths: readonly string[];
  readonly out: string;
}

/** `import`: writes a recording of any format to a tape. What was wrong with the input goes to stderr. */
export async function importToTape(args: ImportArgs, io: Io): Promise<number> {
  await refuseOwnInput(args);
  const source = new TraceSource(args.paths, { rereadable: false, signal: io.signal });
  const recording = await source.open();
  const { events, bytes } = await writeTape(args.out, recording);
  for (const diagnostic of recording.diagnostics) await complain(io, diagnostic);
  const skipped = recording.skippedLines > 0 ? `, ${counted(recording.skippedLines, 'line')} skipped` : '';
  await io.stdout.line(
    `${printable(args.out)}: ${counted(events, 'event')} from ${printable(source.name)}, ${counted(bytes, 'byte')}${skipped}`,
  );
  return io.signal.aborted ? EXIT.interrupted : EXIT.nothingFound;
}

/** Creating the tape would empty the file that is about to be read. */
async function refuseOwnInput(args: ImportArgs): Promise<void> {
  const idOf = async (path: string): Promise<string> => {
    const found = await stat(path).catch(() => undefined);
    return found === undefined ? '' : `${found.dev}:${found.ino}`;
  };
  const out = await idOf(args.out);
  for (const path of args.paths) {
    if (out !== '' && (await idOf(path)) === out) throw wrongArgument(`${args.out} is the recording itself`);
  }
}
