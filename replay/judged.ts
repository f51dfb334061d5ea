import type { Event, EventBatch } from '../core/event.js';
import type { Call, Verdict } from '../reducers/call.js';
import { explain, type Explanation, unknownReason } from '../reducers/compare.js';
import type { Recording } from '../traces/recording.js';
import type { World } from '../reducers/world.js';
import { Engine } from './engine.js';
import type { Historian } from './history.js';
import { startWorld } from './start.js';

/** What the model said of one call of a modelled interface. */
export interface Judged {
  readonly verdict: Verdict;
  /** The uAPI's name of the command. */
  readonly name: string;
  /** Kind of file that took it, as the tables of the uAPI know it; tells commands of one number apart. */
  readonly kind: string;
  /** The rule that decided; '' where nothing could be predicted. */
  readonly rule: string;
  /** The state that the rule read, in words; may be ''. */
  readonly state: string;
  /** Why it is `unknown`, else ''. */
  readonly unknownReason: string;
  /** Both sides; for a divergence only. */
  readonly explanation: Explanation | undefined;
}

/** An event and, where it is a call of a modelled interface, what the model said of it. */
export interface JudgedEvent {
  readonly event: Event;
  readonly judged: Judged | undefined;
  /** What a read or write that is not counted is about, where the model knows. */
  readonly meaning?: string;
}

/** An engine that remembers what it said of each call of the last batch. */
export class JudgingEngine {
  readonly #bySeq = new Map<number, Judged>();
  readonly #meanings = new Map<number, string>();
  readonly engine: Engine;

  constructor(world: World, historian?: Historian) {
    const onCall = (verdict: Verdict, call: Call): void => {
      this.#bySeq.set(call.event.seq, judgedOf(verdict, call));
      historian?.onCall(call);
    };
    const onIo = (call: Call): void => {
      const meaning = call.families[call.file.kind]?.meaning?.(call) ?? '';
      if (meaning !== '') this.#meanings.set(call.event.seq, meaning);
    };
    this.engine = new Engine({ onCall, onIo, world, invariants: historian?.listeners ?? [] });
  }

  feed(batch: EventBatch): JudgedEvent[] {
    this.#bySeq.clear();
    this.#meanings.clear();
    this.engine.feed(batch);
    return batch.map((event) => {
      const meaning = this.#meanings.get(event.seq);
      return { event, judged: this.#bySeq.get(event.seq), ...(meaning === undefined ? {} : { meaning }) };
    });
  }
}

function judgedOf(verdict: Verdict, call: Call): Judged {
  return {
    verdict,
    name: call.name,
    kind: call.kind,
    rule: call.rule,
    state: call.told.text,
    unknownReason: verdict === 'unknown' ? unknownReason(call) : '',
    explanation: verdict === 'diverge' ? explain(call) : undefined,
  };
}

/** A recording's events with their verdicts, in batches. The historian, if any, listens. */
export async function* judge(recording: Recording, historian?: Historian): AsyncGenerator<JudgedEvent[], void> {
  const judging = new JudgingEngine(startWorld(recording), historian);
  for await (const batch of recording.batches()) yield judging.feed(batch);
}

/**
 * Some events of a recording by `seq`, with their verdicts. Reads up to the last one that is asked for, by the caller or
 * by the historian.
 */
export async function judgedAt(
  recording: Recording,
  seqs: Iterable<number>,
  historian?: Historian,
): Promise<Map<number, JudgedEvent>> {
  const wanted = new Set(seqs);
  const found = new Map<number, JudgedEvent>();
  const last = Math.max(historian?.lastSeq ?? -1, ...wanted);
  if (last < 0) return found;
  for await (const batch of judge(recording, historian)) {
    for (const each of batch) if (wanted.has(each.event.seq)) found.set(each.event.seq, each);
    if ((batch.at(-1)?.event.seq ?? 0) >= last) break;
  }
  return found;
}
