import * as assert from 'uvu/assert';
import { suite } from '../../../core/testing.js';
import { checkRows, DATA, type FieldAt, Lab, MDEV, type Row, struct } from '../testing.js';
import {
  DEVICE_FEATURE,
  DEVICE_GET_REGION_INFO,
  FEATURE_DMA_BUF,
  FEATURE_DMA_LOGGING_REPORT as REPORT,
  FEATURE_DMA_LOGGING_START as START,
  FEATURE_DMA_LOGGING_STOP as STOP,
  FEATURE_GET as GET,
  FEATURE_LOW_POWER_ENTRY as LOW_POWER,
  FEATURE_LOW_POWER_ENTRY_WITH_WAKEUP as WAKEUP,
  FEATURE_LOW_POWER_EXIT as EXIT,
  FEATURE_MIG_DATA_SIZE as DATA_SIZE,
  FEATURE_MIG_PRECOPY_INFO_V2 as PRECOPY_V2,
  FEATURE_MIGRATION as MIGRATION,
  FEATURE_PROBE as PROBE,
  FEATURE_SET as SET,
} from '../uapi.js';
import { FEATURE_RULES as R } from './feature.js';
import { DMA_BUF_RULES as B } from './feature-dmabuf.js';
import { LOGGING_RULES as L } from './feature-logging.js';

const test = suite('vfio feature');

const ask = (lab: Lab, errno: string, bytes: number, flags: number, ...fields: readonly FieldAt[]) =>
  lab.ioctl(5, DEVICE_FEATURE, { in: struct(bytes, [4, flags], ...fields), errno });

const on = (errno: string, rule: Row['rule'], bytes: number, flags: number, ...fields: FieldAt[]): Row => ({
  rule,
  errno,
  run(lab, e) {
    lab.device().eventfd(6);
    return ask(lab, e, bytes, flags, ...fields);
  },
});

const rows: readonly Row[] = [
  on('EINVAL', R.argsz, 8, PROBE | LOW_POWER, [0, 7]),
  on('EINVAL', R.flags, 8, 1 << 19),
  on('EINVAL', R.flags, 8, GET | SET | LOW_POWER),
  on('EINVAL', R.noPreCopy, 8, PROBE | PRECOPY_V2),
  on('ENOTTY', R.unsupported, 8, PROBE | 10),
  on('ENOTTY', R.unsupported, 8, PROBE | 13),
  on('ENOTTY', R.unsupported, 16, GET | MIGRATION),
  on('EINVAL', R.operation, 8, PROBE | GET | LOW_POWER),
  on('EINVAL', R.neither, 8, EXIT),
  on('EINVAL', R.dataSize, 12, SET | WAKEUP),
  {
    rule: R.lowPowerAgain,
    errno: 'EINVAL',
    run(lab, e) {
      lab.device().good(ask(lab, '', 8, SET | LOW_POWER));
      return ask(lab, e, 8, SET | LOW_POWER);
    },
  },
  on('EINVAL', R.wakeupFd, 16, SET | WAKEUP, [8, 0xffff_ffff]),
  on('EINVAL', R.wakeupFd, 16, SET | WAKEUP, [8, 3]),
  on('EBADF', R.wakeupBadFd, 16, SET | WAKEUP, [8, 99]),
];

test('each rejection has its errno, in the kernel order', () => checkRows(R, rows));

test('a feature that is refused is named', () => {
  const lab = new Lab().device();
  assert.is(ask(lab, 'ENOTTY', 16, GET | MIGRATION).looked, 'GET of VFIO_DEVICE_FEATURE_MIGRATION');
  assert.is(ask(lab, 'ENOTTY', 8, PROBE | 13).looked, 'PROBE of feature 13');
  const neither = ask(lab, 'EINVAL', 8, PROBE | GET | LOW_POWER);
  assert.is(neither.looked, 'PROBE|GET of VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY');
});

