import { InputError } from '../core/errors.js';
import type { Finding, Invariant } from '../core/invariant.js';
import type { World } from '../reducers/world.js';
import { type Checkpoint, Checkpoints } from './checkpoints.js';
import { Engine } from './engine.js';
import { type Expression, ExpressionFailed } from './expression.js';
import { fold } from './fold.js';
import { type JudgedEvent, judgedAt } from './judged.js';
import type { Reopenable } from './source.js';
import { startWorld } from './start.js';
import { eventsBetween } from './timeline.js';
import { noEvents } from './report.js';

/**
 * The first event after which something holds.
 *
 * For an expression over the state: one fold leaves at most 256 checkpoints, a binary search among them finds the
 * two neighbours between which the answer changes, and the recording is read again between those two with
 * closer checkpoints, until they are one event apart. That is about log2(n) evaluations and log256(n) readings. A binary
 * search needs that what is true stays true; where it does not, the answer is an event after which the expression
 * holds and before which it does not, though perhaps not the first such one.
 */
export interface BisectResult {
  readonly trace: string;
  readonly files: readonly string[];
  /** Number of events in the recording. */
  readonly events: number;
  /** The event, with its verdict; undefined when nothing was found. */
  readonly hit: JudgedEvent | undefined;
  /** It held before the first event already. */
  readonly fromTheStart: boolean;
  /** How often the expression was evaluated, and how often it threw, which counts as "does not hold". */
  readonly evaluations: number;
  readonly failures: number;
  /** How often the recording was read. */
  readonly passes: number;
  /** What the invariant said; for an expression undefined. */
  readonly finding: Finding | undefined;
  /** The events that the finding names as its causes, in order. */
  readonly causes: readonly JudgedEvent[];
}

/** Bisects for an expression. Throws `InputError`: IOT302 for the expression, others for the recording. */
export async function bisectExpression(source: Reopenable, expression: Expression): Promise<BisectResult> {
  const probe = new Probe(expression);
  const pass = new Passes(source);
  let range = await pass.run(undefined, Number.POSITIVE_INFINITY);
  const { events, files } = pass;
  const none = { trace: source.name, files, events, finding: undefined, causes: [], hit: undefined };
  const tell = (): Pick<BisectResult, 'evaluations' | 'failures' | 'passes'> => ({
    evaluations: probe.evaluations,
    failures: probe.failures,
    passes: pass.count,
  });
  if (!probe.holdsAtEnd(range.at(-1) as Checkpoint)) return { ...none, ...tell(), fromTheStart: false };
  if (probe.holds(range[0] as Checkpoint)) return { ...none, ...tell(), fromTheStart: true };
  for (;;) {
    const [below, above] = probe.narrow(range);
    if (range.length === 2 || above.position - below.position === 1) {
      const seq = above.position - 1;
      const hit = (await judgedAt(await source.open(), [seq])).get(seq);
      pass.count++;
      return { ...none, ...tell(), fromTheStart: false, hit };
    }
    range = await pass.run(below, above.position);
  }
}

/** The first event at which an invariant gives a finding: one fold, which the checker follows. */
export async function bisectInvariant(source: Reopenable, invariant: Invariant<World>): Promise<BisectResult> {
  const recording = await source.open();
  const engine = new Engine({ invariants: [invariant], world: startWorld(recording) });
  let finding: Finding | undefined;
  for await (const update of fold(recording, engine)) {
    finding = update.newFindings[0];
    if (finding !== undefined) break;
  }
  const wanted = finding === undefined ? [] : [finding.seq, ...finding.causes];
  const found = finding === undefined ? new Map() : await judgedAt(await source.open(), wanted);
  return {
    trace: source.name,
    files: recording.info.files,
    events: engine.eventCount,
    hit: finding === undefined ? undefined : found.get(finding.seq),
    fromTheStart: false,
    evaluations: 0,
    failures: 0,
    passes: finding === undefined ? 1 : 2,
    finding,
    causes: (finding?.causes ?? []).flatMap((seq) => found.get(seq) ?? []),
  };
}

/** Readings of the recording, each of which leaves checkpoints over a part of it. */
class Passes {
  readonly #source: Reopenable;
  count = 0;
  events = 0;
  files: readonly string[] = [];

  constructor(source: Reopenable) {
    this.#source = source;
  }

  /** Folds from `start` (the beginning where undefined) to event `end` and gives the checkpoints, `start` first and the state at the end last. */
  async run(from: Checkpoint | undefined, end: number): Promise<Checkpoint[]> {
    this.count++;
    const recording = await this.#source.open();
    const start = from ?? { position: 0, world: startWorld(recording) };
    const checkpoints = new Checkpoints(start);
    const engine = new Engine({ world: start.world });
    let at = start.position;
    for await (const batch of eventsBetween(recording, start.position, end)) {
      checkpoints.feed(engine, batch);
      at = (batch.at(-1)?.seq ?? at) + 1;
    }
    this.files = recording.info.files;
    if (this.count === 1) this.events = engine.eventCount;
    if (at === 0) throw noEvents(this.#source.name, recording.diagnostics);
    const kept = [...checkpoints.kept];
    if (kept.at(-1)?.position !== at) kept.push({ position: at, world: engine.world });
    return kept;
  }
}

/** Evaluates the expression and counts. */
class Probe {
  readonly #expression: Expression;
  readonly #known = new Map<number, boolean>();
  evaluations = 0;
  failures = 0;

  constructor(expression: Expression) {
    this.#expression = expression;
  }

  /** At the end of the recording every table is there, so an expression that throws there is wrong. */
  holdsAtEnd(checkpoint: Checkpoint): boolean {
    this.evaluations++;
    try {
      const holds = Boolean(this.#expression.evaluate(checkpoint.world, checkpoint.position - 1));
      this.#known.set(checkpoint.position, holds);
      return holds;
    } catch (error) {
      if (!(error instanceof ExpressionFailed)) throw error;
      const { diagnostic } = error.input;
      throw new InputError({ ...diagnostic, message: `after the last event: ${diagnostic.message}` });
    }
  }

  holds(checkpoint: Checkpoint): boolean {
    const known = this.#known.get(checkpoint.position);
    if (known !== undefined) return known;
    this.evaluations++;
    let holds = false;
    try {
      holds = Boolean(this.#expression.evaluate(checkpoint.world, checkpoint.position - 1));
    } catch (error) {
      if (!(error instanceof ExpressionFailed)) throw error;
      this.failures++;
    }
    this.#known.set(checkpoint.position, holds);
    return holds;
  }

  /** Two neighbours of `range`, the lower without and the upper with it. It must hold at the last, not at the first. */
  narrow(range: readonly Checkpoint[]): [Checkpoint, Checkpoint] {
    let low = 0;
    let high = range.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >>> 1;
      if (this.holds(range[middle] as Checkpoint)) high = middle;
      else low = middle;
    }
    return [range[low] as Checkpoint, range[high] as Checkpoint];
  }
}
