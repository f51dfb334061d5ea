/**
 * Writes annotated strace text (`-f -ttt -x -y`) the way the recorder does: a statement of the struct before the
 * ioctl and one after it.
 */
const HEX_ESCAPES: readonly string[] = Array.from({ length: 256 }, (_, i) => `\\x${i.toString(16).padStart(2, '0')}`);

export class StraceText {
  readonly #pid: number;
  #parts: string[] = [];
  #bytes = 0;
  #timeUs = 0;

  constructor(pid: number) {
    this.#pid = pid;
  }

  get bufferedBytes(): number {
    return this.#bytes;
  }

  /** One line: leader, `text`, newline. */
  line(text: string): void {
    this.#timeUs += 900;
    const seconds = 1795228000 + Math.floor(this.#timeUs / 1_000_000);
    const micros = String(this.#timeUs % 1_000_000).padStart(6, '0');
    const whole = `${String(this.#pid).padEnd(5)} ${seconds}.${micros} ${text}\n`;
    this.#parts.push(whole);
    this.#bytes += whole.length;
  }

  /** States that memory at `addr` holds `bytes`. */
  note(addr: number, bytes: Uint8Array): void {
    let shown = '';
    for (const byte of bytes) shown += HEX_ESCAPES[byte];
    this.line(`pwrite64(-1, "${shown}", ${bytes.length}, ${addr}) = -1 EBADF (Bad file descriptor)`);
  }

  /** An ioctl with its struct before and after. */
  ioctl(
    fd: string,
    request: string,
    arg: number,
    before: Uint8Array,
    result: string,
    after: Uint8Array = before,
  ): void {
    this.note(arg, before);
    this.line(`ioctl(${fd}, ${request}, 0x${arg.toString(16)}) = ${result}`);
    this.note(arg, after);
  }

  /** Takes what was written so far. */
  take(): string {
    const text = this.#parts.join('');
    this.#parts = [];
    this.#bytes = 0;
    return text;
  }
}
