import { type Diagnostic, InputError } from '../../core/errors.js';
import { BATCH_EVENTS, type Event, type EventBatch, type MemNote, type RecordingInfo } from '../../core/event.js';
import type { U64 } from '../../core/u64.js';
import { DiagnosticLog } from '../diagnostic-log.js';
import { MAX_LINE_BYTES } from '../input/line-blocks.js';
import type { Recording } from '../recording.js';
import type { LineCode } from './fields.js';
import { type TextLine, textLines } from './lines.js';
import { type Draft, draftHead, type Enter, type Exit, type Fork, LineParser, type Rec } from './parse.js';
import { ReorderWindow } from './reorder.js';

/**
 * Kernel-event lines to events.
 *
 * The lines come nearly in order of time (one buffer per CPU); a window of {@link WINDOW_RECORDS} puts them in
 * order. The two halves of a call are then joined per thread: the event stands where the call returned, and
 * `enteredAt` says where it began. A call that never returns is an event without a result: at the end of the
 * recording, where its thread ends, or where the thread enters another call.
 *
 * A `fork` line does not say whether the new task is a thread. The window looks ahead: the task's own first lines
 * tell its process and its address space, and the event gets the flags of pthread_create, vfork or fork.
 * A line that gives no event is counted and named, and reading goes on.
 */
export const WINDOW_RECORDS = 4096;
const WINDOW_BYTES = 16 << 20;
/** A batch of giant lines is handed over before it is full. */
const BATCH_CHARS = 8 << 20;
const MAX_PENDING_CALLS = 1 << 13;
const MAX_TASKS = 1 << 16;

const TYPE_VFIO = 0x3b;
const TYPE_HMM = 0x48;
const CLONE_VM_VFORK = 0x4100;
/** VM, FS, FILES, SIGHAND, THREAD, SYSVSEM: what makes a thread. */
const CLONE_OF_THREAD = 0x5_0f00;
const NO_NOTES: readonly MemNote[] = Object.freeze([]);

interface Timed {
  readonly tsNs: number;
  readonly record: Rec;
}

interface Pending {
  readonly enter: Enter;
  readonly enteredAt: number;
}

/** What a task has shown of itself. */
interface Task {
  readonly pid: number;
  readonly mm: U64 | undefined;
}

export class KernelEventRecording implements Recording {
  readonly #source: AsyncIterable<Uint8Array>;
  readonly #file: string;
  readonly #log: DiagnosticLog;
  readonly #parser = new LineParser();
  readonly #window = new ReorderWindow<Timed>(WINDOW_RECORDS, WINDOW_BYTES);
  readonly #pending = new Map<number, Pending>();
  /** Threads in an ioctl of a modelled interface that no other thread's event has overlapped yet. */
  readonly #alone = new Set<number>();
  readonly #tasks = new Map<number, Task>();
  #batch: Event[] = [];
  #batchChars = 0;
  #seq = 0;
  #skipped = 0;
  /** The clock of the first line; times in the window are relative to it. */
  #base: U64 | undefined;
  /** Time of the first event, relative to `#base`. */
  #start: number | undefined;
  #lastTsNs = 0;

  /** `file` is the name that diagnostics print; `log` may already be shared with the reader of the bytes. */
  constructor(source: AsyncIterable<Uint8Array>, file: string, log: DiagnosticLog = new DiagnosticLog()) {
    this.#source = source;
    this.#file = file;
    this.#log = log;
  }

