import fc from 'fast-check';
import type { MemNote } from '../../core/event.js';
import type { FileKind, Process } from '../files/state.js';
import { ev } from '../testing.js';
import type { IommuObject, ObjectType } from './state.js';
import { Bench, type CallOptions, type Field, note, struct } from './testing.js';

/**
 * Random use of /dev/iommu, for tests: every command and operation, by several processes on several contexts, which are
 * forked, passed on, closed and mapped in any order. Most calls name objects that exist, so that they get far; with `wild`
 * numbers they do not.
 */
export interface Step {
  readonly kind: keyof typeof KINDS;
  readonly a: number;
  readonly b: number;
  readonly c: number;
  readonly wild: boolean;
  /** 0 for what the model predicts; else what is recorded instead. */
  readonly answer: number;
}

const MEMORY = 0x1000_0000;
const MEMORY_BYTES = 0x10_0000;
const DATA = 0x6000_0000;
const APERTURE = 0x100_0000;
const PAGE = 0x1000;
const SELFTEST = 0xdeadbeef;
const NO_FD = 90;

export function steps(answer: fc.Arbitrary<number>, maxLength: number): fc.Arbitrary<Step[]> {
  const small = fc.nat(15);
  const kinds = Object.keys(KINDS) as Step['kind'][];
  const step = fc.record({
    kind: fc.constantFrom(...kinds.flatMap((kind) => (ENDS.has(kind) ? [kind] : [kind, kind, kind, kind]))),
    a: small,
    b: small,
    c: small,
    wild: fc.integer({ min: 0, max: 9 }).map((value) => value === 0),
    answer,
  });
  return fc.array(step, { maxLength, size: 'max' });
}

/** Answers for {@link steps}: what the model says; and now and then a failure for want of memory. */
export const PREDICTED: fc.Arbitrary<number> = fc.integer({ min: 0, max: 9 }).map((value) => (value === 0 ? 1 : 0));
/** Answers that contradict the model as they like. */
export const ANY_ANSWER: fc.Arbitrary<number> = fc.nat(4);

/** What takes much away is rarer. */
const ENDS: ReadonlySet<string> = new Set([
  'destroy',
  'destroy device',
  'close',
  'exit',
  'open',
  'fork',
  'pass',
  'reserve',
]);

const ANSWERS = [
  undefined,
  { ret: -1, errno: 'ENOMEM' },
  { ret: 0, errno: '' },
  { ret: -1, errno: 'ENOENT' },
  { ret: 4, errno: '' },
] as const;

/** A vIOMMU that a device is in, with all that it can have, and what other calls need to succeed. */
const BEGINNING: readonly (readonly [kind: Step['kind'], a: number, b: number])[] = [
  ['ioas', 0, 0],
  ['mock', 0, 0],
  ['hwpt', 0, 2],
  ['viommu', 0, 1],
  ['vdevice', 0, 0],
  ['veventq', 0, 1],
  ['nested', 0, 2],
  ['replace', 0, 3],
  ['ioas', 0, 0],
  ['map', 0, 0],
  ['map', 1, 0],
  ['access', 1, 1],
];

/** A process with memory, a file of pages and two contexts, which does what the steps say. */
export class RandomUser {
  readonly bench: Bench = new Bench();

  constructor() {
    const { bench } = this;
    bench.open(3);
    bench.open(4);
    bench.mmap(MEMORY, MEMORY_BYTES);
    bench.mmap(DATA, 0x1000);
    bench.event(ev('open', { call: 'memfd_create', path: 'memory', ret: 5, retPath: '/memfd:memory (deleted)' }));
    bench.event(ev('other', { call: 'ftruncate', text: `5, ${MEMORY_BYTES}` }));
    for (const [kind, a, b] of BEGINNING) this.run({ kind, a, b, c: 4, wild: false, answer: 0 });
  }

