import Table from 'cli-table3';
import { CODES, type Diagnostic } from '../../core/errors.js';
import { commandByName } from '../../core/uapi/lookup.js';
import type { Finding, Severity } from '../../core/invariant.js';
import type { Divergence } from '../engine.js';
import type { Judged, JudgedEvent } from '../judged.js';
import type { LookBack } from '../look-back.js';
import type { Report } from '../report.js';
import { ruleText } from '../../reducers/rules.js';
import type { Counts } from '../tally.js';
import { eventText, placeOf, placesIn, shortPlaceOf } from './event.js';
import { failuresText, idleText } from './failures.js';
import { labelled } from './labels.js';
import { counted, grouped, printable, type Style, wrapped } from './style.js';
import { recordText, shownUnknowns, unknownCausesText, unknownText } from './unknowns.js';

/** The page that `check` prints for people: what was replayed, then each divergence and finding, then the sum. */

export interface ReportView {
  /** How many divergences, and how many findings, are shown in full. */
  readonly shown: number;
  /** What a second reading told. */
  readonly back: LookBack;
}

/** All of it, ending in a newline. */
export function reportText(report: Report, view: ReportView, style: Style): string {
  const blocks = [
    headText(report, style),
    tableText(report, style),
    failuresText(report, view.back, style),
    idleText(report, view.back, style),
    unknownCausesText(report, view.back, style),
    diagnosticsText(report, style),
    ...report.divergences.slice(0, view.shown).map((d) => divergenceText(report, d, view, style)),
    moreText(report.divergenceCount - Math.min(view.shown, report.divergences.length), 'divergence', style),
    ...report.findings.slice(0, view.shown).map((f) => findingText(report, f, view, style)),
    moreText(report.findingCount - Math.min(view.shown, report.findings.length), 'finding', style),
    ...shownUnknowns(report).map((group) => unknownText(report, group, view.back, style)),
    recordText(report, style),
    verdictText(report, style),
  ];
  return `${blocks.filter((block) => block !== '').join('\n\n')}\n`;
}

const VERDICTS = ['match', 'learned', 'unknown', 'diverge'] as const;

function painted(verdict: (typeof VERDICTS)[number], text: string, style: Style): string {
  const { paint } = style;
  if (verdict === 'diverge') return paint.red(text);
  if (verdict === 'unknown') return paint.yellow(text);
  return verdict === 'learned' ? paint.cyan(text) : paint.green(text);
}

function headText(report: Report, style: Style): string {
  const { info, events, skippedLines, calls } = report;
  const skipped = skippedLines > 0 ? `, ${counted(skippedLines, 'line')} skipped` : '';
  const kernel = info.kernel === '' ? '' : `, kernel ${info.kernel}`;
  const head = `${style.paint.bold(printable(report.trace))}  ${info.format}${kernel}, ${counted(events, 'event')}${skipped}`;
  const { mirrorChanges } = report;
  const mirrors = mirrorChanges > 0 ? `\n  ${counted(mirrorChanges, 'change')} of the mirrors of drivers` : '';
  if (calls.total === 0)
    return `${head}${mirrors === '' ? '\n  no call of a VFIO, iommufd or HMM file in it' : mirrors}`;
  const parts = VERDICTS.filter((verdict) => calls[verdict] > 0).map((verdict) =>
    painted(verdict, `${grouped(calls[verdict])} ${verdict}`, style),
  );
  return `${head}\n  ${counted(calls.total, 'device call')}: ${parts.join(', ')}${mirrors}`;
}

