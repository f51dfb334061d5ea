import { hashCanonical } from '../core/canonical.js';
import { type Diagnostic, InputError } from '../core/errors.js';
import type { RecordingInfo } from '../core/event.js';
import type { Finding, Invariant } from '../core/invariant.js';
import type { Families } from '../reducers/family.js';
import type { World } from '../reducers/world.js';
import type { Recording } from '../traces/recording.js';
import { diagnosticOf } from './containment.js';
import { type Divergence, Engine } from './engine.js';
import type { Failure, FailureGroup } from './failures.js';
import { fold, type Update } from './fold.js';
import { startWorld } from './start.js';
import { tolerant } from './tolerant.js';
import type { Counts } from './tally.js';
import type { UnknownGroup } from './unknowns.js';

/** All that a replay of one recording found; plain data, ready for a reporter. */
export interface Report {
  /** The trace as it was named. */
  readonly trace: string;
  readonly info: RecordingInfo;
  readonly events: number;
  readonly skippedLines: number;
  /** Changes of the mirrors of drivers, which only invariants judge. */
  readonly mirrorChanges: number;
  readonly calls: Readonly<Counts>;
  /** By command, sorted by name. */
  readonly byCall: Readonly<Record<string, Readonly<Counts>>>;
  /** What could not be judged, and what would settle it; errors first, then the most frequent. */
  readonly unknowns: readonly UnknownGroup[];
  /** What failed and had to, by command and rule; most frequent first. */
  readonly failureGroups: readonly FailureGroup[];
  /** The same one by one, the first ones; {@link failureCount} counts all. */
  readonly failures: readonly Failure[];
  readonly failureCount: number;
  /** Calls that succeeded and did something else than their caller may think, by command and rule. */
  readonly idleGroups: readonly FailureGroup[];
  /** The first ones; {@link divergenceCount} and {@link findingCount} count all. */
  readonly divergences: readonly Divergence[];
  readonly divergenceCount: number;
  readonly findings: readonly Finding[];
  readonly findingCount: number;
  /** What was wrong with the input, in its order; then the bugs of iotape that the replay met. */
  readonly diagnostics: readonly Diagnostic[];
  /** How many bugs of iotape the replay met: what it says after the first is not the whole truth. */
  readonly bugCount: number;
  /** sha256 of the canonical encoding of the last snapshot. */
  readonly stateHash: string;
  /** The replay was stopped before the recording ended. */
  readonly interrupted: boolean;
}

export interface ReplayOptions {
  /** Name of the trace in the report. */
  readonly trace?: string;
  readonly invariants?: readonly Invariant<World>[];
  /** Instead of those that have a model; see EngineOptions. */
  readonly families?: Families;
  /** Stops the replay; the report then holds what is known so far. */
  readonly signal?: AbortSignal;
  /** Called after each batch. */
  readonly onUpdate?: (update: Update) => void;
}

/**
 * Replays a recording from its first event to its last and gives all that was found. One that breaks off is reported
 * on as far as it goes. Throws `InputError` when it gives not a single event.
 */
export async function replay(recording: Recording, options: ReplayOptions = {}): Promise<Report> {
  const engine = new Engine({
    invariants: options.invariants ?? [],
    world: startWorld(recording),
    ...(options.families === undefined ? {} : { families: options.families }),
  });
  const whole = tolerant(recording, options.signal);
  for await (const update of fold(whole, engine)) options.onUpdate?.(update);
  const interrupted = options.signal?.aborted === true;
  const trace = options.trace ?? recording.info.files[0] ?? '';
  if (engine.eventCount === 0 && !interrupted) throw noEvents(trace, whole.diagnostics);
  return {
    trace,
    info: whole.info,
    events: engine.eventCount,
    skippedLines: whole.skippedLines,
    mirrorChanges: engine.mirrorChangeCount,
    calls: { ...engine.tally.all },
    byCall: engine.tally.byCall,
    unknowns: engine.unknowns.groups,
    failureGroups: engine.failures.groups,
    failures: engine.failures.list,
    failureCount: engine.failures.count,
    idleGroups: engine.idle.groups,
    divergences: engine.divergences,
    divergenceCount: engine.divergenceCount,
    findings: engine.findings,
    findingCount: engine.findingCount,
    diagnostics: [...whole.diagnostics, ...engine.bugs.map((bug) => diagnosticOf(bug, whole.info.files))],
    bugCount: engine.bugCount,
    stateHash: hashCanonical(engine.world),
    interrupted,
  };
}

/** For a recording that opens and then gives nothing. */
export function noEvents(trace: string, diagnostics: readonly Diagnostic[]): InputError {
  const first = diagnostics[0];
  const message = first === undefined ? 'there are no events in it' : `line ${first.line}: ${first.message}`;
  return new InputError({ code: 'IOT203', file: trace, line: 0, column: 0, message });
}
