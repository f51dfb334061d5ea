import { setImmediate } from 'node:timers/promises';
import { MessageChannel } from 'node:worker_threads';
import * as assert from 'uvu/assert';
import { suite } from '../../core/testing.js';
import { Credit } from './credit.js';

const test = suite('read-ahead: credit');

test('what is sent beyond the credit waits until more comes', async () => {
  const { port1, port2 } = new MessageChannel();
  const credit = new Credit(port2, 2);
  let sent = 0;
  const sending = (async () => {
    for (; sent < 6; sent++) await credit.spend();
  })();
  for (let i = 0; i < 20; i++) await setImmediate();
  assert.is(sent, 2);
  const more = async (count: number, until: number): Promise<void> => {
    port1.postMessage(count);
    while (sent < until) await setImmediate();
    for (let i = 0; i < 20; i++) await setImmediate();
  };
  await more(1, 3);
  assert.is(sent, 3);
  await more(2, 5);
  assert.is(sent, 5);
  await more(4, 6);
  await sending;
  assert.is(sent, 6);
  port1.close();
});
