import * as assert from 'uvu/assert';
import { Bytes, putU32, putU64 } from '../bytes.js';
import type { MemNote } from '../event.js';
import { suite } from '../testing.js';
import type { U64 } from '../u64.js';
import { decode } from './decode.js';
import type { DecodedStruct } from './decoded.js';
import { encode } from './encode.js';
import { commandByName } from './lookup.js';
import type { Command } from './types.js';
import { type Plain, valuesOf } from './values.js';

const test = suite('uapi/decode');
const AT = 0x7ffd_0000_1000;

function command(name: string): Command {
  const found = commandByName(name);
  if (found === undefined) throw new Error(`no command ${name}`);
  return found;
}

function note(addr: U64, ...words: readonly number[]): MemNote {
  const bytes = new Uint8Array(words.length * 4);
  words.forEach((word, i) => putU32(bytes, i * 4, word));
  return { addr, bytes: new Bytes(bytes) };
}

function values(name: string, ...notes: readonly MemNote[]): Plain | undefined {
  return valuesOf(decode(command(name), AT, notes));
}

function struct(name: string, ...notes: readonly MemNote[]): DecodedStruct {
  const { value } = decode(command(name), AT, notes);
  if (typeof value !== 'object' || value.kind !== 'struct') throw new Error('no struct');
  return value;
}

test('64-bit fields are exact', () => {
  const map = note(AT, 40, 7, 3, 0, 0xffff_f000, 0x7fff_ffff, 0x2000, 0, 0xffff_f000, 0xffff_ffff);
  assert.equal(values('IOMMU_IOAS_MAP', map), {
    size: 40,
    flags: 7,
    ioas_id: 3,
    __reserved: 0,
    user_va: 0x7fff_ffff_ffff_f000n,
    length: 0x2000,
    iova: 0xffff_ffff_ffff_f000n,
  });
});

test('missing bytes are unknown, fields beyond the struct absent', () => {
  const cut = struct('IOMMU_HWPT_ALLOC', note(AT, 24, 0, 1, 2));
  assert.equal(
    cut.fields.map((f) => `${f.field.name} ${f.knowledge}`),
    [
      'size known',
      'flags known',
      'dev_id known',
      'pt_id known',
      'out_hwpt_id unknown',
      '__reserved unknown',
      'data_type absent',
      'data_len absent',
      'data_uptr absent',
      'fault_id absent',
      '__reserved2 absent',
    ],
  );
  assert.is(decode(command('IOMMU_IOAS_MAP'), AT, []).value, undefined);
  assert.is(decode(command('IOMMU_IOAS_MAP'), AT, [note(AT + 0x1000, 40)]).value, undefined);
});

test('a struct stated in pieces is read as one', () => {
  const pieces = [note(AT + 8, 5, 0, 0x1000), note(AT, 24, 5), note(AT + 16, 0x1000, 0)];
  assert.equal(values('IOMMU_IOAS_UNMAP', ...pieces), { size: 24, ioas_id: 5, iova: 5, length: 0x1000 });
});

test('pointers are followed, counts come from their fields', () => {
  const ranges = note(0x5000, 0x1000, 0, 0x1fff, 0, 0x8000, 0, 0xffff, 0);
  const allow = note(AT, 32, 1, 3, 0, 0x5000, 0);
  const value = struct('IOMMU_IOAS_ALLOW_IOVAS', allow, ranges).fields.at(-1)?.target;
  assert.ok(value && typeof value === 'object' && value.kind === 'array');
  if (value && typeof value === 'object' && value.kind === 'array') {
    assert.is(value.count, 3);
    assert.is(value.items.length, 2);
  }
  assert.is(struct('IOMMU_IOAS_ALLOW_IOVAS', allow).fields.at(-1)?.target, undefined);
  assert.is(struct('IOMMU_IOAS_ALLOW_IOVAS', note(AT, 32, 1, 3, 0, 0, 0)).fields.at(-1)?.target, null);
});

test('the mock devices take the member that op names', () => {
  const cmd = note(AT, 72, 13, 9, 0, 1, 0xaaaa, 0x4000, 0, 0x8000, 0, 0x800, 0, 0x6000, 0, 0, 0, 0, 0);
  assert.equal(values('IOMMU_TEST_CMD', cmd, note(0x6000, 0xff00)), {
    size: 72,
    op: 13,
    id: 9,
    __reserved: 0,
    args: {
      dirty: {
        flags: 1,
        iova: 0x4000,
        length: 0x8000,
        page_size: 0x800,
        // 16 pages: two bytes of bitmap.
        uptr: { addr: 0x6000, target: Bytes.fromHex('00ff') },
        out_nr_dirty: 0,
      },
    },
    last: 0,
  });
});

