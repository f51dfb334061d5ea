import { hashCanonical } from '../core/canonical.js';
import { formatDiagnostic, InputError } from '../core/errors.js';
import type { Event } from '../core/event.js';
import { invariants } from '../reducers/invariants/index.js';
import { openRecording } from '../traces/open.js';
import { writeTape } from '../traces/tape/writer.js';
import { Engine } from './engine.js';
import { judge } from './judged.js';
import { lookBack } from './look-back.js';
import { eventJson, eventLine } from './print/event-line.js';
import { reportJson } from './print/report-json.js';
import { reportText } from './print/report.js';
import { stateText } from './print/state.js';
import { PLAIN } from './print/style.js';
import { toPlain } from './print/values.js';
import { type Report, replay } from './report.js';
import { startWorld } from './start.js';
import { TraceSource } from './source.js';

/** All that iotape does with a recording, in one process, for tests: what must not throw on any input. */
export interface Outcome {
  /** Undefined where the input gave nothing usable: then {@link refusedWith} has its code. */
  readonly report: Report | undefined;
  readonly refusedWith: string;
}

/** Checks, shows, prints the state and writes JSON. Throws for our own bugs only. */
export async function wholeCheck(path: string): Promise<Outcome> {
  try {
    const source = new TraceSource(path, { rereadable: true });
    const report = await replay(await source.open(), { invariants });
    const recording = await source.open();
    for await (const batch of judge(recording)) {
      for (const each of batch) {
        eventLine(recording.info.files, each, PLAIN);
        JSON.stringify(eventJson(recording.info.files, each));
      }
    }
    const shown = {
      report,
      max: 1000,
      failures: [...report.failureGroups, ...report.idleGroups],
      unknowns: report.unknowns,
    };
    const back = await lookBack(shown, () => source.open());
    if (report.bugCount > 0) throw new Error(report.diagnostics.map(formatDiagnostic).join('\n'));
    reportText(report, { shown: 1000, back }, PLAIN);
    JSON.stringify(reportJson(report, back.histories));
    return { report, refusedWith: '' };
  } catch (error) {
    if (error instanceof InputError) return { report: undefined, refusedWith: error.diagnostic.code };
    throw error;
  }
}

/**
 * The state hash and verdicts of each way to replay that must not make a difference: as read, one event at a time with every
 * snapshot looked at, and from a tape at `tapePath`. The state is also printed. Empty for an unusable input.
 */
export async function endings(path: string, tapePath: string): Promise<string[]> {
  try {
    const recording = await new TraceSource(path, { rereadable: true }).open();
    const events: Event[] = [];
    for await (const batch of recording.batches()) events.push(...batch);
    const world = startWorld(recording);
    const whole = new Engine({ invariants, world });
    whole.feed(events);
    const single = new Engine({ invariants, world });
    for (const event of events) {
      single.feed([event]);
      Object.keys(single.world);
    }
    await writeTape(tapePath, await new TraceSource(path, { rereadable: true }).open());
    const taped = new Engine({ invariants, world });
    for await (const batch of (await openRecording(tapePath)).batches()) taped.feed(batch);
    stateText(whole.world, PLAIN, { entries: 20, path: '' });
    JSON.stringify(toPlain(whole.world));
    for (const { bugs } of [whole, single, taped]) if (bugs[0] !== undefined) throw bugs[0].error;
    return [whole, single, taped].map(
      (engine) => `${hashCanonical(engine.world)} ${JSON.stringify(engine.tally.all)} ${engine.findingCount}`,
    );
  } catch (error) {
    if (error instanceof InputError) return [];
    throw error;
  }
}
