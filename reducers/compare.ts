import { Bytes } from '../core/bytes.js';
import type { MemNote } from '../core/event.js';
import { hex, lastOf, sub, type U64 } from '../core/u64.js';
import type { OutWrite } from './answer.js';
import type { Call, Verdict } from './call.js';
import { isFaultError } from './files/fault-injection.js';

/**
 * The comparison of a prediction with the recorded answer. It knows nothing of any command: the handler
 * has said what comes back, and every byte of the struct that the handler did not name must come back
 * unchanged.
 *
 * Order: a call whose prediction needs data that the recording lacks is `unknown`; a recorded ENOMEM and
 * the error of an injected fault are facts of that run (`learned`); then return value and errno; then bytes. Bytes that the
 * handler marked as unknown make the call `unknown`, unless another part of it diverges.
 */

/** What a reader of a divergence sees: the two sides, field by field, and why. */
export interface Explanation {
  readonly predicted: Readonly<Record<string, string | number>>;
  readonly recorded: Readonly<Record<string, string | number>>;
  readonly rule: string;
  readonly reason: string;
}

const scratch = new Uint8Array(1 << 16);

/** The verdict on a call after its handler has run. */
export function judge(call: Call): Verdict {
  const verdict = compared(call);
  if (verdict !== 'diverge' || call.raced === 'no') return verdict;
  call.raced = 'overtaken';
  return 'unknown';
}

function compared(call: Call): Verdict {
  if (!call.predicted || call.unknownReason !== '') return 'unknown';
  const event = call.event;
  if (event.ret === null) return 'unknown';
  if (!answerAgrees(call)) return isLearnableError(call) ? 'learned' : 'diverge';
  if (!structAgrees(call) || !nestedAgree(call)) return 'diverge';
  if (unknownOut(call) !== undefined) return 'unknown';
  return call.learnedNow || call.retHow === 'learned' ? 'learned' : 'match';
}

export const ORDER_UNKNOWN =
  'another thread was in a call on the same file, and which of them came first is not recorded';

/** Recorded bytes that the kernel wrote and the model could not predict for want of data. */
function unknownOut(call: Call): OutWrite | undefined {
  for (const out of call.outs) {
    if (out.how === 'unknown' && partAt(call.memOut, out.addr, out.bytes.length) !== undefined) return out;
  }
  return undefined;
}

/** Why a call is `unknown`, for the summary; '' otherwise. */
export function unknownReason(call: Call): string {
  if (!call.predicted) return 'not modelled';
  if (call.raced === 'overtaken') return ORDER_UNKNOWN;
  if (call.unknownReason !== '') return fromTheStart(call);
  return call.event.ret === null ? 'the recording has no result' : (unknownOut(call)?.field ?? '');
}

/** What is unknown since the event that first showed a file was unknown before, too. */
function fromTheStart({ unknownReason: reason, file }: Call): string {
  const since = ` since event ${file.openedAt}`;
  if (file.complete || !reason.endsWith(since)) return reason;
  return `${reason.slice(0, -since.length)}: the file was open before the recording began`;
}

function answerAgrees(call: Call): boolean {
  const event = call.event;
  if (call.retHow === 'learned') return event.ret !== -1;
  return event.ret === call.predictedRet && (event.ret !== -1 || event.errno === call.predictedErrno);
}

/** Allocation failures and injected faults depend on the run, not on the interface. */
function isLearnableError(call: Call): boolean {
  const { ret, errno, injected } = call.event;
  if (ret !== -1) return false;
  return errno === 'ENOMEM' || injected || (call.faultArmed && isFaultError(call.file.kind, errno));
}

function structNote(call: Call): MemNote | undefined {
  for (const note of call.memOut) if (note.addr === call.arg) return note;
  return undefined;
}

/** Offset of an out write in the struct at `arg`, or -1 when it lies elsewhere. */
function offsetInStruct(call: Call, out: OutWrite, extent: number): number {
  if (out.addr < call.arg) return -1;
  const offset = sub(out.addr, call.arg);
  return typeof offset === 'number' && offset < extent ? offset : -1;
}