test('low power is entered once and left at any time', () => {
  const lab = new Lab().device();
  lab.good(ask(lab, '', 8, SET | LOW_POWER));
  lab.good(ask(lab, '', 8, SET | EXIT));
  lab.good(ask(lab, '', 8, SET | EXIT));
  lab.eventfd(6);
  lab.good(ask(lab, '', 16, SET | WAKEUP, [8, 6]));
  assert.match(ask(lab, '', 8, SET | LOW_POWER).unknown, /woke up/);
});

test('a feature that the configuration decides is learned by success, and must stay', () => {
  const lab = new Lab().device();
  lab.good(ask(lab, 'ENOTTY', 8, PROBE | FEATURE_DMA_BUF));
  assert.is(ask(lab, '', 8, PROBE | FEATURE_DMA_BUF).verdict, 'learned');
  assert.is(ask(lab, '', 8, PROBE | FEATURE_DMA_BUF).verdict, 'match');
  assert.is(ask(lab, 'ENOTTY', 8, PROBE | FEATURE_DMA_BUF).verdict, 'diverge');
});

function dmaBuf(lab: Lab, errno: string, ...fields: readonly FieldAt[]) {
  const all: FieldAt[] = [[4, GET | FEATURE_DMA_BUF], [8, 1], [20, 1], [32, 0x1000, 8], ...fields];
  return lab.ioctl(5, DEVICE_FEATURE, { in: struct(40, ...all), errno, ret: 7 });
}

/** A device with dma-bufs, whose BAR 1 has 128 KiB. */
function withBar(lab: Lab): Lab {
  lab.device().eventfd(6);
  lab.good(ask(lab, '', 8, PROBE | FEATURE_DMA_BUF));
  const bar = struct(32, [4, 7], [8, 1], [16, 0x2_0000, 8], [28, 0x100]);
  lab.good(lab.ioctl(5, DEVICE_GET_REGION_INFO, { in: struct(32, [8, 1]), out: bar }));
  return lab;
}

test('dma-buf: rejections, and the fd', () => {
  const row = (errno: string, rule: Row['rule'], ...fields: FieldAt[]): Row => ({
    rule,
    errno,
    run: (lab, e) => dmaBuf(withBar(lab), e, ...fields),
  });
  checkRows(B, [
    row('EINVAL', B.header, [20, 0]),
    row('EINVAL', B.header, [16, 1]),
    row('ENODEV', B.bar, [8, 6]),
    row('ENOMEM', B.tooMany, [20, 0x4_0001]),
    row('EINVAL', B.range, [32, 0x800, 8]),
    row('EINVAL', B.total, [32, 1n << 63n, 8]),
    {
      rule: B.ports,
      errno: 'EINVAL',
      run(lab, e) {
        withBar(lab).io(5, 'pread64', 1, struct(4, [0, 1]).slice(0, 1), { arg: 7 * 2 ** 40 + 0x14 });
        return dmaBuf(lab, e, [24, 0xffff_ffff_ffff_f000n, 8], [32, 0x2000, 8]);
      },
    },
    row('EOVERFLOW', B.overflow, [24, 0xffff_ffff_ffff_f000n, 8], [32, 0x2000, 8]),
    row('EINVAL', B.beyond, [24, 0x1_f000, 8], [32, 0x2000, 8]),
  ]);
  const unasked = new Lab().device();
  unasked.good(ask(unasked, '', 8, PROBE | FEATURE_DMA_BUF));
  assert.match(dmaBuf(unasked, 'ENODEV', [32, 0x800, 8]).unknown, /size of the BAR/);
  const lab = withBar(new Lab());
  assert.match(dmaBuf(lab, 'EOVERFLOW', [24, 0xffff_ffff_fff0_0000n, 8]).unknown, /physical memory/);
  lab.good(dmaBuf(lab, ''));
  assert.is([...lab.world.files.values()].filter((file) => file.kind === 'dma-buf').length, 1);
});

/** An mtty, recognised by its migration feature. */
function mtty(lab: Lab): Lab {
  assert.is(ask(lab.device(MDEV), '', 8, PROBE | MIGRATION).verdict, 'learned');
  return lab;
}

