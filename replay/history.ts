import type { Event } from '../core/event.js';
import type { Invariant } from '../core/invariant.js';
import { alignDown, lastOf, type U64 } from '../core/u64.js';
import type { Call } from '../reducers/call.js';
import { dmaMove } from '../reducers/dma-move.js';
import type { Subject } from '../reducers/explain.js';
import { knownProcessOf } from '../reducers/files/processes.js';
import { PAGE_BYTES } from '../reducers/memory/flags.js';
import { lostRanges } from '../reducers/memory/lost.js';
import type { World } from '../reducers/world.js';

/**
 * What earlier events did to something that a failing call asked for: who unmapped the memory or the IOVA, why a mapping
 * was never made, who destroyed the object. States keep no history, so this listens to a second replay of the recording,
 * which only happens for failures that somebody looks at.
 */
export interface Question {
  /** `seq` of the failing call: only what came before it counts. */
  readonly seq: number;
  readonly about: Subject;
}

type About<K extends Subject['kind']> = Extract<Subject, { kind: K }>;

interface Entry<A extends Subject = Subject> {
  readonly seq: number;
  readonly about: A;
  /** The last event that did something to it. */
  answer: Answer | undefined;
}

interface Answer {
  readonly text: string;
  readonly event: Event;
}

export class Historian {
  readonly #bySeq = new Map<number, Entry>();
  readonly #memory: Entry<About<'memory'>>[] = [];
  readonly #iova: Entry<About<'iova'>>[] = [];
  readonly #objects: Entry<About<'object'>>[] = [];
  readonly #backends: Entry<About<'backend'>>[] = [];

  constructor(questions: readonly Question[]) {
    for (const { seq, about } of questions) {
      if (about.kind === 'memory') this.#enter(this.#memory, seq, about);
      else if (about.kind === 'iova') this.#enter(this.#iova, seq, about);
      else if (about.kind === 'object') this.#enter(this.#objects, seq, about);
      else this.#enter(this.#backends, seq, about);
    }
  }

  #enter<A extends Subject>(list: Entry<A>[], seq: number, about: A): void {
    const entry: Entry<A> = { seq, about, answer: undefined };
    list.push(entry);
    this.#bySeq.set(seq, entry);
  }

  /** The `seq` up to which a recording must be read; -1 when nothing was asked. */
  get lastSeq(): number {
    return Math.max(-1, ...this.#bySeq.keys());
  }

  /** What to run beside the replay. They find nothing; they look. */
  get listeners(): readonly Invariant<World>[] {
    const listeners: Invariant<World>[] = [];
    if (this.#memory.length > 0) listeners.push(memoryListener(this.#memory));
    if (this.#backends.length > 0) listeners.push(backendListener(this.#backends));
    return listeners;
  }

  /** Takes note of a call of the replay, right after its verdict. */
  onCall(call: Call): void {
    const { event } = call;
    if (event.ret === null) return;
    if (this.#iova.length > 0) noteMove(this.#iova, call);
    if (this.#objects.length > 0 && call.name === 'IOMMU_DESTROY' && event.ret === 0 && call.struct.has(4, 4)) {
      const id = call.struct.u32(4);
      for (const entry of this.#objects)
        if (entry.about.id === id && entry.about.context === call.file.object) note(entry, event, 'destroyed it');
    }
  }

  /** What was found for the failing call `seq`, as the end of a sentence; '' for nothing. Names events as `event N`. */
  answerOf(seq: number): string {
    const entry = this.#bySeq.get(seq);
    if (entry === undefined) return '';
    if (entry.answer !== undefined) return `event ${entry.answer.event.seq} ${entry.answer.text}`;
    return entry.about.kind === 'iova' && entry.about.since < 0 ? 'no call of the recording mapped it before' : '';
  }

  /** The events that answers name. */
  get events(): readonly Event[] {
    return [...this.#bySeq.values()].flatMap(({ answer }) => (answer === undefined ? [] : [answer.event]));
  }
}

function note(entry: Entry, event: Event, text: string): void {
  if (event.seq < entry.seq) entry.answer = { text, event };
}

/** A range of IOVAs was mapped or unmapped, or was not. */
function noteMove(entries: readonly Entry<About<'iova'>>[], call: Call): void {
  const move = dmaMove(call);
  if (move === undefined) return;
  const failed = call.event.ret === -1 ? ` and failed with ${call.event.errno}` : '';
  for (const entry of entries) {
    const { table, start, last, since } = entry.about;
    if (move.table !== table || move.last < start || move.start > last || call.event.seq <= since) continue;
    // Of a mapping that stands, another MAP that met it tells nothing.
    if (move.what === 'map' && since >= 0) continue;
    if (move.what === 'map') note(entry, call.event, failed === '' ? 'mapped it' : `would have mapped it${failed}`);
    else if (since < 0 && failed === '') note(entry, call.event, 'unmapped it');
    // What is mapped still was not unmapped, whatever the call returned.
    else if (since >= 0)
      note(entry, call.event, `would have unmapped it${failed === '' ? ', and nothing went' : failed}`);
  }
}

// ---- memory -------------------------------------------------------------------------------------------------

function memoryListener(entries: readonly Entry<About<'memory'>>[]): Invariant<World> {
  return {
    name: 'history-of-memory',
    why: 'who took memory away, or its rights',
    kinds: ['munmap', 'mremap', 'brk', 'mprotect'],
    concerns: (before, event) => entries.some((entry) => changeOf(before, entry, event) !== undefined),
    check(before, event) {
      for (const entry of entries) {
        const change = changeOf(before, entry, event);
        if (change !== undefined) note(entry, event, change);
      }
      return [];
    },
  };
}

/** What an event does to the memory of a question, in words. */
function changeOf(world: World, { seq, about }: Entry<About<'memory'>>, event: Event): string | undefined {
  const space = world.spaces.get(about.space);
  if (
    event.seq >= seq ||
    event.seq <= about.since ||
    space === undefined ||
    knownProcessOf(world, event)?.space !== about.space
  )
    return undefined;
  const at = alignDown(about.at, PAGE_BYTES);
  if (event.kind === 'mprotect') {
    if (event.ret !== 0) return undefined;
    return covers(event.addr, lastOf(event.addr, event.lengthBytes), at) ? 'changed its rights' : undefined;
  }
  const lost = lostRanges(space, event).find((range) => covers(range.start, range.last, at));
  return lost?.how === 'unmapped' || lost?.how === 'moved' ? `${lost.how} it` : undefined;
}

function covers(start: U64, last: U64 | undefined, at: U64): boolean {
  return last !== undefined && start <= at && at <= last;
}

// ---- backends -----------------------------------------------------------------------------------------------

function backendListener(entries: readonly Entry<About<'backend'>>[]): Invariant<World> {
  const backendOf = (world: World, id: number): string => world.containers.get(id)?.backend ?? 'none';
  return {
    name: 'history-of-backends',
    why: 'who took the IOMMU backend of a container away',
    kinds: ['ioctl', 'close', 'closeRange', 'dup', 'exit', 'exec', 'munmap'],
    concerns: (before, event) =>
      entries.some(({ seq, about }) => event.seq < seq && backendOf(before, about.container) !== 'none'),
    check(before, event, after) {
      for (const entry of entries) {
        const { container } = entry.about;
        if (backendOf(before, container) !== 'none' && backendOf(after, container) === 'none')
          note(entry, event, 'took the last group out of it, and with it the backend and all mappings');
      }
      return [];
    },
  };
}
