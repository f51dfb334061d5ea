/**
 * One check of the kernel, as a named rule. Each file that holds checks exports its rules as a table in the kernel's
 * order of precedence; the tables together are the documentation of when a call fails.
 */
export interface Rule {
  readonly id: string;
  /** Symbolic error, or '' for a rule of success. */
  readonly errno: string;
  /** When it applies, in one sentence. */
  readonly text: string;
}

/** Why an operation that several calls share does not happen. `errno` is '' where the recording cannot tell. */
export interface Refusal {
  readonly errno: string;
  readonly rule: string;
  /** Why the answer is not known, where it is not. */
  readonly unknown: string;
}

export function refusal(errno: string, rule: string): Refusal {
  return Object.freeze({ errno, rule, unknown: '' });
}

export function notKnown(reason: string): Refusal {
  return Object.freeze({ errno: '', rule: '', unknown: reason });
}

/** Fact of a kernel that is built with the self-tests: COPY then knows a flag of theirs. */
export const SELFTEST_FACT = 'kernel/iommufd_test';
