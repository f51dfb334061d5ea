import type { Event, EventBatch } from '../core/event.js';
import { InputError } from '../core/errors.js';
import type { Finding, Invariant } from '../core/invariant.js';
import type { World } from '../reducers/world.js';
import type { Recording } from '../traces/recording.js';
import { noEvents } from './report.js';
import { type Checkpoint, Checkpoints } from './checkpoints.js';
import { Engine } from './engine.js';
import { type JudgedEvent, JudgingEngine } from './judged.js';
import type { Reopenable } from './source.js';
import { startWorld } from './start.js';

/** One event with the states around it. */
export interface Moment extends JudgedEvent {
  readonly before: World;
  readonly after: World;
}

/** A run of events between two checkpoints, kept while somebody steps about in it. */
interface Window {
  readonly start: Checkpoint;
  /** `seq` of the first event behind it. */
  readonly end: number;
  readonly events: EventBatch;
}

/**
 * Random access to a recording's events and states: one fold leaves checkpoints and the places of all
 * divergences and findings; a jump then reads the recording again up to the window in question and folds from the
 * checkpoint before it. Steps inside the window read nothing.
 */
export class Timeline {
  readonly #source: Reopenable;
  readonly #checkpoints: Checkpoints;
  #window: Window | undefined;
  #last: Moment | undefined;
  /** Number of events, and `seq` of the last one. */
  readonly events: number;
  readonly lastSeq: number;
  readonly files: readonly string[];
  /** `seq` of each call that diverges, in order. */
  readonly divergences: readonly number[];
  readonly findings: readonly Finding[];

  private constructor(
    source: Reopenable,
    recording: Recording,
    checkpoints: Checkpoints,
    engine: Engine,
    lastSeq: number,
  ) {
    this.#source = source;
    this.#checkpoints = checkpoints;
    this.files = recording.info.files;
    this.events = engine.eventCount;
    this.lastSeq = lastSeq;
    this.divergences = engine.divergences.map((d) => d.seq);
    this.findings = engine.findings;
  }

  /** Folds the whole recording once. Throws `InputError` when it gives no event. */
  static async build(source: Reopenable, invariants: readonly Invariant<World>[]): Promise<Timeline> {
    const recording = await source.open();
    const world = startWorld(recording);
    const engine = new Engine({ invariants, world });
    const checkpoints = new Checkpoints({ position: 0, world });
    let lastSeq = -1;
    for await (const batch of recording.batches()) {
      checkpoints.feed(engine, batch);
      lastSeq = batch.at(-1)?.seq ?? lastSeq;
    }
    if (lastSeq < 0) throw noEvents(source.name, recording.diagnostics);
    return new Timeline(source, recording, checkpoints, engine, lastSeq);
  }

  /** Event `seq` with its verdict and the states around it. Throws `InputError` IOT304 when there is none. */
  async at(seq: number): Promise<Moment> {
    if (this.#last?.event.seq === seq) return this.#last;
    const { start, events } = await this.#windowOf(seq);
    const index = events.findIndex((event) => event.seq === seq);
    if (index < 0) throw noEvent(this.#source.name, seq, this.lastSeq);
    const before = this.#last?.event.seq === seq - 1 ? this.#last.after : stateAt(start, events.slice(0, index));
    const judging = new JudgingEngine(before);
    const [judged] = judging.feed([events[index] as Event]);
    this.#last = { ...(judged as JudgedEvent), before, after: judging.engine.world };
    return this.#last;
  }

  /** `seq` of the first event from `from` on that `wanted` accepts. */
  async find(from: number, wanted: (each: JudgedEvent) => boolean): Promise<number | undefined> {
    for (let seq = from; seq <= this.lastSeq; ) {
      const { start, end, events } = await this.#windowOf(seq);
      const judging = new JudgingEngine(start.world);
      const hit = judging.feed(events).find((each) => each.event.seq >= seq && wanted(each));
      if (hit !== undefined) return hit.event.seq;
      seq = end;
    }
    return undefined;
  }

  async #windowOf(seq: number): Promise<Window> {
    const start = this.#checkpoints.before(seq);
    if (this.#window?.start === start) return this.#window;
    const index = this.#checkpoints.kept.indexOf(start);
    const end = this.#checkpoints.kept[index + 1]?.position ?? this.lastSeq + 1;
    const events: Event[] = [];
    for await (const batch of eventsBetween(await this.#source.open(), start.position, end)) events.push(...batch);
    this.#window = { start, end, events };
    return this.#window;
  }
}

function stateAt(start: Checkpoint, events: EventBatch): World {
  const engine = new Engine({ world: start.world });
  engine.feed(events);
  return engine.world;
}

/**
 * The state after event `seq`, or after the last one where `seq` is undefined; reads no further than needed. Throws
 * `InputError` IOT304 when the recording ends before.
 */
export async function stateAfter(
  source: Reopenable,
  seq: number | undefined,
): Promise<{ readonly seq: number; readonly world: World }> {
  const recording = await source.open();
  const engine = new Engine({ world: startWorld(recording) });
  const end = seq === undefined ? Number.POSITIVE_INFINITY : seq + 1;
  let lastSeq = -1;
  for await (const batch of eventsBetween(recording, 0, end)) {
    engine.feed(batch);
    lastSeq = batch.at(-1)?.seq ?? lastSeq;
  }
  if (lastSeq < 0) throw noEvents(source.name, recording.diagnostics);
  if (seq !== undefined && lastSeq < seq) throw noEvent(source.name, seq, lastSeq);
  return { seq: lastSeq, world: engine.world };
}

/** The events `from..end-1` of a recording, by `seq`; reading stops behind them. */
export async function* eventsBetween(
  recording: Recording,
  from: number,
  end: number,
): AsyncGenerator<EventBatch, void> {
  if (end <= from) return;
  for await (const batch of recording.batches(from)) {
    const first = batch[0]?.seq ?? 0;
    const last = batch.at(-1)?.seq ?? 0;
    if (first >= end) return;
    if (first >= from && last < end) yield batch;
    else if (last >= from) yield batch.filter(({ seq }) => seq >= from && seq < end);
    if (last >= end - 1) return;
  }
}

function noEvent(trace: string, seq: number, lastSeq: number): InputError {
  const message = `event ${seq}; the last one is ${lastSeq}`;
  return new InputError({ code: 'IOT304', file: trace, line: 0, column: 0, message });
}
