import * as assert from 'uvu/assert';
import { Arena } from './arena.js';
import { suite } from './testing.js';

const test = suite('arena');

test('values keep what they were, however many come after them', () => {
  const arena = new Arena();
  const first = arena.of64(0xffff_ffff_ffff_fff0n);
  const rest = Array.from({ length: 3000 }, (_, i) => arena.of32(i));
  assert.is(first.u64(0), 0xffff_ffff_ffff_fff0n);
  assert.equal([first.length, rest[0]?.length], [8, 4]);
  assert.ok(rest.every((bytes, i) => bytes.u32(0) === i));
});
