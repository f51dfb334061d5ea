import { ev } from '../testing.js';
import { by, DATA, MEMORY, NO_FD, PAGE, type Does, type Doing } from './random-step.js';
import { type Field, note, struct } from './testing.js';

/** Random calls on IOVA spaces, VFIO's container calls, and what happens to files, processes and memory. */
export const SPACE_CALLS = {
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
  /** A command whose struct was not recorded. */
  unseen: (d) => d.call(0x3b80 | ((d.step.a * 3 + d.step.b) % 21), null),
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

function close(d: Doing, fd: number): void {
  if (fd !== NO_FD) d.bench.event(ev('close', { ...by(d), fd }));
}
