import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import * as assert from 'uvu/assert';
import type { Event, IoctlEvent } from '../core/event.js';
import { suite } from '../core/testing.js';
import { lastOf, parseU64, type U64, U64_MAX } from '../core/u64.js';
import { decode } from '../core/uapi/decode.js';
import { commandByName } from '../core/uapi/lookup.js';
import { candidates } from '../reducers/candidates.js';
import { unknownReason } from '../reducers/compare.js';
import { openRecording } from '../traces/open.js';
import { Engine } from './engine.js';
import type { Failure } from './failures.js';
import { startWorld } from './start.js';

/**
 * Every failing MAP, UNMAP and COPY of the corpus: the answer names the concrete thing, and it is true. What it names is
 * looked up in the recording itself: the fields of the call, and the events that it refers to.
 */
const test = suite('answers');
const CORPUS = fileURLToPath(new URL('../../traces/corpus/', import.meta.url));
const FILES = readdirSync(CORPUS, { recursive: true, withFileTypes: true })
  .filter((entry) => entry.isFile() && entry.name.endsWith('.gz'))
  .map((entry) => join(entry.parentPath, entry.name).slice(CORPUS.length))
  .sort();
const DMA = /_(?:UN)?MAP(?:_DMA|_FILE)?$|_COPY$/;

/** A failed call with what its recording holds of it. */
interface Case {
  readonly failure: Failure;
  readonly event: IoctlEvent;
  readonly events: readonly Event[];
  /** Names of calls by `seq`. */
  readonly names: ReadonlyMap<number, string>;
}

/** A field of the call's struct by its name in the header: the first of several that the struct has. */
function field(name: string, event: IoctlEvent, ...fields: readonly string[]): U64 {
  const command = commandByName(name);
  const value = command === undefined ? undefined : decode(command, event.arg, event.memIn).value;
  if (typeof value !== 'object' || value.kind !== 'struct') throw new Error(`${name}: no struct`);
  const byName = new Map(value.fields.map((each) => [each.field.name, each.value]));
  const found = byName.get(fields.find((each) => byName.has(each)) ?? '');
  if (typeof found !== 'number' && typeof found !== 'bigint') throw new Error(`${name} has none of ${fields}`);
  return found;
}

const IOVA = ['iova', 'dst_iova'];
const LENGTH = ['length', 'size'];
const ADDRESS = ['vaddr', 'user_va', 'start'];

function iovaOf({ failure, event }: Case): { start: U64; last: U64 } {
  const start = field(failure.call, event, ...IOVA);
  const length = field(failure.call, event, ...LENGTH);
  return { start, last: length === U64_MAX ? U64_MAX : (lastOf(start, length) ?? start) };
}

function memoryOf({ failure, event }: Case): { start: U64; last: U64 } {
  const start = field(failure.call, event, ...ADDRESS);
  return { start, last: lastOf(start, field(failure.call, event, ...LENGTH)) ?? start };
}

/** The values that a pattern finds in the reason; fails where it does not fit. */
function parts({ failure }: Case, pattern: RegExp): U64[] {
  const match = pattern.exec(failure.reason);
  assert.ok(match !== null, `${failure.rule}: ${failure.reason}`);
  return (match ?? []).slice(1).map((text) => parseU64(text) as U64);
}

/** The event is an earlier call that mapped all of `start..last`, as one or as part of more. */
function mappedBy(found: Case, seq: U64, start: U64, last: U64): void {
  const event = found.events.find((each) => each.seq === seq);
  const name = found.names.get(Number(seq)) ?? '';
  assert.ok(event?.kind === 'ioctl' && event.seq < found.event.seq && event.ret === 0, `event ${seq} is no success`);
  assert.match(name, /_MAP(?:_DMA|_FILE)?$|_COPY$/);
  const after = { ...event, memIn: event.memOut } as IoctlEvent;
  const from = field(name, after, ...IOVA);
  const to = lastOf(from, field(name, after, ...LENGTH)) as U64;
  assert.ok(from <= start && last <= to, `event ${seq} mapped ${from}-${to}`);
}

const RANGE = '(0x[0-9a-f]+)-(0x[0-9a-f]+)';

