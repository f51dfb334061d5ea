import * as assert from 'uvu/assert';
import { suite } from '../../../core/testing.js';
import { checkRows, type FieldAt, Lab, MDEV, type Row, struct, text } from '../testing.js';
import {
  DEVICE_ATTACH_IOMMUFD_PT,
  DEVICE_FEATURE,
  DEVICE_GET_INFO,
  DEVICE_GET_IRQ_INFO,
  DEVICE_GET_REGION_INFO,
  DEVICE_IOEVENTFD,
  DEVICE_QUERY_GFX_PLANE,
  DEVICE_RESET,
  FEATURE_PROBE,
  GROUP_GET_DEVICE_FD,
  IOMMU_MAP_DMA,
} from '../uapi.js';
import { DEVICE_RULES as R } from './device.js';
import { DEVICE_INFO_RULES } from './info.js';
import { IOEVENTFD_RULES as E } from './ioeventfd.js';
import { IRQ_INFO_RULES as Q } from './irq-info.js';
import { REGION_RULES as G } from './region.js';

const test = suite('vfio device');

const CONFIG = 7 * 2 ** 40;

const region = (lab: Lab, index: number, errno: string, out: readonly FieldAt[] = [], bytes = 32) =>
  lab.ioctl(5, DEVICE_GET_REGION_INFO, {
    in: struct(bytes, [8, index]),
    out: struct(bytes, [8, index], ...out),
    errno,
  });

test('GET_INFO, GET_REGION_INFO and GET_IRQ_INFO: rejections', () => {
  const info: Row['run'] = (l, e) => l.device().ioctl(5, DEVICE_GET_INFO, { in: struct(15), errno: e });
  checkRows(DEVICE_INFO_RULES, [{ rule: DEVICE_INFO_RULES.argsz, errno: 'EINVAL', run: info }]);
  checkRows(G, [
    { rule: G.argsz, errno: 'EINVAL', run: (l, e) => region(l.device(), 0, e, [], 31) },
    { rule: G.vga, errno: 'EINVAL', run: (l, e) => region(l.device(), 8, e) },
    { rule: G.index, errno: 'EINVAL', run: (l, e) => region(l.device(), 9, e) },
  ]);
  const irq = (l: Lab, index: number, e: string, bytes = 16) =>
    l.ioctl(5, DEVICE_GET_IRQ_INFO, { in: struct(bytes, [8, index]), errno: e });
  checkRows(Q, [
    { rule: Q.argsz, errno: 'EINVAL', run: (l, e) => irq(l.device(), 0, e, 15) },
    { rule: Q.index, errno: 'EINVAL', run: (l, e) => irq(l.device(), 5, e) },
    {
      rule: Q.notExpress,
      errno: 'EINVAL',
      run(lab, e) {
        lab.device().good(
          region(lab, 7, '', [
            [4, 3],
            [16, 256, 8],
            [28, 0x700],
          ]),
        );
        return irq(lab, 3, e);
      },
    },
  ]);
});

test('what a device tells is learned once and must stay true', () => {
  const lab = new Lab().device();
  const bar: FieldAt[] = [
    [4, 7],
    [16, 0x2_0000, 8],
    [28, 0x100],
  ];
  assert.is(region(lab, 1, '', bar).verdict, 'learned');
  assert.is(region(lab, 1, '', bar).verdict, 'match');
  assert.is(
    region(lab, 1, '', [
      [4, 7],
      [16, 0x4_0000, 8],
      [28, 0x100],
    ]).verdict,
    'diverge',
  );
  assert.is(
    region(lab, 2, '', [
      [4, 3],
      [16, 32, 8],
      [28, 0x100],
    ]).verdict,
    'diverge',
    'a wrong offset',
  );
  const info = (regions: number) =>
    lab.ioctl(5, DEVICE_GET_INFO, { in: struct(24), out: struct(24, [4, 3], [8, regions], [12, 5]) });
  assert.is(info(9).verdict, 'learned');
  assert.is(info(10).verdict, 'diverge');
});

test('the MSI-X capability of a BAR is predicted', () => {
  const lab = new Lab().device();
  const some: FieldAt[] = [
    [0, 40],
    [4, 15],
    [16, 0x4000, 8],
    [28, 0x300],
  ];
  assert.is(region(lab, 3, '', some).verdict, 'learned');
  const all: FieldAt[] = [
    [4, 15],
    [12, 32],
    [16, 0x4000, 8],
    [28, 0x300],
  ];
  assert.is(region(lab, 3, '', [...all, [32, 0x1_0003]], 40).verdict, 'match');
  assert.is(region(lab, 3, '', [...all, [32, 0x1_0004]], 40).verdict, 'diverge');
});

