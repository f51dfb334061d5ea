import * as assert from 'uvu/assert';
import { Bytes } from '../../../core/bytes.js';
import { suite } from '../../../core/testing.js';
import { type Answer, checkRows, DATA, type FieldAt, Lab, PCI_DEVICE, type Row, struct } from '../testing.js';
import {
  DEVICE_FEATURE,
  DEVICE_GET_INFO,
  DEVICE_GET_REGION_INFO,
  DEVICE_RESET,
  DEVICE_SET_IRQS,
  FEATURE_SET,
  IOMMU_MAP_DMA,
} from '../uapi.js';
import { REGION_IO_RULES as R } from './region-io.js';

const test = suite('vfio region io');

const REGION = 2 ** 40;
const CONFIG = 7 * REGION;
const ROM = 6 * REGION;
const MSIX_BAR = 3;
const PM = 0x40;

/** Config space with PM and MSI-X capabilities, whose table is the first 80 bytes of BAR 3; BAR 2 is of ports. */
const SPACE = struct(
  256,
  [0, 0x10d3_8086],
  [4, 0x10_0003],
  [8, 0x0200_0000],
  [0x18, 0xc181],
  [0x34, PM],
  [0x3c, 0x0100],
  [PM, 0x5001],
  [0x50, 0x0004_0011],
  [0x54, MSIX_BAR],
);

const SIZES: readonly (readonly [index: number, bytes: number, flags: number])[] = [
  [0, 0x2_0000, 7],
  [1, 0, 0],
  [2, 32, 3],
  [3, 0x4000, 7],
  [6, 0x1_0000, 1],
  [7, 4096, 3],
];

/** A device that has told its regions, and with `seen` its config space. */
function told(lab: Lab, seen = true): Lab {
  lab.device();
  lab.good(lab.ioctl(5, DEVICE_GET_INFO, { in: struct(24), out: struct(24, [4, 3], [8, 9], [12, 5]) }));
  if (seen) read(lab, CONFIG, 256, '', 256, SPACE);
  for (const [index, bytes, flags] of SIZES) {
    const out: FieldAt[] = [
      [4, flags],
      [8, index],
      [16, bytes, 8],
      [24, index * REGION, 8],
    ];
    if (index === MSIX_BAR && !seen) out.push();
    lab.ioctl(5, DEVICE_GET_REGION_INFO, { in: struct(32, [8, index]), out: struct(32, ...out) });
  }
  return lab;
}

function read(lab: Lab, at: number, count: number, errno = '', ret = count, data: Bytes = Bytes.EMPTY): Answer {
  return lab.io(5, 'pread64', count, data, { arg: at, errno, ret });
}

function write(lab: Lab, at: number, count: number, errno = '', value = 0): Answer {
  const bytes = struct(4, [0, value]).slice(0, count);
  return lab.io(5, 'pwrite64', count, bytes, { arg: at, errno });
}

const memoryOff = (lab: Lab): Lab => {
  write(lab, CONFIG + 4, 2, '', 1);
  return lab;
};
const toSleep = (lab: Lab): Lab => {
  write(lab, CONFIG + PM + 4, 2, '', 3);
  return lab;
};

