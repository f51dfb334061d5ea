import type { Call, Verdict } from '../reducers/call.js';
import type { Subject } from '../reducers/explain.js';
import { ruleText } from '../reducers/rules.js';

/**
 * A call that failed, and had to: by a rule of the model, or for a reason of that run which a recording tells. Also one that
 * succeeded and did something else than its caller may think.
 */
export interface Failure {
  readonly call: string;
  /** '' for a success. */
  readonly errno: string;
  /** '' where the run decided and not the model. */
  readonly rule: string;
  /** When the rule applies, or what the run did, in one line. */
  readonly text: string;
  /** What of arguments and state decided; may be ''. Names events as `event N`. */
  readonly reason: string;
  /** What the recording can be searched for, to tell more. */
  readonly about: Subject | undefined;
  readonly seq: number;
  readonly file: number;
  readonly line: number;
}

/** Failures for one reason. */
export interface FailureGroup {
  readonly first: Failure;
  readonly count: number;
}

/** Failures beyond this number are counted with their group and not kept one by one. */
const KEPT_MAX = 10_000;

/** Calls that failed: one by one, and counted by command and rule. Why they failed is what people ask first. */
export class Failures {
  readonly #groups = new Map<string, { first: Failure; count: number }>();
  readonly list: Failure[] = [];
  count = 0;

  /** Takes up a call whose recorded error the model accepts. */
  add(call: Call, verdict: Verdict): void {
    this.count++;
    const byModel = verdict === 'match' || call.predictedErrno === call.event.errno;
    const key = `${call.name} ${byModel ? call.rule : call.event.errno}`;
    const group = this.#groups.get(key);
    const isKept = this.list.length < KEPT_MAX;
    if (group !== undefined && !isKept) {
      group.count++;
      return;
    }
    const failure = failureOf(call, byModel);
    if (isKept) this.list.push(failure);
    if (group === undefined) this.#groups.set(key, { first: failure, count: 1 });
    else group.count++;
  }

  /** Most frequent first, then in the order of the recording. */
  get groups(): FailureGroup[] {
    return [...this.#groups.values()].sort((a, b) => b.count - a.count || a.first.seq - b.first.seq);
  }
}

function failureOf(call: Call, byModel: boolean): Failure {
  const { errno, seq, file, line } = call.event;
  const { text, about } = call.told;
  const rule = byModel ? call.rule : '';
  return {
    call: call.name,
    errno,
    rule,
    text: byModel ? (ruleText(call.rule) ?? call.rule) : runText(call),
    reason: text,
    about,
    seq,
    file,
    line,
  };
}

/** An error that no rule gives and that is taken as a fact of the run. */
function runText(call: Call): string {
  if (call.event.injected) return 'strace was told to inject it';
  if (call.faultArmed) return 'an allocation was made to fail (/proc/self/fail-nth)';
  return 'the kernel had no memory for it, or a limit was reached';
}
