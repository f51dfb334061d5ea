import * as assert from 'uvu/assert';
import { Bytes } from '../../core/bytes.js';
import { suite } from '../../core/testing.js';
import { ev } from '../testing.js';
import { DMIRROR_RULES } from './rules.js';
import {
  BUFFER,
  CHECK_EXCLUSIVE,
  command,
  EXCLUSIVE,
  FLAGS,
  ioctl,
  Lab,
  MEMORY,
  PAGE,
  READ,
  RELEASE,
  SNAPSHOT,
  TO_DEV,
  TO_SYS,
  WRITE,
} from './testing.js';

const test = suite('hmm/dmirror');

/** Beyond the mirrored memory: nothing is mapped, and the recording knows it. */
const HOLE = MEMORY + (1 << 20);
const FIRST = command(MEMORY, 1);
const TWO = command(MEMORY, 2);

interface Row {
  readonly rule: string;
  readonly errno: string;
  readonly nr: number;
  readonly struct: Bytes;
  readonly minor?: number;
  readonly before?: (lab: Lab) => void;
}

function prot(addr: number, npages: number, bits: number): (lab: Lab) => void {
  return (lab) => lab.feed(ev('mprotect', { addr, lengthBytes: npages * PAGE, prot: bits }));
}

function mapShared(lab: Lab): void {
  lab.feed(ev('mmap', { addr: MEMORY, lengthBytes: PAGE, flags: 0x31, ret: MEMORY }));
}

const ROWS: readonly Row[] = [
  { rule: 'dmirror.addr-aligned', errno: 'EINVAL', nr: READ, struct: command(MEMORY + 8, 1) },
  { rule: 'dmirror.addr-aligned', errno: 'EINVAL', nr: RELEASE, struct: command(1, 0) },
  { rule: 'dmirror.range', errno: 'EINVAL', nr: READ, struct: command(MEMORY, 0) },
  { rule: 'dmirror.range', errno: 'EINVAL', nr: FLAGS, struct: command(MEMORY, 0) },
  { rule: 'dmirror.range', errno: 'EINVAL', nr: SNAPSHOT, struct: command(0xffff_ffff_ffff_f000n, 1) },
  { rule: 'dmirror.range', errno: 'EINVAL', nr: SNAPSHOT, struct: command(MEMORY, 0xf_ffff_ffff_ffff) },
  { rule: 'dmirror.command', errno: 'EINVAL', nr: 9, struct: FIRST },
  { rule: 'dmirror.bounce', errno: 'ENOMEM', nr: READ, struct: command(MEMORY, 2 ** 40) },
  { rule: 'fault.range', errno: 'EFAULT', nr: READ, struct: command(HOLE, 1) },
  { rule: 'fault.range', errno: 'EFAULT', nr: READ, struct: FIRST, before: prot(MEMORY, 1, 0) },
  { rule: 'fault.range', errno: 'EFAULT', nr: WRITE, struct: command(HOLE - PAGE, 2) },
  { rule: 'fault.write', errno: 'EPERM', nr: WRITE, struct: FIRST, before: prot(MEMORY, 1, 1) },
  { rule: 'dmirror.buffer', errno: 'EFAULT', nr: READ, struct: command(MEMORY, 1, 8) },
  { rule: 'dmirror.buffer', errno: 'EFAULT', nr: WRITE, struct: command(HOLE, 1, 8) },
  { rule: 'dmirror.buffer', errno: 'EFAULT', nr: SNAPSHOT, struct: command(MEMORY, 1, 8) },
  { rule: 'migrate-to-dev.vma', errno: 'EINVAL', nr: TO_DEV, struct: command(HOLE - PAGE, 2) },
  { rule: 'migrate-to-dev.vma', errno: 'EINVAL', nr: TO_DEV, struct: FIRST, before: prot(MEMORY, 1, 0) },
  { rule: 'migrate-to-dev.read-back', errno: 'ENOENT', nr: TO_DEV, struct: FIRST, before: mapShared },
  { rule: 'migrate-to-sys.vma', errno: 'EINVAL', nr: TO_SYS, struct: command(HOLE, 1) },
  { rule: 'exclusive.pages', errno: 'EFAULT', nr: EXCLUSIVE, struct: command(HOLE, 1) },
  { rule: 'exclusive.pages', errno: 'EFAULT', nr: EXCLUSIVE, struct: FIRST, before: prot(MEMORY, 1, 1) },
  {
    rule: 'exclusive.alloc',
    errno: 'ENOMEM',
    nr: EXCLUSIVE,
    struct: command(MEMORY, 3),
    before: (lab) => {
      lab.ask(0, TO_DEV, command(MEMORY + PAGE, 2));
      lab.ask(0, FLAGS, FIRST);
    },
  },
  { rule: 'exclusive.anonymous', errno: 'EOPNOTSUPP', nr: EXCLUSIVE, struct: FIRST, before: mapShared },
  {
    rule: 'migrate-to-sys.alloc',
    errno: 'ENOMEM',
    nr: TO_SYS,
    struct: FIRST,
    before: (lab) => {
      lab.ask(0, TO_DEV, FIRST);
      lab.ask(0, FLAGS, FIRST);
    },
  },
  {
    rule: 'check-exclusive.atomic',
    errno: 'EPERM',
    nr: CHECK_EXCLUSIVE,
    struct: FIRST,
    before: (lab) => lab.ask(0, EXCLUSIVE, FIRST),
  },
];

