import type { Bytes } from '../../core/bytes.js';
import type { Event } from '../../core/event.js';
import { modPow2, sub, type U64 } from '../../core/u64.js';
import { Fields, type Problem, type Result } from './fields.js';

/**
 * An event that nobody else has seen yet. Its place on the tape (`seq`, `tsNs`, `enteredAt`) is 0 until the
 * importer knows it.
 */
export type Draft = Event extends infer E ? (E extends Event ? { -readonly [K in keyof E]: E[K] } : never) : never;

/** The first half of a call. */
export interface Enter {
  readonly ev: 'enter';
  readonly pid: number;
  readonly tid: number;
  readonly line: number;
  readonly call: string;
  readonly fd: number;
  readonly request: number;
  readonly arg: U64;
  readonly mem: Bytes | undefined;
  /** The whole line, for calls other than ioctl. */
  readonly text: string;
}

/** The second half of a call. */
export interface Exit extends Result {
  readonly ev: 'exit';
  readonly tid: number;
  readonly line: number;
  readonly call: string;
  readonly arg: U64 | undefined;
  readonly mem: Bytes | undefined;
}

/** A new task; whether it is a thread is seen later, from what the task itself records. */
export interface Fork {
  readonly ev: 'fork';
  readonly pid: number;
  readonly tid: number;
  readonly line: number;
  readonly child: number;
}

/** Everything that is one line and one event. */
export interface Whole {
  readonly ev: 'whole';
  readonly pid: number;
  readonly tid: number;
  readonly draft: Draft;
}

export type Rec = Enter | Exit | Fork | Whole;

interface DraftHead {
  seq: number;
  tsNs: number;
  pid: number;
  tid: number;
  file: number;
  line: number;
}

/** The fields that every event has. */
export function draftHead(pid: number, tid: number, line: number): DraftHead {
  return { seq: 0, tsNs: 0, pid, tid, file: 0, line };
}

const O_RDWR = 2;
const OTHER_TEXT_CHARS = 200;
const DRIVER_CHARS = 40;
const PAGE_BYTES = 4096;
/** MIRROR_READ, MIRROR_WRITE and MIRROR_ATOMIC of core/event.ts. */
const MIRROR_FLAGS = 7;
const SUCCESS: Result = Object.freeze({ ret: 0, errno: '' });
const UNKNOWN: Result = Object.freeze({ ret: null, errno: '' });

/**
 * Reads one line of the recorder. What is taken as given where the recorder is silent:
 *
 * - `munmap`, `mprotect`, `madvise` and `close` are taken where the call begins, so they have no `ret`. What the
 *   state makes of them is the same whether they succeed or meet a hole, so they count as successful; only for
 *   mprotect, which stops at a hole, the result stays unknown;
 * - `openat` has no flags: the file counts as open for reading and writing, so that no right is denied by guess;
 * - an `invalidate_end` names no flags and no owner: both are 0;
 * - a `mirror_map` without `owner` and `memory` is of a driver without device-private memory, leads to memory of the system,
 *   and one without `seq` cannot be compared with invalidations by number;
 * - `exit_task` is the end of one thread and tells no status.
 */
export class LineParser {
  readonly #fields = new Fields();
  #pid = 0;
  #tid = 0;
  #line = 0;
  #text = '';
  /** The recorder's clock of the last parsed line, in ns. */
  tsNs: U64 = 0;