  run(step: Step): void {
    const processes = [...this.bench.world.processes.values()];
    const process = processes[step.c % Math.max(1, processes.length)];
    if (process !== undefined) KINDS[step.kind](new Doing(this.bench, process, step));
  }
}

/** One step of one process: what it means in the state that is there. */
class Doing {
  readonly bench: Bench;
  readonly process: Process;
  readonly step: Step;
  readonly fd: number;
  readonly #context: number;

  constructor(bench: Bench, process: Process, step: Step) {
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

type Does = (doing: Doing) => void;

const KINDS = {
  // ---- objects
  ioas: (d) => d.command(0x81, 12, []),
  destroy: (d) => d.command(0x80, 8, [[4, d.step.a]]),
  'destroy device': (d) => d.command(0x80, 8, [[4, d.id(d.step.a, 'selftest')]]),
  hwpt: (d) => {
    const flags = [0, 0, 1, 2, 8, 9, 10, 4][d.step.b & 7] as number;
    const fields: Field[] = [
      [4, flags],
      [8, d.id(d.step.a, 'device')],
      [12, d.id(d.step.b, 'ioas')],
      [40, d.id(d.step.c, 'fault')],
    ];
    d.command(0x89, 48, fields);
  },
  nested: (d) => {
    const fields: Field[] = [
      [4, d.step.b & 12],
      [8, d.id(d.step.a, 'device')],
      [12, d.id(d.step.b, 'viommu', 'hwpt-paging')],
      [24, 0xdead],
      [28, 8],
      [32, DATA, 8],
      [40, d.id(d.step.c, 'fault')],
    ];
    d.command(0x89, 48, fields, d.data());
  },
  fault: (d) => d.command(0x8e, 16, []),
  viommu: (d) => {
    const ids: Field[] = [
      [12, d.id(d.step.a, 'device')],
      [16, d.id(d.step.b, 'hwpt-paging')],
    ];
    d.command(0x90, 40, [[8, SELFTEST], ...ids, [24, 24 * (d.step.b & 1)], [32, DATA, 8]], d.data());
  },
  vdevice: (d) => {
    const ids: Field[] = [
      [4, d.id(d.step.b, 'viommu')],
      [8, d.id(d.step.a, 'device')],
    ];
    d.command(0x91, 24, [...ids, [16, 1 + (d.step.b & 3), 8]]);
  },
  veventq: (d) => {
    const type = d.step.b & 1 ? 0xbeefbeef : 1 + d.step.b;
    d.command(0x93, 32, [
      [8, d.id(d.step.a, 'viommu')],
      [12, type],
      [16, 1 + (d.step.b & 1)],
    ]);
  },
  'hw queue': (d) => {
    const fields: Field[] = [
      [8, d.id(d.step.a, 'viommu')],
      [12, SELFTEST],
      [16, d.step.b & 1],
      [24, d.place(d.step.c), 8],
      [32, 64, 8],
    ];
    d.command(0x94, 40, fields);
  },
  // ---- IOVA space
  map: (d) => {
    const fields: Field[] = [
      [4, 1 + 2 * (1 + (d.step.b % 3))],
      [8, d.id(d.step.a, 'ioas')],
      [16, MEMORY + d.step.b * PAGE, 8],
      [24, PAGE * (1 + (d.step.c & 3)), 8],
      [32, d.place(d.step.c), 8],
    ];
    d.command(0x85, 40, fields);
  },
  'map anywhere': (d) => {
    const fields: Field[] = [
      [4, 6],
      [8, d.id(d.step.a, 'ioas')],
      [16, MEMORY + d.step.b * PAGE, 8],
      [24, PAGE * (1 + (d.step.c & 3)), 8],
    ];
    d.command(0x85, 40, fields);
  },
  'map file': (d) => {
    const fields: Field[] = [
      [4, 6],
      [8, d.id(d.step.a, 'ioas')],
      [12, d.fdOf(d.step.b & 1 ? 'dma-buf' : 'memfd', d.step.c)],
      [16, d.step.c * PAGE, 8],
      [24, PAGE, 8],
    ];
    d.command(0x8f, 40, fields);
  },
  copy: (d) => {
    const fields: Field[] = [
      [4, 6 | (d.step.b & 1)],
      [8, d.id(d.step.b, 'ioas')],
      [12, d.id(d.step.a, 'ioas')],
      [16, PAGE, 8],
      [24, d.place(d.step.b), 8],
      [32, d.place(d.step.c), 8],
    ];
    d.command(0x83, 40, fields);
  },
  unmap: (d) => {
    const length = PAGE * (1 + d.step.b);
    d.command(0x86, 24, [
      [4, d.id(d.step.a, 'ioas')],
      [8, d.place(d.step.c), 8],
      [16, length, 8],
    ]);
  },
  'unmap all': (d) =>
    d.command(0x86, 24, [
      [4, d.id(d.step.a, 'ioas')],
      [16, 2n ** 64n - 1n, 8],
    ]),
  'iova ranges': (d) => {
    d.command(0x84, 32, [
      [4, d.id(d.step.a, 'ioas')],
      [8, d.step.b],
      [16, DATA, 8],
    ]);
  },
  'allow iovas': (d) => {
    const start = d.place(d.step.b * 16);
    const range = note(DATA, struct(16, [0, start, 8], [8, start + 0xf_ffff, 8]));
    d.command(
      0x82,
      24,
      [
        [4, d.id(d.step.a, 'ioas')],
        [8, d.step.c & 1],
        [16, DATA, 8],
      ],
      [range],
    );
  },
  reserve: (d) =>
    d.test(1, d.id(d.step.a, 'ioas'), [
      [16, d.place(d.step.b), 8],
      [24, PAGE, 8],
    ]),
  'huge pages': (d) => {
    d.command(0x87, 24, [
      [4, 1],
      [8, d.step.b & 1, 2],
      [12, d.id(d.step.a, 'ioas')],
      [16, d.step.c & 1, 8],
    ]);
  },
  'rlimit mode': (d) =>
    d.command(0x87, 24, [
      [4, 0],
      [8, d.step.b & 1, 2],
      [16, d.step.c & 1, 8],
    ]),
  'change process': (d) => d.command(0x92, 8, []),
  // ---- devices
  mock: (d) => d.test(12, d.id(d.step.a, 'ioas', 'hwpt-paging'), [[28, [0, 1, 4, 5][d.step.c & 3] as number]]),
  replace: (d) => {
    const to = d.id(d.step.b, 'ioas', 'hwpt-paging', 'hwpt-nested');
    d.test(10, d.id(d.step.a, 'selftest'), [[16, to]]);
  },
  'pasid attach': (d) => pasid(d, 18),
  'pasid replace': (d) => pasid(d, 19),
  'pasid detach': (d) => pasid(d, 20),
  'pasid check': (d) => pasid(d, 21),
  'hw info': (d) =>
    d.command(0x8a, 40, [
      [8, d.id(d.step.a, 'device')],
      [12, d.step.b],
      [16, DATA, 8],
    ]),
  'dirty tracking': (d) =>
    d.command(0x8b, 16, [
      [4, d.step.b & 1],
      [8, d.id(d.step.a, 'hwpt-paging')],
    ]),
  'set dirty': (d) => {
    const fields: Field[] = [
      [24, d.place(d.step.b), 8],
      [32, PAGE, 8],
      [40, PAGE, 8],
      [48, DATA, 8],
    ];
    d.test(13, d.id(d.step.a, 'hwpt-paging'), fields, [note(DATA, Uint8Array.of(1))]);
  },
  'get dirty': (d) => {
    const fields: Field[] = [
      [4, d.id(d.step.a, 'hwpt-paging')],
      [8, d.step.c & 1],
      [16, d.place(d.step.b), 8],
      [24, PAGE, 8],
      [32, PAGE, 8],
      [40, DATA, 8],
    ];
    d.command(0x8c, 48, fields, [note(DATA, Uint8Array.of(0))]);
  },
  invalidate: (d) => {
    const viommu = d.step.b & 1;
    const entry = struct(12, [0, d.step.c & 1], [4, d.step.b & 3], [8, 0]);
    const fields: Field[] = [
      [4, d.id(d.step.a, viommu ? 'viommu' : 'hwpt-nested')],
      [8, DATA, 8],
      [16, SELFTEST],
      [20, viommu ? 12 : 8],
      [24, 1],
    ];
    d.command(0x8d, 32, fields, [note(DATA, entry)]);
  },
  'check map': (d) => {
    const at: Field[] = [
      [16, d.place(d.step.b), 8],
      [24, PAGE, 8],
      [32, MEMORY + d.step.c * PAGE, 8],
    ];
    d.test(3, d.id(d.step.a, 'hwpt-paging'), at);
  },
  'check refs': (d) =>
    d.test(4, 0, [
      [16, PAGE, 8],
      [24, MEMORY + d.step.b * PAGE, 8],
      [32, d.step.c & 3],
    ]),
  'check iotlb': (d) =>
    d.test(14, d.id(d.step.a, 'hwpt-nested'), [
      [16, d.step.b & 3],
      [20, d.step.c],
    ]),
  'check cache': (d) =>
    d.test(16, d.id(d.step.a, 'device'), [
      [16, d.step.b & 3],
      [20, 0],
    ]),
  // ---- accesses
  access: (d) => d.test(5, d.id(d.step.a, 'ioas'), [[20, d.step.b & 1]]),
  pin: (d) => {
    const flags = d.step.b & 1 ? 0x1_0000 : 0;
    const at = flags ? d.step.c : d.place(d.step.c);
    d.test(7, d.fdOf('iommufd-access', d.step.a), [
      [16, flags],
      [24, at, 8],
      [32, PAGE * (1 + (d.step.b & 3)), 8],
    ]);
  },
  unpin: (d) => d.test(6, d.fdOf('iommufd-access', d.step.a), [[16, d.step.b]]),
  'read write': (d) => {
    const fields: Field[] = [
      [16, d.place(d.step.c), 8],
      [24, 16, 8],
      [32, DATA, 8],
      [40, d.step.b & 5],
    ];
    d.test(8, d.fdOf('iommufd-access', d.step.a), fields, d.data());
  },
  'move access': (d) => d.test(11, d.fdOf('iommufd-access', d.step.a), [[16, d.id(d.step.b, 'ioas')]]),
  // ---- events
  'page request': (d) => {
    d.test(15, 0, [
      [16, d.id(d.step.a, 'device')],
      [20, d.step.b & 1 ? 3 : 0],
      [32, 0x1234, 8],
    ]);
  },
  vevent: (d) => d.test(17, 0, [[16, d.id(d.step.a, 'device')]]),
  'read faults': (d) => io(d, 'read', 'iommufd-fault', 40 * (1 + (d.step.b & 3))),
  'answer faults': (d) => io(d, 'write', 'iommufd-fault', 8),
  'read events': (d) => io(d, 'read', 'iommufd-veventq', 8 * (1 + d.step.b)),
  // ---- dma-bufs
  'dma-buf': (d) =>
    d.test(22, 0, [
      [16, PAGE],
      [20, 2],
    ]),
  revoke: (d) =>
    d.test(23, 0, [
      [16, d.fdOf('dma-buf', d.step.a)],
      [20, d.step.b & 1],
    ]),
  // ---- VFIO's container calls
  'vfio ioas': (d) =>
    d.command(0x88, 12, [
      [4, d.id(d.step.a, 'ioas')],
      [8, d.step.b % 3, 2],
    ]),
  'vfio extension': (d) => d.call(0x3b65, null, [], d.step.b),
  'vfio set iommu': (d) => d.call(0x3b66, null, [], d.step.b & 3),
  'vfio info': (d) => d.call(0x3b70, struct(120)),
  'vfio map': (d) => {
    const fields: Field[] = [
      [4, d.step.b & 3],
      [8, MEMORY + d.step.b * PAGE, 8],
      [16, d.place(d.step.c), 8],
      [24, PAGE * 4, 8],
    ];
    d.call(0x3b71, struct(32, ...fields));
  },
  'vfio unmap': (d) => d.call(0x3b72, struct(24, [8, d.place(d.step.c), 8], [16, PAGE * (1 + d.step.b), 8])),
  'vfio unmap all': (d) => d.call(0x3b72, struct(24, [4, 2])),
  // ---- files, processes, memory
  open: (d) => d.bench.event(ev('open', { ...by(d), path: '/dev/iommu', flags: 2, ret: 20 + d.step.a })),
  close: (d) => close(d, d.fd),
  'close access': (d) => close(d, d.fdOf('iommufd-access', d.step.a)),
  'close faults': (d) => close(d, d.fdOf('iommufd-fault', d.step.a)),
  'close events': (d) => close(d, d.fdOf('iommufd-veventq', d.step.a)),
  dup: (d) => {
    const to = 40 + d.step.a;
    if (d.fd !== NO_FD) d.bench.event(ev('dup', { ...by(d), fd: d.fd, newFd: to, ret: to }));
  },
  fork: (d) => d.bench.event(ev('fork', { ...by(d), ret: 100 + d.step.a, flags: d.step.b & 1 ? 0x400 : 0 })),
  pass: (d) => {
    const path = d.step.b & 1 ? '/dev/iommu' : 'anon_inode:[iommufd-pgfault]';
    d.bench.event(ev('newFds', { ...by(d), call: 'recvmsg', fds: [60 + d.step.a], paths: [path] }));
  },
  exit: (d) => {
    if (d.process.pid !== 1) d.bench.event(ev('exit', by(d)));
  },
  'unmap memory': (d) => {
    d.bench.event(ev('munmap', { ...by(d), addr: MEMORY + d.step.b * PAGE, lengthBytes: PAGE * (1 + (d.step.c & 1)) }));
  },
  'map memory': (d) => {
    const [addr, lengthBytes] = [MEMORY + d.step.b * PAGE, PAGE * 2];
    d.bench.event(ev('mmap', { ...by(d), addr, lengthBytes, ret: addr, flags: 0x32 }));
  },
  'map offer': (d) => {
    if (d.fd === NO_FD) return;
    const addr = 0x7000_0000 + d.step.a * 0x10_0000;
    const mapped = { addr, lengthBytes: 2 * PAGE, ret: addr, flags: 0x11, fd: d.fd, offset: PAGE };
    d.bench.event(ev('mmap', { ...by(d), ...mapped }));
  },
} as const satisfies Record<string, Does>;

function by(d: Doing): { pid: number; tid: number } {
  return { pid: d.process.pid, tid: d.process.pid };
}

function pasid(d: Doing, op: number): void {
  const number = [3, 4, 1024, 1 << 20][d.step.c & 3] as number;
  const to = d.id(d.step.b, 'hwpt-paging', 'hwpt-nested', 'ioas');
  d.test(op, d.id(d.step.a, 'selftest'), [
    [16, number],
    [20, to],
  ]);
}

function io(d: Doing, call: string, kind: FileKind, count: number): void {
  const fd = d.fdOf(kind, d.step.a);
  if (fd === NO_FD) return;
  const data = note(0, struct(8, [0, 1 + (d.step.b & 3)], [4, 0])).bytes;
  const ret = d.step.c & 1 ? count : 0;
  d.bench.event(ev('io', { ...by(d), call, fd, lengthBytes: count, ret, data, addr: DATA }));
}

function close(d: Doing, fd: number): void {
  if (fd !== NO_FD) d.bench.event(ev('close', { ...by(d), fd }));
}
