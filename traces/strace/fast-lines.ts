import type { Event } from '../../core/event.js';
import { ByteScan, decodeHexString, flagInterner, SPACE, startsWith } from './byte-scan.js';
import type { CallHead } from './call-reader.js';
import type { Context } from './context.js';
import { FastLeader } from './fast-leader.js';
import type { Interner } from './intern.js';
import { NO_NOTES, type Thread } from './recorder.js';
import { MADV, MAP, PROT } from './symbols.js';

const STATEMENT = ascii('pwrite64(-1, "');
const STATEMENT_RESULT = ascii('= -1 EBADF (Bad file descriptor)\n');
const IOCTL = ascii('ioctl(');
const MMAP = ascii('mmap(');
const MUNMAP = ascii('munmap(');
const MPROTECT = ascii('mprotect(');
const MADVISE = ascii('madvise(');
const CLOSE = ascii('close(');

/** Kinds of events that come in large numbers. */
export type FastKind = 'ioctl' | 'mmap' | 'munmap' | 'mprotect' | 'madvise' | 'close';

/** An event whose last fields are still to be set; setting them later is as fast as one literal, a spread is not. */
export type Draft<K extends FastKind> = K extends FastKind ? Writable<Extract<Event, { kind: K }>> : never;
type Writable<E> = { -readonly [F in keyof E]: E[F] };

/**
 * Reads the lines that make up nearly all of a long recording straight from bytes: statements of memory, ioctl,
 * mmap, munmap, mprotect, madvise and close, whole and in their usual form, with a thread number and an absolute
 * time or without. No string, no regular expression and no bigint is made per line. Anything else is refused before
 * anything is changed, and goes to the complete reader (slow-lines.ts). What both can read they read alike;
 * a test runs all captures through both.
 */
export class FastLines {
  readonly #context: Context;
  readonly #leader: FastLeader;
  readonly #scan = new ByteScan();
  readonly #prot = flagInterner(PROT);
  readonly #map = flagInterner(MAP);
  readonly #advice = flagInterner(MADV);

  constructor(context: Context) {
    this.#context = context;
    this.#leader = new FastLeader(context);
  }

  /** Reads the line at `from`; gives where the next one begins, or -1 when it was refused. */
  line(b: Uint8Array, from: number): number {
    const at = this.#leader.read(b, from);
    if (at < 0) return -1;
    switch (b[at]) {
      case 112:
        return startsWith(b, at, STATEMENT) ? this.#statement(b, at + STATEMENT.length) : -1;
      case 105:
        return startsWith(b, at, IOCTL) ? this.#ioctl(b, at + IOCTL.length) : -1;
      case 109:
        return this.#memory(b, at);
      case 99:
        return startsWith(b, at, CLOSE) ? this.#close(b, at + CLOSE.length) : -1;
      default:
        return -1;
    }
  }

