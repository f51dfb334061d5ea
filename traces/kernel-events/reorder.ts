/**
 * Puts records into order of time when they arrive nearly so.
 *
 * A recorder in the kernel writes one buffer per CPU and a reader drains them in turn, so that a record may
 * stand after younger ones of another CPU. The window holds back up to `maxRecords` records (and up to
 * `maxBytes` of text, against giant lines) and gives the oldest one away when it is full. Records of the same
 * time stay in order of arrival. What arrives later than the window reaches cannot be sorted any more:
 * it is given next, and the caller is told.
 *
 * The buffer is a sorted array: with nearly sorted input a push lands at the end.
 */
export class ReorderWindow<T> {
  readonly #maxRecords: number;
  readonly #maxBytes: number;
  #entries: Entry<T>[] = [];
  /** Entries before this one were given away; they are dropped when they are half of the array. */
  #head = 0;
  #bytes = 0;
  #given = Number.NEGATIVE_INFINITY;

  constructor(maxRecords: number, maxBytes: number) {
    this.#maxRecords = maxRecords;
    this.#maxBytes = maxBytes;
  }

  /** Whether a record of this time would come too late to be sorted in. */
  isLate(time: number): boolean {
    return time < this.#given;
  }

  push(time: number, bytes: number, value: T): void {
    const entries = this.#entries;
    const key = Math.max(time, this.#given);
    let at = entries.length;
    if (at > this.#head && (entries[at - 1] as Entry<T>).key > key) at = this.#upperBound(key);
    if (at === entries.length) entries.push({ key, bytes, value });
    else entries.splice(at, 0, { key, bytes, value });
    this.#bytes += bytes;
  }

  /** The oldest record while the window is over-full, or any while `draining`; undefined when none is due. */
  take(draining: boolean): T | undefined {
    const held = this.#entries.length - this.#head;
    if (held === 0 || (!draining && held <= this.#maxRecords && this.#bytes <= this.#maxBytes)) return undefined;
    const entry = this.#entries[this.#head++] as Entry<T>;
    this.#bytes -= entry.bytes;
    this.#given = entry.key;
    if (this.#head > this.#maxRecords) {
      this.#entries = this.#entries.slice(this.#head);
      this.#head = 0;
    }
    return entry.value;
  }

  /** The records that are held, oldest first, for a look ahead. */
  *held(): Iterable<T> {
    for (let i = this.#head; i < this.#entries.length; i++) yield (this.#entries[i] as Entry<T>).value;
  }

  #upperBound(key: number): number {
    let low = this.#head;
    let high = this.#entries.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.#entries[middle] as Entry<T>).key <= key) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

interface Entry<T> {
  readonly key: number;
  readonly bytes: number;
  readonly value: T;
}
