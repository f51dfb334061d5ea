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
