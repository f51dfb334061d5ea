import * as assert from 'uvu/assert';
import { suite } from '../../core/testing.js';
import { ev } from '../testing.js';
import { command, EXCLUSIVE, Lab, PAGE, READ, TO_DEV, WRITE } from './testing.js';

const test = suite('hmm/page-cache');

const SHARED = 0x5000_0000;
const PRIVATE = 0x5100_0000;
const READ_ONLY = 0x5200_0000;
const PAGES = 64;

/** A lab with a memfd of 64 pages that is mapped shared, private, and shared for reading from its 16th page on. */
function withFile(): Lab {
  const lab = new Lab();
  const fd = 20;
  lab.feed(ev('open', { call: 'memfd_create', path: 'm', retPath: '/memfd:m (deleted)', ret: fd }));
  lab.feed(ev('other', { call: 'ftruncate', text: `${fd}</memfd:m>(deleted), ${PAGES * PAGE}` }));
  const map = (addr: number, flags: number, prot: number, first = 0): unknown =>
    lab.feed(
      ev('mmap', {
        addr,
        lengthBytes: (PAGES - first) * PAGE,
        prot,
        flags: flags | 0x10,
        fd,
        offset: first * PAGE,
        ret: addr,
      }),
    );
  map(SHARED, 1, 3);
  map(PRIVATE, 2, 3);
  map(READ_ONLY, 1, 1, 16);
  return lab;
}

function at(base: number, page: number): number {
  return base + page * PAGE;
}

test('an entry of a shared, writable mapping of memory is writable from the start; others are not', () => {
  const lab = withFile();
  for (const base of [SHARED, PRIVATE, READ_ONLY]) lab.ask(0, READ, command(base, 1));
  assert.equal(
    [SHARED, PRIVATE, READ_ONLY].flatMap((base) => lab.snapshot(0, base, 2)),
    [2, 0, 1, 0, 1, 0],
  );
  lab.feed(ev('mprotect', { addr: SHARED, lengthBytes: PAGE, prot: 1 }));
  assert.equal(lab.snapshot(0, SHARED, 1), [1]);
  lab.feed(ev('mprotect', { addr: SHARED, lengthBytes: PAGE, prot: 3 }));
  assert.equal(lab.snapshot(0, SHARED, 1), [2]);
});

test('a read maps what is in memory around it, a write does not', () => {
  const lab = withFile();
  lab.ask(0, WRITE, command(at(SHARED, 2), 3));
  lab.ask(0, WRITE, command(at(SHARED, 17), 1));
  lab.ask(0, READ, command(at(PRIVATE, 8), 1));
  assert.equal(lab.snapshot(0, PRIVATE, 10), [0, 0, 1, 1, 1, 0, 0, 0, 1, 0]);
  lab.ask(0, WRITE, command(at(PRIVATE, 0), 1));
  assert.equal(lab.snapshot(0, at(SHARED, 0), 5), [0, 0, 2, 2, 2]);
  lab.ask(0, READ, command(at(SHARED, 8), 1));
  assert.equal(lab.snapshot(0, at(SHARED, 0), 5), [2, 0, 2, 2, 2], 'a copy was made of a page that is in memory now');
  lab.ask(0, READ, command(READ_ONLY, 1));
  assert.equal(lab.snapshot(0, READ_ONLY, 3), [1, 1, 0]);
});

test('the window has 16 pages and begins at the mapping where that begins later', () => {
  const lab = withFile();
  lab.populate(SHARED, 40, true);
  lab.feed(ev('munmap', { addr: PRIVATE, lengthBytes: 5 * PAGE }));
  lab.ask(0, READ, command(at(PRIVATE, 6), 1));
  const seen = lab.snapshot(0, at(PRIVATE, 5), 20);
  assert.equal(
    seen.map((byte, page) => (byte === 0 ? -1 : page)).filter((page) => page >= 0),
    Array.from({ length: 16 }, (_, page) => page),
  );
  lab.ask(0, READ, command(at(PRIVATE, 33), 1));
  assert.equal(lab.snapshot(0, at(PRIVATE, 30), 4), [0, 0, 1, 1]);
});

test('what is not mapped is not in memory for that alone; a hole that is punched takes it from all', () => {
  const lab = withFile();
  lab.populate(SHARED, 4, true);
  lab.ask(0, WRITE, command(PRIVATE, 1));
  lab.ask(0, READ, command(at(PRIVATE, 3), 1));
  lab.feed(ev('madvise', { addr: SHARED, lengthBytes: 4 * PAGE, advice: 4 }));
  assert.equal(lab.snapshot(0, SHARED, 4), [0, 0, 0, 0]);
  lab.ask(0, READ, command(SHARED, 1));
  assert.equal(lab.snapshot(0, SHARED, 4), [2, 2, 2, 2]);
  lab.feed(ev('madvise', { addr: SHARED, lengthBytes: 2 * PAGE, advice: 9 }));
  assert.equal([lab.snapshot(0, SHARED, 4), lab.snapshot(0, PRIVATE, 4)].flat(), [0, 0, 2, 2, 2, 0, 1, 1]);
  lab.ask(0, READ, command(SHARED, 1));
  assert.equal(lab.snapshot(0, SHARED, 2), [2, 0]);
});

