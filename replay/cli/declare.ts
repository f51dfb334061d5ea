import type { Argv } from 'yargs';
import yargs from 'yargs';
import { EVENT_KINDS, type EventKind } from '../../core/event.js';
import { profileFor } from '../../reducers/profile.js';
import { type Io, wrongArgument } from './io.js';

/**
 * The command line, declared: verbs, options, help texts. What a verb does stands in a module of its own that is
 * loaded when the verb is used, so that `check` does not wait for what only `step` needs.
 */

/** yargs loses a positional `-`, so standard input goes through it by its file name. */
const STDIN_PATH = '/dev/stdin';

function traceName(argument: string): string {
  return argument === STDIN_PATH ? '-' : argument;
}

const COMMON = {
  json: { type: 'boolean', default: false, describe: 'print JSON, one object per line' },
  invariants: {
    type: 'string',
    array: true,
    nargs: 1,
    describe: 'also run the invariants of this JavaScript module; --no-invariants runs none',
  },
  only: { type: 'string', array: true, nargs: 1, describe: 'run only the invariant of this name' },
} as const;

/** Parses the arguments and runs what they ask for; gives the exit status. Throws `InputError` for wrong ones. */
export async function run(args: readonly string[], version: string, io: Io): Promise<number> {
  let status = 0;
  const verb =
    <A>(work: (argv: A) => Promise<number>) =>
    async (argv: A): Promise<void> => {
      status = await work(argv);
    };
  const program = yargs(args.map((each) => (each === '-' ? STDIN_PATH : each)))
    .scriptName('iotape')
    .usage('$0 <verb> <trace...>\n\nReplays recordings of VFIO, iommufd and HMM calls against a model of the kernel.')
    .locale('en')
    .parserConfiguration({ 'parse-numbers': false, 'parse-positional-numbers': false, 'populate--': false })
    .strict()
    .demandCommand(1, 'which verb?')
    .recommendCommands()
    .wrap(Math.min(io.stdout.style.widthColumns, 100))
    .option('kernel', {
      type: 'string',
      describe: 'release whose behaviour is modelled, e.g. 6.12; default: what the recording names, else 7.2',
    })
    .middleware((argv) => {
      io.kernel = knownKernel(argv.kernel);
    })
    .version(version)
    .help()
    .alias('h', 'help')
    .epilogue(
      'A trace is an strace text, kernel-event lines or a tape, plain or gzipped, or - for standard input.\n' +
        'Exit status: 0 nothing found, 1 something found, 2 input or arguments unusable, 3 interrupted, 70 bug in iotape.',
    )
    .completion('completion', 'print a completion script for bash or zsh')
    .exitProcess(false)
    .fail((message, error) => {
      throw error ?? wrongArgument(message);
    });
  declareCheck(program, verb, io);
  declareShow(program, verb, io);
  declareTravel(program, verb, io);
  declareTapes(program, verb, io);
  declareBisect(program, verb, io);
  await program.parseAsync();
  return status;
}

function knownKernel(release: string | undefined): string | undefined {
  if (release === undefined || profileFor(release) !== undefined) return release;
  throw wrongArgument(`--kernel ${release}: known are 6.12 and what came after it`);
}

type Verb = <A>(work: (argv: A) => Promise<number>) => (argv: A) => Promise<void>;

function traces(y: Argv) {
  return y
    .positional('trace', { type: 'string', array: true, demandOption: true, describe: 'recordings' })
    .option('together', {
      type: 'boolean',
      default: false,
      describe: 'the files are one recording, as strace -ff writes it',
    });
}

/** The files of each recording that is named. */
function recordings(argv: { trace: readonly string[]; together: boolean }): (readonly string[])[] {
  const paths = argv.trace.map(traceName);
  return argv.together ? [paths] : paths.map((path) => [path]);
}

function oneTrace(y: Argv) {
  const describe = 'recording; several files are one, as strace -ff writes it';
  return y.positional('trace', { type: 'string', array: true, demandOption: true, describe });
}

function declareCheck(program: Argv, verb: Verb, io: Io): void {
  program.command(
    'check <trace...>',
    'replay, compare every recorded answer with the model, run the invariants',
    (y) =>
      traces(y)
        .options(COMMON)
        .option('max', { type: 'string', default: '20', describe: 'how many divergences and findings to show' })
        .example('$0 check --json run.strace.gz', 'one JSON object, for scripts'),
    verb(async (argv) => {
      const { check } = await import('./check.js');
      const { json, only = [] } = argv;
      return check(
        { recordings: recordings(argv), json, only, invariants: modules(argv), max: count(argv.max, '--max') },
        io,
      );
    }),
  );
}