function overlaps(found: Case): void {
  const [a, b, start, last, seq] = parts(
    found,
    new RegExp(`^${RANGE} (?:overlaps|is) (?:mapping|area) ${RANGE} of event (\\d+)$`),
  ) as [U64, U64, U64, U64, U64];
  assert.equal({ start: a, last: b }, iovaOf(found));
  assert.ok(a <= last && start <= b);
  mappedBy(found, seq, start, last);
}

function cuts(found: Case): void {
  const [a, b, start, last, seq] = parts(
    found,
    new RegExp(`^${RANGE} cuts (?:mapping|area) ${RANGE} of event (\\d+), which goes as a whole or not at all$`),
  ) as [U64, U64, U64, U64, U64];
  assert.equal({ start: a, last: b }, iovaOf(found));
  assert.ok(a <= last && start <= b && (start < a || last > b));
  mappedBy(found, seq, start, last);
}

function isReserved(found: Case): void {
  const [a, b, start, last] = parts(
    found,
    new RegExp(`^${RANGE} touches ${RANGE} \\((?:outside the aperture|by device|by IOMMU_TEST)`),
  ) as [U64, U64, U64, U64];
  assert.equal({ start: a, last: b }, iovaOf(found));
  assert.ok(a <= last && start <= b);
  assert.match(found.failure.reason, /of event \d+|event \d+ told|as on all x86 machines/);
}

/** The range is not inside a valid one: the part that is not is named. */
function isOutside(found: Case): void {
  const [a, b] = parts(
    found,
    new RegExp(
      `^${RANGE} (?:touches ${RANGE.replaceAll(/[()]/g, '')}, w|ends beyond the aperture: it needs \\d+ bits, the IOMMU)`,
    ),
  ) as [U64, U64];
  assert.equal({ start: a, last: b }, iovaOf(found));
}

/** The page lies in the memory that the call names, and was not mapped, or not so. */
function notPinned(found: Case): void {
  const [at, a, b] = parts(found, new RegExp(`^(0x[0-9a-f]+) of user memory ${RANGE}: (?!$)`)) as [U64, U64, U64];
  assert.ok(a <= at && at <= b);
  if (found.failure.call !== 'IOMMU_IOAS_COPY') assert.equal({ start: a, last: b }, memoryOf(found));
}

/** Each field that is named has that value and is uneven; and one is. */
function uneven(found: Case): void {
  const { failure, event } = found;
  const [unit] = parts(found, /; multiples of (0x[0-9a-f]+) are needed/) as [U64];
  const named = [...failure.reason.slice(0, failure.reason.indexOf(';')).matchAll(/(\w+) (0x[0-9a-f]+)/g)];
  assert.ok(named.length > 0, failure.reason);
  for (const [, name = '', text = ''] of named) {
    const value = parseU64(text) as U64;
    assert.is.not(BigInt(value) % BigInt(unit), 0n, failure.reason);
    const own = name === 'address' ? [...ADDRESS, 'src_iova'] : name === 'iova' ? IOVA : [name];
    const recorded = field(failure.call, event, ...own);
    assert.is(BigInt(recorded) % 4096n === BigInt(value) || recorded === value, true, failure.reason);
  }
}

/** The fields that the reason names have the values that it names. */
function states(found: Case): void {
  const { failure, event } = found;
  const named = [...failure.reason.matchAll(/([a-z_]+) (0x[0-9a-f]+|\d+)\b/g)];
  assert.ok(named.length > 0, `${failure.rule}: ${failure.reason}`);
  for (const [, name = '', text = ''] of named) {
    if (name === 'event' || name === 'which') continue;
    const own = name === 'address' ? ADDRESS : name === 'iova' ? IOVA : name === 'length' ? LENGTH : [name];
    assert.is(BigInt(field(failure.call, event, ...own)), BigInt(parseU64(text) as U64), failure.reason);
  }
}

/** The struct's own size, which may be all that the recording has of it. */
function sizes(found: Case): void {
  const [value] = parts(found, /(?:argsz|size) (0x[0-9a-f]+|\d+)/) as [U64];
  assert.is(found.event.memIn.find(({ addr }) => addr === found.event.arg)?.bytes.u32(0), value);
}