for (const { rule, errno, nr, struct, minor = 0, before } of ROWS) {
  test(`${rule}: command ${nr} of ${struct.toHex().slice(0, 48)} gives ${errno}`, () => {
    const lab = new Lab();
    before?.(lab);
    const answer = lab.ask(minor, nr, struct, errno);
    assert.is(`${answer.errno} ${answer.rule}`, `${errno} ${rule}`);
    assert.is(answer.verdict, 'match');
  });
}

test('a range that cannot be, recorded as a success, is a divergence and the end of it', () => {
  for (const struct of [command(0xffff_ffff_ffff_f000n, 2), command(MEMORY + 8, 1), command(MEMORY, 0)])
    for (const nr of [READ, WRITE, TO_DEV, TO_SYS, SNAPSHOT, EXCLUSIVE])
      assert.is(new Lab().feed(ioctl(3, nr, struct)), 'diverge');
});

test('a struct that cannot be read', () => {
  const lab = new Lab();
  const event = ioctl(3, READ, FIRST, { arg: 8, memIn: [], ret: -1, errno: 'EFAULT' });
  assert.is(lab.feed(event), 'match');
});

test('a struct that was not recorded leaves the answer unknown', () => {
  const lab = new Lab();
  assert.is(lab.feed(ioctl(3, READ, FIRST, { memIn: [] })), 'unknown');
});

test('every rule has a row here or in the tests of the space that is gone', () => {
  const elsewhere = ['dmirror.fault', 'dmirror.mm-gone', 'fault.mm-gone', 'fault.busy', 'exclusive.read-back'];
  const rows = new Set([...ROWS.map((row) => row.rule), ...elsewhere]);
  assert.equal(
    DMIRROR_RULES.filter((rule) => !rows.has(rule.id)),
    [],
  );
});

test('READ faults once for all that is missing, and not at all for what is there', () => {
  const lab = new Lab();
  assert.is(lab.ask(0, READ, command(MEMORY, 40)).faults, 1);
  assert.is(lab.ask(0, READ, command(MEMORY, 40)).faults, 0);
  assert.is(lab.ask(0, READ, command(MEMORY, 41)).faults, 1);
  assert.equal(lab.snapshot(0, MEMORY + 40 * PAGE, 2), [0x11, 0]);
});

