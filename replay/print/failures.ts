import type { FailureGroup } from '../failures.js';
import type { LookBack } from '../look-back.js';
import type { Report } from '../report.js';
import { placesIn, shortPlaceOf } from './event.js';
import { counted, grouped, printable, type Style, wrapped } from './style.js';

/** How many reasons a page tells. */
const SHOWN = 16;
/** What people ask first: why memory could not be mapped, or not be unmapped. */
const DMA = /_(?:UN)?MAP(?:_DMA|_FILE)?$|_COPY$/;

/** The reasons that a page tells: those of mappings before others. */
export function shownFailures(report: Report): readonly FailureGroup[] {
  const rank = ({ first }: FailureGroup): number => (DMA.test(first.call) ? 0 : 1);
  return [...report.failureGroups].sort((a, b) => rank(a) - rank(b)).slice(0, SHOWN);
}

/** Why calls failed, where the model agrees that they had to: the answer to "why did MAP_DMA fail". */
export function failuresText(report: Report, back: LookBack, style: Style): string {
  const shown = shownFailures(report);
  if (shown.length === 0) return '';
  const rest = report.failureCount - shown.reduce((sum, { count }) => sum + count, 0);
  const more = rest > 0 ? `and ${counted(rest, 'other')}; show --failed lists all` : '';
  return `failed, as they had to\n${reasonsText(report, shown, back, style, more)}`;
}

/** Calls that succeeded without doing what they seem to. */
export function idleText(report: Report, back: LookBack, style: Style): string {
  const { idleGroups } = report;
  if (idleGroups.length === 0) return '';
  return `succeeded, and did not do what they seem to\n${reasonsText(report, idleGroups, back, style, '')}`;
}

function reasonsText(
  report: Report,
  shown: readonly FailureGroup[],
  back: LookBack,
  style: Style,
  more: string,
): string {
  const width = Math.max(...shown.map(({ count }) => grouped(count).length));
  const indent = ' '.repeat(width + 4);
  const lines = shown.flatMap((group) => {
    const { call, errno, text } = group.first;
    const what = errno === '' ? call : `${call} ${errno}`;
    const head = wrapped(printable(`${what}: ${text}`), style.widthColumns, indent);
    return [
      `  ${grouped(group.count).padStart(width)}  ${head}`,
      `${indent}${style.paint.dim(wrapped(firstText(report, group, back), style.widthColumns, indent))}`,
    ];
  });
  if (more !== '') lines.push(`  ${' '.repeat(width)}  ${style.paint.dim(more)}`);
  return lines.join('\n');
}

/** Where the first one stands, and what it met. */
function firstText(report: Report, { first, count }: FailureGroup, back: LookBack): string {
  const place = shortPlaceOf(report.info.files, first);
  const history = back.histories.get(first.seq) ?? '';
  const why = [first.reason, history].filter((text) => text !== '').join('; ');
  const where = `${count > 1 ? 'first at' : 'at'} ${place}`;
  return printable(placesIn(report.info.files, back, why === '' ? where : `${where}: ${why}`));
}