  /** The record, or why there is none. */
  parse(text: string, line: number): Rec | Problem {
    let parsed: unknown;
    try {
      parsed = JSON.parse(text);
    } catch (error) {
      return { code: 'IOT110', message: 'no JSON', column: jsonErrorColumn(text, error) };
    }
    if (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed))
      return { code: 'IOT110', message: 'no JSON object', column: 1 };
    const object = parsed as { readonly [name: string]: unknown };
    const fields = this.#fields;
    fields.begin(object, text);
    this.#line = line;
    this.#text = text;
    this.tsNs = this.#time(object['ts']);
    this.#tid = fields.int32('tid');
    this.#pid = fields.has('pid') ? fields.int32('pid') : 0;
    const record = this.#record(fields.string('ev'));
    return fields.problem ?? record;
  }

  /** A clock of more than 2^53 ns (104 days) does not fit JSON.parse's doubles: its digits are read again. */
  #time(value: unknown): U64 {
    if (typeof value === 'number' && value > Number.MAX_SAFE_INTEGER) {
      const digits = /"ts"\s*:\s*([0-9]{1,20})\s*[,}]/.exec(this.#text)?.[1];
      if (digits !== undefined && BigInt(digits) < 1n << 64n) return BigInt(digits);
    }
    if (typeof value === 'number' && value < 0) this.#fields.fail('ts', 'must not be negative');
    return this.#fields.u64('ts');
  }

  #record(ev: string): Rec {
    switch (ev) {
      case 'enter':
        return this.#enter();
      case 'exit':
        return this.#exit();
      case 'fork': {
        const child = this.#fields.int32('child');
        if (child <= 0) this.#fields.fail('child', 'must be the tid of the new task, above 0');
        return { ev: 'fork', pid: this.#pid, tid: this.#tid, line: this.#line, child };
      }
      case 'call':
        return this.#whole(this.#call(this.#fields.string('call')));
      case 'fault':
        return this.#whole(this.#fault());
      case 'invalidate_start':
        return this.#whole(this.#invalidate('invalidateStart'));
      case 'invalidate_end':
        return this.#whole(this.#invalidate('invalidateEnd'));
      case 'mirror_map':
        return this.#whole(this.#mirrorMap());
      case 'mirror_unmap':
        return this.#whole({ kind: 'mirrorUnmap', ...this.#head(), ...this.#mirror(), ...this.#range() });
      case 'mirror_invalidate': {
        const range = this.#range();
        const notifierSeq = this.#u64OrNull('seq');
        return this.#whole({ kind: 'mirrorInvalidate', ...this.#head(), ...this.#mirror(), ...range, notifierSeq });
      }
      case 'mirror_end':
        return this.#whole({ kind: 'mirrorEnd', ...this.#head(), ...this.#mirror() });
      case 'exit_task':
        return this.#whole({ kind: 'exit', ...this.#head(), call: 'exit', status: 0 });
      default:
        this.#fields.fail('ev', `is of an unknown kind: ${JSON.stringify(ev.slice(0, 40))}`);
        return this.#whole({ kind: 'signal', ...this.#head(), text: '' });
    }
  }

  #head(): DraftHead {
    return draftHead(this.#pid, this.#tid, this.#line);
  }

  #whole(draft: Draft): Whole {
    return { ev: 'whole', pid: this.#pid, tid: this.#tid, draft };
  }

  #enter(): Enter {
    const f = this.#fields;
    const call = f.string('call');
    const ioctl = call === 'ioctl';
    return {
      ev: 'enter',
      pid: this.#pid,
      tid: this.#tid,
      line: this.#line,
      call,
      fd: ioctl ? f.int32('fd') : -1,
      request: ioctl ? f.int32('req') >>> 0 : 0,
      arg: ioctl ? f.u64('arg') : 0,
      mem: f.bytes('mem'),
      text: ioctl ? '' : this.#text.slice(0, OTHER_TEXT_CHARS),
    };
  }

  #exit(): Exit {
    const f = this.#fields;
    const arg = f.has('arg') ? f.u64('arg') : undefined;
    return {
      ev: 'exit',
      tid: this.#tid,
      line: this.#line,
      call: f.string('call'),
      arg,
      mem: f.bytes('mem'),
      ...f.result(),
    };
  }

  #fault(): Draft {
    const f = this.#fields;
    return {
      kind: 'fault',
      ...this.#head(),
      mm: f.u64('mm'),
      addr: f.u64('addr'),
      flags: f.int32('flags'),
      ret: f.int32('ret'),
    };
  }

  #invalidate(kind: 'invalidateStart' | 'invalidateEnd'): Draft {
    const f = this.#fields;
    return {
      kind,
      ...this.#head(),
      mm: f.u64('mm'),
      ...this.#range(),
      type: f.int32('type'),
      flags: f.has('flags') ? f.int32('flags') : 0,
      owner: this.#u64OrZero('owner'),
    };
  }

  /** `start` and `end`, which lies behind the last byte. */
  #range(): { start: U64; last: U64 } {
    const f = this.#fields;
    const start = f.u64('start');
    const end = f.u64('end');
    if (end <= start) f.fail('end', 'must be above "start"');
    return { start, last: sub(end, 1) };
  }

  #u64OrZero(name: string): U64 {
    return this.#fields.has(name) ? this.#fields.u64(name) : 0;
  }

  #u64OrNull(name: string): U64 | null {
    return this.#fields.has(name) ? this.#fields.u64(name) : null;
  }

  #mirror(): { mirror: U64; mm: U64 } {
    return { mirror: this.#fields.u64('mirror'), mm: this.#fields.u64('mm') };
  }

  #mirrorMap(): Draft {
    const f = this.#fields;
    const range = this.#range();
    if (modPow2(range.start, PAGE_BYTES) !== 0) f.fail('start', 'must be the address of a page');
    if (modPow2(range.last, PAGE_BYTES) !== PAGE_BYTES - 1) f.fail('end', 'must be the end of a page');
    const flags = f.int32('flags');
    if (flags < 1 || flags > MIRROR_FLAGS) f.fail('flags', 'must be the sum of 1 (read), 2 (write) and 4 (atomic)');
    return {
      kind: 'mirrorMap',
      ...this.#head(),
      // In the order of the contract, so that an event is of one shape wherever it was made.
      mirror: f.u64('mirror'),
      driver: f.has('driver') ? f.string('driver').slice(0, DRIVER_CHARS) : '',
      mm: f.u64('mm'),
      ...range,
      flags,
      owner: this.#u64OrZero('owner'),
      memory: this.#u64OrZero('memory'),
      notifierSeq: this.#u64OrNull('seq'),
    };
  }

  #call(call: string): Draft {
    const f = this.#fields;
    const result = f.has('ret') ? f.result() : call === 'mprotect' ? UNKNOWN : SUCCESS;
    const head = { ...this.#head(), enteredAt: 0, ret: result.ret, errno: result.errno, injected: false };
    switch (call) {
      case 'mmap': {
        const a = f.args(6);
        const range = { addr: f.argU64(a, 0), lengthBytes: f.argU64(a, 1) };
        const how = { prot: f.argInt32(a, 2), flags: f.argInt32(a, 3), fd: f.argInt32(a, 4) };
        return { kind: 'mmap', ...head, ...range, ...how, path: '', offset: f.argU64(a, 5) };
      }
      case 'munmap': {
        const a = f.args(2);
        return { kind: 'munmap', ...head, addr: f.argU64(a, 0), lengthBytes: f.argU64(a, 1) };
      }
      case 'mprotect': {
        const a = f.args(3);
        const range = { addr: f.argU64(a, 0), lengthBytes: f.argU64(a, 1) };
        return { kind: 'mprotect', ...head, ...range, prot: f.argInt32(a, 2) };
      }
      case 'madvise': {
        const a = f.args(3);
        const range = { addr: f.argU64(a, 0), lengthBytes: f.argU64(a, 1) };
        return { kind: 'madvise', ...head, ...range, advice: f.argInt32(a, 2) };
      }
      case 'mremap': {
        const a = f.args(4);
        const lengths = { oldLengthBytes: f.argU64(a, 1), newLengthBytes: f.argU64(a, 2) };
        const newAddr = a.length > 4 ? f.argU64(a, 4) : 0;
        return { kind: 'mremap', ...head, addr: f.argU64(a, 0), ...lengths, flags: f.argInt32(a, 3), newAddr };
      }
      case 'openat':
      case 'open':
        return { kind: 'open', ...head, call, path: f.string('path'), flags: O_RDWR, retPath: '' };
      case 'close':
        return { kind: 'close', ...head, fd: f.argInt32(f.args(1), 0), path: '' };
      default:
        return { kind: 'other', ...head, call, text: this.#text.slice(0, OTHER_TEXT_CHARS) };
    }
  }
}

/**
 * Where a line stops being JSON, from 1. The engine's message tells for some errors; for the others it is the
 * longest beginning that only lacks its end, found by halving.
 */
export function jsonErrorColumn(text: string, error: unknown): number {
  const told = /at position (\d+)/.exec(error instanceof Error ? error.message : '')?.[1];
  if (told !== undefined) return Number(told) + 1;
  let good = 0;
  let bad = text.length;
  while (good < bad) {
    const middle = (good + bad + 1) >> 1;
    if (onlyLacksItsEnd(text.slice(0, middle))) good = middle;
    else bad = middle - 1;
  }
  return good + 1;
}

function onlyLacksItsEnd(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch (error) {
    return error instanceof Error && /end of JSON input|Unterminated/.test(error.message);
  }
}