test('WRITE needs the right to write, and the CPU sees its page', () => {
  const lab = new Lab();
  lab.ask(0, READ, TWO);
  const answer = lab.ask(0, WRITE, FIRST);
  assert.is(answer.faults, 1);
  assert.equal(lab.snapshot(0, MEMORY, 2), [2, 0x11]);
  assert.is(lab.ask(0, READ, TWO).faults, 1, 'the invalidation of one page takes the next one with it');
});

test('migration to a private device and back', () => {
  const lab = new Lab();
  lab.populate(MEMORY, 1, true);
  lab.populate(MEMORY + PAGE, 1, false);
  assert.is(lab.ask(0, TO_DEV, command(MEMORY, 3)).cpages, 3);
  assert.equal(lab.snapshot(0, MEMORY, 4), [0x22, 0x22, 0x22, 0]);
  assert.equal(lab.snapshot(1, MEMORY, 3), [0, 0, 0], 'another private device sees nothing');
  assert.is(lab.ask(0, TO_SYS, command(MEMORY, 4)).cpages, 3);
  assert.equal(lab.snapshot(0, MEMORY, 4), [2, 2, 2, 0]);
});

test('coherent memory is seen by the CPU and by both devices; its first page teaches what is free', () => {
  const lab = new Lab();
  lab.populate(MEMORY, 2, true);
  assert.is(lab.ask(2, TO_DEV, TWO).verdict, 'learned');
  assert.is(lab.ask(2, TO_DEV, command(MEMORY + 2 * PAGE, 1)).verdict, 'match');
  assert.equal(lab.snapshot(2, MEMORY, 3), [0x42, 0x42, 0x42]);
  assert.equal(lab.snapshot(3, MEMORY, 3), [0x52, 0x52, 0x52]);
  assert.equal(lab.snapshot(0, MEMORY, 1), [0x52]);
});

test('a coherent device without small pages: the first failure is unknown, later ones are known', () => {
  const lab = new Lab();
  assert.is(lab.ask(2, TO_DEV, FIRST, 'ENOENT').verdict, 'unknown');
  assert.is(lab.ask(2, TO_DEV, FIRST, 'ENOENT').verdict, 'match');
  lab.ask(2, RELEASE, FIRST);
  assert.is(lab.ask(2, TO_DEV, FIRST).verdict, 'match', 'RELEASE makes room for what comes first');
});

test('FAIL_ALLOC leaves the first page where it is', () => {
  const lab = new Lab();
  lab.populate(MEMORY, 2, true);
  lab.ask(0, FLAGS, FIRST);
  assert.is(lab.ask(0, TO_DEV, TWO, 'ENOENT').rule, 'migrate-to-dev.read-back');
  assert.equal(lab.snapshot(0, MEMORY, 2), [2, 0x22]);
  assert.is(lab.ask(0, TO_DEV, TWO).cpages, 2);
});

test('huge pages move as one, and count as one on their way back', () => {
  const lab = new Lab();
  const at = 0x4000_0000;
  const block = command(at, 512);
  lab.feed(ev('mmap', { addr: at, lengthBytes: 2 << 20, flags: 0x32, ret: at }));
  lab.feed(ev('mmap', { lengthBytes: 4 << 20, ret: 0x7f01_0000_0000 }));
  const ask = (nr: number): ReturnType<Lab['ask']> => lab.ask(0, nr, command(at, 512, 0x7f01_0000_0000));
  lab.populate(at + 5 * PAGE, 1, true);
  assert.equal(lab.snapshot(0, at, 2), [6, 6]);
  assert.is(ask(TO_DEV).cpages, 512);
  assert.equal(lab.snapshot(0, at, 2), [0x26, 0x26]);
  assert.is(lab.ask(0, TO_SYS, block).cpages, 1);
  assert.equal(lab.snapshot(0, at, 1), [6]);
  ask(TO_DEV);
  lab.ask(0, FLAGS, FIRST);
  assert.is(lab.ask(0, TO_SYS, block).cpages, 512, 'small pages stand in');
  assert.equal(lab.snapshot(0, at, 1), [2]);
  ask(TO_DEV);
  lab.feed(ev('munmap', { addr: at, lengthBytes: PAGE }));
  assert.equal(lab.snapshot(0, at, 2), [0xff, 0x22]);
});

