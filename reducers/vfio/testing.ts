import * as assert from 'uvu/assert';
import { Bytes, putU32, putU64 } from '../../core/bytes.js';
import type { Event, MemNote } from '../../core/event.js';
import type { U64 } from '../../core/u64.js';
import type { Verdict } from '../call.js';
import { explain, unknownReason } from '../compare.js';
import { Reducer } from '../dispatch.js';
import { families } from '../families.js';
import { DEFAULT_KERNEL, worldOf } from '../profile.js';
import { ev } from '../testing.js';
import { Tx } from '../tx.js';
import type { World } from '../world.js';
import { patchDevice } from './devices.js';
import type { Rule } from './rules.js';
import type { DeviceDriver } from './state.js';
import { GROUP_GET_DEVICE_FD, GROUP_SET_CONTAINER, IOMMU_MAP_DMA, IOMMU_UNMAP_DMA, SET_IOMMU } from './uapi.js';

/** Where tests keep the structs of calls. */
export const ARG = 0x10_0000;
/** 64 MiB of anonymous memory that {@link Lab} maps readable and writable. */
export const MEMORY = 0x7f00_0000_0000;
/** In there, what structs point to. */
export const DATA = MEMORY + (48 << 20);
export const PCI_DEVICE = '0000:00:10.0';
export const MDEV = '83b8f4f2-509f-382f-3c1e-e6bfe0fa1001';

/** Fields of a struct by offset: `[4, 1]` is a u32, `[8, 1, 8]` a u64. */
export type FieldAt = readonly [at: number, value: U64, bytes?: 4 | 8];

/** A struct whose first field, argsz, is its size unless a field says otherwise. */
export function struct(bytes: number, ...fields: readonly FieldAt[]): Bytes {
  const buffer = new Uint8Array(bytes);
  if (bytes >= 4) putU32(buffer, 0, bytes);
  for (const [at, value, size = 4] of fields) {
    if (size === 8) putU64(buffer, at, value);
    else putU32(buffer, at, Number(value));
  }
  return new Bytes(buffer);
}

export function text(value: string): Bytes {
  return new Bytes(new Uint8Array([...Buffer.from(value, 'latin1'), 0]));
}

export interface Answer {
  readonly verdict: Verdict;
  readonly rule: string;
  readonly errno: string;
  readonly ret: U64 | -1 | null;
  readonly unknown: string;
  readonly looked: string;
  readonly explanation: string;
}

export interface Ask {
  readonly in?: Bytes;
  readonly out?: Bytes;
  readonly arg?: U64;
  readonly ret?: U64 | -1;
  readonly errno?: string;
  readonly data?: { readonly in: Bytes; readonly out?: Bytes };
  /** Process that calls; the one from the beginning unless told otherwise. */
  readonly pid?: number;
  /** Thread that calls, likewise. */
  readonly tid?: number;
}

/** A process that has been recorded from its execve on, and the calls that a test makes in it. */
export class Lab {
  world: World;
  readonly #reducer = new Reducer(families);
  #seq = 0;

  /** `release`: the kernel whose behaviour is asked for. */
  constructor(release = DEFAULT_KERNEL) {
    this.world = worldOf(release);
    this.feed(ev('exec'));
    this.feed(ev('brk', { ret: 0x5555_0000_0000 }));
    this.feed(ev('mmap', { lengthBytes: 64 << 20, ret: MEMORY }));
  }

  feed(event: Event): Verdict | undefined {
    const tx = new Tx(this.world);
    const verdict = this.#reducer.reduce(tx, { ...event, seq: this.#seq, enteredAt: this.#seq } as Event);
    this.#seq++;
    this.world = tx.commit();
    return verdict;
  }

  open(path: string, fd: number): number {
    this.feed(ev('open', { path, flags: 2, ret: fd, retPath: path }));
    return fd;
  }

  /** A file that was open before the recording began; the fd's path shows in a call on it. */
  foundOpen(fd: number, path: string): void {
    this.feed(ev('fcntl', { fd, path, cmd: 3 }));
  }

  eventfd(fd: number): number {
    this.feed(ev('open', { call: 'eventfd2', ret: fd, retPath: 'anon_inode:[eventfd]' }));
    return fd;
  }

  /** Maps a BAR of the device behind an fd. */
  mmapDevice(at: number, lengthBytes: number, fd: number): void {
    this.feed(ev('mmap', { lengthBytes, flags: 1, fd, path: 'anon_inode:[vfio-device]', ret: at }));
  }

  /** Makes a device of another driver, for rules that only that one has. */
  setDriver(name: string, driver: DeviceDriver): void {
    const tx = new Tx(this.world);
    patchDevice(tx, name, { driver });
    this.world = tx.commit();
  }

  close(fd: number): void {
    this.feed(ev('close', { fd }));
  }

