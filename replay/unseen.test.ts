import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import * as assert from 'uvu/assert';
import type { EventBatch } from '../core/event.js';
import { fc } from '../core/property.js';
import { suite } from '../core/testing.js';
import { openRecording } from '../traces/open.js';
import { Engine } from './engine.js';

/**
 * Recordings in which some ioctls' structs are missing: nothing that was known before such a call and that it may have changed
 * is taken for known after it, so that no later answer is contradicted.
 */
const test = suite('structs that were not recorded');
const CORPUS = fileURLToPath(new URL('../../traces/corpus/', import.meta.url));
/** That iommufd provides /dev/vfio/vfio is told by structs alone: without them its calls are those of a container. */
const TOLD_BY_STRUCTS = 'vfio-iommufd-container.strace.gz';

/** Recordings of the folders whose calls have structs; their events are parsed once. */
const FILES = ['iommufd', 'vfio', 'qemu', 'fuzz', 'lab', 'hmm'].flatMap((folder) =>
  readdirSync(join(CORPUS, folder))
    .filter((name) => name.endsWith('.strace.gz') && name !== TOLD_BY_STRUCTS)
    .sort()
    .map((name) => join(folder, name)),
);
const opened = new Map<string, readonly EventBatch[]>();

async function eventsOf(file: string): Promise<readonly EventBatch[]> {
  const known = opened.get(file);
  if (known !== undefined) return known;
  const batches: EventBatch[] = [];
  for await (const batch of (await openRecording(join(CORPUS, file))).batches()) batches.push(batch);
  opened.set(file, batches);
  return batches;
}

/** What is contradicted where one ioctl in so many has no struct, which ones a seed says. */
async function contradicted(file: string, oneIn: number, seed: number): Promise<string[]> {
  const engine = new Engine({});
  let state = seed;
  const isLost = (): boolean => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32 < 1 / oneIn;
  };
  for (const batch of await eventsOf(file))
    engine.feed(
      batch.map((event) => (event.kind === 'ioctl' && isLost() ? { ...event, memIn: [], memOut: [] } : event)),
    );
  return engine.divergences.map(({ line, call, rule }) => `${file}:${line} ${call} ${rule}`);
}

test('whichever ioctls have no struct, nothing is contradicted', async () => {
  const property = fc.asyncProperty(
    fc.constantFrom(...FILES),
    fc.constantFrom(1.1, 1.5, 3, 20),
    fc.nat(0xffff_ffff),
    async (file, oneIn, seed) => assert.equal(await contradicted(file, oneIn, seed), []),
  );
  await fc.assert(property, { numRuns: 40, interruptAfterTimeLimit: 15_000 });
});
