import * as assert from 'uvu/assert';
import { Bytes, putU32, putU64 } from '../../core/bytes.js';
import type { Event, MemNote } from '../../core/event.js';
import type { U64 } from '../../core/u64.js';
import type { Verdict } from '../call.js';
import { Reducer } from '../dispatch.js';
import { ev } from '../testing.js';
import { Tx } from '../tx.js';
import { emptyWorld, type World } from '../world.js';
import { iommufdFamilies } from './index.js';
import type { Rule } from './rules.js';

/** A field of a struct: offset, value, and its width in bytes (4 unless given). */
export type Field = readonly [offset: number, value: U64, width?: 1 | 2 | 4 | 8];

/** The bytes of a struct whose first field is its size. */
export function struct(sizeBytes: number, ...fields: Field[]): Uint8Array {
  const bytes = new Uint8Array(sizeBytes);
  putU32(bytes, 0, sizeBytes);
  for (const [offset, value, width = 4] of fields) {
    if (width === 8) putU64(bytes, offset, value);
    else if (width === 4) putU32(bytes, offset, Number(value));
    else for (let i = 0; i < width; i++) bytes[offset + i] = (Number(value) >> (8 * i)) & 0xff;
  }
  return bytes;
}

/** What the model said to a call. */
export interface Answer {
  readonly ret: U64 | -1 | null;
  readonly errno: string;
  readonly rule: string;
  readonly unknown: string;
  readonly verdict: Verdict | undefined;
  /** The predicted value of a 32-bit field of the struct, or what was there before. */
  u32(offset: number): number;
  u64(offset: number): U64;
  /** Predicted bytes anywhere in memory. */
  at(address: U64): Bytes | undefined;
}

export const ARG = 0x7fff_0000;

export interface CallOptions {
  /** Memory that the struct's pointers lead to. */
  readonly mem?: readonly MemNote[];
  /** What the recording says instead of what the model predicts. */
  readonly recorded?: { readonly ret: U64 | -1; readonly errno: string };
  readonly memOut?: readonly MemNote[];
  readonly arg?: U64;
  readonly tid?: number;
  /** The recorded answer may teach a fact that the prediction rests on. */
  readonly learns?: boolean;
}

/**
 * A kernel in the test: one process from its execve on, and calls on fds of it. Each call is reduced
 * twice: once to hear the prediction, which must not depend on the recorded answer, and once with the prediction as
 * the recorded answer.
 */
export class Bench {
  world: World = emptyWorld();
  /** Rules that decided a call. */
  readonly seen: Set<string> = new Set();
  /** The last rejection's particulars, by rule. */
  readonly said: Map<string, string> = new Map();
  /** All events so far, as they were recorded. */
  readonly log: Event[] = [];
  readonly #reducer = new Reducer(iommufdFamilies);
  #seq = 0;

  constructor() {
    this.event(ev('exec', { path: '/bin/test' }));
    // A heap and a place for mappings tell the model where nothing is.
    this.event(ev('brk', { addr: 0, ret: 0x5555_5555_0000 }));
    this.event(ev('mmap', { lengthBytes: 4096, ret: 0x7ffe_0000_0000 }));
    this.mmap(ARG, 0x10000);
  }

  event(event: Event): void {
    const tx = new Tx(this.world);
    this.#reducer.reduce(tx, this.#numbered(event));
    this.world = tx.commit();
  }

