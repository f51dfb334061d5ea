import { fc } from '../../core/property.js';
import * as assert from 'uvu/assert';
import { BATCH_EVENTS } from '../../core/event.js';
import { suite } from '../../core/testing.js';
import { StraceParser } from './parser.js';
import { fixture, type Parsed, parse, show, statement } from './testing.js';

const test = suite('strace robustness');

const TEXTS = [
  '6.1-f-tt-T-y-stderr-interleaved.txt',
  '6.1-k-stacktrace.txt',
  '6.1-plain-all-vfio-iommufd-hmm-numbers.txt',
  '7.2-N-yy.txt',
  '7.2-Xraw.txt',
  '7.2-Xverbose.txt',
  '7.2-color-always.txt',
  '7.2-eraw-ioctl.txt',
  '7.2-f-Y-stderr-interleaved.txt',
  '7.2-f-tt-T-o-file.txt',
  '7.2-f-tt-T-yy-stderr-interleaved.txt',
  '7.2-plain-all-vfio-iommufd-hmm-numbers.txt',
  '7.2-r-tt-n-i.txt',
  '7.2-sigsegv.txt',
  '7.2-v-s64-hmm-payload-hex.txt',
  '02-ubuntu-slow-vfio-spapr-ppc64.txt',
  '03-qemu-devel-unmap-ambiguous-T.txt',
  'iommufd.map_cmd.strace.gz',
  'crash-13.strace.gz',
  'hmm.hmm_device_private.anon_teardown.strace.gz',
  'vfio_pci_device_init_perf_test-e1000e.strace.gz',
];

function sound(parsed: Parsed, name: string): void {
  parsed.events.forEach((event, index) => {
    assert.is(event.seq, index, name);
    assert.ok(Number.isSafeInteger(event.tsNs), name);
    if ('enteredAt' in event) assert.ok(event.enteredAt >= 0 && event.enteredAt <= event.seq, name);
  });
}

test('the fast and the complete reader agree on every recording', () => {
  for (const name of TEXTS) {
    const fast = parse(fixture(name));
    const slow = parse(fixture(name), { fast: false });
    sound(fast, name);
    assert.is(show(fast.events), show(slow.events), name);
    assert.equal(fast.log.list, slow.log.list, name);
  }
});

test('chunks of any size give the same events', () => {
  for (const name of ['6.1-f-tt-T-y-stderr-interleaved.txt', 'crash-13.strace.gz']) {
    const whole = show(parse(fixture(name)).events);
    for (const chunkBytes of [1, 7, 64, 1000]) {
      assert.is(show(parse(fixture(name), { chunkBytes }).events), whole, `${name} ${chunkBytes}`);
    }
  }
});

test('all lines of the recordings are understood, but a last one that is cut off', () => {
  for (const name of TEXTS) {
    const { log, skippedLines } = parse(fixture(name));
    assert.is(skippedLines, 0, name);
    const lines = fixture(name).toString('latin1').split('\n').length;
    for (const { code, line } of log.list) assert.ok(code === 'IOT102' && line === lines, `${name}:${line} ${code}`);
  }
});

test('the numbers of one list of calls are the same in every output format', () => {
  const requests = (name: string) =>
    parse(fixture(name)).events.flatMap((event) => (event.kind === 'ioctl' ? [event.request] : []));
  const expected = requests('7.2-Xraw.txt');
  assert.ok(expected.length > 50);
  assert.ok(new Set(expected).size > 50);
  for (const name of TEXTS.filter((text) => /^7\.2-(N|Xverbose|color|eraw|plain|r-tt|v-s64)/.test(text))) {
    assert.equal(requests(name), expected, name);
  }
  // strace 6.1 names fewer of them; the numbers are the same all the same.
  assert.equal(requests('6.1-plain-all-vfio-iommufd-hmm-numbers.txt').slice(0, 60), expected.slice(0, 60));
});

test('cut off at any byte', () => {
  const bytes = Buffer.concat([
    fixture('6.1-f-tt-T-y-stderr-interleaved.txt'),
    Buffer.from(`${statement(0x1000, [1, 2])}\nioctl(3, IOMMU_IOAS_MAP, 0x1000) = 0\n`),
    fixture('iommufd.map_cmd.strace.gz').subarray(-3000),
  ]);
  for (let end = 0; end <= bytes.length; end++) {
    const parsed = parse(bytes.subarray(0, end));
    if (end % 16 === 0) sound(parsed, `cut at ${end}`);
  }
});

