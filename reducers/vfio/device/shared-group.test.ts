import * as assert from 'uvu/assert';
import { suite } from '../../../core/testing.js';
import { type Answer, Lab, struct } from '../testing.js';
import { DEVICE_ATTACH_IOMMUFD_PT, DEVICE_BIND_IOMMUFD } from '../uapi.js';

const test = suite('vfio shared group');

/** iommufds on fds 3 and 4, PCI cdevs `vfio0` and `vfio1` on fds 10 and 11, none bound. */
function twoCdevs(): Lab {
  const lab = new Lab();
  lab.open('/dev/iommu', 3);
  lab.open('/dev/iommu', 4);
  for (const n of [0, 1]) {
    lab.open(`/dev/vfio/devices/vfio${n}`, 10 + n);
    lab.setDriver(`vfio${n}`, 'pci');
  }
  return lab;
}

function bind(lab: Lab, fd: number, iommufd: number, id: number, errno = ''): Answer {
  const out = struct(16, [8, iommufd], [12, errno === '' ? id : 0]);
  return lab.ioctl(fd, DEVICE_BIND_IOMMUFD, { in: struct(16, [8, iommufd]), out, errno });
}

/** Attaches to an IOAS; `told` is the id of the HWPT that comes back. */
function attach(lab: Lab, fd: number, ioas: number, told: number, errno = ''): Answer {
  const out = struct(12, [8, errno === '' ? told : ioas]);
  return lab.ioctl(fd, DEVICE_ATTACH_IOMMUFD_PT, { in: struct(12, [8, ioas]), out, errno });
}

const newIoas = (lab: Lab, id: number): void =>
  lab.good(lab.ioctl(3, 0x3b81, { in: struct(12), out: struct(12, [8, id]) }));

test('EPERM of BIND tells that another device is in the same group, which one iommufd owns', () => {
  const lab = twoCdevs();
  lab.good(bind(lab, 10, 3, 1));
  assert.match(bind(lab, 11, 4, 1, 'EPERM').unknown, /shares its group with vfio0/);
  lab.good(bind(lab, 11, 4, 1, 'EPERM'));
  lab.good(bind(lab, 11, 3, 2));
  newIoas(lab, 3);
  newIoas(lab, 4);
  lab.good(attach(lab, 10, 3, 5));
  assert.is(attach(lab, 11, 4, 0, 'EINVAL').rule, 'attach.other-hwpt');
  lab.good(attach(lab, 11, 3, 5));
});

test('EINVAL of ATTACH tells it too, and is predicted from then on', () => {
  const lab = twoCdevs();
  lab.good(bind(lab, 10, 3, 1));
  lab.good(bind(lab, 11, 3, 2));
  newIoas(lab, 3);
  newIoas(lab, 4);
  lab.good(attach(lab, 10, 3, 5));
  assert.match(attach(lab, 11, 4, 0, 'EINVAL').unknown, /shares its group with vfio0/);
  lab.good(attach(lab, 11, 4, 0, 'EINVAL'));
  lab.good(attach(lab, 11, 3, 5));
});

test('EINVAL of ATTACH tells it also of a device whose driver it tells', () => {
  const lab = twoCdevs();
  lab.setDriver('vfio1', 'unknown');
  lab.good(bind(lab, 10, 3, 1));
  lab.good(bind(lab, 11, 3, 2));
  newIoas(lab, 3);
  newIoas(lab, 4);
  lab.good(attach(lab, 10, 3, 5));
  assert.match(attach(lab, 11, 4, 0, 'EINVAL').unknown, /behind an IOMMU/);
  assert.is(attach(lab, 11, 4, 0, 'EINVAL').rule, 'attach.other-hwpt');
});

test('devices of groups that are known to differ share nothing', () => {
  const lab = twoCdevs();
  lab.good(bind(lab, 10, 3, 1));
  for (const [n, fd] of [
    [0, 10],
    [1, 11],
  ] as const) {
    lab.close(fd);
    lab.open(`/dev/vfio/${7 + n}`, 20);
    lab.open(`/dev/vfio/devices/vfio${n}`, fd);
    assert.is(bind(lab, fd, 3, 1, 'EBUSY').verdict, 'unknown');
    lab.close(20);
  }
  lab.good(bind(lab, 10, 3, 1));
  assert.is(bind(lab, 11, 4, 1, 'EPERM').verdict, 'diverge');
});

test('where several devices may be the one, none is named', () => {
  const lab = twoCdevs();
  lab.open('/dev/vfio/devices/vfio2', 12);
  lab.setDriver('vfio2', 'pci');
  lab.good(bind(lab, 10, 3, 1));
  lab.good(bind(lab, 11, 3, 2));
  assert.is(bind(lab, 12, 4, 1, 'EPERM').verdict, 'unknown');
  assert.is(bind(lab, 12, 4, 1, 'EPERM').verdict, 'unknown');
});
