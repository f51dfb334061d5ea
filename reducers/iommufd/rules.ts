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
  /** The error that one which is not known gives if it applies; '' where there are several. */
  readonly mayBe: string;
  /** What is not known of the checks before: each may have failed instead. */
  readonly earlier: readonly Refusal[];
}

const NONE: readonly Refusal[] = Object.freeze([]);

export function refusal(errno: string, rule: string): Refusal {
  return Object.freeze({ errno, rule, unknown: '', mayBe: '', earlier: NONE });
}

export function notKnown(reason: string, mayBe = ''): Refusal {
  return Object.freeze({ errno: '', rule: '', unknown: reason, mayBe, earlier: NONE });
}

/** What several checks say together, in the kernel's order: the first that fails for sure, after those that may fail. */
export class Checks {
  #doubt: Refusal | undefined;
  readonly #doubts: Refusal[] = [];

  /** Adds a check. What it gives is sure: the operation fails, and what is checked later does not matter. */
  add(refused: Refusal | undefined): Refusal | undefined {
    if (refused === undefined) return undefined;
    if (refused.unknown === '') return this.#after(refused);
    this.#doubt ??= refused;
    this.#doubts.push(refused);
    return undefined;
  }

  /** Why the operation may fail, as none of the checks fails for sure. */
  get doubt(): Refusal | undefined {
    return this.#doubt;
  }

  #after(refused: Refusal): Refusal {
    const earlier = [...this.#doubts, ...refused.earlier].filter(({ mayBe }) => mayBe !== refused.errno);
    if (earlier.length === 0) return refused;
    return earlier.find(({ mayBe }) => mayBe === '') ?? Object.freeze({ ...refused, earlier });
  }
}

/** Fact of a kernel that is built with the self-tests: COPY then knows a flag of theirs. */
export const SELFTEST_FACT = 'kernel/iommufd_test';
