import * as assert from 'uvu/assert';
import { Bytes } from '../bytes.js';
import { suite } from '../testing.js';
import { encode } from './encode.js';
import { formatCall, formatNumber } from './format.js';
import { HMM_PFN_OUT } from './hmm.js';
import { findCommand } from './lookup.js';
import type { Plain } from './values.js';

const test = suite('uapi/format');
const AT = 0x7ffd_0000_1000;

function line(kind: string, request: number, values: Plain): string {
  const command = findCommand(kind, request);
  if (command === undefined) throw new Error('no such command');
  return formatCall(kind, request, AT, encode(command, AT, values, 'zero'));
}

const rows: readonly (readonly [kind: string, request: number, values: Plain, text: string])[] = [
  [
    'iommufd',
    0x3b85,
    { ioas_id: 1, flags: 7, user_va: 0x20080000, length: 0x8000, iova: 0x1ee000 },
    'IOMMU_IOAS_MAP {flags=FIXED_IOVA|WRITEABLE|READABLE, ioas_id=1, user_va=0x20080000, length=0x8000, iova=0x1ee000}',
  ],
  [
    'iommufd',
    0x3b85,
    { size: 24, flags: 0x18, ioas_id: 1, __reserved: 2 },
    'IOMMU_IOAS_MAP {size=24, flags=0x18, ioas_id=1, __reserved=2, user_va=0x0}',
  ],
  ['iommufd', 0x3b87, { op: 1, option_id: 1 }, 'IOMMU_OPTION {option_id=HUGE_PAGES, op=GET, object_id=0, val64=0x0}'],
  [
    'iommufd',
    0x3b82,
    {
      ioas_id: 1,
      num_iovas: 9,
      allowed_iovas: { addr: 0x1000, target: Array.from({ length: 9 }, () => ({ start: 1, last: 2 })) },
    },
    `IOMMU_IOAS_ALLOW_IOVAS {ioas_id=1, num_iovas=9, allowed_iovas=0x1000->[${'{start=0x1, last=0x2}, '.repeat(8)}+1]}`,
  ],
  [
    'iommufd',
    0x3ba0,
    { op: 2, args: { mock_domain: { out_stdev_id: 4 } } },
    'IOMMU_TEST_CMD {op=MOCK_DOMAIN, id=0, mock_domain={out_stdev_id=4, out_hwpt_id=0, out_idev_id=0}}',
  ],
  [
    'vfio-device',
    0x3b75,
    { argsz: 16, flags: 0x2_0002, data: { vfio_device_feature_mig_state: { device_state: 4, data_fd: -1 } } },
    'VFIO_DEVICE_FEATURE {argsz=16, flags=MIG_DEVICE_STATE|SET, ' +
      'vfio_device_feature_mig_state={device_state=RESUMING, data_fd=-1}}',
  ],
  [
    'vfio-device',
    0x3b6e,
    { argsz: 24, flags: 0x24, index: 2, count: 1, data: { eventfds: [7] } },
    'VFIO_DEVICE_SET_IRQS {argsz=24, flags=DATA_EVENTFD|ACTION_TRIGGER, index=2, start=0, count=1, eventfds=[7]}',
  ],
  ['vfio-group', 0x3b68, { fd: 5 }, 'VFIO_GROUP_SET_CONTAINER {fd=5}'],
  [
    'dmirror',
    0xc0284804,
    { addr: 0x1000, npages: 2, ptr: { addr: 0x9000, target: [1, 2] } },
    'HMM_DMIRROR_SNAPSHOT {addr=0x1000, ptr=0x9000->[0x1, 0x2], npages=2, cpages=0, faults=0}',
  ],
];
for (const [kind, request, values, text] of rows) {
  test(text.slice(0, 60), () => {
    assert.is(line(kind, request, values), text);
  });
}

test('what was not recorded is a question mark', () => {
  assert.is(formatCall('iommufd', 0x3b80, AT, []), 'IOMMU_DESTROY 0x7ffd00001000 {?}');
  const size = { addr: AT, bytes: Bytes.fromHex('08000000') };
  assert.is(formatCall('iommufd', 0x3b80, AT, [size]), 'IOMMU_DESTROY {id=?}');
});

test('arguments that are no struct', () => {
  assert.is(formatCall('vfio-container', 0x3b66, 3, []), 'VFIO_SET_IOMMU TYPE1v2_IOMMU');
  assert.is(formatCall('vfio-container', 0x3b65, 99, []), 'VFIO_CHECK_EXTENSION 99');
  assert.is(formatCall('vfio-device', 0x3b6f, 0, []), 'VFIO_DEVICE_RESET');
  assert.is(formatCall('iommufd', 0x3bff, 0x10, []), '0x3bff 0x10');
});

test('a text of the traced program cannot drive the terminal', () => {
  const name = { addr: AT, bytes: Bytes.fromHex('303a1b5b326a0a2200') };
  assert.is(formatCall('vfio-group', 0x3b6a, AT, [name]), 'VFIO_GROUP_GET_DEVICE_FD "0:\\x1b[2j\\x0a\\x22"');
});

test('bits above 2^53 have names', () => {
  assert.is(formatNumber(0xc000_0000_0000_1234n, HMM_PFN_OUT), 'VALID|WRITE|0x1234');
  assert.is(formatNumber(0, HMM_PFN_OUT), '0');
});
