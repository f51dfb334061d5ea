import * as assert from 'uvu/assert';
import { Bytes } from '../core/bytes.js';
import { OrderedMap } from '../core/ordered-map.js';
import { suite } from '../core/testing.js';
import { diffStates } from './state-diff.js';
import { lookUp } from './state-path.js';

const test = suite('state paths and differences');

const AREA = { start: 0x1000, last: 0x1fff, since: 4 };
const HIGH = { start: 0xffff_ffff_ffff_0000n, last: 0xffff_ffff_ffff_ffffn, since: 5 };

function stateWith(areas: readonly (typeof AREA | typeof HIGH)[], flag = false): object {
  const table = OrderedMap.numeric<number | bigint, object>();
  for (const area of areas) table.set(area.start, area);
  return {
    containers: OrderedMap.numeric<number, object>().set(1, { id: 1, flag, areas: table }),
    devices: OrderedMap.textual<string, object>().set('0000:00:10.0', { regions: [1, 2] }),
    bytes: Bytes.fromHex('0102'),
  };
}

test('lookUp follows fields, ids, addresses inside a range, names with dots', () => {
  const state = stateWith([AREA, HIGH]);
  for (const [path, expected] of [
    ['containers.1.id', 1],
    ['containers.0x1.id', 1],
    ['containers.1.areas.0x1000', AREA],
    ['containers.1.areas.4096.since', 4],
    ['containers.1.areas.0x1abc.since', 4],
    ['containers.1.areas.0xffffffffffff1234', HIGH],
    ['devices.0000:00:10.0.regions.1', 2],
    ['', state],
  ] as const) {
    assert.is(lookUp(state, path).value, expected, path);
    assert.is(lookUp(state, path).missing, '', path);
  }
});

test('lookUp names the first step that is missing', () => {
  const state = stateWith([AREA]);
  for (const [path, missing] of [
    ['nope', 'nope'],
    ['containers.2.areas', 'containers.2'],
    ['containers.1.areas.0x2000', 'containers.1.areas.0x2000'],
    ['containers.1.areas.zzz.start', 'containers.1.areas.zzz'],
    ['containers.1.id.x', 'containers.1.id.x'],
    ['containers.99999999999999999999', 'containers.99999999999999999999'],
    ['containers.constructor', 'containers.constructor'],
    ['devices.0000:00:11.0', 'devices.0000:00:11'],
    ['bytes.length', 'bytes.length'],
  ] as const)
    assert.is(lookUp(state, path).missing, missing, path);
});

test('a difference is a path with both sides', () => {
  const before = stateWith([AREA]);
  const after = stateWith([AREA, HIGH], true);
  assert.equal(diffStates(before, after, 10), [
    { path: 'containers.1.flag', before: false, after: true },
    { path: 'containers.1.areas.0xffffffffffff0000', before: undefined, after: HIGH },
  ]);
  assert.equal(diffStates(after, before, 10).at(-1), {
    path: 'containers.1.areas.0xffffffffffff0000',
    before: HIGH,
    after: undefined,
  });
});

test('equal states differ in nothing, and the limit holds', () => {
  assert.equal(diffStates(stateWith([AREA]), stateWith([AREA]), 10), []);
  const many = Array.from({ length: 50 }, (_, i) => ({ ...AREA, start: i * 0x1000, last: i * 0x1000 + 0xfff }));
  assert.is(diffStates(stateWith([]), stateWith(many), 7).length, 7);
});