test('mtty has migration and DMA logging, and nothing else', () => {
  const lab = mtty(new Lab());
  const has = [1, 2, 6, 7, 8, 9, 12];
  for (let number = 0; number < 16; number++)
    lab.good(ask(lab, has.includes(number) ? '' : 'ENOTTY', 8, PROBE | number));
  const flags = lab.ioctl(5, DEVICE_FEATURE, {
    in: struct(16, [4, GET | MIGRATION]),
    out: struct(16, [4, GET | MIGRATION], [8, 7]),
  });
  assert.is(flags.verdict, 'match');
  const size = (bytes: number) =>
    lab.ioctl(5, DEVICE_FEATURE, {
      in: struct(16, [4, GET | DATA_SIZE]),
      out: struct(16, [4, GET | DATA_SIZE], [8, bytes]),
    });
  assert.is(size(100).verdict, 'diverge', 'no mtty has so much state');
  assert.is(size(60).verdict, 'match');
});

const ranges = (...pairs: readonly (readonly [number | bigint, number | bigint])[]) =>
  struct(
    pairs.length * 16,
    [0, 0],
    ...pairs.flatMap(([a, b], i): FieldAt[] => [
      [i * 16, a, 8],
      [i * 16 + 8, b, 8],
    ]),
  );

function start(lab: Lab, errno: string, count: number, data = ranges([0, 0x1000])) {
  const input = struct(32, [4, SET | START], [8, 4096, 8], [16, count], [24, DATA, 8]);
  return lab.ioctl(5, DEVICE_FEATURE, { in: input, errno, data: { in: data } });
}

const report = (lab: Lab, errno: string, ...fields: readonly FieldAt[]) =>
  ask(lab, errno, 40, GET | REPORT, [16, 0x1000, 8], [24, 4096, 8], [32, DATA, 8], ...fields);

test('DMA logging: rejections', () => {
  checkRows(L, [
    { rule: L.none, errno: 'EINVAL', run: (l, e) => start(mtty(l), e, 0) },
    { rule: L.tooMany, errno: 'E2BIG', run: (l, e) => start(mtty(l), e, 257) },
    { rule: L.aligned, errno: 'EINVAL', run: (l, e) => start(mtty(l), e, 1, ranges([0x800, 0x1000])) },
    {
      rule: L.overflow,
      errno: 'EOVERFLOW',
      run: (l, e) => start(mtty(l), e, 1, ranges([0xffff_ffff_ffff_f000n, 0x2000])),
    },
    { rule: L.overlap, errno: 'EINVAL', run: (l, e) => start(mtty(l), e, 2, ranges([0, 0x2000], [0x1000, 0x1000])) },
    { rule: L.overlap, errno: 'EINVAL', run: (l, e) => start(mtty(l), e, 2, ranges([0x1000, 0x2000], [0x2000, 0])) },
    { rule: L.overlap, errno: 'EINVAL', run: (l, e) => start(mtty(l), e, 2, ranges([0x5000, 0x1000], [0, 0])) },
    {
      rule: L.copyIn,
      errno: 'EFAULT',
      run: (l, e) => ask(mtty(l), e, 32, SET | START, [8, 4096, 8], [16, 1], [24, 0x5000, 8]),
    },
    { rule: L.reportPage, errno: 'EINVAL', run: (l, e) => report(mtty(l), e, [24, 2048, 8]) },
    { rule: L.reportPage, errno: 'EINVAL', run: (l, e) => report(mtty(l), e, [24, 12288, 8]) },
    {
      rule: L.reportOverflow,
      errno: 'EOVERFLOW',
      run: (l, e) => report(mtty(l), e, [8, 0xffff_ffff_ffff_f000n, 8], [16, 0x2000, 8]),
    },
  ]);
  const lab = mtty(new Lab());
  lab.good(start(lab, '', 2, ranges([0, 0x1000], [0x1000, 0x1000])));
  lab.good(start(lab, '', 2, ranges([0x1000, 0x1000], [0x1000, 0])));
  lab.good(report(lab, ''));
  lab.good(ask(lab, '', 8, SET | STOP));
});
