import * as assert from 'uvu/assert';
import { suite } from '../../core/testing.js';
import { counted, grouped, listed, printable, styleFor, wrapped } from './style.js';

const test = suite('style');
const TTY = { isTTY: true, columns: 132 };

test('colour: on a terminal, unless told otherwise', () => {
  for (const [stream, env, coloured] of [
    [TTY, {}, true],
    [TTY, { NO_COLOR: '1' }, false],
    [TTY, { NO_COLOR: '' }, true],
    [TTY, { TERM: 'dumb' }, false],
    [{}, {}, false],
    [{}, { FORCE_COLOR: '1' }, true],
    [{}, { FORCE_COLOR: '0' }, false],
    [{}, { FORCE_COLOR: '1', NO_COLOR: '1' }, false],
  ] as const)
    assert.is(styleFor(stream, env).paint.red('x') !== 'x', coloured, JSON.stringify([stream, env]));
});

test('width: the terminal, else COLUMNS, else 100, never less than 40', () => {
  assert.is(styleFor(TTY, { COLUMNS: '50' }).widthColumns, 132);
  assert.is(styleFor({ isTTY: true, columns: 12 }, {}).widthColumns, 40);
  assert.is(styleFor({}, { COLUMNS: '77' }).widthColumns, 77);
  assert.is(styleFor({}, { COLUMNS: 'wide' }).widthColumns, 100);
});

test('numbers', () => {
  assert.is(grouped(999), '999');
  assert.is(grouped(1000), '1,000');
  assert.is(grouped(1234567), '1,234,567');
  assert.is(counted(1, 'event'), '1 event');
  assert.is(counted(0, 'event'), '0 events');
});

test('wrapping keeps every word and no line is too long but for one word', () => {
  assert.is(wrapped('aa bb cc dd', 7, '  '), 'aa bb\n  cc dd');
  assert.is(wrapped('aa bb cc dd', 7, '  ', 0), 'aa bb\n  cc dd');
  assert.is(wrapped('aaaaaaaaaa bb', 5, ' '), 'aaaaaaaaaa\n bb');
  assert.is(wrapped('', 5, ' '), '');
  assert.is(listed(['a 1', 'b 2', 'c 3'], 9, '  ', 0), 'a 1, b 2,\n  c 3');
});

test('control characters are written out', () => {
  assert.is(printable('a\u001b[0m\u0000\u007f\u009bé'), 'a\\x1b[0m\\x00\\x7f\\x9bé');
});
