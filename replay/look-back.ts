import type { Recording } from '../traces/recording.js';
import { eventsNamed } from './events-named.js';
import type { Failure, FailureGroup } from './failures.js';
import { Historian } from './history.js';
import { type JudgedEvent, judgedAt } from './judged.js';
import type { Report } from './report.js';
import type { UnknownGroup } from './unknowns.js';

/** What a second reading of a recording tells of the things that a report names. */
export interface LookBack {
  /** Events that findings, divergences and unknown calls name, by `seq`. */
  readonly events: ReadonlyMap<number, JudgedEvent>;
  /** What happened before to what a failed call asked for, by the call's `seq`; names events as `event N`. */
  readonly histories: ReadonlyMap<number, string>;
  /** Where the events stand that any text names. */
  readonly places: ReadonlyMap<number, { readonly file: number; readonly line: number }>;
}

export const NO_LOOK_BACK: LookBack = { events: new Map(), histories: new Map(), places: new Map() };

/** Failed calls beyond this number have no history told. */
const QUESTIONS_MAX = 256;

/** The part of a report that somebody is going to see. */
export interface Shown {
  readonly report: Report;
  /** How many divergences, and findings. */
  readonly max: number;
  readonly failures: readonly FailureGroup[];
  readonly unknowns: readonly UnknownGroup[];
}

/** The events and histories for a page of text. */
export async function lookBack(
  { report, max, failures, unknowns }: Shown,
  open: () => Promise<Recording>,
): Promise<LookBack> {
  const seqs = new Set<number>();
  const named = (text: string): void => eventsNamed(text).forEach((seq) => seqs.add(seq));
  for (const { seq, reason } of report.divergences.slice(0, max)) {
    seqs.add(seq);
    named(reason);
  }
  for (const { seq, causes } of report.findings.slice(0, max)) for (const each of [seq, ...causes]) seqs.add(each);
  const failed = failures.map(({ first }) => first);
  for (const { reason } of failed) named(reason);
  for (const { seq, because, known } of unknowns) {
    seqs.add(seq);
    named([because, ...known].join('; '));
  }
  const historian = historianFor(failed);
  if (seqs.size === 0 && historian.lastSeq < 0) return NO_LOOK_BACK;
  const events = await judgedAt(await open(), seqs, historian);
  const places = new Map([...events].map(([seq, { event }]) => [seq, { file: event.file, line: event.line }] as const));
  for (const { seq, file, line } of historian.events) places.set(seq, { file, line });
  return { events, histories: historiesOf(failed, historian), places };
}

/** The histories alone, for `--json`. Reads nothing where no failure has one. */
export async function histories(
  failures: readonly Failure[],
  open: () => Promise<Recording>,
): Promise<ReadonlyMap<number, string>> {
  const historian = historianFor(failures);
  if (historian.lastSeq < 0) return NO_LOOK_BACK.histories;
  await judgedAt(await open(), [], historian);
  return historiesOf(failures, historian);
}

function historianFor(failures: readonly Failure[]): Historian {
  const questions = failures.flatMap(({ seq, about }) => (about === undefined ? [] : [{ seq, about }]));
  return new Historian(questions.slice(0, QUESTIONS_MAX));
}

function historiesOf(failures: readonly Failure[], historian: Historian): ReadonlyMap<number, string> {
  const texts = failures.map(({ seq }) => [seq, historian.answerOf(seq)] as const);
  return new Map(texts.filter(([, text]) => text !== ''));
}
