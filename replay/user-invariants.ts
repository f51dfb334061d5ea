import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { InputError } from '../core/errors.js';
import { type Event, EVENT_KINDS } from '../core/event.js';
import type { Finding, Invariant, Severity } from '../core/invariant.js';
import type { World } from '../reducers/world.js';

/**
 * Invariants that a user wrote: a JavaScript module (TypeScript where this Node strips types) that exports
 * objects of the {@link Invariant} contract, as `invariants` or as its default (one or an array). What comes from such
 * a module is input: it is checked, and what it throws ends the run with a message instead of a stack.
 */

const KINDS: ReadonlySet<string> = new Set(EVENT_KINDS);
const SEVERITIES: ReadonlySet<string> = new Set<Severity>(['violation', 'hazard', 'leak']);

/** Loads a module. Throws `InputError` IOT303 when it gives no usable invariant. */
export async function loadInvariants(path: string): Promise<Invariant<World>[]> {
  const url = pathToFileURL(resolve(path)).href;
  let module: Record<string, unknown>;
  try {
    module = (await import(url)) as Record<string, unknown>;
  } catch (error) {
    throw wrong(path, loadMessage(error));
  }
  const exported = module['invariants'] ?? module['default'];
  const list = Array.isArray(exported) ? exported : exported === undefined ? [] : [exported];
  if (list.length === 0) throw wrong(path, 'it exports neither `invariants` nor a default');
  return list.map((each, index) => guarded(path, checked(path, each, index)));
}

function loadMessage(error: unknown): string {
  const { code, message } = error as { code?: string; message?: string };
  if (code === 'ERR_UNKNOWN_FILE_EXTENSION')
    return `Node ${process.versions.node} does not load TypeScript; Node 22.18 and later do, or compile it first`;
  return message ?? String(error);
}

function checked(path: string, value: unknown, index: number): Invariant<World> {
  const say = (what: string): InputError => wrong(path, `invariant ${index + 1}: ${what}`);
  if (typeof value !== 'object' || value === null) throw say('it is no object');
  const { name, why, kinds, check, concerns } = value as Record<string, unknown>;
  if (typeof name !== 'string' || name === '') throw say('`name` must be a text');
  if (typeof why !== 'string') throw say(`\`why\` of ${name} must be a text`);
  if (!Array.isArray(kinds) || kinds.length === 0) throw say(`\`kinds\` of ${name} must list kinds of event`);
  const stranger = kinds.find((kind) => !KINDS.has(kind));
  if (stranger !== undefined) throw say(`${name} watches ${String(stranger)}, which is no kind of event`);
  if (typeof check !== 'function') throw say(`\`check\` of ${name} must be a function`);
  if (concerns !== undefined && typeof concerns !== 'function') throw say(`\`concerns\` of ${name} must be a function`);
  return value as Invariant<World>;
}

/** The same invariant, with what it throws and what it gives under control. */
function guarded(path: string, made: Invariant<World>): Invariant<World> {
  const attempt = <T>(event: Event, run: () => T): T => {
    try {
      return run();
    } catch (error) {
      throw wrong(path, `${made.name} threw at event ${event.seq}: ${(error as Error)?.message ?? String(error)}`);
    }
  };
  const guard: Invariant<World> = {
    name: made.name,
    why: made.why,
    kinds: made.kinds,
    check: (before, event, after) => {
      const found: unknown = attempt(event, () => made.check(before, event, after));
      if (!Array.isArray(found)) throw wrong(path, `${made.name} must give an array of findings`);
      return found.map((each) => finding(path, made.name, event, each));
    },
  };
  if (made.concerns === undefined) return guard;
  return { ...guard, concerns: (before, event) => attempt(event, () => made.concerns?.(before, event) === true) };
}

/** A finding with the fields that follow from its event filled in. */
function finding(path: string, name: string, event: Event, value: unknown): Finding {
  const given = (value ?? {}) as Partial<Finding>;
  if (typeof given.message !== 'string') throw wrong(path, `${name}: a finding needs a \`message\``);
  const severity = given.severity ?? 'violation';
  if (!SEVERITIES.has(severity)) throw wrong(path, `${name}: ${severity} is no severity`);
  const causes = given.causes ?? [];
  if (!Array.isArray(causes) || !causes.every((seq) => Number.isSafeInteger(seq) && seq >= 0))
    throw wrong(path, `${name}: \`causes\` must be numbers of events`);
  const { seq, file, line } = event;
  return { invariant: name, severity, seq, file, line, message: given.message, causes, advice: given.advice ?? '' };
}

function wrong(path: string, message: string): InputError {
  return new InputError({ code: 'IOT303', file: path, line: 0, column: 0, message });
}