test('of two structs with one type the entry length decides', () => {
  const invalidate = (entryBytes: number) =>
    values(
      'IOMMU_HWPT_INVALIDATE',
      note(AT, 32, 6, 0x6000, 0, 0xdead_beef, entryBytes, 1, 0),
      note(0x6000, 1, 2, 3),
    ) as { data_uptr: { target: Plain } };
  assert.equal(invalidate(8).data_uptr.target, [{ iommu_hwpt_invalidate_selftest: { flags: 1, iotlb_id: 2 } }]);
  assert.equal(invalidate(12).data_uptr.target, [
    { iommu_viommu_invalidate_selftest: { flags: 1, vdev_id: 2, cache_id: 3 } },
  ]);
});

test('the data of SET_IRQS is what its flags say', () => {
  const irqs = (flags: number, argsz: number) =>
    values('VFIO_DEVICE_SET_IRQS', note(AT, argsz, flags, 2, 0, 3, 4, 5, 6));
  assert.equal((irqs(0x24, 32) as { data: Plain }).data, { eventfds: [4, 5, 6] });
  assert.equal((irqs(0x24, 28) as { data: Plain }).data, { eventfds: [4, 5] });
  assert.equal((irqs(0x22, 23) as { data: Plain }).data, { bools: [4, 0, 0] });
  assert.is((irqs(0x21, 20) as { data?: Plain }).data, undefined);
});

test('features are a table of their own', () => {
  const feature = (...words: number[]) => (values('VFIO_DEVICE_FEATURE', note(AT, ...words)) as { data: Plain }).data;
  assert.equal(feature(16, 0x2_0002, 3, 0xffff_ffff), {
    vfio_device_feature_mig_state: { device_state: 3, data_fd: -1 },
  });
  assert.equal(feature(40, 0x1_000b, 2, 2, 0, 1, 0x1000, 0, 0x2000, 0), {
    vfio_device_feature_dma_buf: {
      region_index: 2,
      open_flags: 2,
      flags: 0,
      nr_ranges: 1,
      dma_ranges: [{ offset: 0x1000, length: 0x2000 }],
    },
  });
  assert.is(feature(8, 0x5_0002), undefined);
  assert.equal(feature(12, 0x2_0fff, 0x0403_0201), Bytes.fromHex('01020304'));
});

const GET_INFO = 'VFIO_IOMMU_GET_INFO';

function info(argsz: number, capOffset: number, ...rest: readonly number[]): MemNote {
  return note(AT, argsz, 3, 0x1000, 0, capOffset, 0, ...rest);
}

test('capabilities of each info are walked', () => {
  const chain = info(96, 24, 0x1_0003, 40, 77, 0, 0x1_0001, 0, 1, 0, 0x1000, 0, 0x1fff, 0, 1, 2, 3, 4, 5, 6);
  const { caps, problem } = struct(GET_INFO, chain);
  assert.is(problem, '');
  assert.equal(
    caps.map((c) => c.value.struct.name),
    ['vfio_iommu_type1_info_dma_avail', 'vfio_iommu_type1_info_cap_iova_range'],
  );
  const range = struct(GET_INFO, chain).caps[1]?.value.fields.at(-1)?.value;
  assert.ok(typeof range === 'object' && range.kind === 'array' && range.items.length === 1);
});

test('an unknown capability keeps its bytes', () => {
  const cap = struct(GET_INFO, info(40, 24, 0x1_0063, 0, 0x0403_0201, 0)).caps[0];
  assert.is(cap?.raw?.bytes.toHex(), '0102030400000000');
});

const broken: readonly (readonly [what: string, note: MemNote, caps: number, problem: RegExp])[] = [
  ['leads to itself', info(64, 24, 0x1_0003, 24, 1, 0), 1, /leads back/],
  ['runs backwards', info(64, 40, 0, 0, 0, 0, 0x1_0003, 24, 1), 1, /leads back/],
  ['leads into the fixed part', info(64, 24, 0x1_0003, 4, 1), 1, /leads back/],
  ['begins beyond argsz', info(64, 0xffff_fffc), 0, /lies beyond/],
  ['begins where nothing was recorded', info(0xffff_ffff, 4096), 0, /not recorded/],
  ['is cut off in its header', info(64, 24, 0x1_0003), 0, /not recorded/],
];
for (const [what, bytes, count, problem] of broken) {
  test(`a capability chain that ${what} ends there`, () => {
    const decoded = struct(GET_INFO, bytes);
    assert.is(decoded.caps.length, count);
    assert.match(decoded.problem, problem);
  });
}

