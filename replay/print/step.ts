import type { Finding } from '../../core/invariant.js';
import { ruleText } from '../../reducers/rules.js';
import type { Change } from '../state-diff.js';
import { isScalar } from '../state-path.js';
import type { StepVerb } from '../step-command.js';
import { STEP_VERBS } from '../step-command.js';
import type { Moment, Timeline } from '../timeline.js';
import { eventText, placeOf } from './event.js';
import { labelled } from './labels.js';
import { judgedText } from './report.js';
import { treeLines } from './state.js';
import { counted, printable, type Style, wrapped } from './style.js';
import { scalarText } from './values.js';

/** What `step` prints. */

/** The first lines: what there is to walk through. */
export function arrivalText(trace: string, timeline: Timeline, style: Style): string {
  const { paint } = style;
  const parts = [
    counted(timeline.events, 'event'),
    counted(timeline.divergences.length, 'divergence'),
    counted(timeline.findings.length, 'finding'),
  ];
  return `${paint.bold(printable(trace))}  ${parts.join(', ')}; ${paint.dim('help lists the commands')}\n`;
}

export interface MomentView {
  readonly files: readonly string[];
  readonly moment: Moment;
  /** What the event changed; one more than `shown` when there is more. */
  readonly changes: readonly Change[];
  readonly findings: readonly Finding[];
  readonly shown: number;
}

/** One event: where it stands, the call, the verdict, what it changed. */
export function momentText({ files, moment, changes, findings, shown }: MomentView, style: Style): string {
  const { paint } = style;
  const { event, judged } = moment;
  const thread = event.tid === 0 ? '' : `  ${paint.dim(`[${event.tid}]`)}`;
  const lines = [
    `${paint.bold(`event ${event.seq}`)}  ${printable(placeOf(files, event))}${thread}`,
    `  ${wrapped(eventText(moment), style.widthColumns, '    ', 2)}`,
  ];
  if (judged !== undefined) {
    const text = ruleText(judged.rule);
    lines.push(`  ${judgedText(judged, style)}${text === undefined ? '' : `: ${text}`}`);
  }
  if (judged?.explanation !== undefined) {
    const { predicted, reason } = judged.explanation;
    const side = Object.entries(predicted).map(([field, value]) => `${field} ${value}`);
    lines.push(labelled('predicted', printable(side.join(', ')), style), labelled('state', printable(reason), style));
  }
  for (const { severity, message } of findings)
    lines.push(
      `  ${paint.yellow(severity)}  ${wrapped(printable(message), style.widthColumns, '    ', 4 + severity.length)}`,
    );
  if (changes.length > 0) lines.push(changesText(changes, shown, style).trimEnd());
  return `${lines.filter((line) => line !== '').join('\n')}\n`;
}

/** Changes of the state, at most `shown`. */
export function changesText(changes: readonly Change[], shown: number, style: Style): string {
  if (changes.length === 0) return '  the state stays as it is\n';
  const lines = changes.slice(0, shown).flatMap((change) => changeLines(change, style));
  if (changes.length > shown) lines.push(`  ${style.paint.dim('… and more: diff shows them')}`);
  return `${lines.join('\n')}\n`;
}

function changeLines({ path, before, after }: Change, style: Style): string[] {
  const { paint } = style;
  if (before === undefined) return valueLines(paint.green('+'), path, after, style);
  if (after === undefined) return valueLines(paint.red('-'), path, before, style);
  if (isScalar(before) && isScalar(after)) {
    const name = path.slice(path.lastIndexOf('.') + 1);
    return [`  ${paint.cyan('~')} ${path}: ${scalarText(before, name)} -> ${scalarText(after, name)}`];
  }
  return [...valueLines(paint.red('-'), path, before, style), ...valueLines(paint.green('+'), path, after, style)];
}

const ENTRIES_IN_CHANGE = 3;
const MARK_COLUMNS = 4;

function valueLines(mark: string, path: string, value: unknown, style: Style): string[] {
  const narrower = { ...style, widthColumns: style.widthColumns - MARK_COLUMNS };
  const [first, ...rest] = treeLines(value, narrower, { entries: ENTRIES_IN_CHANGE, path }, path);
  const indent = ' '.repeat(MARK_COLUMNS);
  const shifted = (text: string): string => text.replaceAll('\n', `\n${indent}`);
  return [`  ${mark} ${shifted(first ?? path)}`, ...rest.map((line) => indent + shifted(line))];
}

/** The value of an expression. */
export function valueText(value: unknown, style: Style): string {
  if (isScalar(value)) return `${scalarText(value)}\n`;
  if (typeof value === 'function') return 'a function\n';
  return `${treeLines(value, style, { entries: 20, path: '' }).join('\n')}\n`;
}

export function helpText(style: Style): string {
  const width = Math.max(...STEP_VERBS.map(({ usage }) => usage.length));
  const row = ({ usage, help }: StepVerb): string => {
    const indent = ' '.repeat(width + 4);
    return `  ${style.paint.bold(usage.padEnd(width))}  ${wrapped(help, style.widthColumns, indent)}\n`;
  };
  return STEP_VERBS.map(row).join('');
}