const rows: readonly Row[] = [
  {
    rule: R.noAccess,
    errno: 'EINVAL',
    run(lab, errno) {
      lab.open('/dev/vfio/devices/vfio0', 5);
      return read(lab, CONFIG, 4, errno);
    },
  },
  { rule: R.index, errno: 'EINVAL', run: (l, e) => read(told(l), 9 * REGION, 4, e) },
  { rule: R.config, errno: 'EFAULT', run: (l, e) => read(told(l), CONFIG + 4094, 4, e) },
  { rule: R.config, errno: 'EFAULT', run: (l, e) => write(told(l), CONFIG + 4096, 1, e) },
  { rule: R.bar, errno: 'EINVAL', run: (l, e) => read(told(l), REGION, 4, e) },
  { rule: R.bar, errno: 'EINVAL', run: (l, e) => write(told(l), 0x2_0000, 4, e) },
  { rule: R.romWrite, errno: 'EINVAL', run: (l, e) => write(told(l), ROM, 4, e) },
  { rule: R.vga, errno: 'EINVAL', run: (l, e) => read(told(l), 8 * REGION + 0xa_0000, 4, e) },
  { rule: R.memoryOff, errno: 'EIO', run: (l, e) => read(memoryOff(told(l)), 0, 4, e) },
  { rule: R.memoryOff, errno: 'EIO', run: (l, e) => read(memoryOff(told(l)), ROM, 4, e) },
  { rule: R.memoryOff, errno: 'EIO', run: (l, e) => write(toSleep(told(l)), 4, 4, e) },
  { rule: R.memoryOff, errno: 'EIO', run: (l, e) => read(memoryOff(told(l)), MSIX_BAR * REGION + 0x4c, 8, e) },
];

test('rejections', () => checkRows(R, rows));

test('accesses that work, and how far they go', () => {
  const lab = told(new Lab());
  const done = (answer: Answer): unknown => [answer.rule, answer.ret];
  assert.equal(done(read(lab, CONFIG, 4096)), ['region-io.ok', 4096]);
  assert.equal(done(read(lab, 0x1_fffc, 8, '', 4)), ['region-io.ok', 4]);
  assert.equal(done(read(lab, 9 * REGION, 0)), ['region-io.nothing', 0]);
  memoryOff(lab);
  assert.equal(done(read(lab, 2 * REGION, 4)), ['region-io.ok', 4], 'ports');
  assert.equal(done(read(lab, MSIX_BAR * REGION, 0x50)), ['region-io.ok', 0x50], 'the MSI-X table');
  assert.match(read(memoryOff(told(new Lab(), false)), 2 * REGION, 4).unknown, /I\/O ports/);
  assert.match(read(new Lab().device(), 0, 4).unknown, /GET_REGION_INFO/);
});

test('what follows from a region size is predicted', () => {
  const region = (lab: Lab, index: number, flags: number, size: number): string =>
    lab.ioctl(5, DEVICE_GET_REGION_INFO, {
      in: struct(32, [8, index]),
      out: struct(32, [4, flags], [8, index], [16, size, 8], [24, index * REGION, 8]),
    }).verdict;
  const lab = new Lab().device();
  assert.is(region(lab, 0, 3, 0), 'diverge', 'flags of a BAR that is not there');
  assert.is(region(new Lab().device(), 6, 3, 0x1000), 'diverge', 'a ROM that can be written');
  assert.is(region(new Lab().device(), 0, 0, 0), 'learned');
  const vga = new Lab().device();
  assert.is(region(vga, 8, 3, 0xc_0000), 'learned');
  assert.is(region(vga, 8, 3, 0xb_0000), 'diverge');
  const ports = new Lab().device();
  read(ports, CONFIG, 256, '', 256, SPACE);
  assert.is(region(ports, 2, 7, 32), 'diverge', 'ports that can be mapped');
});

test('in D3 and in low power a BAR cannot be mapped for DMA, nor can MSI-X be enabled in D3; a reset wakes', () => {
  const lab = told(new Lab());
  const at = DATA;
  lab.mmapDevice(at, 0x1000, 5);
  const map = (errno: string) =>
    lab.ioctl(3, IOMMU_MAP_DMA, {
      in: struct(32, [4, 3], [8, at, 8], [16, errno === '' ? 0 : 0x10_0000, 8], [24, 0x1000, 8]),
      errno,
    });
  lab.eventfd(6);
  const enable = (errno: string) =>
    lab.ioctl(5, DEVICE_SET_IRQS, { in: struct(24, [4, 0x24], [8, 2], [16, 1], [20, 6]), errno });
  toSleep(lab);
  assert.match(map('EFAULT').looked, /in D3/);
  lab.good(enable('EINVAL'));
  lab.good(lab.ioctl(5, DEVICE_RESET));
  lab.good(enable(''));
  lab.good(lab.ioctl(5, DEVICE_FEATURE, { in: struct(8, [4, FEATURE_SET | 3]) }));
  assert.match(map('EFAULT').looked, /low power/);
  lab.good(lab.ioctl(5, DEVICE_FEATURE, { in: struct(8, [4, FEATURE_SET | 5]) }));
  lab.good(map(''));
});

