/**
 * What stands in an strace text beside calls: strace's own messages, colour, stack lines, summary tables, and
 * the marks of a mail or a ticket it was pasted into.
 */

const SGR = /\u001b\[[0-9;]*m/g;

export function withoutColour(text: string): string {
  return text.replace(SGR, '');
}

/** A message of strace, with the path it was started as; what stands before it is another line's beginning. */
const MESSAGE =
  /(?:(?:[./][^\s,(){}<>"'|=]*\/)?strace: Process ([0-9]+) (attached|detached)|\[ Process PID=([0-9]+) runs in [^\]]* mode\. \])$/;

export interface Message {
  /** The beginning of a line that the message broke off; '' when it had a line of its own. */
  readonly before: string;
  readonly pid: number;
  readonly what: 'attached' | 'detached' | 'mode';
}

/** The message at the end of a line, if there is one. */
export function readMessage(text: string): Message | undefined {
  if (!text.includes('Process ')) return undefined;
  const found = MESSAGE.exec(text);
  if (found === null) return undefined;
  const what = (found[2] as 'attached' | 'detached' | undefined) ?? 'mode';
  return { before: text.slice(0, found.index), pid: Number(found[1] ?? found[3]), what };
}

/** Other things that strace says, on lines of their own. */
const SAYINGS = /^(?:[^\s:]*\/)?strace: /;
/** `-k`: ` > file(symbol+0x10) [0xaddress]`, `-kk` with the source line behind. */
const STACK = /^\s*> .*\[0x[0-9a-fA-F]+\](?: .*)?$/;
const STACK_ERROR = /^ > [^=]*$/;
/** What people put where they left lines out. */
const OMISSION = /^[\s>|]*(?:\[\s*(?:\.\.\.|…|snip[^\]]*|cut)\s*\]|\.{3,}|…|<snip>|--- ?8<.*)\s*$/i;

/** Whether the line says nothing about calls and can be passed over in silence. */
export function isNoise(text: string): boolean {
  return text.trim() === '' || SAYINGS.test(text) || STACK.test(text) || STACK_ERROR.test(text) || OMISSION.test(text);
}

const SUMMARY_HEAD = /^\s*% time\s+seconds\s/;
const SUMMARY_ROW = /^\s*(?:[-\s]+|[0-9.]+\s+[0-9.]+\s[^(=]*)$/;
const SUMMARY_END = /\stotal\s*$/;

/** Passes over the tables that `-c` and `-C` print; they are told by their heading. */
export class SummaryTables {
  #inside = false;

  /** Whether the line belongs to a table. */
  takes(text: string): boolean {
    if (SUMMARY_HEAD.test(text)) {
      this.#inside = true;
      return true;
    }
    const row = this.#inside && SUMMARY_ROW.test(text);
    this.#inside = row && !SUMMARY_END.test(text);
    return row;
  }
}

/** `> `, `>> `, `| ` and blanks of quoted mail and tickets; how many characters they are. */
export function quoteLength(text: string): number {
  return (/^(?:[ \t]*[>|])*[ \t]*/.exec(text) as RegExpExecArray)[0].length;
}
