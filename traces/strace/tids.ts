/**
 * Whose line it is.
 *
 * With `-o FILE -f` each line begins with its thread's number. On a terminal strace writes `[pid N]` only while
 * it traces more than one thread, so the first process's lines have no number until a second one appears,
 * and the last survivor's have none again. One process must keep one number throughout: what the unnumbered
 * beginning belongs to is called `base` (0, or the N of a file FILE.N), and when the number of that process
 * turns up later it is translated. It is the one that no clone returned and no "Process N attached" announced.
 */
export class Tids {
  readonly #base: number;
  /** The number that strace prints for the first process; -1 while unknown. */
  #printedBase = -1;
  /** Numbers of threads that are known not to be the first process. */
  readonly #born = new Set<number>();
  readonly #alive = new Set<number>();
  /** The number that strace said it attached to before any line; -1 where it said nothing. */
  #attachedFirst = -1;
  #sawUnnumbered = false;
  #numbered = false;
  #lastPrinted = -1;
  #lastTid = -1;

  /** Whether a clone is under way whose result has not been seen. */
  readonly #cloning: () => boolean;

  constructor(base: number, cloning: () => boolean) {
    this.#base = base;
    this.#cloning = cloning;
  }

  /** A line that begins with a bare number. */
  numbered(printed: number): number {
    this.#numbered = true;
    return printed;
  }

  /** A line that begins with `[pid N]`. */
  bracketed(printed: number): number {
    if (printed === this.#lastPrinted) return this.#lastTid;
    if (this.#isFirst(printed)) this.#printedBase = printed;
    else this.#remember(printed);
    this.#lastPrinted = printed;
    this.#lastTid = this.translate(printed);
    this.#alive.add(this.#lastTid);
    return this.#lastTid;
  }

  /** A line without a number. */
  unnumbered(): number {
    if (!this.#sawUnnumbered && !this.#numbered) {
      this.#sawUnnumbered = true;
      if (this.#alive.size === 0) {
        this.#alive.add(this.#base);
        this.#printedBase = this.#attachedFirst;
      }
    }
    if (this.#alive.size === 1) for (const tid of this.#alive) return tid;
    return this.#alive.has(this.#base) || this.#lastTid < 0 ? this.#base : this.#lastTid;
  }

  /** A number as strace printed it, as the events have it. */
  translate(printed: number): number {
    return printed === this.#printedBase ? this.#base : printed;
  }

  /** A clone returned this number, or strace said that it attached. */
  born(printed: number): void {
    if (printed === this.#printedBase) return;
    this.#remember(printed);
    this.#alive.add(printed);
  }

  /** strace said that it attached; if an unnumbered line comes first then, it is that process's. */
  attached(printed: number): void {
    if (this.#sawUnnumbered || this.#attachedFirst >= 0 || this.#alive.size > 0) this.born(printed);
    else this.#attachedFirst = printed;
  }

  /** The process of the unnumbered lines said its own number (set_tid_address, gettid). */
  isBase(tid: number, printed: number): void {
    if (tid === this.#base && this.#printedBase < 0 && !this.#born.has(printed)) this.#printedBase = printed;
  }

  ended(tid: number): void {
    this.#alive.delete(tid);
    this.#lastPrinted = -1;
  }

  #isFirst(printed: number): boolean {
    return this.#sawUnnumbered && this.#printedBase < 0 && !this.#born.has(printed) && !this.#cloning();
  }

  /** Hostile input may announce any number of threads. */
  #remember(printed: number): void {
    if (this.#born.size > 65_536) this.#born.clear();
    if (this.#alive.size > 65_536) this.#alive.clear();
    this.#born.add(printed);
  }
}
