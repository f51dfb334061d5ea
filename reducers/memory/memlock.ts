import { div, type U64, U64_MAX } from '../../core/u64.js';
import type { Call } from '../call.js';
import { type Held, isUnknownUser } from '../files/creds.js';
import { NO_LIMIT_KNOWN, type Process } from '../files/state.js';
import type { Tx } from '../tx.js';
import { PAGE_BYTES } from './flags.js';
import { type AccountKind, accountOf, charge, type LockedPages, patchAccount, type Peak } from './locked.js';

/**
 * The question that pinning asks of RLIMIT_MEMLOCK, and what its answers teach.
 *
 * The kernel compares what an account (see locked.ts) holds, plus what is asked for, with the soft limit of a process,
 * in whole pages; more gives ENOMEM. Who has CAP_IPC_LOCK is not asked (drivers/vfio/vfio_iommu_type1.c `vfio_pin_pages_remote`,
 * mm/util.c `__account_locked_vm`, drivers/iommu/iommufd/pages.c `incr_user_locked_vm`).
 *
 * Recordings rarely show the limit (prlimit64) and the capability (capget). So:
 *
 * - Both known, and what is surely charged is too much: the call fails (`exceeds`).
 * - Too much unless something holds that was not recorded (the capability, pages that may not count): the call is expected to
 *   fail (`likely`). Either answer teaches what was open, once.
 * - Otherwise success is predicted. An ENOMEM all the same is learned, and told with the figures that bound the limit;
 *   where the same limit has allowed as much before, the limit is not the reason.
 */
export interface LimitQuestion {
  readonly account: AccountKind;
  /** Address space or user that is charged. */
  readonly key: number;
  /** Process whose limit it is; undefined for one that is gone. */
  readonly process: Process | undefined;
  /** CAP_IPC_LOCK of whoever mapped the memory. */
  readonly ipcLock: Held;
  readonly pages: number;
  readonly maybePages: number;
}

export type LimitAnswer = 'fits' | 'exceeds' | 'likely';

export function askLimit(tx: Tx, question: LimitQuestion): LimitAnswer {
  const { ipcLock, pages, maybePages } = question;
  const bytes = question.process?.memlock.bytes ?? null;
  if (bytes === null || ipcLock === 'yes' || pages + maybePages === 0) return 'fits';
  const account = accountOf(tx, question.account, question.key);
  const total = totalOf(account) + pages + maybePages;
  const limit = limitPages(bytes);
  const sure = (account.unsureSince < 0 ? account.pages : 0) + pages;
  if (ipcLock === 'no' && sure > limit) return 'exceeds';
  return total + account.otherPages > limit ? 'likely' : 'fits';
}

function totalOf(account: LockedPages): number {
  return account.pages + account.maybePages;
}

function limitPages(bytes: U64): number {
  return Number(div(bytes, PAGE_BYTES));
}

// ---- in a handler -------------------------------------------------------------------------------------------

/**
 * The last check before success: predicts ENOMEM where it is likely. True: the handler stops. Where the
 * recording shows success all the same, what it teaches is kept.
 */
export function refuseLikely(call: Call, question: LimitQuestion, rule: string): boolean {
  if (call.predicted || askLimit(call.tx, question) !== 'likely') return false;
  if (call.failUnlessLearned('ENOMEM', rule)) {
    explainShortage(call, question);
    return true;
  }
  learnAllowed(call, question);
  return false;
}