test('recordings with changed, lost, doubled and swapped bytes', () => {
  const sources = TEXTS.map((name) => fixture(name).subarray(0, 6000));
  const edit = fc.record({
    at: fc.nat(6000),
    what: fc.constantFrom('set', 'cut', 'double', 'insert'),
    bytes: fc.oneof(
      fc.uint8Array({ maxLength: 4 }),
      fc
        .constantFrom(
          '\n',
          '<unfinished ...>',
          '"',
          '(',
          '>',
          '\\',
          '= ',
          '0xffffffffffffffffff',
          '-1 E',
          '[pid 7] ',
          'strace: Process 5 attached\n',
        )
        .map((s) => Buffer.from(s)),
    ),
    length: fc.nat(300),
  });
  const property = fc.property(
    fc.nat(sources.length - 1),
    fc.array(edit, { minLength: 1, maxLength: 8 }),
    (index, edits) => {
      let bytes: Uint8Array = Buffer.from(sources[index] as Buffer);
      for (const { at, what, bytes: put, length } of edits) {
        const head = bytes.subarray(0, at);
        const tail = bytes.subarray(at);
        const middle = what === 'double' ? tail.subarray(0, length) : put;
        const rest = what === 'cut' ? tail.subarray(length) : what === 'set' ? tail.subarray(put.length) : tail;
        bytes = Buffer.concat([head, what === 'cut' ? new Uint8Array(0) : middle, rest]);
      }
      const fast = parse(bytes);
      sound(fast, 'mutated');
      assert.is(show(parse(bytes, { fast: false, chunkBytes: 997 }).events), show(fast.events));
    },
  );
  fc.assert(property, { numRuns: 400 });
});

test('numbers at the edges of their fields', () => {
  const numbers = [
    '0',
    '-1',
    '4294967296',
    '9007199254740993',
    '18446744073709551615',
    '18446744073709551616',
    '0xffffffffffffffff',
    '0x10000000000000000',
    '0x',
    'NULL',
    '',
    '1e9',
    '8192*1024*1024*1024*1024*1024',
  ];
  for (const a of numbers) {
    for (const b of numbers) {
      const text = [
        `${a} close(${b}) = ${a}`,
        `mmap(${a}, ${b}, PROT_READ, MAP_SHARED|${b}<<MAP_HUGE_SHIFT, ${a}, ${b}) = ${a}`,
        `[pid ${a}] ioctl(${a}, ${b}, ${a}) = ${b}`,
        `pwrite64(-1, "\\x01", ${a}, ${b}) = -1 EBADF (Bad file descriptor)`,
        `${a}.${b} madvise(${a}, ${b}, ${a}) = 0`,
        `prlimit64(${a}, ${b}, {rlim_cur=${a}, rlim_max=${b}}, NULL) = 0`,
        `+++ exited with ${a} +++`,
        `clone(flags=${a}) = ${b}`,
      ].join('\n');
      const fast = parse(`${text}\n`);
      sound(fast, text);
      assert.is(show(parse(`${text}\n`, { fast: false }).events), show(fast.events), text);
    }
  }
});

test('an endless stream of anything keeps to its bounds', () => {
  const chunk = Buffer.alloc(65_536, '1 ioctl(3, VFIO_SET_IOMMU, 0');
  const parser = new StraceParser({ maxLineBytes: 100_000 });
  for (let i = 0; i < 200; i++) parser.push(chunk);
  for (let tid = 0; tid < 200_000; tid += 100) {
    parser.push(Buffer.from(Array.from({ length: 100 }, (_, i) => `\n${tid + i} read(3, <unfinished ...>`).join('')));
  }
  parser.end();
  let batches = 0;
  for (let batch = parser.take(); batch.length > 0; batch = parser.take()) {
    batches++;
    assert.ok(batch.length <= BATCH_EVENTS);
  }
  assert.ok(batches > 0 && batches <= 17, `${batches} batches`);
});

test('events that wait for memory do not wait for ever', () => {
  const parser = new StraceParser();
  parser.push(Buffer.from(`1 ${statement(4096, [1])}\n1 ioctl(3, IOMMU_IOAS_MAP, 0x1000) = 0\n`));
  parser.push(Buffer.from('2 close(9) = 0\n'.repeat(1000)));
  assert.equal(parser.take(), []);
  parser.push(Buffer.from('2 close(9) = 0\n'.repeat(70_000)));
  assert.is(parser.take().length, BATCH_EVENTS);
});
