import { verificationText } from '../print/verification.js';
import { TraceSource } from '../source.js';
import { verify as verifyTrace } from '../verify.js';
import { EXIT, forEachRecording, type Io } from './io.js';

export interface VerifyArgs {
  /** The files of each recording. */
  readonly recordings: readonly (readonly string[])[];
  readonly json: boolean;
}

/** `verify`: replays each trace in three ways and compares the ends. */
export async function verify(args: VerifyArgs, io: Io): Promise<number> {
  return forEachRecording(args.recordings, io, async (paths) => {
    const source = new TraceSource(paths, { rereadable: true, signal: io.signal, kernel: io.kernel });
    try {
      const verification = await verifyTrace(source);
      if (io.signal.aborted) return EXIT.interrupted;
      if (args.json) await io.stdout.line(JSON.stringify(verification));
      else await io.stdout.write(verificationText(verification, io.stdout.style));
      return verification.agree ? EXIT.nothingFound : EXIT.found;
    } finally {
      await source.close();
    }
  });
}