  #numbered(event: Event): Event {
    const seq = this.#seq++;
    const numbered = { ...event, seq, ...('enteredAt' in event ? { enteredAt: seq } : {}) };
    this.log.push(numbered);
    return numbered;
  }

  /** Opens /dev/iommu; gives the fd. */
  open(fd = 3): number {
    this.event(ev('open', { path: '/dev/iommu', flags: 2, ret: fd, retPath: '/dev/iommu' }));
    return fd;
  }

  close(fd: number): void {
    this.event(ev('close', { fd }));
  }

  mmap(addr: U64, lengthBytes: U64, more: Partial<Parameters<typeof ev<'mmap'>>[1]> = {}): void {
    this.event(ev('mmap', { addr, lengthBytes, ret: addr, flags: 0x32, ...more }));
  }

  ioctl(fd: number, request: number, bytes: Uint8Array | null, options: CallOptions = {}): Answer {
    const arg = options.arg ?? ARG;
    const memIn: MemNote[] = bytes === null ? [] : [{ addr: arg, bytes: new Bytes(bytes) }];
    memIn.push(...(options.mem ?? []));
    const base = ev('ioctl', {
      fd,
      path: '',
      request,
      arg,
      memIn,
      memOut: options.memOut ?? [],
      tid: options.tid ?? 1,
    });
    const asked = this.#ask({ ...base, ret: 0 });
    const other = options.learns === true ? asked : this.#ask({ ...base, ret: -1, errno: 'EIO' });
    assert.equal(
      [other.ret, other.errno, other.rule, other.unknown],
      [asked.ret, asked.errno, asked.rule, asked.unknown],
    );
    const { ret, errno } = options.recorded ?? { ret: asked.ret ?? 0, errno: asked.errno };
    const tx = new Tx(this.world);
    const verdict = this.#reducer.reduce(tx, this.#numbered({ ...base, ret, errno }));
    this.world = tx.commit();
    if (asked.rule !== '') this.seen.add(asked.rule);
    if (errno !== '') this.said.set(asked.rule, this.#reducer.call.told.text);
    if (errno !== '' && errno === asked.errno)
      assert.is.not(this.said.get(asked.rule), '', `${asked.rule} says nothing`);
    return this.#answer(verdict, bytes ?? new Uint8Array(0), arg);
  }

  #ask(event: Event): { ret: U64 | -1 | null; errno: string; rule: string; unknown: string } {
    const tx = new Tx(this.world);
    this.#reducer.reduce(tx, { ...event, seq: this.#seq });
    const { call } = this.#reducer;
    return { ret: call.predictedRet, errno: call.predictedErrno, rule: call.rule, unknown: call.unknownReason };
  }

  #answer(verdict: Verdict | undefined, before: Uint8Array, arg: U64): Answer {
    const { call } = this.#reducer;
    const after = before.slice();
    const outs = call.outs.filter((out) => out.how !== 'unknown');
    for (const out of outs) {
      const offset = Number(out.addr) - Number(arg);
      if (offset >= 0 && offset + out.bytes.length <= after.length) out.bytes.copyTo(after, offset);
    }
    const struct = new Bytes(after);
    return {
      ret: call.predictedRet,
      errno: call.predictedErrno,
      rule: call.rule,
      unknown: call.unknownReason,
      verdict,
      u32: (offset) => struct.u32(offset),
      u64: (offset) => struct.u64(offset),
      at: (address) => outs.find((out) => out.addr === address)?.bytes,
    };
  }

  // ---- short forms of calls that tests need all the time ----------------------------------------------------

  ioasAlloc(fd = 3): number {
    return this.ioctl(fd, 0x3b81, struct(12)).u32(8);
  }

  map(ioas: number, address: U64, length: U64, iova?: U64, flags = 6, fd = 3): Answer {
    const fixed = iova === undefined ? 0 : 1;
    return this.ioctl(
      fd,
      0x3b85,
      struct(40, [4, flags | fixed], [8, ioas], [16, address, 8], [24, length, 8], [32, iova ?? 0, 8]),
    );
  }

  unmap(ioas: number, iova: U64, length: U64, fd = 3): Answer {
    return this.ioctl(fd, 0x3b86, struct(24, [4, ioas], [8, iova, 8], [16, length, 8]));
  }

  copy(from: number, fromIova: U64, to: number, length: U64, iova?: U64, flags = 6): Answer {
    return this.ioctl(
      3,
      0x3b83,
      struct(
        40,
        [4, flags | (iova === undefined ? 0 : 1)],
        [8, to],
        [12, from],
        [16, length, 8],
        [24, iova ?? 0, 8],
        [32, fromIova, 8],
      ),
    );
  }

  destroy(id: number, fd = 3): Answer {
    return this.ioctl(fd, 0x3b80, struct(8, [4, id]));
  }

  test(op: number, id: number, ...fields: Field[]): Answer {
    return this.ioctl(3, 0x3ba0, struct(72, [4, op], [8, id], ...fields));
  }

  /** A mock device attached to an IOAS or HWPT. */
  mockDomain(ptId: number, flags = 0): { standing: number; hwpt: number; device: number; answer: Answer } {
    const answer = this.test(12, ptId, [28, flags]);
    return { standing: answer.u32(16), hwpt: answer.u32(20), device: answer.u32(24), answer };
  }

  hwptAlloc(device: number, ptId: number, flags = 0, ...fields: Field[]): Answer {
    return this.ioctl(3, 0x3b89, struct(48, [4, flags], [8, device], [12, ptId], ...fields));
  }
}

/** Asserts that a call ended as a rule says. */
export function decidedBy(answer: Answer, errno: string, rule: string): void {
  assert.equal([answer.errno, answer.rule, answer.unknown], [errno, rule, '']);
}

/** Rules that only real IOMMUs break; their rows stand in hardware.test.ts. */
export const REAL_ONLY: readonly string[] = [
  'attach.stage-1',
  'attach.vdevice',
  'domain.read-only',
  'hwpt-alloc.driver',
  'hwpt-alloc.nesting',
  'hwpt-alloc.smmu-data-type',
  'hwpt-alloc.smmu-ste',
  'viommu-alloc.other-iommu',
  'vdevice-alloc.virt-id',
  'vdevice-alloc.streams',
  'hw-queue.size',
  'hw-queue.base',
  'invalidate.driver',
  'invalidate.memory',
  'invalidate.empty',
  'invalidate.entry-fault',
  'invalidate.command',
];

/** Asserts that rows exist for all rules of the tables, but for those that no caller can reach here. */
export function allSeen(seen: ReadonlySet<string>, tables: readonly (readonly Rule[])[]): void {
  const missing = tables.flat().filter((rule) => !seen.has(rule.id) && !REAL_ONLY.includes(rule.id));
  assert.equal(
    missing.map((rule) => rule.id),
    [],
  );
}

export function note(addr: U64, bytes: Uint8Array): MemNote {
  return { addr, bytes: new Bytes(bytes) };
}
