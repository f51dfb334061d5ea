import * as assert from 'uvu/assert';
import { suite } from '../../core/testing.js';
import { paysToReadAhead, type ReadFile } from './policy.js';

const test = suite('read-ahead: policy');
const MIB = 1 << 20;

const plain = (sizeBytes: number): ReadFile => ({ sizeBytes, isGzipped: false });
const packed = (sizeBytes: number): ReadFile => ({ sizeBytes, isGzipped: true });

test('a thread is started for much text only, and where there is a second core', () => {
  const rows: [readonly ReadFile[], number, boolean][] = [
    [[plain(32 * MIB)], 2, true],
    [[plain(32 * MIB)], 1, false],
    [[plain(32 * MIB - 1)], 2, false],
    [[packed(4 * MIB)], 4, true],
    [[packed(4 * MIB - 1)], 4, false],
    [[plain(20 * MIB), plain(20 * MIB)], 2, true],
    [[plain(16 * MIB), packed(2 * MIB)], 2, true],
    [[plain(0)], 64, false],
    [[], 64, false],
  ];
  for (const [files, cores, expected] of rows)
    assert.is(paysToReadAhead(files, cores), expected, JSON.stringify(files));
});
