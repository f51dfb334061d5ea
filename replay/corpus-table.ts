import { invariants } from '../reducers/invariants/index.js';
import { openRecording } from '../traces/open.js';
import { type Report, replay } from './report.js';

/**
 * What a replay of each bundled recording is expected to give: the tables of traces/corpus/INDEX.md, which people read and
 * the corpus test parses. A row begins with the file's name in backquotes; the columns named as in {@link COLUMNS} are
 * numbers, all others are text for people. `npm run corpus:update` writes the numbers after a human has looked.
 */

export const COLUMNS = ['events', 'skipped', 'calls', 'match', 'diverge', 'learned', 'unknown', 'findings'] as const;

/** The numbers of one recording. */
export type CorpusCounts = Readonly<Record<(typeof COLUMNS)[number], number>>;

/** The numbers of a report, as a row states them. */
export function countsOf(report: Pick<Report, 'events' | 'skippedLines' | 'calls' | 'findingCount'>): CorpusCounts {
  const { total: calls, match, diverge, learned, unknown } = report.calls;
  const { events, skippedLines: skipped, findingCount: findings } = report;
  return { events, skipped, calls, match, diverge, learned, unknown, findings };
}

/** Replays one recording with the default invariants. */
export async function measured(path: string): Promise<CorpusCounts> {
  return countsOf(await replay(await openRecording(path), { invariants }));
}

/** The rows by file name. One without all of its numbers, or named twice, is an error of whoever wrote the table. */
export function readTable(text: string): Map<string, CorpusCounts> {
  const rows = new Map<string, CorpusCounts>();
  let names: readonly string[] = [];
  for (const line of text.split('\n')) {
    const cells = cellsOf(line);
    const file = fileOf(cells);
    if (cells[0] === 'File') names = cells;
    if (file === undefined) continue;
    if (rows.has(file)) throw new Error(`${file} has two rows`);
    rows.set(file, countsIn(file, names, cells));
  }
  return rows;
}

function countsIn(file: string, names: readonly string[], cells: readonly string[]): CorpusCounts {
  const number = (column: string): number => {
    const cell = cells[names.indexOf(column)] ?? '';
    if (!/^\d+$/.test(cell)) throw new Error(`${file} has no number in column ${column}: ${JSON.stringify(cell)}`);
    return Number(cell);
  };
  return Object.fromEntries(COLUMNS.map((column) => [column, number(column)])) as CorpusCounts;
}

/** The same text with new numbers in the rows of the files given; a table without the columns gets them. */
export function writeTable(text: string, counts: ReadonlyMap<string, CorpusCounts>): string {
  const blocks = text.split(/(^\|[^]*?\n(?!\|))/m);
  return blocks.map((block) => (block.startsWith('| File') ? tableText(block, counts) : block)).join('');
}

function tableText(block: string, counts: ReadonlyMap<string, CorpusCounts>): string {
  const [head = [], , ...rows] = block.trimEnd().split('\n').map(cellsOf);
  const names = [...head, ...COLUMNS.filter((column) => !head.includes(column))];
  const filled = rows.map((cells) => {
    const now = counts.get(fileOf(cells) ?? '');
    return names.map((name, i) => (now !== undefined && isColumn(name) ? String(now[name]) : (cells[i] ?? '')));
  });
  const widths = names.map((name, i) => Math.max(...[names, ...filled].map((cells) => (cells[i] ?? '').length)));
  const pad = (cell: string, i: number): string =>
    isColumn(names[i] ?? '') ? cell.padStart(widths[i] ?? 0) : cell.padEnd(widths[i] ?? 0);
  const rule = names.map((name, i) => `${'-'.repeat((widths[i] ?? 0) - 1)}${isColumn(name) ? ':' : '-'}`);
  return `${[names, rule, ...filled].map((cells) => `| ${cells.map(pad).join(' | ')} |`).join('\n')}\n`;
}

function isColumn(name: string): name is keyof CorpusCounts {
  return (COLUMNS as readonly string[]).includes(name);
}

function cellsOf(line: string): string[] {
  return line.startsWith('|')
    ? line
        .slice(1)
        .replace(/\|\s*$/, '')
        .split('|')
        .map((cell) => cell.trim())
    : [];
}

function fileOf(cells: readonly string[]): string | undefined {
  return /^`([^`]+)`$/.exec(cells[0] ?? '')?.[1];
}
