/**
 * What can be wrong with a user's input, as values. Each code has one line of documentation here,
 * a row in docs/ERRORS.md made from it, and a test that raises it. Only our own bugs throw anything else.
 */
export const CODES = {
  // Recordings: the line or chunk is skipped and reading goes on.
  IOT101: { title: 'line not understood', help: 'the text is no strace line; it is skipped' },
  IOT102: { title: 'line cut off', help: 'the recording ends in the middle of this line; its call has no result' },
  IOT103: { title: 'line too long', help: 'only the beginning is kept; record with a smaller -s' },
  IOT104: {
    title: 'resumed without beginning',
    help: 'the first half of the call was not recorded; the call is skipped',
  },
  IOT105: {
    title: 'number out of range',
    help: 'a value does not fit its 64-bit (or smaller) field; the line is skipped',
  },
  IOT106: { title: 'call never resumed', help: 'the second half was not recorded; the call has no result' },
  IOT107: { title: 'binary data inside text', help: 'the bytes are skipped up to the next line' },
  IOT108: {
    title: 'memory annotation without ioctl',
    help: 'no ioctl of that thread follows or precedes; the bytes are ignored',
  },
  IOT109: { title: 'too many diagnostics', help: 'only the first ones are listed; the count tells the rest' },
  IOT110: {
    title: 'event not understood',
    help: 'the JSON object lacks a field or has one of the wrong type; it is skipped',
  },
  IOT111: {
    title: 'events out of order',
    help: 'time runs backwards further than the reader sorts; order of arrival is kept',
  },
  IOT120: { title: 'tape torn', help: 'the last chunk is incomplete; everything before it was read' },
  IOT121: { title: 'tape chunk corrupted', help: 'its checksum does not hold; reading goes on at the next chunk' },
  // Input that gives nothing usable: exit status 2.
  IOT201: { title: 'cannot read the file', help: 'check the path and its permissions' },
  IOT202: { title: 'format not recognised', help: 'give an strace text, kernel-event lines or a tape, plain or .gz' },
  IOT203: { title: 'nothing usable in the input', help: 'no line of it could be read as an event' },
  IOT204: { title: 'tape from a newer iotape', help: 'its schema version is unknown here; update iotape' },
  IOT205: {
    title: 'compressed data damaged',
    help: 'the gzip stream ends early or is corrupted; what came before it was read',
  },
  IOT206: { title: 'not a recording that can be replayed', help: 'docs/RECORDING.md says how to record one' },
  IOT207: { title: 'tape header damaged', help: 'the header cannot be read; record or import again' },
  // Arguments: exit status 2.
  IOT301: { title: 'wrong argument', help: 'see iotape --help' },
  IOT302: {
    title: 'expression does not work',
    help: 'a JavaScript expression over `state`, e.g. state.containers.size > 0',
  },
  IOT303: { title: 'invariant module does not work', help: 'it must export invariants: see ARCHITECTURE.md' },
  IOT304: { title: 'no such event', help: 'the recording has fewer events' },
  // Our own bugs: exit status 70.
  IOT401: {
    title: 'bug in iotape',
    help: 'please report it with the recording; that part of the model ended there, what was found before stands',
  },
} as const;

export type ErrorCode = keyof typeof CODES;

/** Where in a user's file something stands. Lines and columns count from 1; 0 where there is none. */
export interface Position {
  readonly file: string;
  readonly line: number;
  readonly column: number;
}

/** One thing wrong with the input; reading went on unless it came with an {@link InputError}. */
export interface Diagnostic extends Position {
  readonly code: ErrorCode;
  /** The particulars, without the code's title. */
  readonly message: string;
}

/** `file:line:column: IOT101 line not understood: particulars (what to do)`. */
export function formatDiagnostic(d: Diagnostic): string {
  const place = d.line > 0 ? `${d.file}:${d.line}${d.column > 0 ? `:${d.column}` : ''}` : d.file;
  const about = CODES[d.code];
  return `${place}: ${d.code} ${about.title}${d.message ? `: ${d.message}` : ''} (${about.help})`;
}

/** Thrown to the command line only, when an input gives nothing to work with: exit status 2. */
export class InputError extends Error {
  readonly diagnostic: Diagnostic;
  constructor(diagnostic: Diagnostic) {
    super(formatDiagnostic(diagnostic));
    this.name = 'InputError';
    this.diagnostic = diagnostic;
  }
}
