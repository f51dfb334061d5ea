import { Bytes } from '../../core/bytes.js';
import { type Event, type EventBatch, EVENT_KINDS, type MemNote } from '../../core/event.js';
import { fromHalves, type U64 } from '../../core/u64.js';
import type { Draft, FastKind } from '../strace/fast-lines.js';
import { NO_NOTES } from '../strace/recorder.js';
import { type Layout, LAYOUTS } from '../tape/schema.js';
import {
  type EncodedBatch,
  ENTERED_BEFORE,
  HOT,
  INJECTED,
  KIND_MASK,
  NO_RET,
  VALUE,
  type ValueType,
  WIDE_RET,
} from './batch.js';

/** So many events are made and then replayed while they are in the cache, and young to the garbage collector. */
const PART_EVENTS = 1024;

const NOTHING: EncodedBatch = {
  count: 0,
  ints: new Int32Array(0),
  wides: new Float64Array(0),
  blob: new Uint8Array(0),
  shared: [],
  own: [],
};

/**
 * Makes the events of one stream's batches again, in the order in which {@link BatchEncoder} wrote them.
 *
 * This is what reading ahead costs the thread that replays. An event of a frequent kind is made as the fast reader
 * of strace makes it, so that reducers see one shape, whoever reads.
 */
export class BatchDecoder {
  readonly #shared: string[] = [];
  #own: readonly string[] = [];
  #ints: Int32Array = NOTHING.ints;
  #intAt = 0;
  #wides: Float64Array = NOTHING.wides;
  #wideAt = 0;
  #blob: Uint8Array = NOTHING.blob;
  #blobAt = 0;
  #seq = 0;

  /**
   * Takes the buffers over: the events' memory stays in them. The events come in order and in parts, which must be
   * taken to the end before the next batch.
   */
  *decode(batch: EncodedBatch): Generator<EventBatch, void> {
    for (const text of batch.shared) this.#shared.push(text);
    this.#open(batch);
    for (let left = batch.count; left > 0; left -= PART_EVENTS) yield this.#part(Math.min(left, PART_EVENTS));
    this.#open(NOTHING);
  }

