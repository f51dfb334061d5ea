import type { Diagnostic, ErrorCode } from '../core/errors.js';

const MAX_LISTED = 1000;

/**
 * The diagnostics of one recording while it is read. Only the first ones are kept, so that a file of
 * nothing but rubbish costs no memory; the last entry then says how many there were (IOT109).
 */
export class DiagnosticLog {
  readonly #listed: Diagnostic[] = [];
  #unlisted = 0;
  readonly #max: number;

  constructor(maxListed: number = MAX_LISTED) {
    this.#max = maxListed;
  }

  /** Whether the next one would be listed; what is costly to find out (a column) may be left out otherwise. */
  get hasRoom(): boolean {
    return this.#listed.length < this.#max;
  }

  add(code: ErrorCode, message: string, file: string, line = 0, column = 0): void {
    if (this.hasRoom) this.#listed.push(Object.freeze({ code, message, file, line, column }));
    else this.#unlisted++;
  }

  get list(): readonly Diagnostic[] {
    const first = this.#listed[0];
    if (this.#unlisted === 0 || first === undefined) return this.#listed;
    const message = `${this.#unlisted} more`;
    return [...this.#listed, Object.freeze({ code: 'IOT109', message, file: first.file, line: 0, column: 0 } as const)];
  }
}
