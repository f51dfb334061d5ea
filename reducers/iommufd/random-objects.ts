import type { FileKind } from '../files/state.js';
import { ev } from '../testing.js';
import { by, DATA, MEMORY, NO_FD, PAGE, SELFTEST, type Does, type Doing } from './random-step.js';
import { type Field, note, struct } from './testing.js';

/** Random calls on objects: those that make them, and what devices, accesses and queues do. */
export const OBJECT_CALLS = {
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
} as const satisfies Record<string, Does>;

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