/** Puts a recorded ENOMEM into figures and keeps what it teaches. To be called once the call is predicted. */
export function explainShortage(call: Call, question: LimitQuestion): void {
  if (call.recordedErrno !== 'ENOMEM' || call.event.injected || call.faultArmed) return;
  const { tx, event } = call;
  const { process, ipcLock } = question;
  call.looked(limitText(tx, question));
  if (process === undefined || process.memlock.bytes === null) return;
  const answer = askLimit(tx, question);
  if (answer === 'likely' && process.creds.ipcLock === 'unknown') {
    call.noteLearned();
    patchProcess(tx, process, {
      creds: Object.freeze({ ...process.creds, ipcLock: 'unlikely', ipcLockSince: event.seq }),
    });
  } else if (answer === 'fits' && (ipcLock === 'no' || ipcLock === 'unlikely') && !isAllKnown(tx, question)) {
    const { pages, maybePages, account, key } = question;
    const total = totalOf(accountOf(tx, account, key)) + pages + maybePages;
    const otherPages = limitPages(process.memlock.bytes) + 1 - total;
    patchAccount(tx, account, key, { otherPages, otherSince: event.seq });
  }
}

/** Whether the recording shows all that an account holds: that of an address space, from its execve on. */
function isAllKnown(tx: Tx, { account, key }: LimitQuestion): boolean {
  if (account === 'user') return false;
  return tx.world.spaces.get(key)?.complete === true && (tx.world.spaceLocked.get(key)?.moreSince ?? -1) < 0;
}

/**
 * Predicts ENOMEM where what is surely charged is too much. True: the handler stops. Where the recording shows success all the
 * same, the limit or the credentials are not what the recording told before (another process may have raised the
 * limit): they are unknown from then on, so that one wrong fact gives one divergence.
 */
export function refuseSure(call: Call, question: LimitQuestion, rule: string): boolean {
  if (call.predicted || askLimit(call.tx, question) !== 'exceeds') return false;
  call.looked(limitText(call.tx, question));
  if (call.fail('ENOMEM', rule)) return true;
  if (question.process !== undefined) patchProcess(call.tx, question.process, { memlock: NO_LIMIT_KNOWN });
  return false;
}

/** A success that was not expected: the process has the capability, or what stood against it is void. */
function learnAllowed(call: Call, question: LimitQuestion): void {
  const { tx } = call;
  const { process } = question;
  if (process === undefined) return;
  const { creds, memlock } = process;
  const { account, key, pages, maybePages } = question;
  const total = totalOf(accountOf(tx, account, key)) + pages + maybePages;
  const tooMuch = total > limitPages(memlock.bytes ?? 0);
  if (tooMuch && question.ipcLock !== 'no' && creds.ipcLock !== 'no')
    patchProcess(tx, process, { creds: Object.freeze({ ...creds, ipcLock: 'yes', ipcLockSince: call.event.seq }) });
  // Without that: others have let go by now, or it was not the limit that refused.
  const less = tooMuch ? { maybePages: 0 } : {};
  patchAccount(tx, account, key, { ...less, otherPages: 0, otherSince: -1 });
}

function patchProcess(tx: Tx, process: Process, change: Partial<Process>): void {
  const now = tx.world.processes.get(process.pid);
  if (now !== undefined) tx.world.processes.set(now.pid, Object.freeze({ ...now, ...change }));
}

/** Charges what was asked for, after the call succeeded. */
export function chargeAsked(tx: Tx, question: LimitQuestion, seq: number): void {
  const { account, key, pages, maybePages } = question;
  charge(tx, account, key, pages, maybePages, newPeak(tx, question, seq));
}

/** What the limit has allowed now, where that is more than ever and nothing else tells the limit. */
function newPeak(tx: Tx, question: LimitQuestion, seq: number): Peak | undefined {
  const { account, key, pages, maybePages, process, ipcLock } = question;
  if (process === undefined || process.memlock.bytes !== null || ipcLock === 'yes') return undefined;
  const before = accountOf(tx, account, key);
  const total = totalOf(before) + pages + maybePages;
  if (allowedBefore(before, process, total) !== undefined) return undefined;
  return Object.freeze({ pages: total, pid: process.pid, limitsSince: process.limitsSince, seq });
}

/** What the same limit has allowed before, if it is at least so much. */
function allowedBefore(account: LockedPages, process: Process, pages: number): Peak | undefined {
  const { peak } = account;
  if (peak === null || peak.pid !== process.pid || peak.limitsSince !== process.limitsSince) return undefined;
  return peak.pages >= pages ? peak : undefined;
}

