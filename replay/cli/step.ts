import { createInterface } from 'node:readline';
import { InputError } from '../../core/errors.js';
import { Expression, ExpressionFailed } from '../expression.js';
import { callPattern } from '../filter.js';
import { callName } from '../print/event.js';
import { stateText } from '../print/state.js';
import { arrivalText, changesText, helpText, momentText, valueText } from '../print/step.js';
import { diffStates } from '../state-diff.js';
import { lookUp } from '../state-path.js';
import { parseStepCommand, STEP_VERBS, type StepCommand } from '../step-command.js';
import { TraceSource } from '../source.js';
import { Timeline } from '../timeline.js';
import { chosenInvariants, type InvariantArgs } from './invariants.js';
import { EXIT, type Io, wrongArgument } from './io.js';

export interface StepArgs extends InvariantArgs {
  /** Files of one recording. */
  readonly paths: readonly string[];
  /** Where to begin. */
  readonly at: number;
}

const CHANGES_SHOWN = 6;
const CHANGES_MAX = 200;
const ENTRIES_SHOWN = 20;

/** `step`: walks through a trace event by event, by commands from a terminal or a script on stdin. */
export async function step(args: StepArgs, io: Io): Promise<number> {
  if (args.paths.includes('-'))
    throw wrongArgument('step reads its commands from standard input, so the trace must be a file');
  const source = new TraceSource(args.paths, { rereadable: true, signal: io.signal, kernel: io.kernel });
  const timeline = await Timeline.build(source, await chosenInvariants(args));
  if (io.signal.aborted) return EXIT.interrupted;
  const stepper = new Stepper(timeline, io);
  await io.stdout.write(arrivalText(source.name, timeline, io.stdout.style));
  await stepper.goTo(args.at);
  return (await converse(stepper, io)) ? EXIT.nothingFound : EXIT.interrupted;
}

/** Reads commands until `quit` or the end of the input. False when it was interrupted. */
async function converse(stepper: Stepper, io: Io): Promise<boolean> {
  const isTerminal = io.stdin.isTTY === true && io.stdout.isTerminal;
  const lines = createInterface({
    input: io.stdin,
    ...(isTerminal ? { output: process.stdout, completer: completeVerb } : {}),
    terminal: isTerminal,
    prompt: 'step> ',
  });
  // Ctrl-C leaves; readline gets it as a key while the terminal is raw.
  lines.on('SIGINT', () => lines.close());
  const stop = (): void => lines.close();
  io.signal.addEventListener('abort', stop, { once: true });
  try {
    if (isTerminal) lines.prompt();
    for await (const line of lines) {
      if (!isTerminal) await io.stdout.line(`> ${line}`);
      if (!(await stepper.obey(line))) return true;
      if (isTerminal) lines.prompt();
    }
    return !io.signal.aborted;
  } finally {
    io.signal.removeEventListener('abort', stop);
    lines.close();
  }
}

function completeVerb(line: string): [string[], string] {
  const words = STEP_VERBS.map((verb) => `${verb.words[0] ?? ''} `);
  return [words.filter((word) => word.startsWith(line)), line];
}

/** Where somebody stands in a timeline, and what their commands do. */
class Stepper {
  readonly #timeline: Timeline;
  readonly #io: Io;
  #seq = 0;
  #last: StepCommand = { do: 'move', by: 1 };

  constructor(timeline: Timeline, io: Io) {
    this.#timeline = timeline;
    this.#io = io;
  }

  /** Does what a line says; false for `quit`. */
  async obey(line: string): Promise<boolean> {
    const command = parseStepCommand(line) ?? this.#last;
    if (command.do === 'quit') return false;
    try {
      await this.#run(command);
      if (command.do !== 'wrong') this.#last = command;
    } catch (error) {
      if (!(error instanceof InputError)) throw error;
      await this.#say(error.message);
    }
    return true;
  }

  async #run(command: Exclude<StepCommand, { do: 'quit' }>): Promise<void> {
    switch (command.do) {
      case 'move':
        return this.goTo(Math.max(0, Math.min(this.#seq + command.by, this.#timeline.lastSeq)));
      case 'goto':
        return this.goTo(command.seq === 'end' ? this.#timeline.lastSeq : command.seq);
      case 'divergence':
        return this.#goToNext(this.#timeline.divergences, 'divergence');
      case 'finding':
        return this.#goToNext(
          this.#timeline.findings.map((finding) => finding.seq),
          'finding',
        );
      case 'continue': {
        const pattern = callPattern(command.call);
        const found = await this.#timeline.find(this.#seq + 1, (each) => pattern.test(callName(each)));
        return found === undefined ? this.#say(`no ${command.call} behind event ${this.#seq}`) : this.goTo(found);
      }
      case 'show':
        return this.goTo(this.#seq);
      case 'diff':
        return this.#diff();
      case 'print':
        return this.#print(command.what);
      case 'help':
        return this.#io.stdout.write(helpText(this.#io.stdout.style));
      case 'wrong':
        return this.#say(command.message);
    }
  }

  /** Goes to an event and shows it. Throws `InputError` IOT304 when there is none. */
  async goTo(seq: number): Promise<void> {
    const moment = await this.#timeline.at(seq);
    this.#seq = seq;
    const changes = diffStates(moment.before, moment.after, CHANGES_SHOWN + 1);
    const findings = this.#timeline.findings.filter((finding) => finding.seq === seq);
    const { files } = this.#timeline;
    await this.#io.stdout.write(
      momentText({ files, moment, changes, findings, shown: CHANGES_SHOWN }, this.#io.stdout.style),
    );
  }

  async #goToNext(seqs: readonly number[], what: string): Promise<void> {
    const next = seqs.find((seq) => seq > this.#seq);
    return next === undefined ? this.#say(`no ${what} behind event ${this.#seq}`) : this.goTo(next);
  }

  async #diff(): Promise<void> {
    const { before, after } = await this.#timeline.at(this.#seq);
    const changes = diffStates(before, after, CHANGES_MAX + 1);
    await this.#io.stdout.write(changesText(changes, CHANGES_MAX, this.#io.stdout.style));
  }

  async #print(what: string): Promise<void> {
    const { after } = await this.#timeline.at(this.#seq);
    const { style } = this.#io.stdout;
    const { value, missing } = lookUp(after, what);
    if (missing === '') return this.#io.stdout.write(stateText(value, style, { entries: ENTRIES_SHOWN, path: what }));
    try {
      await this.#io.stdout.write(valueText(new Expression(what).evaluate(after, this.#seq), style));
    } catch (error) {
      throw error instanceof ExpressionFailed ? error.input : error;
    }
  }

  async #say(text: string): Promise<void> {
    await this.#io.stdout.line(text);
  }
}
