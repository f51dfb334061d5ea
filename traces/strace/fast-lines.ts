import type { MmapEvent } from '../../core/event.js';
import { ByteScan, decodeHexString, flagInterner, SPACE, startsWith } from './byte-scan.js';
import type { Context } from './context.js';
import { FastLeader } from './fast-leader.js';
import { NO_NOTES, type PendingIoctl, type Thread } from './recorder.js';
import { MADV, MAP, PROT } from './symbols.js';

const STATEMENT = ascii('pwrite64(-1, "');
const STATEMENT_RESULT = ascii('= -1 EBADF (Bad file descriptor)\n');
const IOCTL = ascii('ioctl(');
const MMAP = ascii('mmap(');
const MUNMAP = ascii('munmap(');
const MPROTECT = ascii('mprotect(');
const MADVISE = ascii('madvise(');
const CLOSE = ascii('close(');

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
    const { recorder, clock, file, line } = this.#context;
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
    const seq = recorder.nextSeq;
    const event: PendingIoctl = {
      kind: 'ioctl',
      seq,
      tsNs: clock.nowNs,
      pid: 0,
      tid: thread.tid,
      file,
      line,
      enteredAt: seq,
      ret: scan.ret,
      errno: scan.errno,
      injected: false,
      fd: scan.fd,
      path: scan.path,
      request,
      arg,
      memIn: NO_NOTES,
      memOut: NO_NOTES,
    };
    recorder.ioctl(thread, event, true);
    return p;
  }

  #memory(b: Uint8Array, at: number): number {
    if (startsWith(b, at, MMAP)) return this.#mmap(b, at + MMAP.length);
    if (startsWith(b, at, MUNMAP)) return this.#munmap(b, at + MUNMAP.length);
    if (startsWith(b, at, MADVISE)) return this.#madvise(b, at + MADVISE.length);
    if (startsWith(b, at, MPROTECT)) return this.#mprotect(b, at + MPROTECT.length);
    return -1;
  }

  #mmap(b: Uint8Array, from: number): number {
    const { recorder, clock, file, line } = this.#context;
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
    const seq = recorder.nextSeq;
    const event: MmapEvent = {
      kind: 'mmap',
      seq,
      tsNs: clock.nowNs,
      pid: 0,
      tid: thread.tid,
      file,
      line,
      enteredAt: seq,
      ret: scan.ret,
      errno: scan.errno,
      injected: false,
      addr,
      lengthBytes,
      prot,
      flags,
      fd: scan.fd,
      path: scan.path,
      offset,
    };
    recorder.push(event);
    return p;
  }

  #munmap(b: Uint8Array, from: number): number {
    const { recorder, clock, file, line } = this.#context;
    const scan = this.#scan;
    let p = scan.comma(b, scan.word(b, from));
    const addr = scan.value;
    p = p < 0 ? -1 : scan.decimal(b, p);
    const lengthBytes = scan.value;
    p = scan.result(b, p);
    const thread = p < 0 ? undefined : this.#thread();
    if (thread === undefined) return -1;
    recorder.endRun(thread);
    const seq = recorder.nextSeq;
    recorder.push({
      kind: 'munmap',
      seq,
      tsNs: clock.nowNs,
      pid: 0,
      tid: thread.tid,
      file,
      line,
      enteredAt: seq,
      ret: scan.ret,
      errno: scan.errno,
      injected: false,
      addr,
      lengthBytes,
    });
    return p;
  }

  #madvise(b: Uint8Array, from: number): number {
    const { recorder, clock, file, line } = this.#context;
    const scan = this.#scan;
    let p = scan.comma(b, scan.word(b, from));
    const addr = scan.value;
    p = p < 0 ? -1 : scan.comma(b, scan.decimal(b, p));
    const lengthBytes = scan.value;
    p = p < 0 ? -1 : scan.flags(b, p, this.#advice);
    const advice = scan.value;
    p = scan.result(b, p);
    const thread = p < 0 ? undefined : this.#thread();
    if (thread === undefined) return -1;
    recorder.endRun(thread);
    const seq = recorder.nextSeq;
    recorder.push({
      kind: 'madvise',
      seq,
      tsNs: clock.nowNs,
      pid: 0,
      tid: thread.tid,
      file,
      line,
      enteredAt: seq,
      ret: scan.ret,
      errno: scan.errno,
      injected: false,
      addr,
      lengthBytes,
      advice,
    });
    return p;
  }

  #mprotect(b: Uint8Array, from: number): number {
    const { recorder, clock, file, line } = this.#context;
    const scan = this.#scan;
    let p = scan.comma(b, scan.word(b, from));
    const addr = scan.value;
    p = p < 0 ? -1 : scan.comma(b, scan.decimal(b, p));
    const lengthBytes = scan.value;
    p = p < 0 ? -1 : scan.flags(b, p, this.#prot);
    const prot = scan.value;
    p = scan.result(b, p);
    const thread = p < 0 ? undefined : this.#thread();
    if (thread === undefined) return -1;
    recorder.endRun(thread);
    const seq = recorder.nextSeq;
    recorder.push({
      kind: 'mprotect',
      seq,
      tsNs: clock.nowNs,
      pid: 0,
      tid: thread.tid,
      file,
      line,
      enteredAt: seq,
      ret: scan.ret,
      errno: scan.errno,
      injected: false,
      addr,
      lengthBytes,
      prot,
    });
    return p;
  }

  #close(b: Uint8Array, from: number): number {
    const { recorder, clock, file, line } = this.#context;
    const scan = this.#scan;
    const p = scan.result(b, scan.fdArgument(b, from));
    const thread = p < 0 ? undefined : this.#thread();
    if (thread === undefined) return -1;
    recorder.endRun(thread);
    const seq = recorder.nextSeq;
    recorder.push({
      kind: 'close',
      seq,
      tsNs: clock.nowNs,
      pid: 0,
      tid: thread.tid,
      file,
      line,
      enteredAt: seq,
      ret: scan.ret,
      errno: scan.errno,
      injected: false,
      fd: scan.fd,
      path: scan.path,
    });
    return p;
  }

  /** Takes the leader over; undefined where the complete reader has to deal with the time or the thread. */
  #thread(): Thread | undefined {
    const tid = this.#leader.commit();
    if (tid < 0) return undefined;
    const thread = this.#context.recorder.thread(tid);
    return thread.entered === null ? thread : undefined;
  }
}

function ascii(text: string): Uint8Array {
  return new Uint8Array(Buffer.from(text, 'ascii'));
}
