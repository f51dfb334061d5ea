import * as assert from 'uvu/assert';
import { errnoName, errnoNumber, MAX_ERRNO } from './errno.js';
import { suite } from './testing.js';

const test = suite('errno');

test('numbers and names of the headers', () => {
  const rows: [number, string][] = [
    [1, 'EPERM'],
    [12, 'ENOMEM'],
    [22, 'EINVAL'],
    [25, 'ENOTTY'],
    [95, 'EOPNOTSUPP'],
    [133, 'EHWPOISON'],
    [512, 'ERESTARTSYS'],
    [516, 'ERESTART_RESTARTBLOCK'],
    [524, 'ENOTSUPP'],
    [529, 'EIOCBQUEUED'],
  ];
  for (const [number, name] of rows) {
    assert.is(errnoName(number), name);
    assert.is(errnoNumber(name), number);
  }
});

test('every number has a name that leads back to it', () => {
  for (let number = 1; number <= MAX_ERRNO; number++) assert.is(errnoNumber(errnoName(number)), number);
});

test('aliases lead to the number, never the other way', () => {
  assert.is(errnoNumber('EWOULDBLOCK'), 11);
  assert.is(errnoNumber('EDEADLOCK'), 35);
  assert.is(errnoNumber('ENOTSUP'), 95);
  assert.is(errnoName(11), 'EAGAIN');
});

test('what is no name', () => {
  for (const text of ['', 'E', 'EWHAT', 'E0', 'E012', 'E9999', '22', 'einval', 'constructor', '__proto__'])
    assert.is(errnoNumber(text), undefined, text);
});