// ---- in words -----------------------------------------------------------------------------------------------

/** `65536 KiB are locked and 4096 KiB are asked for: 69632 KiB; …`: what an ENOMEM rests on, before anything is charged. */
export function limitText(tx: Tx, question: LimitQuestion): string {
  const account = accountOf(tx, question.account, question.key);
  const asked = question.pages + question.maybePages;
  const total = totalOf(account) + asked;
  const who = question.account === 'space' ? 'the process' : userText(question.key);
  const locked = `${who} has ${kib(totalOf(account))} locked${mlockedText(tx, question)}${othersText(account)}`;
  return `${locked} and asks for ${kib(asked)}, ${kib(total)} in all; ${judgement(tx, question, account, total)}`;
}

function userText(user: number): string {
  return isUnknownUser(user) ? 'the user' : `user ${user}`;
}

function kib(pages: number): string {
  return `${pages * (PAGE_BYTES / 1024)} KiB`;
}

function mlockedText(tx: Tx, question: LimitQuestion): string {
  const own = question.account === 'space' ? tx.world.spaceLocked.get(question.key) : undefined;
  return own === undefined || own.mlockedPages === 0 ? '' : ` (${kib(own.mlockedPages)} by mlock)`;
}

function othersText({ otherPages, otherSince }: LockedPages): string {
  return otherPages === 0 ? '' : `, with at least ${kib(otherPages)} more that event ${otherSince} showed,`;
}

function judgement(tx: Tx, question: LimitQuestion, account: LockedPages, total: number): string {
  const { process } = question;
  if (process === undefined) return 'the process whose limit counts is gone';
  const { creds, memlock } = process;
  if (question.ipcLock === 'yes')
    return `CAP_IPC_LOCK${since(creds.ipcLockSince)} lifts RLIMIT_MEMLOCK: the memory itself was short`;
  if (memlock.bytes === null) return unknownLimit(account, process, total);
  const limit = `RLIMIT_MEMLOCK is ${bytesText(memlock.bytes)}${since(memlock.since)}`;
  if (total + account.otherPages <= limitPages(memlock.bytes))
    return `${limit}, which is enough ${unlessMore(tx, question)}`;
  if (question.ipcLock === 'no') return `${limit}, and CAP_IPC_LOCK is missing${since(creds.ipcLockSince)}`;
  return `${limit}, which only CAP_IPC_LOCK lifts`;
}

function since(seq: number): string {
  return seq < 0 ? '' : ` (event ${seq})`;
}

function bytesText(bytes: U64): string {
  if (bytes === U64_MAX) return 'unlimited';
  return typeof bytes === 'number' && bytes % 1024 === 0 ? `${bytes / 1024} KiB` : `${bytes} bytes`;
}

const RECORD = 'record prlimit64 (`ulimit -l` in the shell that starts the program) and capget';

function unknownLimit(account: LockedPages, process: Process, total: number): string {
  const allowed = allowedBefore(account, process, 0);
  if (allowed !== undefined && allowed.pages >= total)
    return `event ${allowed.seq} was allowed ${kib(allowed.pages)} under the same limit: the memory itself was short`;
  const least = allowed === undefined ? '' : `, at least ${kib(allowed.pages)} (event ${allowed.seq})`;
  return `if RLIMIT_MEMLOCK is the reason, it is less than ${kib(total)}${least}; ${RECORD}`;
}

/** Who could have locked more than the recording shows. */
function unlessMore(tx: Tx, { account, key }: LimitQuestion): string {
  if (account === 'user') return 'unless other processes of the user, or io_uring, lock memory as well';
  const more = tx.world.spaceLocked.get(key)?.moreSince ?? -1;
  if (more >= 0) return `unless what was locked by mlock or mlockall (event ${more}) is more than the recording shows`;
  if (tx.world.spaces.get(key)?.complete !== true) return 'unless memory was locked before the recording began';
  return 'by this count: the memory itself was short';
}
