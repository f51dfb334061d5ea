import { Bytes } from '../../core/bytes.js';
import { BATCH_EVENTS, type Event, type EventBatch, type IoctlEvent, type MemNote } from '../../core/event.js';
import type { U64 } from '../../core/u64.js';

/**
 * The events of one strace text while they come into being: their order, and which memory statement belongs to
 * which ioctl.
 *
 * ## Memory statements
 *
 * A recorder library makes failing `pwrite64(-1, bytes, length, address)` calls around each ioctl it knows: before it
 * the struct at the ioctl's argument and then what pointers in it lead to, after it the same again, as the kernel left
 * it. Observed in recordings of iommufd, VFIO, QEMU and HMM programs:
 *
 * - The statement before comes only for readable pointers. An ioctl without any (`VFIO_SET_IOMMU, 0x1`,
 *   a wild pointer) has none after it either.
 * - The statements after begin with the struct, but need not repeat the others one by one. They may hold
 *   more (an array that the kernel fills is stated after the call only), fewer (an array whose length the kernel set
 *   to 0), and other lengths (the struct grew by capabilities).
 * - They come at once, in one piece: no other call of the thread stands between them and their ioctl.
 *   Signals do, and lines of other threads.
 * - The same stack address is used over and over, for structs and for what they point to.
 *
 * So statements are collected per thread into a run, which the next call of that thread ends:
 *
 * - a call other than ioctl: the whole run belongs to the ioctl before, as its memory after;
 * - an ioctl with no annotated ioctl directly before: the whole run is its memory before;
 * - an ioctl directly after an annotated one: the run is cut where the struct of the new one stands, that
 *   is at the last statement of its argument's address (the last, for the address may also have been that of an
 *   array of the call before; unless the statement before it at that address is a struct that points
 *   to itself). Without such a statement all belongs to the ioctl before.
 *
 * An annotated ioctl therefore is complete only at its thread's next call. Events leave in order, so it holds back
 * all that came after it, within bounds.
 */
export interface Thread {
  readonly tid: number;
  /** The statements since this thread's last call: the first `runCount` of the list, which is used again and again. */
  run: MemNote[];
  runCount: number;
  runBytes: number;
  /** The annotated ioctl that the run follows directly. */
  last: PendingIoctl | null;
  /** A call whose second half has not come yet. */
  entered: Entered | null;
  /** An `exit` or `exit_group` was seen: the `+++` line that follows says nothing new. */
  ended: boolean;
}

/** An ioctl event while its memory is still being attached. */
export type PendingIoctl = Omit<IoctlEvent, 'arg' | 'memIn' | 'memOut'> & {
  arg: U64;
  memIn: readonly MemNote[];
  memOut: readonly MemNote[];
};

/** The first half of a call. */
export interface Entered {
  readonly name: string;
  readonly text: string;
  readonly enteredAt: number;
  readonly line: number;
  /** For a clone: the child whose lines came before its result, so that its event is out already; else 0. */
  child: number;
}

/** Told of statements that belong to no ioctl, and of calls that had to be forgotten. */
export type Report = (code: 'IOT106' | 'IOT108', message: string) => void;

export const NO_NOTES: readonly MemNote[] = Object.freeze([]);

const MAX_THREADS = 65_536;
const MAX_HELD_EVENTS = 65_536;
const MAX_HELD_PAYLOAD_BYTES = 64 << 20;
const MAX_RUN = 4096;
/** About what a statement costs beside its bytes. */
const NOTE_BYTES = 96;

export class Recorder {
  readonly #report: Report;
  /** Told of each thread that was not seen before, ahead of its first event. */
  onNewThread: (thread: Thread) => void = () => undefined;
  readonly #threads = new Map<number, Thread>();
  #latest: Thread | null = null;
  /** Events from `#head` on wait to be taken; the first has the sequence number `#taken`. */
  #events: Event[] = [];
  #head = 0;
  #taken = 0;
  /** Payload of the events that wait, and of the statements that no call has claimed yet. */
  #payloadBytes = 0;
  #runBytes = 0;

  constructor(report: Report) {
    this.#report = report;
  }

  /** The sequence number that the next event gets. */
  get nextSeq(): number {
    return this.#taken + this.#events.length - this.#head;
  }

