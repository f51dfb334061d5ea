import type { Call } from '../call.js';
import { askLimit, type LimitQuestion, limitText } from '../memory/memlock.js';
import { chargePages, questionOf } from './charges.js';
import { contextOf, ioasByKey, objectsUnknown } from './context.js';
import { countHeld, NOT_HELD } from './held-pages.js';
import type { Rule } from './rules.js';
import type { Area, IoPages } from './state.js';
import { unknownSinceText } from '../answer.js';

/**
 * IOAS_CHANGE_PROCESS (drivers/iommu/iommufd/ioas.c): hands all memory of a context to the calling process, for a program that
 * goes on as another process. Only memory of files can be moved, since an address means something else there.
 *
 * First all areas are looked at. Then what is pinned and charged to another user or address space is charged to the
 * caller, first what users pay, then what address spaces pay; all of it has to fit into the caller's RLIMIT_MEMLOCK while
 * the old charge still stands, so one user needs room for twice as much. The caller's own capability does not
 * count: whether a page is charged was settled when it was mapped (charges.ts). At last the old charges go.
 */
export const CHANGE_PROCESS_RULES: readonly Rule[] = [
  { id: 'change-process.reserved', errno: 'EOPNOTSUPP', text: 'the reserved field is not 0' },
  { id: 'change-process.user-memory', errno: 'EINVAL', text: 'an area maps memory by address' },
  {
    id: 'change-process.memlock',
    errno: 'ENOMEM',
    text: 'the pinned pages, charged a second time, are more than RLIMIT_MEMLOCK of the caller allows',
  },
  { id: 'change-process.ok', errno: '', text: 'all file mappings belong to the caller' },
];

export function changeProcess(call: Call): void {
  if (call.struct.u32(4) !== 0 && call.fail('EOPNOTSUPP', 'change-process.reserved')) return;
  const { tx } = call;
  const keys: number[] = [];
  const context = contextOf(tx, call.file.object);
  if (context.unknownSince >= 0) call.unknown(objectsUnknown(context.unknownSince));
  for (const object of context.objects.values()) if (object.type === 'ioas') keys.push(object.ioas);
  for (const key of keys) {
    const ioas = ioasByKey(tx, key);
    if (ioas.unknownSince >= 0) call.unknown(unknownSinceText('mappings', ioas.unknownSince));
    for (const area of ioas.areas.values())
      if (area.pages.kind !== 'file' && call.fail('EINVAL', 'change-process.user-memory')) return;
  }
  const moves = movesOf(call, keys);
  const questions = newCharges(call, moves);
  for (const question of questions) {
    if (call.predicted || askLimit(tx, question) !== 'exceeds') continue;
    call.looked(limitText(tx, question));
    if (call.fail('ENOMEM', 'change-process.memlock')) return;
  }
  if (!call.succeed('change-process.ok')) {
    const [first] = questions;
    if (call.recordedErrno === 'ENOMEM' && first !== undefined) call.looked(limitText(tx, first));
    return;
  }
  for (const { from, to, held } of moves.values()) {
    chargePages(tx, to, held, call.event.seq);
    chargePages(tx, from, -held, NOT_HELD);
  }
  for (const key of keys) {
    const table = tx.openTable(tx.world.ioases, key, 'areas');
    for (const area of [...table.values()]) table.set(area.start, moved(area, moves));
  }
}

/** Memory that changes hands; copies share it, and it moves once. */
interface Move {
  readonly from: IoPages;
  readonly to: IoPages;
  /** How many of its pages are pinned. */
  readonly held: number;
}

function movesOf(call: Call, keys: readonly number[]): Map<number, Move> {
  const { space, pid, creds } = call.process;
  const { user } = creds;
  const moves = new Map<number, Move>();
  for (const key of keys) {
    for (const area of ioasByKey(call.tx, key).areas.values()) {
      const from = area.pages;
      // Memory mapped by address stays whose it is, whatever a recording claims.
      if (from.kind !== 'file' || moves.has(from.id)) continue;
      moves.set(from.id, { from, to: Object.freeze({ ...from, space, pid, user }), held: countHeld(call.tx, area) });
    }
  }
  return moves;
}

/** What the caller is charged with anew: for users, then for address spaces. */
function newCharges(call: Call, moves: ReadonlyMap<number, Move>): LimitQuestion[] {
  const sums = new Map<string, LimitQuestion>();
  for (const { from, to, held } of moves.values()) {
    const same = from.space === to.space && (from.charged === 'space' || from.user === to.user);
    const question = same ? undefined : questionOf(call.tx, to, held);
    if (question === undefined) continue;
    const before = sums.get(question.account);
    const pages = question.pages + (before?.pages ?? 0);
    sums.set(question.account, {
      ...question,
      ipcLock: 'no',
      pages,
      maybePages: question.maybePages + (before?.maybePages ?? 0),
    });
  }
  return ['user', 'space'].flatMap((account) => sums.get(account) ?? []);
}

function moved(area: Area, moves: ReadonlyMap<number, Move>): Area {
  return Object.freeze({ ...area, pages: moves.get(area.pages.id)?.to ?? area.pages });
}
