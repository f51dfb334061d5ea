/** What a line typed into `step` asks for. */
export type StepCommand =
  | { readonly do: 'move'; readonly by: number }
  | { readonly do: 'goto'; readonly seq: number | 'end' }
  | { readonly do: 'divergence' }
  | { readonly do: 'finding' }
  | { readonly do: 'continue'; readonly call: string }
  | { readonly do: 'show' }
  | { readonly do: 'diff' }
  | { readonly do: 'print'; readonly what: string }
  | { readonly do: 'help' }
  | { readonly do: 'quit' }
  | { readonly do: 'wrong'; readonly message: string };

/** One row of the help: how it is typed, and what it does. */
export interface StepVerb {
  readonly words: readonly string[];
  readonly usage: string;
  readonly help: string;
}

interface Verb extends StepVerb {
  readonly parse: (argument: string) => StepCommand;
}

const VERBS: readonly Verb[] = [
  {
    words: ['next', 'n'],
    usage: 'next [N]',
    help: 'go forward one event, or N; an empty line repeats the last move',
    parse: (argument) => nextCommand(argument),
  },
  {
    words: ['prev', 'p'],
    usage: 'prev [N]',
    help: 'go back',
    parse: (argument) => moveCommand(argument, -1),
  },
  {
    words: ['goto', 'g'],
    usage: 'goto N|end',
    help: 'go to event N',
    parse: gotoCommand,
  },
  {
    words: ['divergence', 'd'],
    usage: 'next divergence',
    help: 'go to the next call that the model contradicts (short: d)',
    parse: () => ({ do: 'divergence' }),
  },
  {
    words: ['finding', 'f'],
    usage: 'next finding',
    help: 'go to the next event with a finding (short: f)',
    parse: () => ({ do: 'finding' }),
  },
  {
    words: ['continue', 'c'],
    usage: 'continue CALL',
    help: 'go to the next call of that name; * stands for any text',
    parse: (argument) =>
      argument === ''
        ? wrong('continue to which call? e.g. continue VFIO_IOMMU_*')
        : { do: 'continue', call: argument },
  },
  { words: ['show', 's'], usage: 'show', help: 'show this event again', parse: () => ({ do: 'show' }) },
  {
    words: ['diff'],
    usage: 'diff',
    help: 'show all that this event changed in the state',
    parse: () => ({ do: 'diff' }),
  },
  {
    words: ['print', 'x'],
    usage: 'print PATH|EXPR',
    help: 'show a part of the state (containers.1.areas) or the value of an expression',
    parse: (argument) => ({ do: 'print', what: argument }),
  },
  { words: ['help', 'h', '?'], usage: 'help', help: 'show this', parse: () => ({ do: 'help' }) },
  { words: ['quit', 'q', 'exit'], usage: 'quit', help: 'leave', parse: () => ({ do: 'quit' }) },
];

export const STEP_VERBS: readonly StepVerb[] = VERBS;

/** Reads one line. An empty one is undefined: it repeats what came before. */
export function parseStepCommand(line: string): StepCommand | undefined {
  const text = line.trim();
  if (text === '') return undefined;
  const space = text.search(/\s/);
  const word = space < 0 ? text : text.slice(0, space);
  const argument = space < 0 ? '' : text.slice(space).trim();
  const verb = VERBS.find((each) => each.words.includes(word));
  return verb === undefined ? wrong(`there is no command ${word}; help lists them`) : verb.parse(argument);
}

function wrong(message: string): StepCommand {
  return { do: 'wrong', message };
}

function nextCommand(argument: string): StepCommand {
  if (argument === 'divergence' || argument === 'finding') return { do: argument };
  return moveCommand(argument, 1);
}

function moveCommand(argument: string, sign: 1 | -1): StepCommand {
  if (argument === '') return { do: 'move', by: sign };
  return /^\d{1,15}$/.test(argument) ? { do: 'move', by: sign * Number(argument) } : wrong(`${argument} is no count`);
}

function gotoCommand(argument: string): StepCommand {
  if (argument === 'end') return { do: 'goto', seq: 'end' };
  return /^\d{1,15}$/.test(argument)
    ? { do: 'goto', seq: Number(argument) }
    : wrong('goto which event? A number or end');
}