  #part(count: number): EventBatch {
    const events: Event[] = [];
    for (let i = 0; i < count; i++) {
      const event = this.#event();
      events.push(event);
      this.#seq = event.seq + 1;
    }
    return events;
  }

  #open(batch: EncodedBatch): void {
    this.#ints = batch.ints;
    this.#wides = batch.wides;
    this.#blob = batch.blob;
    this.#own = batch.own;
    this.#intAt = this.#wideAt = this.#blobAt = 0;
  }

  #event(): Event {
    const word = this.#int();
    if ((word & HOT) === 0) return this.#plain(LAYOUTS[word] as Layout);
    switch (EVENT_KINDS[word & KIND_MASK]) {
      case 'ioctl':
        return this.#ioctl(this.#call('ioctl', word));
      case 'mmap':
        return this.#mmap(this.#call('mmap', word));
      case 'munmap':
        return this.#range(this.#call('munmap', word));
      case 'mprotect':
        return this.#range(this.#call('mprotect', word));
      case 'madvise':
        return this.#range(this.#call('madvise', word));
      default:
        return this.#close(this.#call('close', word));
    }
  }

  // ---- events in fixed order -------------------------------------------------------------------------------

  /** What all calls have. The caller adds the fields of its kind. */
  #call<K extends FastKind>(kind: K, word: number): Draft<K> {
    const seq = this.#seq;
    const tsNs = this.#wides[this.#wideAt++] as number;
    const enteredAt = (word & ENTERED_BEFORE) === 0 ? seq : (this.#wides[this.#wideAt++] as number);
    const ints = this.#ints;
    const at = this.#intAt;
    const isPlainRet = (word & (NO_RET | WIDE_RET)) === 0;
    this.#intAt = isPlainRet ? at + 6 : at + 5;
    const head = {
      kind,
      seq,
      tsNs,
      pid: ints[at] as number,
      tid: ints[at + 1] as number,
      file: ints[at + 2] as number,
      line: ints[at + 3] as number,
      enteredAt,
      ret: isPlainRet ? (ints[at + 5] as number) : (word & NO_RET) === 0 ? this.#u64() : null,
      errno: this.#textAt(ints[at + 4] as number),
      injected: (word & INJECTED) !== 0,
    };
    return head as unknown as Draft<K>;
  }

  #ioctl(event: Draft<'ioctl'>): Event {
    event.fd = this.#int();
    event.path = this.#text();
    event.request = this.#int() >>> 0;
    event.arg = this.#u64();
    event.memIn = this.#notes();
    event.memOut = this.#notes();
    return event;
  }

  #mmap(event: Draft<'mmap'>): Event {
    event.addr = this.#u64();
    event.lengthBytes = this.#u64();
    event.prot = this.#int();
    event.flags = this.#int();
    event.fd = this.#int();
    event.path = this.#text();
    event.offset = this.#u64();
    return event;
  }

  /** Calls on a range of addresses, with a word of flags behind it or (munmap) without. */
  #range(event: Draft<'munmap' | 'mprotect' | 'madvise'>): Event {
    event.addr = this.#u64();
    event.lengthBytes = this.#u64();
    if (event.kind === 'mprotect') event.prot = this.#int();
    else if (event.kind === 'madvise') event.advice = this.#int();
    return event;
  }

  #close(event: Draft<'close'>): Event {
    event.fd = this.#int();
    event.path = this.#text();
    return event;
  }

  /** One statement is by far the most frequent. */
  #notes(): readonly MemNote[] {
    const count = this.#int();
    if (count === 0) return NO_NOTES;
    if (count === 1) return [this.#note()];
    const notes: MemNote[] = [];
    for (let i = 0; i < count; i++) notes.push(this.#note());
    return notes;
  }

  #note(): MemNote {
    return { addr: this.#u64(), bytes: this.#bytes() };
  }

  // ---- any event -------------------------------------------------------------------------------------------

  #plain({ names, blank }: Layout): Event {
    const event: Record<string, unknown> = { ...blank };
    for (const name of names) event[name] = this.#value();
    return event as unknown as Event;
  }

  #value(): unknown {
    switch (this.#int() as ValueType) {
      case VALUE.null:
        return null;
      case VALUE.false:
        return false;
      case VALUE.true:
        return true;
      case VALUE.int:
        return this.#int();
      case VALUE.wide:
        return this.#wides[this.#wideAt++];
      case VALUE.bigint:
        return this.#u64();
      case VALUE.text:
        return this.#text();
      case VALUE.bytes:
        return this.#bytes();
      case VALUE.list: {
        const list: unknown[] = [];
        for (let left = this.#int(); left > 0; left--) list.push(this.#value());
        return list;
      }
      case VALUE.note:
        return { addr: this.#value(), bytes: this.#value() };
    }
  }

  // ---- parts -----------------------------------------------------------------------------------------------

  #int(): number {
    return this.#ints[this.#intAt++] as number;
  }

  #u64(): U64 {
    const value = this.#wides[this.#wideAt++] as number;
    return Number.isNaN(value) ? this.#boxed() : value;
  }

  #boxed(): U64 {
    const high = this.#wides[this.#wideAt++] as number;
    return fromHalves(this.#wides[this.#wideAt++] as number, high);
  }

  #bytes(): Bytes {
    const length = this.#int();
    if (length === 0) return Bytes.EMPTY;
    const from = this.#blobAt;
    this.#blobAt = from + length;
    return new Bytes(this.#blob, from, length);
  }

  #text(): string {
    return this.#textAt(this.#int());
  }

  #textAt(index: number): string {
    return (index >= 0 ? this.#shared[index] : this.#own[-1 - index]) as string;
  }
}