/** The commands with something to look at; where all is well the sum above says enough. */
function tableText(report: Report, style: Style): string {
  const rows = Object.entries(report.byCall).filter(([, counts]) => counts.diverge + counts.unknown > 0);
  if (rows.length === 0) return '';
  const table = new Table({
    head: ['command', 'calls', ...VERDICTS],
    colAligns: ['left', 'right', 'right', 'right', 'right', 'right'],
    style: { head: [], border: [], 'padding-left': 0, 'padding-right': 2, compact: true },
    chars: NO_BORDERS,
  });
  const cell = (counts: Readonly<Counts>, verdict: (typeof VERDICTS)[number]): string =>
    counts[verdict] === 0 ? style.paint.dim('.') : painted(verdict, grouped(counts[verdict]), style);
  for (const [call, counts] of rows)
    table.push([
      printable(call).replaceAll(' or ', '\n  or '),
      grouped(counts.total),
      ...VERDICTS.map((verdict) => cell(counts, verdict)),
    ]);
  const rest = Object.keys(report.byCall).length - rows.length;
  const note =
    rest > 0 ? `\n  ${style.paint.dim(`and ${counted(rest, 'command')} with nothing but match and learned`)}` : '';
  return indented(trimmed(table.toString()), '  ') + note;
}

const NO_BORDERS = {
  top: '',
  'top-mid': '',
  'top-left': '',
  'top-right': '',
  bottom: '',
  'bottom-mid': '',
  'bottom-left': '',
  'bottom-right': '',
  left: '',
  'left-mid': '',
  mid: '',
  'mid-mid': '',
  right: '',
  'right-mid': '',
  middle: '',
};

function trimmed(text: string): string {
  return text.replace(/[ ]+$/gm, '');
}

function indented(text: string, indent: string): string {
  return text.replace(/^(?=.)/gm, indent);
}

/** One line for each code: how often, where first, what it means. */
function diagnosticsText(report: Report, style: Style): string {
  const byCode = new Map<string, { first: Diagnostic; count: number }>();
  for (const diagnostic of report.diagnostics) {
    const known = byCode.get(diagnostic.code);
    if (known === undefined) byCode.set(diagnostic.code, { first: diagnostic, count: 1 });
    else known.count++;
  }
  const lines = [...byCode.values()].map(({ first, count }) => {
    const { title, help } = CODES[first.code];
    const place = first.line > 0 ? `${first.file}:${first.line}` : first.file;
    const often = count > 1 ? ` (and ${counted(count - 1, 'more', 'more')})` : '';
    const particulars = first.message === '' ? '' : `: ${printable(first.message)}`;
    const text = `${first.code} ${title}${particulars}${often}; ${help}`;
    return `  ${printable(place)}\n      ${wrapped(text, style.widthColumns, '      ')}`;
  });
  return lines.length === 0 ? '' : `${style.paint.yellow('input')}\n${lines.join('\n')}`;
}

function divergenceText(report: Report, divergence: Divergence, view: ReportView, style: Style): string {
  const { paint } = style;
  const each = view.back.events.get(divergence.seq) ?? judgedOnce(divergence);
  const lines = [
    `${paint.red(paint.bold('DIVERGES'))}  ${paint.bold(divergence.call)}  ${where(report, divergence, style)}`,
    labelled('call', eventText(each), style),
    labelled('predicted', sideText(divergence.predicted), style),
    labelled('recorded', sideText(divergence.recorded), style),
    labelled('rule', ruleLine(divergence.rule), style),
    labelled('state', printable(placesIn(report.info.files, view.back, divergence.reason)), style),
  ];
  return lines.filter((line) => line !== '').join('\n');
}

/** A divergence whose event was not read again: the command's name tells the kind of file. */
function judgedOnce(divergence: Divergence): JudgedEvent {
  const { event, call, rule } = divergence;
  const kind = commandByName(call)?.kind ?? 'unknown';
  return {
    event,
    judged: { verdict: 'diverge', name: call, kind, rule, state: '', unknownReason: '', explanation: divergence },
  };
}

function ruleLine(rule: string): string {
  const text = ruleText(rule);
  return text === undefined ? rule : `${rule}: ${text}`;
}

