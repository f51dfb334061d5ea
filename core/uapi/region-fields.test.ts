import * as assert from 'uvu/assert';
import { Bytes } from '../bytes.js';
import { suite } from '../testing.js';
import { regionFieldText } from './region-fields.js';

const test = suite('fields of regions');

test('accesses to the deprecated migration region and to the EDID region are named', () => {
  const u32 = (value: number): Bytes => new Bytes(new Uint8Array([value, 0, 0, 0]));
  const rows = [
    [3, 1, 0, u32(3), 'device_state=RUNNING|SAVING'],
    [3, 1, 0, u32(0), 'device_state=0'],
    [3, 1, 8, new Bytes(new Uint8Array([0, 16, 0, 0, 0, 0, 0, 0])), 'pending_bytes=0x1000'],
    [3, 1, 16, u32(1), 'data_offset'],
    [3, 1, 32, u32(1), ''],
    [1, 1, 20, u32(1), 'link_state=UP'],
    [2, 1, 0, u32(1), ''],
    [3, 2, 0, u32(1), ''],
  ] as const;
  for (const [type, subtype, offset, data, text] of rows) assert.is(regionFieldText(type, subtype, offset, data), text);
});
