import type { U64 } from '../../../core/u64.js';
import type { Call } from '../../call.js';
import { SURELY_TRANSLATED } from '../../devices/pc-iommu.js';
import type { Tx } from '../../tx.js';
import { iommuKey, numberFact, teach } from '../facts.js';

/**
 * How wide the addresses are that the IOMMUs of some groups translate, as long as no GET_INFO told it. An answer to a higher
 * address sets a bound. What an IOMMU translates ends at a power of two, so that one address tells of all of that width;
 * what groups have in common is what each of them can do.
 */
export interface Width {
  /** Every address up to here is translated. */
  readonly least: U64;
  /** None above is; undefined while nothing showed that. */
  readonly most: U64 | undefined;
}

const FROM = 'width_from';
const TO = 'width_to';

export function widthOf(tx: Tx, groups: readonly number[]): Width {
  const sets = [groups, ...groups.map((group) => [group])];
  let most: U64 | undefined;
  for (const set of sets) {
    const bound = numberFact(tx, iommuKey(set, TO));
    if (bound !== undefined && (most === undefined || bound < most)) most = bound;
  }
  const together = numberFact(tx, iommuKey(groups, FROM));
  return { least: together ?? leastOfAll(tx, groups), most };
}

function leastOfAll(tx: Tx, groups: readonly number[]): U64 {
  let least: U64 | undefined;
  for (const group of groups) {
    const bound = numberFact(tx, iommuKey([group], FROM)) ?? SURELY_TRANSLATED;
    if (least === undefined || bound < least) least = bound;
  }
  return least ?? SURELY_TRANSLATED;
}

/** An answer showed whether an address above those of every machine is translated. Only after a prediction. */
export function teachWidth(call: Call, groups: readonly number[], last: U64, translated: boolean): void {
  const bits = BigInt(last).toString(2).length;
  if (translated) teach(call, iommuKey(groups, FROM), allOfBits(bits));
  else teach(call, iommuKey(groups, TO), allOfBits(bits - 1));
}

function allOfBits(bits: number): U64 {
  return bits > 53 ? 2n ** BigInt(bits) - 1n : 2 ** bits - 1;
}
