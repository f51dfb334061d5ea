import type { Event, EventBatch } from '../core/event.js';
import type { World } from '../reducers/world.js';
import type { Engine } from './engine.js';

/** A snapshot, and the `seq` of the event that comes next. */
export interface Checkpoint {
  readonly position: number;
  readonly world: World;
}

/** Snapshots share structure, but 256 versions of a large table are enough to keep. */
const KEPT_MAX = 256;

/**
 * Snapshots at even distances over a fold of unknown length, never more than 256: when there are too many, every
 * second one is dropped and the distance doubles. What lies between two neighbours is at most 1/128 of what was folded.
 */
export class Checkpoints {
  #kept: Checkpoint[];
  #stride = 1;
  readonly #base: number;

  /** `first` is where the fold begins. */
  constructor(first: Checkpoint) {
    this.#kept = [first];
    this.#base = first.position;
  }

  /** Feeds a batch to the engine, cut where a checkpoint is due. `seq` may have gaps (a damaged tape), never steps back. */
  feed(engine: Engine, batch: EventBatch): void {
    let from = 0;
    while (from < batch.length) {
      const seq = seqAt(batch, from);
      const due = this.#base + (Math.floor((seq - this.#base) / this.#stride) + 1) * this.#stride;
      let end = Math.min(batch.length, from + due - seq);
      while (seqAt(batch, end - 1) >= due) end--;
      engine.feed(from === 0 && end === batch.length ? batch : batch.slice(from, end));
      const position = seqAt(batch, end - 1) + 1;
      if (position === due) this.#keep({ position, world: engine.world });
      from = end;
    }
  }

  #keep(checkpoint: Checkpoint): void {
    this.#kept.push(checkpoint);
    if (this.#kept.length <= KEPT_MAX) return;
    this.#stride *= 2;
    this.#kept = this.#kept.filter(({ position }) => (position - this.#base) % this.#stride === 0);
  }

  /** All that are kept, in order; the first is where the fold began. */
  get kept(): readonly Checkpoint[] {
    return this.#kept;
  }

  /** The last one at or before `position`. */
  before(position: number): Checkpoint {
    let low = 0;
    let high = this.#kept.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >>> 1;
      if ((this.#kept[middle] as Checkpoint).position <= position) low = middle;
      else high = middle - 1;
    }
    return this.#kept[low] as Checkpoint;
  }
}

function seqAt(batch: EventBatch, index: number): number {
  return (batch[index] as Event).seq;
}
