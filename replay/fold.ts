import type { Finding } from '../core/invariant.js';
import type { Recording } from '../traces/recording.js';
import type { Divergence, Engine } from './engine.js';
import type { Counts } from './tally.js';

/** What is known after one more batch: totals so far, and what this batch added. */
export interface Update {
  readonly events: number;
  readonly calls: Readonly<Counts>;
  readonly divergenceCount: number;
  readonly findingCount: number;
  readonly newDivergences: readonly Divergence[];
  readonly newFindings: readonly Finding[];
}

/** Feeds a recording to an engine, one batch after the other, and tells after each what is known. */
export async function* fold(recording: Recording, engine: Engine): AsyncGenerator<Update, void> {
  for await (const batch of recording.batches()) {
    const divergences = engine.divergences.length;
    const findings = engine.findings.length;
    engine.feed(batch);
    yield {
      events: engine.eventCount,
      calls: { ...engine.tally.all },
      divergenceCount: engine.divergenceCount,
      findingCount: engine.findingCount,
      newDivergences: engine.divergences.slice(divergences),
      newFindings: engine.findings.slice(findings),
    };
  }
}
