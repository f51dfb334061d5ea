import { SPACE } from './byte-scan.js';
import type { Context } from './context.js';

const CLOCK_NONE = 0;
const CLOCK_EPOCH = 1;
const CLOCK_DAY = 2;
const DOT = 46;
const COLON = 58;

/**
 * The usual leaders on bytes: `128   1795226779.062478 `, `[pid 21004] 02:23:47.441988 `, either part alone, or
 * nothing. Reading changes nothing; {@link commit} sets the clock and gives the thread.
 */
export class FastLeader {
  readonly #context: Context;
  #pid = -1;
  #bracketed = false;
  #clock = CLOCK_NONE;
  #seconds = 0;
  #ns = 0;
  #value = 0;

  constructor(context: Context) {
    this.#context = context;
  }

  /** Gives where the call begins, or -1 for a leader of another form. */
  read(b: Uint8Array, from: number): number {
    this.#pid = -1;
    this.#clock = CLOCK_NONE;
    let p = from;
    if (b[p] === 91) {
      p = this.#bracketedPid(b, p);
      if (p < 0) return -1;
    }
    let c = b[p] as number;
    if (c < 48 || c > 57) return p;
    let end = this.#digits(b, p);
    if (end < 0) return -1;
    if (b[end] === SPACE && end - p <= 7) {
      if (this.#pid >= 0) return -1;
      this.#pid = this.#value;
      this.#bracketed = false;
      p = end;
      while (b[p] === SPACE) p++;
      c = b[p] as number;
      if (c < 48 || c > 57) return p;
      end = this.#digits(b, p);
      if (end < 0) return -1;
    }
    return b[end] === COLON ? this.#day(b, p, end) : this.#epoch(b, p, end);
  }

  /** Sets the clock to the line's time and gives its thread; -1 for a time that is out of range. */
  commit(): number {
    const { clock, tids } = this.#context;
    if (this.#clock === CLOCK_EPOCH && !clock.epoch(this.#seconds, this.#ns)) return -1;
    if (this.#clock === CLOCK_DAY && !clock.day(this.#seconds, this.#ns)) return -1;
    if (this.#pid < 0) return tids.unnumbered();
    return this.#bracketed ? tids.bracketed(this.#pid) : tids.numbered(this.#pid);
  }

  #digits(b: Uint8Array, from: number): number {
    let p = from;
    let value = 0;
    let digit = (b[p] as number) - 48;
    while (digit >= 0 && digit <= 9) {
      value = value * 10 + digit;
      digit = (b[++p] as number) - 48;
    }
    this.#value = value;
    return p === from || p - from > 15 ? -1 : p;
  }

  /** `[pid  1234] ` */
  #bracketedPid(b: Uint8Array, from: number): number {
    if (b[from + 1] !== 112 || b[from + 2] !== 105 || b[from + 3] !== 100 || b[from + 4] !== SPACE) return -1;
    let p = from + 5;
    while (b[p] === SPACE) p++;
    const end = this.#digits(b, p);
    if (end < 0 || end - p > 7 || b[end] !== 93 || b[end + 1] !== SPACE) return -1;
    this.#pid = this.#value;
    this.#bracketed = true;
    return end + 2;
  }

  /** `1795226779.062478 ` */
  #epoch(b: Uint8Array, from: number, end: number): number {
    if (end - from < 8) return -1;
    this.#clock = CLOCK_EPOCH;
    this.#seconds = this.#value;
    return this.#fraction(b, end);
  }

  /** `02:23:47.441988 ` */
  #day(b: Uint8Array, from: number, end: number): number {
    if (end - from !== 2 || b[from + 5] !== COLON) return -1;
    const hours = this.#value;
    if (this.#digits(b, from + 3) !== from + 5) return -1;
    const minutes = this.#value;
    if (this.#digits(b, from + 6) !== from + 8) return -1;
    this.#clock = CLOCK_DAY;
    this.#seconds = hours * 3600 + minutes * 60 + this.#value;
    return this.#fraction(b, from + 8);
  }

  #fraction(b: Uint8Array, from: number): number {
    this.#ns = 0;
    let p = from;
    if (b[p] === DOT) {
      p = this.#digits(b, from + 1);
      const count = p - from - 1;
      if (p < 0 || count > 9) return -1;
      this.#ns = this.#value * (SCALE[count] as number);
    }
    if (b[p] !== SPACE) return -1;
    while (b[p] === SPACE) p++;
    return p;
  }
}

/** What a fraction of so many digits is to be multiplied with to give ns. */
const SCALE: readonly number[] = [1e9, 1e8, 1e7, 1e6, 1e5, 1e4, 1e3, 100, 10, 1];
