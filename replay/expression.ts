import { createContext, Script } from 'node:vm';
import { InputError } from '../core/errors.js';
import type { World } from '../reducers/world.js';

/** One evaluation may take this long: an endless loop in a user's expression must not hang the program. */
const TIMEOUT_MS = 2_000;

/**
 * A JavaScript expression of the user over a snapshot: `state.containers.size > 0`. The tables stand there by
 * their own names, too: `containers.size > 0`.
 *
 * The context keeps the program's own names out of the expression; it is no wall against hostile code. An expression
 * comes from the person who runs the program, never from a recording.
 */
export class Expression {
  readonly #script: Script;
  readonly #text: string;

  /** Throws `InputError` IOT302 when the text is no JavaScript. */
  constructor(text: string) {
    this.#text = text;
    try {
      this.#script = new Script(text, { filename: 'expression' });
    } catch (error) {
      throw this.#wrong(error);
    }
  }

  /**
   * Its value for a snapshot; `seq` is the event that the snapshot follows. Throws `InputError` IOT302 when it runs
   * too long or uses a name that does not exist; other errors of the expression as `ExpressionFailed`.
   */
  evaluate(state: World, seq: number): unknown {
    try {
      return this.#script.runInContext(createContext({ ...state, state, seq }), { timeout: TIMEOUT_MS });
    } catch (error) {
      const name = nameOf(error);
      const code = (error as { code?: unknown } | null)?.code;
      if (name === 'ReferenceError' || code === 'ERR_SCRIPT_EXECUTION_TIMEOUT') throw this.#wrong(error);
      throw new ExpressionFailed(this.#wrong(error));
    }
  }

  #wrong(error: unknown): InputError {
    const { message } = (error ?? {}) as { message?: unknown };
    return new InputError({ code: 'IOT302', file: this.#text, line: 0, column: 0, message: String(message ?? error) });
  }
}

// Errors made inside a context are instances of that context's classes, so `instanceof` does not know them.
function nameOf(error: unknown): string {
  const { name } = (error ?? {}) as { name?: unknown };
  return typeof name === 'string' ? name : '';
}

/**
 * The expression threw on this snapshot. That may mean "not yet": `containers.get(1).areas` throws as long as
 * there is no container 1.
 */
export class ExpressionFailed extends Error {
  readonly input: InputError;

  constructor(input: InputError) {
    super(input.message);
    this.name = 'ExpressionFailed';
    this.input = input;
  }
}
