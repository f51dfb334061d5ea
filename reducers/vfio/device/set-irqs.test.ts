import * as assert from 'uvu/assert';
import { suite } from '../../../core/testing.js';
import { checkRows, type FieldAt, Lab, MDEV, type Row, struct, text } from '../testing.js';
import {
  DEVICE_FEATURE,
  DEVICE_GET_INFO,
  DEVICE_GET_IRQ_INFO,
  DEVICE_SET_IRQS,
  FEATURE_PROBE,
  GROUP_GET_DEVICE_FD,
  IRQ_ACTION_MASK as MASK,
  IRQ_ACTION_TRIGGER as TRIGGER,
  IRQ_ACTION_UNMASK as UNMASK,
  IRQ_DATA_BOOL as BOOL,
  IRQ_DATA_EVENTFD as EVENTFD,
  IRQ_DATA_NONE as NONE,
  IRQ_ERR as ERR,
  IRQ_INTX as INTX,
  IRQ_MSI as MSI,
  IRQ_MSIX as MSIX,
  IRQ_REQ as REQ,
} from '../uapi.js';
import { SET_IRQS_RULES as R } from './irq-request.js';

const test = suite('vfio set irqs');

const NO = 0xffff_ffff;

/** A PCI device with 1 MSI and 5 MSI-X vectors, eventfds 6 and 7, on fd 5. `flags` of MSI-X: 1 can grow, 9 cannot. */
function device(lab: Lab, msixFlags = 1): Lab {
  lab.device();
  lab.eventfd(6);
  lab.eventfd(7);
  for (const [index, flags, count] of [
    [MSI, 9, 1],
    [MSIX, msixFlags, 5],
  ] as const) {
    const out = struct(16, [4, flags], [8, index], [12, count]);
    lab.good(lab.ioctl(5, DEVICE_GET_IRQ_INFO, { in: struct(16, [8, index]), out }));
  }
  return lab;
}

/** flags, index, start, count, then fds. */
function set(lab: Lab, errno: string, head: readonly [number, number, number, number], ...fds: readonly number[]) {
  const fields: FieldAt[] = [
    [4, head[0]],
    [8, head[1]],
    [12, head[2]],
    [16, head[3]],
  ];
  fds.forEach((fd, i) => fields.push([20 + i * 4, fd >>> 0]));
  return lab.ioctl(5, DEVICE_SET_IRQS, { in: struct(20 + fds.length * 4, ...fields), errno });
}

type Head = readonly [number, number, number, number];

function row(
  errno: string,
  rule: Row['rule'],
  head: Head,
  fds: readonly number[] = [],
  before: (l: Lab) => void = noop,
): Row {
  return {
    rule,
    errno,
    run(lab, e) {
      device(lab, 9);
      before(lab);
      return set(lab, e, head, ...fds);
    },
  };
}

const noop = (): void => undefined;
const intxOn = (lab: Lab): void => lab.good(set(lab, '', [EVENTFD | TRIGGER, INTX, 0, 1], 6));
const msixOn = (lab: Lab): void => lab.good(set(lab, '', [EVENTFD | TRIGGER, MSIX, 0, 2], 6, 7));

