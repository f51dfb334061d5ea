/**
 * The time of each line as nanoseconds since the first, from any of strace's clocks.
 *
 * Epoch seconds (`-ttt`) give a real start. A time of day (`-t`, `-tt`) has no date: a step back by more than
 * half a day is taken for midnight. A relative time (`-r`) is the distance to the line before, and is added up.
 * A clock that was set back behind the first line stands at 0. Lines without a time keep the time of the line before, so that time never stands at 0 by accident.
 */
export class Clock {
  #kind: 'none' | 'epoch' | 'day' | 'relative' = 'none';
  #startSeconds = 0;
  #startNs = 0;
  #days = 0;
  #lastSeconds = 0;
  #now = 0;

  /** Time of the current line in ns since the first line that had one. */
  get nowNs(): number {
    return this.#now;
  }

  get kind(): 'none' | 'epoch' | 'day' | 'relative' {
    return this.#kind;
  }

  /** Epoch time (`epoch`) or time since midnight (`day`) of the first line; 0 for the other kinds. */
  get startNs(): bigint {
    return BigInt(this.#startSeconds) * 1_000_000_000n + BigInt(this.#startNs);
  }

  /** A line of epoch time; false where the distance to the start is no exact number (104 days). */
  epoch(seconds: number, ns: number): boolean {
    if (this.#kind === 'none') this.#begin('epoch', seconds, ns);
    return this.#kind !== 'epoch' || this.#set(seconds, ns);
  }

  /** A line of time of day. */
  day(seconds: number, ns: number): boolean {
    if (this.#kind === 'none') this.#begin('day', seconds, ns);
    if (this.#kind !== 'day') return true;
    if (seconds + 43_200 < this.#lastSeconds) this.#days++;
    this.#lastSeconds = seconds;
    return this.#set(seconds + this.#days * 86_400, ns);
  }

  /** A line with the time since the line before; means nothing where lines have an absolute time too. */
  relative(seconds: number, ns: number): boolean {
    if (this.#kind === 'none') {
      this.#kind = 'relative';
      return true;
    }
    if (this.#kind !== 'relative') return true;
    const sum = this.#now + seconds * 1_000_000_000 + ns;
    if (!Number.isSafeInteger(sum)) return false;
    this.#now = sum;
    return true;
  }

  #begin(kind: 'epoch' | 'day', seconds: number, ns: number): void {
    this.#kind = kind;
    this.#startSeconds = seconds;
    this.#startNs = ns;
    this.#lastSeconds = seconds;
  }

  #set(seconds: number, ns: number): boolean {
    const distance = (seconds - this.#startSeconds) * 1_000_000_000 + (ns - this.#startNs);
    if (!Number.isSafeInteger(distance)) return false;
    this.#now = Math.max(0, distance);
    return true;
  }
}
