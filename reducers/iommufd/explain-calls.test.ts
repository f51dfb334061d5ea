import * as assert from 'uvu/assert';
import { putU64 } from '../../core/bytes.js';
import { suite } from '../../core/testing.js';
import { ARG, Bench, type Field, note, struct } from './testing.js';

const test = suite('iommufd explain calls');
const BUFFER = 0x5000_0000;
const ARRAY = 0x6000_0000;

/** IOAS 1 with a mock device: test device 2, device 3, HWPT 4; IOAS 5 with an area below the aperture of a mock domain. */
function bench(): Bench {
  const b = new Bench();
  b.open();
  b.mmap(BUFFER, 0x10000);
  b.mmap(ARRAY, 0x1000);
  b.mockDomain(b.ioasAlloc());
  b.map(b.ioasAlloc(), BUFFER, 0x4000, 0x4000);
  return b;
}

function ranges(...pairs: readonly (readonly [number, number])[]): Uint8Array {
  const bytes = new Uint8Array(pairs.length * 16);
  pairs.forEach(([start, last], i) => {
    putU64(bytes, i * 16, start);
    putU64(bytes, i * 16 + 8, last);
  });
  return bytes;
}

interface Row {
  readonly rule: string;
  readonly request: number;
  readonly sizeBytes: number;
  readonly fields: readonly Field[];
  readonly array?: Uint8Array;
  readonly says: string;
}

const ROWS: readonly Row[] = [
  {
    rule: 'hw-info.device',
    request: 0x3b8a,
    sizeBytes: 40,
    fields: [[8, 1]],
    says: 'dev_id 1 is IOAS 1 of event 7; the context has device 3',
  },
  {
    rule: 'hwpt-alloc.parent',
    request: 0x3b89,
    sizeBytes: 48,
    fields: [
      [8, 3],
      [12, 99],
    ],
    says: 'pt_id 99 is no object; the context has IOAS 1, 5 and HWPT 4 and no vIOMMU',
  },
  {
    rule: 'hwpt-alloc.flags',
    request: 0x3b89,
    sizeBytes: 48,
    fields: [
      [4, 0x12],
      [8, 3],
      [12, 1],
    ],
    says: 'flags ALLOC_DIRTY_TRACKING|0x10',
  },
  {
    rule: 'reserve.in-use',
    request: 0x3b89,
    sizeBytes: 48,
    fields: [
      [8, 3],
      [12, 5],
    ],
    says: 'a mock domain maps 0x1000000-0x7fffffff only: IOAS 5 has area 0x4000-0x7fff of event 10',
  },
  {
    rule: 'reserve.in-use',
    request: 0x3ba0,
    sizeBytes: 72,
    fields: [
      [4, 1],
      [8, 5],
      [16, 0x7000, 8],
      [24, 0x2000, 8],
    ],
    says: '0x7000-0x8fff: IOAS 5 has area 0x4000-0x7fff of event 10',
  },
  {
    rule: 'dirty-tracking.hwpt',
    request: 0x3b8b,
    sizeBytes: 16,
    fields: [[8, 5]],
    says: 'hwpt_id 5 is IOAS 5 of event 9; the context has HWPT 4',
  },
  {
    rule: 'dirty-tracking.unsupported',
    request: 0x3b8b,
    sizeBytes: 16,
    fields: [[8, 4]],
    says: 'hwpt_id 4 is HWPT 4 of event 8',
  },
  {
    rule: 'iova-ranges.size',
    request: 0x3b84,
    sizeBytes: 32,
    fields: [[4, 1]],
    says: 'num_iovas 0; there are 1',
  },
  {
    rule: 'allow-iovas.in-use',
    request: 0x3b82,
    sizeBytes: 24,
    fields: [
      [4, 1],
      [8, 1],
      [16, ARRAY, 8],
    ],
    array: ranges([0x1000, 0x1ff_ffff]),
    says: '0x1000-0x1ffffff touches 0x0-0xffffff, which is reserved',
  },
  {
    rule: 'allow-iovas.overlap',
    request: 0x3b82,
    sizeBytes: 24,
    fields: [
      [4, 5],
      [8, 2],
      [16, ARRAY, 8],
    ],
    array: ranges([0x1000, 0x1fff], [0x1800, 0x2fff]),
    says: '0x1000-0x1fff, 0x1800-0x2fff',
  },
  {
    rule: 'option.rlimit-busy',
    request: 0x3b87,
    sizeBytes: 24,
    fields: [[16, 1, 8]],
    says: 'the context has IOAS 1 of event 7, test device 2 of event 8, device 3 of event 8, HWPT 4 of event 8, IOAS 5 of event 9',
  },
  {
    rule: 'option.op',
    request: 0x3b87,
    sizeBytes: 24,
    fields: [[8, 7]],
    says: 'op 7',
  },
  {
    rule: 'vfio-ioas.none',
    request: 0x3b88,
    sizeBytes: 12,
    fields: [],
    says: 'the context has IOAS 1 of event 7, test device 2 of event 8, device 3 of event 8, HWPT 4 of event 8, IOAS 5 of event 9',
  },
  {
    rule: 'change-process.user-memory',
    request: 0x3b92,
    sizeBytes: 8,
    fields: [],
    says: 'IOAS 5 has area 0x4000-0x7fff of event 10',
  },
  {
    rule: 'attach.object',
    request: 0x3ba0,
    sizeBytes: 72,
    fields: [
      [4, 10],
      [8, 2],
      [16, 50],
    ],
    says: 'pt_id 50 is no object; the context has IOAS 1, 5 and HWPT 4 and no nested HWPT',
  },
  {
    rule: 'replace.not-attached',
    request: 0x3ba0,
    sizeBytes: 72,
    fields: [
      [4, 19],
      [8, 2],
      [16, 7],
      [20, 4],
    ],
    says: 'op PASID_REPLACE, id 2, pasid 7, pt_id 4, which is HWPT 4 of event 8; its group is attached to HWPT 4 of event 8 for PASID 0',
  },
];

for (const { rule, request, sizeBytes, fields, array, says } of ROWS)
  test(`${rule}: ${says}`, () => {
    const b = bench();
    const mem = array === undefined ? [] : [note(ARRAY, array)];
    const answer = b.ioctl(3, request, struct(sizeBytes, ...fields), { mem, arg: ARG });
    assert.is(answer.rule, rule);
    assert.is(b.said.get(rule), says);
  });

test('an area in the middle of a page is why small pages cannot be asked for', () => {
  const b = bench();
  b.map(5, BUFFER + 0x800, 0x1000, 0x9000);
  assert.is(b.ioctl(3, 0x3b87, struct(24, [4, 1], [12, 5])).rule, 'alignment.in-use');
  assert.is(
    b.said.get('alignment.in-use'),
    'IOAS 5 has area 0x9000-0x9fff of event 11, from byte 0x800 of a page on; multiples of 0x1000 are needed',
  );
});

test('container calls that iommufd does not take', () => {
  const b = bench();
  b.ioctl(3, 0x3b71, struct(32, [0, 32], [4, 7]));
  assert.is(b.said.get('compat-map.argsz'), 'flags 0x7, of which 0x4 is unknown: iommufd takes READ and WRITE only');
  b.ioctl(3, 0x3b72, struct(24, [0, 23]));
  assert.is(b.said.get('compat-unmap.argsz'), 'argsz 0x17; 0x18 are needed');
  b.ioctl(3, 0x3b75, struct(48, [0, 48]));
  assert.is(b.said.get('compat.number'), 'VFIO_IOMMU_DIRTY_PAGES on /dev/iommu');
});