const rows: readonly Row[] = [
  {
    rule: R.asleep,
    errno: 'EINVAL',
    run: (l, e) => set(asleep(l), e, [EVENTFD | TRIGGER, MSIX, 0, 1], 6),
  },
  { rule: R.asleep, errno: 'EINVAL', run: (l, e) => set(asleep(l), e, [EVENTFD | TRIGGER, MSI, 0, 0]) },
  { rule: R.noVectors, errno: 'ERANGE', run: (l, e) => set(asleep(l), e, [EVENTFD | TRIGGER, MSIX, 0, 0]) },
  {
    rule: R.argsz,
    errno: 'EINVAL',
    run: (l, e) => device(l).ioctl(5, DEVICE_SET_IRQS, { in: struct(20, [0, 19]), errno: e }),
  },
  row('EINVAL', R.header, [NONE | TRIGGER, 5, 0, 1]),
  row('EINVAL', R.header, [NONE | TRIGGER, INTX, 2, 0xffff_fffd]),
  row('EINVAL', R.header, [64 | NONE | TRIGGER, INTX, 0, 1]),
  row('EINVAL', R.range, [NONE | TRIGGER, MSIX, 5, 0]),
  row('EINVAL', R.range, [NONE | TRIGGER, MSIX, 2, 4]),
  row('EINVAL', R.dataType, [TRIGGER, INTX, 0, 1]),
  row('EINVAL', R.dataType, [NONE | BOOL | TRIGGER, INTX, 0, 1]),
  row('EINVAL', R.dataSize, [EVENTFD | TRIGGER, MSIX, 0, 2], [6]),
  row('ENOTTY', R.action, [NONE, INTX, 0, 1]),
  row('ENOTTY', R.action, [NONE | MASK, MSIX, 0, 1]),
  row('ENOTTY', R.action, [NONE | UNMASK, ERR, 0, 1]),
  row('EINVAL', R.otherKind, [EVENTFD | TRIGGER, MSI, 0, 1], [6], intxOn),
  row('EINVAL', R.single, [EVENTFD | TRIGGER, INTX, 0, 0]),
  row('EINVAL', R.notEnabled, [NONE | MASK, INTX, 0, 1]),
  row('EINVAL', R.notEnabled, [NONE | TRIGGER, MSIX, 0, 0]),
  row('ENOTTY', R.maskEventfd, [EVENTFD | MASK, INTX, 0, 1], [6], intxOn),
  row('EBADF', R.badFd, [EVENTFD | TRIGGER, INTX, 0, 1], [9]),
  row('EINVAL', R.notEventfd, [EVENTFD | TRIGGER, MSIX, 0, 1], [3]),
  row('EBUSY', R.unmaskBusy, [EVENTFD | UNMASK, INTX, 0, 1], [7], (lab) => {
    intxOn(lab);
    lab.good(set(lab, '', [EVENTFD | UNMASK, INTX, 0, 1], 6));
  }),
  row('ERANGE', R.noVectors, [EVENTFD | TRIGGER, MSIX, 0, 0]),
  row('EINVAL', R.vector, [EVENTFD | TRIGGER, MSIX, 2, 1], [6], msixOn),
  row('EINVAL', R.triggerNone, [NONE | TRIGGER, REQ, 0, 0]),
  row('EINVAL', R.triggerCount, [EVENTFD | TRIGGER, ERR, 0, 0]),
  row('EINVAL', R.triggerFd, [EVENTFD | TRIGGER, REQ, 0, 1], [-2]),
];

const CONFIG = 7 * 2 ** 40;

/** Config space has told the PM capability, and the device is put into D3. */
function asleep(lab: Lab): Lab {
  const space = struct(256, [0x34, 0x40], [0x40, 1]);
  device(lab).io(5, 'pread64', 256, space, { arg: CONFIG });
  lab.io(5, 'pwrite64', 4, struct(4, [0, 3]), { arg: CONFIG + 0x44 });
  return lab;
}

test('each rejection has its errno, in the kernel order', () => checkRows(R, rows));

test('a rejection names the vectors that were asked for, and what is enabled', () => {
  const lab = device(new Lab());
  assert.is(set(lab, 'EINVAL', [NONE | TRIGGER, MSIX, 2, 4]).looked, 'index 2, start 2, count 4; no index is enabled');
  msixOn(lab);
  assert.is(
    set(lab, 'EINVAL', [EVENTFD | TRIGGER, INTX, 0, 1], 6).looked,
    'index 0, start 0, count 1; index 2 is enabled with 2 vectors',
  );
});

test('answers show how many vectors there are at least and at most', () => {
  const lab = new Lab().device();
  lab.eventfd(6);
  const ask = (errno: string, index: number, start: number, count: number, ...fds: number[]) =>
    set(lab, errno, [EVENTFD | TRIGGER, index, start, count], ...fds);
  assert.is(ask('EINVAL', MSI, 0, 4, 6, 6, 6, 6).verdict, 'unknown');
  assert.is(ask('EINVAL', MSI, 3, 0).rule, R.range.id);
  assert.is(ask('EINVAL', MSI, 0, 2, 6, 6).verdict, 'unknown');
  assert.is(ask('EINVAL', MSI, 1, 2, 6, 6).rule, R.range.id);
  assert.is(ask('EBADF', MSI, 0, 1, 9).verdict, 'unknown');
  assert.is(ask('EBADF', MSI, 0, 1, 9).verdict, 'match');
  assert.is(ask('', MSIX, 0, 3, 6, 6, 6).verdict, 'learned');
  lab.good(set(lab, '', [NONE | TRIGGER, MSIX, 0, 0]));
  assert.is(ask('', MSIX, 0, 3, 6, 6, 6).verdict, 'match');
  lab.good(set(lab, '', [NONE | TRIGGER, MSIX, 0, 0]));
  assert.is(ask('EINVAL', INTX, 0, 1, 6).verdict, 'unknown', 'a device without the pin');
  assert.is(ask('EINVAL', INTX, 0, 1, 6).rule, R.range.id);
});

