import { Arena } from '../core/arena.js';
import { Bytes } from '../core/bytes.js';
import type { IoctlEvent, IoEvent, MemNote } from '../core/event.js';
import { add, type U64 } from '../core/u64.js';
import { bytesFrom, find, type OutWrite, type PossibleAnswer } from './answer.js';
import type { Told } from './explain.js';
import type { Families } from './family.js';
import type { OpenFile, Process } from './files/state.js';
import type { Tx } from './tx.js';
import type { World } from './world.js';

/** How one call of a modelled interface compares with the recording, gravest part first. */
export type Verdict = 'diverge' | 'unknown' | 'learned' | 'match';

const NOTHING_TOLD: Told = Object.freeze({ text: '' });
const NO_NOTES: readonly MemNote[] = [];

/**
 * One call of a modelled interface while it is being reduced: what the handler reads, predicts and learns.
 * There is one instance per engine, begun anew for each call, so that a call costs no allocation of its own.
 *
 * A handler goes through the kernel's checks in the kernel's order:
 *
 *     if (flagsBad && call.fail('EINVAL', 'map-dma.flags')) return;
 *     …
 *     if (!call.succeed('map-dma.ok')) return;
 *     // from here: change the state
 *
 * The first `fail`, `succeed` or `unknown` is the prediction; nothing of the recorded answer can be read before
 * it. `fail` gives true when the handler should stop. It gives false only when the recording says
 * that the call succeeded all the same: the verdict is then `diverge`, and the handler goes on so that
 * the state follows the recording. `succeed` gives false when the recording says that the call failed.
 */
export class Call {
  /** All families, for handlers that make or end files; set once by the dispatcher. */
  families: Families = {};
  tx!: Tx;
  event!: IoctlEvent | IoEvent;
  process!: Process;
  file!: OpenFile;
  /** The uAPI's name of the command, e.g. `IOMMU_IOAS_MAP`. */
  name = '';
  /** What the tables of the uAPI call the kind of the file. */
  kind = '';
  /** ioctl argument (0 for read and write). */
  arg: U64 = 0;
  /** Bytes known at `arg` before the call; empty where the recording has none. */
  struct: Bytes = Bytes.EMPTY;
  memIn: readonly MemNote[] = NO_NOTES;
  memOut: readonly MemNote[] = NO_NOTES;
  /** The kernel was told to inject a fault into this thread: one error is a fact of the run. Set by the dispatcher. */
  faultArmed = false;
  /** Whether another thread was in a call on the same iommufd or container, and may have made this one answer otherwise. */
  raced: 'no' | 'beside' | 'overtaken' = 'no';
  /** How many bytes at `arg` mean something; the comparison stops there. */
  extentBytes = 0;

  #rule = '';
  #ret: U64 | -1 | null = null;
  #errno = '';
  #retHow: 'predicted' | 'learned' | 'unknown' = 'unknown';
  #unknownReason = '';
  #outs: OutWrite[] = [];
  readonly #arena = new Arena();
  #learnedNow = false;
  #faultHit = false;
  #told: Told | undefined;
  /** The state to go back to, during a {@link trial} of a call that the recording does not show to have succeeded. */
  #before: World | undefined;