function compatHead(found: Case): void {
  if (found.failure.reason.startsWith('argsz')) sizes(found);
  else
    assert.match(found.failure.reason, /^flags 0x[0-9a-f]+, of which 0x[0-9a-f]+ is unknown: iommufd takes .+ only$/);
}

function noObject(found: Case): void {
  states({ ...found, failure: { ...found.failure, reason: found.failure.reason.split(' is ')[0] ?? '' } });
  assert.match(
    found.failure.reason,
    / is (?:no object|[A-Za-z ]+ \d+ of event \d+); the context has (?:no IOAS|IOAS \d)/,
  );
}

function notMapped(found: Case): void {
  const [a, b] = parts(
    found,
    new RegExp(`^${RANGE} is not mapped in IOAS \\d+; the (?:nearest (?:is|are) area|IOAS is empty)`),
  ) as [U64, U64];
  assert.equal({ start: a, last: b }, iovaOf(found));
}

function sourceGap(found: Case): void {
  const [at, a, b] = parts(
    found,
    new RegExp(`^(0x[0-9a-f]+) of ${RANGE} is not mapped in IOAS \\d+; the (?:nearest|IOAS is empty)`),
  ) as [U64, U64, U64];
  assert.is(a, field(found.failure.call, found.event, 'src_iova'));
  assert.ok(a <= at && at <= b);
}

/** More than the limit: the sum is right, and so is what the call asks for. */
function overLimit(found: Case): void {
  const [held, asked, sum, limit] = parts(
    found,
    /^the (?:user|process) has (\d+) KiB locked and asks for (\d+) KiB, (\d+) KiB in all; RLIMIT_MEMLOCK is (\d+) (?:KiB|bytes)/,
  ).map(Number) as [number, number, number, number];
  assert.is(held + asked, sum);
  assert.ok(sum > limit || /is \d+ bytes/.test(found.failure.reason), found.failure.reason);
  const { failure, event } = found;
  assert.ok(asked * 1024 < Number(field(failure.call, event, ...LENGTH)) + 2 * 4096, failure.reason);
}

const says =
  (pattern: RegExp) =>
  (found: Case): void => {
    parts(found, pattern);
  };

/** By rule: what its answers must name. */
const CHECKS: Readonly<Record<string, (found: Case) => void>> = {
  'common.size': sizes,
  'common.tail': sizes,
  'compat-map.argsz': compatHead,
  'compat-unmap.argsz': compatHead,
  'compat.no-ioas': says(/^the context has (?:no IOAS|IOAS \d.* did not choose), and no VFIO group has joined it$/),
  'container.no-backend': says(/^the container has (?:\/dev\/vfio\/\S+, and SET_IOMMU|no group: SET_CONTAINER)/),
  'copy.length': states,
  'copy.source': noObject,
  'copy.source-gap': sourceGap,
  'iova.aligned': uneven,
  'iova.choose-alignment': uneven,
  'iova.choose-overflow': states,
  'iova.exists': overlaps,
  'iova.length': uneven,
  'iova.overflow': states,
  'iova.reserved': isReserved,
  'map-dma.access': says(/^flags (?:0|READ|WRITE|VADDR)/),
  'map-dma.argsz': sizes,
  'map-dma.flags': states,
  'map-dma.iova-aligned': uneven,
  'map-dma.iova-overflow': states,
  'map-dma.iova-range': isOutside,
  'map-dma.memlock': overLimit,
  'map-dma.overlap': overlaps,
  'map-dma.pin': notPinned,
  'map-dma.size-zero': states,
  'map-dma.vaddr-mismatch': says(/mapping 0x[0-9a-f]+-0x[0-9a-f]+ of event \d+/),
  'map-file.fd': says(/^fd -?\d+$/),
  'map-file.length': states,
  'map.flags': says(/^(?:flags 0x[0-9a-f]+, of which 0x[0-9a-f]+ is unknown|the reserved field is 0x[0-9a-f]+)$/),
  'map.ioas': noObject,
  'map.memory-length': states,
  'map.memory-overflow': states,
  'map.no-access': states,
  'map.overflow': states,
  'map.page-offset': uneven,
  'map.write': says(/^area 0x[0-9a-f]+-0x[0-9a-f]+ of event \d+$/),
  'pages.fault': notPinned,
  'pages.memlock': overLimit,
  'pages.file-size': says(/^bytes 0x[0-9a-f]+-0x[0-9a-f]+ of fd \d+ \(.+\), which has 0x[0-9a-f]+ bytes$/),
  'unmap-dma.all-range': states,
  'unmap-dma.argsz': sizes,
  'unmap-dma.bitmap-argsz': sizes,
  'unmap-dma.bitmap-size': says(/^a bitmap of pgsize 0x[0-9a-f]+, size 0x[0-9a-f]+, data 0x[0-9a-f]+ for 0x/),
  'unmap-dma.cuts-first': cuts,
  'unmap-dma.cuts-last': cuts,
  'unmap-dma.flags': states,
  'unmap-dma.flags-together': says(/^flags GET_DIRTY_BITMAP\|/),
  'unmap-dma.iova-aligned': uneven,
  'unmap-dma.not-tracking': says(/^(?:no DIRTY_PAGES with START is in force|pgsize 0x)/),
  'unmap-dma.overflow': states,
  'unmap-dma.size': (found) => (found.failure.reason.includes('multiples') ? uneven(found) : states(found)),
  'unmap-dma.vaddr-mediated': says(/^\/dev\/vfio\/\d+/),
  'unmap.ioas': noObject,
  'unmap.length': states,
  'unmap.none': notMapped,
  'unmap.overflow': states,
  'unmap.part': cuts,
};

