import { fc } from '../core/property.js';

/**
 * Ways to spoil a recording, for tests: as bytes (anything anywhere), as lines (what a recorder loses or doubles) and as
 * values (struct fields, results, descriptors and numbers that no kernel would give). Made for strace text and for
 * kernel-event lines alike; a mutation that finds nothing to work on changes nothing.
 */

/** Values at the edges of the fields they land in. */
const HOSTILE = [
  0n,
  1n,
  3n,
  7n,
  0xfffn,
  0x1000n,
  0x7fff_ffffn,
  0x8000_0000n,
  0xffff_f000n,
  0xffff_ffffn,
  0x1_0000_0000n,
  0x1f_ffff_ffff_ffffn,
  0x20_0000_0000_0001n,
  0x7fff_ffff_ffff_ffffn,
  0x8000_0000_0000_0000n,
  0xffff_ffff_ffff_f000n,
  0xffff_ffff_ffff_ffffn,
];

/** Numbers as text: those, and some that are no 64-bit value at all. */
const HOSTILE_TEXTS = [
  ...HOSTILE.flatMap((value) => [String(value), `0x${value.toString(16)}`]),
  '-1',
  '-9223372036854775808',
  '-9223372036854775809',
  '18446744073709551616',
  '1000000000000000000000000000000',
  'NULL',
  '',
];

const RESULTS = [
  '0',
  '1',
  '3',
  '0x7f0000000000',
  '-1 EINVAL (Invalid argument)',
  '-1 ENOMEM (Cannot allocate memory) (INJECTED)',
  '-1 ENOENT (No such file or directory)',
  '-1 ENOTTY (Inappropriate ioctl for device)',
  '-1 E',
  '-5',
  '? ERESTARTSYS (To be restarted if SA_RESTART is set)',
  '?',
  '18446744073709551615',
  '',
];

const INSERTED = [
  'clone(child_stack=NULL, flags=CLONE_CHILD_CLEARTID|SIGCHLD) = 4242',
  'clone(child_stack=NULL, flags=CLONE_VM|CLONE_FILES|CLONE_THREAD|CLONE_SIGHAND) = 4242',
  'vfork() = 4243',
  'execve("/bin/true", ["true"], NULL) = 0',
  'openat(AT_FDCWD, "/dev/iommu", O_RDWR) = 3',
  'openat(AT_FDCWD, "/dev/vfio/vfio", O_RDWR) = 3',
  'openat(AT_FDCWD, "/dev/vfio/1", O_RDWR) = 4',
  'openat(AT_FDCWD, "/dev/vfio/devices/vfio0", O_RDWR) = 5',
  'openat(AT_FDCWD, "/dev/hmm_dmirror0", O_RDWR) = 3',
  'dup2(3, 4) = 4',
  'dup2(3, 2147483647) = 2147483647',
  'close_range(0, 4294967295, 0) = 0',
  'close(3) = 0',
  'exit_group(0) = ?',
  'munmap(NULL, 18446744073709547520) = 0',
  'mmap(NULL, 18446744073709547520, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x1000',
  'mremap(0x1000, 4096, 18446744073709547520, MREMAP_MAYMOVE|MREMAP_FIXED, 0xfffffffffffff000) = 0xfffffffffffff000',
  'brk(0xffffffffffffffff) = 0xffffffffffffffff',
  'prlimit64(0, RLIMIT_MEMLOCK, {rlim_cur=0, rlim_max=0}, NULL) = 0',
  'madvise(NULL, 18446744073709547520, MADV_DONTNEED) = 0',
];

const KINDS = [
  'struct',
  'struct',
  'struct',
  'succeed',
  'result',
  'number',
  'resize',
  'fd',
  'insert',
  'drop',
  'double',
  'swap',
  'cut line',
] as const;

/** One change: what, where (taken modulo what there is) and with which value. */
export interface Mutation {
  readonly kind: (typeof KINDS)[number];
  readonly at: number;
  readonly place: number;
  readonly widthBytes: number;
  readonly pick: number;
}

export const mutation: fc.Arbitrary<Mutation> = fc.record({
  kind: fc.constantFrom(...KINDS),
  at: fc.nat(0x7fff_ffff),
  place: fc.nat(0xffff),
  widthBytes: fc.constantFrom(1, 2, 4, 4, 8, 8),
  pick: fc.nat(0xffff),
});

/** Applies the changes one after the other to the lines of a text. */
export function mutated(text: string, mutations: readonly Mutation[]): string {
  const lines = text.split('\n');
  for (const each of mutations) apply(lines, each);
  return lines.join('\n');
}

