import type { Bytes } from '../../core/bytes.js';
import type { Event } from '../../core/event.js';
import type { BlockState } from '../input/line-blocks.js';
import { Args } from './args.js';
import type { CallHead } from './call-reader.js';
import { type CallText, NO_RESULT, type Result, readResult, splitCall } from './call-text.js';
import { readCall } from './calls.js';
import type { Context } from './context.js';
import { ENTERED, enterOf } from './enter-line.js';
import { ioctlOf } from './ioctl-call.js';
import { otherCall } from './other-call.js';
import type { Entered, Thread } from './recorder.js';
import { copied } from './text.js';

const CLONES: ReadonlySet<string> = new Set(['fork', 'vfork', 'clone', 'clone2', 'clone3']);
const EXITS: ReadonlySet<string> = new Set(['exit', 'exit_group']);

/** First halves are kept whole up to so much in all, then cut: nothing else ends when no second half ever comes. */
const MAX_ENTERED_BYTES = 64 << 20;
const MAX_CROWDED_BYTES = 1024;
/** Clones under way at once whose children are recognised before the result. */
const MAX_CLONING = 1024;

/**
 * Calls from text: whole ones, halves that are put together, and ends of threads. The thread's line has been told
 * already; here it becomes events.
 */
export class CallLines {
  readonly #context: Context;
  /** How much text the first halves of calls hold. */
  #enteredBytes = 0;

  /** Threads inside a clone whose child has not shown, the earliest first. */
  readonly #cloning = new Set<Thread>();
  /** The child of the clone that is being completed, where its event is out already; else 0. */
  #bornEarly = 0;

  constructor(context: Context) {
    this.#context = context;
    context.recorder.onNewThread = (thread) => this.#bornBeforeResult(thread);
  }

  /** A call on one line. */
  whole(thread: Thread, text: string, state: BlockState, column: number): void {
    if (thread.entered !== null) this.neverResumed(thread);
    this.#complete(thread, text, this.#context.recorder.nextSeq, state, column);
  }

