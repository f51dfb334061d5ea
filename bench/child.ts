import type { EventBatch } from '../core/event.js';
import { invariants } from '../reducers/invariants/index.js';
import { Engine } from '../replay/engine.js';
import { openRecording, type OpenOptions } from '../traces/open.js';
import { foldWithImmer } from './peers/immer-maps.js';
import { readByRegex } from './peers/regex-reader.js';

/**
 * One measurement in a process of its own, so that neither heap nor compiled code of another one is in its
 * way: `node child.js <stage> <file> [never|always]`, the last for reading ahead. Prints one JSON object.
 */
export interface Measurement {
  readonly stage: string;
  readonly items: number;
  readonly ms: number;
  /** Time on all CPUs, start and loading of the program included: what other programs do changes it less. */
  readonly cpuMs: number;
  readonly maxRssBytes: number;
}

async function readAll(path: string): Promise<EventBatch[]> {
  const batches: EventBatch[] = [];
  for await (const batch of (await openRecording([path])).batches()) batches.push(batch);
  return batches;
}

/** A clock that begins now. */
function clock(): () => { ms: number; cpuMs: number } {
  const from = performance.now();
  const cpuFrom = process.cpuUsage();
  return () => {
    const { user, system } = process.cpuUsage(cpuFrom);
    return { ms: performance.now() - from, cpuMs: (user + system) / 1000 };
  };
}

/** Time of the part under test, and how many events or calls it went through. */
async function measure(
  stage: string,
  path: string,
  options: OpenOptions,
): Promise<{ ms: number; cpuMs: number; items: number }> {
  if (stage === 'regex') {
    const since = clock();
    const { calls } = await readByRegex(path);
    return { ...since(), items: calls };
  }
  if (stage === 'reduce' || stage === 'immer') {
    const batches = await readAll(path);
    const since = clock();
    const items = stage === 'reduce' ? reduceAll(batches) : immerAll(batches);
    return { ...since(), items };
  }
  const since = clock();
  const engine = stage === 'check' ? new Engine({ invariants }) : undefined;
  let items = 0;
  for await (const batch of (await openRecording([path], options)).batches()) {
    items += batch.length;
    engine?.feed(batch);
  }
  return { ...since(), items };
}

function reduceAll(batches: readonly EventBatch[]): number {
  const engine = new Engine({ invariants });
  for (const batch of batches) engine.feed(batch);
  return engine.eventCount;
}

function immerAll(batches: readonly EventBatch[]): number {
  foldWithImmer(batches.flat());
  return batches.reduce((sum, batch) => sum + batch.length, 0);
}

const [stage = '', path = '', mode] = process.argv.slice(2);
const readAhead = mode === 'never' || mode === 'always' ? mode : 'auto';
const { ms, cpuMs, items } = await measure(stage, path, { readAhead });
const result: Measurement = { stage, items, ms, cpuMs, maxRssBytes: process.resourceUsage().maxRSS * 1024 };
console.log(JSON.stringify(result));