test('the number of MSI vectors is a power of two', () => {
  const ask = (lab: Lab, errno: string, count: number) => set(lab, errno, [NONE | MASK, MSI, 0, count]);
  const few = new Lab().device();
  assert.is(ask(few, 'EINVAL', 8).verdict, 'unknown');
  assert.is(ask(few, 'EINVAL', 5).rule, R.range.id);
  const many = new Lab().device();
  assert.is(ask(many, 'ENOTTY', 5).verdict, 'unknown');
  assert.is(ask(many, 'ENOTTY', 8).verdict, 'match');
});

test('with fewer vectors than asked for nothing is enabled, and their number comes back', () => {
  const lab = device(new Lab());
  const ask = (ret: number) => {
    const fields: FieldAt[] = [
      [4, EVENTFD | TRIGGER],
      [8, MSIX],
      [16, 5],
      ...[20, 24, 28, 32, 36].map((at): FieldAt => [at, 6]),
    ];
    return lab.ioctl(5, DEVICE_SET_IRQS, { in: struct(40, ...fields), ret });
  };
  assert.is(ask(3).verdict, 'learned');
  assert.is(lab.world.devices.get('0000:00:10.0')?.irqs.type, -1);
  assert.is(ask(5).verdict, 'diverge');
  lab.good(set(lab, '', [NONE | TRIGGER, MSIX, 0, 0]));
  assert.is(ask(0).verdict, 'match');
});

test('what the machine has left of interrupts is not known', () => {
  const lab = device(new Lab());
  assert.match(set(lab, 'ENOSPC', [EVENTFD | TRIGGER, MSIX, 0, 1], 6).unknown, /machine has left/);
  assert.match(set(lab, 'ENODEV', [EVENTFD | TRIGGER, INTX, 0, 1], 6).unknown, /machine has left/);
});

test('kinds exclude each other until one is disabled', () => {
  const lab = device(new Lab());
  msixOn(lab);
  lab.good(set(lab, 'EINVAL', [EVENTFD | TRIGGER, INTX, 0, 1], 6));
  lab.good(set(lab, '', [NONE | TRIGGER, MSIX, 0, 0]));
  intxOn(lab);
  lab.good(set(lab, '', [NONE | TRIGGER, INTX, 0, 0]));
  assert.is(lab.world.devices.get('0000:00:10.0')?.irqs.type, -1);
});

test('loopback, masks, and vectors that are added while enabled', () => {
  const lab = device(new Lab());
  msixOn(lab);
  lab.good(set(lab, '', [NONE | TRIGGER, MSIX, 0, 5]));
  lab.good(set(lab, '', [EVENTFD | TRIGGER, MSIX, 4, 1], 6));
  lab.good(set(lab, '', [EVENTFD | TRIGGER, MSIX, 0, 2], NO, NO));
  lab.good(set(lab, '', [NONE | TRIGGER, MSIX, 0, 0]));
  intxOn(lab);
  for (const action of [MASK, UNMASK, TRIGGER]) lab.good(set(lab, '', [NONE | action, INTX, 0, 1]));
});

test('the request trigger stays beside the others, and ends with the device', () => {
  const lab = device(new Lab());
  lab.good(set(lab, '', [EVENTFD | TRIGGER, REQ, 0, 1], 6));
  intxOn(lab);
  lab.good(set(lab, '', [NONE | TRIGGER, REQ, 0, 1]));
  lab.close(5);
  lab.good(lab.ioctl(4, GROUP_GET_DEVICE_FD, { in: text('0000:00:10.0'), ret: 5 }));
  lab.good(set(lab, 'EINVAL', [NONE | TRIGGER, REQ, 0, 1]));
});

test('a failed block enables nothing', () => {
  const lab = device(new Lab());
  lab.good(set(lab, 'EBADF', [EVENTFD | TRIGGER, MSIX, 0, 2], 6, 99));
  intxOn(lab);
});

