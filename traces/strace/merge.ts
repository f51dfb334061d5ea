import { BATCH_EVENTS, type Event, type EventBatch } from '../../core/event.js';
import type { StraceParser } from './parser.js';

/** A file while it is read: its parser, and its events one batch after the other. */
export interface OpenFile {
  readonly parser: StraceParser;
  /** The next events, or undefined at the end. Never empty. */
  next(): Promise<EventBatch | undefined>;
  /** Ends reading, wherever it is. */
  close(): Promise<void>;
}

/** The fields of an event that its place among the events of other files changes. */
interface Placed {
  seq: number;
  tsNs: number;
  enteredAt?: number;
}

/**
 * Brings the events of several files into one order and numbers them anew. Events are changed in place, before
 * anybody has seen them. One batch per file is in memory.
 */
export async function* mergeFiles(files: readonly OpenFile[], state: { startNs: bigint }): AsyncIterable<EventBatch> {
  try {
    yield* merged(files, state);
  } finally {
    // Somebody may stop in the middle, and a file that nobody closes stays open until it is garbage.
    await Promise.all(files.map((file) => file.close()));
  }
}

async function* merged(files: readonly OpenFile[], state: { startNs: bigint }): AsyncIterable<EventBatch> {
  const only = files[0];
  if (files.length === 1 && only !== undefined) return yield* single(only, state);
  const sources = await Promise.all(files.map(async (file) => new Source(file, await file.next())));
  const absolute = sources.filter((source) => !source.done);
  const kinds = new Set(absolute.map((source) => source.file.parser.clock.kind));
  const timed = kinds.size === 1 && (kinds.has('epoch') || kinds.has('day'));
  if (timed) state.startNs = setStarts(absolute, kinds.has('epoch'));
  const queue = new SourceQueue(absolute, timed);
  let seq = 0;
  let batch: Event[] = [];
  for (let source = queue.first; source !== undefined; source = queue.first) {
    const event = source.event;
    place(event, seq++, source.offsetNs);
    batch.push(event);
    if (batch.length === BATCH_EVENTS) {
      yield batch;
      batch = [];
    }
    const loading = source.advance();
    if (loading !== undefined) await loading;
    queue.firstChanged();
  }
  if (batch.length > 0) yield batch;
}

/** How many events a call was under way for is kept; calls of one thread's file hardly ever overlap others. */
function place(event: Placed, seq: number, offsetNs: number): void {
  if (event.enteredAt !== undefined) event.enteredAt = Math.max(0, seq - (event.seq - event.enteredAt));
  event.seq = seq;
  event.tsNs += offsetNs;
}

async function* single(file: OpenFile, state: { startNs: bigint }): AsyncIterable<EventBatch> {
  for (let batch = await file.next(); batch !== undefined; batch = await file.next()) {
    if (file.parser.clock.kind === 'epoch') state.startNs = file.parser.clock.startNs;
    yield batch;
  }
}

/** Gives each source its distance from the earliest start. */
function setStarts(sources: readonly Source[], epoch: boolean): bigint {
  let start: bigint | undefined;
  for (const { file } of sources) {
    const { startNs } = file.parser.clock;
    if (start === undefined || startNs < start) start = startNs;
  }
  for (const source of sources) {
    const offset = Number(source.file.parser.clock.startNs - (start ?? 0n));
    source.offsetNs = Number.isSafeInteger(offset) ? offset : 0;
  }
  return epoch ? (start ?? 0n) : 0n;
}

class Source {
  readonly file: OpenFile;
  /** Distance of this file's first time from the recording's. */
  offsetNs = 0;
  #batch: EventBatch | undefined;
  #at = 0;

  constructor(file: OpenFile, first: EventBatch | undefined) {
    this.file = file;
    this.#batch = first;
  }

  get done(): boolean {
    return this.#batch === undefined;
  }

  get event(): Event {
    return this.#batch?.[this.#at] as Event;
  }

  get timeNs(): number {
    return this.event.tsNs + this.offsetNs;
  }

  /** Goes to the next event; waits for input only where the batch is used up. */
  advance(): Promise<void> | undefined {
    if (++this.#at < (this.#batch?.length ?? 0)) return undefined;
    return this.#load();
  }

  async #load(): Promise<void> {
    this.#batch = await this.file.next();
    this.#at = 0;
  }
}

/** A binary heap of sources by the time of their next event, or simply their list. */
class SourceQueue {
  readonly #heap: Source[];
  readonly #rank: Map<Source, number>;
  readonly #timed: boolean;

  constructor(sources: readonly Source[], timed: boolean) {
    this.#timed = timed;
    this.#rank = new Map(sources.map((source, index) => [source, index]));
    this.#heap = [...sources];
    for (let i = this.#heap.length >> 1; i >= 0; i--) this.#sink(i);
  }

  get first(): Source | undefined {
    return this.#heap[0];
  }

  /** The first source went on. */
  firstChanged(): void {
    const first = this.#heap[0] as Source;
    if (first.done) {
      const last = this.#heap.pop() as Source;
      if (this.#heap.length === 0) return;
      this.#heap[0] = last;
    }
    this.#sink(0);
  }

  #sink(from: number): void {
    const heap = this.#heap;
    for (let i = from; ; ) {
      let least = i;
      for (let child = 2 * i + 1; child <= 2 * i + 2; child++) {
        if (child < heap.length && this.#before(heap[child] as Source, heap[least] as Source)) least = child;
      }
      if (least === i) return;
      [heap[i], heap[least]] = [heap[least] as Source, heap[i] as Source];
      i = least;
    }
  }

  /** Equal times keep the order of the files. */
  #before(a: Source, b: Source): boolean {
    const apart = this.#timed ? a.timeNs - b.timeNs : 0;
    return apart !== 0 ? apart < 0 : (this.#rank.get(a) as number) < (this.#rank.get(b) as number);
  }
}