test('commands of the core and the driver: rejections', () => {
  checkRows(R, [
    {
      rule: R.noAccess,
      errno: 'EINVAL',
      run(lab, e) {
        lab.open('/dev/vfio/devices/vfio0', 3);
        return lab.ioctl(3, DEVICE_GET_INFO, { in: struct(24), errno: e });
      },
    },
    {
      rule: R.unknownCommand,
      errno: 'ENOTTY',
      run: (l, e) => l.device().ioctl(5, DEVICE_QUERY_GFX_PLANE, { errno: e }),
    },
    {
      rule: R.unknownCommand,
      errno: 'ENOTTY',
      run: (l, e) => l.device().ioctl(5, DEVICE_ATTACH_IOMMUFD_PT, { errno: e }),
    },
    {
      rule: R.unknownCommand,
      errno: 'ENOTTY',
      run: (l, e) => l.device(MDEV).ioctl(5, DEVICE_IOEVENTFD, { in: struct(32), errno: e }),
    },
    {
      rule: R.noReset,
      errno: 'EINVAL',
      run(lab, e) {
        lab.device().good(lab.ioctl(5, DEVICE_GET_INFO, { in: struct(24), out: struct(24, [4, 2], [8, 9], [12, 5]) }));
        return lab.ioctl(5, DEVICE_RESET, { errno: e });
      },
    },
  ]);
  const lab = new Lab().device();
  lab.good(lab.ioctl(5, DEVICE_RESET, { arg: 0 }));
});

/** Config space with an MSI-X table of 5 vectors at offset 0x1000 of BAR 3; then BAR 3 is asked for. */
function withMsix(lab: Lab): Lab {
  const config = struct(64, [0, 0x10d3_8086], [8, 0x0200_0000], [0x34, 0x38], [0x38, 0x0004_0011], [0x3c, 0x1003]);
  lab.device().io(5, 'pread64', 64, config, { arg: CONFIG });
  lab.good(
    region(lab, 3, '', [
      [4, 3],
      [16, 0x4000, 8],
      [28, 0x300],
    ]),
  );
  lab.eventfd(6);
  return lab;
}

function ioeventfd(lab: Lab, e: string, width: number, at: number, fd: number, bar = 3) {
  const fields: FieldAt[] = [
    [4, width],
    [8, bar * 2 ** 40 + at, 8],
    [16, 1, 8],
    [24, fd >>> 0],
  ];
  return lab.ioctl(5, DEVICE_IOEVENTFD, { in: struct(28, ...fields), errno: e });
}

test('ioeventfd: rejections', () => {
  const row = (errno: string, rule: Row['rule'], width: number, at: number, fd: number, bar = 3): Row => ({
    rule,
    errno,
    run: (l, e) => ioeventfd(withMsix(l), e, width, at, fd, bar),
  });
  checkRows(E, [
    {
      rule: E.argsz,
      errno: 'EINVAL',
      run: (l, e) => withMsix(l).ioctl(5, DEVICE_IOEVENTFD, { in: struct(27), errno: e }),
    },
    row('EINVAL', E.flags, 3, 0, 6),
    row('EINVAL', E.fd, 4, 0, -2),
    row('EINVAL', E.notBar, 4, 0, 6, 7),
    row('EINVAL', E.beyond, 4, 0x3ffe, 6),
    row('EINVAL', E.msix, 4, 0x104c, 6),
    row('EINVAL', E.width, 8, 0, 6),
    {
      rule: E.exists,
      errno: 'EEXIST',
      run(lab, e) {
        withMsix(lab).good(ioeventfd(lab, '', 4, 0, 6));
        return ioeventfd(lab, e, 4, 0, 6);
      },
    },
    {
      rule: E.exists,
      errno: 'EEXIST',
      run(lab, e) {
        withMsix(lab).good(ioeventfd(lab, '', 4, 0, lab.eventfd(8)));
        lab.close(8);
        return ioeventfd(lab, e, 4, 0, 6);
      },
    },
    row('ENODEV', E.missing, 4, 0, -1),
    {
      rule: E.limit,
      errno: 'ENOSPC',
      run(lab, e) {
        withMsix(lab);
        for (let i = 0; i < 1000; i++) lab.good(ioeventfd(lab, '', 1, i, 6));
        return ioeventfd(lab, e, 1, 1000, 6);
      },
    },
    row('EBADF', E.badFd, 4, 0x1050, 99),
    row('EINVAL', E.notEventfd, 4, 0, 3),
  ]);
});

test('ioeventfd: what an answer tells of a BAR whose size was not asked', () => {
  const lab = new Lab().device();
  lab.eventfd(6);
  assert.match(ioeventfd(lab, 'EINVAL', 4, 0x100, 6, 0).unknown, /size of BAR 0/);
  lab.good(ioeventfd(lab, 'EINVAL', 8, 0x100, 6, 0));
  assert.is(ioeventfd(lab, '', 4, 0x100, 6, 0).verdict, 'learned');
  assert.is(ioeventfd(lab, '', 4, 0, 6, 0).verdict, 'match');
  assert.match(ioeventfd(lab, 'EINVAL', 4, 8, 6, 0).unknown, /MSI-X/);
  assert.is(ioeventfd(lab, 'EEXIST', 4, 0, 6, 0).verdict, 'match');
  const found = new Lab();
  found.foundOpen(5, 'anon_inode:[vfio-device]');
  ioeventfd(found, 'ENOTTY', 4, 0, 6, 0);
  assert.is([...found.world.devices.values()][0]?.driver, 'mdev');
});