test('mprotect takes the right to write from device-private memory for good', () => {
  const lab = new Lab();
  lab.populate(MEMORY, 1, true);
  lab.ask(0, TO_DEV, FIRST);
  prot(MEMORY, 1, 1)(lab);
  prot(MEMORY, 1, 3)(lab);
  assert.equal(lab.snapshot(0, MEMORY, 1), [0x21]);
  assert.is(lab.ask(0, WRITE, FIRST, 'EFAULT').verdict, 'match');
});

test('EXCLUSIVE takes the page from the CPU until somebody touches it', () => {
  const lab = new Lab();
  assert.is(lab.ask(0, EXCLUSIVE, TWO).cpages, 2);
  assert.equal(lab.snapshot(0, MEMORY, 2), [0, 0]);
  assert.is(lab.ask(0, READ, TWO).faults, 0);
  lab.populate(MEMORY + PAGE, 1, false);
  assert.equal(lab.snapshot(0, MEMORY, 2), [0, 2]);
  assert.is(lab.ask(0, CHECK_EXCLUSIVE, command(MEMORY + PAGE, 1)).errno, '');
  assert.is(lab.ask(0, CHECK_EXCLUSIVE, FIRST, 'EPERM').verdict, 'match');
});

test('closing one file of a device brings all its memory back', () => {
  const lab = new Lab();
  lab.ask(0, TO_DEV, TWO);
  lab.open(0);
  lab.feed(ev('close', { fd: 7 }));
  assert.equal(lab.snapshot(0, MEMORY, 2), [2, 2]);
  assert.is(lab.ask(0, READ, TWO).faults, 1);
});

test('fork shares pages for reading; the first write makes a copy', () => {
  const lab = new Lab();
  lab.populate(MEMORY, 1, true);
  lab.ask(0, WRITE, FIRST);
  lab.feed(ev('fork', { ret: 50 }));
  assert.equal(lab.snapshot(0, MEMORY, 1), [1]);
  assert.is(lab.ask(0, WRITE, FIRST).faults, 1);
  assert.equal(lab.snapshot(0, MEMORY, 1), [2]);
});

test("an inherited file works on its parent's memory, and on nothing when the parent is gone", () => {
  const lab = new Lab();
  lab.feed(ev('fork', { ret: 50 }));
  lab.feed(ev('exit', {}));
  const child = (nr: number, errno: string): unknown =>
    lab.feed({ ...ioctl(3, nr, FIRST, { ret: -1, errno }), tid: 50 });
  assert.is(child(READ, 'EFAULT'), 'match');
  assert.is(child(SNAPSHOT, 'EINVAL'), 'match');
  assert.is(child(TO_DEV, 'EINVAL'), 'match');
  assert.is(lab.feed({ ...ioctl(3, CHECK_EXCLUSIVE, FIRST), tid: 50 }), 'match');
});

test('without a word on what the CPU touched, only what does not depend on it is predicted', () => {
  const lab = new Lab();
  lab.feed(ev('exec', { tid: 9 }));
  const there = (event: Parameters<Lab['feed']>[0]): unknown => lab.feed({ ...event, tid: 9 });
  there(ev('brk', { ret: 0x5555_0000_0000 }));
  there(ev('mmap', { lengthBytes: 1 << 20, ret: 0x7f10_0000_0000 }));
  there(ev('mmap', { lengthBytes: 1 << 20, ret: BUFFER }));
  there(ev('mmap', { addr: MEMORY, lengthBytes: 1 << 20, ret: MEMORY }));
  there(ev('open', { path: '/dev/hmm_dmirror0', ret: 3 }));
  assert.is(there(ioctl(3, READ, TWO)), 'match');
  assert.is(there(ioctl(3, SNAPSHOT, TWO)), 'unknown');
  assert.is(there(ioctl(3, WRITE, command(MEMORY + 250 * PAGE, 10), { ret: -1, errno: 'EFAULT' })), 'match');
});