const STATEMENT = /(pwrite64\(-1, )"((?:\\x[0-9a-f]{2})*)"(?:\.\.\.)?, (\d+)/;
const EVENT_MEMORY = /("mem":)"((?:[0-9a-f]{2})*)"/;
const FD = /((?:ioctl|close|read|write|dup2?|mmap)\((?:[^)]*, )?|"fd":)\d+(?:<[^>]*>)?(?=[,)])/;
const FDS = ['0', '3', '4', '5', '6', '4294967295'];
const CALL = /ioctl\(|pwrite64\(-1|mmap|munmap|"call":|"start":/;

function apply(lines: string[], each: Mutation): void {
  const { kind, at, place, widthBytes, pick } = each;
  switch (kind) {
    case 'struct':
      return edit(lines, at, isStatement, (line) => withBytes(line, (bytes) => overwritten(bytes, each)));
    case 'resize':
      return edit(lines, at, isStatement, (line) => withBytes(line, (bytes) => resized(bytes, place, widthBytes)));
    case 'succeed':
      return edit(lines, at, isAnswered, (line) => withResult(line, '0'));
    case 'result':
      return edit(lines, at, isAnswered, (line) => withResult(line, RESULTS[pick % RESULTS.length] ?? ''));
    case 'number':
      return edit(lines, at, isCall, (line) =>
        withNumber(line, place, HOSTILE_TEXTS[pick % HOSTILE_TEXTS.length] ?? ''),
      );
    case 'fd':
      return edit(lines, at, hasFd, (line) => line.replace(FD, `$1${FDS[pick % FDS.length]}`));
    case 'cut line':
      return edit(lines, at, isCall, (line) => line.slice(0, place % (line.length + 1)));
    default:
      rearrange(lines, kind, at % lines.length, place, pick);
  }
}

function rearrange(lines: string[], kind: Mutation['kind'], at: number, place: number, pick: number): void {
  const count = 1 + (place % 4);
  const other = (at + count) % lines.length;
  const here = lines[at] ?? '';
  if (kind === 'drop') lines.splice(at, count);
  else if (kind === 'double') lines.splice(at, 0, ...lines.slice(at, at + count));
  else if (kind === 'insert')
    lines.splice(at, 0, `${/^\d+ +/.exec(here)?.[0] ?? ''}${INSERTED[pick % INSERTED.length]}`);
  else [lines[at], lines[other]] = [lines[other] ?? '', here];
  if (lines.length === 0) lines.push('');
}

function isStatement(line: string): boolean {
  return line.includes('pwrite64(-1, "') || line.includes('"mem":"');
}

function isCall(line: string): boolean {
  return CALL.test(line);
}

/** A call whose answer counts: a statement about memory always fails. */
function isAnswered(line: string): boolean {
  return isCall(line) && !line.includes('pwrite64(-1');
}

function hasFd(line: string): boolean {
  return FD.test(line);
}

/** Changes the `at`-th of the lines that are fit for it. */
function edit(lines: string[], at: number, fit: (line: string) => boolean, change: (line: string) => string): void {
  for (let tried = 0, i = at % lines.length; tried < lines.length; tried++, i = (i + 1) % lines.length) {
    const line = lines[i] ?? '';
    if (!fit(line)) continue;
    lines[i] = change(line);
    return;
  }
}

function withBytes(line: string, change: (bytes: Buffer) => Buffer): string {
  if (EVENT_MEMORY.test(line))
    return line.replace(
      EVENT_MEMORY,
      (_all, name: string, hex: string) => `${name}"${change(Buffer.from(hex, 'hex')).toString('hex')}"`,
    );
  return line.replace(STATEMENT, (_all, head: string, text: string) => {
    const bytes = change(Buffer.from(text.replaceAll('\\x', ''), 'hex'));
    return `${head}"${bytes.toString('hex').replace(/../g, '\\x$&')}", ${bytes.length}`;
  });
}

/** A field, or what a field may be, gets a hostile value or one near what it held. */
function overwritten(bytes: Buffer, { place, widthBytes, pick }: Mutation): Buffer {
  const fields = Math.floor(bytes.length / widthBytes);
  if (fields === 0) return bytes;
  const offset = (place % fields) * widthBytes;
  let value = HOSTILE[pick % HOSTILE.length] ?? 0n;
  if (pick % 5 === 0 && widthBytes === 8) value = bytes.readBigUInt64LE(offset) ^ (1n << BigInt(pick % 64));
  const field = Buffer.alloc(8);
  field.writeBigUInt64LE(BigInt.asUintN(64, value));
  field.copy(bytes, offset, 0, widthBytes);
  return bytes;
}

function resized(bytes: Buffer, place: number, widthBytes: number): Buffer {
  if (place % 2 === 0) return bytes.subarray(0, place % (bytes.length + 1));
  return Buffer.concat([bytes, Buffer.alloc((place % 64) * widthBytes, place)]);
}

function withResult(line: string, result: string): string {
  if (line.startsWith('{')) return line.replace(/"ret":-?\d+/, `"ret":${/^-?\d+$/.test(result) ? result : '-22'}`);
  return line.replace(/ = (?:\?|-?\w+)(?:<[^>]*>)?(?: E.*)?$/, ` = ${result}`);
}

function withNumber(line: string, place: number, text: string): string {
  const numbers = [...line.matchAll(/(?<![\w\\])(?:0x[0-9a-f]+|\d+)(?!\w)/g)];
  const chosen = numbers[place % Math.max(1, numbers.length)];
  return chosen === undefined ? line : line.slice(0, chosen.index) + text + line.slice(chosen.index + chosen[0].length);
}