test('a chain is not walked without its flag', () => {
  assert.is(struct(GET_INFO, note(AT, 64, 1, 0x1000, 0, 24, 0, 0x1_0003, 24, 1, 0)).caps.length, 0);
});

test('counts of 2^32 and more cost nothing', () => {
  const region = note(AT, 0xffff_ffff, 8, 0, 32, 0, 0, 0, 0, 0x1_0001, 0, 0xffff_ffff, 0, 1, 0, 2, 0);
  const areas = struct('VFIO_DEVICE_GET_REGION_INFO', region).caps[0]?.value.fields.at(-1)?.value;
  assert.ok(typeof areas === 'object' && areas.kind === 'array');
  if (typeof areas === 'object' && areas.kind === 'array') {
    assert.is(areas.count, 0xffff_ffff);
    assert.is(areas.items.length, 1);
  }
  const pages = new Uint8Array(40);
  putU64(pages, 8, 0x9000);
  putU64(pages, 16, 0xffff_ffff_ffff_ffffn);
  const snapshot = values('HMM_DMIRROR_SNAPSHOT', { addr: AT, bytes: new Bytes(pages) }, note(0x9000, 0x0201)) as {
    ptr: { target: Plain };
  };
  assert.equal(snapshot.ptr.target, [1, 2, 0, 0]);
});

test('a megabyte of capabilities and areas is read in one pass', () => {
  const bytes = new Uint8Array(1 << 20);
  const put = (at: number, ...words: readonly number[]) => words.forEach((word, i) => putU32(bytes, at + i * 4, word));
  put(0, 1 << 20, 8, 0, 32);
  // Each claims all areas up to the end of the buffer; each ends where the next one begins.
  for (let at = 32; at < 1 << 20; at += 32) put(at, 0x1_0001, at + 32, 0xffff_ffff, 0, 1, 0, 2, 0);
  const { caps } = struct('VFIO_DEVICE_GET_REGION_INFO', { addr: AT, bytes: new Bytes(bytes) });
  let items = 0;
  for (const cap of caps) {
    const areas = cap.value.fields.at(-1)?.value;
    if (typeof areas === 'object' && areas.kind === 'array') items += areas.items.length;
  }
  assert.is(caps.length, (1 << 15) - 1);
  assert.is(items, (1 << 15) - 1);
});

test('elements of no length are not counted', () => {
  const decoded = struct('IOMMU_HWPT_INVALIDATE', note(AT, 32, 6, 0x6000, 0, 0, 0, 0xffff_ffff, 0), note(0x6000, 1));
  assert.is(decoded.fields.find((f) => f.field.name === 'data_uptr')?.target, undefined);
});

test('a page size of 0 gives no bitmap', () => {
  const decoded = struct(
    'IOMMU_HWPT_GET_DIRTY_BITMAP',
    note(AT, 48, 1, 0, 0, 0, 0, 0x1000, 0, 0, 0, 0x6000, 0),
    note(0x6000, 1),
  );
  assert.is(decoded.fields.at(-1)?.target, undefined);
});

test('memory ends at 2^64', () => {
  const top = 0xffff_ffff_ffff_fff0n;
  const { value } = decode(command('IOMMU_IOAS_MAP'), top, [note(top, 40, 7, 3, 0, 1, 2, 3, 4), note(0, 9, 9)]);
  assert.ok(typeof value === 'object' && value.kind === 'struct');
  if (typeof value === 'object' && value.kind === 'struct') {
    assert.is(value.fields[2]?.value, 3);
  }
});

test('a text ends at its NUL', () => {
  const name = encode(command('VFIO_GROUP_GET_DEVICE_FD'), AT, Bytes.fromHex('303a31'));
  assert.is(name[0]?.bytes.toHex(), '303a3100');
  const { value } = decode(command('VFIO_GROUP_GET_DEVICE_FD'), AT, name);
  assert.ok(typeof value === 'object' && value.kind === 'bytes' && value.bytes.toHex() === '303a31');
});
