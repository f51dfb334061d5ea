import { add } from '../core/u64.js';
import { find } from './answer.js';
import type { Call } from './call.js';
import { lowestFreeFd, predictNewFd } from './files/fds.js';

/**
 * Calls that return a new fd: the lowest that is free. Where calls that were not recorded may hold fds, it can be a higher
 * one, which is then learned; nothing but a free one in any case.
 */

/** Predicts success with a new fd. Gives the one that the recording shows, or undefined when the call failed. */
export function succeedWithFd(call: Call, rule: string): number | undefined {
  const { tx, process } = call;
  const fd = lowestFreeFd(tx, process);
  const table = tx.world.fdTables.get(process.fdTable);
  if (predictNewFd(tx, process) !== undefined) call.succeed(rule, fd);
  else call.succeedUnlessLearned(rule, fd, (ret) => ret > fd && !table?.fds.has(Number(ret)));
  const told = Number(call.recordedRet ?? -1);
  return Number.isSafeInteger(told) && told >= 0 && told <= MAX_FD ? told : undefined;
}

const MAX_FD = 0x7fff_ffff;

/** A struct gets a new fd at `offset` of it. */
export function outFd(call: Call, offset: number, field: string): void {
  const { tx, process } = call;
  const fd = lowestFreeFd(tx, process);
  const told = find(call.memOut, add(call.arg, offset), 4)?.s32(0);
  const known = predictNewFd(tx, process) !== undefined || told === undefined || told <= fd;
  if (known || tx.world.fdTables.get(process.fdTable)?.fds.has(told)) {
    call.out32(offset, fd, field);
    return;
  }
  call.out32(offset, told, field);
  call.noteLearned();
}