function declareShow(program: Argv, verb: Verb, io: Io): void {
  program.command(
    'show <trace...>',
    'print the events, one line each, with verdicts',
    (y) =>
      oneTrace(y)
        .option('json', COMMON.json)
        .option('from', { type: 'string', default: '0', describe: 'first event' })
        .option('to', { type: 'string', describe: 'last event' })
        .option('kind', { type: 'string', array: true, nargs: 1, describe: 'only this kind of event' })
        .option('call', {
          type: 'string',
          array: true,
          nargs: 1,
          describe: "only calls of this name; 'VFIO_*' for several",
        })
        .option('failed', {
          type: 'boolean',
          default: false,
          describe: 'only device calls that failed, with the reason',
        }),
    verb(async (argv) => {
      const { show } = await import('./show.js');
      const to = argv.to === undefined ? Number.POSITIVE_INFINITY : count(argv.to, '--to');
      const kinds = (argv.kind ?? []).map(eventKind);
      const paths = argv.trace.map(traceName);
      const { json, failed, call: calls = [] } = argv;
      return show({ paths, json, from: count(argv.from, '--from'), to, kinds, calls, failed }, io);
    }),
  );
}

function declareTravel(program: Argv, verb: Verb, io: Io): void {
  program.command(
    'state <trace...>',
    "print the model's state after an event",
    (y) =>
      oneTrace(y)
        .option('json', COMMON.json)
        .option('at', { type: 'string', default: 'end', describe: 'number of the event, or end' })
        .option('path', { type: 'string', default: '', describe: 'only this part, e.g. containers.1.areas' })
        .option('all', { type: 'boolean', default: false, describe: 'show long tables whole' }),
    verb(async (argv) => {
      const { state } = await import('./state.js');
      const at = argv.at === 'end' ? undefined : count(argv.at, '--at');
      const entries = argv.all ? Number.POSITIVE_INFINITY : 10;
      return state({ paths: argv.trace.map(traceName), json: argv.json, at, path: argv.path, entries }, io);
    }),
  );
  program.command(
    'step <trace...>',
    'walk through the events and states, by commands from the terminal or from standard input',
    (y) =>
      oneTrace(y)
        .option('at', { type: 'string', default: '0', describe: 'event to begin at' })
        .options({ invariants: COMMON.invariants, only: COMMON.only }),
    verb(async (argv) => {
      const { step } = await import('./step.js');
      return step(
        {
          paths: argv.trace.map(traceName),
          at: count(argv.at, '--at'),
          invariants: modules(argv),
          only: argv.only ?? [],
        },
        io,
      );
    }),
  );
}

function declareTapes(program: Argv, verb: Verb, io: Io): void {
  program.command(
    'import <trace...>',
    'write a recording to a tape, which is small, fast to read and seekable',
    (y) => oneTrace(y).option('out', { type: 'string', alias: 'o', demandOption: true, describe: 'the tape' }),
    verb(async (argv) => {
      const { importToTape } = await import('./import.js');
      if (traceName(argv.out) === '-') throw wrongArgument('a tape is written to a file, not to a pipe');
      return importToTape({ paths: argv.trace.map(traceName), out: argv.out }, io);
    }),
  );
  program.command(
    'verify <trace...>',
    'replay in several ways that must not make a difference, and compare the state hashes',
    (y) => traces(y).option('json', COMMON.json),
    verb(async (argv) => {
      const { verify } = await import('./verify.js');
      return verify({ recordings: recordings(argv), json: argv.json }, io);
    }),
  );
}

function declareBisect(program: Argv, verb: Verb, io: Io): void {
  program.command(
    'bisect <trace...>',
    'find the first event after which an invariant is broken or an expression over the state holds',
    (y) =>
      traces(y)
        .option('json', COMMON.json)
        .option('invariant', { type: 'string', describe: 'name of the invariant' })
        .option('expr', { type: 'string', describe: "a JavaScript expression, e.g. 'state.containers.size > 0'" })
        .option('invariants', { ...COMMON.invariants, describe: 'take invariants from this JavaScript module, too' })
        .conflicts('invariant', 'expr'),
    verb(async (argv) => {
      const { bisect } = await import('./bisect.js');
      const { invariant, expr, json } = argv;
      return bisect({ recordings: recordings(argv), invariant, expr, json, invariants: modules(argv) || [] }, io);
    }),
  );
}

/** `--no-invariants` makes yargs give false in place of the list, which its types do not tell. */
function modules(argv: { invariants: readonly string[] | undefined }): readonly string[] | false {
  const given: unknown = argv.invariants;
  if (given === false || (Array.isArray(given) && given.includes(false))) return false;
  return argv.invariants ?? [];
}

/** A count or number of an event. */
function count(text: string, option: string): number {
  const value = Number(text);
  if (/^\d{1,15}$/.test(text) && Number.isSafeInteger(value)) return value;
  throw wrongArgument(`${option} ${text}: not a count`);
}

function eventKind(text: string): EventKind {
  const kind = EVENT_KINDS.find((each) => each === text);
  if (kind !== undefined) return kind;
  throw wrongArgument(`--kind ${text}: the kinds are ${EVENT_KINDS.join(', ')}`);
}