  thread(tid: number): Thread {
    const latest = this.#latest;
    if (latest !== null && latest.tid === tid) return latest;
    let thread = this.#threads.get(tid);
    if (thread === undefined) {
      if (this.#threads.size >= MAX_THREADS) this.#forgetIdle();
      thread = { tid, run: [], runCount: 0, runBytes: 0, last: null, entered: null, ended: false };
      this.#threads.set(tid, thread);
      this.onNewThread(thread);
    }
    this.#latest = thread;
    return thread;
  }

  /** Threads with the first half of a call, in the order of their numbers. */
  get unfinished(): Thread[] {
    return [...this.#threads.values()].filter((thread) => thread.entered !== null).sort((a, b) => a.tid - b.tid);
  }

  /** The thread is gone; its number may come again for another one. */
  forget(thread: Thread): void {
    this.endRun(thread);
    this.#threads.delete(thread.tid);
    if (this.#latest === thread) this.#latest = null;
  }

  /** A memory statement. */
  note(thread: Thread, addr: U64, bytes: Bytes): void {
    const count = thread.runCount;
    const noteBytes = bytes.length + NOTE_BYTES;
    if (count >= MAX_RUN || this.#runBytes + noteBytes > MAX_HELD_PAYLOAD_BYTES) return this.#orphaned(1);
    this.#payloadBytes += bytes.length;
    this.#runBytes += noteBytes;
    thread.runBytes += noteBytes;
    thread.run[count] = { addr, bytes };
    thread.runCount = count + 1;
  }

  /** A call that is no ioctl begins in this thread. */
  endRun(thread: Thread): void {
    const count = thread.runCount;
    if (count > 0) {
      if (thread.last === null) this.#orphaned(count);
      else thread.last.memOut = part(thread.run, 0, count);
      this.#clearRun(thread);
    }
    thread.last = null;
  }

  /** Any event but an ioctl; calls end the run first. */
  push(event: Event): void {
    this.#events.push(event);
  }

  /**
   * An ioctl completes. Where the recording does not show its argument (`argKnown` false), the first statement
   * before it tells.
   */
  ioctl(thread: Thread, event: PendingIoctl, argKnown: boolean): void {
    const run = thread.run;
    const last = thread.last;
    const count = thread.runCount;
    thread.last = null;
    if (count > 0) {
      const cut = last === null ? 0 : cutOf(run, count, argKnown ? event.arg : last.arg);
      if (last !== null) last.memOut = part(run, 0, cut);
      if (cut < count) {
        event.memIn = part(run, cut, count);
        if (!argKnown) event.arg = (run[cut] as MemNote).addr;
        thread.last = event;
      }
      this.#clearRun(thread);
    }
    this.#events.push(event);
  }

  /**
   * Up to 4,096 events that are complete, in order; empty where none is. With `all`, memory that has not come
   * is not waited for.
   */
  take(all = false): EventBatch {
    const waiting = this.#events.length - this.#head;
    if (waiting === 0) return [];
    let ready = all ? waiting : Math.min(waiting, this.#firstHeld() - this.#taken);
    if (ready === 0 && (waiting > MAX_HELD_EVENTS || this.#payloadBytes > MAX_HELD_PAYLOAD_BYTES)) {
      for (const thread of this.#threads.values()) thread.last = null;
      ready = waiting;
    }
    const count = Math.min(ready, BATCH_EVENTS);
    const batch = this.#events.slice(this.#head, this.#head + count);
    this.#head += count;
    this.#taken += count;
    if (this.#head === this.#events.length || this.#head > 4 * BATCH_EVENTS) {
      this.#events = this.#events.slice(this.#head);
      this.#head = 0;
    }
    if (this.#events.length === 0) this.#payloadBytes = 0;
    return batch;
  }

  /** How many events wait to be taken, also those that are not complete yet. */
  get waiting(): number {
    return this.#events.length - this.#head;
  }

  /** The input is at its end: what still waits gets what there is. */
  finish(): void {
    for (const thread of this.#threads.values()) this.endRun(thread);
  }

  /** A long run's list is let go; a short one keeps its last statements alive until they are overwritten. */
  #clearRun(thread: Thread): void {
    if (thread.runCount > 16) thread.run = [];
    thread.runCount = 0;
    this.#runBytes -= thread.runBytes;
    thread.runBytes = 0;
  }

  #firstHeld(): number {
    let first = Number.POSITIVE_INFINITY;
    for (const thread of this.#threads.values()) {
      if (thread.last !== null && thread.last.seq < first) first = thread.last.seq;
    }
    return first;
  }

  #forgetIdle(): void {
    for (const thread of this.#threads.values()) {
      if (thread.entered === null && thread.last === null && thread.runCount === 0) this.#threads.delete(thread.tid);
    }
    if (this.#threads.size < MAX_THREADS) return;
    for (const thread of this.#threads.values()) this.endRun(thread);
    this.#report('IOT106', `${this.#threads.size} calls, one in each of too many threads`);
    this.#threads.clear();
  }

  #orphaned(count: number): void {
    this.#report('IOT108', `${count} ${count === 1 ? 'statement' : 'statements'} of what memory holds`);
  }
}

/** A copy of a part of a run; one statement is by far the most frequent. */
function part(run: readonly MemNote[], from: number, to: number): readonly MemNote[] {
  if (to === from) return NO_NOTES;
  return to === from + 1 ? [run[from] as MemNote] : run.slice(from, to);
}

/** Where in a run behind an annotated ioctl the next ioctl's statements begin. */
function cutOf(run: readonly MemNote[], count: number, arg: U64): number {
  for (let i = count - 1; i > 0; i--) {
    if ((run[i] as MemNote).addr !== arg) continue;
    const before = indexBefore(run, arg, i);
    return before > 0 && holdsPointer((run[before] as MemNote).bytes, arg) ? before : i;
  }
  return count;
}

function indexBefore(run: readonly MemNote[], arg: U64, from: number): number {
  for (let i = from - 1; i > 0; i--) if ((run[i] as MemNote).addr === arg) return i;
  return -1;
}

function holdsPointer(bytes: Bytes, addr: U64): boolean {
  for (let at = 0; bytes.has(at, 8); at += 8) if (bytes.u64(at) === addr) return true;
  return false;
}