function sideText(side: Readonly<Record<string, string | number>>): string {
  const { ret, errno, ...fields } = side;
  const answer = errno === undefined ? String(ret ?? '?') : `${ret ?? '?'} ${errno}`;
  const rest = Object.entries(fields).map(([field, value]) => `${field} = ${value}`);
  return printable([answer, ...rest].join(', '));
}

const HEADINGS: Readonly<Record<Severity, string>> = { violation: 'VIOLATION', hazard: 'HAZARD', leak: 'LEAK' };

function findingText(report: Report, finding: Finding, view: ReportView, style: Style): string {
  const { paint } = style;
  const colour = finding.severity === 'violation' ? paint.red : paint.yellow;
  const title = `${colour(paint.bold(HEADINGS[finding.severity]))}  ${paint.bold(printable(finding.invariant))}`;
  return [
    `${title}  ${where(report, finding, style)}`,
    `  ${wrapped(printable(finding.message), style.widthColumns, '  ')}`,
    ...storyLines(report, finding, view, style),
    ...(finding.advice === '' ? [] : [labelled('advice', printable(finding.advice), style)]),
  ].join('\n');
}

/** Of a long story, the beginning and the end are told. */
const STORY_HEAD = 5;

/** The events that led to a finding, and its own, in their order. */
function storyLines(report: Report, finding: Finding, view: ReportView, style: Style): string[] {
  const seqs = [...new Set([...finding.causes, finding.seq])].sort((a, b) => a - b);
  const lines = seqs.map((seq) => causeText(report, seq, view, style));
  const left = seqs.length - STORY_HEAD - 1;
  if (left < 2) return lines;
  const gap = `  ${style.paint.dim(`… ${counted(left, 'more', 'more')}`)}`;
  return [...lines.slice(0, STORY_HEAD), gap, lines.at(-1) ?? ''];
}

/** One event behind a finding: where it stands, then the call. */
function causeText(report: Report, seq: number, view: ReportView, style: Style): string {
  const found = view.back.events.get(seq);
  if (found === undefined) return `  ${style.paint.dim(`event ${seq}`)}`;
  const place = `${printable(shortPlaceOf(report.info.files, found.event))}  event ${seq}`;
  return `  ${style.paint.dim(place)}\n      ${wrapped(eventText(found), style.widthColumns, '      ')}`;
}

function where(
  report: Report,
  at: { readonly file: number; readonly line: number; readonly seq: number },
  style: Style,
): string {
  return `${printable(placeOf(report.info.files, at))}  ${style.paint.dim(`event ${at.seq}`)}`;
}

function moreText(count: number, what: string, style: Style): string {
  return count > 0 ? style.paint.dim(`and ${counted(count, `more ${what}`)}: --max shows them`) : '';
}

function verdictText(report: Report, style: Style): string {
  const { paint } = style;
  const stopped = report.interrupted
    ? `${paint.yellow('interrupted')}: what stands here is what was known by then\n`
    : '';
  const found = [
    report.divergenceCount > 0 ? counted(report.divergenceCount, 'divergence') : '',
    report.findingCount > 0 ? counted(report.findingCount, 'finding') : '',
  ].filter((part) => part !== '');
  const unjudged = report.calls.unknown > 0 ? `, ${counted(report.calls.unknown, 'call')} unknown` : '';
  return stopped + (found.length === 0 ? paint.green('nothing found') : paint.red(found.join(', '))) + unjudged;
}

/** What a verdict is called beside an event, with the rule or the reason behind it. */
export function judgedText(judged: Judged | undefined, style: Style): string {
  if (judged === undefined) return '';
  const state = judged.state === '' ? '' : `: ${judged.state}`;
  const why = printable(judged.verdict === 'unknown' ? judged.unknownReason : judged.rule + state);
  return `${painted(judged.verdict, judged.verdict, style)}${why === '' ? '' : ` ${style.paint.dim(why)}`}`;
}
