/**
 * The library: replay recordings, look at states, write invariants.
 *
 *     import { openRecording, replay } from 'iotape';
 *     const report = await replay(await openRecording('run.strace.gz'));
 *     console.log(report.calls, report.findings);
 *
 * Everything here is stable; what is not exported here may change.
 */

export { Bytes } from '../core/bytes.js';
export { hashCanonical } from '../core/canonical.js';
export { CODES, type Diagnostic, type ErrorCode, formatDiagnostic, InputError } from '../core/errors.js';
export type * from '../core/event.js';
export type { Finding, Invariant, Severity } from '../core/invariant.js';
export { OrderedMap } from '../core/ordered-map.js';
export type { U64 } from '../core/u64.js';
export type { Verdict } from '../reducers/call.js';
export {
  beginInvalidation,
  endInvalidation,
  type IntervalNotifier,
  insertNotifier,
  type NotifierSpace,
  newNotifierSpace,
  readBegin,
  readRetry,
  removeNotifier,
} from '../reducers/hmm/notifier.js';
export {
  type HmmPfns,
  type HmmRequest,
  type HmmStep,
  hmmRangeFault,
  hmmWalk,
  type PageView,
} from '../reducers/hmm/range-fault.js';
export { invariants } from '../reducers/invariants/index.js';
export { emptyWorld, type World } from '../reducers/world.js';
export { openRecording } from '../traces/open.js';
export type { Recording } from '../traces/recording.js';
export { type TapeOptions, type TapeSummary, writeTape } from '../traces/tape/writer.js';
export { type BisectResult, bisectExpression, bisectInvariant } from './bisect.js';
export { type Divergence, Engine, type EngineOptions } from './engine.js';
export { Expression } from './expression.js';
export type { Update } from './fold.js';
export { type Judged, type JudgedEvent, judge } from './judged.js';
export { type ReportJson, reportJson } from './print/report-json.js';
export { type ReplayOptions, type Report, replay } from './report.js';
export { type Session, startSession } from './session.js';
export { type Reopenable, type SourceOptions, TraceSource } from './source.js';
export { type Change, diffStates } from './state-diff.js';
export type { Counts } from './tally.js';
export { type Moment, Timeline } from './timeline.js';
export { loadInvariants } from './user-invariants.js';
export { type Ending, type Verification, verify } from './verify.js';