test('a BAR whose memory decoding is off cannot be mapped for DMA', () => {
  const lab = new Lab().device();
  const BAR = 0x7e00_0000_0000;
  lab.mmapDevice(BAR, 0x2000, 5);
  const map = (errno: string) =>
    lab.ioctl(3, IOMMU_MAP_DMA, { in: struct(32, [4, 3], [8, BAR, 8], [16, 0, 8], [24, 0x2000, 8]), errno });
  lab.io(5, 'pwrite64', 2, struct(2).slice(0, 2), { arg: CONFIG + 4 });
  const off = map('EFAULT');
  assert.is(off.verdict, 'match', off.explanation);
  assert.match(off.looked, /memory decoding off/);
  lab.io(5, 'pwrite64', 4, struct(4, [0, 7]), { arg: CONFIG + 4 });
  lab.good(map(''));
});

test('a device found open answers what does not depend on the past', () => {
  const lab = new Lab();
  lab.foundOpen(5, 'anon_inode:[vfio-device]');
  lab.good(lab.ioctl(5, DEVICE_GET_INFO, { in: struct(15), errno: 'EINVAL' }));
  assert.is(
    lab.ioctl(5, DEVICE_GET_INFO, { in: struct(24), out: struct(24, [4, 3], [8, 9], [12, 5]) }).verdict,
    'learned',
  );
});

test('what the driver alone knows is unknown where the driver is', () => {
  const lab = new Lab();
  lab.foundOpen(5, 'anon_inode:[vfio-device]');
  assert.match(region(lab, 12, 'EINVAL').unknown, /GET_INFO/);
  const irq = () => lab.ioctl(5, DEVICE_GET_IRQ_INFO, { in: struct(16), out: struct(16, [4, 7], [12, 1]) });
  const none = lab.ioctl(5, DEVICE_GET_IRQ_INFO, { in: struct(16), errno: 'EINVAL' });
  assert.match(none.unknown, /unknown driver/);
  assert.is(irq().verdict, 'learned');
  assert.is(irq().verdict, 'match');
  assert.match(lab.ioctl(5, DEVICE_FEATURE, { in: struct(8, [4, 11]), errno: 'EINVAL' }).unknown, /feature/);
  assert.is(lab.ioctl(5, DEVICE_FEATURE, { in: struct(8, [4, FEATURE_PROBE | 3]) }).verdict, 'learned');
  assert.is([...lab.world.devices.values()][0]?.driver, 'pci', 'all PCI devices have low power, no others do');
});

test('the capabilities of a region of an unknown driver are learned with the length of their chain', () => {
  const ask = (chain: readonly FieldAt[], index = 3, bytes = 96) => {
    const lab = new Lab();
    lab.foundOpen(5, 'anon_inode:[vfio-device]');
    const out: FieldAt[] = [[4, 15], [12, 32], [16, 0x4000, 8], [24, index * 2 ** 40, 8], ...chain];
    const first = region(lab, index, '', out, bytes);
    return [first.verdict, first.unknown, region(lab, index, '', out, bytes).verdict, lab];
  };
  const [msix, , again, lab] = ask([[32, 0x1_0003]]);
  assert.equal([msix, again], ['learned', 'match']);
  assert.is([...(lab as Lab).world.devices.values()][0]?.driver, 'pci');
  const sparse: FieldAt[] = [
    [32, 0x1_0002],
    [36, 48],
    [48, 0x1_0001],
    [56, 2],
    [64, 0x1000, 8],
    [72, 0x1000, 8],
  ];
  assert.is(ask(sparse)[0], 'learned');
  assert.is(ask([[32, 0x1_0009]])[0], 'unknown', 'a capability of which nobody knows how long it is');
  assert.is(
    ask([
      [32, 0x1_0002],
      [36, 32],
    ])[0],
    'unknown',
    'a chain that runs into itself',
  );
});

test('mediated devices of unknown drivers are learned, mtty is recognised by its config space', () => {
  const lab = new Lab().device(MDEV);
  const out: FieldAt[] = [
    [4, 3],
    [16, 255, 8],
    [28, 0x700],
  ];
  assert.is(region(lab, 7, '', out).verdict, 'learned');
  assert.is(lab.world.devices.get(MDEV)?.driver, 'mtty');
  assert.is(region(lab, 7, '', out).verdict, 'match');
  assert.is(
    region(lab, 0, '', [
      [4, 3],
      [16, 8, 8],
    ]).verdict,
    'match',
  );
  lab.close(5);
  lab.good(lab.ioctl(4, GROUP_GET_DEVICE_FD, { in: text(MDEV), ret: 5 }));
});
