import { readdirSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import * as assert from 'uvu/assert';
import type { Event, InvalidateEvent } from '../core/event.js';
import { rangeAt } from '../core/interval.js';
import { suite } from '../core/testing.js';
import { add, sub, type U64, U64_MAX } from '../core/u64.js';
import { auditMirrors } from '../reducers/hmm/audit.js';
import { inMotion } from '../reducers/hmm/notified.js';
import { invariants } from '../reducers/invariants/index.js';
import type { World } from '../reducers/world.js';
import { openRecording } from '../traces/open.js';
import { Engine } from './engine.js';

/**
 * Invalidations of good recordings are dropped, shortened, put off and doubled. Two things say when a mirror is stale: a slow look
 * at whole mirrors after each event, and page by page the good recording itself (`Truth`), which knows nothing of the
 * model's audit. The invariants must have said so by then, and say nothing where none is.
 */
const test = suite('mirror mutations');
const CORPUS = fileURLToPath(new URL('../../traces/corpus/', import.meta.url));
const RECORDINGS = [
  'fuzz/hmm-fuzz-9.jsonl.gz',
  'hmm/hmm.hmm_device_private.anon_write_prot.jsonl.gz',
  'mirror/rxe-odp.jsonl.gz',
];
const OF_A_DRIVER = 'mirror/rxe-odp.jsonl.gz';
/** PROTECTION_VMA, PROTECTION_PAGE, SOFT_DIRTY: they take rights, and leave entries that only read. */
const TAKES_RIGHTS = [2, 3, 4];
/** Invalidations tried of each recording, and how far one is put off. */
const TRIED = 16;
const PUT_OFF = 12;
const PAGE = 4096;

const MUTATIONS = ['drop', 'shorten', 'put off', 'double'] as const;

async function eventsOf(name: string): Promise<readonly Event[]> {
  const events: Event[] = [];
  const path = name.startsWith('/') ? name : CORPUS + name;
  for await (const batch of (await openRecording(path)).batches()) events.push(...batch);
  return events;
}

function filesOf(path: string): string[] {
  const whole = resolve(path);
  return statSync(whole).isDirectory() ? readdirSync(whole).map((name) => join(whole, name)) : [whole];
}

/** The places of an invalidation's start and end, and of what drivers did in between for it. */
function groupOf(events: readonly Event[], at: number): readonly number[] | undefined {
  const start = events[at];
  if (start?.kind !== 'invalidateStart') return undefined;
  const group = [at];
  for (let i = at + 1; i < events.length; i++) {
    const event = events[i] as Event;
    if (event.tid !== start.tid) continue;
    if (event.kind === 'mirrorUnmap' || event.kind === 'mirrorInvalidate') group.push(i);
    else if (event.kind !== 'invalidateEnd' || event.start !== start.start || event.last !== start.last)
      return undefined;
    else return [...group, i];
  }
  return undefined;
}

function mutated(
  events: readonly Event[],
  group: readonly number[],
  how: (typeof MUTATIONS)[number],
): Event[] | undefined {
  const taken = new Set(group);
  const moved = group.map((i) => events[i] as Event);
  const rest = events.filter((_, i) => !taken.has(i));
  const first = group[0] as number;
  switch (how) {
    case 'drop':
      return numbered(rest);
    case 'double':
      return numbered([...rest.slice(0, first), ...moved, ...moved, ...rest.slice(first)]);
    case 'put off':
      return numbered([...rest.slice(0, first + PUT_OFF), ...moved, ...rest.slice(first + PUT_OFF)]);
    case 'shorten': {
      const { start, last } = moved[0] as InvalidateEvent;
      if (sub(last, start) < 2 * PAGE || last === U64_MAX) return undefined;
      const short = moved.map((e) => ('last' in e && e.last === last ? { ...e, last: sub(last, 2 * PAGE) } : e));
      return numbered([...rest.slice(0, first), ...short, ...rest.slice(first)]);
    }
  }
}

/** New places on the tape; where a call was entered moves with what came after its entry. */
function numbered(events: readonly Event[]): Event[] {
  return events.map((event, seq) => {
    if (!('enteredAt' in event)) return { ...event, seq };
    const entered = events.findIndex((other) => other.seq >= event.enteredAt);
    return { ...event, seq, enteredAt: event.enteredAt === event.seq ? seq : Math.min(seq, entered) };
  });
}

function isStale(world: World): boolean {
  for (const table of world.pageTables.values()) {
    if (table.knowledge === 'nothing') continue;
    for (const { start, last, because } of auditMirrors(world, table, 0, U64_MAX, 64)) {
      const changing = table.changes.some((c) => c.open && c.start <= last && c.last >= start);
      if (!changing && !inMotion(world, table.mm ?? 0, start, because[0] ?? -1)) return true;
    }
  }
  return false;
}

/**
 * The states of a good recording by line: what its mirrors hold is the truth. A spoiled copy of it has the same calls and faults, so
 * that its mirrors hold more only where an invalidation is missing.
 */
interface Truth {
  readonly worlds: ReadonlyMap<number, World>;
  /** Places on the tape. */
  readonly seqs: ReadonlyMap<number, number>;
}

function truthOf(events: readonly Event[]): Truth {
  const engine = new Engine({ invariants: [] });
  const worlds = new Map<number, World>();
  for (const event of events) {
    engine.feed([event]);
    worlds.set(event.line, engine.world);
  }
  return { worlds, seqs: new Map(events.map(({ line, seq }) => [line, seq])) };
}

/** Pages of a spoiled invalidation that are looked at. */
const PAGES_MAX = 1024;

/**
 * Page by page: whether an entry of a mirror that the truth has not, or has without the right to write, contradicts the CPU's page
 * table, which is the same in both: nothing is mapped there, or what is came later.
 */
function contradicts(
  { worlds, seqs }: Truth,
  spoiled: World,
  at: Event,
  lineOf: readonly number[],
  range: InvalidateEvent,
): boolean {
  const truth = worlds.get(at.line);
  if (truth === undefined) return false;
  for (const mirror of spoiled.mirrors.values()) {
    const real = truth.mirrors.get(mirror.id);
    const space = truth.spaces.get(mirror.space);
    const table = truth.pageTables.get(mirror.space);
    if (real === undefined || space === undefined || table === undefined) continue;
    let page = range.start;
    for (let count = 0; count < PAGES_MAX && page <= range.last; count++, page = add(page, PAGE)) {
      const entry = rangeAt(mirror.ptes, page);
      const kept = rangeAt(real.ptes, page);
      if (entry === undefined || entry.bare || (kept !== undefined && kept.access === entry.access)) continue;
      // A call that the recording shows where it begins: its own invalidation follows.
      if (table.changes.some((change) => change.open && change.start <= page && change.last >= page)) continue;
      const pte = rangeAt(table.runs, page);
      if (rangeAt(space.vmas, page) === undefined || pte === undefined) return true;
      const cameLater = pte.since > (seqs.get(lineOf[entry.since] ?? -1) ?? Number.POSITIVE_INFINITY);
      if (cameLater || (entry.access === 'write' && !pte.write && pte.kind !== 'private' && pte.kind !== 'exclusive'))
        return true;
    }
  }
  return false;
}

/** The first event of a spoiled recording after which its mirrors contradict the truth. */
function firstContradiction(truth: Truth, spoiled: readonly Event[], range: InvalidateEvent): number {
  const lineOf = spoiled.map((event) => event.line);
  const engine = new Engine({ invariants: [] });
  for (const event of spoiled) {
    engine.feed([event]);
    if (event.kind === 'invalidateStart' || event.kind === 'invalidateEnd') continue;
    if (contradicts(truth, engine.world, event, lineOf, range)) return event.seq;
  }
  return Number.POSITIVE_INFINITY;
}

/** The first event after which a mirror is stale, and the first that is reported; Infinity where there is none. */
function firsts(events: readonly Event[]): { stale: number; reported: number } {
  const engine = new Engine({ invariants: invariants.filter(({ name }) => name !== 'mirror-bare') });
  for (const event of events) {
    engine.feed([event]);
    const reported = engine.findings[0]?.seq ?? Number.POSITIVE_INFINITY;
    const stale = isStale(engine.world) ? event.seq : Number.POSITIVE_INFINITY;
    if (reported < Number.POSITIVE_INFINITY || stale < Number.POSITIVE_INFINITY) return { stale, reported };
  }
  return { stale: Number.POSITIVE_INFINITY, reported: Number.POSITIVE_INFINITY };
}

/** Another recording or a folder of them, of which every invalidation is tried: `IOTAPE_MUTATIONS=... npm test -- mirror-mutations`. */
const MORE = process.env['IOTAPE_MUTATIONS'] ?? '';

for (const name of MORE === '' ? RECORDINGS : filesOf(MORE)) {
  test(`${name}: what makes a mirror stale is reported as soon as it is`, async () => {
    const events = await eventsOf(name);
    const clean = firsts(events);
    assert.is(clean.stale, Number.POSITIVE_INFINITY);
    assert.is(clean.reported, Number.POSITIVE_INFINITY);
    const groups = events.flatMap((_, at) =>
      groupOf(events, at) === undefined ? [] : [groupOf(events, at) as readonly number[]],
    );
    const each = MORE === '' ? Math.max(1, Math.floor(groups.length / TRIED)) : 1;
    const truth = truthOf(events);
    let broken = 0;
    for (const group of groups.filter((_, i) => i % each === 0)) {
      for (const how of MUTATIONS) {
        const spoiled = mutated(events, group, how);
        if (spoiled === undefined) continue;
        const { stale, reported } = firsts(spoiled);
        const what = `${how} line ${events[group[0] as number]?.line}: stale ${stale}, reported ${reported}`;
        assert.ok(reported <= stale, what);
        const known = firstContradiction(truth, spoiled, events[group[0] as number] as InvalidateEvent);
        assert.ok(reported <= known, `${what}, known ${known}`);
        if (how === 'double') assert.is(reported, Number.POSITIVE_INFINITY, what);
        broken += reported < Number.POSITIVE_INFINITY ? 1 : 0;
      }
    }
    assert.ok(broken > 0 || MORE !== '', 'no mutation broke anything');
  });
}

/** Page by page: the first end of an invalidation that leaves something behind, by what the lines say. */
function firstLeftBehind(events: readonly Event[]): number {
  const held = new Map<string, boolean>();
  const eachPage = (event: { mirror: U64; start: U64; last: U64 }, visit: (key: string) => void): void => {
    for (let at = Number(event.start); at < Number(event.last); at += PAGE) visit(`${event.mirror}/${at}`);
  };
  for (const event of events) {
    if (event.kind === 'mirrorMap') eachPage(event, (key) => held.set(key, (event.flags & 2) !== 0));
    if (event.kind === 'mirrorUnmap') eachPage(event, (key) => held.delete(key));
    if (event.kind === 'mirrorEnd')
      for (const key of held.keys()) if (key.startsWith(`${event.mirror}/`)) held.delete(key);
    if (event.kind !== 'invalidateEnd') continue;
    for (const [key, write] of held) {
      const at = Number(key.split('/')[1]);
      const inside = at >= Number(event.start) && at <= Number(event.last);
      if (inside && (write || !TAKES_RIGHTS.includes(event.type))) return event.seq;
    }
  }
  return Number.POSITIVE_INFINITY;
}

test('a driver that forgets to drop entries is reported when the invalidation ends', async () => {
  const events = await eventsOf(OF_A_DRIVER);
  assert.is(firstLeftBehind(events), Number.POSITIVE_INFINITY);
  let forgotten = 0;
  for (const [at, event] of events.entries()) {
    if (event.kind !== 'mirrorUnmap') continue;
    const spoiled = numbered(events.filter((_, i) => i !== at));
    const left = firstLeftBehind(spoiled);
    const engine = new Engine({ invariants });
    engine.feed(spoiled);
    assert.is(
      engine.findings.find(({ invariant }) => invariant === 'mirror-stale')?.seq ?? Number.POSITIVE_INFINITY,
      left,
    );
    forgotten += left < Number.POSITIVE_INFINITY ? 1 : 0;
  }
  assert.ok(forgotten > 10, `only ${forgotten}`);
});
