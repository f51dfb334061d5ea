import type { Invariant } from '../../core/invariant.js';
import { invariants as builtIn } from '../../reducers/invariants/index.js';
import type { World } from '../../reducers/world.js';
import { wrongArgument } from './io.js';

export interface InvariantArgs {
  /** Modules of the user; false for `--no-invariants`. */
  readonly invariants: readonly string[] | false;
  /** Names of those to run; all when empty. */
  readonly only: readonly string[];
}

/** The invariants that a command line asks for. Throws `InputError` for unknown names and broken modules. */
export async function chosenInvariants(args: InvariantArgs): Promise<readonly Invariant<World>[]> {
  if (args.invariants === false) return [];
  const all = [...builtIn];
  if (args.invariants.length > 0) {
    const { loadInvariants } = await import('../user-invariants.js');
    for (const path of args.invariants) all.push(...(await loadInvariants(path)));
  }
  if (args.only.length === 0) return all;
  return args.only.map((name) => invariantNamed(all, name));
}

export function invariantNamed(all: readonly Invariant<World>[], name: string): Invariant<World> {
  const found = all.find((each) => each.name === name);
  if (found !== undefined) return found;
  throw wrongArgument(`there is no invariant ${name}; there are ${all.map((each) => each.name).join(', ')}`);
}
