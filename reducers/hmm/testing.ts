import { Bytes, putU64 } from '../../core/bytes.js';
import { hashCanonical } from '../../core/canonical.js';
import type { Event, IoctlEvent } from '../../core/event.js';
import type { Finding, Invariant } from '../../core/invariant.js';
import type { U64 } from '../../core/u64.js';
import type { Verdict } from '../call.js';
import { unknownReason } from '../compare.js';
import { Reducer } from '../dispatch.js';
import { families } from '../families.js';
import { ev } from '../testing.js';
import { Tx } from '../tx.js';
import { emptyWorld, type World } from '../world.js';

/** Where tests keep the struct of a call, and the buffer that it points to (1 MiB). */
const ARG = 0x7f10_0000_0000;
export const BUFFER = 0x7f20_0000_0000;
/** Mirrored memory: 1 MiB, without huge pages. */
export const MEMORY = 0x2000_0000;
export const PAGE = 4096;
const MIB = 1 << 20;

export const READ = 0;
export const WRITE = 1;
export const TO_DEV = 2;
export const TO_SYS = 3;
export const SNAPSHOT = 4;
export const EXCLUSIVE = 5;
export const CHECK_EXCLUSIVE = 6;
export const RELEASE = 7;
export const FLAGS = 8;

/** What the model says to one ioctl, and how the call ends in the recording when it is not told: as the model says. */
export interface Answer {
  readonly verdict: Verdict;
  readonly errno: string;
  readonly rule: string;
  readonly cpages: U64;
  readonly faults: U64;
  readonly unknown: string;
}

/** The struct of a command; `cpages` as the kernel writes it back. */
export function command(addr: U64, npages: U64, ptr: U64 = BUFFER, cpages: U64 = 0): Bytes {
  const bytes = new Uint8Array(40);
  putU64(bytes, 0, addr);
  putU64(bytes, 8, ptr);
  putU64(bytes, 16, npages);
  putU64(bytes, 24, cpages);
  return new Bytes(bytes);
}

export function ioctl(fd: number, nr: number, struct: Bytes, fields: Partial<IoctlEvent> = {}): IoctlEvent {
  const note = Object.freeze([Object.freeze({ addr: ARG, bytes: struct })]);
  return ev('ioctl', { fd, request: (0xc028_4800 + nr) >>> 0, arg: ARG, memIn: note, ...fields });
}

/**
 * A process known from its execve on, which touches memory by MADV_POPULATE_* only, with mirrored memory, a buffer and
 * files of the four devices open as fd 3 to 6.
 */
export class Lab {
  world: World = emptyWorld();
  readonly findings: Finding[] = [];
  readonly #reducer = new Reducer(families);
  readonly #invariants: readonly Invariant<World>[];
  #seq = 0;
  /** The same events in one transaction. */
  readonly #batch = new Tx(emptyWorld());
  readonly #batchReducer = new Reducer(families);

  constructor(invariants: readonly Invariant<World>[] = []) {
    this.#invariants = invariants;
    this.feed(ev('exec'));
    this.feed(ev('brk', { ret: 0x5555_0000_0000 }));
    this.feed(ev('mmap', { lengthBytes: MIB, ret: ARG }));
    this.feed(ev('mmap', { lengthBytes: MIB, ret: BUFFER }));
    this.feed(ev('madvise', { addr: BUFFER, lengthBytes: MIB, advice: 23 }));
    this.feed(ev('mmap', { addr: MEMORY, lengthBytes: MIB, flags: 0x32, ret: MEMORY }));
    this.feed(ev('madvise', { addr: MEMORY, lengthBytes: MIB, advice: 15 }));
    for (let minor = 0; minor < 4; minor++) this.open(minor);
  }

  /** The `seq` of the next event. */
  get next(): number {
    return this.#seq;
  }

  open(minor: number): void {
    this.feed(ev('open', { path: `/dev/hmm_dmirror${minor}`, ret: this.#openFds++ }));
  }
  #openFds = 3;

  feed(event: Event): Verdict | undefined {
    const entered = 'enteredAt' in event && event.enteredAt === 0 ? { enteredAt: this.#seq } : {};
    const numbered = { ...event, seq: this.#seq, ...entered } as Event;
    this.#seq++;
    this.#batchReducer.reduce(this.#batch, numbered);
    const before = this.world;
    const tx = new Tx(before);
    const verdict = this.#reducer.reduce(tx, numbered);
    this.world = tx.commit();
    for (const invariant of this.#invariants) {
      if (!invariant.kinds.includes(numbered.kind)) continue;
      if (invariant.concerns !== undefined && !invariant.concerns(before, numbered)) continue;
      this.findings.push(...invariant.check(before, numbered, this.world));
    }
    return verdict;
  }

  /** Hashes of the state as reached event by event, and in one batch. The lab must not be used afterwards. */
  hashes(): readonly [string, string] {
    return [hashCanonical(this.world), hashCanonical(this.#batch.commit())];
  }

  /** One ioctl on a device; it succeeds in the recording unless `errno` says otherwise. */
  ask(minor: number, nr: number, struct: Bytes, errno = '', caller: Partial<IoctlEvent> = {}): Answer {
    const verdict = this.feed(ioctl(3 + minor, nr, struct, { ...caller, ...(errno === '' ? {} : { ret: -1, errno }) }));
    const { call } = this.#reducer;
    const out = (offset: number): U64 => call.outs.find((o) => o.addr === ARG + offset)?.bytes.u64(0) ?? 0;
    return {
      verdict: verdict ?? 'unknown',
      errno: call.predictedErrno,
      rule: call.rule,
      cpages: out(24),
      faults: out(32),
      unknown: unknownReason(call),
    };
  }

  /** What SNAPSHOT tells of some pages; the recording tells the same. */
  snapshot(minor: number, addr: U64, npages: number, caller: Partial<IoctlEvent> = {}): readonly number[] {
    const told = (bytes: Bytes): IoctlEvent => {
      const notes = [
        { addr: ARG, bytes: command(addr, npages, BUFFER, npages) },
        { addr: BUFFER, bytes },
      ];
      return ioctl(3 + minor, SNAPSHOT, command(addr, npages), { memOut: notes, ...caller });
    };
    const seq = this.#seq;
    this.#reducer.reduce(new Tx(this.world), { ...told(new Bytes(new Uint8Array(npages))), seq, enteredAt: seq });
    const bytes = this.#reducer.call.outs.find((o) => o.addr === BUFFER)?.bytes;
    if (bytes === undefined) return [];
    this.feed(told(bytes));
    return [...bytes.toUint8Array()];
  }

  populate(addr: U64, npages: number, write: boolean): void {
    this.feed(ev('madvise', { addr, lengthBytes: npages * PAGE, advice: write ? 23 : 22 }));
  }
}
