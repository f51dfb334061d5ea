import type { BisectResult } from '../bisect.js';
import type { JudgedEvent } from '../judged.js';
import { eventText, placeOf } from './event.js';
import { labelled } from './labels.js';
import { counted, printable, type Style, wrapped } from './style.js';

/** What was asked for. */
export interface BisectQuestion {
  readonly expr: string | undefined;
  readonly invariant: string | undefined;
}

/** The answer for people, ending in a newline. */
export function bisectText(result: BisectResult, question: BisectQuestion, style: Style): string {
  const { paint } = style;
  const asked = question.expr ?? `invariant ${question.invariant ?? ''}`;
  const lines = [`${paint.bold(printable(result.trace))}  ${counted(result.events, 'event')}`];
  if (result.fromTheStart) lines.push(`  ${printable(asked)} holds before the first event already`);
  else if (result.hit === undefined) lines.push(...notFound(result, question, asked, style));
  else lines.push(...found(result, result.hit, question, asked, style));
  if (question.expr !== undefined) lines.push(`  ${paint.dim(effort(result))}`);
  return `${lines.join('\n')}\n`;
}

function found(
  result: BisectResult,
  hit: JudgedEvent,
  question: BisectQuestion,
  asked: string,
  style: Style,
): string[] {
  const verb = question.expr === undefined ? 'is broken first' : 'holds from here on';
  return [
    `  ${printable(asked)} ${verb}:`,
    `  ${style.paint.yellow(`${placeOf(result.files, hit.event)}  event ${hit.event.seq}`)}`,
    `      ${wrapped(eventText(hit), style.widthColumns, '      ')}`,
    ...(result.finding === undefined ? [] : [labelled('because', printable(result.finding.message), style)]),
    ...result.causes.map((each) =>
      labelled(`event ${each.event.seq}`, `${placeOf(result.files, each.event)}  ${eventText(each)}`, style),
    ),
  ];
}

function notFound(result: BisectResult, question: BisectQuestion, asked: string, style: Style): string[] {
  if (question.expr === undefined) return [`  ${printable(asked)} holds all the way`];
  const text =
    `${printable(asked)} does not hold after the last event (${result.events - 1}). It may have held in between: ` +
    'bisect takes it that what has become true stays true.';
  return [`  ${wrapped(text, style.widthColumns, '  ')}`];
}

function effort(result: BisectResult): string {
  const failed = result.failures > 0 ? `, of which ${result.failures} threw and count as "does not hold"` : '';
  return `${counted(result.evaluations, 'evaluation')}${failed}; the recording was read ${counted(result.passes, 'time')}`;
}

/** The answer of `bisect --json`. */
export function bisectJson(result: BisectResult, question: BisectQuestion): object {
  const { hit, finding } = result;
  return {
    trace: result.trace,
    events: result.events,
    ...(question.expr === undefined ? { invariant: question.invariant } : { expr: question.expr }),
    found: hit !== undefined || result.fromTheStart,
    seq: hit?.event.seq ?? null,
    line: hit?.event.line ?? null,
    text: hit === undefined ? null : eventText(hit),
    fromTheStart: result.fromTheStart,
    ...(finding === undefined ? {} : { message: finding.message, causes: finding.causes }),
    evaluations: result.evaluations,
    failures: result.failures,
    passes: result.passes,
  };
}