  /** Called by the dispatcher only. */
  begin(
    tx: Tx,
    event: IoctlEvent | IoEvent,
    process: Process,
    file: OpenFile,
    name: string,
    extentBytes: number,
  ): void {
    this.tx = tx;
    this.event = event;
    this.process = process;
    this.file = file;
    this.name = name;
    this.raced = 'no';
    this.kind = file.kind;
    this.extentBytes = extentBytes;
    if (event.kind === 'ioctl') {
      this.arg = event.arg;
      this.memIn = event.memIn;
      this.memOut = event.memOut;
      this.struct = bytesFrom(event.memIn, event.arg);
    } else {
      this.arg = 0;
      this.memIn = NO_NOTES;
      this.memOut = NO_NOTES;
      this.struct = event.data;
    }
    this.#rule = '';
    this.#ret = null;
    this.#errno = '';
    this.#retHow = 'unknown';
    this.#unknownReason = '';
    if (this.#outs.length > 0) this.#outs = [];
    this.#learnedNow = false;
    this.#faultHit = false;
    this.#told = undefined;
    this.#before = undefined;
  }

  // ---- reading -------------------------------------------------------------------------------------------

  /** Bytes that were in memory before the call, or undefined where the recording does not hold all of them. */
  bytesAt(addr: U64, count: number): Bytes | undefined {
    return find(this.memIn, addr, count);
  }

  /** Says what the recorded answer rests on, where the rule of the prediction does not tell. */
  looked(text: string): void {
    this.#told = { text };
  }

  // ---- predicting ----------------------------------------------------------------------------------------

  get predicted(): boolean {
    return this.#rule !== '' || this.#unknownReason !== '';
  }

  /** Predicts a failure. True: the handler stops. See the class comment for false. */
  fail(errno: string, rule: string): boolean {
    if (!this.predicted) {
      this.#rule = rule;
      this.#ret = -1;
      this.#errno = errno;
      this.#retHow = 'predicted';
      // The state is about to follow a recording that contradicts it.
      if (this.#recordedSuccess()) this.#told = this.told;
    }
    return !this.#recordedSuccess();
  }

  /** Predicts success. True: the effects happen, so the handler changes the state. */
  succeed(rule: string, ret: U64 = 0): boolean {
    if (!this.predicted) {
      this.#rule = rule;
      this.#ret = ret;
      this.#retHow = 'predicted';
    }
    return this.#recordedSuccess();
  }

  /**
   * Several answers may be right, because another call changed what this one saw while it ran, and the recording tells
   * which it was: the one that it agrees with is predicted, else the first; or, where `open` gives a reason why there may
   * be others, the answer is unknown. Gives what {@link succeed} gives.
   */
  oneOf(answers: readonly [PossibleAnswer, ...PossibleAnswer[]], open = ''): boolean {
    if (!this.predicted) {
      const recorded = this.event.ret === -1 ? this.event.errno : '';
      const seen = answers.find((answer) => answer.errno === recorded);
      if (seen === undefined && open !== '') return this.unknown(open);
      const { errno, rule } = seen ?? answers[0];
      this.#rule = rule;
      this.#ret = errno === '' ? 0 : -1;
      this.#errno = errno;
      this.#retHow = 'predicted';
    }
    return this.#recordedSuccess();
  }

  /**
   * Predicts success with a value that no model can know beforehand (an fd of a table with an unknown past,
   * a byte count of a device). `ret` is checked to be a success only. The verdict is `learned`.
   */
  succeedWithLearnedRet(rule: string): boolean {
    if (!this.predicted) {
      this.#rule = rule;
      this.#retHow = 'learned';
    }
    return this.#recordedSuccess();
  }

  /**
   * Predicts a failure that holds unless the machine has an optional part, such as a feature of a device, which only
   * a success can show: then the verdict is `learned`, and the caller keeps the fact. True: the handler stops.
   */
  failUnlessLearned(errno: string, rule: string): boolean {
    if (this.predicted) return !this.#recordedSuccess();
    const stop = this.fail(errno, rule);
    if (!stop) {
      this.#ret = null;
      this.#errno = '';
      this.#retHow = 'learned';
    }
    return stop;
  }

  /**
   * Predicts success with `usual`, unless the recording shows a value that `other` accepts, which depends on what nothing
   * before has shown: then the verdict is `learned`. True: it was such a value, and the caller keeps the fact.
   */
  succeedUnlessLearned(rule: string, usual: U64, other: (ret: U64) => boolean): boolean {
    if (this.predicted) return false;
    this.succeed(rule, usual);
    const { ret } = this.event;
    if (ret === null || ret === -1 || ret === usual || !other(ret)) return false;
    this.#ret = null;
    this.#retHow = 'learned';
    return true;
  }

  /**
   * A fact of the machine decides between success and a failure, and the recording tells which: success is a `learned`
   * success with the outs that are predicted; a failure leaves the answer unknown, for `reason`, since errors are
   * not learned. Gives what {@link succeed} gives.
   */
  succeedByFact(rule: string, reason: string): boolean {
    if (!this.#recordedSuccess()) return this.unknown(reason);
    if (!this.predicted) {
      this.#rule = rule;
      this.#ret = 0;
      this.#retHow = 'predicted';
      this.#learnedNow = true;
    }
    return true;
  }

  /**
   * A fact of the machine that was not told yet may fail the call here with `errno`, and the recording tells whether it
   * did: then the answer is unknown, for `reason`, since errors are not learned. True: the handler may keep the fact,
   * and stops.
   */
  failedByFact(errno: string, reason: string): boolean {
    if (this.predicted || this.event.errno !== errno) return false;
    this.#unknownReason = reason;
    return true;
  }

  /** {@link failedByFact} for a part of the machine that the call needs: a success shows that it has it, and is learned. */
  partByFact(errno: string, reason: string): 'has' | 'lacks' | 'open' {
    if (this.failedByFact(errno, reason)) return 'lacks';
    if (!this.#recordedSuccess()) return 'open';
    this.#learnedNow = true;
    return 'has';
  }

  /**
   * Says that the answer cannot be predicted, and why: `payload not recorded`, `not modelled`,
   * `mappings unknown since event 12`. True when the recording says that the call succeeded, so the
   * handler can carry the unknown into the state.
   */
  unknown(reason: string): boolean {
    if (!this.predicted) this.#unknownReason = reason;
    return this.#recordedSuccess();
  }

  /** The value that the recording returned. Only after a prediction: before, it is our own bug and throws. */
  get recordedRet(): U64 | -1 | null {
    if (!this.predicted) throw new Error('Call: the recorded answer was read before a prediction was made');
    return this.event.ret;
  }

  /** The error that the recording shows, '' for success. Only after a prediction. */
  get recordedErrno(): string {
    if (!this.predicted) throw new Error('Call: the recorded answer was read before a prediction was made');
    return this.event.errno;
  }

  #recordedSuccess(): boolean {
    return this.event.ret !== null && this.event.ret !== -1;
  }

  // ---- changing before the answer is known --------------------------------------------------------------

  /**
   * For a handler that finds the answer by making the change. What it changes from here on is taken back when the
   * recording does not agree: when the call failed and was predicted to succeed or to fail in another way (an allocation
   * that failed, an injected fault), or when its end is not recorded. What a failure leaves changed that the
   * handler predicts itself stays.
   */
  trial(): void {
    if (this.faultArmed || !this.#recordedSuccess()) this.#before = this.tx.savepoint();
  }

  /**
   * Whether an injected fault made this call, which succeeded, go another way: the recording shows something else than
   * `predicted` in a field. True: the trial has begun anew, and what the call learns is a fact of this run.
   */
  wentAnotherWay(offset: number, predicted: number): boolean {
    if (!this.faultArmed || !this.#recordedSuccess() || this.#before === undefined) return false;
    const told = find(this.memOut, add(this.arg, offset), 4)?.u32(0);
    if (told === undefined || told === predicted) return false;
    this.tx.rollBack(this.#before);
    this.#learnedNow = true;
    this.#faultHit = true;
    return true;
  }

  /** The trial ends here, and all of it is taken back: what the handler changes from here on stays. */
  abandonTrial(): void {
    if (this.#before !== undefined) this.tx.rollBack(this.#before);
    this.#before = undefined;
  }

  /** Called by the dispatcher only, when the handler is done. */
  endTrial(): void {
    if (this.#before === undefined) return;
    const asPredicted = this.#recordedSuccess() || (this.#ret === -1 && this.#errno === this.event.errno);
    if (!asPredicted) this.tx.rollBack(this.#before);
    this.#before = undefined;
  }

  // ---- predicting what the kernel writes -----------------------------------------------------------------

  /** The kernel writes a 32-bit value at `arg + offset`. */
  out32(offset: number, value: number, field: string): void {
    this.outBytes(add(this.arg, offset), this.#arena.of32(value), field);
  }

  /** The kernel writes a 64-bit value at `arg + offset`. */
  out64(offset: number, value: U64, field: string): void {
    this.outBytes(add(this.arg, offset), this.#arena.of64(value), field);
  }

  /** The kernel writes bytes anywhere in the caller's memory. */
  outBytes(addr: U64, bytes: Bytes, field: string): void {
    this.#outs.push({ addr, bytes, field, how: 'predicted' });
  }

  /** The kernel writes `count` bytes that this recording cannot tell us; they are not compared. Why: `reason`. */
  outUnknown(addr: U64, count: number, reason: string): void {
    this.#outs.push({ addr, bytes: new Bytes(new Uint8Array(count)), field: reason, how: 'unknown' });
  }

  /**
   * The kernel writes a fact of the machine. A known fact is predicted and given back; an unknown one is
   * learned from the recording, stored under `key` and given back; undefined when the recording lacks it too.
   * `key` must be one that the table in facts.ts allows.
   */
  learnBytes(addr: U64, count: number, key: string, field: string): Bytes | undefined {
    const known = this.tx.world.facts.get(key);
    if (known !== undefined && known.value instanceof Bytes && known.value.length === count) {
      this.outBytes(addr, known.value, field);
      return known.value;
    }
    const bytes = find(this.memOut, addr, count);
    if (bytes === undefined) return undefined;
    const copy = new Bytes(bytes.toUint8Array());
    this.tx.world.facts.set(key, Object.freeze({ value: copy, since: this.event.seq }));
    this.#outs.push({ addr, bytes: copy, field, how: 'learned' });
    this.#learnedNow = true;
    return copy;
  }

  learn32(offset: number, key: string, field: string): number | undefined {
    return this.learnBytes(add(this.arg, offset), 4, key, field)?.u32(0);
  }

  learn64(offset: number, key: string, field: string): U64 | undefined {
    return this.learnBytes(add(this.arg, offset), 8, key, field)?.u64(0);
  }

  /** Marks that something about the machine was taken over from the recording, other than by learn*. */
  noteLearned(): void {
    this.#learnedNow = true;
  }

  // ---- for the comparison --------------------------------------------------------------------------------

  get rule(): string {
    return this.#rule;
  }
  get predictedRet(): U64 | -1 | null {
    return this.#ret;
  }
  get predictedErrno(): string {
    return this.#errno;
  }
  get retHow(): 'predicted' | 'learned' | 'unknown' {
    return this.#retHow;
  }
  get unknownReason(): string {
    return this.#unknownReason;
  }
  get outs(): readonly OutWrite[] {
    return this.#outs;
  }
  get learnedNow(): boolean {
    return this.#learnedNow;
  }
  /** The armed fault of the thread hit in this call. */
  get faultHit(): boolean {
    return this.#faultHit || (this.faultArmed && this.event.ret === -1);
  }
  /** What the rule saw, in words, with events as `event 12`; '' where its text says all. Made when somebody asks. */
  get told(): Told {
    return (this.#told ??= this.families[this.file.kind]?.explain?.(this) ?? NOTHING_TOLD);
  }
}
