import { errnoName, errnoNumber } from '../../core/errno.js';
import type { U64 } from '../../core/u64.js';
import { closingAngle, innerPath, readU64 } from './values.js';

/**
 * A call's text taken apart: `name(arguments) = result`.
 *
 * Arguments are split at commas outside of strings, brackets and the `<…>` that `-y` puts behind an fd. The
 * closing parenthesis is the one that brings the depth back to zero; where damage spoils the count, the last `) =` of
 * the line is taken instead.
 */
export interface CallText {
  readonly name: string;
  readonly args: readonly string[];
  /** Everything behind the closing parenthesis, or undefined where the text ends before it. */
  readonly tail: string | undefined;
}

const CALL_START = /^([a-zA-Z_][a-zA-Z0-9_]*)\(/;

/** Undefined where the text does not begin like a call. */
export function splitCall(text: string): CallText | undefined {
  const start = CALL_START.exec(text);
  if (start === null) return undefined;
  const name = start[1] as string;
  const from = start[0].length;
  const commas: number[] = [];
  const close = scanArguments(text, from, commas);
  if (close >= 0 && /^\s*(=|$)/.test(text.slice(close + 1))) {
    return { name, args: cutAt(text, from, close, commas), tail: text.slice(close + 1).trim() };
  }
  const last = /^.*\)(?=\s*= \S)/s.exec(text);
  if (last === null) return { name, args: cutAt(text, from, text.length, commas), tail: undefined };
  const end = last[0].length - 1;
  return {
    name,
    args: cutAt(
      text,
      from,
      end,
      commas.filter((at) => at < end),
    ),
    tail: text.slice(end + 1).trim(),
  };
}

/** Collects the positions of separating commas; gives that of the closing parenthesis, or -1. */
function scanArguments(text: string, from: number, commas: number[]): number {
  let depth = 0;
  for (let i = from; i < text.length; i++) {
    const c = text[i];
    if (c === '"') i = afterString(text, i);
    else if (c === '(' || c === '[' || c === '{') depth++;
    else if (c === ')' && depth === 0) return i;
    else if (c === ')' || c === ']' || c === '}') depth--;
    else if (c === ',' && depth === 0) commas.push(i);
    else if (c === '<') i = afterAngle(text, i);
    else if (c === '/' && text[i + 1] === '*') i = afterComment(text, i);
  }
  return -1;
}

/** The last character of a string; the end of the text where it is never closed. */
function afterString(text: string, quote: number): number {
  let i = quote + 1;
  while (i < text.length && text[i] !== '"') i += text[i] === '\\' ? 2 : 1;
  return i;
}

/** A `<` after an fd opens an annotation; `1<<12` does not. */
function afterAngle(text: string, at: number): number {
  if (text[at + 1] === '<') return at + 1;
  const end = closingAngle(text, at);
  return end < text.length ? end : at;
}

function afterComment(text: string, at: number): number {
  const end = text.indexOf('*/', at + 2);
  return end < 0 ? text.length : end + 1;
}

function cutAt(text: string, from: number, to: number, commas: readonly number[]): string[] {
  const args: string[] = [];
  let at = from;
  for (const comma of commas) {
    args.push(text.slice(at, comma).trim());
    at = comma + 1;
  }
  const rest = text.slice(at, to).trim();
  if (rest !== '' || args.length > 0) args.push(rest);
  return args;
}

/** What stands behind `=`. */
export interface Result {
  readonly ret: U64 | -1 | null;
  readonly errno: string;
  readonly injected: boolean;
  /** What `-y` says of a returned fd. */
  readonly path: string;
}

export const NO_RESULT: Result = Object.freeze({ ret: null, errno: '', injected: false, path: '' });

const RESULT = /^=\s*(0x[0-9a-fA-F]+|-?[0-9]+|\?)/;

/**
 * Reads `= 0`, `= 0x7f…`, `= 3</dev/null>`, `= -1 ENOTTY (…)`, `= -1 (errno 524)`, `= ? ERESTARTSYS (…)`, `= ?`, with
 * `(INJECTED)`, `(DELAYED)` and `<time>` behind. A call that a signal interrupted (`ERESTART…`) has no result: the
 * kernel calls it again or turns it into EINTR, and strace shows neither here.
 */
export function readResult(tail: string): Result | 'range' | undefined {
  const match = RESULT.exec(tail);
  if (match === null) return undefined;
  const number = match[1] as string;
  const rest = tail.slice(match[0].length);
  const injected = rest.includes('(INJECTED');
  if (number === '?') return injected ? { ...NO_RESULT, injected } : NO_RESULT;
  if (number.startsWith('-')) return failure(number, rest, injected);
  const ret = readU64(number);
  if (ret === undefined || ret === 'range') return ret;
  const path = rest.startsWith('<') ? innerPath(rest, 0) : '';
  return { ret, errno: '', injected, path };
}

function failure(number: string, rest: string, injected: boolean): Result {
  const named = /^ (E[A-Z0-9_]+)(?= |$)/.exec(rest)?.[1];
  const numbered = /^ \(errno ([0-9]{1,4})\)/.exec(rest)?.[1];
  let errno = '';
  if (named !== undefined) errno = canonical(named);
  else if (numbered !== undefined) errno = errnoName(Number(numbered));
  else if (number !== '-1' && number.length <= 5) errno = errnoName(-Number(number));
  return { ret: -1, errno, injected, path: '' };
}

/** Alternative spellings (`EWOULDBLOCK`) become the usual one. */
export function canonical(name: string): string {
  const number = errnoNumber(name);
  return number === undefined ? name : errnoName(number);
}