  /** The first half of a call. */
  entered(thread: Thread, text: string): void {
    if (thread.entered !== null) this.neverResumed(thread);
    const { recorder, line } = this.#context;
    const name = text.slice(0, text.indexOf('('));
    // An ioctl ends the run when it completes: only then its argument is sure to be known.
    if (name !== 'ioctl' && !isStatement(text)) recorder.endRun(thread);
    const room = this.#enteredBytes + text.length <= MAX_ENTERED_BYTES;
    const kept = room ? text : copied(text.slice(0, MAX_CROWDED_BYTES));
    this.#enteredBytes += kept.length;
    thread.entered = { name, text: kept, enteredAt: recorder.nextSeq, line, child: 0 };
    if (CLONES.has(name) && this.#cloning.size < MAX_CLONING) this.#cloning.add(thread);
    if (!ENTERED.has(name)) return;
    const head = { ...this.#head(thread), enteredAt: recorder.nextSeq, ret: null, errno: '', injected: false };
    const event = enterOf(kept, head, this.#context.arena);
    if (event !== undefined) recorder.push(event);
  }

  /** The second half: `rest` is what stands behind `resumed>`. */
  resumed(thread: Thread, name: string, rest: string, numbered: boolean, state: BlockState, column: number): void {
    const owner = thread.entered?.name === name || numbered ? thread : this.#lastEntered(name);
    const entered = owner?.entered;
    if (owner === undefined || entered === undefined || entered === null || entered.name !== name) {
      return this.#context.skip('IOT104', name, column);
    }
    owner.entered = null;
    this.#enteredBytes -= entered.text.length;
    this.#cloning.delete(owner);
    this.#bornEarly = entered.child;
    this.#complete(owner, entered.text + rest, entered.enteredAt, state, column);
    this.#bornEarly = 0;
  }

  /** strace let the process go in the middle of a call. */
  detached(thread: Thread, text: string): void {
    const call = splitCall(text);
    if (call !== undefined) this.#emit(thread, call, NO_RESULT, this.#context.recorder.nextSeq, true, 1);
    this.#context.tids.ended(thread.tid);
  }

  /** The second half of this thread's call is not in the recording. */
  neverResumed(thread: Thread): void {
    const entered = thread.entered as Entered;
    thread.entered = null;
    this.#cloning.delete(thread);
    this.#enteredBytes -= entered.text.length;
    const call = splitCall(entered.text);
    if (call === undefined || entered.child !== 0) return;
    if (EXITS.has(call.name)) return this.#exitCall(thread, new Args(call, NO_RESULT, this.#context.arena));
    this.#context.report('IOT106', entered.name, 0, entered.line);
    this.#emit(thread, call, NO_RESULT, entered.enteredAt, true, 1);
  }

  /** `+++ exited with N +++` or `+++ killed by … +++`. */
  gone(thread: Thread, call: 'exit' | 'killed', status: number): void {
    const { recorder, tids } = this.#context;
    if (thread.entered !== null) this.neverResumed(thread);
    recorder.endRun(thread);
    if (!thread.ended) recorder.push({ kind: 'exit', ...this.#head(thread), call, status });
    recorder.forget(thread);
    tids.ended(thread.tid);
  }

  /**
   * Another thread of the process called execve: it goes on under this (the leader's) number, and its own is gone.
   */
  superseded(thread: Thread, printedPid: number): void {
    const { recorder, tids } = this.#context;
    if (thread.entered !== null) this.neverResumed(thread);
    const other = recorder.thread(tids.translate(printedPid));
    if (other === thread) return;
    recorder.endRun(thread);
    thread.entered = other.entered;
    thread.ended = false;
    other.entered = null;
    recorder.push({ kind: 'exit', ...this.#head(other), call: 'exit', status: 0 });
    recorder.forget(other);
    tids.ended(other.tid);
  }

  #lastEntered(name: string): Thread | undefined {
    let found: Thread | undefined;
    for (const thread of this.#context.recorder.unfinished) {
      const entered = thread.entered;
      if (entered?.name === name && (found === undefined || entered.line > (found.entered as Entered).line)) {
        found = thread;
      }
    }
    return found;
  }

  #complete(thread: Thread, text: string, enteredAt: number, state: BlockState, column: number): void {
    const call = splitCall(text);
    if (call === undefined) return this.#context.skip('IOT101', '', column);
    const result = call.tail === undefined || call.tail === '' ? undefined : readResult(call.tail);
    if (result === 'range') return this.#context.skip('IOT105', 'result', column);
    if (result !== undefined && !(state !== 'whole' && isCutResult(result, call.tail as string))) {
      return this.#emit(thread, call, result, enteredAt, result.ret === null, column);
    }
    if (state === 'whole') return this.#context.skip('IOT101', 'no result', column);
    if (state === 'open') this.#context.report('IOT102', call.name, column);
    if (isStatement(text)) return;
    const args = call.tail === undefined ? withoutCutArgument(call.args) : call.args;
    this.#emit(thread, { ...call, args }, NO_RESULT, enteredAt, true, column);
  }

  /** `lenient`: half of the call is missing, or it never came to its end; an argument too few is no news then. */
  #emit(thread: Thread, call: CallText, result: Result, enteredAt: number, lenient: boolean, column: number): void {
    const { recorder, arena } = this.#context;
    const args = new Args(call, result, arena);
    // Whoever calls is alive: the number belongs to a new thread now.
    thread.ended = false;
    if (EXITS.has(call.name)) return this.#exitCall(thread, args);
    const note = memoryOf(args);
    if (note !== undefined) return recorder.note(thread, args.u64(3), note);
    const head: CallHead = {
      ...this.#head(thread),
      enteredAt,
      ret: result.ret,
      errno: result.errno,
      injected: result.injected,
    };
    const ioctl = call.name === 'ioctl' ? ioctlOf(args, head, arena) : undefined;
    if (ioctl !== undefined) {
      if (args.problem === '') return recorder.ioctl(thread, ioctl.event, ioctl.argKnown);
    }
    recorder.endRun(thread);
    const known = call.name === 'ioctl' ? undefined : readCall(args, head);
    if (args.problem === 'range' || (args.problem === 'missing' && !lenient)) return this.#unusable(args, column);
    const event = known === undefined || args.problem !== '' ? otherCall(args, head) : known;
    const isOut = event.kind === 'fork' && this.#bornEarly !== 0 && event.ret === this.#bornEarly;
    if (!isOut) recorder.push(event);
    this.#learn(thread, event, args);
  }

  /**
   * A child's lines may come before the result of the clone that made it. It must not look like a stranger then, so
   * the clone's event goes out ahead of the child's first one, with the child as its result. Of several
   * clones under way, the one that began first is taken to be the parent.
   */
  #bornBeforeResult(child: Thread): void {
    const { recorder, arena, tids } = this.#context;
    const [owner] = this.#cloning;
    if (owner === undefined || child.tid <= 0) return;
    this.#cloning.delete(owner);
    const parent = owner.entered;
    if (parent === null || !CLONES.has(parent.name)) return;
    const call = splitCall(parent.text);
    if (call === undefined) return;
    const head = { ...this.#head(owner), enteredAt: parent.enteredAt, ret: child.tid, errno: '', injected: false };
    const event = readCall(new Args(call, { ...NO_RESULT, ret: child.tid }, arena), head);
    if (event === undefined) return;
    parent.child = child.tid;
    tids.born(child.tid);
    recorder.push(event);
  }

  #unusable(args: Args, column: number): void {
    const code = args.problem === 'range' ? 'IOT105' : 'IOT101';
    this.#context.skip(code, `argument ${args.problemAt + 1} of ${args.name}`, column);
  }

  /** What a call says about threads, and an fd that a clone makes beside the process. */
  #learn(thread: Thread, event: Event, args: Args): void {
    const { recorder, tids } = this.#context;
    const ret = args.result.ret;
    if (typeof ret !== 'number' || ret <= 0) return;
    if (args.name === 'set_tid_address' || args.name === 'gettid') tids.isBase(thread.tid, ret);
    if (event.kind !== 'fork') return;
    tids.born(ret);
    const pidfd = /pidfd=\[([0-9]{1,9})(?:<([^>]*)>)?\]/.exec(args.allText);
    if (pidfd === null) return;
    const { seq: _, ...rest } = this.#head(thread);
    recorder.push({
      kind: 'newFds',
      seq: recorder.nextSeq,
      ...rest,
      enteredAt: event.enteredAt,
      ret: event.ret,
      errno: '',
      injected: event.injected,
      call: args.name,
      fds: [Number(pidfd[1])],
      paths: [pidfd[2] ?? ''],
      cloexec: true,
    });
  }

  #exitCall(thread: Thread, args: Args): void {
    const { recorder } = this.#context;
    recorder.endRun(thread);
    const status = args.u64(0);
    thread.ended = true;
    const head = this.#head(thread);
    recorder.push({ kind: 'exit', ...head, call: args.name, status: typeof status === 'number' ? status | 0 : -1 });
  }

  #head(thread: Thread) {
    const { recorder, clock, file, line } = this.#context;
    return { seq: recorder.nextSeq, tsNs: clock.nowNs, pid: 0, tid: thread.tid, file, line } as const;
  }
}

/** Whether the text begins like a statement of what memory holds. */
function isStatement(text: string): boolean {
  return text.startsWith('pwrite64(-1, "') || text.startsWith('pwrite64(fd=-1, ');
}

/** The bytes of such a statement: `pwrite64(-1, "…", length, address) = -1 EBADF`. */
function memoryOf(args: Args): Bytes | undefined {
  if (args.name !== 'pwrite64' || args.result.errno !== 'EBADF' || args.text(0) !== '-1') return undefined;
  return args.bytes(1);
}

/** The last line of a file may end within its result: an error without its text, a path without its `>`. */
function isCutResult(result: Result, tail: string): boolean {
  return result.ret === -1 ? !/\)\s*(?:<[0-9.]+>)?$/.test(tail) : /<[^>]*$/.test(tail);
}

/** Where the text ends inside the arguments, the last of them may be half a number. */
function withoutCutArgument(args: readonly string[]): readonly string[] {
  const last = args[args.length - 1] ?? '';
  return /[)\]}>"]$/.test(last) ? args : args.slice(0, -1);
}