test('pages of files do not migrate; where others map them too, the mirror loses what it has', () => {
  const lab = withFile();
  lab.ask(0, READ, command(at(SHARED, 16), 2));
  assert.is(lab.ask(0, TO_DEV, command(at(SHARED, 16), 2)).verdict, 'match', 'the mirror has them');
  lab.ask(0, READ, command(READ_ONLY, 1));
  assert.is(lab.ask(0, TO_DEV, command(READ_ONLY, 1)).verdict, 'match', 'the first mapping is asked first');
  assert.is(lab.ask(0, TO_DEV, command(at(SHARED, 16), 1), 'ENOENT').verdict, 'match');
  lab.feed(ev('munmap', { addr: READ_ONLY, lengthBytes: 48 * PAGE }));
  lab.ask(0, READ, command(at(SHARED, 16), 1));
  assert.is(lab.ask(0, TO_DEV, command(at(SHARED, 16), 1)).verdict, 'match');
});

test('a child finds the pages of shared memory by its own faults, and is asked for them', () => {
  const lab = withFile();
  lab.ask(0, READ, command(SHARED, 1));
  lab.feed(ev('fork', { ret: 50 }));
  assert.is(lab.ask(0, TO_DEV, command(SHARED, 1)).verdict, 'match');
  lab.feed(ev('madvise', { tid: 50, pid: 50, addr: SHARED, lengthBytes: PAGE, advice: 22 }));
  lab.ask(0, READ, command(SHARED, 1));
  assert.is(lab.ask(0, TO_DEV, command(SHARED, 1), 'ENOENT').verdict, 'match');
});

test('exclusive access to shared memory is refused after the page has come', () => {
  const lab = withFile();
  assert.is(lab.ask(0, EXCLUSIVE, command(SHARED, 2), 'EOPNOTSUPP').verdict, 'match');
  assert.equal(lab.snapshot(0, SHARED, 2), [2, 0]);
  assert.is(lab.ask(0, EXCLUSIVE, command(PRIVATE, 2)).verdict, 'match', 'a private copy is anonymous');
});

test('anonymous shared memory is a file of its own', () => {
  const lab = new Lab();
  lab.feed(ev('mmap', { addr: SHARED, lengthBytes: 8 * PAGE, flags: 0x31, ret: SHARED }));
  lab.ask(0, WRITE, command(at(SHARED, 2), 1));
  lab.feed(ev('madvise', { addr: SHARED, lengthBytes: 8 * PAGE, advice: 4 }));
  lab.ask(0, READ, command(SHARED, 1));
  assert.equal(lab.snapshot(0, SHARED, 4), [2, 0, 2, 0]);
});

test('what a trial reads in is not in memory for that', () => {
  const lab = withFile();
  lab.feed(ev('fork', { flags: 0x5_0f00, ret: 2 }));
  lab.ask(0, WRITE, command(at(SHARED, 20), 1));
  const raced = { enteredAt: lab.next };
  lab.feed(ev('enter', { tid: 1, call: 'ioctl', fd: 3, request: 0xc028_4800 }));
  lab.feed(ev('munmap', { tid: 2, pid: 1, addr: at(SHARED, 2), lengthBytes: PAGE }));
  lab.ask(0, READ, command(SHARED, 4), 'EFAULT', raced);
  const [single, batch] = lab.hashes();
  assert.is(batch, single);
});

// ---- calls on the file -----------------------------------------------------------------------------------

function other(lab: Lab, call: string, rest: string): void {
  lab.feed(ev('other', { call, text: `20</memfd:m>(deleted), ${rest}` }));
}

test('what is written to a file is in memory, and mapped with its neighbours', () => {
  const lab = withFile();
  lab.feed(ev('io', { call: 'pwrite64', fd: 20, offset: 2 * PAGE + 100, lengthBytes: 2 * PAGE, ret: 2 * PAGE }));
  lab.feed(ev('io', { call: 'pread64', fd: 20, offset: 8 * PAGE, lengthBytes: PAGE, ret: PAGE }));
  other(lab, 'fallocate', `0, ${10 * PAGE}, ${PAGE}`);
  lab.ask(0, READ, command(SHARED, 1));
  assert.equal(lab.snapshot(0, SHARED, 12), [2, 0, 2, 2, 2, 0, 0, 0, 0, 0, 0, 0]);
});

