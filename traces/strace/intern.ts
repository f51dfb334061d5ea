/** A path has at most PATH_MAX bytes, and nothing else that comes twice is longer. */
const MAX_TOKEN_BYTES = 4096;

/**
 * A table from runs of bytes to values, so that a token seen before costs neither a string nor a parse.
 *
 * The value is made once, from the token's text, by the function given. A token is found by a hash over its
 * length and some of its bytes and then compared byte by byte, so two tokens never share a value by
 * accident. The table stops growing at a limit (hostile input has a new path on every line); tokens beyond
 * it are made anew each time.
 */
export class Interner<V> {
  readonly #make: (text: string) => V;
  readonly #maxEntries: number;
  #slots: (Entry<V> | undefined)[] = new Array(256).fill(undefined);
  #mask = 255;
  #count = 0;

  constructor(make: (text: string) => V, maxEntries = 16_384) {
    this.#make = make;
    this.#maxEntries = maxEntries;
  }

  /** The value for `buffer[from..to)`. */
  get(buffer: Uint8Array, from: number, to: number): V {
    const hash = hashOf(buffer, from, to);
    let at = hash & this.#mask;
    for (;;) {
      const entry = this.#slots[at];
      if (entry === undefined) return this.#add(buffer, from, to, hash, at);
      if (entry.hash === hash && same(entry.bytes, buffer, from, to)) return entry.value;
      at = (at + 1) & this.#mask;
    }
  }

  #add(buffer: Uint8Array, from: number, to: number, hash: number, at: number): V {
    const bytes = buffer.slice(from, to);
    const value = this.#make(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('latin1'));
    if (this.#count >= this.#maxEntries || bytes.length > MAX_TOKEN_BYTES) return value;
    this.#slots[at] = { hash, bytes, value };
    if (++this.#count * 2 > this.#slots.length) this.#grow();
    return value;
  }

  #grow(): void {
    const old = this.#slots;
    this.#mask = old.length * 2 - 1;
    this.#slots = new Array(old.length * 2).fill(undefined);
    for (const entry of old) {
      if (entry === undefined) continue;
      let at = entry.hash & this.#mask;
      while (this.#slots[at] !== undefined) at = (at + 1) & this.#mask;
      this.#slots[at] = entry;
    }
  }
}

interface Entry<V> {
  readonly hash: number;
  readonly bytes: Uint8Array;
  readonly value: V;
}

/** Names and paths differ at their ends more than at their beginnings; long ones are not read twice in full. */
function hashOf(buffer: Uint8Array, from: number, to: number): number {
  let hash = to - from;
  const tail = Math.max(from, to - 12);
  for (let i = tail; i < to; i++) hash = (Math.imul(hash, 31) + (buffer[i] as number)) | 0;
  const head = Math.min(tail, from + 12);
  for (let i = from; i < head; i++) hash = (Math.imul(hash, 31) + (buffer[i] as number)) | 0;
  return hash;
}

function same(bytes: Uint8Array, buffer: Uint8Array, from: number, to: number): boolean {
  if (bytes.length !== to - from) return false;
  for (let i = from, j = 0; i < to; i++, j++) if (buffer[i] !== bytes[j]) return false;
  return true;
}
