import * as assert from 'uvu/assert';
import { suite } from '../../../core/testing.js';
import { checkRows, type FieldAt, Lab, MDEV, struct } from '../testing.js';
import {
  DEVICE_FEATURE,
  DEVICE_GET_GFX_DMABUF,
  DEVICE_GET_INFO,
  DEVICE_GET_IRQ_INFO,
  DEVICE_GET_REGION_INFO,
  DEVICE_QUERY_GFX_PLANE,
  DEVICE_RESET,
  DEVICE_SET_IRQS,
  FEATURE_PROBE,
} from '../uapi.js';
import { DISPLAY_RULES as R } from './display.js';
import { REGION_RULES } from './region.js';

const test = suite('vfio display');

const FRAMEBUFFER = 0x40_0000;

const region = (lab: Lab, index: number, errno: string, out: readonly FieldAt[] = [], bytes = 32) =>
  lab.ioctl(5, DEVICE_GET_REGION_INFO, {
    in: struct(bytes, [8, index]),
    out: struct(bytes, [8, index], ...out),
    errno,
  });

const framebuffer = (offset: number): FieldAt[] => [
  [4, 7],
  [16, FRAMEBUFFER, 8],
  [24, offset, 8],
];

/** A mediated device that its framebuffer has shown to be a display. */
function display(lab: Lab, offset = 0x1000): Lab {
  lab.device(MDEV);
  assert.is(region(lab, 0, '', framebuffer(offset)).verdict, 'learned');
  return lab;
}

const mbochs = (lab: Lab): Lab => display(lab, 0x3000);
const driver = (lab: Lab) => lab.world.devices.get(MDEV)?.driver;

const plane = (lab: Lab, errno: string, flags: number, type = 1, out: readonly FieldAt[] = [], bytes = 64) =>
  lab.ioctl(5, DEVICE_QUERY_GFX_PLANE, {
    in: struct(bytes, [4, flags], [8, type]),
    out: struct(bytes, [4, flags], [8, type], ...out),
    errno,
  });

test('rejections', () => {
  checkRows(R, [
    {
      rule: R.irqs,
      errno: 'EINVAL',
      run: (lab, errno) => display(lab).ioctl(5, DEVICE_SET_IRQS, { in: struct(20, [4, 0x21]), errno }),
    },
    { rule: R.argsz, errno: 'EINVAL', run: (lab, errno) => plane(display(lab), errno, 4, 1, [], 56) },
    { rule: R.flags, errno: 'EINVAL', run: (lab, errno) => plane(display(lab), errno, 2) },
    { rule: R.flags, errno: 'EINVAL', run: (lab, errno) => plane(display(lab), errno, 3) },
    { rule: R.flags, errno: 'EINVAL', run: (lab, errno) => plane(display(lab), errno, 7) },
    { rule: R.flags, errno: 'EINVAL', run: (lab, errno) => plane(mbochs(lab), errno, 4) },
    { rule: REGION_RULES.index, errno: 'EINVAL', run: (lab, errno) => region(display(lab), 9, errno) },
    { rule: REGION_RULES.index, errno: 'EINVAL', run: (lab, errno) => region(mbochs(lab), 16, errno) },
  ]);
});

test('mdpy: regions one after the other, no vectors, the framebuffer as a region', () => {
  const lab = display(new Lab());
  assert.is(driver(lab), 'mdpy');
  lab.good(region(lab, 16, '', framebuffer(0x1000)));
  lab.good(
    region(lab, 7, '', [
      [4, 3],
      [16, 255, 8],
    ]),
  );
  lab.good(region(lab, 1, ''));
  const irq = (errno: string) => lab.ioctl(5, DEVICE_GET_IRQ_INFO, { in: struct(16, [4, 9], [8, 4]), errno });
  assert.match(irq('EINVAL').unknown, /GET_INFO/);
  lab.good(lab.ioctl(5, DEVICE_GET_INFO, { in: struct(24), out: struct(24, [4, 2], [8, 9], [12, 5]) }));
  lab.good(irq(''));
  lab.good(plane(lab, '', 5));
  const shown: FieldAt[] = [
    [12, 0x3432_5258],
    [24, 1024],
    [28, 768],
    [32, 4096],
    [36, FRAMEBUFFER],
    [56, 16],
  ];
  assert.is(plane(lab, '', 4, 1, shown).verdict, 'learned');
  assert.is(plane(lab, '', 4, 1, shown).verdict, 'match');
  lab.good(lab.ioctl(5, DEVICE_GET_GFX_DMABUF, { errno: 'ENOTTY' }));
  lab.good(lab.ioctl(5, DEVICE_FEATURE, { in: struct(8, [4, FEATURE_PROBE | 1]), errno: 'ENOTTY' }));
  lab.good(lab.ioctl(5, DEVICE_RESET));
});

test('mbochs: a region with the EDID, and dma-bufs for the primary plane alone', () => {
  const lab = mbochs(new Lab());
  assert.is(driver(lab), 'mbochs');
  lab.good(lab.ioctl(5, DEVICE_GET_INFO, { in: struct(24), out: struct(24, [4, 2], [8, 10], [12, 5]) }));
  const edid: FieldAt[] = [
    [4, 11],
    [16, 4096, 8],
    [24, 0x2000, 8],
  ];
  lab.good(region(lab, 9, '', [[0, 48], ...edid]));
  lab.good(region(lab, 9, '', [[12, 32], ...edid, [32, 0x1_0002], [40, 1], [44, 1]], 48));
  lab.good(lab.ioctl(5, DEVICE_GET_IRQ_INFO, { in: struct(16, [8, 2]) }));
  lab.good(plane(lab, '', 3));
  lab.good(plane(lab, '', 2, 2));
  assert.match(plane(lab, 'ENOMEM', 2).unknown, /mode/);
  assert.match(lab.ioctl(5, DEVICE_GET_GFX_DMABUF, { in: struct(4, [0, 7]), errno: 'ENOENT' }).unknown, /modes/);
});

test('a plane that is a region shows an mdpy, and no vectors of the request interrupt no PCI device', () => {
  const lab = new Lab().device(MDEV);
  plane(lab, '', 4, 1, [[56, 16]]);
  assert.is(driver(lab), 'mdpy');
  const found = new Lab();
  found.foundOpen(5, 'anon_inode:[vfio-device]');
  found.ioctl(5, DEVICE_GET_IRQ_INFO, { in: struct(16, [8, 4]) });
  assert.is([...found.world.devices.values()][0]?.driver, 'mdev');
});
