import type { Update } from '../fold.js';
import { placeOf } from './event.js';
import { counted, grouped, printable, type Style } from './style.js';

/** What a replay says while it runs. */

/** The progress line; the payload is an {@link Update}. */
export function progressFormat(style: Style): (options: unknown, params: unknown, payload: unknown) => string {
  return (_options, _params, payload) => {
    const { events, calls, findingCount } = payload as Update;
    const parts = [
      counted(events, 'event'),
      `${grouped(calls.total)} device calls`,
      calls.diverge > 0 ? style.paint.red(counted(calls.diverge, 'divergence')) : '',
      findingCount > 0 ? style.paint.yellow(counted(findingCount, 'finding')) : '',
    ];
    return parts.filter((part) => part !== '').join(', ');
  };
}

/** One line for each divergence and finding of a batch. */
export function newsText(files: readonly string[], update: Update, style: Style): string {
  const { paint } = style;
  const lines = [
    ...update.newDivergences.map((d) => `${placeOf(files, d)}: ${paint.red('diverges')}: ${d.call}, ${d.rule}`),
    ...update.newFindings.map((f) => `${placeOf(files, f)}: ${paint.yellow(f.severity)}: ${printable(f.message)}`),
  ];
  return lines.map((line) => `${line}\n`).join('');
}