test('an unasked number of vectors matters only where it decides', () => {
  const lab = new Lab().device();
  lab.eventfd(6);
  assert.is(set(lab, '', [EVENTFD | TRIGGER, MSIX, 0, 1], 6).verdict, 'learned');
  assert.is(lab.world.devices.get('0000:00:10.0')?.irqs.type, MSIX);
  lab.good(set(lab, 'EINVAL', [EVENTFD | TRIGGER, MSI, 0, 1], 6));
});

test('mtty: a bad eventfd drops the one before, and no action is no error', () => {
  const lab = new Lab().device(MDEV);
  lab.eventfd(6);
  lab.good(lab.ioctl(5, DEVICE_FEATURE, { in: struct(8, [4, FEATURE_PROBE | 1]) }));
  assert.is(set(lab, '', [EVENTFD | TRIGGER, INTX, 0, 1], 6).verdict, 'learned');
  lab.good(set(lab, '', [NONE | TRIGGER, INTX, 0, 0]));
  lab.good(lab.ioctl(5, DEVICE_GET_INFO, { in: struct(16), out: struct(16, [4, 2], [8, 9], [12, 5]) }));
  lab.good(set(lab, '', [EVENTFD | TRIGGER, INTX, 0, 1], 6));
  lab.good(set(lab, '', [NONE, INTX, 0, 1]));
  lab.good(set(lab, 'EBADF', [EVENTFD | TRIGGER, INTX, 0, 1], 9));
  lab.good(set(lab, 'EINVAL', [NONE | MASK, INTX, 0, 1]));
  lab.good(set(lab, 'ENOTTY', [NONE | TRIGGER, MSIX, 0, 1]));
});

test('an mtty has no interrupts before its first GET_INFO; an answer that nothing else explains tells whether there was one', () => {
  const lab = new Lab().device(MDEV);
  lab.eventfd(6);
  lab.good(lab.ioctl(5, DEVICE_FEATURE, { in: struct(8, [4, FEATURE_PROBE | 1]) }));
  const info = (errno: string) =>
    lab.ioctl(5, DEVICE_GET_IRQ_INFO, {
      in: struct(16),
      out: errno === '' ? struct(16, [4, 7], [12, 1]) : struct(16),
      errno,
    });
  lab.good(set(lab, 'EINVAL', [EVENTFD | TRIGGER, INTX, 0, 1], 3));
  lab.good(set(lab, 'EINVAL', [NONE | TRIGGER, MSI, 0, 1]));
  assert.match(set(lab, 'EINVAL', [NONE, INTX, 0, 1]).unknown, /GET_INFO/);
  assert.is(info('EINVAL').rule, 'irq-info.index');
  lab.good(set(lab, 'EINVAL', [NONE | TRIGGER, MSIX, 0, 1]));
  lab.good(lab.ioctl(5, DEVICE_GET_INFO, { in: struct(16), out: struct(16, [4, 2], [8, 9], [12, 5]) }));
  lab.good(info(''));
  lab.good(set(lab, 'ENOTTY', [NONE | TRIGGER, MSIX, 0, 1]));
});

test('of a driver that is not known only what all of them refuse is predicted', () => {
  const lab = new Lab();
  lab.foundOpen(5, 'anon_inode:[vfio-device]');
  lab.good(set(lab, 'EINVAL', [64 | NONE | TRIGGER, INTX, 0, 1]));
  lab.good(set(lab, 'EINVAL', [NONE | TRIGGER, INTX, 5, 1]));
  lab.good(set(lab, 'EINVAL', [EVENTFD | TRIGGER, MSI, 0, 2], 6));
  assert.match(set(lab, 'EINVAL', [NONE | TRIGGER, INTX, 0, 1]).unknown, /driver/);
  assert.match(set(lab, 'EINVAL', [NONE | TRIGGER, MSI, 20, 1]).unknown, /driver/);
});

test('what a request did to a device of an unknown driver is not known when the driver is', () => {
  const lab = new Lab().container();
  lab.ioctl(4, GROUP_GET_DEVICE_FD, { ret: 5 });
  lab.eventfd(6);
  assert.is(set(lab, '', [EVENTFD | TRIGGER, MSIX, 0, 1], 6).verdict, 'unknown');
  lab.ioctl(5, DEVICE_GET_IRQ_INFO, { in: struct(16, [8, REQ]), out: struct(16, [4, 9], [8, REQ], [12, 1]) });
  const disabled = set(lab, '', [NONE | TRIGGER, MSIX, 0, 0]);
  assert.match(disabled.unknown, /^interrupts of the device unknown since event/);
});
