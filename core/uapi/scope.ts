import { add, div, mul, type U64 } from '../u64.js';
import type { Case, Length, Selector, Shape } from './types.js';
import { shapeBytes } from './layout.js';

/** Values of the fields around a place: of its own struct, then of those that enclose it. */
export class Scope {
  readonly #own = new Map<string, U64>();
  readonly #outer: Scope | undefined;

  constructor(outer?: Scope) {
    this.#outer = outer;
  }

  set(name: string, value: U64): void {
    this.#own.set(name, value);
  }

  get(name: string): U64 | undefined {
    return this.#own.get(name) ?? this.#outer?.get(name);
  }

  /** The discriminator, or undefined where its field is not known. */
  select(by: Selector): number | undefined {
    const value = this.get(by.field);
    if (value === undefined) return undefined;
    const low = Number(BigInt.asUintN(32, BigInt(value)));
    return by.mask === 0 ? low : (low & by.mask) >>> 0;
  }

  /** Elements or bytes; `rest` gives undefined, as it is no matter of fields. Arithmetic is the kernel's, modulo 2^64. */
  count(length: Length): U64 | undefined {
    switch (length.unit) {
      case 'fixed':
        return length.count;
      case 'field': {
        const value = this.get(length.field);
        return value === undefined ? undefined : mul(value, length.scale);
      }
      case 'bitmap': {
        const bytes = this.get(length.length);
        const page = this.get(length.page);
        if (bytes === undefined || page === undefined || page === 0) return undefined;
        const pages = roundedUp(bytes, page);
        return roundedUp(pages, 8);
      }
      case 'rest':
        return undefined;
    }
  }
}

function roundedUp(value: U64, unit: U64): U64 {
  const quotient = div(value, unit);
  return mul(quotient, unit) === value ? quotient : add(quotient, 1);
}

/** The union member for a discriminator: of several the largest that fits into `roomBytes`, else the smallest. */
export function chooseCase(cases: readonly Case[], selected: number, roomBytes: number): Case | undefined {
  const fitting = cases.filter((c) => c.values.includes(selected));
  if (fitting.length === 0) return cases.find((c) => c.values.length === 0);
  let best: Case | undefined;
  for (const c of fitting) {
    const bytes = shapeBytes(c.shape);
    const bestBytes = best === undefined ? -1 : shapeBytes(best.shape);
    if (best === undefined || (bytes <= roomBytes ? bytes > bestBytes : bytes < bestBytes)) best = c;
  }
  return best;
}

/** Names under which a choice's number can be looked up: a union's members all name the same bytes. */
export function choiceNames(shape: Shape): readonly string[] {
  return shape.shape === 'choice' ? shape.cases.map((c) => c.name) : [];
}
