import { ruleText } from '../../reducers/rules.js';
import type { Failure } from '../failures.js';
import type { Report } from '../report.js';
import { shortPlaceOf } from './event.js';
import { counted, grouped, printable, type Style, wrapped } from './style.js';

const SHOWN = 8;

/** Why calls failed, where the model agrees that they had to: the answer to "why did MAP_DMA fail". */
export function failuresText(report: Report, style: Style): string {
  const { failures } = report;
  if (failures.length === 0) return '';
  const shown = failures.slice(0, SHOWN);
  const width = Math.max(...shown.map(({ count }) => grouped(count).length));
  const indent = ' '.repeat(width + 4);
  const lines = shown.map(
    (failure) =>
      `  ${grouped(failure.count).padStart(width)}  ${wrapped(reasonOf(report, failure), style.widthColumns, indent)}`,
  );
  const rest = failures.slice(SHOWN).reduce((sum, { count }) => sum + count, 0);
  if (rest > 0)
    lines.push(`  ${' '.repeat(width)}  ${style.paint.dim(`and ${counted(rest, 'other')}; show lists all`)}`);
  return `failed, as they had to\n${lines.join('\n')}`;
}

function reasonOf(report: Report, failure: Failure): string {
  const why = ruleText(failure.rule) ?? failure.rule;
  const state = failure.state === '' ? '' : ` (${failure.state})`;
  const place = shortPlaceOf(report.info.files, failure);
  const first = failure.count > 1 ? `first at ${place}` : `at ${place}`;
  return printable(`${failure.call} ${failure.errno}: ${why}; ${first}${state}`);
}
