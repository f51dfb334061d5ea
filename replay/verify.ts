import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { hashCanonical } from '../core/canonical.js';
import { openRecording } from '../traces/open.js';
import type { Recording } from '../traces/recording.js';
import { writeTape } from '../traces/tape/writer.js';
import { Engine } from './engine.js';
import { noEvents } from './report.js';
import type { Reopenable } from './source.js';
import { startWorld } from './start.js';
import type { Counts } from './tally.js';
import { tolerant } from './tolerant.js';

/** The end of one way to replay a recording. */
export interface Ending {
  /** How it was replayed: `batches as read`, `batches of 1`, `from a tape`. */
  readonly way: string;
  readonly events: number;
  readonly calls: Readonly<Counts>;
  readonly stateHash: string;
}

export interface Verification {
  readonly trace: string;
  readonly endings: readonly Ending[];
  /** Whether all endings are the same: events, verdicts and state. */
  readonly agree: boolean;
}

/**
 * Replays a recording in three ways that must not make a difference: as its batches come, with one event at a
 * time, and from a tape that it was imported to. Throws `InputError` when the recording gives no event.
 */
export async function verify(source: Reopenable): Promise<Verification> {
  const directory = await mkdtemp(join(tmpdir(), 'iotape-verify-'));
  try {
    const endings = [
      await ending('batches as read', await source.open(), source.name, false),
      await ending('batches of 1', await source.open(), source.name, true),
    ];
    const tape = join(directory, 'copy.tape');
    const original = await source.open();
    const { kernel } = original.info;
    await writeTape(tape, original);
    endings.push(
      await ending('from a tape', tolerant(await openRecording(tape), undefined, kernel), source.name, false),
    );
    return { trace: source.name, endings, agree: endings.every((each) => sameEnding(each, endings[0] as Ending)) };
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

async function ending(way: string, recording: Recording, trace: string, singly: boolean): Promise<Ending> {
  const engine = new Engine({ world: startWorld(recording) });
  for await (const batch of recording.batches()) {
    if (!singly) engine.feed(batch);
    else for (const event of batch) engine.feed([event]);
  }
  if (engine.eventCount === 0) throw noEvents(trace, recording.diagnostics);
  // What a part that stopped holds is the same in all ways, and nothing to vouch for.
  for (const { error } of engine.bugs) throw error;
  return { way, events: engine.eventCount, calls: { ...engine.tally.all }, stateHash: hashCanonical(engine.world) };
}

function sameEnding(a: Ending, b: Ending): boolean {
  const counts: (keyof Counts)[] = ['total', 'match', 'diverge', 'learned', 'unknown'];
  return (
    a.events === b.events && a.stateHash === b.stateHash && counts.every((name) => a.calls[name] === b.calls[name])
  );
}
