import type { Counts } from '../tally.js';
import { eventsNamed } from '../events-named.js';
import type { Failure } from '../failures.js';
import type { Report } from '../report.js';
import type { UnknownGroup } from '../unknowns.js';

/**
 * The object of `check --json`; docs/JSON.md is its manual. Order and meaning of the fields are stable. New
 * fields may come, at the end.
 */
export interface ReportJson {
  readonly trace: string;
  readonly format: string;
  readonly events: number;
  readonly skippedLines: number;
  readonly calls: Counts;
  readonly byCall: Readonly<Record<string, Counts>>;
  readonly divergences: readonly DivergenceJson[];
  readonly findings: readonly FindingJson[];
  readonly diagnostics: readonly { readonly code: string; readonly line: number; readonly message: string }[];
  readonly stateHash: string;
  /** Only where the replay was stopped before the end. */
  readonly interrupted?: true;
  /** Only where more was found than is listed: how many there are in all. */
  readonly truncated?: { readonly divergences: number; readonly findings: number; readonly failures: number };
  readonly failures: readonly FailureJson[];
  readonly unknowns: readonly UnknownJson[];
  readonly withoutEffect: readonly IdleJson[];
}

/** Calls that succeeded and did something else than they seem to; the particulars are the first one's. */
export type IdleJson = Omit<FailureJson, 'errno'> & { readonly count: number };

export interface FailureJson {
  readonly seq: number;
  readonly line: number;
  readonly call: string;
  readonly errno: string;
  readonly rule: string;
  readonly text: string;
  readonly reason: string;
  readonly causes: readonly number[];
  readonly file?: string;
}

export interface UnknownJson {
  readonly call: string;
  readonly outcome: string;
  readonly count: number;
  readonly seq: number;
  readonly line: number;
  readonly because: string;
  readonly kinds: readonly string[];
  readonly known: readonly string[];
  readonly missing: readonly string[];
  readonly possible: readonly { readonly kind: string; readonly rule: string; readonly text: string }[];
  readonly record: readonly string[];
  readonly file?: string;
}

export interface DivergenceJson {
  readonly seq: number;
  readonly line: number;
  readonly call: string;
  readonly predicted: Readonly<Record<string, string | number>>;
  readonly recorded: Readonly<Record<string, string | number>>;
  readonly rule: string;
  readonly reason: string;
  readonly file?: string;
}

export interface FindingJson {
  readonly invariant: string;
  readonly severity: string;
  readonly seq: number;
  readonly line: number;
  readonly message: string;
  readonly causes: readonly number[];
  readonly advice: string;
  readonly file?: string;
}

/** `histories`: what happened before to what a failed call asked for, by its `seq`. */
export function reportJson(report: Report, histories: ReadonlyMap<number, string> = new Map()): ReportJson {
  const fileOf = (index: number): { file?: string } =>
    report.info.files.length > 1 ? { file: report.info.files[index] ?? '' } : {};
  const cut =
    report.divergenceCount > report.divergences.length ||
    report.findingCount > report.findings.length ||
    report.failureCount > report.failures.length;
  return {
    trace: report.trace,
    format: report.info.format,
    events: report.events,
    skippedLines: report.skippedLines,
    calls: countsJson(report.calls),
    byCall: Object.fromEntries(Object.entries(report.byCall).map(([call, counts]) => [call, countsJson(counts)])),
    divergences: report.divergences.map((d) => ({
      seq: d.seq,
      line: d.line,
      call: d.call,
      predicted: d.predicted,
      recorded: d.recorded,
      rule: d.rule,
      reason: d.reason,
      ...fileOf(d.file),
    })),
    findings: report.findings.map((f) => ({
      invariant: f.invariant,
      severity: f.severity,
      seq: f.seq,
      line: f.line,
      message: f.message,
      causes: f.causes,
      advice: f.advice,
      ...fileOf(f.file),
    })),
    diagnostics: report.diagnostics.map(({ code, line, message }) => ({ code, line, message })),
    stateHash: report.stateHash,
    ...(report.interrupted ? { interrupted: true as const } : {}),
    ...(cut
      ? {
          truncated: {
            divergences: report.divergenceCount,
            findings: report.findingCount,
            failures: report.failureCount,
          },
        }
      : {}),
    failures: report.failures.map((failure) => ({
      ...failureJson(failure, histories.get(failure.seq)),
      ...fileOf(failure.file),
    })),
    unknowns: report.unknowns.map((group) => ({ ...unknownJson(group), ...fileOf(group.file) })),
    withoutEffect: report.idleGroups.map(({ first, count }) => {
      const { seq, line, call, rule, text, reason } = first;
      return { call, count, seq, line, rule, text, reason, causes: eventsNamed(reason), ...fileOf(first.file) };
    }),
  };
}

function failureJson(failure: Failure, history: string | undefined): FailureJson {
  const { seq, line, call, errno, rule, text } = failure;
  const reason = history === undefined ? failure.reason : [failure.reason, history].filter(Boolean).join('; ');
  return { seq, line, call, errno, rule, text, reason, causes: eventsNamed(reason) };
}

function unknownJson(group: UnknownGroup): UnknownJson {
  const { call, outcome, count, seq, line, because, kinds, known, missing, record } = group;
  const possible = (group.possible ?? []).map(({ kind, rule }) => ({ kind, rule: rule.id, text: rule.text }));
  return { call, outcome, count, seq, line, because, kinds, known, missing, possible, record };
}

function countsJson({ total, match, diverge, learned, unknown }: Readonly<Counts>): Counts {
  return { total, match, diverge, learned, unknown };
}
