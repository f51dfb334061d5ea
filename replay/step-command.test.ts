import * as assert from 'uvu/assert';
import { suite } from '../core/testing.js';
import { callPattern } from './filter.js';
import { parseStepCommand } from './step-command.js';

const test = suite('step commands');

test('what can be typed', () => {
  for (const [line, expected] of [
    ['', undefined],
    ['   ', undefined],
    ['next', { do: 'move', by: 1 }],
    ['n 12', { do: 'move', by: 12 }],
    ['prev', { do: 'move', by: -1 }],
    [' p  3 ', { do: 'move', by: -3 }],
    ['goto 7', { do: 'goto', seq: 7 }],
    ['g end', { do: 'goto', seq: 'end' }],
    ['next divergence', { do: 'divergence' }],
    ['d', { do: 'divergence' }],
    ['next finding', { do: 'finding' }],
    ['f', { do: 'finding' }],
    ['continue IOMMU_*', { do: 'continue', call: 'IOMMU_*' }],
    ['print files.size > 3', { do: 'print', what: 'files.size > 3' }],
    ['x', { do: 'print', what: '' }],
    ['diff', { do: 'diff' }],
    ['?', { do: 'help' }],
    ['q', { do: 'quit' }],
  ] as const)
    assert.equal(parseStepCommand(line), expected, line);
});

test('what cannot is explained', () => {
  for (const line of ['frobnicate', 'next x', 'goto', 'goto -1', 'goto 1e3', 'prev 99999999999999999', 'continue'])
    assert.is(parseStepCommand(line)?.do, 'wrong', line);
});

test('call patterns take whole names, in any case', () => {
  assert.ok(callPattern('vfio_*').test('VFIO_SET_IOMMU'));
  assert.ok(callPattern('*MAP*').test('IOMMU_IOAS_UNMAP'));
  assert.not(callPattern('IOMMU_IOAS_MAP').test('IOMMU_IOAS_MAP_FILE'));
  assert.not(callPattern('a.c').test('abc'));
  assert.not(callPattern('(').test('x'));
});
