import { fc } from '../../core/property.js';
import { ev } from '../testing.js';
import { OBJECT_CALLS } from './random-objects.js';
import { SPACE_CALLS } from './random-spaces.js';
import { type Choice, DATA, Doing, type Does, MEMORY, MEMORY_BYTES } from './random-step.js';
import { Bench } from './testing.js';

const KINDS = { ...OBJECT_CALLS, ...SPACE_CALLS } as const satisfies Record<string, Does>;

/**
 * Random use of /dev/iommu, for tests: every command and operation, by several processes on several contexts, which are
 * forked, passed on, closed and mapped in any order. Most calls name objects that exist, so that they get far; with `wild`
 * numbers they do not.
 */
export interface Step extends Choice {
  readonly kind: keyof typeof KINDS;
}

export function steps(answer: fc.Arbitrary<number>, maxLength: number): fc.Arbitrary<Step[]> {
  const small = fc.nat(15);
  const all = Object.keys(KINDS) as Step['kind'][];
  // What was not recorded cannot agree with the model.
  const kinds = all.filter((kind) => kind !== 'unseen' || answer === ANY_ANSWER);
  const step = fc.record({
    kind: fc.constantFrom(...kinds.flatMap((kind) => (ENDS.has(kind) ? [kind] : [kind, kind, kind, kind]))),
    a: small,
    b: small,
    c: small,
    wild: fc.integer({ min: 0, max: 9 }).map((value) => value === 0),
    answer,
  });
  return fc.array(step, { maxLength, size: 'max' });
}

/** Answers for {@link steps}: what the model says; and now and then a failure for want of memory. */
export const PREDICTED: fc.Arbitrary<number> = fc.integer({ min: 0, max: 9 }).map((value) => (value === 0 ? 1 : 0));
/** Answers that contradict the model as they like. */
export const ANY_ANSWER: fc.Arbitrary<number> = fc.nat(4);

/** What takes much away is rarer. */
const ENDS: ReadonlySet<string> = new Set([
  'destroy',
  'destroy device',
  'close',
  'exit',
  'open',
  'fork',
  'pass',
  'reserve',
]);

/** A vIOMMU that a device is in, with all that it can have, and what other calls need to succeed. */
const BEGINNING: readonly (readonly [kind: Step['kind'], a: number, b: number])[] = [
  ['ioas', 0, 0],
  ['mock', 0, 0],
  ['hwpt', 0, 2],
  ['viommu', 0, 1],
  ['vdevice', 0, 0],
  ['veventq', 0, 1],
  ['nested', 0, 2],
  ['replace', 0, 3],
  ['ioas', 0, 0],
  ['map', 0, 0],
  ['map', 1, 0],
  ['access', 1, 1],
];

/** A process with memory, a file of pages and two contexts, which does what the steps say. */
export class RandomUser {
  readonly bench: Bench = new Bench();

  constructor() {
    const { bench } = this;
    bench.open(3);
    bench.open(4);
    bench.mmap(MEMORY, MEMORY_BYTES);
    bench.mmap(DATA, 0x1000);
    bench.event(ev('open', { call: 'memfd_create', path: 'memory', ret: 5, retPath: '/memfd:memory (deleted)' }));
    bench.event(ev('other', { call: 'ftruncate', text: `5, ${MEMORY_BYTES}` }));
    for (const [kind, a, b] of BEGINNING) this.run({ kind, a, b, c: 4, wild: false, answer: 0 });
  }

  run(step: Step): void {
    const processes = [...this.bench.world.processes.values()];
    const process = processes[step.c % Math.max(1, processes.length)];
    if (process !== undefined) KINDS[step.kind](new Doing(this.bench, process, step));
  }
}
