import * as assert from 'uvu/assert';
import { suite } from '../../core/testing.js';
import { ev } from '../testing.js';
import { Bytes } from '../../core/bytes.js';
import { command, ioctl, Lab, PAGE, READ, RELEASE, SNAPSHOT, TO_DEV, TO_SYS } from './testing.js';

const test = suite('hmm/devices');

const AT = 0x4000_0000;
const BLOCK = 2 << 20;
const BIG = 0x7f01_0000_0000;
const ARG = 0x7f10_0000_0000;
const WHOLE = command(AT, 512, BIG);

/** Two blocks that the CPU has written to; devices 2 and 3 have coherent memory, in pages of a size that nobody knows. */
function withBlocks(): Lab {
  const lab = new Lab();
  lab.feed(ev('mmap', { addr: AT, lengthBytes: 2 * BLOCK, flags: 0x32, ret: AT }));
  lab.feed(ev('mmap', { lengthBytes: 4 << 20, ret: BIG }));
  lab.populate(AT, 1024, true);
  return lab;
}

function factOf(lab: Lab, device: number): unknown {
  return lab.world.facts.get(`dmirror/${device}/free-pages`)?.value;
}

/** A SNAPSHOT of one page that tells something; its verdict. */
function told(lab: Lab, minor: number, byte: number, addr = AT): string {
  const buffer = 0x7f20_0000_0000;
  const memOut = [
    { addr: ARG, bytes: command(addr, 1, buffer, 1) },
    { addr: buffer, bytes: new Bytes(Uint8Array.from([byte])) },
  ];
  return String(lab.feed(ioctl(3 + minor, SNAPSHOT, command(addr, 1, buffer), { memOut })));
}

test('the size of free pages is learned from what a SNAPSHOT tells of them, and then predicted', () => {
  for (const [byte, size] of [
    [0x42, 'small'],
    [0x46, 'large'],
  ] as const) {
    const lab = withBlocks();
    lab.ask(2, TO_DEV, WHOLE);
    assert.is(factOf(lab, 2), undefined, 'either size gives the answer');
    assert.is(told(lab, 2, byte), 'learned');
    assert.is(factOf(lab, 2), size);
    assert.equal(lab.snapshot(2, AT, 2), [byte, byte]);
    lab.ask(2, TO_DEV, command(AT + BLOCK, 512, BIG));
    assert.equal(lab.snapshot(2, AT + BLOCK, 1), [byte], 'the next one');
  }
});

test('another device may tell it', () => {
  for (const [byte, size] of [
    [0x52, 'small'],
    [0x56, 'large'],
  ] as const) {
    const lab = withBlocks();
    // Of its own pages it is known.
    lab.ask(3, RELEASE, WHOLE);
    lab.ask(2, TO_DEV, WHOLE);
    assert.is(told(lab, 3, byte), 'learned');
    assert.is(factOf(lab, 2), size);
    assert.equal(lab.snapshot(2, AT, 1), [byte - 0x10]);
  }
});

test('when the size turns out to be small, all that was taken to be huge is small', () => {
  const lab = withBlocks();
  lab.ask(2, TO_DEV, command(AT, 1024, BIG));
  assert.is(told(lab, 2, 0x42), 'learned');
  assert.equal(lab.snapshot(2, AT + BLOCK, 1), [0x42], 'in the other block, too');
  lab.ask(3, READ, command(AT, 1));
  assert.equal(lab.snapshot(3, AT, 1), [0x52]);
});

test('when it turns out to be large, what was taken to have migrated page by page never did', () => {
  const lab = withBlocks();
  lab.feed(ev('fork', { ret: 77 }));
  assert.is(lab.ask(2, TO_DEV, command(AT, 4), 'ENOENT').verdict, 'unknown', 'a failure may have other reasons');
  const other = withBlocks();
  other.ask(2, TO_DEV, command(AT + BLOCK, 512, BIG));
  assert.is(told(other, 2, 0x46, AT + BLOCK), 'learned');
  assert.is(other.ask(2, TO_DEV, command(AT, 4), 'ENOENT').verdict, 'match');
  assert.equal(other.snapshot(2, AT, 2), [0x11, 0x11], 'the huge page was split for it');
});

test('after RELEASE the first pages that are asked for decide', () => {
  for (const [npages, byte] of [
    [512, 0x46],
    [4, 0x42],
  ] as const) {
    const lab = withBlocks();
    lab.ask(2, RELEASE, WHOLE);
    lab.ask(2, TO_DEV, command(AT, npages, BIG));
    assert.equal(lab.snapshot(2, AT, 1), [byte]);
    lab.ask(2, TO_DEV, command(AT + BLOCK, 512, BIG));
    assert.equal(lab.snapshot(2, AT + BLOCK, 1), [byte]);
  }
});

test('memory of a device goes back to the system with the last close of one of its files, and by RELEASE', () => {
  for (const how of ['close', 'release'] as const) {
    const lab = withBlocks();
    lab.ask(0, TO_DEV, WHOLE);
    lab.ask(1, TO_DEV, command(AT + BLOCK, 512, BIG));
    if (how === 'close') lab.feed(ev('close', { fd: 3 }));
    else lab.ask(0, RELEASE, WHOLE);
    assert.equal([lab.snapshot(1, AT, 1), lab.snapshot(1, AT + BLOCK, 1)].flat(), [6, 0x26], how);
    assert.is(lab.ask(1, TO_SYS, command(AT, 4 * PAGE)).errno, 'EINVAL');
  }
});
