import picocolors from 'picocolors';

/**
 * How text may look on one stream: whether it takes colour and how wide it is. Everything that is printed goes
 * through one of these, so that nothing else asks about terminals.
 */
export interface Style {
  readonly paint: ReturnType<typeof picocolors.createColors>;
  readonly widthColumns: number;
}

/** Width for pipes and files: what a reader's terminal, a mail and a bug report all hold. */
const PIPE_COLUMNS = 100;
const MIN_COLUMNS = 40;

interface Terminal {
  readonly isTTY?: boolean;
  readonly columns?: number;
}

/**
 * Colour on a terminal only; NO_COLOR (https://no-color.org) and TERM=dumb switch it off, FORCE_COLOR on. COLUMNS
 * tells the width of what is not a terminal.
 */
export function styleFor(stream: Terminal, env: NodeJS.ProcessEnv): Style {
  const wanted = stream.isTTY === true && env['TERM'] !== 'dumb';
  const forced = isSet(env['FORCE_COLOR']) && env['FORCE_COLOR'] !== '0';
  const coloured = !isSet(env['NO_COLOR']) && (wanted || forced);
  const told = Number(env['COLUMNS']);
  const columns = stream.isTTY ? stream.columns : Number.isInteger(told) && told > 0 ? told : undefined;
  return {
    paint: picocolors.createColors(coloured),
    widthColumns: Math.max(MIN_COLUMNS, columns ?? PIPE_COLUMNS),
  };
}

function isSet(value: string | undefined): boolean {
  return value !== undefined && value !== '';
}

export const PLAIN: Style = { paint: picocolors.createColors(false), widthColumns: PIPE_COLUMNS };

/** 1234567 as `1,234,567`, whatever the locale. */
export function grouped(value: number): string {
  return String(value).replace(/\B(?=(\d{3})+$)/g, ',');
}

/** `1 event`, `2,000 events`. */
export function counted(value: number, one: string, many: string = `${one}s`): string {
  return `${grouped(value)} ${value === 1 ? one : many}`;
}

/**
 * Breaks text at spaces so that no line passes `columns`; lines after the first begin with `indent`. `column` is
 * where the text begins on its first line. A single word that is too long stays whole: addresses and paths are
 * copied from here.
 */
export function wrapped(text: string, columns: number, indent: string, column: number = indent.length): string {
  return broken(text.split(' '), columns, indent, column);
}

/** The same for a list: `a 1, b 2` breaks behind commas only. */
export function listed(
  items: readonly string[],
  columns: number,
  indent: string,
  column: number = indent.length,
): string {
  const last = items.length - 1;
  return broken(
    items.map((item, index) => (index < last ? `${item},` : item)),
    columns,
    indent,
    column,
  );
}

function broken(words: readonly string[], columns: number, indent: string, column: number): string {
  const lines: string[] = [];
  let line = '';
  let used = column;
  for (const word of words) {
    if (line !== '' && used + 1 + word.length > columns) {
      lines.push(line);
      line = word;
      used = indent.length + word.length;
    } else {
      line = line === '' ? word : `${line} ${word}`;
      used += word.length + (line === word ? 0 : 1);
    }
  }
  return [...lines, line].join(`\n${indent}`);
}

/** Control characters as `\xNN`: what stands in a recording must not drive the reader's terminal. */
export function printable(text: string): string {
  return text.replace(/\p{Cc}/gu, (c) => `\\x${c.charCodeAt(0).toString(16).padStart(2, '0')}`);
}
