import type { LookBack } from '../look-back.js';
import type { Report } from '../report.js';
import { KIND_TEXT, type Lack } from '../unknown-facts.js';
import type { UnknownGroup } from '../unknowns.js';
import { eventText, placesIn, shortPlaceOf } from './event.js';
import { labelled } from './labels.js';
import { counted, grouped, printable, type Style, wrapped } from './style.js';

/** What could not be judged: the causes in short, calls worth a closer look, and what to record next time. */

const CAUSES_SHOWN = 8;
const ERRORS_SHOWN = 8;
/** Where there is no more than this, calls that succeeded are looked at closely, too: a fragment that was pasted. */
const FEW = 4;
const POSSIBLE_SHOWN = 12;

/** The groups that are told in full: every error, and all where they are few. */
export function shownUnknowns(report: Report): readonly UnknownGroup[] {
  const { unknowns } = report;
  return unknowns.length <= FEW ? unknowns : unknowns.filter(({ outcome }) => outcome !== '').slice(0, ERRORS_SHOWN);
}

/** One line for each cause, with the commands that it concerns; nothing where all calls are told in full. */
export function unknownCausesText(report: Report, back: LookBack, style: Style): string {
  const { unknowns, calls } = report;
  if (unknowns.length === shownUnknowns(report).length) return '';
  const causes = new Map<string, { count: number; calls: Map<string, number> }>();
  for (const { because, call, count } of unknowns) {
    const cause = causes.get(because) ?? { count: 0, calls: new Map<string, number>() };
    cause.count += count;
    cause.calls.set(call, (cause.calls.get(call) ?? 0) + count);
    causes.set(because, cause);
  }
  const shown = [...causes].sort(([, a], [, b]) => b.count - a.count).slice(0, CAUSES_SHOWN);
  const width = Math.max(...shown.map(([, { count }]) => grouped(count).length));
  const indent = ' '.repeat(width + 4);
  const lines = shown.map(([because, cause]) => {
    const text = `${placesIn(report.info.files, back, because)}: ${commandsText(cause.calls)}`;
    return `  ${grouped(cause.count).padStart(width)}  ${wrapped(printable(text), style.widthColumns, indent)}`;
  });
  const rest = calls.unknown - shown.reduce((sum, [, { count }]) => sum + count, 0);
  if (rest > 0) lines.push(`  ${' '.repeat(width)}  ${style.paint.dim(`and ${counted(rest, 'other call')}`)}`);
  return `${style.paint.yellow('unknown')}, because\n${lines.join('\n')}`;
}

const COMMANDS_SHOWN = 4;

function commandsText(calls: ReadonlyMap<string, number>): string {
  const most = [...calls].sort(([, a], [, b]) => b - a);
  const names = most.slice(0, COMMANDS_SHOWN).map(([name]) => name);
  const rest = most.length - names.length;
  return `${names.join(', ')}${rest > 0 ? ` and ${counted(rest, 'other command')}` : ''}`;
}

/** What is known of one group of calls, what is not, and what its error can mean. */
export function unknownText(report: Report, group: UnknownGroup, back: LookBack, style: Style): string {
  const { paint } = style;
  const { files } = report.info;
  const seen = back.events.get(group.seq);
  const more = group.count > 1 ? `, and ${counted(group.count - 1, 'more like it', 'more like it')}` : '';
  const where = `${printable(shortPlaceOf(files, group))}  ${paint.dim(`event ${group.seq}${more}`)}`;
  const place = (text: string): string => printable(placesIn(files, back, text));
  return [
    `${paint.yellow(paint.bold('UNKNOWN'))}  ${paint.bold(printable(group.call))}  ${where}`,
    labelled('call', seen === undefined ? '' : eventText(seen), style),
    labelled('because', place(group.because), style),
    ...listLines('known', group.known.map(place), style),
    ...listLines('not known', group.missing.map(place), style),
    ...possibleLines(group, style),
  ]
    .filter((line) => line !== '')
    .join('\n');
}

function listLines(label: string, texts: readonly string[], style: Style): string[] {
  return texts.map((text, index) => labelled(index === 0 ? label : '', text, style, text.startsWith('- ') ? 2 : 0));
}

/** The rules that give the recorded error, in the kernel's order of checks, apart for each kind of file. */
function possibleLines({ outcome, possible, kinds }: UnknownGroup, style: Style): string[] {
  if (possible === undefined) return [];
  if (possible.length === 0) {
    const text = `no rule of the model gives ${outcome}: ${OTHER[outcome] ?? OTHER_ERRORS}`;
    return [labelled('possible', text, style)];
  }
  const lines: string[] = [];
  for (const kind of kinds) {
    const own = possible.filter((each) => each.kind === kind).map(({ rule }) => `${rule.text} (${rule.id})`);
    const texts = own.slice(0, POSSIBLE_SHOWN);
    if (outcome === 'ENOMEM' && own.length > 0) texts.push('the kernel had no memory for it');
    if (own.length > POSSIBLE_SHOWN) texts.push(`and ${counted(own.length - POSSIBLE_SHOWN, 'more', 'more')}`);
    if (kinds.length > 1) lines.push(`on ${KIND_TEXT[kind]}:`);
    const items = kinds.length > 1 || texts.length > 1 ? texts.map((text) => `- ${text}`) : texts;
    lines.push(...items);
  }
  return listLines('possible', lines, style);
}

const OTHER: Readonly<Record<string, string>> = {
  ENOMEM: 'the kernel had no memory for it',
  EINTR: 'a signal came first',
  EPERM: 'the caller lacks a capability, or a security module objects',
  EACCES: 'the caller lacks the right, or a security module objects',
};
const OTHER_ERRORS = 'it comes from the driver, a security module or another release';

// ---- what to record -----------------------------------------------------------------------------------------

const LACKS: readonly (readonly [Lack, string])[] = [
  [
    'start',
    'from the start of the program, which shows how things came to be as they are (attaching with -p does not), and ' +
      'with -y, which names the files behind fds',
  ],
  [
    'structs',
    'the structs of the ioctls, which no strace prints: preload the library of docs/RECORDING.md, which states them ' +
      'in the stream',
  ],
  ['result', 'until the calls have returned, with -f, so that no half of a line is lost'],
  ['touches', 'in the kernel (kernel-event lines, docs/RECORDING.md), which shows what the CPU touched'],
  ['model', 'nothing more for what is not modelled (KNOWN-GAPS.md): no recording settles that'],
];
const STRACE = 'strace -f -ttt -y -x -s 4096';
const PRELOAD = ' -E LD_PRELOAD=$PWD/annotate.so';

/** The union of what would settle the unknown calls, with a command line. */
export function recordText(report: Report, style: Style): string {
  const wanted = new Set(report.unknowns.flatMap(({ record }) => record));
  const lines = LACKS.filter(([lack]) => wanted.has(lack)).map(
    ([, text]) => `  - ${wrapped(text, style.widthColumns, '    ')}`,
  );
  if (lines.length === 0) return '';
  const preload = wanted.has('structs') ? PRELOAD : '';
  const command = wanted.has('start') || wanted.has('structs') || wanted.has('result');
  if (command) lines.push(`    ${style.paint.bold(`${STRACE}${preload} -o run.strace PROGRAM...`)}`);
  return `to settle it, record\n${lines.join('\n')}`;
}