  ioctl(fd: number, request: number, ask: Ask = {}): Answer {
    const arg = ask.arg ?? ARG;
    const memIn: MemNote[] = ask.in === undefined ? [] : [{ addr: arg, bytes: ask.in }];
    const out = ask.out ?? ask.in;
    const memOut: MemNote[] = out === undefined ? [] : [{ addr: arg, bytes: out }];
    if (ask.data !== undefined) {
      memIn.push({ addr: DATA, bytes: ask.data.in });
      memOut.push({ addr: DATA, bytes: ask.data.out ?? ask.data.in });
    }
    const errno = ask.errno ?? '';
    return this.#answer(
      ev('ioctl', {
        pid: ask.pid ?? 0,
        ...(ask.tid === undefined ? {} : { tid: ask.tid }),
        fd,
        request,
        arg,
        memIn,
        memOut,
        ret: errno === '' ? (ask.ret ?? 0) : -1,
        errno,
      }),
    );
  }

  io(fd: number, call: 'read' | 'write' | 'pread64' | 'pwrite64', count: number, data: Bytes, ask: Ask = {}): Answer {
    const errno = ask.errno ?? '';
    const ret = errno === '' ? (ask.ret ?? count) : -1;
    const offset = call.startsWith('p') ? (ask.arg ?? 0) : null;
    return this.#answer(ev('io', { fd, call, lengthBytes: count, data, offset, ret, errno }));
  }

  /** What the last call was about, in words. */
  meaning(): string {
    const { call } = this.#reducer;
    return families[call.file.kind]?.meaning?.(call) ?? '';
  }

  /** What a call would answer, which then does not happen. */
  predict(fd: number, request: number, payload: Bytes): { readonly ret: U64 | -1; readonly errno: string } {
    const memIn = [{ addr: ARG, bytes: payload }];
    const event = ev('ioctl', { fd, request, arg: ARG, memIn, memOut: memIn, ret: 0 });
    this.#reducer.reduce(new Tx(this.world), { ...event, seq: this.#seq, enteredAt: this.#seq });
    const { predictedRet, predictedErrno } = this.#reducer.call;
    return { ret: predictedRet ?? 0, errno: predictedErrno };
  }

  #answer(event: Event): Answer {
    const verdict = this.feed(event);
    const { call } = this.#reducer;
    return {
      verdict: verdict ?? 'match',
      rule: call.rule,
      errno: call.predictedErrno,
      ret: call.predictedRet,
      unknown: unknownReason(call),
      looked: call.told.text,
      explanation: JSON.stringify(explain(call)),
    };
  }

  /** A container fd 3 with group 7 on fd 4 and, unless told otherwise, a type1 v2 backend. */
  container(backend: number | null = 3): this {
    this.open('/dev/vfio/vfio', 3);
    this.open('/dev/vfio/7', 4);
    this.good(this.ioctl(4, GROUP_SET_CONTAINER, { in: struct(4, [0, 3]) }));
    if (backend !== null) this.good(this.ioctl(3, SET_IOMMU, { arg: backend }));
    return this;
  }

  /** {@link container} with a device of the group on fd 5. */
  device(name = PCI_DEVICE, backend = 3): this {
    this.container(backend);
    this.good(this.ioctl(4, GROUP_GET_DEVICE_FD, { in: text(name), ret: 5 }));
    return this;
  }

  map(iova: U64, size: U64, fields: readonly FieldAt[] = []): Answer {
    return this.ioctl(3, IOMMU_MAP_DMA, { in: mapStruct(iova, size, fields) });
  }

  unmap(iova: U64, size: U64, gone: U64 = size): Answer {
    return this.ioctl(3, IOMMU_UNMAP_DMA, {
      in: struct(24, [8, iova, 8], [16, size, 8]),
      out: struct(24, [8, iova, 8], [16, gone, 8]),
    });
  }

  good(answer: Answer): void {
    assert.ok(answer.verdict === 'match' || answer.verdict === 'learned', answer.explanation);
  }
}

/** MAP_DMA of the lab's memory, readable and writable; `fields` replace what they name. */
export function mapStruct(iova: U64, size: U64, fields: readonly FieldAt[] = []): Bytes {
  return struct(32, [4, 3], [8, MEMORY, 8], [16, iova, 8], [24, size, 8], ...fields);
}

/** What GET_INFO answers for one group behind a 39-bit IOMMU with the window of the APICs reserved. */
export function infoAnswer(available: number): Bytes {
  return struct(
    120,
    [4, 3],
    [8, 0x4020_1000, 8],
    [16, 24],
    ...([
      [24, 0x1_0002],
      [28, 56],
      [40, 4096, 8],
      [48, 1 << 28, 8],
    ] as const),
    ...([
      [56, 0x1_0003],
      [60, 72],
      [64, available],
    ] as const),
    ...([
      [72, 0x1_0001],
      [80, 2],
      [96, 0xfedf_ffff, 8],
      [104, 0xfef0_0000, 8],
      [112, 2 ** 39 - 1, 8],
    ] as const),
  );
}

/** One row of a table of rejections: the rule, what to do before, and the call. */
export interface Row {
  readonly rule: Rule;
  readonly errno: string;
  readonly run: (lab: Lab, errno: string) => Answer;
}

/**
 * Runs a table of rejections, each in a lab of its own. The recorded errno is the one that the row states, so a rule that
 * is missing, or one that comes too early, gives a divergence. Fails when a rule of the table has no row, and when a
 * rejection does not say what it saw.
 */
export function checkRows(rules: Readonly<Record<string, Rule>>, rows: readonly Row[]): void {
  for (const row of rows) {
    const answer = row.run(new Lab(), row.errno);
    assert.is(answer.rule, row.rule.id, `${row.rule.id}: ${answer.explanation} ${answer.unknown}`);
    assert.is(answer.errno, row.errno, row.rule.id);
    assert.is(answer.verdict, 'match', `${row.rule.id}: ${answer.explanation}`);
    assert.is.not(answer.looked, '', row.rule.id);
  }
  const tested = new Set(rows.map((row) => row.rule.id));
  const missing = Object.values(rules).filter((rule) => !tested.has(rule.id));
  assert.equal(missing, [], 'rules without a row');
}