test('numbers of any size are answered in no time', () => {
  const lab = new Lab();
  for (const npages of [2 ** 20 + 1, 2 ** 36, 2 ** 52 - 1, 0xffff_ffff_ffff_ffffn]) {
    for (let nr = 0; nr <= FLAGS; nr++) lab.ask(0, nr, command(MEMORY, npages), 'EINVAL');
  }
  assert.ok(lab.world.mirrors.size === 4);
});

test('mprotect of a part of a huge page leaves small ones', () => {
  const lab = new Lab();
  const HUGE = 0x4000_0000;
  lab.feed(ev('mmap', { addr: HUGE, lengthBytes: 0x20_0000, flags: 0x32, ret: HUGE }));
  lab.populate(HUGE, 512, true);
  assert.equal(new Set(lab.snapshot(0, HUGE, 16)), new Set([6]));
  for (const prot of [1, 3]) lab.feed(ev('mprotect', { addr: HUGE, lengthBytes: 4 * PAGE, prot }));
  assert.equal(new Set(lab.snapshot(0, HUGE, 16)), new Set([2]));
});

test('pages before the one that exclusive access fails at stay exclusive', () => {
  const lab = new Lab();
  lab.populate(MEMORY, 3, true);
  lab.ask(0, TO_DEV, command(MEMORY + PAGE, 2));
  lab.ask(0, FLAGS, FIRST);
  assert.is(lab.ask(0, EXCLUSIVE, command(MEMORY, 3), 'ENOMEM').verdict, 'match');
  assert.equal(lab.snapshot(0, MEMORY, 3), [0, 0x22, 0x22]);
  assert.is(lab.ask(0, CHECK_EXCLUSIVE, FIRST, 'EPERM').verdict, 'match');
  assert.is(lab.ask(0, CHECK_EXCLUSIVE, command(MEMORY + PAGE, 2)).verdict, 'match');
});

test('a copy that fails takes nothing back of what the command did, and of what is known', () => {
  for (const nr of [READ, TO_DEV, SNAPSHOT, EXCLUSIVE]) {
    const lab = new Lab();
    lab.populate(MEMORY, 2, true);
    assert.is(lab.ask(0, nr, command(MEMORY, 1, 8), 'EFAULT').verdict, 'match');
    const place = nr === TO_DEV ? 0x22 : nr === EXCLUSIVE ? 0 : 2;
    assert.equal(lab.snapshot(0, MEMORY, 3), [place, 2, 0], `command ${nr}`);
  }
});

test('a range beyond all that is followed ends where nothing is mapped', () => {
  const far = 2 ** 30;
  const rows: readonly [nr: number, errno: string][] = [
    [TO_DEV, 'EINVAL'],
    [TO_SYS, 'EINVAL'],
    [EXCLUSIVE, 'EFAULT'],
    [READ, 'ENOMEM'],
  ];
  for (const [nr, errno] of rows) {
    const lab = new Lab();
    lab.populate(MEMORY, 1, true);
    assert.is(lab.ask(0, nr, command(MEMORY, far), errno).verdict, 'match');
    if (nr === TO_DEV) assert.equal(lab.snapshot(0, MEMORY, 2), [0x22, 0x22], 'what lies before the hole is done');
  }
  const dead = new Lab();
  dead.feed(ev('fork', { ret: 77 }));
  dead.feed(ev('exit'));
  assert.is(dead.ask(0, TO_DEV, command(MEMORY, far), 'EINVAL', { pid: 77, tid: 77 }).verdict, 'match');
});