/** Reasons of unknown answers as KNOWN-GAPS.md lists them: N stands for a number. */
const LISTED = new Set(
  readFileSync(new URL('../../KNOWN-GAPS.md', import.meta.url), 'utf8')
    .split('\n')
    .map((line) => line.split('|')[2]?.trim()),
);

let answered = 0;
const used = new Set<string>();

for (const file of FILES) {
  test(`${file}: failing mappings name what they met, and no candidate is left out`, async () => {
    const recording = await openRecording(join(CORPUS, file));
    const names = new Map<number, string>();
    // What this throws, the engine would take for a bug of the model.
    const leftOut: string[] = [];
    const reasons = new Set<string>();
    const engine = new Engine({
      world: startWorld(recording),
      onCall(verdict, call) {
        names.set(call.event.seq, call.name);
        if (verdict === 'unknown') reasons.add(unknownReason(call).replaceAll(/0x[0-9a-f]+|\d+/g, 'N'));
        if (verdict !== 'match' || call.event.ret !== -1) return;
        // As if the argument had not been recorded: the rule that decided must be among the candidates.
        const { struct } = call;
        call.struct = struct.slice(0, 0);
        if (!candidates(call)?.some(({ rule }) => rule.id === call.rule)) leftOut.push(`${call.name} ${call.rule}`);
        call.struct = struct;
      },
    });
    const events: Event[] = [];
    for await (const batch of recording.batches()) {
      events.push(...batch);
      engine.feed(batch);
    }
    assert.equal(leftOut, []);
    for (const reason of reasons) assert.ok(LISTED.has(reason), `KNOWN-GAPS.md does not list: ${reason}`);
    const bySeq = new Map(events.map((event) => [event.seq, event]));
    for (const failure of engine.failures.list) {
      // Of no other rejection it is left open what was asked, or what stood against it.
      if (failure.rule !== '') assert.is.not(failure.reason, '', `${failure.call} ${failure.rule} ${failure.line}`);
      if (!DMA.test(failure.call)) continue;
      answered++;
      if (failure.rule === '') {
        assert.is(failure.text, 'an allocation was made to fail (/proc/self/fail-nth)');
        continue;
      }
      const check = CHECKS[failure.rule];
      used.add(failure.rule);
      check?.({ failure, event: bySeq.get(failure.seq) as IoctlEvent, events, names });
    }
  });
}

test('there were many, and no check went without', () => {
  assert.ok(answered > 600, String(answered));
  assert.equal(
    Object.keys(CHECKS).filter((rule) => !used.has(rule)),
    [],
  );
});