  get info(): RecordingInfo {
    const startNs = BigInt(this.#base ?? 0) + BigInt(this.#start ?? 0);
    return { format: 'kernel-events', files: [this.#file], startNs, kernel: '' };
  }

  get diagnostics(): readonly Diagnostic[] {
    return this.#log.list;
  }

  get skippedLines(): number {
    return this.#skipped;
  }

  async *batches(): AsyncGenerator<EventBatch> {
    let failure: unknown;
    try {
      for await (const lines of textLines(this.#source)) {
        for (const line of lines) {
          this.#line(line);
          if (this.#batchIsDue) yield* this.#handOver();
        }
      }
    } catch (error) {
      // A damaged gzip: what came before is still worth its events.
      if (!(error instanceof InputError)) throw error;
      failure = error;
    }
    for (let next = this.#window.take(true); next !== undefined; next = this.#window.take(true)) {
      this.#emit(next);
      if (this.#batchIsDue) yield* this.#handOver();
    }
    for (const pending of this.#pending.values()) this.#abandon(pending);
    this.#pending.clear();
    yield* this.#handOver();
    if (failure !== undefined) throw failure;
  }

  get #batchIsDue(): boolean {
    return this.#batch.length >= BATCH_EVENTS || this.#batchChars >= BATCH_CHARS;
  }

  /** Hands over all events; more than a batch where one line pushed many out of the window. */
  *#handOver(): Generator<EventBatch> {
    const events = this.#batch;
    this.#batch = [];
    this.#batchChars = 0;
    if (events.length > 0 && events.length <= BATCH_EVENTS) yield events;
    else for (let at = 0; at < events.length; at += BATCH_EVENTS) yield events.slice(at, at + BATCH_EVENTS);
  }

  #line({ text, line, last, tooLong }: TextLine): void {
    if (tooLong) return this.#skip('IOT103', `more than ${MAX_LINE_BYTES} bytes`, line);
    const json = line === 1 && text.charCodeAt(0) === 0xfeff ? text.slice(1) : text;
    if (json === '' || json.trim() === '') return;
    const record = this.#parser.parse(json, line);
    if ('code' in record) {
      if (last && record.message === 'no JSON') return this.#skip('IOT102', '', line, json.length + 1);
      return this.#skip(record.code, record.message, line, record.column);
    }
    const tsNs = this.#relative(this.#parser.tsNs);
    if (!Number.isSafeInteger(tsNs)) return this.#skip('IOT105', '"ts" is too far from the first line', line);
    if (this.#window.isLate(tsNs)) {
      const message = `more than ${WINDOW_RECORDS} events late`;
      this.#log.add('IOT111', message, this.#file, line, json.indexOf('"ts"') + 1);
    }
    this.#batchChars += json.length;
    this.#observe(record);
    this.#window.push(tsNs, json.length, { tsNs, record });
    for (let due = this.#window.take(false); due !== undefined; due = this.#window.take(false)) this.#emit(due);
  }

  #skip(code: LineCode, message: string, line: number, column = 0): void {
    this.#skipped++;
    this.#log.add(code, message, this.#file, line, column);
  }

  #relative(ts: U64): number {
    const base = this.#base ?? ts;
    this.#base = base;
    return typeof ts === 'number' && typeof base === 'number' ? ts - base : Number(BigInt(ts) - BigInt(base));
  }

  /** Remembers the process and address space of the record's task, for the look ahead of {@link #cloneFlags}. */
  #observe(record: Rec): void {
    if (record.ev === 'exit') return;
    const known = this.#tasks.get(record.tid);
    const mm = record.ev === 'whole' && record.draft.kind === 'fault' ? record.draft.mm : undefined;
    if (known !== undefined && known.pid === record.pid && (mm === undefined || known.mm !== undefined)) return;
    if (this.#tasks.size >= MAX_TASKS) this.#tasks.clear();
    this.#tasks.set(record.tid, { pid: record.pid, mm: mm ?? known?.mm });
  }

  #cloneFlags(fork: Fork): U64 {
    const child = this.#tasks.get(fork.child);
    if (child === undefined) return 0;
    if (child.pid === fork.pid) return CLONE_OF_THREAD;
    const parentMm = this.#tasks.get(fork.tid)?.mm;
    return parentMm !== undefined && child.mm === parentMm ? CLONE_VM_VFORK : 0;
  }

  #emit({ tsNs, record }: Timed): void {
    this.#start ??= tsNs;
    this.#lastTsNs = Math.max(0, tsNs - this.#start);
    if (this.#alone.size > 0 && mayOverlap(record)) this.#showEntered(record.tid);
    if (record.ev === 'whole') {
      if (record.draft.kind === 'exit') this.#taskEnds(record.tid);
      this.#put(record.draft, this.#seq);
    } else if (record.ev === 'enter') this.#enter(record);
    else if (record.ev === 'exit') this.#exit(record);
    else {
      const { pid, tid, line, child } = record;
      const head = { ...draftHead(pid, tid, line), enteredAt: 0, ret: child, errno: '', injected: false };
      this.#put({ kind: 'fork', ...head, call: 'clone', flags: this.#cloneFlags(record) }, this.#seq);
    }
  }

  /** What the thread does next may change what calls under way see: they show where they began. */
  #showEntered(tid: number): void {
    for (const other of this.#alone) {
      if (other === tid) continue;
      this.#alone.delete(other);
      const { enter } = this.#pending.get(other) as Pending;
      const { fd, request } = enter;
      const none = { addr: 0, lengthBytes: 0, prot: 0, flags: 0, advice: 0 };
      this.#put(
        { kind: 'enter', ...draftHead(enter.pid, other, enter.line), call: 'ioctl', fd, path: '', request, ...none },
        this.#seq,
      );
    }
  }