test('a file that is cut takes its pages from all who map them, with the copies', () => {
  const lab = withFile();
  lab.ask(0, WRITE, command(SHARED, 3));
  lab.ask(0, WRITE, command(PRIVATE, 3));
  lab.ask(0, TO_DEV, command(at(PRIVATE, 2), 1));
  lab.ask(1, READ, command(SHARED, 3));
  other(lab, 'ftruncate', `${PAGE + 1}`);
  assert.equal(lab.snapshot(0, SHARED, 4), [2, 2, 0, 0]);
  assert.equal(lab.snapshot(0, PRIVATE, 4), [2, 2, 0, 0]);
  assert.is(lab.ask(1, READ, command(SHARED, 2)).faults, 0);
  assert.is(lab.ask(1, READ, command(SHARED, 3), 'EFAULT').verdict, 'match');
  other(lab, 'ftruncate', `${PAGES * PAGE}`);
  assert.is(lab.ask(1, READ, command(SHARED, 3)).faults, 1);
  assert.equal(lab.snapshot(0, SHARED, 4), [2, 2, 2, 0], 'page 2 is new');
});

test('a hole takes whole pages of a file, and leaves the copies', () => {
  const lab = withFile();
  lab.ask(0, WRITE, command(SHARED, 4));
  lab.ask(0, WRITE, command(PRIVATE, 4));
  other(lab, 'fallocate', `FALLOC_FL_KEEP_SIZE|FALLOC_FL_PUNCH_HOLE, 100, ${3 * PAGE}`);
  assert.equal(lab.snapshot(0, SHARED, 4), [2, 0, 0, 2]);
  assert.equal(lab.snapshot(0, PRIVATE, 4), [2, 2, 2, 2]);
  lab.ask(0, READ, command(at(SHARED, 5), 1));
  assert.equal(lab.snapshot(0, SHARED, 6), [2, 0, 0, 2, 0, 2], 'they are not in memory any more');
  other(lab, 'fallocate', `FALLOC_FL_KEEP_SIZE|FALLOC_FL_PUNCH_HOLE, 100, ${PAGE}`);
  assert.equal(lab.snapshot(0, SHARED, 1), [2], 'less than a page');
});

test('a file is cut in every process that maps it', () => {
  const lab = withFile();
  lab.ask(0, WRITE, command(SHARED, 2));
  lab.feed(ev('fork', { ret: 77 }));
  const child = { tid: 77, pid: 77 };
  lab.feed(ev('madvise', { ...child, addr: SHARED, lengthBytes: 2 * PAGE, advice: 23 }));
  lab.feed(ev('other', { ...child, call: 'ftruncate', text: `20</memfd:m>(deleted), ${PAGE}` }));
  assert.equal(lab.snapshot(0, SHARED, 2), [2, 0]);
  lab.feed(ev('exit', child));
  assert.equal(lab.snapshot(0, SHARED, 2), [2, 0]);
});

test('a read behind the end of a file fails, and maps the neighbours nonetheless', () => {
  const lab = withFile();
  lab.ask(0, WRITE, command(at(SHARED, 0), 3));
  lab.feed(ev('madvise', { addr: SHARED, lengthBytes: 3 * PAGE, advice: 4 }));
  other(lab, 'ftruncate', `${4 * PAGE}`);
  assert.is(lab.ask(0, READ, command(at(SHARED, 6), 1), 'EFAULT').verdict, 'match');
  assert.equal(lab.snapshot(0, SHARED, 5), [2, 2, 2, 0, 0]);
});

test('PAGEOUT takes the entries of pages of a file that nobody else maps, and leaves the pages in memory', () => {
  const lab = withFile();
  const pageOut = (addr: number, npages: number): unknown =>
    lab.feed(ev('madvise', { addr, lengthBytes: npages * PAGE, advice: 21 }));
  lab.ask(0, WRITE, command(SHARED, 3));
  lab.ask(0, WRITE, command(at(PRIVATE, 1), 1));
  lab.ask(0, READ, command(at(PRIVATE, 2), 1));
  lab.ask(1, READ, command(SHARED, 3));
  assert.equal(lab.snapshot(0, PRIVATE, 3), [1, 2, 1]);
  lab.feed(ev('madvise', { addr: PRIVATE, lengthBytes: PAGE, advice: 4 }));
  pageOut(SHARED, 3);
  assert.equal(lab.snapshot(0, SHARED, 3), [0, 0, 2], 'one of them is mapped twice');
  assert.is(lab.ask(1, READ, command(at(SHARED, 2), 1)).faults, 1, 'the page behind is told of, too');
  pageOut(PRIVATE, 3);
  assert.equal(lab.snapshot(0, PRIVATE, 3), [0, 2, 1], 'a copy stays');
  lab.ask(0, READ, command(at(SHARED, 0), 1));
  assert.equal(lab.snapshot(0, SHARED, 3), [2, 2, 2], 'they are still in memory');
});
