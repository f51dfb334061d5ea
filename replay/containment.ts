import { type Diagnostic, InputError } from '../core/errors.js';
import type { Event, IoctlEvent } from '../core/event.js';
import type { Call } from '../reducers/call.js';
import type { Told } from '../reducers/explain.js';
import type { Families, FileFamily, Revealed } from '../reducers/family.js';
import { markFdsIncomplete } from '../reducers/files/processes.js';
import type { FileKind, OpenFile, Process } from '../reducers/files/state.js';
import type { Tx } from '../reducers/tx.js';
import type { World } from '../reducers/world.js';

/**
 * What becomes of a bug of ours: a reducer or a checker that throws. It may have stopped in the middle of a change, so what
 * its part of the model holds is worth nothing from then on: that part is not asked any more, its calls are `unknown`, and the
 * rest of the replay goes on. What was found before stands. The parts that have stopped are in the state, so that every way
 * to replay comes to the same end.
 *
 * Only the engine does this: reducers that are tested by themselves throw.
 */
export interface Bug {
  readonly part: string;
  readonly seq: number;
  readonly file: number;
  readonly line: number;
  readonly error: unknown;
}

/** Families that read what each other keep. */
const DEVICES = 'VFIO and iommufd';
const MIRRORS = 'HMM';
/** Files, processes and memory, on which all others stand. */
const EVERYTHING = 'everything';

/** Bugs beyond this number are counted and not kept. */
const KEPT_MAX = 100;

const NOTHING: Told = Object.freeze({ text: '' });

function partOf(kind: FileKind): string {
  return kind === 'dmirror' ? MIRRORS : DEVICES;
}

/** Why a call is not judged where its part has stopped; undefined where it has not. */
function stopped(world: World, part: string): string | undefined {
  if (world.stoppedParts.size === 0) return undefined;
  const since = world.stoppedParts.get(EVERYTHING) ?? world.stoppedParts.get(part);
  return since === undefined ? undefined : `a bug in iotape at event ${since} ended the model of ${part} (IOT401)`;
}

export class Containment {
  readonly bugs: Bug[] = [];
  bugCount = 0;

  /** Families whose throws go no further. */
  around(families: Families): Families {
    const kinds = Object.keys(families) as FileKind[];
    return Object.fromEntries(kinds.map((kind) => [kind, this.#around(families[kind] as FileFamily, partOf(kind))]));
  }

  /** A throw in the middle of a change, which ends a part of the model; all of it where no family is to blame. */
  caught(tx: Tx, event: Event, error: unknown, part: string = EVERYTHING): void {
    this.noted(event, error, part);
    if (tx.world.stoppedParts.has(part)) return;
    tx.world.stoppedParts.set(part, event.seq);
    // Calls that are not followed may make fds.
    for (const id of [...tx.world.fdTables.keys()]) markFdsIncomplete(tx, id);
  }

  /** A throw of something that only looks on. What a user's own invariants throw is for the user. */
  noted(event: Event, error: unknown, part: string): void {
    if (error instanceof InputError) throw error;
    this.bugCount++;
    const { seq, file, line } = event;
    if (this.bugs.length < KEPT_MAX) this.bugs.push(Object.freeze({ part, seq, file, line, error }));
  }

  #around(family: FileFamily, part: string): FileFamily {
    const contained: { -readonly [F in keyof FileFamily]: FileFamily[F] } = { ...family };
    if (family.open !== undefined)
      contained.open = (tx: Tx, file: OpenFile, event: Event, process: Process): OpenFile => {
        if (stopped(tx.world, part) !== undefined) return file;
        try {
          return family.open?.(tx, file, event, process) ?? file;
        } catch (error) {
          this.caught(tx, event, error, part);
          return file;
        }
      };
    if (family.release !== undefined)
      contained.release = (tx: Tx, file: OpenFile, event: Event): void => {
        if (stopped(tx.world, part) !== undefined) return;
        try {
          family.release?.(tx, file, event);
        } catch (error) {
          this.caught(tx, event, error, part);
        }
      };
    if (family.reveals !== undefined)
      contained.reveals = (tx: Tx, file: OpenFile, event: IoctlEvent): Revealed | undefined => {
        if (stopped(tx.world, part) !== undefined) return undefined;
        try {
          return family.reveals?.(tx, file, event);
        } catch (error) {
          this.caught(tx, event, error, part);
          return undefined;
        }
      };
    if (family.ioctl !== undefined) contained.ioctl = this.#aroundCall((call) => family.ioctl?.(call), part);
    if (family.io !== undefined) contained.io = this.#aroundCall((call) => family.io?.(call), part);
    if (family.claims !== undefined) contained.claims = this.#aroundLook((event) => family.claims?.(event) ?? false);
    if (family.meaning !== undefined) contained.meaning = this.#aroundWords((call) => family.meaning?.(call) ?? '', '');
    if (family.explain !== undefined)
      contained.explain = this.#aroundWords((call) => family.explain?.(call) ?? NOTHING, NOTHING);
    return contained;
  }

  #aroundCall(run: (call: Call) => void, part: string): (call: Call) => void {
    return (call) => {
      const before = stopped(call.tx.world, part);
      if (before !== undefined) {
        call.unknown(before);
        return;
      }
      try {
        run(call);
      } catch (error) {
        this.caught(call.tx, call.event, error, part);
        // Whatever was predicted so far is worth nothing.
        call.begin(call.tx, call.event, call.process, call.file, call.name, 0);
        call.unknown(stopped(call.tx.world, part) ?? '');
      }
    };
  }

  #aroundLook(look: (event: IoctlEvent) => boolean): (event: IoctlEvent) => boolean {
    return (event) => {
      try {
        return look(event);
      } catch (error) {
        this.noted(event, error, 'what a file is');
        return false;
      }
    };
  }

  /** Words about a call change nothing: without them the verdict still stands. */
  #aroundWords<T>(say: (call: Call) => T, nothing: T): (call: Call) => T {
    return (call) => {
      if (call.tx.world.stoppedParts.size > 0) return nothing;
      try {
        return say(call);
      } catch (error) {
        this.noted(call.event, error, 'an explanation');
        return nothing;
      }
    };
  }
}

/** A bug as something that a reader of the report sees, with the place in our code. */
export function diagnosticOf(bug: Bug, files: readonly string[]): Diagnostic {
  const { error, part, seq, line } = bug;
  const text = error instanceof Error ? error.message : String(error);
  const frame = error instanceof Error ? /at (?:.*[(/])?([\w.-]+\.[jt]s:\d+)/.exec(error.stack ?? '')?.[1] : undefined;
  const at = frame === undefined ? '' : ` at ${frame}`;
  const message = `${part}, event ${seq}: ${text}${at}`;
  return { code: 'IOT401', file: files[bug.file] ?? '', line, column: 0, message };
}
