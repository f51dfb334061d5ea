import type { MemNote } from '../../core/event.js';
import type { FileKind, Process } from '../files/state.js';
import type { IommuObject, ObjectType } from './state.js';
import { type Bench, type CallOptions, type Field, note, struct } from './testing.js';

/** What one step of random-calls.ts is made of, for tests. */
export interface Choice {
  readonly a: number;
  readonly b: number;
  readonly c: number;
  /** Numbers mean themselves, and not the n-th thing that there is. */
  readonly wild: boolean;
  /** 0 for what the model predicts; else what is recorded instead. */
  readonly answer: number;
}

export const MEMORY = 0x1000_0000;
export const MEMORY_BYTES = 0x10_0000;
export const DATA = 0x6000_0000;
export const APERTURE = 0x100_0000;
export const PAGE = 0x1000;
export const SELFTEST = 0xdeadbeef;
export const NO_FD = 90;

const ANSWERS = [
  undefined,
  { ret: -1, errno: 'ENOMEM' },
  { ret: 0, errno: '' },
  { ret: -1, errno: 'ENOENT' },
  { ret: 4, errno: '' },
] as const;

/** One step of one process: what it means in the state that is there. */
export class Doing {
  readonly bench: Bench;
  readonly process: Process;
  readonly step: Choice;
  readonly fd: number;
  readonly #context: number;

  constructor(bench: Bench, process: Process, step: Choice) {
    this.bench = bench;
    this.process = process;
    this.step = step;
    this.fd = this.fdOf('iommufd', step.c);
    const entry = bench.world.fdTables.get(process.fdTable)?.fds.get(this.fd);
    this.#context = bench.world.files.get(entry?.file ?? 0)?.object ?? 0;
  }

  /** The n-th fd of a kind that the process has; one that it has not, where there is none. */
  fdOf(kind: FileKind, n: number): number {
    const { fdTables, files } = this.bench.world;
    const all = [...(fdTables.get(this.process.fdTable)?.fds.values() ?? [])];
    const fds = all.filter(({ file }) => files.get(file)?.kind === kind);
    return fds[n % Math.max(1, fds.length)]?.fd ?? NO_FD;
  }

  /** Id of the n-th object of one of the types. */
  id(n: number, ...types: ObjectType[]): number {
    if (this.step.wild) return n;
    const objects: IommuObject[] = [...(this.bench.world.iommufds.get(this.#context)?.objects.values() ?? [])];
    const fit = objects.filter(({ type }) => types.includes(type));
    return fit[n % Math.max(1, fit.length)]?.id ?? n;
  }

  place(n: number): number {
    return (this.step.wild ? 0 : APERTURE) + n * PAGE;
  }

  call(request: number, bytes: Uint8Array | null, mem: readonly MemNote[] = [], arg?: number): void {
    if (this.#context === 0) return;
    const recorded = ANSWERS[this.step.answer];
    const options: CallOptions = {
      mem,
      tid: this.process.pid,
      ...(recorded === undefined ? {} : { recorded }),
      ...(arg === undefined ? {} : { arg }),
    };
    this.bench.ioctl(this.fd, request, bytes, options);
  }

  command(nr: number, sizeBytes: number, fields: Field[], mem?: readonly MemNote[]): void {
    this.call(0x3b00 | nr, struct(sizeBytes, ...fields), mem);
  }

  test(op: number, id: number, fields: Field[], mem?: readonly MemNote[]): void {
    this.command(0xa0, 72, [[4, op], [8, id], ...fields], mem);
  }

  /** A driver's struct of two words at a pointer field. */
  data(): MemNote[] {
    return [note(DATA, struct(24, [0, this.step.b], [4, this.step.a & 1]))];
  }
}

export type Does = (doing: Doing) => void;

export function by(d: Doing): { pid: number; tid: number } {
  return { pid: d.process.pid, tid: d.process.pid };
}
