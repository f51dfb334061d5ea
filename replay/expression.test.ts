import * as assert from 'uvu/assert';
import { InputError } from '../core/errors.js';
import { suite } from '../core/testing.js';
import { ev, replay } from '../reducers/testing.js';
import { Expression, ExpressionFailed } from './expression.js';

const test = suite('expression');
const world = replay([ev('open', { path: '/a', ret: 3 }), ev('open', { path: '/b', ret: 4 })]);

function codeOf(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    if (error instanceof InputError) return error.diagnostic.code;
    throw error;
  }
  return 'nothing thrown';
}

test('sees the state, its tables by name, and seq', () => {
  const value = (text: string): unknown => new Expression(text).evaluate(world, 41);
  assert.is(value('state.files.size'), 2);
  assert.is(value('files.size === state.files.size'), true);
  assert.is(value('[...files.values()].some((f) => f.path === "/b")'), true);
  assert.is(value('seq + 1'), 42);
});

test('what is no JavaScript, an unknown name and an endless loop are IOT302', () => {
  assert.is(
    codeOf(() => new Expression('files.size >')),
    'IOT302',
  );
  assert.is(
    codeOf(() => new Expression('flies.size').evaluate(world, 0)),
    'IOT302',
  );
  assert.is(
    codeOf(() => new Expression('process.exit(7)').evaluate(world, 0)),
    'IOT302',
  );
  assert.is(
    codeOf(() => new Expression('for (;;);').evaluate(world, 0)),
    'IOT302',
  );
});

test('an expression that throws on this state only is told apart', () => {
  const expression = new Expression('files.get(99).path');
  assert.throws(
    () => expression.evaluate(world, 0),
    (error: unknown) => error instanceof ExpressionFailed && error.input.diagnostic.code === 'IOT302',
  );
  assert.throws(
    () => new Expression('throw null').evaluate(world, 0),
    (error: unknown) => error instanceof ExpressionFailed,
  );
});

test('the snapshot cannot be written to', () => {
  assert.throws(() => new Expression('files.set(1, null)').evaluate(world, 0));
  assert.is(world.files.size, 2);
});
