import type { Call } from '../call.js';
import { charge } from '../memory/locked.js';
import { chargeAsked, type LimitQuestion } from '../memory/memlock.js';
import type { Tx } from '../tx.js';
import type { Rule } from './rules.js';
import type { IoPages, PagesCharge } from './state.js';

export const PAGES_MEMLOCK = 'pages.memlock';

/**
 * Whom pinned pages are charged to (drivers/iommu/iommufd/pages.c).
 *
 * When memory is mapped (`iopt_alloc_pages`) it is settled for good who pays: nobody, if the caller has CAP_IPC_LOCK, or for
 * a dma-buf; else the caller's user (`incr_user_locked_vm`), or in RLIMIT_MODE 1 the caller's address space
 * (`update_mm_locked_vm`). The limit that counts is the one of the process that mapped it, whoever has the pages
 * pinned later. Copies share the memory and its charge.
 *
 * Nothing is charged before pages are pinned, and each page once, however many areas, domains and accesses hold it
 * (held-pages.ts). The kernel pins all pages of one area first, so a page that cannot be had decides before the limit
 * does (`pfn_reader_user_update_pinned`); of several areas, each has its turn.
 */
export const CHARGE_RULES: readonly Rule[] = [
  {
    id: PAGES_MEMLOCK,
    errno: 'ENOMEM',
    text: 'more pages would be pinned than RLIMIT_MEMLOCK allows, and CAP_IPC_LOCK was missing when they were mapped',
  },
];

/** Who pays for memory that the caller maps now. */
export function chargeOfCaller(call: Call, toSpace: boolean): PagesCharge {
  const { pid, creds } = call.process;
  const { ipcLock, user } = creds;
  return { charged: ipcLock === 'yes' ? 'nobody' : toSpace ? 'space' : 'user', surely: ipcLock === 'no', pid, user };
}

/** What pinning so many more of the pages asks of the limit; undefined where nobody pays. */
export function questionOf(tx: Tx, pages: IoPages, count: number): LimitQuestion | undefined {
  const { charged, surely, pid } = pages;
  if (charged === 'nobody') return undefined;
  // Whoever has the capability now is taken to have had it when the memory was mapped.
  const process = tx.world.processes.get(pid);
  const ipcLock = surely ? 'no' : process?.creds.ipcLock === 'yes' ? 'yes' : 'unknown';
  return {
    account: charged,
    key: charged === 'space' ? pages.space : pages.user,
    process,
    ipcLock,
    pages: surely ? count : 0,
    maybePages: surely ? 0 : count,
  };
}

/** Charges pages that were pinned, or with a negative count takes off those that were let go. */
export function chargePages(tx: Tx, pages: IoPages, count: number, seq: number): void {
  const question = count === 0 ? undefined : questionOf(tx, pages, count);
  if (question === undefined) return;
  if (count > 0) chargeAsked(tx, question, seq);
  else charge(tx, question.account, question.key, question.pages, question.maybePages);
}
