import * as assert from 'uvu/assert';
import { Bytes } from '../core/bytes.js';
import type { IoctlEvent } from '../core/event.js';
import { suite } from '../core/testing.js';
import { Call, type Verdict } from './call.js';
import { explain, judge, unknownReason } from './compare.js';
import type { OpenFile, Process } from './files/state.js';
import { ev } from './testing.js';
import { Tx } from './tx.js';
import { emptyWorld } from './world.js';

const test = suite('compare');

const ARG = 0x1000;
const DATA = 0x2000;
const bytes = (hex: string): Bytes => Bytes.fromHex(hex);
const note = (addr: number, hex: string) => ({ addr, bytes: bytes(hex) });

/** A call with an 8-byte struct that comes back as `out`, after the handler `predict` has run. */
function judged(predict: (call: Call) => void, recorded: Partial<IoctlEvent> = {}): Call {
  const event = ev('ioctl', { arg: ARG, memIn: [note(ARG, '0100000002000000')], ...recorded });
  const call = new Call();
  call.begin(new Tx(emptyWorld()), event, {} as Process, {} as OpenFile, 'X', 8);
  predict(call);
  return call;
}

const ok = (call: Call): void => void call.succeed('x.ok');
const fails = (call: Call): void => void call.fail('EINVAL', 'x.bad');
const writes = (call: Call): void => {
  call.succeed('x.ok');
  call.out32(4, 7, 'id');
};
const learns = (call: Call): void => {
  call.succeed('x.ok');
  call.learn32(4, 'fact', 'size');
};
const cannotTell = (call: Call): void => {
  call.succeed('x.ok');
  call.outUnknown(DATA, 4, 'nobody wrote it down');
};
const failed = { ret: -1 as const, errno: 'EINVAL' };
const out = (hex: string) => ({ memOut: [note(ARG, hex)] });

const rows: readonly [string, (call: Call) => void, Partial<IoctlEvent>, Verdict][] = [
  ['no prediction at all', () => undefined, {}, 'unknown'],
  ['a prediction that lacks data', (call) => void call.unknown('no payload'), {}, 'unknown'],
  ['no result', ok, { ret: null }, 'unknown'],
  ['success as predicted', ok, {}, 'match'],
  ['another value', (call) => void call.succeed('x.ok', 3), {}, 'diverge'],
  ['failure instead of success', ok, failed, 'diverge'],
  ['success instead of failure', fails, {}, 'diverge'],
  ['failure as predicted', fails, failed, 'match'],
  ['another error', fails, { ret: -1, errno: 'EFAULT' }, 'diverge'],
  ['no memory', ok, { ret: -1, errno: 'ENOMEM' }, 'learned'],
  ['an injected error', ok, { ret: -1, errno: 'EIO', injected: true }, 'learned'],
  ['an injected success', fails, { injected: true }, 'diverge'],
  ['the struct unchanged', ok, out('0100000002000000'), 'match'],
  ['a byte changed that nobody predicted', ok, out('0100000003000000'), 'diverge'],
  ['less of the struct recorded', ok, out('01000000'), 'match'],
  ['more recorded than the struct has', ok, out('0100000002000000ff'), 'match'],
  ['a field written as predicted', writes, out('0100000007000000'), 'match'],
  ['a field written otherwise', writes, out('0100000008000000'), 'diverge'],
  ['a predicted field and an unpredicted one', writes, out('0200000007000000'), 'diverge'],
  ['a fact told for the first time', learns, out('0100000009000000'), 'learned'],
  ['a fact that is not recorded', learns, {}, 'match'],
  ['bytes that cannot be predicted', cannotTell, { memOut: [note(DATA, '00000000')] }, 'unknown'],
  ['bytes that cannot be predicted, and are not recorded', cannotTell, {}, 'match'],
  ['the same, with a field that is wrong', cannotTell, { memOut: [note(ARG, '02'), note(DATA, '00')] }, 'diverge'],
];
for (const [what, predict, recorded, expected] of rows) {
  test(`${what}: ${expected}`, () => assert.is(judge(judged(predict, recorded)), expected));
}

test('writes elsewhere are compared as far as they are recorded, the last one at a place counts', () => {
  const twice = (call: Call): void => {
    call.succeed('x.ok');
    call.outBytes(DATA, bytes('01020304'), 'first');
    call.outBytes(DATA, bytes('05060708'), 'second');
  };
  assert.is(judge(judged(twice, { memOut: [note(DATA, '0506')] })), 'match');
  assert.is(judge(judged(twice, { memOut: [note(DATA, '0102')] })), 'diverge');
});

test('a known fact is predicted, and must be the same again', () => {
  const first = judged(learns, out('0100000009000000'));
  for (const [hex, expected] of [
    ['0100000009000000', 'match'],
    ['0100000008000000', 'diverge'],
  ] as const) {
    const again = new Call();
    again.begin(first.tx, { ...(first.event as IoctlEvent), ...out(hex) }, first.process, first.file, 'X', 8);
    learns(again);
    assert.is(judge(again), expected);
  }
});

test('an explanation shows both sides, with the fields that differ', () => {
  const { predicted, recorded, rule } = explain(judged(writes, out('0100000008000000')));
  assert.equal(predicted, { ret: 0, id: '07000000', 'bytes at +4': 7 });
  assert.equal(recorded, { ret: 0, id: '08000000', 'bytes at +4': 8 });
  assert.is(rule, 'x.ok');
});

test('reasons of unknown', () => {
  assert.is(unknownReason(judged(() => undefined)), 'not modelled');
  assert.is(unknownReason(judged((call) => void call.unknown('no payload'))), 'no payload');
  assert.is(unknownReason(judged(ok, { ret: null })), 'the recording has no result');
  assert.is(unknownReason(judged(cannotTell, { memOut: [note(DATA, '00')] })), 'nobody wrote it down');
});

test('the recorded answer cannot be read before a prediction', () => {
  const call = judged(() => undefined, failed);
  assert.throws(() => call.recordedRet, /before a prediction/);
  assert.throws(() => call.recordedErrno, /before a prediction/);
  assert.is(call.succeed('x.ok'), false);
  assert.is(call.recordedErrno, 'EINVAL');
});

test('the first prediction stands; a handler goes on only where the recording says that the call succeeded', () => {
  const wrong = judged(fails);
  assert.is(wrong.fail('EFAULT', 'x.later'), false, 'recorded as a success: go on');
  assert.is(wrong.succeed('x.ok'), true);
  assert.is(wrong.predictedErrno, 'EINVAL');
  assert.is(wrong.rule, 'x.bad');
});