  /** `pwrite64(-1, "\x20…", 32, 140737488347136) = -1 EBADF (Bad file descriptor)` from the first byte shown. */
  #statement(b: Uint8Array, from: number): number {
    const { arena, recorder } = this.#context;
    const scan = this.#scan;
    const shown = (decodeHexString(b, from, arena.bytes, arena.at) - from) / 4;
    if (shown < 0) return -1;
    let p = scan.comma(b, from + shown * 4 + 1);
    p = p < 0 ? -1 : scan.comma(b, scan.decimal(b, p));
    p = p < 0 ? -1 : scan.decimal(b, p);
    if (p < 0 || b[p] !== 41 || b[p + 1] !== SPACE) return -1;
    p += 2;
    while (b[p] === SPACE) p++;
    if (!startsWith(b, p, STATEMENT_RESULT)) return -1;
    const thread = this.#thread();
    if (thread === undefined) return -1;
    const start = arena.at;
    arena.at += shown;
    recorder.note(thread, scan.value, arena.take(start));
    return p + STATEMENT_RESULT.length;
  }

  #ioctl(b: Uint8Array, from: number): number {
    const { recorder } = this.#context;
    const scan = this.#scan;
    let p = scan.comma(b, scan.fdArgument(b, from));
    p = p < 0 ? -1 : scan.comma(b, scan.request(b, p));
    if (p < 0) return -1;
    const request = scan.value;
    p = scan.word(b, p);
    const arg = scan.value;
    p = scan.result(b, p);
    const thread = p < 0 ? undefined : this.#thread();
    if (thread === undefined) return -1;
    const event = this.#completed('ioctl', thread);
    event.fd = scan.fd;
    event.path = scan.path;
    event.request = request;
    event.arg = arg;
    event.memIn = NO_NOTES;
    event.memOut = NO_NOTES;
    recorder.ioctl(thread, event, true);
    return p;
  }

  #memory(b: Uint8Array, at: number): number {
    if (startsWith(b, at, MMAP)) return this.#mmap(b, at + MMAP.length);
    if (startsWith(b, at, MUNMAP)) return this.#range(b, at + MUNMAP.length, 'munmap');
    if (startsWith(b, at, MADVISE)) return this.#range(b, at + MADVISE.length, 'madvise', this.#advice);
    if (startsWith(b, at, MPROTECT)) return this.#range(b, at + MPROTECT.length, 'mprotect', this.#prot);
    return -1;
  }

  #mmap(b: Uint8Array, from: number): number {
    const { recorder } = this.#context;
    const scan = this.#scan;
    let p = scan.comma(b, scan.word(b, from));
    const addr = scan.value;
    p = p < 0 ? -1 : scan.comma(b, scan.decimal(b, p));
    const lengthBytes = scan.value;
    p = p < 0 ? -1 : scan.comma(b, scan.flags(b, p, this.#prot));
    const prot = scan.value;
    p = p < 0 ? -1 : scan.comma(b, scan.flags(b, p, this.#map));
    const flags = scan.value;
    p = p < 0 ? -1 : scan.comma(b, scan.fdArgument(b, p));
    p = p < 0 ? -1 : scan.word(b, p);
    const offset = scan.value;
    p = scan.result(b, p);
    const thread = p < 0 ? undefined : this.#thread();
    if (thread === undefined) return -1;
    recorder.endRun(thread);
    const event = this.#completed('mmap', thread);
    event.addr = addr;
    event.lengthBytes = lengthBytes;
    event.prot = prot;
    event.flags = flags;
    event.fd = scan.fd;
    event.path = scan.path;
    event.offset = offset;
    recorder.push(event);
    return p;
  }

  /** Calls on a range of addresses, with a word of flags behind it or (munmap) without. */
  #range(b: Uint8Array, from: number, kind: 'munmap' | 'mprotect' | 'madvise', words?: Interner<number>): number {
    const scan = this.#scan;
    let p = scan.comma(b, scan.word(b, from));
    const addr = scan.value;
    p = p < 0 ? -1 : scan.decimal(b, p);
    const lengthBytes = scan.value;
    if (words !== undefined) {
      p = scan.comma(b, p);
      p = p < 0 ? -1 : scan.flags(b, p, words);
    }
    const word = scan.value;
    p = scan.result(b, p);
    const thread = p < 0 ? undefined : this.#thread();
    if (thread === undefined) return -1;
    const { recorder } = this.#context;
    recorder.endRun(thread);
    const event = this.#completed(kind, thread);
    event.addr = addr;
    event.lengthBytes = lengthBytes;
    if (event.kind === 'mprotect') event.prot = word;
    else if (event.kind === 'madvise') event.advice = word;
    recorder.push(event);
    return p;
  }

  #close(b: Uint8Array, from: number): number {
    const { recorder } = this.#context;
    const scan = this.#scan;
    const p = scan.result(b, scan.fdArgument(b, from));
    const thread = p < 0 ? undefined : this.#thread();
    if (thread === undefined) return -1;
    recorder.endRun(thread);
    const event = this.#completed('close', thread);
    event.fd = scan.fd;
    event.path = scan.path;
    recorder.push(event);
    return p;
  }

  /** The beginning of a call's event: what all calls have. The caller adds the fields of its kind. */
  #completed<K extends FastKind>(kind: K, thread: Thread): Draft<K> {
    const { recorder, clock, file, line } = this.#context;
    const { ret, errno } = this.#scan;
    const seq = recorder.nextSeq;
    const tsNs = clock.nowNs;
    const head: CallHead & { readonly kind: K } = {
      kind,
      seq,
      tsNs,
      pid: 0,
      tid: thread.tid,
      file,
      line,
      enteredAt: seq,
      ret,
      errno,
      injected: false,
    };
    return head as unknown as Draft<K>;
  }

  /** Takes the leader over; undefined where the complete reader has to deal with the time or the thread. */
  #thread(): Thread | undefined {
    const tid = this.#leader.commit();
    if (tid < 0) return undefined;
    const thread = this.#context.recorder.thread(tid);
    return thread.entered === null && !thread.ended ? thread : undefined;
  }
}

function ascii(text: string): Uint8Array {
  return new Uint8Array(Buffer.from(text, 'ascii'));
}
