import * as assert from 'uvu/assert';
import { suite } from '../../core/testing.js';
import { Call } from '../../reducers/call.js';
import type { OpenFile, Process } from '../../reducers/files/state.js';
import { ev } from '../../reducers/testing.js';
import { Tx } from '../../reducers/tx.js';
import { emptyWorld } from '../../reducers/world.js';
import { Failures } from '../failures.js';
import type { Report } from '../report.js';
import { failuresText } from './failures.js';
import { PLAIN } from './style.js';

const test = suite('print/failures');

/** A call that failed with EEXIST by the rule of overlapping mappings. */
function failed(seq: number, name: string): Call {
  const call = new Call();
  const event = { ...ev('ioctl', { ret: -1, errno: 'EEXIST', line: seq * 10 }), seq };
  call.begin(new Tx(emptyWorld()), event, {} as Process, {} as OpenFile, name, 0);
  call.looked(`mapping of event ${seq - 1}`);
  call.fail('EEXIST', 'map-dma.overlap');
  return call;
}

test('failures are counted by command and rule, the first one explains, the most frequent come first', () => {
  const failures = new Failures();
  failures.add(failed(3, 'A'));
  for (const seq of [5, 6]) failures.add(failed(seq, 'B'));
  const list = failures.list;
  assert.equal(
    list.map(({ call, count, seq, line, state }) => [call, count, seq, line, state]),
    [
      ['B', 2, 5, 50, 'mapping of event 4'],
      ['A', 1, 3, 30, 'mapping of event 2'],
    ],
  );
  const report = { failures: list, info: { files: ['run.strace'] } } as unknown as Report;
  const text = failuresText(report, { ...PLAIN, widthColumns: 200 });
  assert.is(
    text,
    [
      'failed, as they had to',
      '  2  B EEXIST: the range touches a mapping; first at run.strace:50 (mapping of event 4)',
      '  1  A EEXIST: the range touches a mapping; at run.strace:30 (mapping of event 2)',
    ].join('\n'),
  );
});