test('from D3 the device goes to D0 alone, also by the reset that PCI Express has', () => {
  const express = 0x60;
  const lab = told(new Lab(), false);
  const space = struct(256, [0x34, PM], [PM, 0x6001], [express, 0x0010], [express + 4, 0x1000_0000]);
  read(lab, CONFIG, 256, '', 256, space);
  const power = (state: number) => write(lab, CONFIG + PM + 4, 4, '', state);
  const asleep = () => lab.world.devices.get(PCI_DEVICE)?.asleep;
  power(3);
  power(1);
  assert.is(asleep(), true, 'D1');
  power(0);
  power(2);
  assert.is(asleep(), false, 'D2');
  power(3);
  write(lab, CONFIG + express + 8, 2, '', 0x8000);
  assert.is(asleep(), false, 'a reset');
});

test('the first 256 bytes of config space are there whatever its size, and beyond 4096 there is none', () => {
  const lab = new Lab().device();
  assert.is(read(lab, CONFIG + 252, 4).rule, 'region-io.ok');
  assert.match(read(lab, CONFIG + 252, 8).unknown, /GET_REGION_INFO/);
  assert.is(read(lab, CONFIG + 4092, 8, 'EFAULT').rule, R.config.id);
});

test('config space is put together from pieces, and the first look holds', () => {
  const lab = new Lab().device();
  const piece = (at: number, bytes: number) => read(lab, CONFIG + at, bytes, '', bytes, SPACE.slice(at, bytes));
  for (const [at, bytes] of [
    [0x34, 1],
    [PM, 2],
    [0x50, 4],
    [0x54, 4],
  ] as const)
    piece(at, bytes);
  read(lab, CONFIG + 0x52, 2, '', 2, struct(4, [0, 0x8007]).slice(0, 2));
  const set = (count: number, errno: string) =>
    lab.ioctl(5, DEVICE_SET_IRQS, { in: struct(20, [4, 0x21], [8, 2], [16, count]), errno });
  assert.is(set(6, 'EINVAL').rule, 'set-irqs.range');
  assert.is(lab.world.devices.get(PCI_DEVICE)?.asleep, false);
});

test('an access is put into words', () => {
  const lab = new Lab().device();
  lab.good(lab.ioctl(5, DEVICE_GET_INFO, { in: struct(24), out: struct(24, [4, 3], [8, 10], [12, 5]) }));
  const [head, fields] = [
    32,
    [
      [4, 0xb],
      [8, 9],
      [16, 0x1000, 8],
      [24, 9 * REGION, 8],
    ] as const,
  ];
  const more = struct(head, ...fields, [0, 48]);
  lab.ioctl(5, DEVICE_GET_REGION_INFO, { in: struct(head, [8, 9]), out: more });
  const caps = struct(48, ...fields, [12, 32], [32, 0x1_0002], [40, 3], [44, 1]);
  lab.ioctl(5, DEVICE_GET_REGION_INFO, { in: struct(48, [8, 9]), out: caps });
  const meaning = (at: number, data: Bytes): string => {
    read(lab, at, data.length, '', data.length, data);
    return lab.meaning();
  };
  assert.is(meaning(CONFIG + 4, struct(4)), 'config space 0x4');
  assert.is(meaning(3 * REGION + 0x20, struct(4)), 'BAR 3 0x20');
  assert.is(meaning(ROM, struct(4)), 'ROM 0x0');
  assert.is(meaning(8 * REGION, struct(4)), 'VGA 0x0');
  assert.is(meaning(9 * REGION, struct(4, [0, 4])), 'region 9 0x0 device_state=RESUMING');
});
