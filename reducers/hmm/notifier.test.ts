import * as assert from 'uvu/assert';
import { suite } from '../../core/testing.js';
import {
  beginInvalidation,
  endInvalidation,
  insertNotifier,
  type NotifierSpace,
  newNotifierSpace,
  readBegin,
  readRetry,
  removeNotifier,
} from './notifier.js';

const test = suite('hmm/notifier');

const A = { start: 0x1000, last: 0x1fff };
const B = { start: 0x8000, last: 0x8fff };
const BOTH = { start: 0, last: 0xffff };

function two(): NotifierSpace {
  return insertNotifier(insertNotifier(newNotifierSpace(), 1, A), 2, B);
}

test('a read without an invalidation is good', () => {
  const space = two();
  const seq = readBegin(space, 1);
  assert.is(seq, 1);
  assert.not(readRetry(space, 1, seq as number));
});

test('an invalidation of its range spoils a read, one of another range does not', () => {
  const space = two();
  const seq = readBegin(space, 1) as number;
  assert.not(readRetry(endInvalidation(beginInvalidation(space, B)), 1, seq));
  assert.ok(readRetry(beginInvalidation(space, A), 1, seq));
  assert.ok(readRetry(endInvalidation(beginInvalidation(space, A)), 1, seq), 'for good');
});

test('a read waits while its notifier is invalidated, and until the last open one ends', () => {
  let space = beginInvalidation(beginInvalidation(two(), A), B);
  assert.is(readBegin(space, 1), undefined);
  space = endInvalidation(space);
  assert.is(readBegin(space, 1), undefined, 'the number is still odd');
  space = endInvalidation(space);
  assert.is(space.seq, 4);
  assert.is(readBegin(space, 1), 3);
});

test('a read of what is not hit goes on during an invalidation', () => {
  const space = beginInvalidation(two(), B);
  const seq = readBegin(space, 1) as number;
  assert.not(readRetry(space, 1, seq));
});

test('a driver that ignores an invalidation is not disturbed by it', () => {
  const space = two();
  const seq = readBegin(space, 1) as number;
  assert.not(readRetry(endInvalidation(beginInvalidation(space, A, () => false)), 1, seq));
});

test('a notifier that comes during an invalidation collides, and is walked from the next one on', () => {
  let space = insertNotifier(beginInvalidation(two(), A), 3, A);
  assert.is(readBegin(space, 3), undefined);
  assert.is(space.notifiers.length, 2);
  space = endInvalidation(space);
  assert.is(space.notifiers.length, 3);
  assert.is(readBegin(space, 3), 3);
});

test('a notifier that comes while an invalidation that hit nobody is open collides too', () => {
  let space = insertNotifier(beginInvalidation(newNotifierSpace(), A), 1, A);
  assert.is(readBegin(space, 1), undefined);
  space = endInvalidation(space);
  assert.is(readBegin(space, 1), 3);
});

test('a notifier that goes during an invalidation goes at its end; one that waited never comes', () => {
  let space = removeNotifier(beginInvalidation(two(), BOTH), 1);
  assert.is(space.notifiers.length, 2);
  space = removeNotifier(insertNotifier(space, 3, A), 3);
  space = endInvalidation(space);
  assert.equal(
    space.notifiers.map((n) => n.id),
    [2],
  );
  assert.is(removeNotifier(space, 2).notifiers.length, 0);
});

test('an end without a start changes nothing', () => {
  assert.equal(endInvalidation(two()), two());
});