  #forgetPending(tid: number): void {
    this.#pending.delete(tid);
    this.#alone.delete(tid);
  }

  #taskEnds(tid: number): void {
    const pending = this.#pending.get(tid);
    if (pending !== undefined) this.#abandon(pending);
    this.#forgetPending(tid);
    this.#tasks.delete(tid);
  }

  #enter(enter: Enter): void {
    const before = this.#pending.get(enter.tid);
    if (before !== undefined) {
      this.#abandon(before);
      this.#forgetPending(enter.tid);
    }
    if (this.#pending.size >= MAX_PENDING_CALLS) {
      const [tid, oldest] = this.#pending.entries().next().value as [number, Pending];
      this.#abandon(oldest);
      this.#forgetPending(tid);
    }
    this.#pending.set(enter.tid, { enter, enteredAt: this.#seq });
    const type = (enter.request >>> 8) & 0xff;
    if (enter.call === 'ioctl' && (type === TYPE_VFIO || type === TYPE_HMM)) this.#alone.add(enter.tid);
  }

  #exit(exit: Exit): void {
    const pending = this.#pending.get(exit.tid);
    if (pending === undefined || pending.enter.call !== exit.call)
      return this.#skip('IOT104', `${exit.call} of thread ${exit.tid}`, exit.line);
    this.#forgetPending(exit.tid);
    this.#put(joined(pending.enter, exit), pending.enteredAt);
  }

  #abandon(pending: Pending): void {
    this.#log.add('IOT106', `${pending.enter.call} of thread ${pending.enter.tid}`, this.#file, pending.enter.line);
    this.#put(joined(pending.enter, undefined), pending.enteredAt);
  }

  #put(draft: Draft, enteredAt: number): void {
    draft.seq = this.#seq++;
    draft.tsNs = this.#lastTsNs;
    if ('enteredAt' in draft) draft.enteredAt = enteredAt;
    this.#batch.push(draft);
  }
}

/** Whether a record may change what a call of another thread sees. */
function mayOverlap(record: Rec): boolean {
  if (record.ev !== 'whole') return record.ev === 'fork';
  switch (record.draft.kind) {
    case 'mmap':
    case 'munmap':
    case 'mprotect':
    case 'mremap':
    case 'madvise':
    case 'exit':
    case 'invalidateStart':
      return true;
    default:
      return false;
  }
}

/** One event out of the two halves of a call; without the second half its result is unknown. */
function joined(enter: Enter, exit: Exit | undefined): Draft {
  const { pid, tid, line } = enter;
  const result = { ret: exit === undefined ? null : exit.ret, errno: exit === undefined ? '' : exit.errno };
  const head = { ...draftHead(pid, tid, line), enteredAt: 0, ...result, injected: false };
  if (enter.call !== 'ioctl') return { kind: 'other', ...head, call: enter.call, text: enter.text };
  return {
    kind: 'ioctl',
    ...head,
    fd: enter.fd,
    path: '',
    request: enter.request,
    arg: enter.arg,
    memIn: enter.mem === undefined ? NO_NOTES : [{ addr: enter.arg, bytes: enter.mem }],
    memOut: exit?.mem === undefined ? NO_NOTES : [{ addr: exit.arg ?? enter.arg, bytes: exit.mem }],
  };
}