/** First byte of the struct that differs from what was predicted, or -1. */
function structDifference(call: Call): number {
  const note = structNote(call);
  if (note === undefined) return -1;
  const known = Math.min(call.extentBytes, note.bytes.length, call.struct.length, scratch.length);
  if (call.outs.length === 0) {
    if (call.struct.equalsAt(0, note.bytes, 0, known)) return -1;
    for (let i = 0; i < known; i++) if (call.struct.u8(i) !== note.bytes.u8(i)) return i;
    return -1;
  }
  call.struct.slice(0, known).copyTo(scratch, 0);
  for (const out of call.outs) {
    const offset = offsetInStruct(call, out, known);
    if (offset < 0) continue;
    const count = Math.min(out.bytes.length, known - offset);
    const shown = out.how === 'predicted' ? out.bytes : note.bytes.slice(offset, count);
    shown.slice(0, count).copyTo(scratch, offset);
  }
  for (let i = 0; i < known; i++) if (scratch[i] !== note.bytes.u8(i)) return i;
  return -1;
}

function structAgrees(call: Call): boolean {
  const outs = call.outs;
  const out = outs[0];
  return outs.length === 1 && out !== undefined && out.how === 'predicted'
    ? oneOutAgrees(call, out)
    : structDifference(call) < 0;
}

/** {@link structDifference} for the common case of one predicted write, without a copy of the struct. */
function oneOutAgrees(call: Call, out: OutWrite): boolean {
  const note = structNote(call);
  if (note === undefined) return true;
  const { struct } = call;
  const recorded = note.bytes;
  const known = Math.min(call.extentBytes, recorded.length, struct.length);
  const from = offsetInStruct(call, out, known);
  if (from < 0) return struct.equalsAt(0, recorded, 0, known);
  const count = Math.min(out.bytes.length, known - from);
  const to = from + count;
  return (
    struct.equalsAt(0, recorded, 0, from) &&
    out.bytes.equalsAt(0, recorded, from, count) &&
    struct.equalsAt(to, recorded, to, known - to)
  );
}

/** Bytes of `notes` at `addr`, at most `count` of them: a note may be cut. */
function partAt(notes: readonly MemNote[], addr: U64, count: number): Bytes | undefined {
  for (const note of notes) {
    const last = lastOf(note.addr, note.bytes.length);
    if (last === undefined || addr < note.addr || addr > last) continue;
    const offset = sub(addr, note.addr) as number;
    return note.bytes.slice(offset, Math.min(count, note.bytes.length - offset));
  }
  return undefined;
}

function outAgrees(call: Call, out: OutWrite): boolean {
  if (out.how !== 'predicted') return true;
  const recorded = partAt(call.memOut, out.addr, out.bytes.length);
  return recorded === undefined || recorded.equalsAt(0, out.bytes, 0, recorded.length);
}

/** Predicted writes outside the part of the struct that {@link structAgrees} has compared. */
function nestedAgree(call: Call): boolean {
  const outs = call.outs;
  if (outs.length === 0) return true;
  for (let i = 0; i < outs.length; i++) {
    if (!outAgrees(call, outs[i] as OutWrite) && !isOverwritten(outs, i)) return false;
  }
  return true;
}

/** Whether a later write of the same call covers this one. */
function isOverwritten(outs: readonly OutWrite[], index: number): boolean {
  const out = outs[index] as OutWrite;
  return outs.some((other, i) => i > index && other.addr === out.addr && other.bytes.length >= out.bytes.length);
}

function shown(value: U64 | -1 | null): string | number {
  if (value === null) return '?';
  return typeof value === 'number' && value < 0x10_0000 ? value : hex(value);
}

/** Both sides of a call for people and for `--json`; for any verdict. */
export function explain(call: Call): Explanation {
  const predicted: Record<string, string | number> = {};
  const recorded: Record<string, string | number> = {};
  recorded['ret'] = shown(call.event.ret);
  if (call.event.errno !== '') recorded['errno'] = call.event.errno;
  if (call.predicted && call.unknownReason === '') {
    predicted['ret'] = call.retHow === 'learned' ? 'any success' : shown(call.predictedRet);
    if (call.predictedErrno !== '') predicted['errno'] = call.predictedErrno;
  }
  explainOuts(call, predicted, recorded);
  return { predicted, recorded, rule: call.rule, reason: call.told.text };
}

function explainOuts(
  call: Call,
  predicted: Record<string, string | number>,
  recorded: Record<string, string | number>,
): void {
  for (const out of call.outs) {
    if (outAgrees(call, out)) continue;
    predicted[out.field] = out.bytes.toHex().slice(0, 128);
    recorded[out.field] = partAt(call.memOut, out.addr, out.bytes.length)?.toHex().slice(0, 128) ?? '?';
  }
  const at = structDifference(call);
  const note = structNote(call);
  if (at < 0 || note === undefined || Object.keys(predicted).length > 2) return;
  const name = `bytes at +${at}`;
  predicted[name] = call.outs.length > 0 ? (scratch[at] as number) : call.struct.u8(at);
  recorded[name] = note.bytes.u8(at);
}
