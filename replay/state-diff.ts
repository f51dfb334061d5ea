import { Bytes } from '../core/bytes.js';
import { type Key, OrderedMap } from '../core/ordered-map.js';
import { joinPath, keyText } from './state-path.js';

/** One place where two states differ. `before` or `after` is undefined where the thing did not or does not exist. */
export interface Change {
  /** Path in the state: `containers.1.areas.0x1000`. */
  readonly path: string;
  readonly before: unknown;
  readonly after: unknown;
}

/**
 * What differs between two states, in the order of the paths' tables. Parts that both share are the same object and
 * cost nothing; a table that was written to is walked once on both sides. A record that appears or goes is
 * one change, not one for each of its fields. Stops after `limit` changes.
 */
export function diffStates(before: object, after: object, limit: number): Change[] {
  const changes: Change[] = [];
  differ('', before, after, changes, limit);
  return changes;
}

function differ(path: string, before: unknown, after: unknown, changes: Change[], limit: number): void {
  if (before === after || changes.length >= limit) return;
  if (before instanceof OrderedMap && after instanceof OrderedMap) {
    differTables(path, before as OrderedMap<Key, unknown>, after as OrderedMap<Key, unknown>, changes, limit);
  } else if (isRecord(before) && isRecord(after)) {
    for (const name of new Set([...Object.keys(before), ...Object.keys(after)]))
      differ(joinPath(path, name), before[name], after[name], changes, limit);
  } else if (!(before instanceof Bytes && after instanceof Bytes && before.equals(after))) {
    changes.push({ path, before, after });
  }
}

/** Both sides are in key order, so one walk over the two is enough. */
function differTables(
  path: string,
  before: OrderedMap<Key, unknown>,
  after: OrderedMap<Key, unknown>,
  changes: Change[],
  limit: number,
): void {
  const olds = before.entries();
  const news = after.entries();
  let old = olds.next();
  let now = news.next();
  while ((!old.done || !now.done) && changes.length < limit) {
    if (!old.done && (now.done || old.value[0] < now.value[0])) {
      changes.push({ path: joinPath(path, keyText(...old.value)), before: old.value[1], after: undefined });
      old = olds.next();
    } else if (!now.done && (old.done || now.value[0] < old.value[0])) {
      changes.push({ path: joinPath(path, keyText(...now.value)), before: undefined, after: now.value[1] });
      now = news.next();
    } else if (!old.done && !now.done) {
      differ(joinPath(path, keyText(...now.value)), old.value[1], now.value[1], changes, limit);
      old = olds.next();
      now = news.next();
    }
  }
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !(value instanceof Bytes) && !(value instanceof OrderedMap);
}
