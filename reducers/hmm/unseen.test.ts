import * as assert from 'uvu/assert';
import { suite } from '../../core/testing.js';
import { ev } from '../testing.js';
import { CHECK_EXCLUSIVE, command, ioctl, Lab, MEMORY, READ, RELEASE, SNAPSHOT, TO_DEV } from './testing.js';

const test = suite('hmm/unseen');
const FOUR = command(MEMORY, 4);

/** A command on the first device of which the recording has no struct. */
function unseen(lab: Lab, nr: number, errno = ''): void {
  const answer = errno === '' ? {} : { ret: -1, errno };
  assert.is(lab.feed(ioctl(3, nr, FOUR, { memIn: [], memOut: [], ...answer })), 'unknown');
}

function withPages(): Lab {
  const lab = new Lab();
  lab.populate(MEMORY, 4, true);
  lab.ask(0, READ, FOUR);
  return lab;
}

test('after a command without a struct nothing of the pages is known, on any mirror of the memory', () => {
  const lab = withPages();
  const seq = lab.next;
  unseen(lab, TO_DEV);
  for (const minor of [0, 1])
    for (const nr of [READ, SNAPSHOT])
      assert.is(
        lab.ask(minor, nr, FOUR).unknown,
        `which pages the command of event ${seq} changed is not known`,
        `${minor} ${nr}`,
      );
  for (const { ptes } of lab.world.mirrors.values()) assert.is(ptes.size, 0);
});

test('checks that need no pages go on', () => {
  const lab = withPages();
  unseen(lab, READ);
  assert.is(lab.ask(0, READ, command(MEMORY + 1, 1), 'EINVAL').verdict, 'match');
});

test('a child that shares the pages is not known either', () => {
  const lab = withPages();
  lab.feed(ev('fork', { ret: 50 }));
  unseen(lab, READ);
  for (const { unseenSince } of lab.world.pageTables.values()) assert.ok(unseenSince >= 0);
  const later = withPages();
  unseen(later, READ);
  later.feed(ev('fork', { ret: 50 }));
  for (const { unseenSince } of later.world.pageTables.values()) assert.ok(unseenSince >= 0);
});

test('what changes nothing, failed at the range, or is the same for every struct leaves all known', () => {
  for (const [nr, errno] of [
    [SNAPSHOT, ''],
    [CHECK_EXCLUSIVE, 'EPERM'],
    [READ, 'EINVAL'],
    [RELEASE, ''],
  ] as const) {
    const lab = withPages();
    unseen(lab, nr, errno);
    assert.is(lab.ask(0, READ, FOUR).verdict, 'match', String(nr));
  }
  const lab = withPages();
  lab.ask(0, TO_DEV, FOUR);
  unseen(lab, RELEASE);
  assert.equal(lab.snapshot(0, MEMORY, 1), [2], 'the page is the system again');
});
